//! Activations quantised to 8 bits by row and block of 32.
//! A block is 48 bytes, all a kernel needs of it side by side, so that one pointer a row suffices.
//!
//! | bytes | what |
//! |---|---|
//! | 0..32 | x, 32 × i8 in −127..=127 |
//! | 32..36 | d, f32: the scale; element i is about `d·x[i]` |
//! | 36..40 | d·Σx, f32, rounded once |
//! | 40..44 | Σx, i32 |
//! | 44..48 | [`MAGIC`] − 128·Σx, i32: where integer sums start for levels offset by 128 |
//!
//! A row is K/32 blocks, padded (with bytes that no kernel reads) to a multiple of 64 bytes.
//!
//! With the block's largest magnitude a: `d = a / 127`, `x[i]` = the input times `127 / a`, rounded to nearest,
//! ties to even. So |input − d·x| ≤ d·(1/2 + 2⁻¹⁶). A block whose a is below 127·2⁻¹²⁶ becomes zero; one that
//! holds a NaN or an infinity gets x = 0 and d = NaN, which makes every output that it takes part in NaN.

use crate::isa::{DotI8, Isa, Kernel};
use crate::quant::BLOCK;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 48;
/// Byte at which the scale stands.
pub const SCALE_AT: usize = 32;
/// Byte at which the scaled sum stands.
pub const SCALED_SUM_AT: usize = 36;
/// Byte at which the sum stands.
pub const SUM_AT: usize = 40;
/// Byte at which the start of an integer sum stands.
pub const START_AT: usize = 44;

/// Bits of the float 1.5·2²³. An integer |Σ| < 2²² added to them gives the bits of 1.5·2²³ + Σ, so that integer
/// sums that start here are floats already, and one fma takes the constant off and multiplies.
pub const MAGIC: i32 = 0x4B40_0000;

/// Bytes from one quantised row of `k` elements to the next: a multiple of 64.
pub const fn q8_row_bytes(k: usize) -> usize {
    (k / BLOCK * BLOCK_BYTES).next_multiple_of(64)
}

/// The table entry: [`super::Set::quantize_rows`] at one level.
///
/// # Safety
/// As there; and the CPU has the level.
pub unsafe fn entry<I: DotI8>(x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Quantize { x, ldx, rows, k, out });
}

struct Quantize {
    x: *const f32,
    ldx: usize,
    rows: usize,
    k: usize,
    out: *mut u8,
}

impl Kernel for Quantize {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for row in 0..self.rows {
            for block in 0..self.k / BLOCK {
                // SAFETY: the blocks of K elements are within each row of X, and so are their images in `out`.
                unsafe {
                    let x = self.x.add(row * self.ldx + block * BLOCK);
                    let out = self.out.add(row * q8_row_bytes(self.k) + block * BLOCK_BYTES);
                    quantize_block(isa, x, out);
                }
            }
        }
    }
}

/// # Safety
/// `x` is readable for 32 floats, `out` writable for [`BLOCK_BYTES`].
#[inline(always)]
unsafe fn quantize_block<I: Isa>(isa: I, x: *const f32, out: *mut u8) {
    let mut peaks = isa.zero();
    let mut poison = isa.zero();
    for i in (0..BLOCK).step_by(I::LANES) {
        // SAFETY: BLOCK is a multiple of LANES.
        let x = unsafe { isa.load(x.add(i)) };
        peaks = isa.max(isa.abs(x), peaks);
        poison = isa.mul_add(x, isa.zero(), poison);
    }
    // 0 for finite inputs, else NaN.
    let poison = isa.sum_lanes(poison);
    let peak = if poison == 0.0 { isa.max_lanes(peaks) } else { 0.0 };
    let (d, inverse) =
        if peak >= 127.0 * f32::MIN_POSITIVE { (peak / 127.0, 127.0 / peak) } else { (0.0, 0.0) };
    let mut sums = isa.splat_i32(0);
    for i in (0..BLOCK).step_by(I::LANES) {
        // SAFETY: as above; bytes 0..32 of the block are the elements.
        unsafe {
            let x = isa.mul(isa.load(x.add(i)), isa.splat(inverse));
            let q = if poison == 0.0 { isa.to_i32(x) } else { isa.splat_i32(0) };
            sums = isa.add_i32(sums, q);
            isa.store_i8(out.add(i).cast(), q);
        }
    }
    let (d, sum) = (d + poison, isa.sum_lanes_i32(sums));
    // SAFETY: the block has these bytes; they need no alignment.
    unsafe {
        out.add(SCALE_AT).cast::<f32>().write_unaligned(d);
        out.add(SCALED_SUM_AT).cast::<f32>().write_unaligned(d * sum as f32);
        out.add(SUM_AT).cast::<i32>().write_unaligned(sum);
        out.add(START_AT).cast::<i32>().write_unaligned(MAGIC - 128 * sum);
    }
}
