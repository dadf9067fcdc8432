//! Activations quantised by row and block of 32, to one or two signed bytes an element.
//! A block holds all that a kernel needs of it side by side, so that one pointer a row suffices.
//!
//! With one digit (8 bits) an element is d·x₀, with two (16 bits) it is d·(256·x₀ + x₁), digits in −127..=127:
//!
//! | bytes, 8-bit | 16-bit | what |
//! |---|---|---|
//! | 0..32 | 0..32 | x₀, 32 × i8 |
//! | | 32..64 | x₁, 32 × i8 |
//! | 32..36 | 64..68 | d, f32: the scale |
//! | 36..40 | 68..72 | d·Σx, f32, rounded once |
//! | 40..44 | 72..80 | Σ of each digit, i32 |
//! | 44..48 | 80..88 | [`MAGIC`] − 128·Σ of each digit, i32: where sums start whose levels are offset by 128 |
//!
//! A row is K/32 blocks, padded (with bytes that no kernel reads) to a multiple of 64 bytes.
//!
//! With a the block's largest magnitude and p = x·(127/a): x₀ is p rounded to nearest, ties to even, and x₁
//! is 256·(p − x₀) rounded likewise and held to ±127. So the error of an element is below 0.50002·d with
//! d = a/127, or below 1.01·d with d = a/127/256: one part in 253, or in 32,000, of the block's largest.
//! A block whose a is below 2⁻¹¹⁰ becomes zero. One that holds a NaN or an infinity gets digits 0 and
//! d = NaN, which makes every output that it takes part in NaN.

use crate::isa::{DotI8, Isa, Kernel};
use crate::quant::BLOCK;

/// How finely activations are quantised: a mode, chosen by whoever makes a model or context, never by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// Two digits: as good as unrounded (on SmolLM2 the next-token distribution moves by a mean KL of 4e-8).
    #[default]
    Bits16,
    /// One digit: about twice as fast with many rows; what llama.cpp does. The distribution moves by 3e-3.
    Bits8,
}

impl Activations {
    /// Signed bytes an element.
    pub const fn digits(self) -> usize {
        match self {
            Activations::Bits8 => 1,
            Activations::Bits16 => 2,
        }
    }

    /// Bytes from one quantised row of `k` elements to the next: a multiple of 64.
    pub const fn row_bytes(self, k: usize) -> usize {
        row_bytes(self.digits(), k)
    }
}

/// Where things stand in a block of `DIGITS` digits.
pub struct Block<const DIGITS: usize>;

impl<const DIGITS: usize> Block<DIGITS> {
    /// Bytes of a block.
    pub const BYTES: usize = block_bytes(DIGITS);
    /// The scale.
    pub const SCALE: usize = DIGITS * BLOCK;
    /// The scaled sum.
    pub const SCALED_SUM: usize = Self::SCALE + 4;
    /// The digits' sums.
    pub const SUMS: usize = Self::SCALE + 8;
    /// The starts of integer sums.
    pub const STARTS: usize = Self::SUMS + 4 * DIGITS;
}

pub(super) const fn block_bytes(digits: usize) -> usize {
    digits * (BLOCK + 8) + 8
}

const fn row_bytes(digits: usize, k: usize) -> usize {
    (k / BLOCK * block_bytes(digits)).next_multiple_of(64)
}

/// Bits of the float 1.5·2²³. An integer |Σ| < 2²² added to them gives the bits of 1.5·2²³ + Σ, so that integer
/// sums that start here are floats already, and one fma takes the constant off and multiplies.
pub const MAGIC: i32 = 0x4B40_0000;

/// Blocks with a smaller peak become zero, long before a scale could be subnormal or its inverse infinite.
const SMALLEST_PEAK: f32 = 1.0 / (1u128 << 110) as f32;

/// The table entry: [`super::Set::quantize_rows`] at one level.
///
/// # Safety
/// As there; and the CPU has the level.
pub unsafe fn entry<I: DotI8, const DIGITS: usize>(
    x: *const f32,
    ldx: usize,
    rows: usize,
    k: usize,
    out: *mut u8,
) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Quantize::<DIGITS> { x, ldx, rows, k, out });
}

