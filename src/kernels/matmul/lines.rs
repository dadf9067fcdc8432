//! A few rows of A against lines of B that run along k. Blocks of B are transposed in registers on their way, so that an
//! output still adds its products for k ascending. Columns of a block are multiplied as they come; where sums leave too
//! few registers for that, a block goes to memory while the one before it is multiplied.

use crate::isa::{EachColumn, Isa, SimdBody, Stored};
use std::mem::MaybeUninit;

/// Lanes of the widest vector.
const WIDEST: usize = 16;
/// Vectors of columns that any kernel takes together, at most.
const MOST_VECTORS: usize = 4;
/// Lines whose distance in floats is a multiple of this share lines of L1: only one vector of them is read at a time.
const ALIASED: usize = 1024;
/// Floats of a line ahead of their use that are prefetched, where no cache holds B. Within L3 that costs a fifth.
const AHEAD: usize = 128;

/// Few rows of C to compute, from a B that lies as it is multiplied: its lines run along k here, along the columns in
/// [`walk`](super::walk). All memory that it names is there, and Y overlaps none of it.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    /// First row of A, k floats.
    pub x: *const f32,
    /// Floats from one row of A to the next.
    pub ldx: usize,
    pub k: usize,
    /// Line 0 of B.
    pub b: *const f32,
    /// Floats from one line to the next.
    pub ldb: usize,
    /// Outputs of a row. Where B's lines run along k: at least the vector's lanes, and a multiple of them where sums start
    /// from Y.
    pub columns: usize,
    pub y: *mut f32,
    /// Floats from one row of Y to the next.
    pub ldy: usize,
    /// Sums start from Y, not from 0.
    pub resume: bool,
    /// Added to the start of each sum: `columns` floats, or null.
    pub bias: *const f32,
    /// No cache holds B.
    pub from_memory: bool,
}

/// A kernel's entry for one number of rows. Its safety contract is [`Lines`]'s fields: all memory they name is there,
/// and the CPU has the instruction set.
pub(super) type LinesFn = unsafe fn(&Lines);

/// Room for two transposed blocks, or for a row of columns.
#[repr(align(64))]
struct Blocks(MaybeUninit<[[f32; WIDEST * WIDEST * MOST_VECTORS]; 2]>);

/// `MR` rows against `NV` vectors of lines, whose blocks go to memory where `BUFFERED` says so.
///
/// # Safety
/// See [`LinesFn`].
pub(super) unsafe fn entry<I: Isa, const MR: usize, const NV: usize, const BUFFERED: bool>(lines: &Lines) {
    const { assert!(I::LANES <= WIDEST && NV <= MOST_VECTORS) };
    let mut blocks = Blocks(MaybeUninit::uninit());
    // SAFETY: the CPU has the instruction set.
    let isa = unsafe { I::new_unchecked() };
    isa.vectorize(Body::<MR, NV, BUFFERED> { lines, blocks: blocks.0.as_mut_ptr().cast() });
}

/// The blocks stand in the caller's frame, so that the loops address them by a register of their own.
struct Body<'a, const MR: usize, const NV: usize, const BUFFERED: bool> {
    lines: &'a Lines,
    blocks: *mut f32,
}

impl<const MR: usize, const NV: usize, const BUFFERED: bool> SimdBody for Body<'_, MR, NV, BUFFERED> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Lines { columns, ldb, .. } = *self.lines;
        let together = if ldb.is_multiple_of(ALIASED) { I::LANES } else { NV * I::LANES };
        let mut column = 0;
        while together > I::LANES && columns - column >= together {
            self.chunk::<I, NV>(isa, column);
            column += together;
        }
        while column < columns {
            // The last vector computes some outputs again, to the same bits.
            self.chunk::<I, 1>(isa, column.min(columns - I::LANES));
            column += I::LANES;
        }
    }
}

