//! Rows of f32 rounded to bfloat16, to the nearest, ties to even; NaN stays NaN.
//! Levels with a dot product of bfloat16 store pairs, the others f32 with the lower halves cleared.

use crate::isa::{DotBf16, Isa, SimdBody};

/// A row of `k` f32 to round into `bytes` bytes, a multiple of 64 with room for it; the rest becomes zeros. All of that
/// memory is there.
pub(super) struct Rounding {
    pub x: *const f32,
    pub k: usize,
    pub out: *mut u8,
    pub bytes: usize,
}

/// Rounds a row. Its safety contract: the row's memory is there, and the CPU has the instruction set.
pub(super) type RoundRow = unsafe fn(&Rounding);

/// # Safety
/// See [`RoundRow`].
pub(super) unsafe fn to_pairs<I: DotBf16>(row: &Rounding) {
    // SAFETY: the CPU has the instruction set.
    let isa = unsafe { I::new_unchecked() };
    isa.vectorize(ToPairs { isa, row })
}

/// Stores f32.
impl SimdBody for &Rounding {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let out: *mut f32 = self.out.cast();
        for i in (0..self.bytes / 4).step_by(I::LANES) {
            // SAFETY: k floats to read, and as many elements to write as the bytes are, a multiple of the lanes.
            unsafe {
                let x = isa.load_first(self.x.wrapping_add(i), self.k.saturating_sub(i).min(I::LANES));
                isa.store(out.add(i), round(isa, x));
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

struct ToPairs<'a, I> {
    isa: I,
    row: &'a Rounding,
}

impl<I: DotBf16> SimdBody for ToPairs<'_, I> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let ToPairs { isa, row } = self;
        let out: *mut u16 = row.out.cast();
        for i in (0..row.bytes / 2).step_by(2 * I::LANES) {
            let left = row.k.saturating_sub(i);
            // SAFETY: k floats to read, and as many elements to write as the bytes are, a multiple of two vectors.
            unsafe {
                let x = row.x.wrapping_add(i);
                let (low, high) = if left >= 2 * I::LANES {
                    (isa.load(x), isa.load(x.wrapping_add(I::LANES)))
                } else {
                    let high = left.saturating_sub(I::LANES);
                    (isa.load_first(x, left.min(I::LANES)), isa.load_first(x.wrapping_add(I::LANES), high))
                };
                isa.store_i32(out.add(i).cast(), isa.round_bf16(low, high));
            }
        }
    }
}
