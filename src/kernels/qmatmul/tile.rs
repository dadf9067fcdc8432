//! The kernels: register tiles of MR rows × two vectors of columns, and the loops round them.
//! Few rows stream the packed levels straight through (decode). Many rows first widen a stretch of a panel to
//! bytes in a buffer that stays in L1, once for all of them (prefill). Both do the same sums in the same order.

use super::activations::{Block, MAGIC};
use super::layout::STEP;
use super::weights::{Format, Packed, Source, VECTORS, Wide, Widen, each_group};
use crate::isa::{DotI8, Isa, IsaId, Kernel};
use crate::kernels::Portion;
use crate::quant::BLOCK;
use std::array::from_fn;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// [`MAGIC`] as a number, 1.5·2²³. Times an f16 it is exact in f32.
const BIAS: f32 = 12_582_912.0;
const _: () = assert!(BIAS.to_bits() as i32 == MAGIC);

/// Blocks widened at a time: with 32 columns of bytes, scales and minimums that is 20 KiB, about half of an L1.
const CHUNK: usize = 16;
/// Lanes of the widest vector.
const MAX_LANES: usize = 16;
/// Bytes of the widest block once widened.
const MAX_WIDE_BYTES: usize = VECTORS * MAX_LANES * (BLOCK + 2 * 4);

/// Bytes of activations that are worked through for all panels before the next rows' turn: they stay in L2.
const ROW_BLOCK_BYTES: usize = 256 << 10;

/// Rows of the largest tile. For each vector of a row there are an integer accumulator a digit and a float one,
/// beside the operands. Levels that need several instructions for a dot product are bound by those, not by
/// loads, and gain nothing from large tiles.
pub const fn max_rows<I: Isa>(digits: usize) -> usize {
    match (I::ID, digits) {
        (IsaId::Scalar, _) => 1,
        (IsaId::Avx512Vnni, 1) => 6,
        (IsaId::Avx512Vnni | IsaId::NeonDotprod, _) => 4,
        _ => 2,
    }
}

/// What takes a block's integer sums, as floats biased by [`BIAS`], to multiples of the activations' scale.
struct Scale<I: Isa> {
    d: I::F32,
    /// Minus the biases of all digits, times d: exact, because d has an f16's 11 bits and BIAS 2 (or, with
    /// 1 + 256 of it, 10).
    minus_bias_d: I::F32,
}

impl<I: DotI8> Scale<I> {
    #[inline(always)]
    fn new<const DIGITS: usize>(isa: I, d: I::F32) -> Self {
        let bias = if DIGITS == 2 { 257.0 * BIAS } else { BIAS };
        Self { d, minus_bias_d: isa.mul(d, isa.splat(-bias)) }
    }

    /// d·Σ, or d·(256·Σ₀ + Σ₁).
    #[inline(always)]
    fn apply<const DIGITS: usize>(&self, isa: I, sums: [I::I32; DIGITS]) -> I::F32 {
        if !I::FUSED {
            let unbiased = sums.map(|sum| isa.sub(isa.from_bits(sum), isa.splat(BIAS)));
            let total = unbiased.into_iter().reduce(|sum, digit| isa.mul_add(sum, isa.splat(256.0), digit));
            return isa.mul(total.unwrap_or(isa.zero()), self.d);
        }
        let mut total = self.minus_bias_d;
        for (digit, sum) in sums.into_iter().enumerate() {
            let weight = if digit + 1 < DIGITS { isa.mul(self.d, isa.splat(256.0)) } else { self.d };
            total = isa.mul_add(isa.from_bits(sum), weight, total);
        }
        total
    }
}

/// Rows of X against one panel or a stretch of it. Whoever makes one promises that its pointers are good for
/// the rows and blocks it is used with, as [`Portion`] demands.
#[derive(Clone, Copy)]
struct Task {
    /// First row's first block.
    x: *const u8,
    ldx: usize,
    /// First block of weights.
    w: *const u8,
    blocks: usize,
    /// First row, first column of the panel.
    y: *mut f32,
    ldy: usize,
    /// Columns of the panel that exist.
    columns: usize,
    /// Whether sums start from Y.
    load: bool,
    /// Bias of the panel's columns, or null.
    bias: *const f32,
}

/// MR rows of the task's X and Y, which are valid as [`Portion`] demands.
struct Tile<'a, I, S, const MR: usize, const DIGITS: usize> {
    isa: I,
    task: &'a Task,
    source: PhantomData<S>,
}

