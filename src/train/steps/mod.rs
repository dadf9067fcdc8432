//! The steps of a training plan, forward and backward: a file for each kind. A step's data say which columns of which
//! buffers it reads and writes; every worker runs every step and does its share.

pub(super) mod attention;
pub(super) mod dropout;
pub(super) mod elementwise;
pub(super) mod embed;
pub(super) mod loss;
pub(super) mod norm;
pub(super) mod product;
pub(super) mod rope;

use std::ops::Range;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::parameters::Weight;
use super::plan::View;
use super::walk::Walk;
use crate::error::Result;
use crate::kernels::KernelSet;
use crate::kernels::matmul::Gemm;
use crate::ops::region;
use crate::profile::Zone;
use crate::threads::{Shares, Worker};

/// Where a worker is in a walk: at a step that it may run, since [`At::new`] was promised so.
pub(super) struct At<'a> {
    walk: &'a Walk<'a>,
    pub worker: &'a Worker<'a>,
    /// The worker's share of the micro-batch's rows: the same in all steps.
    pub share: Range<usize>,
    /// Hands out the pieces of this step, if it is dynamic.
    pub shares: &'a Shares,
}

impl<'a> At<'a> {
    /// # Safety
    /// All workers of a region run the steps of one plan in their order, with the plan's barriers between them, on the
    /// memory that the plan was laid out for. So what a step reads is unwritten while it runs, and what it writes is its own.
    pub unsafe fn new(
        walk: &'a Walk<'a>,
        worker: &'a Worker<'a>,
        share: Range<usize>,
        shares: &'a Shares,
    ) -> Self {
        At { walk, worker, share, shares }
    }

    pub fn walk(&self) -> &'a Walk<'a> {
        self.walk
    }

    /// Some rows of a view that the step reads, and the floats between them.
    fn rows(&self, view: View, rows: &Range<usize>) -> (&[f32], usize) {
        let stride = self.walk.stride(view);
        let len = if rows.is_empty() { 0 } else { (rows.len() - 1) * stride + view.width };
        // SAFETY: the buffer has these rows, which nobody writes while the step runs, as promised.
        (unsafe { from_raw_parts(self.walk.row(view, rows.start), len) }, stride)
    }

    /// A weight's elements.
    fn weight(&self, weight: Weight) -> &'a [f32] {
        // SAFETY: the weights' memory holds it, and no step writes weights.
        unsafe { from_raw_parts(self.walk.weight_at(weight, 0), weight.len) }
    }

    /// The columns of a row that the step writes; the row is this worker's.
    fn own(&mut self, view: View, row: usize) -> &mut [f32] {
        debug_assert!(self.share.contains(&row));
        // SAFETY: the buffer has the row, which nobody else uses while the step runs, as promised.
        unsafe { from_raw_parts_mut(self.walk.row(view, row), view.width) }
    }

    /// This worker's parts of a product of operands that the step reads, to rows that it writes.
    fn multiply(&self, gemm: &Gemm<'_>, out: (*mut f32, usize)) {
        let (kernel, scratch) = (self.walk.kernels.matmul.f32, self.walk.scratch(self.worker));
        // SAFETY: all workers run this step, which alone takes from the shares; its result is its own, as promised, and the
        // scratch memory is as long as the longest step needs, and this worker's.
        unsafe { region::multiply(self.worker, self.shares, kernel, gemm, out, scratch) }
    }
}

/// A step of a plan.
pub(super) trait Step: Send + Sync {
    /// Does one worker's share.
    fn run(&self, at: &mut At<'_>);

    /// Floats of scratch memory that each of `workers` needs.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) where the size overflows.
    fn scratch(&self, _kernels: &KernelSet, _workers: usize) -> Result<usize> {
        Ok(0)
    }

    /// Whether it takes its work from [`At::shares`].
    fn is_dynamic(&self) -> bool {
        false
    }

    /// Floating-point operations of products in it.
    fn flops(&self) -> u64 {
        0
    }

    /// The profile's name of it.
    fn zone(&self) -> Zone;

    /// Bytes that it reads and writes at least, once each, for so many rows of a batch.
    fn bytes(&self, rows: usize) -> u64;
}

/// Bytes of so many rows of floats of these widths.
fn bytes_of(rows: usize, widths: &[usize]) -> u64 {
    widths.iter().map(|&width| (4 * rows as u64).saturating_mul(width as u64)).fold(0, u64::saturating_add)
}
