//! Bulk conversions between f32 and the 16-bit floats, IEEE half (f16) and bfloat16 (bf16).
//!
//! Contract: widening is exact. Narrowing rounds to nearest, ties to even, through denormals; what is too large
//! becomes ∞; NaN stays NaN (which one is not promised). Any alignment; element i depends on element i only, so any
//! split gives the same bits. Input and output do not overlap.

#[cfg(test)]
mod tests;

use super::info::KernelInfo;
use super::levels::{self, Levels};
use crate::isa::{Isa, IsaId, SimdBody};
use std::marker::PhantomData;

/// f32 to a 16-bit float.
#[derive(Clone, Copy)]
pub struct Narrow {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(src: *const f32, dst: *mut u16, n: usize),
}

impl Narrow {
    /// Converts as far as both reach; they should have one length.
    pub fn apply(&self, src: &[f32], dst: &mut [u16]) {
        debug_assert_eq!(src.len(), dst.len());
        // SAFETY: both slices hold that many elements.
        unsafe { (self.run)(src.as_ptr(), dst.as_mut_ptr(), src.len().min(dst.len())) }
    }

    /// Converts `n` elements.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `n` elements; they do not overlap.
    pub unsafe fn run(&self, src: *const f32, dst: *mut u16, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(src, dst, n) }
    }
}

/// A 16-bit float to f32.
#[derive(Clone, Copy)]
pub struct Widen {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(src: *const u16, dst: *mut f32, n: usize),
}

impl Widen {
    /// Converts as far as both reach; they should have one length.
    pub fn apply(&self, src: &[u16], dst: &mut [f32]) {
        debug_assert_eq!(src.len(), dst.len());
        // SAFETY: both slices hold that many elements.
        unsafe { (self.run)(src.as_ptr(), dst.as_mut_ptr(), src.len().min(dst.len())) }
    }

    /// Converts `n` elements.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `n` elements; they do not overlap.
    pub unsafe fn run(&self, src: *const u16, dst: *mut f32, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(src, dst, n) }
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy)]
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

impl ConvertKernels {
    /// The best kernels that run at `isa`.
    pub fn select(isa: IsaId) -> Self {
        levels::select(isa)
    }
}

impl Levels for ConvertKernels {
    fn at<I: Isa>() -> Self {
        let info = |op, dtype| KernelInfo { op, dtype, isa: I::ID, mr: 1, nr: 1 };
        Self {
            to_f16: Narrow { info: info("from_f32", "f16"), run: narrow::<I, Half> },
            to_bf16: Narrow { info: info("from_f32", "bf16"), run: narrow::<I, Brain> },
            from_f16: Widen { info: info("to_f32", "f16"), run: widen::<I, Half> },
            from_bf16: Widen { info: info("to_f32", "bf16"), run: widen::<I, Brain> },
        }
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    levels::all::<ConvertKernels>()
        .into_iter()
        .flat_map(|(_, set)| [set.to_f16.info, set.to_bf16.info, set.from_f16.info, set.from_bf16.info])
}

/// A 16-bit float type. Implementations are `#[inline(always)]`.
trait Short {
    /// # Safety
    /// `p` is readable for `LANES` elements.
    unsafe fn load<I: Isa>(isa: I, p: *const u16) -> I::F32;
    /// # Safety
    /// `p` is writable for `LANES` elements.
    unsafe fn store<I: Isa>(isa: I, p: *mut u16, x: I::F32);
}

/// IEEE half.
struct Half;

impl Short for Half {
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const u16) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { isa.load_f16(p) }
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, p: *mut u16, x: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_f16(p, x) }
    }
}

/// bfloat16.
struct Brain;

impl Short for Brain {
    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const u16) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { isa.load_bf16(p) }
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, p: *mut u16, x: I::F32) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_bf16(p, x) }
    }
}

/// # Safety
/// `I` is available; pointers as [`Narrow::run`] says.
unsafe fn narrow<I: Isa, T: Short>(src: *const f32, dst: *mut u16, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Narrowing { src, dst, n, short: PhantomData::<T> })
}

/// # Safety
/// `I` is available; pointers as [`Widen::run`] says.
unsafe fn widen<I: Isa, T: Short>(src: *const u16, dst: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Widening { src, dst, n, short: PhantomData::<T> })
}

struct Narrowing<T> {
    src: *const f32,
    dst: *mut u16,
    n: usize,
    short: PhantomData<T>,
}

impl<T: Short> SimdBody for Narrowing<T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        const { assert!(I::LANES <= 16) };
        let Self { src, dst, n, .. } = self;
        let mut i = 0;
        while i + I::LANES <= n {
            // SAFETY: i + LANES ≤ n.
            unsafe { T::store(isa, dst.add(i), isa.load(src.add(i))) };
            i += I::LANES;
        }
        if i < n {
            let mut last = [0u16; 16];
            // SAFETY: i + (n − i) = n, and `last` holds a vector.
            unsafe {
                T::store(isa, last.as_mut_ptr(), isa.load_first(src.add(i), n - i));
                last.as_ptr().copy_to_nonoverlapping(dst.add(i), n - i);
            }
        }
    }
}

struct Widening<T> {
    src: *const u16,
    dst: *mut f32,
    n: usize,
    short: PhantomData<T>,
}

impl<T: Short> SimdBody for Widening<T> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        const { assert!(I::LANES <= 16) };
        let Self { src, dst, n, .. } = self;
        let mut i = 0;
        while i + I::LANES <= n {
            // SAFETY: i + LANES ≤ n.
            unsafe { isa.store(dst.add(i), T::load(isa, src.add(i))) };
            i += I::LANES;
        }
        if i < n {
            let mut last = [0u16; 16];
            // SAFETY: i + (n − i) = n, and `last` holds a vector.
            unsafe {
                last.as_mut_ptr().copy_from_nonoverlapping(src.add(i), n - i);
                isa.store_first(dst.add(i), T::load(isa, last.as_ptr()), n - i);
            }
        }
    }
}
