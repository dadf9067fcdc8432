//! Matmul with block-quantised weights and activations quantised on the fly.
//! Arithmetic is exact within a block of 32 (integers), and in f32 from block to block.
//! [`QmatmulKernels`] are the kernels of one level: they quantise rows of X, and there is a [`Kernel`] for each type of
//! weights, which packs them once and runs portions.
//!
//! # Contract
//! `Y = X · Wᵀ (+ bias) (+ Y)`, see [`Portion`]. K is a multiple of the type's block, m and n are anything.
//!
//! **X** is `m` rows in the format of [`activations`], of one or two signed bytes an element, as the
//! mode says; [`QmatmulKernels::row_bytes`] from one row to the next. Panels are the same for all modes.
//!
//! **W** is packed into panels of NR = two vectors of outputs ([`Kernel::nr`]), one after the other. A panel is a run
//! of units, of 32 K-steps where the type's blocks have that many (and for types packed as bytes), else of 256.
//! A unit is
//!
//! | part | bytes | |
//! |---|---|---|
//! | levels of 32 K-steps, one or eight times | 8 groups × NR × 4 | byte `4·c + i` of group g: K-step `4·g + i` of column c |
//! | | or half or a quarter of that | where levels have 4 (2) bits: that many groups share the bytes, the first in the lowest bits |
//! | upper bits | 2 × NR × 4 or NR × 4 | after each 32 K-steps; of 6 bits the upper 2, of 5 and 3 bits the upper one, shared by 4 or 8 groups |
//! | sub-scales | NR for each 16 or 32 K-steps | K-quants and IQ4_XS: signed bytes; then as many minimums. Q2_K has both in one byte |
//! | scales | NR × 2 | f16, as in the file (MXFP4: NR × 1, exponents) |
//! | minimums | NR × 2 | f16, of types that have them |
//!
//! IQ1, IQ2, IQ3, TQ and NVFP4 are packed as levels of 8 bits and an f32 scale for each 16 K-steps: right, not small.
//! Levels of 8 bits are offset by 128 where the instruction multiplies unsigned by signed (VNNI), else signed; others
//! are unsigned codes. Columns past N are zero; their results are computed and not stored. No pointer needs an
//! alignment (panels run fastest from a multiple of 64).
//!
//! **Order.** An output starts as `Y` (with `accumulate`, else 0), plus its bias if there is one. Then for each 32
//! K-steps in order: `y = fma(t, d_x, y)`. With Σ the exact integer sum of (level − zero)·x and s the scale of the
//! weights (a product of at most 22 bits, exact), `t = round(Σ·s)`; with a low byte
//! `t = round(round(256·Σ₀ + Σ₁)·s/256)`, which is the same where the low byte is zero. Types with scales of 16
//! take both halves: `t = fma(Σ'', s'', round(Σ'·s'))`. Then, with minimums, `y = fma(m, d_x·Σx, y)`, for types with
//! scales of 16 once for each half. A scale whose product with 1.5·2²³ overflows makes its outputs NaN.
//! The order is the same for any m and any split into portions, and so are the bits, on all vector levels.
//! (The scalar level, without a fused multiply-add, rounds products too.)

use crate::error::{Error, Result};
use crate::isa::{DotI8, Isa, IsaId, Scalar};
use crate::kernels::info::KernelInfo;
use crate::kernels::portion::Portion;
use crate::kernels::routine::at_level;
use crate::kernels::table;
use crate::quant::DType;

pub mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod form;
mod fused;
#[cfg(test)]
mod fused_tests;
mod layout;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod sweep;
#[cfg(test)]
mod tests;
mod tile;
mod wide;

pub use activations::Activations;
use form::Format;
pub use fused::{BlockFunction, BlocksArgs, NormQuantizeArgs};
pub use layout::PanelLayout;
#[cfg(target_arch = "x86_64")]
use pairs::Pairs;
use sweep::Sweep;
use tile::{Fours, Tiles};

