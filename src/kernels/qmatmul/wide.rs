//! Where tiles find levels and scales: in stretches of a panel widened to a byte for each level and scales in f32, or
//! in the packed panel itself. The only code that knows how a type's levels are packed.

use super::activations::MAGIC;
use super::form::{Format, GROUPS, STEP, Scales, table_of};
use super::tile::{SIGNED_BYTES, WORDS};
use crate::isa::{DotI8, Isa, SimdBody};
use std::marker::PhantomData;

/// Vectors of a panel.
pub const VECTORS: usize = 2;

/// [`MAGIC`] as a number, 1.5·2²³. Times a scale of up to 22 bits it is exact in f32.
pub const BIAS: f32 = 12_582_912.0;
const _: () = assert!(BIAS.to_bits() as i32 == MAGIC);

/// Where things stand in a widened block of 32 K-steps, in vectors: [`GROUPS`] rows of [`VECTORS`] vectors of
/// levels (with `words` twice as many, of a group the even levels and then the odd ones, as words), then vectors of
/// f32 of the columns: scales, [`BIAS`] times the first scale negated, minimums. With
/// `halves` there are scales and minimums of each half of 16 K-steps, one after the other.
///
/// [`Widen`] says which level stands for zero.
#[derive(Clone, Copy, Debug)]
pub struct Wide {
    /// Whether each half has a scale of its own.
    pub halves: bool,
    /// Whether there are minimums.
    pub minimum: bool,
    /// Whether levels are words, else bytes.
    pub words: bool,
}

impl Wide {
    /// Vectors of all the levels.
    #[inline(always)]
    const fn levels(self) -> usize {
        if self.words { 2 * GROUPS * VECTORS } else { GROUPS * VECTORS }
    }

    /// Bytes of a block.
    #[inline(always)]
    pub const fn bytes<I: Isa>(self) -> usize {
        self.vectors() * I::LANES * STEP
    }

    #[inline(always)]
    const fn subs(self) -> usize {
        if self.halves { 2 } else { 1 }
    }

    /// Levels of group `group`, or of every second level of half as many groups, vector `v`.
    #[inline(always)]
    pub const fn level(self, group: usize, v: usize) -> usize {
        group * VECTORS + v
    }

    /// Scales of sub-block `sub`, vector `v`.
    #[inline(always)]
    pub const fn scale(self, sub: usize, v: usize) -> usize {
        self.levels() + sub * VECTORS + v
    }

    /// Minus [`BIAS`] times the scales of the first sub-block, vector `v`.
    #[inline(always)]
    pub const fn bias(self, v: usize) -> usize {
        self.scale(self.subs(), v)
    }

    /// Minimums of sub-block `sub`, vector `v`, to be added.
    #[inline(always)]
    pub const fn minimum(self, sub: usize, v: usize) -> usize {
        self.bias(0) + (1 + sub) * VECTORS + v
    }

    /// Vectors of a block.
    #[inline(always)]
    pub const fn vectors(self) -> usize {
        if self.minimum { self.minimum(self.subs(), 0) } else { self.bias(VECTORS) }
    }
}

/// Vectors of the largest widened block.
pub const MAX_VECTORS: usize = Wide { halves: true, minimum: true, words: true }.vectors();

/// Levels are as packed: unsigned, with the zero that their type has, which takes the least time. Where
/// [`DotI8::SIGNED`] they are signed.
pub const OWN: u8 = 0;
/// Levels are unsigned with zero at 128, or at 0 where there are minimums. Where [`DotI8::SIGNED`] they are signed.
pub const LIFTED: u8 = 1;
/// Levels are signed.
pub const SIGNED: u8 = 2;
/// Levels of less than 8 bits are as packed, others signed words: for tiles of many rows that multiply pairs.
pub const PAIRED: u8 = 3;
/// Levels of less than 8 bits are as packed, others signed bytes: for tiles of few rows that multiply pairs.
pub const PAIRED_BYTES: u8 = 4;

