//! Products with a matrix whose kernel reads rows in a form of its own: quantised, or rounded to bfloat16. Workers
//! convert some rows of A together, meet, and share the outputs of these rows out in two dimensions.

use std::ops::Range;
use std::ptr;

use crate::error::{Error, Result};
use crate::kernels::KernelInfo;
use crate::kernels::matmul::{Epilogue, Matrix};
use crate::threads::{Team, Worker, share};

use super::gemm::{Cost, Grid, Memory, PARTS_PER_WORKER, Shared, Workspace, worth_sharing};
use super::matmul::{Matmul, Place};
use super::matrix::{PackedMatrix, Run};

/// Rows of all products that are converted at a time, for each worker: more would only take more memory.
const ROWS: usize = 512;
/// Rows that are gathered at a time where they don't stand as they are converted from.
const LINES: usize = 16;
/// Rows are shared out in multiples of it.
const GRAIN: usize = 4;

/// A product, but for where its matrices stand.
pub(super) struct Converted<'a> {
    matrix: &'a PackedMatrix,
    m: usize,
    a: Matrix<'a>,
    alpha: f32,
    beta: f32,
    epilogue: Epilogue<'a>,
    /// Bytes of a converted row.
    row_bytes: usize,
}

/// One call of [`Converted::run`], whose promise holds as long as the value lives: where the matrices stand, and the
/// memory that workers share, with room for the rows that they convert at a time.
struct Call<'c, F> {
    product: &'c Converted<'c>,
    place: F,
    ldc: usize,
    /// Converted rows, for all workers.
    rows: Shared,
    /// Gathered rows, a run for each worker.
    lines: Shared,
}

impl<'a> Converted<'a> {
    /// The product, with a matrix that has no f32 kernel.
    pub fn new(product: &Matmul<'a>, matrix: &'a PackedMatrix) -> Result<Self> {
        let Matmul { m, a, alpha, beta, epilogue, .. } = *product;
        let row_bytes = matrix.converted_row_bytes();
        let row_bytes = row_bytes.ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "converted rows" })?;
        epilogue.check(m, matrix.n())?;
        Ok(Self { matrix, m, a, alpha, beta, epilogue, row_bytes })
    }

    /// Whether rows are gathered before they are converted.
    fn gathers(&self) -> bool {
        self.a.transposed || self.alpha != 1.0
    }

    /// Computes `count` products of one shape; `place` says where the matrices of each stand.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the first A doesn't lie inside its slice; [`Error::OutOfMemory`]; the errors of
    /// [`Team::run`].
    ///
    /// # Safety
    /// Each A is as long as the first. Each C is writable, m × N with `ldc` floats between rows, and overlaps no other
    /// matrix of the batch.
    pub unsafe fn run<'p>(
        &self,
        count: usize,
        place: impl Fn(usize) -> Place<'p> + Sync,
        ldc: usize,
        team: Option<&Team>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (n, k) = (self.matrix.n(), self.matrix.k());
        Matrix { data: place(0).a, ..self.a }.check("A", self.m, k)?;
        let all = self.m.checked_mul(count).ok_or_else(|| Error::invalid("more rows than can be counted"))?;
        let team = worth_sharing(team, [all, n, k]);
        let workers = team.map_or(1, Team::count);
        let most = all.min(ROWS.saturating_mul(workers));
        let lines = if self.gathers() { LINES.min(all).saturating_mul(k) } else { 0 };
        let Memory { counter, shared, own } = workspace.memory(
            most.checked_mul(self.row_bytes),
            workers,
            lines.checked_mul(size_of::<f32>()),
        )?;
        let call = Call { product: self, place, ldc, rows: shared, lines: own };
        let work = |index: usize, meet: &dyn Fn() -> bool| {
            let mut first = 0;
            while first < all {
                let rows = first..all.min(first + most);
                if index == 0 {
                    // All have left the loop below, and none is in it again before they meet.
                    counter.reset();
                }
                let own = share(rows.len(), GRAIN, index, workers);
                call.convert(first, first + own.start..first + own.end, index);
                if !meet() {
                    return;
                }
                let KernelInfo { mr, nr, .. } = self.matrix.kernel();
                let grid = Grid::new([rows.len(), n], Cost { mr, nr, b: 1 }, workers, PARTS_PER_WORKER);
                while let Some(task) = counter.take(grid.parts(), 1) {
                    let (part, columns) = grid.part(task.start, [rows.len(), n]);
                    // All rows were converted before the workers met.
                    call.multiply(first, first + part.start..first + part.end, columns);
                }
                first = rows.end;
                if !meet() {
                    return;
                }
            }
        };
        match team {
            Some(team) => team.run(|worker: &Worker<'_>| work(worker.index(), &|| worker.barrier().is_ok())),
            None => {
                work(0, &|| true);
                Ok(())
            }
        }
    }
}