impl<const MR: usize, const NV: usize, const BUFFERED: bool> Body<'_, MR, NV, BUFFERED> {
    /// `V` vectors of columns from `column` on, which there are.
    #[inline(always)]
    fn chunk<I: Isa, const V: usize>(&self, isa: I, column: usize) {
        let Lines { x, ldx, k, b, ldb, y, ldy, resume, bias, from_memory, .. } = *self.lines;
        let whole = k - k % I::LANES;
        debug_assert!(column + V * I::LANES <= self.lines.columns);
        // SAFETY: `entry`, which alone makes the value, was promised lines and outputs, and rows of k floats; there is room for
        // two blocks.
        unsafe {
            let (b, y) = (b.add(column * ldb), y.add(column));
            let mut sums = [[isa.zero(); V]; MR];
            for (i, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    if resume {
                        *sum = isa.load(y.add(i * ldy + v * I::LANES));
                    }
                    if !bias.is_null() {
                        *sum = isa.add(*sum, isa.load(bias.add(column + v * I::LANES)));
                    }
                }
            }
            if !BUFFERED {
                for at in (0..whole).step_by(I::LANES) {
                    for v in 0..V {
                        if from_memory {
                            for line in v * I::LANES..(v + 1) * I::LANES {
                                isa.prefetch(b.wrapping_add(line * ldb + at + AHEAD).cast());
                            }
                        }
                        let mut products = Products { x: x.add(at), ldx, v, sums: &mut sums };
                        isa.columns(b.add(v * I::LANES * ldb + at), ldb, false, &mut products);
                    }
                }
            } else if whole > 0 {
                self.buffered(isa, b, whole, &mut sums);
            }
            self.rest(isa, b, whole, &mut sums);
            for (i, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    isa.store(y.add(i * ldy + v * I::LANES), sum);
                }
            }
        }
    }

    /// Adds the products from k = `whole` on, which are no whole block.
    ///
    /// # Safety
    /// The lines at `b` are there, and the rows.
    #[inline(always)]
    unsafe fn rest<I: Isa, const V: usize>(
        &self,
        isa: I,
        b: *const f32,
        whole: usize,
        sums: &mut [[I::F32; V]; MR],
    ) {
        let Lines { x, ldx, ldb, k, .. } = *self.lines;
        let block = self.blocks;
        // A copy that nobody else can see is kept in registers.
        let mut copy = *sums;
        // SAFETY: the lines are there, and there is room for a block and for a row of columns.
        unsafe {
            if k > whole && k >= I::LANES {
                // The last block, of which some k are done.
                let first = k - I::LANES;
                for v in 0..V {
                    let lines = b.add(v * I::LANES * ldb + first);
                    isa.columns(lines, ldb, V > 1, &mut rows_of::<I, V>(block.add(v * I::LANES)));
                }
                for at in whole..k {
                    multiply(isa, x.add(at), ldx, block.add((at - first) * V * I::LANES), &mut copy);
                }
            } else {
                for at in whole..k {
                    for line in 0..V * I::LANES {
                        block.add(line).write(b.add(line * ldb + at).read());
                    }
                    multiply(isa, x.add(at), ldx, block, &mut copy);
                }
            }
        }
        *sums = copy;
    }

    /// Adds the products for `whole` k, a multiple of the lanes and not 0. A block is transposed while the one before it is
    /// multiplied: the first takes loads and shuffles, the second multiply-adds, and the processor overlaps them.
    ///
    /// # Safety
    /// The lines at `b` hold `whole` floats, and rows as many.
    #[inline(always)]
    unsafe fn buffered<I: Isa, const V: usize>(
        &self,
        isa: I,
        b: *const f32,
        whole: usize,
        sums: &mut [[I::F32; V]; MR],
    ) {
        let Lines { x, ldx, ldb, .. } = *self.lines;
        // Two vectors of sums leave few registers, and aren't taken where lines share those of L1.
        // SAFETY: the lines are there, and there is room for two blocks.
        unsafe {
            let mut block = self.blocks;
            let mut next = self.blocks.add(I::LANES * I::LANES * V);
            for v in 0..V {
                isa.columns(
                    b.add(v * I::LANES * ldb),
                    ldb,
                    V > 1,
                    &mut rows_of::<I, V>(block.add(v * I::LANES)),
                );
            }
            for at in (0..whole).step_by(I::LANES) {
                let more = at + I::LANES < whole;
                for v in 0..V {
                    if more {
                        let lines = b.add(v * I::LANES * ldb + at + I::LANES);
                        isa.columns(lines, ldb, V > 1, &mut rows_of::<I, V>(next.add(v * I::LANES)));
                    }
                    for i in v * I::LANES / V..(v + 1) * I::LANES / V {
                        multiply(isa, x.add(at + i), ldx, block.add(i * V * I::LANES), sums);
                    }
                }
                std::mem::swap(&mut block, &mut next);
            }
        }
    }
}

/// Where a block of lines becomes one of `V` vectors of a row of columns.
#[inline(always)]
fn rows_of<I: Isa, const V: usize>(dst: *mut f32) -> Stored {
    Stored { dst, stride: V * I::LANES }
}

/// Products of a block of lines with the rows, added to vector `v` of their sums.
struct Products<'a, I: Isa, const V: usize, const MR: usize> {
    /// The rows, at the block's first k.
    x: *const f32,
    ldx: usize,
    v: usize,
    sums: &'a mut [[I::F32; V]; MR],
}

impl<I: Isa, const V: usize, const MR: usize> EachColumn<I> for Products<'_, I, V, MR> {
    /// # Safety
    /// Each row holds a float at `j`.
    #[inline(always)]
    unsafe fn column(&mut self, isa: I, j: usize, column: I::F32) {
        for (i, sums) in self.sums.iter_mut().enumerate() {
            // SAFETY: as the function demands.
            let factor = isa.splat(unsafe { self.x.add(i * self.ldx + j).read() });
            sums[self.v] = isa.mul_add(factor, column, sums[self.v]);
        }
    }
}

/// Adds the products at one k.
///
/// # Safety
/// Each row holds a float at `x`, and `row` holds V vectors.
#[inline(always)]
unsafe fn multiply<I: Isa, const MR: usize, const V: usize>(
    isa: I,
    x: *const f32,
    ldx: usize,
    row: *const f32,
    sums: &mut [[I::F32; V]; MR],
) {
    // SAFETY: the row's vectors and the rows' floats are there.
    unsafe {
        let mut vectors = [isa.zero(); V];
        for (v, vector) in vectors.iter_mut().enumerate() {
            *vector = isa.load(row.add(v * I::LANES));
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let factor = isa.splat(x.add(i * ldx).read());
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = isa.mul_add(factor, vectors[v], *sum);
            }
        }
    }
}