/// Some blocks of a packed panel, to be widened. As long as it is used, the panel has the blocks, and `out` room for them.
#[derive(Clone, Copy)]
pub struct Stretch {
    /// The panel.
    pub w: *const u8,
    /// First block of 32 K-steps.
    pub begin: usize,
    /// Blocks.
    pub blocks: usize,
    /// Room for as many widened ones.
    pub out: *mut u8,
    /// How many bytes ahead packed bytes are prefetched; 0 for no prefetching.
    pub ahead: usize,
}

/// Widens a stretch. ZERO is one of [`OWN`], [`LIFTED`], [`SIGNED`], [`PAIRED`] and [`PAIRED_BYTES`].
pub struct Widen<'a, I, F, const ZERO: u8> {
    pub isa: I,
    pub stretch: &'a Stretch,
    pub format: PhantomData<F>,
}

impl<I: DotI8, F: Format, const ZERO: u8> SimdBody for Widen<'_, I, F, ZERO> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let wide = const { wide::<F>(ZERO) };
        let nr = VECTORS * I::LANES;
        let Stretch { w, begin, blocks, out, ahead } = *self.stretch;
        for i in 0..blocks {
            let (unit, block) = ((begin + i) / F::FORM.blocks, (begin + i) % F::FORM.blocks);
            let w = w.wrapping_add(unit * F::FORM.unit_bytes(nr));
            if ahead > 0 {
                prefetch::<I, F>(self.isa, w.wrapping_add(ahead), block);
            }
            let out = out.wrapping_add(i * wide.bytes::<I>());
            // SAFETY: the panel has the block, and `out` has room for it.
            let (from, to) =
                unsafe { (Packed::<I, F>::new(self.isa, w, block, 0), Room::new(self.isa, out)) };
            widen_levels::<I, F, ZERO>(self.isa, &from, &to);
            widen_scales::<I, F, ZERO>(self.isa, &from, &to);
        }
    }
}

/// How blocks of the type are widened.
pub const fn wide<F: Format>(zero: u8) -> Wide {
    let words = zero == PAIRED && F::FORM.pairs() == 0;
    Wide { halves: F::FORM.halves, minimum: F::FORM.minimum, words }
}

/// Prefetches a block's share of the unit at `w`.
#[inline(always)]
fn prefetch<I: DotI8, F: Format>(isa: I, w: *const u8, block: usize) {
    let bytes = const { F::FORM.unit_bytes(VECTORS * I::LANES) / F::FORM.blocks };
    for line in 0..bytes.div_ceil(64) {
        isa.prefetch(w.wrapping_add(block * bytes + 64 * line));
    }
}

/// Room for a widened block. It is there as long as the value lives.
struct Room<I> {
    isa: I,
    out: *mut u8,
}

impl<I: DotI8> Room<I> {
    /// # Safety
    /// `out` is writable for a widened block as long as the value lives.
    #[inline(always)]
    unsafe fn new(isa: I, out: *mut u8) -> Self {
        Self { isa, out }
    }

    /// Writes one of the vectors that [`Wide`] counts.
    #[inline(always)]
    fn put(&self, vector: usize, x: I::F32) {
        debug_assert!(vector < MAX_VECTORS);
        // SAFETY: the room for the block is there, and `vector` is one of those that `Wide` counts.
        unsafe { self.isa.store(self.out.wrapping_add(vector * I::LANES * STEP).cast(), x) }
    }
}

#[inline(always)]
fn widen_levels<I: DotI8, F: Format, const ZERO: u8>(isa: I, from: &Packed<I, F>, to: &Room<I>) {
    let table = const { table_of(F::DTYPE) };
    for v in 0..VECTORS {
        each_group(
            #[inline(always)]
            |group| {
                let level = to_zero::<I, F, ZERO>(isa, from.stored_level(group, v), table);
                let wide = const { wide::<F>(ZERO) };
                let put = |group, level| to.put(wide.level(group, v), isa.from_bits(level));
                if wide.words {
                    let [even, odd] = isa.split(level);
                    put(2 * group, even);
                    put(2 * group + 1, odd);
                } else {
                    put(group, level);
                }
            },
        );
    }
}