impl<I: DotI8, S: Source<I>, const MR: usize, const DIGITS: usize> Kernel for Tile<'_, I, S, MR, DIGITS> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let Tile { isa, task, .. } = self;
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
        for b in 0..task.blocks {
            let x = task.x.wrapping_add(b * Block::<DIGITS>::BYTES);
            let rows = from_fn(|r| x.wrapping_add(r.wrapping_mul(task.ldx)));
            let w = task.w.wrapping_add(b * S::BLOCK_BYTES);
            // SAFETY: b counts blocks of X's rows and of W.
            unsafe { tile_block::<I, S, MR, DIGITS>(isa, &rows, w, &mut y) };
        }
        for (r, y) in y.into_iter().enumerate() {
            for (v, y) in y.into_iter().enumerate() {
                // SAFETY: only columns that exist are written.
                unsafe { isa.store_first(y_at(r, v), y, width(v)) };
            }
        }
    }
}

/// Adds one block's products.
///
/// # Safety
/// `w` is a block, and so is each of `x`.
#[inline(always)]
unsafe fn tile_block<I: DotI8, S: Source<I>, const MR: usize, const DIGITS: usize>(
    isa: I,
    x: &[*const u8; MR],
    w: *const u8,
    y: &mut [[I::F32; VECTORS]; MR],
) {
    // SAFETY: the offsets are within a block.
    let int = |r: usize, at: usize| unsafe { x[r].wrapping_add(at).cast::<i32>().read_unaligned() };
    let float = |r: usize, at: usize| isa.splat(f32::from_bits(int(r, at) as u32));
    let mut sums: [[[I::I32; VECTORS]; DIGITS]; MR] = from_fn(|r| {
        from_fn(|digit| {
            let start = match S::ZERO {
                0 => MAGIC,
                128 => int(r, Block::<DIGITS>::STARTS + 4 * digit),
                zero => MAGIC - zero * int(r, Block::<DIGITS>::SUMS + 4 * digit),
            };
            [isa.splat_i32(start); VECTORS]
        })
    });
    each_group(
        S::UNROLL,
        #[inline(always)]
        |group| {
            // SAFETY: `w` is a block.
            let bytes: [_; VECTORS] = unsafe { [S::bytes(isa, w, group, 0), S::bytes(isa, w, group, 1)] };
            for (r, sums) in sums.iter_mut().enumerate() {
                for (digit, sums) in sums.iter_mut().enumerate() {
                    let x = isa.splat_i32(int(r, digit * BLOCK + group * STEP));
                    for (sum, bytes) in sums.iter_mut().zip(bytes) {
                        *sum = if S::SMALL { isa.dot_small(*sum, bytes, x) } else { isa.dot(*sum, bytes, x) };
                    }
                }
            }
        },
    );
    for v in 0..VECTORS {
        // SAFETY: `w` is a block.
        let scale = Scale::new::<DIGITS>(isa, unsafe { S::scales(isa, w, v) });
        for (r, (y, sums)) in y.iter_mut().zip(&sums).enumerate() {
            let scaled = scale.apply::<DIGITS>(isa, from_fn(|digit| sums[digit][v]));
            y[v] = isa.mul_add(scaled, float(r, Block::<DIGITS>::SCALE), y[v]);
        }
        if S::MINIMUM {
            // SAFETY: `w` is a block with minimums.
            let m = unsafe { S::minimums(isa, w, v) };
            for (r, y) in y.iter_mut().enumerate() {
                y[v] = isa.mul_add(m, float(r, Block::<DIGITS>::SCALED_SUM), y[v]);
            }
        }
    }
}

/// Out of line: a function of its own for each tile keeps them small for the compiler.
fn tile<I: DotI8, S: Source<I>, const MR: usize, const DIGITS: usize>(isa: I, task: &Task) {
    isa.vectorize(Tile::<I, S, MR, DIGITS> { isa, task, source: PhantomData });
}

