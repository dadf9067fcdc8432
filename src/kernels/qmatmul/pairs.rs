//! The register tile of levels without an instruction for four products a lane: MR rows × the two vectors of a panel.
//! Small levels are multiplied as unsigned bytes, with sums in 16 bits as long as these hold them; levels of 8 bits, and
//! rows with low bytes, as words of 16 bits. Both give the exact sums that [`super::tile`] has, and so its bits.

use super::activations::{
    HALF_STARTS, HALF_SUMS, HALF_TOTAL_STARTS, MAGIC, ODD_WORDS, RowParts, SCALE, SCALED_SUM, START,
    TOTAL_START,
};
use super::form::{Format, GROUPS, STEP};
use super::tile::{
    self, FEW, RowBlock, SIGNED_BYTES, Task, Tiles, WORDS, each_packed, first_sums, last_sums, word,
};
use super::wide::{Source, VECTORS, Wide, Widened};
use crate::arrays;
use crate::isa::{Isa, PairsI8, SimdBody};
use crate::quant::BLOCK;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, compiler_fence};

/// The tiles of such a level.
pub struct Pairs<I>(PhantomData<I>);

/// Rows of the largest tile: their eight integer sums and the operands fit sixteen registers. Float sums wait in L1.
const ROWS: usize = 4;
/// Floats of the widest panel.
const MAX_NR: usize = 32;
/// Bytes of a block's words, and as many again for stores of whole vectors.
const WORDS_BYTES: usize = 128;

impl<I: PairsI8> Tiles for Pairs<I> {
    type Isa = I;
    const BY_PAIRS: bool = true;
    const MAX_ROWS: [usize; 2] = [ROWS; 2];

    fn tile<const HALVES: bool, const MINIMUM: bool, const PAIRS: usize, const MR: usize, const LOW: bool>(
        isa: I,
        task: &Task,
    ) {
        let mut memory = MaybeUninit::<Memory>::uninit();
        let memory = memory.as_mut_ptr();
        isa.vectorize(Tile::<I, HALVES, MINIMUM, PAIRS, MR, LOW> { isa, task, memory });
    }

    fn line<F: Format>(isa: I, task: &Task, ahead: usize) {
        if const { F::FORM.pairs() > 0 } || task.bytes == 1 {
            return isa.vectorize(tile::Line::<I, F, false> { isa, task, ahead, format: PhantomData });
        }
        let mut memory = MaybeUninit::<Memory>::uninit();
        isa.vectorize(Line::<I, F> { isa, task, memory: memory.as_mut_ptr(), ahead, format: PhantomData });
    }
}

/// What a tile keeps in L1: float sums, and the words of rows that have none for a block.
#[repr(align(64))]
struct Memory {
    #[allow(dead_code)]
    y: [[f32; MAX_NR]; ROWS],
    #[allow(dead_code)]
    words: [[u8; WORDS_BYTES]; ROWS],
}

/// A running [`Tiles::tile`], whose promise holds as long as the value lives; the memory is its own.
struct Tile<
    'a,
    I,
    const HALVES: bool,
    const MINIMUM: bool,
    const PAIRS: usize,
    const MR: usize,
    const LOW: bool,
> {
    isa: I,
    task: &'a Task,
    memory: *mut Memory,
}

impl<
    I: PairsI8,
    const HALVES: bool,
    const MINIMUM: bool,
    const PAIRS: usize,
    const MR: usize,
    const LOW: bool,
> SimdBody for Tile<'_, I, HALVES, MINIMUM, PAIRS, MR, LOW>
{
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let Tile { isa, task, memory } = self;
        let wide = const { Wide { halves: HALVES, minimum: MINIMUM, words: PAIRS == WORDS } };
        let rows = Rows::<I, MR> { isa, memory };
        let row = RowParts::new(1 + usize::from(LOW), task.k);
        let mut y = first_sums::<I, MR>(isa, task);
        rows.put_all(&y);
        for b in 0..task.blocks {
            let w = task.w.wrapping_add(b * wide.bytes::<I>());
            let at = task.begin + b;
            // SAFETY: the task has the widened block.
            let weights = unsafe { Widened::<I, HALVES, MINIMUM, PAIRS>::new(isa, w) };
            let x = RowBlock { task, at, row };
            let block = Block::<I, _, PAIRS, MR> { isa, x, weights, rows };
            if PAIRS == WORDS {
                block.add::<true>(&mut y);
            } else {
                block.add_kept(&mut y);
            }
        }
        last_sums::<I, MR>(isa, task, rows.get_all(y));
    }
}