/// Bits moved down by `n`, or up where that is negative. Some cross from byte to byte; masks clear them later.
#[inline(always)]
fn shift<I: Isa>(isa: I, x: I::I32, n: i32) -> I::I32 {
    match n {
        -4 => isa.shl::<4>(x),
        -3 => isa.shl::<3>(x),
        -2 => isa.shl::<2>(x),
        -1 => isa.shl::<1>(x),
        1 => isa.shr::<1>(x),
        2 => isa.shr::<2>(x),
        3 => isa.shr::<3>(x),
        4 => isa.shr::<4>(x),
        5 => isa.shr::<5>(x),
        6 => isa.shr::<6>(x),
        7 => isa.shr::<7>(x),
        _ => x,
    }
}

/// Levels with the zero that ZERO says.
#[inline(always)]
fn to_zero<I: DotI8, F: Format, const ZERO: u8>(isa: I, level: I::I32, table: &[i8; 16]) -> I::I32 {
    let top = isa.splat_i32(i32::from_ne_bytes([0x80; 4]));
    let signed = I::SIGNED || ZERO == SIGNED;
    if F::FORM.table {
        let level = isa.lookup_bytes(table, level);
        return if signed { level } else { isa.xor(level, top) };
    }
    if F::FORM.bits == 8 {
        return if signed && !I::SIGNED { isa.xor(level, top) } else { level };
    }
    if F::FORM.minimum || ZERO >= PAIRED || !(signed || ZERO == LIFTED) {
        return level;
    }
    // Bytes stay below 256, so nothing is carried from one to the next.
    let lifted = isa.add_i32(level, isa.splat_i32((128 - F::FORM.zero) * 0x0101_0101));
    if signed { isa.xor(lifted, top) } else { lifted }
}

#[inline(always)]
fn widen_scales<I: DotI8, F: Format, const ZERO: u8>(isa: I, from: &Packed<I, F>, to: &Room<I>) {
    let wide = const { wide::<F>(ZERO) };
    for v in 0..VECTORS {
        for sub in 0..F::FORM.subs() {
            let (scale, minimum) = from.scales(sub, v);
            to.put(wide.scale(sub, v), scale);
            if sub == 0 {
                to.put(wide.bias(v), isa.mul(scale, isa.splat(-BIAS)));
            }
            if F::FORM.minimum {
                to.put(wide.minimum(sub, v), minimum);
            }
        }
    }
}

/// A block of weights as a tile reads it.
pub trait Source<I: DotI8>: Copy {
    /// Whether each half has a scale of its own.
    const HALVES: bool;
    /// Whether there are minimums.
    const MINIMUM: bool;
    /// Whether a level takes more than a load.
    const PACKED: bool;

    /// Levels of group `group`, vector `v`.
    fn level(&self, group: usize, v: usize) -> I::I32;
    /// Scales of sub-block `sub`, vector `v`.
    fn scale(&self, sub: usize, v: usize) -> I::F32;
    /// Minus [`BIAS`] times the scales of the first sub-block, vector `v`.
    fn bias(&self, v: usize) -> I::F32;
    /// Minimums of sub-block `sub`, vector `v`, to be added.
    fn minimum(&self, sub: usize, v: usize) -> I::F32;
    /// Prefetches a group's share of the block that is read some time later.
    #[inline(always)]
    fn prefetch(&self, _group: usize) {}
}

/// A widened block, as a tile with PAIRS reads it: see [`Tiles::tile`](super::tile::Tiles::tile). It is there as long as the
/// value lives.
#[derive(Clone, Copy)]
pub struct Widened<I, const HALVES: bool, const MINIMUM: bool, const PAIRS: usize = SIGNED_BYTES> {
    isa: I,
    w: *const u8,
}

