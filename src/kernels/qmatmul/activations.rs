//! Activations quantised by row and block of 32, to one or two signed bytes an element.
//!
//! With one byte, an element is d·x₀; with two, it is d/256·(256·x₀ + x₁). Bytes are in −127..=127. A row is
//!
//! | part | bytes | contents |
//! |---|---|---|
//! | high bytes | K | x₀, i8 |
//! | low bytes | K, with two | x₁, i8 |
//! | blocks | 16 for each 32 | d, f32; d·Σx, f32, rounded once; [`MAGIC`] − 128·Σx₀, i32; 1 where the low byte is kept, else 0 |
//! | halves | 16 for each 32 | d·Σx of the first and the last 16, f32; [`MAGIC`] − 128·Σx₀ of the first 16 and −128·Σx₀ of the last, i32 |
//! | second | 16 for each 32, with two | −128·Σx₁ − 256·[`MAGIC`]; the same of the first 16; −128·Σx₁ of the last 16; −128·Σ(256·x₀ + x₁), all i32 and wrapping |
//!
//! Levels that multiply pairs of words ([`keeps_words`]) have other contents in the places of the two bytes and of the
//! records of second ones: 64 bytes for each block, which are 256·x₀ + x₁ as words where the low byte is kept (of each
//! four the first and the third, for all fours; then the second and the fourth), else the 32 high bytes and zeros; and
//! 0, −128·Σ(256·x₀ + x₁) of the first 16, the same of the last 16, and of all.
//!
//! and is padded to an odd multiple of 64 bytes, so that the same place of many rows isn't in the same sets of a
//! cache. Sums with levels that are offset by 128 start from the integers of blocks and halves; those of the low
//! byte are added to such a sum after it was multiplied by 256.
//!
//! With a the block's largest magnitude and p = x·(127/a): x₀ is p rounded to nearest, ties to even, and x₁
//! is 256·(p − x₀) rounded likewise and held to ±127. So the error of an element is below 0.50002·d with
//! d = a/127, or below 1.01·d/256: one part in 253, or in 32,000, of the block's largest.
//! A block whose a is below 2⁻¹¹⁰ becomes zero. One that holds a NaN or an infinity gets bytes 0 and
//! d = NaN, which makes every output that it takes part in NaN.
//!
//! [`Activations::Adaptive`] keeps the low byte only in blocks with an outlier, whose largest magnitude is at
//! least [`OUTLIER`] times the root of the block's mean square (both as high bytes tell), and has zeros elsewhere.
//! Elsewhere results have the bits that one byte gives: powers of two are exact.

use crate::arrays;
use crate::isa::{Isa, IsaId, SimdBody};
use crate::quant::BLOCK;

/// How finely activations are quantised: a mode, chosen when a model is loaded or a matrix packed, never by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// Two bytes: as good as unrounded (on SmolLM2 the next-token distribution moves by a mean KL of 4e-8).
    #[default]
    Bits16,
    /// Two bytes in blocks with an outlier, one elsewhere: nearly as fast as one byte with many rows. The
    /// distribution moves by 4e-4.
    Adaptive,
    /// One byte: about twice as fast as two with many rows; as llama.cpp does. The distribution moves by 2e-3.
    Bits8,
}

/// Blocks whose largest magnitude is at least this many times the root of their mean square keep their low byte:
/// on SmolLM2 one in seven.
pub const OUTLIER: f32 = 4.25;

impl Activations {
    /// Every mode.
    pub const ALL: [Activations; 3] = [Activations::Bits16, Activations::Adaptive, Activations::Bits8];

    /// Signed bytes an element.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        match self {
            Activations::Bits8 => 1,
            Activations::Bits16 | Activations::Adaptive => 2,
        }
    }

    /// Bytes from one quantised row of `k` elements to the next: an odd multiple of 64.
    #[inline(always)]
    pub const fn row_bytes(self, k: usize) -> usize {
        RowParts::new(self.bytes(), k).end.div_ceil(64) / 2 * 128 + 64
    }
}

/// Most that squares of a block's high bytes may add up to where there is such an outlier.
const LIMIT: f32 = 127.0 * 127.0 * BLOCK as f32 / (OUTLIER * OUTLIER);

/// Bytes of a block's record in each of the parts after the elements.
pub const RECORD: usize = 16;