/// A running [`Tiles::line`] of words with signed levels of 8 bits, whose promise holds as long as the value lives; the
/// memory is its own.
struct Line<'a, I, F> {
    isa: I,
    task: &'a Task,
    memory: *mut Memory,
    ahead: usize,
    format: PhantomData<F>,
}

impl<I: PairsI8, F: Format> SimdBody for Line<'_, I, F> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let Line { isa, task, memory, ahead, .. } = self;
        let rows = Rows::<I, 1> { isa, memory };
        let row = RowParts::new(2, task.k);
        let mut y = first_sums::<I, 1>(isa, task);
        each_packed::<I, F>(
            isa,
            task,
            ahead,
            #[inline(always)]
            |at, weights| {
                Block::<I, _, SIGNED_BYTES, 1> { isa, x: RowBlock { task, at, row }, weights, rows }
                    .add_kept(&mut y);
            },
        );
        last_sums::<I, 1>(isa, task, y);
    }
}

/// What a running tile keeps of its MR rows in memory.
#[derive(Clone, Copy)]
struct Rows<I, const MR: usize> {
    isa: I,
    memory: *mut Memory,
}

impl<I: Isa, const MR: usize> Rows<I, MR> {
    /// Whether float sums are in registers: those of few rows, which would wait for memory.
    const Y_IN_REGISTERS: bool = MR <= FEW;

    /// The place of a row's float sums in memory.
    #[inline(always)]
    fn y_at(&self, r: usize, v: usize) -> *mut f32 {
        self.memory.cast::<f32>().wrapping_add(r * MAX_NR + v * I::LANES)
    }

    /// A row's float sums, which may be in `register`.
    #[inline(always)]
    fn y(&self, r: usize, v: usize, register: I::F32) -> I::F32 {
        if Self::Y_IN_REGISTERS {
            return register;
        }
        // SAFETY: the memory has a place for the sums, which were put there.
        unsafe { self.isa.load(self.y_at(r, v)) }
    }

    /// Puts a row's float sums into memory, if that's where they are.
    #[inline(always)]
    fn put_y(&self, r: usize, v: usize, y: I::F32) {
        if !Self::Y_IN_REGISTERS {
            // SAFETY: the memory has a place for the sums.
            unsafe { self.isa.store(self.y_at(r, v), y) }
        }
    }

    /// [`Rows::put_y`] for all rows.
    #[inline(always)]
    fn put_all(&self, y: &[[I::F32; VECTORS]; MR]) {
        for (r, y) in y.iter().enumerate() {
            for (v, &y) in y.iter().enumerate() {
                self.put_y(r, v, y);
            }
        }
    }

    /// [`Rows::y`] of all rows.
    #[inline(always)]
    fn get_all(&self, mut y: [[I::F32; VECTORS]; MR]) -> [[I::F32; VECTORS]; MR] {
        for (r, y) in y.iter_mut().enumerate() {
            for (v, y) in y.iter_mut().enumerate() {
                *y = self.y(r, v, *y);
            }
        }
        y
    }
}

/// A block of all MR rows of a running tile, and the weights that it meets.
struct Block<'a, I, S, const PAIRS: usize, const MR: usize> {
    isa: I,
    x: RowBlock<'a>,
    weights: S,
    rows: Rows<I, MR>,
}

