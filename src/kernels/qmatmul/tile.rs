//! The register tile: MR rows × the two vectors of a panel, over a stretch of widened blocks.
//! Its kinds are few, whatever the number of types: with or without minimums, scales of 32 K-steps or of 16.
//! One row alone has a tile for each type, over a packed panel: nothing is stored on the way.
//! The tiles here are for levels with an instruction for four products a lane; `pairs` has those of the others.

use super::activations::{
    HALF_STARTS, HALF_SUMS, KEPT, LOW_STARTS, MAGIC, MAGIC_256, RECORD, RowParts, SCALE, SCALED_SUM, START,
};
use super::form::{Format, GROUPS, STEP};
use super::wide::{BIAS, Packed, Source, VECTORS, Wide, Widened, each_group};
use crate::arrays;
use crate::isa::{DotI8, Isa, IsaId, SimdBody};
use crate::quant::BLOCK;
use std::marker::PhantomData;
use std::sync::atomic::{Ordering, compiler_fence};

/// How a level multiplies rows with a stretch of a panel.
pub trait Tiles: 'static {
    /// The level.
    type Isa: DotI8;
    /// Whether small levels are multiplied as pairs of bytes and others as words, as `pairs` does.
    const BY_PAIRS: bool;
    /// Rows of the largest tile, with scales of 32 K-steps and of 16.
    const MAX_ROWS: [usize; 2];

    /// Multiplies MR rows. Out of line: a function of its own for each tile keeps them small for the compiler. PAIRS is
    /// how many pairs of products add up within 16 bits, [`WORDS`] or [`SIGNED_BYTES`]; only tiles of pairs look at it.
    /// LOW is for rows of two bytes an element; where there are four products a lane, for any rows. The task has MR rows
    /// and widened blocks.
    fn tile<const HALVES: bool, const MINIMUM: bool, const PAIRS: usize, const MR: usize, const LOW: bool>(
        isa: Self::Isa,
        task: &Task,
    );

    /// Multiplies one row with a whole packed panel, at the task's `w`, of which bytes are prefetched `ahead` of their
    /// use. The bits are those of [`Tiles::tile`]. Tiles of pairs have it for one byte an element, and for levels of 8 bits.
    fn line<F: Format>(isa: Self::Isa, task: &Task, ahead: usize);
}

/// For [`Tiles::tile`], instead of how many pairs add up within 16 bits: levels are signed words.
pub const WORDS: usize = 0;
/// The same: levels are signed bytes, whose pairs fill 16 bits. For few rows, since it takes less to widen them.
pub const SIGNED_BYTES: usize = 1;

/// The tiles of a level that multiplies fours.
pub struct Fours<I>(PhantomData<I>);

/// Rows of the largest tile. For each vector of a row there are an integer sum and a float one in registers (and
/// with halves one more for the first), and the operands. Fewer than twelve integer sums wait for each other.
const fn max_rows<I: Isa>(halves: bool) -> usize {
    match I::ID {
        IsaId::Scalar => 1,
        IsaId::Avx512Vnni | IsaId::NeonDotprod if halves => 4,
        IsaId::Avx512Vnni | IsaId::NeonDotprod => 6,
        IsaId::AvxVnni if !halves => 3,
        _ => 2,
    }
}

/// Rows of X against a panel or a stretch of it. As long as a task is used, the rows have its blocks, the packed or widened
/// blocks are there, and Y (and the bias, unless it is null) has `columns` columns in as many rows, which nobody else reads
/// or writes meanwhile.
#[derive(Clone, Copy)]
pub struct Task {
    /// First row.
    pub x: *const u8,
    pub ldx: usize,
    pub k: usize,
    /// Bytes an element of the rows.
    pub bytes: usize,
    /// First block of the rows.
    pub begin: usize,
    /// First widened block.
    pub w: *const u8,
    pub blocks: usize,
    /// How far down to shift the starts of sums, which activations have for a level of zero of 128, for the level that
    /// the type has. Only for tiles of FEW rows: for others it is 128.
    pub zero_shift: u32,
    /// First row, first column of the panel.
    pub y: *mut f32,
    pub ldy: usize,
    /// Columns of the panel that exist.
    pub columns: usize,
    /// Whether sums start from Y.
    pub load: bool,
    /// Bias of the panel's columns, or null.
    pub bias: *const f32,
}