/// Where the parts of a row are.
#[derive(Clone, Copy, Debug)]
pub struct RowParts {
    /// Bytes an element: 1 or 2.
    pub bytes: usize,
    /// Records of blocks: see [`SCALE`], [`SCALED_SUM`], [`START`], [`KEPT`].
    pub blocks: usize,
    /// Records of their halves: see [`HALF_SUMS`], [`HALF_STARTS`].
    pub halves: usize,
    /// Records of low bytes: see [`LOW_STARTS`], [`TOTAL_START`].
    pub second: usize,
    /// The row's end, without padding.
    end: usize,
}

impl RowParts {
    /// Of rows of `k` elements and so many bytes. Low bytes begin at byte `k`.
    #[inline(always)]
    pub const fn new(bytes: usize, k: usize) -> Self {
        let part = k / BLOCK * RECORD;
        let blocks = k * bytes;
        RowParts {
            bytes,
            blocks,
            halves: blocks + part,
            second: blocks + 2 * part,
            end: blocks + (1 + bytes) * part,
        }
    }
}

/// In a block's record: its scale.
pub const SCALE: usize = 0;
/// In a block's record: the scaled sum.
pub const SCALED_SUM: usize = 4;
/// In a block's record: where its integer sums start.
pub const START: usize = 8;
/// In a block's record: whether the low byte is kept.
pub const KEPT: usize = 12;
/// In the halves' record: the scaled sums of both.
pub const HALF_SUMS: usize = 0;
/// In the halves' record: where their integer sums start.
pub const HALF_STARTS: usize = 8;
/// In the low bytes' record: added to sums of the block, and of its halves.
pub const LOW_STARTS: usize = 0;
/// In the low bytes' record: where sums of both bytes at once start.
pub const TOTAL_START: usize = 12;
/// In the low bytes' record of levels that keep words: the same for both halves.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) const HALF_TOTAL_STARTS: usize = 4;
/// Where a block's words with odd places begin, behind those with even ones.
pub(super) const ODD_WORDS: usize = BLOCK;

/// Whether the level multiplies rows of two bytes as words.
pub(super) const fn keeps_words(isa: IsaId) -> bool {
    matches!(isa, IsaId::Avx2 | IsaId::Avx512)
}

/// Bits of the float 1.5·2²³. An integer |Σ| < 2²² added to them gives the bits of 1.5·2²³ + Σ, so that integer
/// sums that start here are floats already, and one fma takes the constant off and multiplies.
pub const MAGIC: i32 = 0x4B40_0000;
/// [`MAGIC`] in a sum that was multiplied by 256.
pub const MAGIC_256: i32 = MAGIC << 8;

/// Blocks with a smaller peak become zero, long before a scale could be subnormal or its inverse infinite.
const SMALLEST_PEAK: f32 = 1.0 / (1u128 << 110) as f32;

/// Rows to quantise, as [`super::QmatmulKernels::quantize_rows`] demands.
pub(super) struct Quantize {
    pub activations: Activations,
    pub x: *const f32,
    pub ldx: usize,
    pub rows: usize,
    pub k: usize,
    pub out: *mut u8,
}

impl SimdBody for &Quantize {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Quantize { activations, x, ldx, rows, k, out } = *self;
        for row in 0..rows {
            let x = x.wrapping_add(row * ldx);
            // SAFETY: k floats of the row of X are there, and room for its image in `out`.
            unsafe {
                let target = Target::new(activations, k, out.wrapping_add(row * activations.row_bytes(k)));
                for block in (0..k / BLOCK).step_by(RUN) {
                    target.quantize(isa, x.add(block * BLOCK), block, RUN.min(k / BLOCK - block));
                }
            }
        }
    }
}

/// Most blocks that are quantised together.
pub(super) const RUN: usize = 8;

/// The scale of a block.
#[derive(Clone, Copy, Debug, Default)]
struct Scale {
    /// Of its bytes, or 0.
    d: f32,
    /// The inverse, or 0.
    inverse: f32,
    /// Whether all its elements are finite.
    finite: bool,
}

impl Scale {
    /// Of a block.
    #[inline(always)]
    fn of<I: Isa>(isa: I, run: &Floats<I>, block: usize) -> Scale {
        let load = |i: usize| run.vector(block, i);
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
        Scale { d, inverse, finite }
    }
}

/// Blocks of floats that are quantised together. They are readable as long as the value lives.
struct Floats<I> {
    isa: I,
    first: *const f32,
    blocks: usize,
}

impl<I: Isa> Floats<I> {
    /// # Safety
    /// `first` is readable for 32 floats for each block as long as the value lives.
    #[inline(always)]
    unsafe fn new(isa: I, first: *const f32, blocks: usize) -> Self {
        Self { isa, first, blocks }
    }