impl<I: PairsI8, S: Source<I>, const PAIRS: usize, const MR: usize> Block<'_, I, S, PAIRS, MR> {
    /// Whether the level of zero is 0.
    const WITHOUT_ZERO: bool = S::MINIMUM || PAIRS == WORDS || PAIRS == SIGNED_BYTES;

    /// The elements of row `r` of the block, and its words where they were kept.
    #[inline(always)]
    fn elements(&self, r: usize) -> *const u8 {
        self.x.task.x.wrapping_add(r.wrapping_mul(self.x.task.ldx) + self.x.at * BLOCK * self.x.row.bytes)
    }

    /// The four bytes at `at`, some of a block's elements or of words made of these, in each lane.
    #[inline(always)]
    fn fours(&self, at: *const u8) -> I::I32 {
        self.isa.splat_i32(word(at))
    }

    /// The groups of a sub-block.
    const fn groups(sub: usize) -> (usize, usize) {
        match (S::HALVES, sub) {
            (false, _) => (0, GROUPS),
            (true, 0) => (0, GROUPS / 2),
            (true, _) => (GROUPS / 2, GROUPS),
        }
    }

    /// The sums of a sub-block's products with high bytes. The first sub-block's are floats already, above [`MAGIC`].
    #[inline(always)]
    fn sums_of_bytes(&self, sub: usize) -> [[I::I32; VECTORS]; MR] {
        let isa = self.isa;
        let (begin, end) = const { [Self::groups(0), Self::groups(1)] }[sub];
        let ones = isa.splat_i32(0x0001_0001);
        let mut sums = [[isa.splat_i32(0); VECTORS]; MR];
        for first in (begin..end).step_by(PAIRS.max(1)) {
            let mut pairs = [[isa.splat_i32(0); VECTORS]; MR];
            for group in first..end.min(first + PAIRS) {
                // Loads of later groups stay behind this, or they'd be done early and take the sums' registers.
                compiler_fence(Ordering::SeqCst);
                self.weights.prefetch(group);
                let mut w = [isa.splat_i32(0); VECTORS];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = self.weights.level(group, v);
                }
                for (r, pairs) in pairs.iter_mut().enumerate() {
                    let x = self.fours(self.elements(r).wrapping_add(group * STEP));
                    for (v, pairs) in pairs.iter_mut().enumerate() {
                        *pairs = match PAIRS {
                            SIGNED_BYTES => isa.signed_pairs(w[v], x),
                            _ if group == first => isa.pairs(w[v], x),
                            _ => isa.add_pairs(*pairs, w[v], x),
                        };
                    }
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    let whole = isa.words(pairs[r][v], ones);
                    *sum = if first == begin { whole } else { isa.add_i32(*sum, whole) };
                }
            }
        }
        compiler_fence(Ordering::SeqCst);
        let magic = if sub == 0 { MAGIC } else { 0 };
        for (r, sums) in sums.iter_mut().enumerate() {
            let start = if Self::WITHOUT_ZERO {
                magic
            } else {
                let at = if S::HALVES {
                    self.x.record(self.x.row.halves) + HALF_STARTS + 4 * sub
                } else {
                    self.x.record(self.x.row.blocks) + START
                };
                (self.x.int(r, at).wrapping_sub(magic) >> self.x.task.zero_shift).wrapping_add(magic)
            };
            let start = isa.splat_i32(start);
            *sums = arrays::map(*sums, |sum| isa.add_i32(sum, start));
        }
        sums
    }

    /// The words of each row: its own, or those made of its high bytes.
    #[inline(always)]
    fn words(&self) -> [*const u8; MR] {
        let isa = self.isa;
        let high = isa.splat_i32(0xff00_ff00_u32 as i32);
        let mut words = [std::ptr::null(); MR];
        for (r, words) in words.iter_mut().enumerate() {
            let own = self.elements(r);
            *words = own;
            if self.x.row.bytes == 2 && self.x.kept(r) {
                continue;
            }
            let made =
                self.rows.memory.wrapping_byte_add(size_of::<[[f32; MAX_NR]; ROWS]>() + r * WORDS_BYTES);
            // SAFETY: vectors of up to 64 bytes from a block's elements on are within the row, where records follow them;
            // the memory has room for the words.
            unsafe {
                let bytes = isa.load_i32(own.cast());
                isa.store_i32(made.cast(), isa.and(isa.shl::<8>(bytes), high));
                isa.store_i32(made.wrapping_byte_add(ODD_WORDS).cast(), isa.and(bytes, high));
            }
            *words = made.cast::<u8>().cast_const();
        }
        words
    }

    /// Levels of a group as words, the even ones or the odd ones, of each vector.
    #[inline(always)]
    fn levels(&self, group: usize, odd: usize) -> [I::I32; VECTORS] {
        let mut levels = [self.isa.splat_i32(0); VECTORS];
        for (v, level) in levels.iter_mut().enumerate() {
            *level = match PAIRS {
                WORDS => self.weights.level(2 * group + odd, v),
                SIGNED_BYTES => self.isa.split(self.weights.level(group, v))[odd],
                _ => self.isa.split_unsigned(self.weights.level(group, v))[odd],
            };
        }
        levels
    }

    /// The sums of a sub-block's products with words.
    #[inline(always)]
    fn sums_of_words(&self, words: &[*const u8; MR], sub: usize) -> [[I::I32; VECTORS]; MR] {
        let isa = self.isa;
        let (begin, end) = const { [Self::groups(0), Self::groups(1)] }[sub];
        let mut sums = [[isa.splat_i32(0); VECTORS]; MR];
        for group in begin..end {
            self.weights.prefetch(group);
            for odd in 0..2 {
                compiler_fence(Ordering::SeqCst);
                let w = self.levels(group, odd);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = self.fours(words[r].wrapping_add(group * STEP + odd * ODD_WORDS));
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let is_first = group == begin && odd == 0;
                        *sum = if is_first { isa.words(w[v], x) } else { isa.add_words(*sum, w[v], x) };
                    }
                }
            }
        }
        compiler_fence(Ordering::SeqCst);
        if Self::WITHOUT_ZERO {
            return sums;
        }
        let at = if S::HALVES { HALF_TOTAL_STARTS + 4 * sub } else { TOTAL_START };
        for (r, sums) in sums.iter_mut().enumerate() {
            let start =
                isa.splat_i32(self.x.int(r, self.x.record(self.x.row.second) + at) >> self.x.task.zero_shift);
            *sums = arrays::map(*sums, |sum| isa.add_i32(sum, start));
        }
        sums
    }

    /// The sums of a sub-block's products.
    #[inline(always)]
    fn sums<const BY_WORDS: bool>(&self, words: &[*const u8; MR], sub: usize) -> [[I::I32; VECTORS]; MR] {
        if BY_WORDS { self.sums_of_words(words, sub) } else { self.sums_of_bytes(sub) }
    }

    /// Scales of a sub-block, which with words count 256 times as many.
    #[inline(always)]
    fn scale<const BY_WORDS: bool>(&self, sub: usize, v: usize) -> I::F32 {
        let scale = self.weights.scale(sub, v);
        if BY_WORDS { self.isa.mul(scale, self.isa.splat(1.0 / 256.0)) } else { scale }
    }

    /// Adds the block's products to y, with words where any row keeps its low bytes.
    #[inline(always)]
    fn add_kept(&self, y: &mut [[I::F32; VECTORS]; MR]) {
        if self.x.any_kept(MR) {
            self.add::<true>(y);
        } else {
            self.add::<false>(y);
        }
    }

    /// Adds the block's products to y, with words or with bytes.
    #[inline(always)]
    fn add<const BY_WORDS: bool>(&self, y: &mut [[I::F32; VECTORS]; MR]) {
        let isa = self.isa;
        let words = if BY_WORDS { self.words() } else { [std::ptr::null(); MR] };
        let first = self.sums::<BY_WORDS>(&words, 0);
        let mut scaled = [[isa.zero(); VECTORS]; MR];
        for v in 0..VECTORS {
            let (scale, bias) = (self.scale::<BY_WORDS>(0, v), self.weights.bias(v));
            for r in 0..MR {
                scaled[r][v] = if BY_WORDS {
                    isa.mul(isa.to_f32(first[r][v]), scale)
                } else {
                    isa.mul_add(isa.from_bits(first[r][v]), scale, bias)
                };
            }
        }
        if S::HALVES {
            let last = self.sums::<BY_WORDS>(&words, 1);
            for v in 0..VECTORS {
                let scale = self.scale::<BY_WORDS>(1, v);
                for r in 0..MR {
                    scaled[r][v] = isa.mul_add(isa.to_f32(last[r][v]), scale, scaled[r][v]);
                }
            }
        }
        for r in 0..MR {
            let d = isa.splat(self.x.float(r, self.x.record(self.x.row.blocks) + SCALE));
            for v in 0..VECTORS {
                let sum = isa.mul_add(scaled[r][v], d, self.rows.y(r, v, y[r][v]));
                y[r][v] = self.add_minimums(sum, r, v);
                self.rows.put_y(r, v, y[r][v]);
            }
        }
    }

    #[inline(always)]
    fn add_minimums(&self, mut y: I::F32, r: usize, v: usize) -> I::F32 {
        if !S::MINIMUM {
            return y;
        }
        let (subs, part) = if S::HALVES { (2, self.x.row.halves) } else { (1, self.x.row.blocks) };
        for sub in 0..subs {
            let at = self.x.record(part) + if S::HALVES { HALF_SUMS + 4 * sub } else { SCALED_SUM };
            y = self.isa.mul_add(self.weights.minimum(sub, v), self.isa.splat(self.x.float(r, at)), y);
        }
        y
    }
}
