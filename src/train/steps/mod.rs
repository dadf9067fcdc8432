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

use super::walk::Walk;
use crate::error::Result;
use crate::kernels::KernelSet;
use crate::profile::Zone;
use crate::threads::{Shares, Worker};

/// Where a worker is in a walk.
pub(super) struct At<'a> {
    pub worker: &'a Worker<'a>,
    /// The worker's share of the micro-batch's rows: the same in all steps.
    pub share: Range<usize>,
    /// Hands out the pieces of this step, if it is dynamic.
    pub shares: &'a Shares,
}

/// A step of a plan.
pub(super) trait Step: Send + Sync {
    /// Does one worker's share.
    ///
    /// # Safety
    /// All workers of a region run the steps of one plan in their order, with the plan's barriers between them, on the
    /// memory that the plan was laid out for.
    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>);

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
