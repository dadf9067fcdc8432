//! How a cache stores its keys and values: the types, how each is rounded when stored and widened when read.

use super::layout::RUN;
use crate::isa::{Isa, Kept16};
use crate::kernels::vectors::Row;

/// The type that a cache stores its elements in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // the name that users know
pub enum CacheType {
    /// Four bytes, exact.
    F32,
    /// Two bytes: IEEE half, rounded to nearest even; beyond 65504 it is ∞.
    #[default]
    F16,
    /// One byte and a 64th of a factor: runs of up to 64 elements share an f32 factor, 1/127 of their largest.
    Q8_0,
}

impl CacheType {
    /// Every type.
    pub const ALL: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::Q8_0];

    /// As it is written in options and reports.
    pub const fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Q8_0 => "q8_0",
        }
    }

    /// Bytes of an element.
    #[inline(always)]
    pub(super) const fn bytes(self) -> usize {
        match self {
            CacheType::F32 => 4,
            CacheType::F16 => 2,
            CacheType::Q8_0 => 1,
        }
    }

    /// Whether runs of elements have a factor.
    #[inline(always)]
    pub(super) const fn scaled(self) -> bool {
        matches!(self, CacheType::Q8_0)
    }
}

/// A type's arithmetic. A widened element is the stored one exactly, or its rounded product with its run's factor:
/// the same bits, wherever it is widened.
pub(super) trait Stored: 'static {
    const TYPE: CacheType;
    type Element: Copy;

    /// LANES elements widened, without their factor.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load<I: Isa>(isa: I, p: *const Self::Element) -> I::F32;

    /// Rounds the `n` floats of a run to `to`, which it fills to a whole vector with zeros; their factor.
    ///
    /// # Safety
    /// `to` is writable for whole vectors.
    unsafe fn narrow<I: Isa>(isa: I, from: Row, n: usize, to: *mut Self::Element) -> f32;
}

/// [`CacheType::F32`].
pub(super) struct F32;
/// [`CacheType::F16`].
pub(super) struct F16;
/// [`CacheType::Q8_0`].
pub(super) struct Q8;

impl Stored for F32 {
    const TYPE: CacheType = CacheType::F32;
    type Element = f32;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const f32) -> I::F32 {
        // SAFETY: `p` is readable for LANES elements.
        unsafe { isa.load(p) }
    }

    #[inline(always)]
    unsafe fn narrow<I: Isa>(isa: I, from: Row, n: usize, to: *mut f32) -> f32 {
        for i in (0..n).step_by(I::LANES) {
            // SAFETY: the caller promises room for whole vectors.
            unsafe { isa.store(to.add(i), from.load(isa, i, (n - i).min(I::LANES))) }
        }
        1.0
    }
}

impl Stored for F16 {
    const TYPE: CacheType = CacheType::F16;
    type Element = u16;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const u16) -> I::F32 {
        // SAFETY: `p` is readable for LANES elements.
        unsafe { isa.load_f16(p) }
    }

    #[inline(always)]
    unsafe fn narrow<I: Isa>(isa: I, from: Row, n: usize, to: *mut u16) -> f32 {
        for i in (0..n).step_by(I::LANES) {
            // SAFETY: the caller promises room for whole vectors.
            unsafe {
                let x = isa.to_bits(from.load(isa, i, (n - i).min(I::LANES)));
                isa.store_16(Kept16::Half, to.add(i), x);
            }
        }
        1.0
    }
}

impl Stored for Q8 {
    const TYPE: CacheType = CacheType::Q8_0;
    type Element = i8;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const i8) -> I::F32 {
        // SAFETY: `p` is readable for LANES elements.
        isa.to_f32(unsafe { isa.load_i8(p) })
    }

    #[inline(always)]
    unsafe fn narrow<I: Isa>(isa: I, from: Row, n: usize, to: *mut i8) -> f32 {
        debug_assert!(n <= RUN);
        // NaN gets lost in a maximum, but not in a sum of products with 0, and ∞ becomes one there.
        let (mut largest, mut unknown) = (isa.zero(), isa.zero());
        for i in (0..n).step_by(I::LANES) {
            let x = from.load(isa, i, (n - i).min(I::LANES));
            largest = isa.max(isa.abs(x), largest);
            unknown = isa.mul_add(x, isa.zero(), unknown);
        }
        let (largest, unknown) = (isa.max_lanes(largest), isa.sum_lanes(unknown));
        let scale = largest / 127.0;
        // Below the smallest normal factor a run counts as zeros; one with NaN or ∞ is NaN as a whole.
        let zeros = unknown.is_nan() || scale < f32::MIN_POSITIVE;
        let inverse = isa.splat(if zeros { 0.0 } else { 127.0 / largest });
        for i in (0..n).step_by(I::LANES) {
            let x = from.load(isa, i, (n - i).min(I::LANES));
            let rounded = isa.to_i32(isa.mul(x, inverse));
            // SAFETY: the caller promises room for whole vectors.
            unsafe { isa.store_i8(to.add(i), if zeros { isa.splat_i32(0) } else { rounded }) }
        }
        if unknown.is_nan() {
            f32::NAN
        } else if zeros {
            0.0
        } else {
            scale
        }
    }
}