    /// The vector that begins at float `i` of a block.
    #[inline(always)]
    fn vector(&self, block: usize, i: usize) -> I::F32 {
        debug_assert!(block < self.blocks && i + I::LANES <= BLOCK);
        // SAFETY: the block is readable, and the vector is within it.
        unsafe { self.isa.load(self.first.wrapping_add(block * BLOCK + i)) }
    }
}

/// A row that is being quantised, some blocks at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    activations: Activations,
    k: usize,
    row: RowParts,
    out: *mut u8,
}

impl Target {
    /// The row of `k` elements at `out`.
    ///
    /// # Safety
    /// `out` is writable for a row's bytes as long as the value lives.
    #[inline(always)]
    #[doc(hidden)]
    pub unsafe fn new(activations: Activations, k: usize, out: *mut u8) -> Self {
        Target { activations, k, row: RowParts::new(activations.bytes(), k), out }
    }

    /// Quantises `blocks` blocks of the row, up to [`RUN`], from `block` on.
    ///
    /// # Safety
    /// `x` is readable for 32 floats for each block, and the row has those blocks.
    #[inline(always)]
    #[doc(hidden)]
    pub unsafe fn quantize<I: Isa>(&self, isa: I, x: *const f32, block: usize, blocks: usize) {
        // SAFETY: 32 floats a block are readable, as the caller promises, and stay so for this call.
        let run = unsafe { Floats::new(isa, x, blocks) };
        match self.activations {
            Activations::Bits16 => self.quantize_run::<I, 2, false>(isa, &run, block),
            Activations::Adaptive => self.quantize_run::<I, 2, true>(isa, &run, block),
            Activations::Bits8 => self.quantize_run::<I, 1, false>(isa, &run, block),
        }
    }

    /// First the scales of all blocks and then their bytes: both end with sums across lanes, for which the processor
    /// would wait if it had fewer blocks at hand. The row has the blocks from `block` on.
    #[inline(always)]
    fn quantize_run<I: Isa, const BYTES: usize, const ADAPTIVE: bool>(
        &self,
        isa: I,
        run: &Floats<I>,
        block: usize,
    ) {
        debug_assert!(block + run.blocks <= self.k / BLOCK);
        let mut scales = [Scale::default(); RUN];
        for (i, scale) in scales.iter_mut().enumerate().take(run.blocks) {
            *scale = Scale::of(isa, run, i);
        }
        for (i, scale) in scales.iter().enumerate().take(run.blocks) {
            self.quantize_bytes::<I, BYTES, ADAPTIVE>(isa, (run, i), block + i, *scale);
        }
    }

    /// Block `i` of a run to the row's block `block`.
    #[inline(always)]
    fn quantize_bytes<I: Isa, const BYTES: usize, const ADAPTIVE: bool>(
        &self,
        isa: I,
        (run, i): (&Floats<I>, usize),
        block: usize,
        Scale { d, inverse, finite }: Scale,
    ) {
        let load = |at: usize| run.vector(i, at);
        let inverse = isa.splat(inverse);
        // Only finite numbers may meet the inverse: 0 times infinity is none.
        let scaled = |i: usize| if finite { isa.mul(load(i), inverse) } else { isa.zero() };
        let mut kept = BYTES == 2;
        if ADAPTIVE {
            let mut squares = isa.zero();
            for i in (0..BLOCK).step_by(I::LANES) {
                let byte = isa.to_f32(isa.to_i32(scaled(i)));
                squares = isa.mul_add(byte, byte, squares);
            }
            // Squares are integers below 2²⁴ however they are added up, so all levels agree.
            kept = isa.sum_lanes(squares) <= LIMIT;
        }
        let unit = isa.splat(if kept { 256.0 } else { 0.0 });
        let in_words = const { BYTES == 2 && keeps_words(I::ID) };
        let mut words = Words([0; BLOCK]);
        let mut sums = [[isa.splat_i32(0); 2]; BYTES];
        for half in 0..2 {
            for i in (half * HALF..(half + 1) * HALF).step_by(I::LANES) {
                let mut rest = scaled(i);
                let mut word = isa.splat_i32(0);
                for (byte, sums) in sums.iter_mut().enumerate() {
                    let x = isa.to_i32(rest);
                    sums[half] = isa.add_i32(sums[half], x);
                    word = isa.add_i32(isa.shl::<8>(word), x);
                    let at = if in_words { 2 * block * BLOCK } else { byte * self.k + block * BLOCK };
                    if !(in_words && byte == 1) {
                        // SAFETY: the row has k bytes of each kind, and among them this block's.
                        unsafe { isa.store_i8(self.out.add(at + i).cast(), x) };
                    }
                    rest = isa.mul(isa.sub(rest, isa.to_f32(x)), unit);
                    rest = isa.min(isa.max(rest, isa.splat(-127.0)), isa.splat(127.0));
                }
                if in_words {
                    let word = isa.and(word, isa.splat_i32(0xffff));
                    // SAFETY: LANES divides the block, of which these are the words from i on.
                    unsafe { isa.store_u16(words.0.as_mut_ptr().add(i), word) };
                }
            }
        }
        if in_words {
            self.put_words(block, kept, &words);
        }
        let mut halves = [[0; 2]; BYTES];
        for (i, halves) in halves.iter_mut().enumerate() {
            *halves = both_sums(isa, sums[i]);
        }
        self.record(block, d + if finite { 0.0 } else { f32::NAN }, kept, halves, in_words);
    }