/// Computes a portion, see [`Kernel::run`]; rows that fill no tile with a sweep.
type RunTiles = unsafe fn(&Portion, &Sweep);
/// The kernel for one type of weights at one level: how they are packed, and the loops that multiply them.
pub struct Kernel {
    /// Name, level, tile.
    pub info: KernelInfo,
    /// Type of the weights, and how they lie in panels.
    pub layout: PanelLayout,
    /// The loops on vectors.
    sweep: Sweep,
    /// Those with tiles, for [`Activations::Bits16`].
    tiles: Option<RunTiles>,
}

/// The kernels of one level.
struct Level {
    isa: IsaId,
    quantize_rows: unsafe fn(&activations::Quantize),
    fused: fused::Fused,
    kernels: [Kernel; DTYPES.len()],
}

/// Every kernel of the family, level by level.
static TABLE: &[Level] = &[
    vectors::<Fours<Scalar>>(),
    #[cfg(target_arch = "x86_64")]
    vectors::<Pairs<crate::isa::Avx2>>(),
    #[cfg(target_arch = "x86_64")]
    vectors::<Fours<crate::isa::AvxVnni>>(),
    #[cfg(target_arch = "x86_64")]
    vectors::<Pairs<crate::isa::Avx512>>(),
    #[cfg(target_arch = "x86_64")]
    vectors::<Fours<crate::isa::Avx512Vnni>>(),
    #[cfg(target_arch = "x86_64")]
    level::<Fours<crate::isa::Avx512Vnni>, true>(IsaId::Amx, crate::isa::amx::ROWS),
    #[cfg(target_arch = "aarch64")]
    vectors::<Fours<crate::isa::Neon>>(),
    #[cfg(target_arch = "aarch64")]
    vectors::<Fours<crate::isa::NeonDotprod>>(),
];

/// A level that multiplies in vectors.
const fn vectors<T: Tiles>() -> Level {
    const { assert!(T::BY_PAIRS == activations::keeps_words(T::Isa::ID)) };
    level::<T, false>(T::Isa::ID, T::MAX_ROWS[0])
}

/// A level with the vectors of `T`, and `TILES` of AMX where 16-bit rows fill them.
const fn level<T: Tiles, const TILES: bool>(isa: IsaId, mr: usize) -> Level {
    Level {
        isa,
        quantize_rows: at_level::<T::Isa, activations::Quantize>,
        fused: fused::Fused::of::<T::Isa>(),
        kernels: [
            kernel::<T, form::Q8_0, TILES>(DType::Q8_0, isa, mr),
            kernel::<T, form::Q4_0, TILES>(DType::Q4_0, isa, mr),
            kernel::<T, form::Q4_1, TILES>(DType::Q4_1, isa, mr),
            kernel::<T, form::Q5_0, TILES>(DType::Q5_0, isa, mr),
            kernel::<T, form::Q5_1, TILES>(DType::Q5_1, isa, mr),
            kernel::<T, form::Q2K, TILES>(DType::Q2_K, isa, mr),
            kernel::<T, form::Q3K, TILES>(DType::Q3_K, isa, mr),
            kernel::<T, form::Q4K, TILES>(DType::Q4_K, isa, mr),
            kernel::<T, form::Q5K, TILES>(DType::Q5_K, isa, mr),
            kernel::<T, form::Q6K, TILES>(DType::Q6_K, isa, mr),
            kernel::<T, form::Iq4Nl, TILES>(DType::IQ4_NL, isa, mr),
            kernel::<T, form::Iq4Xs, TILES>(DType::IQ4_XS, isa, mr),
            kernel::<T, form::Mxfp4, TILES>(DType::MXFP4, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::NVFP4, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::IQ1_S, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::IQ1_M, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::IQ2_XXS, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::IQ2_XS, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::IQ2_S, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::IQ3_XXS, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::IQ3_S, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::TQ1_0, isa, mr),
            kernel::<T, form::Plain, TILES>(DType::TQ2_0, isa, mr),
        ],
    }
}

