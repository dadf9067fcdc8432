//! A few rows of A against a B that lies as it is multiplied: some whole rows of B at a time, each read straight through,
//! while sums of some columns stay close by. So B comes from far away as fast as it can be read.

use super::lines::Lines;
use crate::isa::{Isa, SimdBody};
use crate::kernels::vectors::{Row, Rows, RowsMut, Stored, Terms, visit};
use std::mem::MaybeUninit;

/// Sums that are worked on together: half of L1, in most processors.
pub(super) const FLOATS: usize = 4096;

/// Floats of a page.
const PAGE: usize = 1024;

/// Room for the sums of some columns, and for their skew.
#[repr(align(64))]
struct Sums(MaybeUninit<[f32; FLOATS + PAGE]>);

/// `MR` rows of A against `R` rows of B at a time, `V` vectors of columns in registers.
///
/// # Safety
/// See [`LinesFn`](super::lines::LinesFn); B has `k` lines, which run along the columns.
pub(super) unsafe fn entry<I: Isa, const MR: usize, const R: usize, const V: usize>(lines: &Lines) {
    let mut sums = Sums(MaybeUninit::uninit());
    // SAFETY: the CPU has the instruction set.
    let isa = unsafe { I::new_unchecked() };
    isa.vectorize(Body::<MR, R, V> { lines, sums: sums.0.as_mut_ptr().cast() });
}

struct Body<'a, const MR: usize, const R: usize, const V: usize> {
    lines: &'a Lines,
    sums: *mut f32,
}

impl<const MR: usize, const R: usize, const V: usize> SimdBody for Body<'_, MR, R, V> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Lines { x, ldx, k, b, ldb, columns, y, ldy, resume, bias, .. } = *self.lines;
        let together = FLOATS / MR / (V * I::LANES) * (V * I::LANES);
        let mut first = 0;
        while first < columns {
            let some = together.min(columns - first);
            let b = b.wrapping_add(first);
            // Half a page from where B's rows lie within theirs: a load may take a store for its own where the lowest 12 bits
            // of both addresses agree. That made two rows take twice the time where rows of C are whole pages apart.
            let skew =
                (b.addr() / 4).wrapping_sub(self.sums.addr() / 4).wrapping_add(PAGE / 2) % PAGE / 16 * 16;
            // SAFETY: the memory is there, as `entry` was promised, and so is that of the sums.
            let (x, b, sums, y, bias) = unsafe {
                (
                    Rows::new(x, ldx, MR, k),
                    Rows::new(b, ldb, k, some),
                    RowsMut::new(self.sums.add(skew), FLOATS / MR, MR, some),
                    RowsMut::new(y.wrapping_add(first), ldy, MR, some),
                    (!bias.is_null()).then(|| Row::new(bias.wrapping_add(first), some)),
                )
            };
            for i in 0..MR {
                let start = Start { y: resume.then(|| y.row(i).row()), bias };
                visit(isa, &Stored(start, sums.row(i)), 0, some);
            }
            let whole = k - k % R;
            for at in (0..whole).step_by(R) {
                add::<I, MR, R, V>(isa, x, b, sums, at, some);
            }
            for at in whole..k {
                add::<I, MR, 1, V>(isa, x, b, sums, at, some);
            }
            for i in 0..MR {
                visit(isa, &Stored(sums.row(i).row(), y.row(i)), 0, some);
            }
            first += some;
        }
    }
}

/// What sums start from: Y, the bias, both, or 0.
struct Start {
    y: Option<Row>,
    bias: Option<Row>,
}

impl Terms for Start {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let mut sum = isa.zero();
        if let Some(y) = self.y {
            sum = y.load(isa, i, count);
        }
        if let Some(bias) = self.bias {
            sum = isa.add(sum, bias.load(isa, i, count));
        }
        sum
    }
}

/// Adds the products of `R` rows of B from row `at` on, in order.
#[inline(always)]
fn add<I: Isa, const MR: usize, const R: usize, const V: usize>(
    isa: I,
    x: Rows,
    b: Rows,
    y: RowsMut,
    at: usize,
    columns: usize,
) {
    let mut factors = [[isa.zero(); MR]; R];
    for (r, factors) in factors.iter_mut().enumerate() {
        for (i, factor) in factors.iter_mut().enumerate() {
            *factor = isa.splat(x.row(i).get(at + r));
        }
    }
    let mut column = 0;
    while columns - column >= V * I::LANES {
        block::<I, MR, R, V>(isa, &factors, b, y, at, column, I::LANES);
        column += V * I::LANES;
    }
    while column < columns {
        let left = (columns - column).min(I::LANES);
        block::<I, MR, R, 1>(isa, &factors, b, y, at, column, left);
        column += left;
    }
}

/// The same for `V` vectors of columns, or for the first `count` lanes of one.
#[inline(always)]
fn block<I: Isa, const MR: usize, const R: usize, const V: usize>(
    isa: I,
    factors: &[[I::F32; MR]; R],
    b: Rows,
    y: RowsMut,
    at: usize,
    column: usize,
    count: usize,
) {
    let mut sums = [[isa.zero(); V]; MR];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = y.row(i).load(isa, column + v * I::LANES, count);
        }
    }
    for (r, factors) in factors.iter().enumerate() {
        for v in 0..V {
            let row = b.row(at + r).load(isa, column + v * I::LANES, count);
            for (i, sums) in sums.iter_mut().enumerate() {
                sums[v] = isa.mul_add(factors[i], row, sums[v]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            y.row(i).store(isa, column + v * I::LANES, sum, count);
        }
    }
}
