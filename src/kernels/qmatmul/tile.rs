//! The kernels: register tiles of MR rows × two vectors of columns, and the loops round them.
//! Few rows stream the packed levels straight through (decode). Many rows first widen a stretch of a panel to
//! bytes in a buffer that stays in L1, once for all of them (prefill). Both do the same sums in the same order.

use super::layout::{GROUPS, STEP};
use super::q8::{BLOCK_BYTES, MAGIC, SCALE_AT, SCALED_SUM_AT, START_AT, SUM_AT};
use crate::isa::{DotI8, Isa, Kernel};
use crate::kernels::Portion;
use crate::quant::BLOCK;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// [`MAGIC`] as a number, 1.5·2²³. Times an f16 it is exact in f32.
const BIAS: f32 = 12_582_912.0;
const _: () = assert!(BIAS.to_bits() as i32 == MAGIC);

/// Vectors of a panel.
const VECTORS: usize = 2;

/// Blocks widened at a time: with 32 columns of bytes, scales and minimums that is 22 KiB, about half of an L1.
const CHUNK: usize = 16;
/// Lanes of the widest vector.
const MAX_LANES: usize = 16;
/// Bytes of the widest block once widened.
const MAX_WIDE_BYTES: usize = VECTORS * MAX_LANES * (BLOCK + 3 * 4);

/// Bytes of activations that are worked through for all panels before the next rows' turn: they stay in L2.
const ROW_BLOCK_BYTES: usize = 512 << 10;

/// Rows of the largest tile: an integer and a float accumulator for each vector, and room for the operands.
pub const fn max_rows<I: Isa>() -> usize {
    if I::REGISTERS >= 32 { 6 } else { 3 }
}

/// What distinguishes the block types.
pub trait Format: 'static {
    /// Bits of a level.
    const BITS: usize;
    /// The unsigned level that stands for zero.
    const ZERO: i32;
    /// Whether blocks have a minimum.
    const MINIMUM: bool;
}

/// 8 bits, scale.
pub struct Q8_0;
/// 4 bits, scale.
pub struct Q4_0;
/// 4 bits, scale and minimum.
pub struct Q4_1;
/// 5 bits, scale.
pub struct Q5_0;
/// 5 bits, scale and minimum.
pub struct Q5_1;

impl Format for Q8_0 {
    const BITS: usize = 8;
    const ZERO: i32 = 128;
    const MINIMUM: bool = false;
}
impl Format for Q4_0 {
    const BITS: usize = 4;
    const ZERO: i32 = 8;
    const MINIMUM: bool = false;
}
impl Format for Q4_1 {
    const BITS: usize = 4;
    const ZERO: i32 = 0;
    const MINIMUM: bool = true;
}
impl Format for Q5_0 {
    const BITS: usize = 5;
    const ZERO: i32 = 16;
    const MINIMUM: bool = false;
}
impl Format for Q5_1 {
    const BITS: usize = 5;
    const ZERO: i32 = 0;
    const MINIMUM: bool = true;
}

/// Where a tile's weights come from: packed panels, or a widened stretch of one.
trait Source<I: DotI8> {
    /// Bytes of a block.
    const BLOCK_BYTES: usize;
    /// The stored byte that stands for zero.
    const ZERO: i32;
    /// Whether bytes stay below 128, whatever [`DotI8::SIGNED`] is.
    const SMALL: bool;
    /// Whether blocks have a minimum.
    const MINIMUM: bool;
    /// Bytes of group `group`, vector `v`.
    /// # Safety
    /// `block` is a whole block.
    unsafe fn bytes(isa: I, block: *const u8, group: usize, v: usize) -> I::I32;
    /// Scales of vector `v`, and −[`BIAS`] times them.
    /// # Safety
    /// As [`Source::bytes`].
    unsafe fn scales(isa: I, block: *const u8, v: usize) -> (I::F32, I::F32);
    /// Minimums of vector `v`.
    /// # Safety
    /// As [`Source::bytes`], of a format that has them.
    unsafe fn minimums(isa: I, block: *const u8, v: usize) -> I::F32;
}

/// A panel as packed.
struct Packed<F>(PhantomData<F>);

impl<F: Format> Packed<F> {
    const fn scales_at<I: Isa>() -> usize {
        VECTORS * I::LANES * F::BITS * BLOCK / 8
    }
}

impl<I: DotI8, F: Format> Source<I> for Packed<F> {
    const BLOCK_BYTES: usize = Self::scales_at::<I>() + VECTORS * I::LANES * if F::MINIMUM { 4 } else { 2 };
    const ZERO: i32 = if F::BITS == 8 && I::SIGNED { 0 } else { F::ZERO };
    const SMALL: bool = F::BITS < 8;
    const MINIMUM: bool = F::MINIMUM;

