//! Packing of f32 matrices by vectors, fast enough to be done for every product: B into panels, A into lines.
//! Lines of the source that run along k are transposed in blocks of registers, others are copied.

use crate::isa::{Isa, SimdBody};
use crate::kernels::vectors::{Row, RowMut, Rows, RowsMut};

/// How many floats ahead of the current block a line is prefetched: as many as memory delivers meanwhile.
pub(super) const AHEAD: usize = 128;

/// How many lines ahead of the current one are prefetched, where lines are short.
const ROWS_AHEAD: usize = 16;

/// `columns` outputs × `depth` of k, on their way into a panel: row k of it begins at `dst + k · width`, and columns
/// from `columns` on become 0. The source holds the part, and `dst` is writable for `depth` rows of `width`.
#[derive(Clone, Copy)]
pub(super) struct PanelPart {
    /// Output 0 at k = 0.
    pub src: *const f32,
    /// Floats from one line of the source to the next.
    pub ld: usize,
    /// Lines run along k (one an output), not along the outputs (one a k).
    pub along_k: bool,
    /// Outputs, at most `width`.
    pub columns: usize,
    /// Rows of k.
    pub depth: usize,
    /// Columns of the panel, a multiple of the vector's lanes.
    pub width: usize,
    /// Row 0 of the panel.
    pub dst: *mut f32,
}

/// `rows` × `depth` of A on their way into lines along k: row i begins at `dst + i · depth`. The source holds the part,
/// and `dst` is writable for `rows` rows of `depth`.
#[derive(Clone, Copy)]
pub(super) struct LinesPart {
    /// Row 0 at k = 0.
    pub src: *const f32,
    /// Floats from one line of the source to the next.
    pub ld: usize,
    /// Lines of the source run along k, not along the rows.
    pub along_k: bool,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub depth: usize,
    /// Factor of every element.
    pub factor: f32,
    /// Row 0.
    pub dst: *mut f32,
}

/// Clears the vector of columns from `column` on, in `depth` rows of a panel.
#[inline(always)]
fn clear<I: Isa>(isa: I, panel: RowsMut, depth: usize, column: usize) {
    for k in 0..depth {
        panel.row(k).store(isa, column, isa.zero(), I::LANES);
    }
}

impl SimdBody for &PanelPart {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: the panel has room for rows of its width; where lines don't run along k, the source has one for each k.
        let (src, panel) = unsafe {
            (
                Rows::new(self.src, self.ld, self.depth, self.columns),
                RowsMut::new(self.dst, self.width, self.depth, self.width),
            )
        };
        let mut column = 0;
        if self.along_k {
            while column < self.columns {
                let lines = (self.columns - column).min(I::LANES);
                if lines < I::LANES {
                    clear(isa, panel, self.depth, column);
                }
                // SAFETY: the source holds these lines; the panel has room for a whole vector of columns, since its
                // width is a multiple.
                unsafe {
                    let (src, dst) = (self.src.add(column * self.ld), self.dst.add(column));
                    transpose(isa, src, self.ld, lines, self.depth, dst, self.width);
                }
                column += I::LANES;
            }
        } else {
            for k in 0..self.depth {
                let ahead = self.src.wrapping_add((k + ROWS_AHEAD) * self.ld);
                for column in (0..self.columns).step_by(I::LANES) {
                    let left = (self.columns - column).min(I::LANES);
                    isa.prefetch(ahead.wrapping_add(column).cast());
                    panel.row(k).store(isa, column, src.row(k).load(isa, column, left), I::LANES);
                }
            }
            column = self.columns.next_multiple_of(I::LANES);
        }
        while column < self.width {
            clear(isa, panel, self.depth, column);
            column += I::LANES;
        }
    }
}

impl SimdBody for &LinesPart {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let LinesPart { src, ld, along_k, rows, depth, factor, dst } = *self;
        // SAFETY: the source holds the part, and `dst` has room for it.
        unsafe {
            if along_k {
                for i in 0..rows {
                    for ahead in (0..depth).step_by(16) {
                        isa.prefetch(src.wrapping_add((i + 2) * ld + ahead).cast());
                    }
                    let (from, to) =
                        (Row::new(src.add(i * ld), depth), RowMut::new(dst.add(i * depth), depth));
                    scaled(isa, from, factor, to, depth);
                }
            } else {
                let mut k = 0;
                while k < depth {
                    let some = I::LANES.min(depth - k);
                    transpose(isa, src.add(k * ld), ld, some, rows, dst.add(k), depth);
                    k += some;
                }
                if factor != 1.0 {
                    let all = RowMut::new(dst, rows * depth);
                    scaled(isa, all.row(), factor, all, rows * depth);
                }
            }
        }
    }
}

/// `dst[j][i] = src[i][j]` for `rows` ≤ LANES rows of `columns`.
///
/// # Safety
/// Both are there and don't overlap.
#[inline(always)]
unsafe fn transpose<I: Isa>(
    isa: I,
    src: *const f32,
    ld: usize,
    rows: usize,
    columns: usize,
    dst: *mut f32,
    dst_ld: usize,
) {
    let whole = if rows == I::LANES { columns - columns % I::LANES } else { 0 };
    // SAFETY: rows × columns floats of the source are there, and columns × rows of the other.
    unsafe {
        for j in (0..whole).step_by(I::LANES) {
            for i in 0..rows {
                isa.prefetch(src.wrapping_add(i * ld + j + AHEAD).cast());
            }
            isa.transpose_block(src.add(j), ld, dst.add(j * dst_ld), dst_ld);
        }
        for i in 0..rows {
            for j in whole..columns {
                dst.add(j * dst_ld + i).write(src.add(i * ld + j).read());
            }
        }
    }
}

/// `dst[i] = factor · src[i]` for the first `n` elements; they may be the same.
#[inline(always)]
fn scaled<I: Isa>(isa: I, src: Row, factor: f32, dst: RowMut, n: usize) {
    let factor = isa.splat(factor);
    let mut i = 0;
    while i < n {
        let left = (n - i).min(I::LANES);
        dst.store(isa, i, isa.mul(src.load(isa, i, left), factor), left);
        i += left;
    }
}