/// The kernel for weights of type `dtype`, which are packed as `F` says.
const fn kernel<T: Tiles, F: Format, const TILES: bool>(dtype: DType, isa: IsaId, mr: usize) -> Kernel {
    let nr = wide::VECTORS * T::Isa::LANES;
    Kernel {
        info: KernelInfo { op: "qmatmul", dtype: dtype.name(), isa, mr, nr },
        layout: PanelLayout { dtype, nr, signed: T::Isa::SIGNED },
        sweep: Sweep::of::<T, F>(),
        tiles: if TILES { tiles::<F>() } else { None },
    }
}

#[cfg(target_arch = "x86_64")]
const fn tiles<F: Format>() -> Option<RunTiles> {
    Some(amx::entry::<F>)
}

#[cfg(not(target_arch = "x86_64"))]
const fn tiles<F: Format>() -> Option<RunTiles> {
    panic!("no level of this architecture has tiles")
}

/// Types with a quantised kernel.
pub const DTYPES: [DType; 23] = [
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::IQ4_NL,
    DType::IQ4_XS,
    DType::MXFP4,
    DType::NVFP4,
    DType::IQ1_S,
    DType::IQ1_M,
    DType::IQ2_XXS,
    DType::IQ2_XS,
    DType::IQ2_S,
    DType::IQ3_XXS,
    DType::IQ3_S,
    DType::TQ1_0,
    DType::TQ2_0,
];

/// The kernels of one level, and the mode of the activations that they multiply. A value: copy it, hand it on.
#[derive(Clone, Copy)]
pub struct QmatmulKernels {
    level: &'static Level,
    activations: Activations,
}

impl table::Entry for Level {
    fn isa(&self) -> IsaId {
        self.isa
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.info.fmt(f)
    }
}

impl std::fmt::Debug for QmatmulKernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { level, activations } = self;
        f.debug_struct("QmatmulKernels").field("isa", &level.isa).field("activations", activations).finish()
    }
}

impl QmatmulKernels {
    /// The kernels of the highest level that `isa` includes and this CPU has, with [`Activations::Bits16`].
    pub fn select(isa: IsaId) -> Self {
        let level = table::best(TABLE.iter(), isa).expect("the scalar level runs anywhere");
        Self { level, activations: Activations::default() }
    }

    /// The same level's kernels for activations of that kind.
    pub fn with_activations(self, activations: Activations) -> Self {
        Self { activations, ..self }
    }

    /// How activations are quantised.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Bytes from one quantised row of `k` elements to the next: a multiple of 64.
    pub fn row_bytes(&self, k: usize) -> usize {
        self.activations.row_bytes(k)
    }

    /// The level.
    pub fn isa(&self) -> IsaId {
        self.level.isa
    }