    #[inline(always)]
    unsafe fn bytes(isa: I, block: *const u8, group: usize, v: usize) -> I::I32 {
        let vector = I::LANES * STEP;
        // SAFETY: the block has GROUPS (or half as many) rows of VECTORS vectors, and a plane of VECTORS after.
        unsafe {
            if F::BITS == 8 {
                return isa.load_i32(block.add((group * VECTORS + v) * vector).cast());
            }
            let both = isa.load_i32(block.add((group / 2 * VECTORS + v) * vector).cast());
            let half = if group % 2 == 0 { both } else { isa.shr::<4>(both) };
            let nibbles = isa.and(half, isa.splat_i32(0x0f0f_0f0f));
            if F::BITS == 4 {
                return nibbles;
            }
            let plane = isa.load_i32(block.add((GROUPS / 2 * VECTORS + v) * vector).cast());
            let fifth = isa.and(bit_to_fifth(isa, plane, group), isa.splat_i32(0x1010_1010));
            isa.or(nibbles, fifth)
        }
    }

    #[inline(always)]
    unsafe fn scales(isa: I, block: *const u8, v: usize) -> (I::F32, I::F32) {
        // SAFETY: the scales follow the levels.
        let d = unsafe { isa.load_f16(block.add(Self::scales_at::<I>()).cast::<u16>().add(v * I::LANES)) };
        (d, isa.mul(d, isa.splat(-BIAS)))
    }

    #[inline(always)]
    unsafe fn minimums(isa: I, block: *const u8, v: usize) -> I::F32 {
        // SAFETY: the minimums follow the scales.
        unsafe { isa.load_f16(block.add(Self::scales_at::<I>()).cast::<u16>().add((VECTORS + v) * I::LANES)) }
    }
}

/// Moves bit `group` of each byte to its fifth place; other bits are rubbish.
#[inline(always)]
fn bit_to_fifth<I: Isa>(isa: I, plane: I::I32, group: usize) -> I::I32 {
    match group {
        0 => isa.shl::<4>(plane),
        1 => isa.shl::<3>(plane),
        2 => isa.shl::<2>(plane),
        3 => isa.shl::<1>(plane),
        4 => plane,
        5 => isa.shr::<1>(plane),
        6 => isa.shr::<2>(plane),
        _ => isa.shr::<3>(plane),
    }
}

/// A stretch of a panel with a byte for each level and scales in f32: the levels of [`Packed`] as [`GROUPS`] rows
/// of vectors, the scales, −[`BIAS`] times them, and the minimums if any.
struct Wide<F>(PhantomData<F>);

impl<F: Format> Wide<F> {
    /// Powers of two by which levels are multiplied, and scales divided: so that zero is at 128, whose multiple
    /// of Σx is there already. Only where bytes are unsigned.
    const fn shift<I: DotI8>() -> u32 {
        if I::SIGNED || F::ZERO == 0 { 0 } else { 7 - F::ZERO.ilog2() }
    }

    /// Float vector `i` after the levels.
    #[inline(always)]
    fn floats<I: Isa>(i: usize) -> usize {
        (GROUPS * VECTORS + i) * I::LANES * STEP
    }
}

impl<I: DotI8, F: Format> Source<I> for Wide<F> {
    const BLOCK_BYTES: usize = VECTORS * I::LANES * STEP * (GROUPS + if F::MINIMUM { 3 } else { 2 });
    const ZERO: i32 = F::ZERO << Self::shift::<I>();
    const SMALL: bool = I::SIGNED;
    const MINIMUM: bool = F::MINIMUM;

    #[inline(always)]
    unsafe fn bytes(isa: I, block: *const u8, group: usize, v: usize) -> I::I32 {
        // SAFETY: the block has GROUPS rows of VECTORS vectors.
        unsafe { isa.load_i32(block.add((group * VECTORS + v) * I::LANES * STEP).cast()) }
    }

    #[inline(always)]
    unsafe fn scales(isa: I, block: *const u8, v: usize) -> (I::F32, I::F32) {
        // SAFETY: four vectors of floats follow the levels.
        unsafe {
            let d = isa.load(block.add(Self::floats::<I>(v)).cast());
            (d, isa.load(block.add(Self::floats::<I>(VECTORS + v)).cast()))
        }
    }

    #[inline(always)]
    unsafe fn minimums(isa: I, block: *const u8, v: usize) -> I::F32 {
        // SAFETY: they follow the scales.
        unsafe { isa.load(block.add(Self::floats::<I>(2 * VECTORS + v)).cast()) }
    }
}