/// Up to this many rows take levels with their own zero.
pub const FEW: usize = 2;

/// A running [`Tiles::tile`], whose promise holds as long as the value lives.
struct Tile<'a, I, const HALVES: bool, const MINIMUM: bool, const MR: usize, const LOW: bool> {
    isa: I,
    task: &'a Task,
}

impl<I: DotI8> Tiles for Fours<I> {
    type Isa = I;
    const BY_PAIRS: bool = false;
    const MAX_ROWS: [usize; 2] = [max_rows::<I>(false), max_rows::<I>(true)];

    fn tile<const HALVES: bool, const MINIMUM: bool, const PAIRS: usize, const MR: usize, const LOW: bool>(
        isa: I,
        task: &Task,
    ) {
        isa.vectorize(Tile::<I, HALVES, MINIMUM, MR, LOW> { isa, task });
    }

    fn line<F: Format>(isa: I, task: &Task, ahead: usize) {
        isa.vectorize(Line::<I, F, true> { isa, task, ahead, format: PhantomData });
    }
}

impl<I: DotI8, const HALVES: bool, const MINIMUM: bool, const MR: usize, const LOW: bool> SimdBody
    for Tile<'_, I, HALVES, MINIMUM, MR, LOW>
{
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let Tile { isa, task } = self;
        let row = RowParts::new(task.bytes, task.k);
        let mut y = first_sums::<I, MR>(isa, task);
        let wide = const { Wide { halves: HALVES, minimum: MINIMUM, words: false } };
        for b in 0..task.blocks {
            let w = task.w.wrapping_add(b * wide.bytes::<I>());
            // SAFETY: the task has the widened block.
            let weights = unsafe { Widened::<I, HALVES, MINIMUM>::new(isa, w) };
            let x = RowBlock { task, at: task.begin + b, row };
            Block::<I, _, MR> { isa, x, weights }.add_kept::<LOW>(&mut y);
        }
        last_sums::<I, MR>(isa, task, y);
    }
}

/// A running [`Tiles::line`], whose promise holds as long as the value lives; where the row has two bytes an element,
/// that is LOW.
pub struct Line<'a, I, F, const LOW: bool> {
    pub isa: I,
    pub task: &'a Task,
    pub ahead: usize,
    pub format: PhantomData<F>,
}

impl<I: DotI8, F: Format, const LOW: bool> SimdBody for Line<'_, I, F, LOW> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let Line { isa, task, ahead, .. } = self;
        let row = RowParts::new(task.bytes, task.k);
        let mut y = first_sums::<I, 1>(isa, task);
        each_packed::<I, F>(
            isa,
            task,
            ahead,
            #[inline(always)]
            |at, weights| {
                let x = RowBlock { task, at, row };
                Block::<I, _, 1> { isa, x, weights }.add_kept::<LOW>(&mut y)
            },
        );
        last_sums::<I, 1>(isa, task, y);
    }
}

/// The blocks of the packed panel at the task's `w`, with their numbers.
#[inline(always)]
pub fn each_packed<I: DotI8, F: Format>(
    isa: I,
    task: &Task,
    ahead: usize,
    mut each: impl FnMut(usize, Packed<I, F>),
) {
    let bytes = const { F::FORM.unit_bytes(VECTORS * I::LANES) };
    for unit in 0..task.blocks / F::FORM.blocks {
        let w = task.w.wrapping_add(unit * bytes);
        for block in 0..F::FORM.blocks {
            // SAFETY: the panel has the unit.
            let weights = unsafe { Packed::<I, F>::new(isa, w, block, ahead) };
            each(unit * F::FORM.blocks + block, weights);
        }
    }
}

