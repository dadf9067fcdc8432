//! The register tile: MR rows × the two vectors of a panel, over a stretch of widened blocks.
//! Its kinds are few, whatever the number of types: with or without minimums, scales of 32 K-steps or of 16.

use super::activations::{
    HALF_STARTS, HALF_SUMS, KEPT, LOW_STARTS, MAGIC, MAGIC_256, RECORD, RowParts, SCALE, SCALED_SUM, START,
};
use super::form::{GROUPS, STEP};
use super::wide::{BIAS, VECTORS, Wide};
use crate::isa::{DotI8, Isa, IsaId, SimdBody};
use crate::quant::BLOCK;
use std::sync::atomic::{Ordering, compiler_fence};

/// Rows of the largest tile. For each vector of a row there are an integer sum and a float one in registers (and
/// with halves one more for the first), and the operands. Fewer than twelve integer sums wait for each other.
pub const fn max_rows<I: Isa>(halves: bool) -> usize {
    match I::ID {
        IsaId::Scalar => 1,
        IsaId::Avx512Vnni | IsaId::NeonDotprod if halves => 4,
        IsaId::Avx512Vnni | IsaId::NeonDotprod => 6,
        IsaId::AvxVnni if !halves => 3,
        _ => 2,
    }
}

/// Rows of X against a panel or a stretch of it.
#[derive(Clone, Copy)]
pub struct Task {
    /// First row.
    pub x: *const u8,
    pub ldx: usize,
    pub k: usize,
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

/// A running [`tile`], whose promise holds as long as the value lives.
struct Tile<'a, I, const HALVES: bool, const MINIMUM: bool, const MR: usize, const BYTES: usize> {
    isa: I,
    task: &'a Task,
}

/// Multiplies MR rows. Out of line: a function of its own for each tile keeps them small for the compiler.
///
/// # Safety
/// MR rows of X have the task's blocks, the widened blocks are there, and Y (and the bias, unless it is null) has
/// `columns` columns in MR rows that nobody else reads or writes meanwhile.
#[inline(never)]
pub unsafe fn tile<I: DotI8, const HALVES: bool, const MINIMUM: bool, const MR: usize, const BYTES: usize>(
    isa: I,
    task: &Task,
) {
    isa.vectorize(Tile::<I, HALVES, MINIMUM, MR, BYTES> { isa, task });
}

impl<I: DotI8, const HALVES: bool, const MINIMUM: bool, const MR: usize, const BYTES: usize> SimdBody
    for Tile<'_, I, HALVES, MINIMUM, MR, BYTES>
{
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let Tile { isa, task } = self;
        let width = |v: usize| task.columns.saturating_sub(v * I::LANES).min(I::LANES);
        let y_at = |r: usize, v: usize| task.y.wrapping_add(r.wrapping_mul(task.ldy) + v * I::LANES);
        let mut y = [[isa.zero(); VECTORS]; MR];
        for (r, y) in y.iter_mut().enumerate() {
            for (v, y) in y.iter_mut().enumerate() {
                // SAFETY: only columns that exist are read.
                unsafe {
                    if task.load {
                        *y = isa.load_first(y_at(r, v), width(v));
                    }
                    if !task.bias.is_null() {
                        let bias = isa.load_first(task.bias.wrapping_add(v * I::LANES), width(v));
                        *y = isa.add(*y, bias);
                    }
                }
            }
        }
        let wide = const { Wide { halves: HALVES, minimum: MINIMUM } };
        let row = RowParts::new(BYTES, task.k);
        for b in 0..task.blocks {
            let w = task.w.wrapping_add(b * wide.vectors() * I::LANES * STEP);
            let block = Block::<I, HALVES, MINIMUM, MR, BYTES> { isa, at: task.begin + b, row, w, task };
            if BYTES == 2 && block.any_kept() {
                block.add::<true>(&mut y);
            } else {
                block.add::<false>(&mut y);
            }
        }
        for (r, y) in y.into_iter().enumerate() {
            for (v, y) in y.into_iter().enumerate() {
                // SAFETY: only columns that exist are written.
                unsafe { isa.store_first(y_at(r, v), y, width(v)) };
            }
        }
    }
}

/// One block of all rows of a running tile. It is made for blocks that the tile's task has, so that the memory that it reads, in
/// MR rows of X and in the widened block, is there.
struct Block<'a, I, const HALVES: bool, const MINIMUM: bool, const MR: usize, const BYTES: usize> {
    isa: I,
    /// Its number in the rows.
    at: usize,
    row: RowParts,
    w: *const u8,
    task: &'a Task,
}

