//! A product inside a parallel region: every worker calls it with the same arguments and computes parts of C, its own
//! first and then those of late workers. How C is cut and which worker computes a part doesn't change a bit.

use super::gemm::Grid;
use crate::kernels::matmul::{Gemm, Kernel};
use crate::threads::{Shares, Worker};

/// Rows and columns of the largest part.
fn largest(grid: &Grid, gemm: &Gemm<'_>) -> [usize; 2] {
    let (rows, columns) = grid.part(0, [gemm.m, gemm.n]);
    [rows.len(), columns.len()]
}

/// Floats of scratch memory that each of `workers` needs for the product.
pub(crate) fn scratch_len(kernel: &Kernel, gemm: &Gemm<'_>, workers: usize) -> usize {
    gemm.scratch_of(kernel, largest(&Grid::of(kernel, gemm, 1, workers), gemm))
}

/// Computes this worker's parts of C, which begins at `c` with `ldc` floats between rows. `shares` hands parts out.
///
/// # Safety
/// [`Gemm::check`] passes for `gemm`. All workers of the region make the same call. Nothing of `shares` is taken yet, and
/// only this call takes from it. C is writable, m × n, overlaps no operand, and nobody else touches it. `scratch` holds
/// [`scratch_len`] floats of this worker's own.
pub(crate) unsafe fn multiply(
    worker: &Worker<'_>,
    shares: &Shares,
    kernel: &Kernel,
    gemm: &Gemm<'_>,
    (c, ldc): (*mut f32, usize),
    scratch: *mut f32,
) {
    debug_assert!(gemm.check(kernel).is_ok());
    if gemm.m == 0 || gemm.n == 0 {
        return;
    }
    let grid = Grid::of(kernel, gemm, 1, worker.count());
    let part = largest(&grid, gemm);
    while let Some(pieces) = shares.take(worker.index(), grid.parts()) {
        for piece in pieces {
            let (rows, columns) = grid.part(piece, [gemm.m, gemm.n]);
            // SAFETY: the operands were promised to be checked; each part is taken by one worker, lies inside C, and the
            // scratch memory is this worker's and long enough for the largest part.
            unsafe { gemm.run_part(kernel, part, c, ldc, rows, columns, scratch) };
        }
    }
}