impl<I: DotI8, const HALVES: bool, const MINIMUM: bool, const PAIRS: usize>
    Widened<I, HALVES, MINIMUM, PAIRS>
{
    const WIDE: Wide = Wide { halves: HALVES, minimum: MINIMUM, words: PAIRS == WORDS };

    /// # Safety
    /// `w` is a widened block, and stays one as long as the value lives.
    #[inline(always)]
    pub unsafe fn new(isa: I, w: *const u8) -> Self {
        Self { isa, w }
    }

    #[inline(always)]
    fn vector(&self, vector: usize) -> I::F32 {
        // SAFETY: the widened block is there, and `vector` is one of those that `Wide` counts.
        unsafe { self.isa.load(self.w.wrapping_add(vector * I::LANES * STEP).cast()) }
    }
}

impl<I: DotI8, const HALVES: bool, const MINIMUM: bool, const PAIRS: usize> Source<I>
    for Widened<I, HALVES, MINIMUM, PAIRS>
{
    const HALVES: bool = HALVES;
    const MINIMUM: bool = MINIMUM;
    const PACKED: bool = false;

    #[inline(always)]
    fn level(&self, group: usize, v: usize) -> I::I32 {
        self.isa.to_bits(self.vector(Self::WIDE.level(group, v)))
    }

    #[inline(always)]
    fn scale(&self, sub: usize, v: usize) -> I::F32 {
        self.vector(Self::WIDE.scale(sub, v))
    }

    #[inline(always)]
    fn bias(&self, v: usize) -> I::F32 {
        self.vector(Self::WIDE.bias(v))
    }

    #[inline(always)]
    fn minimum(&self, sub: usize, v: usize) -> I::F32 {
        self.vector(Self::WIDE.minimum(sub, v))
    }
}

/// A block of a packed panel, with levels as [`OWN`] has them. It is there as long as the value lives.
pub struct Packed<I, F> {
    isa: I,
    /// The unit.
    w: *const u8,
    /// The block's number in the unit.
    block: usize,
    /// How many bytes ahead is prefetched.
    ahead: usize,
    format: PhantomData<F>,
}

impl<I: Copy, F> Clone for Packed<I, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I: Copy, F> Copy for Packed<I, F> {}

impl<I: DotI8, F: Format> Packed<I, F> {
    /// # Safety
    /// `w` is a unit that has a block `block`, and stays one as long as the value lives.
    #[inline(always)]
    pub unsafe fn new(isa: I, w: *const u8, block: usize, ahead: usize) -> Self {
        Self { isa, w, block, ahead, format: PhantomData }
    }

    /// Levels of a group of vector `v` as they are stored.
    #[inline(always)]
    fn stored_level(&self, group: usize, v: usize) -> I::I32 {
        let isa = self.isa;
        let row = VECTORS * I::LANES * STEP;
        let block_bytes = const { F::FORM.levels_at(VECTORS * I::LANES, 1) };
        let w = self.w.wrapping_add(self.block * block_bytes + v * I::LANES * STEP);
        let [low, high] = const { F::FORM.parts() };
        // SAFETY: the unit has the block; a part has 8 rows for eight bits, and as many fewer as it has fewer bits.
        let part = |bits: usize, before: usize| unsafe {
            isa.load_i32(w.wrapping_add((before + group * bits / 8) * row).cast())
        };
        if low == 8 {
            return part(8, 0);
        }
        let mask = |bits: usize, up: usize| isa.splat_i32((((1 << bits) - 1) << up) * 0x0101_0101);
        let level = isa.and(shift(isa, part(low, 0), (group * low % 8) as i32), mask(low, 0));
        if high == 0 {
            return level;
        }
        let above = shift(isa, part(high, low), (group * high % 8) as i32 - low as i32);
        isa.or(level, isa.and(above, mask(high, low)))
    }

