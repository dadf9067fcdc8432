//! The products out of experts, and for each row the sum over its experts, times their weights.

use super::experts_in::ExpertPart;
use super::route::RoutesRead;
use super::{At, Facts, Scratch, Step, Walk, Work};
use crate::error::{Error, Result};
use crate::isa;
use crate::model::Weights;
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::ops::experts::{self, Combine};
use crate::ops::linear;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// The sum over each row's experts.
pub struct ExpertsOut {
    /// The products of rows sorted by expert, `used` for each row of the batch.
    pub down: ExpertPart,
    /// The routes.
    pub routes: RoutesRead,
    /// Whether the weights of experts multiply results; otherwise they have multiplied inputs.
    pub weighs: bool,
    /// Output rows, f32.
    pub out: Buf,
    /// Adds to `out` (the residual stream) instead of overwriting it.
    pub accumulate: bool,
    /// Rows of inputs and output.
    pub rows: RowSet,
}

impl ExpertsOut {
    /// Floats of scratch memory for results of products; the order of rows is behind them.
    fn results(&self, weights: &Weights) -> usize {
        linear::scratch_len([weights.experts(self.down.product.matrices)[0].packing()], 1)
    }
}

impl Step for ExpertsOut {
    fn facts(&self) -> Facts {
        let reads = vec![self.down.x, self.routes.buf];
        Facts { reads, ..Facts::dynamic(Zone::ExpertsDown, self.rows, self.out) }
    }

    fn scratch(&self, scratch: &Scratch<'_>) -> Result<usize> {
        let order = self.routes.scratch(scratch, self.rows)?;
        let sum = self.results(scratch.weights).checked_add(order);
        sum.ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "the rows of experts" })
    }

    fn prefetch(&self, weights: &Weights) {
        isa::prefetch(self);
        isa::prefetch(&weights.experts(self.down.product.matrices)[0]);
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let (active, rows) = (self.routes.active(walk, self.rows), walk.count(self.rows));
        self.down.work(walk, rows * self.routes.used, active)
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let results = walk.scratch(at.worker);
        let order = results.wrapping_add(self.results(walk.weights));
        // SAFETY: the pass contract; this part of the scratch memory is used for nothing else.
        let sorted = unsafe { self.routes.sorted(walk, at.worker, order) };
        let x = walk.view(self.down.x, at.worker).divided(self.routes.used);
        let combine = Combine {
            product: self.down.products(walk, x),
            out: walk.view(self.out, at.worker),
            accumulate: self.accumulate,
            weighs: self.weighs,
            axpy: &walk.kernels.unary.axpy,
        };
        // SAFETY: the pass contract: no worker writes the inputs, and each takes other columns and rows of `out` from the
        // shares; the pass reserved as much scratch memory as `Step::scratch` says.
        unsafe {
            let results = std::slice::from_raw_parts_mut(results, self.results(walk.weights));
            experts::combine(at.worker, &at.schedule.shares, &combine, &sorted, results);
        }
    }

    fn text(&self, names: &Names<'_>) -> String {
        let sum = if self.weighs { "weighted sum" } else { "sum" };
        let adds = if self.accumulate { ", added" } else { "" };
        format!("{sum} of {}{adds}", names.experts_product(&self.down.product))
    }
}