struct Quantize<const DIGITS: usize> {
    x: *const f32,
    ldx: usize,
    rows: usize,
    k: usize,
    out: *mut u8,
}

impl<const DIGITS: usize> Kernel for Quantize<DIGITS> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for row in 0..self.rows {
            for block in 0..self.k / BLOCK {
                // SAFETY: the blocks of K elements are within each row of X, and so are their images in `out`.
                unsafe {
                    let x = self.x.add(row * self.ldx + block * BLOCK);
                    let out = self.out.add(row * row_bytes(DIGITS, self.k) + block * block_bytes(DIGITS));
                    quantize_block::<I, DIGITS>(isa, x, out);
                }
            }
        }
    }
}

/// # Safety
/// `x` is readable for 32 floats, `out` writable for a block.
#[inline(always)]
pub(super) unsafe fn quantize_block<I: Isa, const DIGITS: usize>(isa: I, x: *const f32, out: *mut u8) {
    // SAFETY: BLOCK is a multiple of LANES.
    let load = |i: usize| unsafe { isa.load(x.add(i)) };
    let (mut peaks, mut poison) = (isa.zero(), isa.zero());
    for i in (0..BLOCK).step_by(I::LANES) {
        peaks = isa.max(isa.abs(load(i)), peaks);
        poison = isa.mul_add(load(i), isa.zero(), poison);
    }
    // Poison is 0 for finite inputs, else NaN; one look across lanes tells that and the peak.
    let infinity = isa.splat(f32::INFINITY);
    let peak = isa.max_lanes(isa.select(isa.eq(poison, isa.zero()), peaks, infinity));
    let finite = peak < f32::INFINITY;
    let usable = finite && peak >= SMALLEST_PEAK;
    let (d, inverse) = if usable { (peak / 127.0, 127.0 / peak) } else { (0.0, 0.0) };
    let poison = if finite { 0.0 } else { f32::NAN };
    let mut sums = [isa.splat_i32(0); DIGITS];
    for i in (0..BLOCK).step_by(I::LANES) {
        let p = if finite { isa.mul(load(i), isa.splat(inverse)) } else { isa.zero() };
        let mut rest = p;
        for (digit, sum) in sums.iter_mut().enumerate() {
            let x = isa.to_i32(rest);
            *sum = isa.add_i32(*sum, x);
            // SAFETY: each digit has 32 bytes.
            unsafe { isa.store_i8(out.add(digit * BLOCK + i).cast(), x) };
            let scaled = isa.mul(isa.sub(rest, isa.to_f32(x)), isa.splat(256.0));
            rest = isa.min(isa.max(scaled, isa.splat(-127.0)), isa.splat(127.0));
        }
    }
    let sums = digit_sums(isa, sums);
    let sum = sums.iter().fold(0, |sum, digit| 256 * sum + digit);
    let d = if DIGITS == 2 { d / 256.0 } else { d } + poison;
    // SAFETY: the block has these words; they need no alignment.
    let put = |at: usize, word: i32| unsafe { out.add(at).cast::<i32>().write_unaligned(word) };
    put(Block::<DIGITS>::SCALE, d.to_bits() as i32);
    put(Block::<DIGITS>::SCALED_SUM, (d * sum as f32).to_bits() as i32);
    for (digit, sum) in sums.into_iter().enumerate() {
        put(Block::<DIGITS>::SUMS + 4 * digit, sum);
        put(Block::<DIGITS>::STARTS + 4 * digit, MAGIC - 128 * sum);
    }
}

/// The lanes of each vector added up. A sum of 32 digits fits 16 bits, so two are added at once, the second as the
/// low half of one number.
#[inline(always)]
fn digit_sums<I: Isa, const DIGITS: usize>(isa: I, lanes: [I::I32; DIGITS]) -> [i32; DIGITS] {
    const { assert!(DIGITS <= 2 && BLOCK * 127 <= i16::MAX as usize) };
    let mut sums = [0; DIGITS];
    if DIGITS == 2 {
        let both = isa.sum_lanes_i32(isa.add_i32(isa.shl::<16>(lanes[0]), lanes[1]));
        sums[1] = i32::from(both as i16);
        sums[0] = (both - sums[1]) >> 16;
    } else {
        sums[0] = isa.sum_lanes_i32(lanes[0]);
    }
    sums
}