/// Writes `blocks` packed blocks at `w` to `out` as [`Wide`] ones.
///
/// # Safety
/// Both have that many blocks.
#[inline(always)]
unsafe fn widen<I: DotI8, F: Format>(isa: I, w: *const u8, blocks: usize, out: *mut u8) {
    let scale = isa.splat(1.0 / (1u32 << Wide::<F>::shift::<I>()) as f32);
    for b in 0..blocks {
        // SAFETY: b counts blocks of both; stores go where `Wide` reads.
        unsafe {
            let w = w.add(b * <Packed<F> as Source<I>>::BLOCK_BYTES);
            let out = out.add(b * <Wide<F> as Source<I>>::BLOCK_BYTES);
            for v in 0..VECTORS {
                let put = |group: usize| {
                    let mut bytes = Packed::<F>::bytes(isa, w, group, v);
                    bytes = match Wide::<F>::shift::<I>() {
                        4 => isa.shl::<4>(bytes),
                        3 => isa.shl::<3>(bytes),
                        _ => bytes,
                    };
                    isa.store_i32(out.add((group * VECTORS + v) * I::LANES * STEP).cast(), bytes);
                };
                each_group(put);
                let (d, minus_bias_d) = Packed::<F>::scales(isa, w, v);
                isa.store(out.add(Wide::<F>::floats::<I>(v)).cast(), isa.mul(d, scale));
                isa.store(out.add(Wide::<F>::floats::<I>(VECTORS + v)).cast(), isa.mul(minus_bias_d, scale));
                if F::MINIMUM {
                    let m = <Packed<F> as Source<I>>::minimums(isa, w, v);
                    isa.store(out.add(Wide::<F>::floats::<I>(2 * VECTORS + v)).cast(), m);
                }
            }
        }
    }
}

/// Unrolled for certain, so that what depends on the group's number is decided at compile time.
#[inline(always)]
fn each_group(mut f: impl FnMut(usize)) {
    f(0);
    f(1);
    f(2);
    f(3);
    f(4);
    f(5);
    f(6);
    f(7);
}

/// Rows of X against one panel or a stretch of it.
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

/// # Safety
/// X and Y have MR rows, and all is valid as [`Portion`] demands.
#[inline(always)]
unsafe fn tile<I: DotI8, S: Source<I>, const MR: usize>(isa: I, task: &Task) {
    let width = |v: usize| task.columns.saturating_sub(v * I::LANES).min(I::LANES);
    let mut y = [[isa.zero(); VECTORS]; MR];
    for r in 0..MR {
        for v in 0..VECTORS {
            // SAFETY: only columns that exist are read.
            unsafe {
                if task.load {
                    y[r][v] = isa.load_first(task.y.add(r * task.ldy).wrapping_add(v * I::LANES), width(v));
                }
                if !task.bias.is_null() {
                    let bias = isa.load_first(task.bias.wrapping_add(v * I::LANES), width(v));
                    y[r][v] = isa.add(y[r][v], bias);
                }
            }
        }
    }
    for b in 0..task.blocks {
        // SAFETY: b counts blocks of X's rows and of W.
        unsafe {
            let x = task.x.add(b * BLOCK_BYTES);
            tile_block::<I, S, MR>(isa, x, task.ldx, task.w.add(b * S::BLOCK_BYTES), &mut y);
        }
    }
    for r in 0..MR {
        for v in 0..VECTORS {
            // SAFETY: only columns that exist are written.
            unsafe { isa.store_first(task.y.add(r * task.ldy).wrapping_add(v * I::LANES), y[r][v], width(v)) }
        }
    }
}

/// Adds one block's products.
///
/// # Safety
/// `w` is a block, and so is `x` at MR multiples of `ldx`.
#[inline(always)]
unsafe fn tile_block<I: DotI8, S: Source<I>, const MR: usize>(
    isa: I,
    x: *const u8,
    ldx: usize,
    w: *const u8,
    y: &mut [[I::F32; VECTORS]; MR],
) {
    // SAFETY: MR rows; the offsets are within a block.
    let int = |r: usize, at: usize| unsafe { x.add(r * ldx + at).cast::<i32>().read_unaligned() };
    let float = |r: usize, at: usize| isa.splat(f32::from_bits(int(r, at) as u32));
    let mut sums: [[I::I32; VECTORS]; MR] = std::array::from_fn(|r| {
        let start = match S::ZERO {
            0 => MAGIC,
            128 => int(r, START_AT),
            zero => MAGIC - zero * int(r, SUM_AT),
        };
        [isa.splat_i32(start); VECTORS]
    });
    each_group(
        #[inline(always)]
        |group| {
            // SAFETY: `w` is a block.
            let bytes: [_; VECTORS] = std::array::from_fn(|v| unsafe { S::bytes(isa, w, group, v) });
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = isa.splat_i32(int(r, group * STEP));
                for (sum, bytes) in sums.iter_mut().zip(bytes) {
                    *sum = if S::SMALL { isa.dot_small(*sum, bytes, x) } else { isa.dot(*sum, bytes, x) };
                }
            }
        },
    );
    for v in 0..VECTORS {
        // SAFETY: `w` is a block.
        let (d, minus_bias_d) = unsafe { S::scales(isa, w, v) };
        for (r, (y, sums)) in y.iter_mut().zip(&sums).enumerate() {
            let scaled = isa.unbias(sums[v], BIAS, d, minus_bias_d);
            y[v] = isa.mul_add(scaled, float(r, SCALE_AT), y[v]);
        }
        if S::MINIMUM {
            // SAFETY: `w` is a block with minimums.
            let m = unsafe { S::minimums(isa, w, v) };
            for (r, y) in y.iter_mut().enumerate() {
                y[v] = isa.mul_add(m, float(r, SCALED_SUM_AT), y[v]);
            }
        }
    }
}

