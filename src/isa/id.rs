//! Names of the instruction-set levels, and which of them this CPU has.
//! [`IsaId::run`] is the way from a name to code that is compiled for the level.
//! A level that this build doesn't know, or the CPU lacks, runs nothing.

#[cfg(target_arch = "x86_64")]
use super::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};
use super::{Isa, Scalar, SimdBody};
#[cfg(target_arch = "aarch64")]
use super::{Neon, NeonBf16, NeonDotprod};
use crate::error::{Error, Result};

/// Names of the instruction-set levels, in order of preference within one architecture: `Ord` compares preference.
///
/// A level includes all lower ones of its architecture, with one exception: no level with AVX-512 includes
/// [`IsaId::AvxVnni`], an extension of [`IsaId::Avx2`] that processors with AVX-512 may lack. So compare levels with
/// [`IsaId::includes`], not with `<`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IsaId {
    /// Portable Rust, no intrinsics.
    Scalar,
    /// AVX2 + FMA + F16C.
    Avx2,
    /// [`IsaId::Avx2`] + AVX-VNNI, for processors without AVX-512.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL (and all of [`IsaId::Avx2`]).
    Avx512,
    /// [`IsaId::Avx512`] + VNNI.
    Avx512Vnni,
    /// [`IsaId::Avx512Vnni`] + BF16.
    Avx512Bf16,
    /// [`IsaId::Avx512Bf16`] + AMX tiles of bfloat16 and bytes, which the operating system lets this process use.
    Amx,
    /// Armv8 Advanced SIMD.
    Neon,
    /// [`IsaId::Neon`] + dotprod.
    NeonDotprod,
    /// [`IsaId::NeonDotprod`] + bf16.
    NeonBf16,
}

impl IsaId {
    /// Every level, lowest first.
    pub const ALL: [IsaId; 10] = [
        IsaId::Scalar,
        IsaId::Avx2,
        IsaId::AvxVnni,
        IsaId::Avx512,
        IsaId::Avx512Vnni,
        IsaId::Avx512Bf16,
        IsaId::Amx,
        IsaId::Neon,
        IsaId::NeonDotprod,
        IsaId::NeonBf16,
    ];

    /// The name used by `SMALLMIND_ISA` and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            IsaId::Scalar => "scalar",
            IsaId::Avx2 => "avx2",
            IsaId::AvxVnni => "avxvnni",
            IsaId::Avx512 => "avx512",
            IsaId::Avx512Vnni => "avx512vnni",
            IsaId::Avx512Bf16 => "avx512bf16",
            IsaId::Amx => "amx",
            IsaId::Neon => "neon",
            IsaId::NeonDotprod => "neon-dotprod",
            IsaId::NeonBf16 => "neon-bf16",
        }
    }

    /// Whether this CPU has the level, and this build knows it.
    pub fn is_available(self) -> bool {
        self.run(Nothing).is_some()
    }

    /// The levels of this CPU, lowest first; never empty.
    pub fn available() -> impl DoubleEndedIterator<Item = IsaId> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The highest level of this CPU.
    pub fn detect() -> IsaId {
        Self::available().next_back().unwrap_or(IsaId::Scalar)
    }

    /// Whether every CPU with this level has `lower` too.
    pub fn includes(self, lower: IsaId) -> bool {
        let arm = |isa| isa >= IsaId::Neon;
        match lower {
            IsaId::Scalar => true,
            IsaId::AvxVnni => self == lower,
            _ => lower <= self && arm(lower) == arm(self),
        }
    }

    /// Runs the body at this level; `None` where the CPU lacks it.
    pub fn run<B: SimdBody>(self, body: B) -> Option<B::Output> {
        match self {
            IsaId::Scalar => Scalar::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "x86_64")]
            IsaId::Avx2 => Avx2::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "x86_64")]
            IsaId::AvxVnni => AvxVnni::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "x86_64")]
            IsaId::Avx512 => Avx512::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "x86_64")]
            IsaId::Avx512Vnni => Avx512Vnni::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "x86_64")]
            IsaId::Avx512Bf16 => Avx512Bf16::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "x86_64")]
            IsaId::Amx => Amx::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "aarch64")]
            IsaId::Neon => Neon::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "aarch64")]
            IsaId::NeonDotprod => NeonDotprod::new().map(|isa| isa.vectorize(body)),
            #[cfg(target_arch = "aarch64")]
            IsaId::NeonBf16 => NeonBf16::new().map(|isa| isa.vectorize(body)),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// The level of that name, if this CPU has it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown or unavailable name; it lists the available ones.
    pub fn parse(name: &str) -> Result<IsaId> {
        Self::available().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::available().map(IsaId::name).collect();
            Error::invalid(format!(
                "no instruction set '{name}' on this CPU; available: {}",
                names.join(", ")
            ))
        })
    }
}

/// An empty body: whether it runs tells whether the CPU has a level.
struct Nothing;

impl SimdBody for Nothing {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {}
}
