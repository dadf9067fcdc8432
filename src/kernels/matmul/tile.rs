//! The register tile: MR rows times P panels of NV vectors, summed over k in registers.
//! One body for every instruction set and element type; an entry of a [`Tiles`] table fixes them all.

use super::weight::Weight;
use crate::isa::{Isa, SimdBody};
use crate::kernels::routine::Routine;
use std::marker::PhantomData;

/// The work of one call of a tile: `blocks` row blocks of MR rows, against P neighbouring panels.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// First row of X.
    pub x: *const u8,
    /// Bytes between rows of X.
    pub ldx: usize,
    /// Row blocks.
    pub blocks: usize,
    /// Products an output gets in this call.
    pub k: usize,
    /// Row k of the first panel.
    pub w: *const u8,
    /// Bytes between rows of k.
    pub row_stride: usize,
    /// Bytes between panels.
    pub panel_stride: usize,
    /// Where the weights needed after these begin, and how far to step into them at each k: prefetched a line at a
    /// time, they are in L2 when they are multiplied.
    pub next: *const u8,
    /// See `next`.
    pub next_step: usize,
    /// Bytes from where one row block prefetches to where the next one does.
    pub next_block: usize,
    /// First row of Y, at the panel's first column.
    pub y: *mut f32,
    /// Floats between rows of Y.
    pub ldy: usize,
    /// Columns of Y from there on; the last panel may be wider.
    pub columns: usize,
    /// Sums start from Y, not from 0.
    pub resume: bool,
    /// Added to the start of each sum: `columns` floats, or null.
    pub bias: *const f32,
}

/// A tile's entry. Its safety contract is [`Block`]'s fields: all memory they name is there, and the CPU has
/// the instruction set.
pub(crate) type TileFn = unsafe fn(&Block);

/// The tile of one height.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// For one panel.
    pub one: TileFn,
    /// Panels that `many` takes at once: a low tile has too few sums to keep the FMA units busy.
    pub group: usize,
    /// For `group` panels.
    pub many: TileFn,
}

/// The tiles of heights 1, 2, … MR.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    /// As wide as a panel.
    pub full: &'static [Tile],
    /// One vector wide, two, … up to a vector less than a panel, for few columns at the end of Y; none where only whole
    /// panels have tiles.
    pub narrow: &'static [&'static [Tile]],
    /// Of more rows than `full`, and a vector narrower, for few rows that meet a B without panels; or none.
    pub tall: &'static [Tile],
}

impl Tiles {
    /// The narrowest tiles for `columns` of a panel of `nr`; at least 1.
    #[inline]
    pub fn for_columns(&self, columns: usize, nr: usize) -> &'static [Tile] {
        if columns >= nr {
            return self.full;
        }
        self.narrow.get((columns - 1) / self.step(nr)).copied().unwrap_or(self.full)
    }

    /// How many columns of a panel of `nr` these tiles read for `columns` outputs.
    pub fn width(&self, columns: usize, nr: usize) -> usize {
        columns.next_multiple_of(self.step(nr))
    }

    /// Columns of a tall tile, where a panel has `nr`.
    pub fn tall_columns(&self, nr: usize) -> usize {
        nr - self.step(nr)
    }

    /// Columns by which tiles for a panel of `nr` differ.
    #[inline]
    fn step(&self, nr: usize) -> usize {
        nr / (self.narrow.len() + 1)
    }
}

/// The tile of height `MR` that takes `P` panels where it can.
pub(super) const fn tile<I: Isa, W: Weight, const MR: usize, const NV: usize, const P: usize>() -> Tile {
    Tile { one: entry::<I, W, MR, NV, 1>, group: P, many: entry::<I, W, MR, NV, P> }
}

/// # Safety
/// See [`TileFn`].
unsafe fn entry<I: Isa, W: Weight, const MR: usize, const NV: usize, const P: usize>(block: &Block) {
    // SAFETY: the CPU has the instruction set.
    let isa = unsafe { I::new_unchecked() };
    isa.vectorize(Body::<W, MR, NV, P> { block, weight: PhantomData })
}

/// Rows of one panel, to be widened.
pub(crate) struct PanelRows {
    /// The first row.
    pub src: *const u8,
    /// Bytes between rows.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Where they go: NR floats each, in column order.
    pub dst: *mut f32,
}

/// Widens rows. Its safety contract: the memory that they name is there, and the CPU has the instruction set.
pub(crate) type WidenFn = unsafe fn(&PanelRows);

/// Widens rows of panels NV vectors wide.
pub(super) struct Widen<W, const NV: usize>(PhantomData<W>);