/// All rows of the task, in tiles as even as can be.
///
/// # Safety
/// X and Y have `rows` rows, and all is valid as [`Portion`] demands.
#[inline(always)]
unsafe fn sweep<I: DotI8, S: Source<I>>(isa: I, rows: usize, mut task: Task) {
    let mut left = rows;
    while left > 0 {
        let mr = left.div_ceil(left.div_ceil(max_rows::<I>()));
        // SAFETY: mr of the rows that are left.
        unsafe {
            match mr {
                1 => tile::<I, S, 1>(isa, &task),
                2 => tile::<I, S, 2>(isa, &task),
                3 => tile::<I, S, 3>(isa, &task),
                4 if max_rows::<I>() >= 4 => tile::<I, S, 4>(isa, &task),
                5 if max_rows::<I>() >= 5 => tile::<I, S, 5>(isa, &task),
                _ if max_rows::<I>() >= 6 => tile::<I, S, 6>(isa, &task),
                _ => unreachable!("a tile has at most max_rows rows"),
            }
            task.x = task.x.add(mr * task.ldx);
            task.y = task.y.wrapping_add(mr * task.ldy);
        }
        left -= mr;
    }
}

/// The table entry: [`super::Set::run`] of one level and type.
///
/// # Safety
/// As there; and the CPU has the level.
pub unsafe fn entry<I: DotI8, F: Format>(portion: &Portion) {
    // SAFETY: the caller's promise.
    let isa = unsafe { I::new_unchecked() };
    isa.vectorize(Run::<I, F> { isa, portion, format: PhantomData });
}

/// Carries the token itself: [`Kernel::run`] knows it as an [`Isa`] only.
struct Run<'a, I, F> {
    isa: I,
    portion: &'a Portion,
    format: PhantomData<F>,
}

impl<I: DotI8, F: Format> Kernel for Run<'_, I, F> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let p = self.portion;
        let row_block = (ROW_BLOCK_BYTES / p.ldx.max(1)).max(2 * max_rows::<I>());
        for row in (0..p.m).step_by(row_block) {
            let rows = row_block.min(p.m - row);
            for panel in p.panel_begin..p.panel_end {
                // SAFETY: rows and panels are within the portion.
                unsafe { self.panel(row, rows, panel) }
            }
        }
    }
}

impl<I: DotI8, F: Format> Run<'_, I, F> {
    /// # Safety
    /// The rows and the panel are within the portion, whose contract holds.
    #[inline(always)]
    unsafe fn panel(&self, row: usize, rows: usize, panel: usize) {
        let p = self.portion;
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
        if F::BITS == 8 || rows < 2 * max_rows::<I>() || blocks == 0 {
            // SAFETY: the portion's contract.
            return unsafe { sweep::<I, Packed<F>>(self.isa, rows, task) };
        }
        let mut buffer = MaybeUninit::<[u8; CHUNK * MAX_WIDE_BYTES]>::uninit();
        let buffer = buffer.as_mut_ptr().cast::<u8>();
        for b in (0..blocks).step_by(CHUNK) {
            // SAFETY: the chunk is within the panel, and fits into the buffer; Y is as the first chunk left it.
            unsafe {
                let chunk = CHUNK.min(blocks - b);
                widen::<I, F>(self.isa, task.w.add(b * block_bytes), chunk, buffer);
                let x = task.x.add(b * BLOCK_BYTES);
                let mut part = Task { x, w: buffer, blocks: chunk, ..task };
                if b > 0 {
                    part.load = true;
                    part.bias = std::ptr::null();
                }
                sweep::<I, Wide<F>>(self.isa, rows, part);
            }
        }
    }
}