    /// The scales of sub-block `sub`, vector `v`, and the minimums to be added; where there are none, that is anything.
    #[inline(always)]
    fn scales(&self, sub: usize, v: usize) -> (I::F32, I::F32) {
        let (isa, w) = (self.isa, self.w);
        let form = const { F::FORM };
        let nr = VECTORS * I::LANES;
        let first = v * I::LANES;
        // SAFETY: of the unit's parts, each closure reads one that is kept in its way.
        let half = |at: usize| unsafe { isa.load_f16(w.wrapping_add(at + 2 * first).cast()) };
        // SAFETY: as before.
        let bytes = |at: usize| unsafe { isa.load_i8(w.wrapping_add(at + first).cast()) };
        let at = self.block * form.subs() + sub;
        match form.scales {
            Scales::Half => {
                let scale = half(form.scale_at(nr));
                (scale, if form.minimum { half(form.minimum_at(nr)) } else { scale })
            }
            Scales::Bytes | Scales::Nibbles => {
                let scales = bytes(form.sub_scale_at(nr, at));
                let nibble = |x| isa.and(x, isa.splat_i32(15));
                let (scales, minimums) = if matches!(form.scales, Scales::Nibbles) {
                    (nibble(scales), nibble(isa.shr::<4>(scales)))
                } else if form.minimum {
                    (scales, bytes(form.sub_minimum_at(nr, at)))
                } else {
                    (scales, scales)
                };
                let d = half(form.scale_at(nr));
                let less = if form.minimum {
                    isa.sub(isa.zero(), isa.mul(half(form.minimum_at(nr)), isa.to_f32(minimums)))
                } else {
                    isa.zero()
                };
                (isa.mul(d, isa.to_f32(scales)), less)
            }
            Scales::Exponent => (exponents(isa, bytes(form.scale_at(nr))), isa.zero()),
            // SAFETY: scales are f32.
            Scales::Single => unsafe {
                let at = form.sub_scale_at(nr, at) + 4 * first;
                (isa.load(w.wrapping_add(at).cast()), isa.zero())
            },
        }
    }
}

impl<I: DotI8, F: Format> Source<I> for Packed<I, F> {
    const HALVES: bool = F::FORM.halves;
    const MINIMUM: bool = F::FORM.minimum;
    const PACKED: bool = true;

    #[inline(always)]
    fn level(&self, group: usize, v: usize) -> I::I32 {
        let table = const { table_of(F::DTYPE) };
        to_zero::<I, F, OWN>(self.isa, self.stored_level(group, v), table)
    }

    #[inline(always)]
    fn scale(&self, sub: usize, v: usize) -> I::F32 {
        self.scales(sub, v).0
    }

    #[inline(always)]
    fn bias(&self, v: usize) -> I::F32 {
        self.isa.mul(self.scale(0, v), self.isa.splat(-BIAS))
    }

    #[inline(always)]
    fn minimum(&self, sub: usize, v: usize) -> I::F32 {
        self.scales(sub, v).1
    }

    #[inline(always)]
    fn prefetch(&self, group: usize) {
        let bytes = const { F::FORM.unit_bytes(VECTORS * I::LANES) / F::FORM.blocks };
        let lines = bytes.div_ceil(64);
        let w = self.w.wrapping_add(self.ahead + self.block * bytes);
        for line in lines * group / GROUPS..lines * (group + 1) / GROUPS {
            self.isa.prefetch(w.wrapping_add(64 * line));
        }
    }
}

/// 2^(e − 128) for bytes that were extended with their sign.
#[inline(always)]
fn exponents<I: Isa>(isa: I, bytes: I::I32) -> I::F32 {
    let e = isa.and(bytes, isa.splat_i32(255));
    let normal = isa.from_bits(isa.shl::<23>(isa.sub_i32(e, isa.splat_i32(1))));
    // The two smallest are subnormal; for others this is less than the normal one.
    let small = isa.from_bits(isa.shl::<21>(isa.add_i32(e, isa.splat_i32(1))));
    isa.max(normal, small)
}

/// All groups of a block in order, their numbers known when this is compiled.
#[inline(always)]
pub fn each_group(mut f: impl FnMut(usize)) {
    f(0);
    f(1);
    f(2);
    f(3);
    f(4);
    f(5);
    f(6);
    f(7);
}