/// The parts of `rows`, counted through all products of `m` rows, that belong to one product: its number, its rows.
fn by_product(rows: Range<usize>, m: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut next = rows.start;
    std::iter::from_fn(move || {
        let (product, first) = (next / m, next % m);
        let count = (m - first).min(rows.end - next);
        next += count;
        (count > 0).then_some((product, first..first + count))
    })
}

impl<'p, F: Fn(usize) -> Place<'p>> Call<'_, F> {
    /// Converts a worker's share of the rows, counted through all products, that begin with row `first`.
    fn convert(&self, first: usize, rows: Range<usize>, worker: usize) {
        let Converted { matrix, m, row_bytes, alpha, ref a, .. } = *self.product;
        let mut out = self.rows.byte((rows.start - first) * row_bytes);
        for (product, rows) in by_product(rows, m) {
            let data = (self.place)(product).a;
            let step = if self.product.gathers() { LINES } else { rows.len() };
            for begin in rows.clone().step_by(step) {
                let count = step.min(rows.end - begin);
                // SAFETY: A holds the rows, and the memory has room for them: for this worker's gathered ones, and for
                // converted ones that are no other worker's. The matrix was packed with kernels of this CPU.
                unsafe {
                    let (x, ldx) = match self.product.gathers() {
                        false => (data.as_ptr().wrapping_add(begin * a.ld), a.ld),
                        true => {
                            let lines = self.lines.floats(worker);
                            let (a, rows) = (Matrix { data, ..*a }, begin..begin + count);
                            matrix.finishing_kernel().gather_rows(&a, alpha, rows, 0..matrix.k(), lines);
                            (lines.cast_const(), matrix.k())
                        }
                    };
                    matrix.convert(x, ldx, count, out);
                }
                out = out.wrapping_add(count * row_bytes);
            }
        }
    }

    /// Computes a part of C that the counter has handed out to this worker alone: columns of some of the converted rows,
    /// counted through all products, that begin with row `first`.
    fn multiply(&self, first: usize, rows: Range<usize>, columns: Range<usize>) {
        let Converted { matrix, m, beta, epilogue, row_bytes, .. } = *self.product;
        let (nr, float) = (matrix.packing().panel_rows(), matrix.finishing_kernel());
        let mut x = self.rows.byte((rows.start - first) * row_bytes);
        for (product, rows) in by_product(rows, m) {
            let c = (self.place)(product).c;
            let run = Run {
                x,
                ldx: row_bytes,
                m: rows.len(),
                panels: columns.start / nr..columns.end.div_ceil(nr),
                y: c.wrapping_add(rows.start * self.ldc),
                ldy: self.ldc,
                bias: epilogue.bias.map_or(ptr::null(), <[f32]>::as_ptr),
                accumulate: beta != 0.0,
            };
            // SAFETY: X is converted rows; the columns begin a panel and end one or the matrix; the block lies inside C, the gate and the residual, as was checked.
            unsafe {
                float.scale_block(beta, c, self.ldc, &rows, &columns);
                matrix.multiply(&run);
                float.finish_block(&epilogue, c, self.ldc, &rows, &columns);
            }
            x = x.wrapping_add(rows.len() * row_bytes);
        }
    }
}
