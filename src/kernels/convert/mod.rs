//! Bulk conversions between f32 and the 16-bit floats, IEEE half (f16) and bfloat16 (bf16).
//!
//! Contract: widening is exact. Narrowing rounds to nearest, ties to even, through denormals; numbers too large
//! become ∞; NaN stays NaN (which one is not promised). Any alignment; element i depends on element i only, so any
//! split gives the same bits. Input and output do not overlap.

#[cfg(test)]
mod tests;

use super::info::KernelInfo;
use super::levels::{self, At, LEVELS};
use super::routine::{Code, Routine};
use super::table::{self, Entry};
use crate::isa::{Float16, Isa, IsaId, Kept16};

/// `n` elements, and the array that they are converted to.
struct Args<S, D> {
    src: *const S,
    dst: *mut D,
    n: usize,
}

/// A conversion from `S` to `D`.
#[derive(Clone, Copy, Debug)]
pub struct Convert<S, D> {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<Args<S, D>>,
}

/// f32 to a 16-bit float.
pub type Narrow = Convert<f32, u16>;

/// A 16-bit float to f32.
pub type Widen = Convert<u16, f32>;

impl<S, D> Convert<S, D> {
    const fn at<I: Isa, R: Routine<Args<S, D>, Output = ()>>(op: &'static str, dtype: &'static str) -> Self {
        Self { info: KernelInfo::of::<I>(op, dtype), code: Code::of::<I, R>() }
    }

    /// Converts as many elements as both slices have; they should have one length.
    pub fn apply(&self, src: &[S], dst: &mut [D]) {
        debug_assert_eq!(src.len(), dst.len());
        let args = Args { src: src.as_ptr(), dst: dst.as_mut_ptr(), n: src.len().min(dst.len()) };
        // SAFETY: `select` has proved the level; both slices hold n elements, and the output is borrowed mutably.
        unsafe { self.code.run(&args) }
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
pub struct ConvertKernels {
    /// f32 to IEEE half.
    pub to_f16: Narrow,
    /// f32 to bfloat16.
    pub to_bf16: Narrow,
    /// IEEE half to f32.
    pub from_f16: Widen,
    /// bfloat16 to f32.
    pub from_bf16: Widen,
}

impl<I: Isa> At<I> for ConvertKernels {
    const KERNELS: Self = Self {
        to_f16: Narrow::at::<I, Narrowing<HALF>>("from_f32", "f16"),
        to_bf16: Narrow::at::<I, Narrowing<BRAIN>>("from_f32", "bf16"),
        from_f16: Widen::at::<I, Widening<HALF>>("to_f32", "f16"),
        from_bf16: Widen::at::<I, Widening<BRAIN>>("to_f32", "bf16"),
    };
}

static TABLE: [ConvertKernels; LEVELS] = levels::table();

impl Entry for ConvertKernels {
    fn isa(&self) -> IsaId {
        self.to_f16.info.isa
    }
}

impl ConvertKernels {
    /// The best kernels that run at `isa` and on this CPU.
    pub fn select(isa: IsaId) -> Self {
        table::choose(&TABLE, isa)
    }

    fn infos(&self) -> [KernelInfo; 4] {
        let Self { to_f16, to_bf16, from_f16, from_bf16 } = self;
        [to_f16.info, to_bf16.info, from_f16.info, from_bf16.info]
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().flat_map(ConvertKernels::infos)
}

/// IEEE half, as the type of a conversion.
const HALF: bool = true;
/// bfloat16, as the type of a conversion.
const BRAIN: bool = false;

/// Rounds f32 to the type.
struct Narrowing<const TYPE: bool>;

impl<const TYPE: bool> Narrowing<TYPE> {
    /// # Safety
    /// `p` is writable for a vector.
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, p: *mut u16, x: I::F32) {
        // SAFETY: as demanded.
        unsafe {
            match TYPE {
                HALF => isa.store_16(Kept16::Half, p, isa.to_bits(x)),
                BRAIN => isa.store_bf16(p, x),
            }
        }
    }
}

impl<const TYPE: bool> Routine<Args<f32, u16>> for Narrowing<TYPE> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, &Args { src, dst, n }: &Args<f32, u16>) {
        const { assert!(I::LANES <= 16) };
        let (mut i, mut last) = (0, [0u16; 16]);
        // SAFETY: both arrays hold n elements: i + LANES ≤ n in the loop, i + (n − i) = n behind it. `last` holds a vector.
        unsafe {
            while i + I::LANES <= n {
                Self::store(isa, dst.add(i), isa.load(src.add(i)));
                i += I::LANES;
            }
            if i < n {
                Self::store(isa, last.as_mut_ptr(), isa.load_first(src.add(i), n - i));
                last.as_ptr().copy_to_nonoverlapping(dst.add(i), n - i);
            }
        }
    }
}

/// Widens the type to f32.
struct Widening<const TYPE: bool>;

impl<const TYPE: bool> Routine<Args<u16, f32>> for Widening<TYPE> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, &Args { src, dst, n }: &Args<u16, f32>) {
        const { assert!(I::LANES <= 16) };
        let (mut i, mut last) = (0, [0u16; 16]);
        // SAFETY: both arrays hold n elements: i + LANES ≤ n in the loop, i + (n − i) = n behind it. `last` holds a vector.
        unsafe {
            let load = |p| isa.load_16(if TYPE == HALF { Float16::Half } else { Float16::Brain }, p);
            while i + I::LANES <= n {
                isa.store(dst.add(i), load(src.add(i)));
                i += I::LANES;
            }
            if i < n {
                last.as_mut_ptr().copy_from_nonoverlapping(src.add(i), n - i);
                isa.store_first(dst.add(i), load(last.as_ptr()), n - i);
            }
        }
    }
}