/// All rows of the task, in tiles as even as can be.
fn sweep<I: DotI8, S: Source<I>, const DIGITS: usize>(isa: I, rows: usize, mut task: Task) {
    let mut left = rows;
    while left > 0 {
        let most = const { max_rows::<I>(DIGITS) };
        // Only more rows than one tile holds are widened, which are then shared out to at least half of `most`.
        let least = if S::WIDE { most / 2 } else { 1 };
        let mr = left.div_ceil(left.div_ceil(most));
        match mr {
            1 if least <= 1 => tile::<I, S, 1, DIGITS>(isa, &task),
            2 if least <= 2 => tile::<I, S, 2, DIGITS>(isa, &task),
            3 if most >= 3 => tile::<I, S, 3, DIGITS>(isa, &task),
            4 if most >= 4 => tile::<I, S, 4, DIGITS>(isa, &task),
            5 if most >= 5 => tile::<I, S, 5, DIGITS>(isa, &task),
            6 if most >= 6 => tile::<I, S, 6, DIGITS>(isa, &task),
            _ => unreachable!("rows are shared out evenly"),
        }
        task.x = task.x.wrapping_add(mr * task.ldx);
        task.y = task.y.wrapping_add(mr * task.ldy);
        left -= mr;
    }
}

/// The table entry: [`super::Set::run`] of one level and type.
///
/// # Safety
/// As there; and the CPU has the level.
pub unsafe fn entry<I: DotI8, F: Format, const DIGITS: usize>(portion: &Portion) {
    // SAFETY: the caller's promise.
    let isa = unsafe { I::new_unchecked() };
    let row_block = (ROW_BLOCK_BYTES / portion.ldx.max(1)).max(2 * max_rows::<I>(DIGITS));
    for row in (0..portion.m).step_by(row_block) {
        let rows = row_block.min(portion.m - row);
        for panel in portion.panel_begin..portion.panel_end {
            // SAFETY: rows and panels are within the portion.
            unsafe { run_panel::<I, F, DIGITS>(isa, portion, row, rows, panel) }
        }
    }
}

/// # Safety
/// The rows and the panel are within the portion, whose contract holds.
unsafe fn run_panel<I: DotI8, F: Format, const DIGITS: usize>(
    isa: I,
    p: &Portion,
    row: usize,
    rows: usize,
    panel: usize,
) {
    let nr = VECTORS * I::LANES;
    let column = panel * nr;
    let blocks = p.k / BLOCK;
    let block_bytes = <Packed<F> as Source<I>>::BLOCK_BYTES;
    let task = Task {
        // SAFETY: the rows are within X.
        x: unsafe { p.x.add(row * p.ldx) },
        ldx: p.ldx,
        // SAFETY: the panel is within W.
        w: unsafe { p.w.add(panel * blocks * block_bytes) },
        blocks,
        y: p.y.wrapping_add(row * p.ldy + column),
        ldy: p.ldy,
        columns: p.n.saturating_sub(column).min(nr),
        load: p.accumulate,
        bias: if p.bias.is_null() { p.bias } else { p.bias.wrapping_add(column) },
    };
    if const { !Packed::<F>::widens::<I>() } {
        return sweep::<I, Packed<F>, DIGITS>(isa, rows, task);
    }
    let few = rows <= const { max_rows::<I>(DIGITS) };
    if few || blocks == 0 {
        sweep::<I, Packed<F>, DIGITS>(isa, rows, task);
    } else if F::MINIMUM {
        sweep_widened::<I, F, Wide<true>, DIGITS>(isa, rows, task);
    } else {
        sweep_widened::<I, F, Wide<false>, DIGITS>(isa, rows, task);
    }
}

/// Where a chunk is widened to: on whole cache lines.
#[repr(align(64))]
struct Buffer(#[allow(dead_code)] [u8; CHUNK * MAX_WIDE_BYTES]);

/// [`sweep`] over chunks of the panel, each widened before. Y carries the sums from chunk to chunk.
fn sweep_widened<I: DotI8, F: Format, S: Source<I>, const DIGITS: usize>(isa: I, rows: usize, task: Task) {
    let mut buffer = MaybeUninit::<Buffer>::uninit();
    let buffer = buffer.as_mut_ptr().cast::<u8>();
    for b in (0..task.blocks).step_by(CHUNK) {
        let blocks = CHUNK.min(task.blocks - b);
        let w = task.w.wrapping_add(b * <Packed<F> as Source<I>>::BLOCK_BYTES);
        isa.vectorize(Widen::<I, F> { isa, w, blocks, out: buffer, format: PhantomData });
        let x = task.x.wrapping_add(b * Block::<DIGITS>::BYTES);
        let mut part = Task { x, w: buffer, blocks, ..task };
        if b > 0 {
            part.load = true;
            part.bias = std::ptr::null();
        }
        sweep::<I, S, DIGITS>(isa, rows, part);
    }
}