    /// Writes a block's words over its high bytes, or zeros behind these.
    #[inline(always)]
    fn put_words(&self, block: usize, kept: bool, words: &Words) {
        let (fours, _) = words.0.as_chunks::<4>();
        let mut even_odd = [[0u16; BLOCK / 2]; 2];
        for (group, &[a, b, c, d]) in fours.iter().enumerate() {
            (even_odd[0][2 * group], even_odd[0][2 * group + 1]) = (a, c);
            (even_odd[1][2 * group], even_odd[1][2 * group + 1]) = (b, d);
        }
        let [even, odd] = even_odd;
        let at = self.out.wrapping_add(2 * block * BLOCK);
        // SAFETY: the row has 64 bytes for the block.
        unsafe {
            if kept {
                at.cast::<[u16; BLOCK / 2]>().write_unaligned(even);
            }
            let odd = if kept { odd } else { [0; BLOCK / 2] };
            at.add(ODD_WORDS).cast::<[u16; BLOCK / 2]>().write_unaligned(odd);
        }
    }

    /// Writes the records of a block that the row has, given its scale and its bytes' sums by halves.
    #[inline(always)]
    fn record<const BYTES: usize>(
        &self,
        block: usize,
        d: f32,
        kept: bool,
        sums: [[i32; 2]; BYTES],
        in_words: bool,
    ) {
        // SAFETY: the row is writable, and each part of it has a record for each block; they need no alignment.
        let put = |part: usize, words: [i32; 4]| unsafe {
            self.out.add(part + block * RECORD).cast::<[i32; 4]>().write_unaligned(words);
        };
        let unit = if BYTES == 2 { d / 256.0 } else { d };
        let whole = |half: usize| sums.iter().fold(0, |whole, sums| 256 * whole + sums[half]);
        let scaled = |sum: i32| (unit * sum as f32).to_bits() as i32;
        let [first, last] = arrays::map(sums[0], |sum| -128 * sum);
        let total = whole(0) + whole(1);
        put(self.row.blocks, [d.to_bits() as i32, scaled(total), MAGIC + first + last, i32::from(kept)]);
        put(self.row.halves, [scaled(whole(0)), scaled(whole(1)), MAGIC + first, last]);
        if in_words {
            put(self.row.second, [0, -128 * whole(0), -128 * whole(1), -128 * total]);
        } else if BYTES == 2 {
            let [first, last] = arrays::map(sums[1], |sum| -128 * sum);
            let move_by = |sum: i32| sum.wrapping_sub(MAGIC_256);
            put(self.row.second, [move_by(first + last), move_by(first), last, -128 * total]);
        }
    }
}

/// A block's elements with both bytes.
#[repr(align(64))]
struct Words([u16; BLOCK]);

/// Elements of half a block.
const HALF: usize = BLOCK / 2;

/// The lanes of both vectors added up. A sum of 16 bytes fits 16 bits, so both are added at once, the second as the
/// low half of one number.
#[inline(always)]
fn both_sums<I: Isa>(isa: I, lanes: [I::I32; 2]) -> [i32; 2] {
    const { assert!(HALF * 127 <= i16::MAX as usize) };
    let both = isa.sum_lanes_i32(isa.add_i32(isa.shl::<16>(lanes[0]), lanes[1]));
    let last = i32::from(both as i16);
    [(both - last) >> 16, last]
}