impl<W: Weight, const NV: usize> Routine<PanelRows> for Widen<W, NV> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, &PanelRows { src, stride, rows, dst }: &PanelRows) {
        for k in 0..rows {
            // SAFETY: `rows` rows of the panel are there, and as many of NR floats to write.
            unsafe {
                let row: [I::F32; NV] = W::load(isa, src.add(k * stride));
                for (v, &x) in row.iter().enumerate() {
                    isa.store(dst.add((k * NV + v) * I::LANES), x);
                }
            }
        }
    }
}

struct Body<'a, W, const MR: usize, const NV: usize, const P: usize> {
    block: &'a Block,
    weight: PhantomData<W>,
}

impl<W: Weight, const MR: usize, const NV: usize, const P: usize> SimdBody for Body<'_, W, MR, NV, P> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut block = *self.block;
        for _ in 0..block.blocks {
            // SAFETY: the row block's X, Y and bias and the panels are there; rows of Y and X advance together.
            unsafe {
                let mut sums = [[[isa.zero(); NV]; P]; MR];
                if block.resume || !block.bias.is_null() {
                    start(isa, &block, &mut sums);
                }
                sums = accumulate::<I, W, MR, NV, P>(isa, &block, sums);
                store(isa, &block, &sums);
                block.next = block.next.wrapping_add(block.next_block);
                block.x = block.x.wrapping_add(MR * block.ldx);
                block.y = block.y.wrapping_add(MR * block.ldy);
            }
        }
    }
}

/// Adds the block's products to the sums, k ascending.
///
/// # Safety
/// As [`TileFn`], for one row block.
#[inline(always)]
unsafe fn accumulate<I: Isa, W: Weight, const MR: usize, const NV: usize, const P: usize>(
    isa: I,
    block: &Block,
    mut sums: [[[I::F32; NV]; P]; MR],
) -> [[[I::F32; NV]; P]; MR] {
    let (mut w, mut x, mut next) = (block.w, block.x, block.next);
    for _ in 0..block.k {
        for p in 0..P {
            // SAFETY: the panels hold k rows of NV vectors; the row blocks' X hold k floats.
            unsafe {
                let row: [I::F32; NV] = W::load(isa, w.wrapping_add(p * block.panel_stride));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = isa.splat(x.wrapping_add(i * block.ldx).cast::<f32>().read_unaligned());
                    for v in 0..NV {
                        sums[p][v] = isa.mul_add(factor, row[v], sums[p][v]);
                    }
                }
            }
        }
        if P == 1 {
            // Groups of panels take all of k at once: nothing comes after that they don't read already.
            isa.prefetch(next);
            if NV * I::LANES * W::BYTES > 128 {
                isa.prefetch(next.wrapping_add(64));
            }
            next = next.wrapping_add(block.next_step);
        }
        w = w.wrapping_add(block.row_stride);
        x = x.wrapping_add(4);
    }
    sums
}

/// Starts the sums from Y, the bias, or both.
///
/// # Safety
/// As [`TileFn`], for one row block.
#[inline(always)]
pub(crate) unsafe fn start<I: Isa, const MR: usize, const NV: usize, const P: usize>(
    isa: I,
    block: &Block,
    sums: &mut [[[I::F32; NV]; P]; MR],
) {
    for (i, row) in sums.iter_mut().enumerate() {
        for (p, panel) in row.iter_mut().enumerate() {
            for (v, sum) in panel.iter_mut().enumerate() {
                let column = (p * NV + v) * I::LANES;
                let left = block.columns.saturating_sub(column).min(I::LANES);
                // SAFETY: `columns` floats are there from column 0 on.
                unsafe {
                    if block.resume {
                        *sum = isa.load_first(block.y.wrapping_add(i * block.ldy + column), left);
                    }
                    if !block.bias.is_null() {
                        *sum = isa.add(*sum, isa.load_first(block.bias.wrapping_add(column), left));
                    }
                }
            }
        }
    }
}

/// Writes the sums to the columns that Y has.
///
/// # Safety
/// As [`TileFn`], for one row block.
#[inline(always)]
pub(crate) unsafe fn store<I: Isa, const MR: usize, const NV: usize, const P: usize>(
    isa: I,
    block: &Block,
    sums: &[[[I::F32; NV]; P]; MR],
) {
    let whole = block.columns >= P * NV * I::LANES;
    for (i, row) in sums.iter().enumerate() {
        for (p, panel) in row.iter().enumerate() {
            for (v, &sum) in panel.iter().enumerate() {
                let column = (p * NV + v) * I::LANES;
                let y = block.y.wrapping_add(i * block.ldy + column);
                // SAFETY: `columns` floats are there from column 0 on.
                unsafe {
                    if whole {
                        isa.store(y, sum);
                    } else {
                        isa.store_first(y, sum, block.columns.saturating_sub(column).min(I::LANES));
                    }
                }
            }
        }
    }
}