    /// The kernel for weights of this type; `None` for a type without a quantised kernel.
    pub fn kernel(&self, dtype: DType) -> Option<&'static Kernel> {
        self.level.kernels.iter().find(|kernel| kernel.layout.dtype == dtype)
    }

    /// Quantises `rows` rows of `k` f32, `ldx` floats apart, into rows of `row_bytes(k)` bytes one after
    /// the other, in the format of [`activations`]. `k` is a multiple of 32 (a rest is left out).
    ///
    /// # Safety
    /// `x` is readable for `k` floats at each of `rows` multiples of `ldx`; `out` is writable for
    /// `rows * row_bytes(k)` bytes. No alignment is needed.
    #[doc(hidden)]
    pub unsafe fn quantize_rows(&self, x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8) {
        // SAFETY: this CPU has the level, since `select` chose it; the rows are as long as this function demands.
        unsafe {
            let Self { activations, .. } = *self;
            (self.level.quantize_rows)(&activations::Quantize { activations, x, ldx, rows, k, out })
        }
    }

    /// Normalises rows and quantises them, with the bits of RMSNorm and [`QmatmulKernels::quantize_rows`] one after the other.
    ///
    /// # Safety
    /// Each row of `x`, and `gamma`, is readable for `k` floats; each of `out` is writable for `row_bytes(k)` bytes
    /// and overlaps nothing else. `k` is a multiple of 32. No alignment is needed.
    #[doc(hidden)]
    pub unsafe fn norm_quantize(&self, args: &NormQuantizeArgs) {
        // SAFETY: this CPU has the level, since `select` chose it; the rows are as long as this function demands.
        unsafe { (self.level.fused.norm)(&fused::Norm(self.activations, *args)) }
    }

    /// Quantises f(x), with the bits of f's kernel and [`QmatmulKernels::quantize_rows`] one after the other.
    ///
    /// # Safety
    /// Each row of `x` (and of a gate's factors, which are as far apart) is readable for `len` floats; each of `out` is
    /// writable where its blocks from `block` on are, and overlaps nothing else. `len` and `k` are multiples of 32. No
    /// alignment is needed.
    #[doc(hidden)]
    pub unsafe fn quantize_blocks(&self, args: &BlocksArgs, function: BlockFunction) {
        let Self { level: Level { fused, .. }, activations } = *self;
        // SAFETY: this CPU has the level, since `select` chose it; the rows are as long as this function demands.
        unsafe {
            match function {
                BlockFunction::Identity => (fused.blocks)(&fused::PlainBlocks(activations, *args)),
                BlockFunction::Gelu => (fused.gelu)(&fused::GeluBlocks(activations, *args)),
                BlockFunction::SiluGate(up) => (fused.gate)(&fused::Gate { activations, gate: *args, up }),
            }
        }
    }
}

impl Kernel {
    /// Outputs of a packed panel.
    pub fn nr(&self) -> usize {
        self.layout.nr
    }

    /// Panels of `n` outputs.
    pub fn panels(&self, n: usize) -> usize {
        n.div_ceil(self.nr())
    }

    /// Bytes of one packed panel for sums of length `k`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where `k` is no whole number of the type's blocks; [`Error::InvalidArgument`] where
    /// the size overflows.
    pub fn panel_bytes(&self, k: usize) -> Result<usize> {
        self.layout.panel_bytes(k)
    }

    /// Bytes of a packed matrix of `n` outputs and `k` inputs: all its panels.
    ///
    /// # Errors
    /// As [`Kernel::panel_bytes`].
    pub fn packed_bytes(&self, n: usize, k: usize) -> Result<usize> {
        let bytes = self.panel_bytes(k)?.checked_mul(self.panels(n));
        bytes.ok_or_else(|| Error::invalid(format!("the size of {n} × {k} packed weights overflows")))
    }

    /// Computes a portion: rows that [`QmatmulKernels`] of this level and with these `activations` have quantised,
    /// weights that this kernel's layout has packed.
    ///
    /// # Safety
    /// The CPU has `info.isa`. The portion's pointers are valid for the shapes that the [contract](self) and
    /// [`Portion`] state, `k` is a multiple of 32, and nothing else writes to its part of Y.
    #[inline]
    #[doc(hidden)]
    pub unsafe fn run(&self, activations: Activations, portion: &Portion) {
        // SAFETY: the CPU has the level, and all memory that the portion names is there.
        unsafe {
            match self.tiles {
                Some(tiles) if activations == Activations::Bits16 => tiles(portion, &self.sweep),
                _ => self.sweep.run(portion, activations.bytes()),
            }
        }
    }
}

/// Name, level and tile of every kernel of the family, whether or not this CPU can run it.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().flat_map(|level| {
        let row_wise = ["quantize", "rms_norm_quantize", "swiglu_quantize", "gelu_quantize"];
        let row_wise = row_wise.map(|op| KernelInfo { op, dtype: "F32", isa: level.isa, mr: 1, nr: 1 });
        row_wise.into_iter().chain(level.kernels.iter().map(|kernel| kernel.info))
    })
}
