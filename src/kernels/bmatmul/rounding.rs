//! Rows of f32 rounded to bfloat16, to the nearest, ties to even; NaN stays NaN.
//! Levels with a dot product of bfloat16 store pairs, the others f32 with the lower halves cleared.

use crate::isa::{DotBf16, Isa, SimdBody};

/// Rounds a row of `k` f32 into `bytes` bytes, a multiple of 64 with room for it; the rest becomes zeros.
/// Its safety contract: that memory is there, and the CPU has the instruction set.
pub(super) type RoundRows = unsafe fn(x: *const f32, k: usize, out: *mut u8, bytes: usize);

/// # Safety
/// See [`RoundRows`].
pub(super) unsafe fn to_f32<I: Isa>(x: *const f32, k: usize, out: *mut u8, bytes: usize) {
    // SAFETY: the CPU has the instruction set.
    let isa = unsafe { I::new_unchecked() };
    isa.vectorize(ToF32 { x, k, out: out.cast(), len: bytes / 4 })
}

/// # Safety
/// See [`RoundRows`].
pub(super) unsafe fn to_pairs<I: DotBf16>(x: *const f32, k: usize, out: *mut u8, bytes: usize) {
    // SAFETY: the CPU has the instruction set.
    let isa = unsafe { I::new_unchecked() };
    isa.vectorize(ToPairs { isa, x, k, out: out.cast(), len: bytes / 2 })
}

struct ToF32 {
    x: *const f32,
    k: usize,
    out: *mut f32,
    len: usize,
}

impl SimdBody for ToF32 {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for i in (0..self.len).step_by(I::LANES) {
            // SAFETY: k floats to read, and `len` elements, a multiple of the lanes, to write.
            unsafe {
                let x = isa.load_first(self.x.wrapping_add(i), self.k.saturating_sub(i).min(I::LANES));
                isa.store(self.out.add(i), round(isa, x));
            }
        }
    }
}

/// Adds half of the last place that is kept, less one where that place is even; a carry goes where it should. A NaN
/// keeps its upper half, made quiet, so that it doesn't lose its last set bit.
#[inline(always)]
fn round<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let upper = isa.splat_i32(-0x1_0000);
    let bits = isa.to_bits(x);
    let odd = isa.and(isa.shr::<16>(bits), isa.splat_i32(1));
    let nearest = isa.add_i32(bits, isa.add_i32(odd, isa.splat_i32(0x7fff)));
    let quiet = isa.or(bits, isa.splat_i32(0x40_0000));
    let number = isa.eq(x, x);
    isa.select(number, isa.from_bits(isa.and(nearest, upper)), isa.from_bits(isa.and(quiet, upper)))
}

struct ToPairs<I> {
    isa: I,
    x: *const f32,
    k: usize,
    out: *mut u16,
    len: usize,
}

impl<I: DotBf16> SimdBody for ToPairs<I> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let isa = self.isa;
        for i in (0..self.len).step_by(2 * I::LANES) {
            let left = self.k.saturating_sub(i);
            // SAFETY: k floats to read, and `len` elements, a multiple of two vectors, to write.
            unsafe {
                let x = self.x.wrapping_add(i);
                let (low, high) = if left >= 2 * I::LANES {
                    (isa.load(x), isa.load(x.wrapping_add(I::LANES)))
                } else {
                    let high = left.saturating_sub(I::LANES);
                    (isa.load_first(x, left.min(I::LANES)), isa.load_first(x.wrapping_add(I::LANES), high))
                };
                isa.store_i32(self.out.add(i).cast(), isa.round_bf16(low, high));
            }
        }
    }
}