impl<I: DotI8, const HALVES: bool, const MINIMUM: bool, const MR: usize, const BYTES: usize>
    Block<'_, I, HALVES, MINIMUM, MR, BYTES>
{
    const WIDE: Wide = Wide { halves: HALVES, minimum: MINIMUM };

    /// The word at byte `at` of row `r`.
    #[inline(always)]
    fn int(&self, r: usize, at: usize) -> i32 {
        let row = self.task.x.wrapping_add(r.wrapping_mul(self.task.ldx));
        // SAFETY: the tile's row r < MR is there, and `at` is the place of one of the block's words in it.
        unsafe { row.wrapping_add(at).cast::<i32>().read_unaligned() }
    }

    #[inline(always)]
    fn ints(&self, r: usize, at: usize) -> I::I32 {
        self.isa.splat_i32(self.int(r, at))
    }

    #[inline(always)]
    fn floats(&self, r: usize, at: usize) -> I::F32 {
        self.isa.splat(f32::from_bits(self.int(r, at) as u32))
    }

    /// Where the block's record is in the part of a row that begins at `part`.
    #[inline(always)]
    fn record(&self, part: usize) -> usize {
        part + self.at * RECORD
    }

    /// Vector `vector` of the wide block.
    #[inline(always)]
    fn vector(&self, vector: usize) -> I::F32 {
        // SAFETY: the widened block is there, and `vector` is one of those that `Wide` counts.
        unsafe { self.isa.load(self.w.wrapping_add(vector * I::LANES * STEP).cast()) }
    }

    /// Whether any row keeps its low byte.
    #[inline(always)]
    fn any_kept(&self) -> bool {
        let mut kept = 0;
        for r in 0..MR {
            kept |= self.int(r, self.record(self.row.blocks) + KEPT);
        }
        kept != 0
    }

    /// The start of row r's sums of high bytes, or the addend of low ones, for the whole block or a half: `magic`, and
    /// the share of the levels' zero.
    #[inline(always)]
    fn start(&self, r: usize, at: usize, magic: i32) -> I::I32 {
        if MINIMUM || I::SIGNED {
            return self.isa.splat_i32(magic);
        }
        if MR > FEW {
            return self.ints(r, at);
        }
        let zero = self.int(r, at).wrapping_sub(magic) >> self.task.zero_shift;
        self.isa.splat_i32(zero.wrapping_add(magic))
    }

    /// Adds the products of groups from `begin` to `end` and byte `byte` to the sums.
    #[inline(always)]
    fn dots(&self, sums: &mut [[I::I32; VECTORS]; MR], byte: usize, begin: usize, end: usize) {
        for group in begin..end {
            // Loads of later groups stay behind this, or they'd be done early and take the sums' registers.
            compiler_fence(Ordering::SeqCst);
            let mut w = [self.isa.splat_i32(0); VECTORS];
            for (v, w) in w.iter_mut().enumerate() {
                *w = self.isa.to_bits(self.vector(Self::WIDE.level(group, v)));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = self.ints(r, byte * self.task.k + self.at * BLOCK + group * STEP);
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = if MINIMUM { self.isa.dot_small(*sum, w, x) } else { self.isa.dot(*sum, w, x) };
                }
            }
        }
    }

    /// Integer sums of one sub-block; 256-fold with the low byte's added where that is LOW.
    #[inline(always)]
    fn sums<const LOW: bool>(&self, sub: usize) -> [[I::I32; VECTORS]; MR] {
        let (begin, end) = match (HALVES, sub) {
            (false, _) => (0, GROUPS),
            (true, 0) => (0, GROUPS / 2),
            (true, _) => (GROUPS / 2, GROUPS),
        };
        let (first, second) = if HALVES {
            (self.record(self.row.halves) + HALF_STARTS + 4 * sub, LOW_STARTS + 4 + 4 * sub)
        } else {
            (self.record(self.row.blocks) + START, LOW_STARTS)
        };
        // Two bytes are converted as an integer; where nothing else is to be added, the constant isn't either.
        let plain = MINIMUM || I::SIGNED;
        let magic = if sub == 0 && !(LOW && plain) { MAGIC } else { 0 };
        let mut sums = [[self.isa.splat_i32(0); VECTORS]; MR];
        for (r, sums) in sums.iter_mut().enumerate() {
            *sums = [self.start(r, first, magic); VECTORS];
        }
        self.dots(&mut sums, 0, begin, end);
        if LOW {
            let magic = if sub == 0 { MAGIC_256.wrapping_neg() } else { 0 };
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = sums.map(|sum| self.isa.shl::<8>(sum));
                if !plain {
                    let start = self.start(r, self.record(self.row.second) + second, magic);
                    *sums = sums.map(|sum| self.isa.add_i32(sum, start));
                }
            }
            self.dots(&mut sums, 1, begin, end);
        }
        compiler_fence(Ordering::SeqCst);
        sums
    }

    /// Scales of a sub-block, which with LOW bytes count 256 times as many.
    #[inline(always)]
    fn scale<const LOW: bool>(&self, sub: usize, v: usize) -> I::F32 {
        let scale = self.vector(Self::WIDE.scale(sub, v));
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
            let bias = self.vector(Self::WIDE.bias(v));
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

    /// Adds the block's products to y.
    #[inline(always)]
    fn add<const LOW: bool>(&self, y: &mut [[I::F32; VECTORS]; MR]) {
        let isa = self.isa;
        let mut scaled = self.scaled::<LOW>();
        if HALVES {
            let sums = self.sums::<LOW>(1);
            for v in 0..VECTORS {
                let scale = self.scale::<LOW>(1, v);
                for r in 0..MR {
                    scaled[r][v] = isa.mul_add(isa.to_f32(sums[r][v]), scale, scaled[r][v]);
                }
            }
        }
        for r in 0..MR {
            let d = self.floats(r, self.record(self.row.blocks) + SCALE);
            for v in 0..VECTORS {
                y[r][v] = isa.mul_add(scaled[r][v], d, y[r][v]);
            }
        }
        if MINIMUM {
            self.add_minimums(y);
        }
    }

    #[inline(always)]
    fn add_minimums(&self, y: &mut [[I::F32; VECTORS]; MR]) {
        let (subs, part) = if HALVES { (2, self.row.halves) } else { (1, self.row.blocks) };
        for sub in 0..subs {
            let at = self.record(part) + if HALVES { HALF_SUMS + 4 * sub } else { SCALED_SUM };
            let minimum: [_; VECTORS] =
                [self.vector(Self::WIDE.minimum(sub, 0)), self.vector(Self::WIDE.minimum(sub, 1))];
            for (r, y) in y.iter_mut().enumerate() {
                let sum = self.floats(r, at);
                for (y, minimum) in y.iter_mut().zip(minimum) {
                    *y = self.isa.mul_add(minimum, sum, *y);
                }
            }
        }
    }
}