/// Columns of vector `v` of a panel that exist.
#[inline(always)]
fn width<I: Isa>(task: &Task, v: usize) -> usize {
    task.columns.saturating_sub(v * I::LANES).min(I::LANES)
}

/// Where row `r`, vector `v` of Y is.
#[inline(always)]
fn y_at<I: Isa>(task: &Task, r: usize, v: usize) -> *mut f32 {
    task.y.wrapping_add(r.wrapping_mul(task.ldy) + v * I::LANES)
}

/// The sums before the first block: of Y, or zero, and the bias.
#[inline(always)]
pub fn first_sums<I: Isa, const MR: usize>(isa: I, task: &Task) -> [[I::F32; VECTORS]; MR] {
    let mut y = [[isa.zero(); VECTORS]; MR];
    for (r, y) in y.iter_mut().enumerate() {
        for (v, y) in y.iter_mut().enumerate() {
            // SAFETY: only columns that exist are read.
            unsafe {
                if task.load {
                    *y = isa.load_first(y_at::<I>(task, r, v), width::<I>(task, v));
                }
                if !task.bias.is_null() {
                    let bias = isa.load_first(task.bias.wrapping_add(v * I::LANES), width::<I>(task, v));
                    *y = isa.add(*y, bias);
                }
            }
        }
    }
    y
}

/// Stores the sums behind the last block.
#[inline(always)]
pub fn last_sums<I: Isa, const MR: usize>(isa: I, task: &Task, y: [[I::F32; VECTORS]; MR]) {
    for (r, y) in y.iter().enumerate() {
        for (v, y) in y.iter().enumerate() {
            // SAFETY: only columns that exist are written.
            unsafe { isa.store_first(y_at::<I>(task, r, v), *y, width::<I>(task, v)) };
        }
    }
}

/// The word at `at`, which is one of the elements or of a record of rows that a task has.
#[inline(always)]
pub fn word(at: *const u8) -> i32 {
    // SAFETY: the rows are there as long as their task is used.
    unsafe { at.cast::<i32>().read_unaligned() }
}

/// A block of the rows of a running tile. It is made for blocks that the tile's task has, so that what it reads of
/// these rows is there.
#[derive(Clone, Copy)]
pub struct RowBlock<'a> {
    /// The rows.
    pub task: &'a Task,
    /// The block's number in them.
    pub at: usize,
    /// Where their parts are.
    pub row: RowParts,
}

impl RowBlock<'_> {
    /// The word at byte `at` of row `r`.
    #[inline(always)]
    pub fn int(self, r: usize, at: usize) -> i32 {
        word(self.task.x.wrapping_add(r.wrapping_mul(self.task.ldx) + at))
    }

    /// [`RowBlock::int`] of a float.
    #[inline(always)]
    pub fn float(self, r: usize, at: usize) -> f32 {
        f32::from_bits(self.int(r, at) as u32)
    }

    /// Where the block's record is in the part of a row that begins at `part`.
    #[inline(always)]
    pub fn record(self, part: usize) -> usize {
        part + self.at * RECORD
    }

    /// Whether row `r` keeps its low bytes.
    #[inline(always)]
    pub fn kept(self, r: usize) -> bool {
        self.int(r, self.record(self.row.blocks) + KEPT) != 0
    }

    /// Whether any of the first `rows` rows does.
    #[inline(always)]
    pub fn any_kept(self, rows: usize) -> bool {
        self.row.bytes == 2 && (0..rows).fold(false, |any, r| any | self.kept(r))
    }
}

/// One block of all MR rows of a running tile, and the weights that it meets.
struct Block<'a, I, S, const MR: usize> {
    isa: I,
    x: RowBlock<'a>,
    weights: S,
}

impl<I: DotI8, S: Source<I>, const MR: usize> Block<'_, I, S, MR> {
    #[inline(always)]
    fn ints(&self, r: usize, at: usize) -> I::I32 {
        self.isa.splat_i32(self.x.int(r, at))
    }

    /// The start of row r's sums of high bytes, or the addend of low ones, for the whole block or a half: `magic`, and
    /// the share of the levels' zero.
    #[inline(always)]
    fn start(&self, r: usize, at: usize, magic: i32) -> I::I32 {
        if S::MINIMUM || I::SIGNED {
            return self.isa.splat_i32(magic);
        }
        if MR > FEW {
            return self.ints(r, at);
        }
        let zero = self.x.int(r, at).wrapping_sub(magic) >> self.x.task.zero_shift;
        self.isa.splat_i32(zero.wrapping_add(magic))
    }

    /// Adds the products of groups from `begin` to `end` and byte `byte` to the sums.
    #[inline(always)]
    fn dots(&self, sums: &mut [[I::I32; VECTORS]; MR], byte: usize, begin: usize, end: usize) {
        for group in begin..end {
            // Loads of later groups stay behind this, or they'd be done early and take the sums' registers.
            compiler_fence(Ordering::SeqCst);
            if byte == 0 {
                self.weights.prefetch(group);
            }
            let w = [self.weights.level(group, 0), self.weights.level(group, 1)];
            self.dots_of_group(sums, byte, group, w);
        }
    }

    /// [`Block::dots`] for both bytes, which meet each level at once.
    #[inline(always)]
    fn dots_of_both(
        &self,
        high: &mut [[I::I32; VECTORS]; MR],
        low: &mut [[I::I32; VECTORS]; MR],
        begin: usize,
        end: usize,
    ) {
        each_group(
            #[inline(always)]
            |group| {
                if begin <= group && group < end {
                    compiler_fence(Ordering::SeqCst);
                    self.weights.prefetch(group);
                    let w = [self.weights.level(group, 0), self.weights.level(group, 1)];
                    self.dots_of_group(high, 0, group, w);
                    self.dots_of_group(low, 1, group, w);
                }
            },
        );
    }

    /// Adds the products of a group's levels and byte `byte` to the sums.
    #[inline(always)]
    fn dots_of_group(
        &self,
        sums: &mut [[I::I32; VECTORS]; MR],
        byte: usize,
        group: usize,
        w: [I::I32; VECTORS],
    ) {
        for (r, sums) in sums.iter_mut().enumerate() {
            let x = self.ints(r, byte * self.x.task.k + self.x.at * BLOCK + group * STEP);
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum =
                    if S::MINIMUM { self.isa.dot_small(*sum, w[v], x) } else { self.isa.dot(*sum, w[v], x) };
            }
        }
    }

    /// Integer sums of one sub-block; 256-fold with the low byte's added where that is LOW.
    #[inline(always)]
    fn sums<const LOW: bool>(&self, sub: usize) -> [[I::I32; VECTORS]; MR] {
        let (begin, end) = match (S::HALVES, sub) {
            (false, _) => (0, GROUPS),
            (true, 0) => (0, GROUPS / 2),
            (true, _) => (GROUPS / 2, GROUPS),
        };
        let (first, second) = if S::HALVES {
            (self.x.record(self.x.row.halves) + HALF_STARTS + 4 * sub, LOW_STARTS + 4 + 4 * sub)
        } else {
            (self.x.record(self.x.row.blocks) + START, LOW_STARTS)
        };
        // Two bytes are converted as an integer; where nothing else is to be added, the constant isn't either.
        let plain = S::MINIMUM || I::SIGNED;
        let magic = if sub == 0 && !(LOW && plain) { MAGIC } else { 0 };
        let mut sums = [[self.isa.splat_i32(0); VECTORS]; MR];
        for (r, sums) in sums.iter_mut().enumerate() {
            *sums = [self.start(r, first, magic); VECTORS];
        }
        // The constant that makes a sum the bits of a float is taken away again: two bytes are converted.
        let magic = if sub == 0 { MAGIC_256.wrapping_neg() } else { 0 };
        let low_start = |r: usize| self.start(r, self.x.record(self.x.row.second) + second, magic);
        if const { LOW && S::PACKED } {
            let mut low = [[self.isa.splat_i32(0); VECTORS]; MR];
            if !plain {
                for (r, low) in low.iter_mut().enumerate() {
                    *low = [low_start(r); VECTORS];
                }
            }
            self.dots_of_both(&mut sums, &mut low, begin, end);
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = self.isa.add_i32(self.isa.shl::<8>(*sum), low[r][v]);
                }
            }
        } else {
            self.dots(&mut sums, 0, begin, end);
            if LOW {
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = arrays::map(*sums, |sum| self.isa.shl::<8>(sum));
                    if !plain {
                        let start = low_start(r);
                        *sums = arrays::map(*sums, |sum| self.isa.add_i32(sum, start));
                    }
                }
                self.dots(&mut sums, 1, begin, end);
            }
        }
        compiler_fence(Ordering::SeqCst);
        sums
    }

    /// Scales of a sub-block, which with LOW bytes count 256 times as many.
    #[inline(always)]
    fn scale<const LOW: bool>(&self, sub: usize, v: usize) -> I::F32 {
        let scale = self.weights.scale(sub, v);
        if LOW { self.isa.mul(scale, self.isa.splat(1.0 / 256.0)) } else { scale }
    }

    /// The first sub-block's sums, scaled.
    #[inline(always)]
    fn scaled<const LOW: bool>(&self) -> [[I::F32; VECTORS]; MR] {
        let isa = self.isa;
        let mut scaled = [[isa.zero(); VECTORS]; MR];
        let sums = self.sums::<LOW>(0);
        for v in 0..VECTORS {
            let scale = self.scale::<LOW>(0, v);
            let bias = self.weights.bias(v);
            for r in 0..MR {
                scaled[r][v] = if LOW {
                    isa.mul(isa.to_f32(sums[r][v]), scale)
                } else if I::FUSED {
                    isa.mul_add(isa.from_bits(sums[r][v]), scale, bias)
                } else {
                    isa.mul(isa.sub(isa.from_bits(sums[r][v]), isa.splat(BIAS)), scale)
                };
            }
        }
        scaled
    }

    /// Adds the block's products to y, those of low bytes where any row keeps them, which none does unless it is LOW.
    #[inline(always)]
    fn add_kept<const LOW: bool>(&self, y: &mut [[I::F32; VECTORS]; MR]) {
        if LOW && self.x.any_kept(MR) {
            self.add::<true>(y);
        } else {
            self.add::<false>(y);
        }
    }

    /// Adds the block's products to y.
    #[inline(always)]
    fn add<const LOW: bool>(&self, y: &mut [[I::F32; VECTORS]; MR]) {
        let isa = self.isa;
        let mut scaled = self.scaled::<LOW>();
        if S::HALVES {
            let sums = self.sums::<LOW>(1);
            for v in 0..VECTORS {
                let scale = self.scale::<LOW>(1, v);
                for r in 0..MR {
                    scaled[r][v] = isa.mul_add(isa.to_f32(sums[r][v]), scale, scaled[r][v]);
                }
            }
        }
        for r in 0..MR {
            let d = self.isa.splat(self.x.float(r, self.x.record(self.x.row.blocks) + SCALE));
            for v in 0..VECTORS {
                y[r][v] = isa.mul_add(scaled[r][v], d, y[r][v]);
            }
        }
        if S::MINIMUM {
            self.add_minimums(y);
        }
    }

    #[inline(always)]
    fn add_minimums(&self, y: &mut [[I::F32; VECTORS]; MR]) {
        let (subs, part) = if S::HALVES { (2, self.x.row.halves) } else { (1, self.x.row.blocks) };
        for sub in 0..subs {
            let at = self.x.record(part) + if S::HALVES { HALF_SUMS + 4 * sub } else { SCALED_SUM };
            let minimum: [_; VECTORS] = [self.weights.minimum(sub, 0), self.weights.minimum(sub, 1)];
            for (r, y) in y.iter_mut().enumerate() {
                let sum = self.isa.splat(self.x.float(r, at));
                for (v, y) in y.iter_mut().enumerate() {
                    *y = self.isa.mul_add(minimum[v], sum, *y);
                }
            }
        }
    }
}
