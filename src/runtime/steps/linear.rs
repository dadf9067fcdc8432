//! Products of the same rows, computed as one: they share a barrier and a partition. Work on heads of queries, keys and
//! values follows while their columns are in cache.

use std::ops::Range;

use super::heads::HeadsDone;
use super::{At, Facts, Scratch, Step, Walk, Work};
use crate::error::Result;
use crate::isa;
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::model::{MatrixId, VectorId, Weights};
use crate::ops::linear::{self, Beside, Product, Target, Then};
use crate::ops::{Rows, rowwise};
use crate::profile::Zone;
use crate::runtime::plan::Buf;
use crate::threads::Worker;

/// One product: `out[:, column..column + N] (+)= scale · (x · Wᵀ) (+ bias)`, where `out` belongs to the step.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Input rows: f32, or quantised as the matrix's kernel needs them.
    pub x: Buf,
    /// The matrix (N × K).
    pub matrix: MatrixId,
    /// Added to each row.
    pub bias: Option<VectorId>,
    /// First column of the output to write. A product lies within a row of its step, so 32 bits hold it.
    pub column: u32,
    /// Multiplies the product.
    pub scale: f32,
}

impl Part {
    /// The product of this pass's rows, written to `y` or added to it.
    pub fn product<'a>(
        &self,
        walk: &'a Walk<'_>,
        worker: &Worker<'_>,
        y: Rows,
        accumulate: bool,
    ) -> Product<'a> {
        Product {
            x: walk.view(self.x, worker),
            weight: walk.weights.matrix(self.matrix),
            bias: self.bias.map(|id| walk.weights.vector(id)),
            y,
            column: self.column as usize,
            scale: self.scale,
            accumulate,
        }
    }

    /// Operations (a bias adds none: sums start with it), and bytes: the matrix once, input and output rows.
    pub fn work(&self, walk: &Walk<'_>, rows: usize, accumulate: bool) -> Work {
        let weight = walk.weights.matrix(self.matrix);
        let x = walk.plan.buffers[self.x.index()].row_bytes;
        let y = weight.n() * size_of::<f32>();
        let row = x + if accumulate { 2 * y } else { y };
        let once = weight.bytes() + if self.bias.is_some() { y } else { 0 };
        let rows = rows as u64;
        Work { flops: rows * weight.flops_per_row(), bytes: once as u64 + rows * row as u64 }
    }

    /// As [`Step::prefetch`].
    pub fn prefetch(&self, weights: &Weights) {
        isa::prefetch(weights.matrix(self.matrix));
    }

    /// The weights' names and shapes.
    pub fn text(&self, names: &Names<'_>) -> String {
        names.product(self.matrix, self.bias, self.scale)
    }
}

/// Products side by side.
pub struct Linear {
    /// Zone in the profile.
    pub zone: Zone,
    /// The products; the first `count` are valid. They are stored in the step itself, to be prefetched with it.
    pub parts: [Part; 3],
    /// Number of products.
    pub count: usize,
    /// Output rows, f32.
    pub out: Buf,
    /// Adds to `out` (the residual stream) instead of overwriting it.
    pub accumulate: bool,
    /// Work on heads whose columns have been computed.
    pub heads: Option<HeadsDone>,
    /// Rows of inputs and output.
    pub rows: RowSet,
}

impl Linear {
    fn parts(&self) -> &[Part] {
        &self.parts[..self.count]
    }

    /// Whether the product is computed in scratch memory, since its scale must not multiply what it is added to.
    fn is_added_scaled(&self) -> bool {
        self.accumulate && self.parts[0].scale != 1.0
    }
}

impl Step for Linear {
    fn facts(&self) -> Facts {
        let reads = self.parts().iter().map(|part| part.x).collect();
        let cache = self.heads.as_ref().filter(|heads| heads.stores).map(|heads| (heads.layer, true));
        Facts { reads, cache, ..Facts::dynamic(self.zone, self.rows, self.out) }
    }

    fn scratch(&self, scratch: &Scratch<'_>) -> Result<usize> {
        let packing = scratch.weights.matrix(self.parts[0].matrix).packing();
        Ok(if self.is_added_scaled() { linear::scratch_len([packing], 1) } else { 0 })
    }

    fn prefetch(&self, weights: &Weights) {
        isa::prefetch(self);
        self.parts().iter().for_each(|part| part.prefetch(weights));
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let rows = walk.count(self.rows);
        let works = self.parts().iter().map(|part| part.work(walk, rows, self.accumulate));
        works.fold(Work::default(), |sum, work| sum + work)
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let (worker, shares) = (at.worker, &at.schedule.shares);
        let out = walk.view(self.out, worker);
        if self.is_added_scaled() {
            let product = self.parts[0].product(walk, worker, out, false);
            let then = Then { unit: 1, call: |x: Beside<1>| rowwise::add(&walk.kernels.unary.add, x) };
            let (target, scratch) = (Target::Floats(out), walk.scratch(worker));
            // SAFETY: the pass contract: no worker writes the input, and each takes other columns and rows from the
            // shares; the pass reserved as much scratch memory as `Step::scratch` says.
            return unsafe { linear::beside(worker, shares, [&product], target, scratch, then) };
        }
        let products = self.parts.map(|part| part.product(walk, worker, out, self.accumulate));
        let products = &products[..self.count];
        let Some(heads) = &self.heads else {
            // SAFETY: the pass contract: no worker writes the inputs, and each takes other columns and rows of `out`
            // from the shares.
            return unsafe { linear::run(worker, shares, products, linear::NOTHING) };
        };
        let head_dim = heads.shape.head_dim;
        let clocks = heads.clocks(walk, worker);
        let call = |i: usize, rows: Range<usize>, columns: Range<usize>| {
            let begin = self.parts[i].column as usize / head_dim;
            let done = begin + columns.start / head_dim..begin + columns.end / head_dim;
            // SAFETY: this worker has just computed these rows of these heads, so it alone took them from the shares.
            unsafe { heads.finish(walk, out, rows, done, &clocks) }
        };
        let then = Then { unit: head_dim, call };
        // SAFETY: the pass contract: no worker writes the inputs, and each takes other columns and rows of `out`.
        unsafe { linear::run(worker, shares, products, Some(then)) }
    }

    fn text(&self, names: &Names<'_>) -> String {
        let adds = if self.accumulate { ", added" } else { "" };
        let parts = self.parts().iter().map(|part| format!("{}{adds}", part.text(names)));
        let heads = self.heads.as_ref().map(|heads| heads.text(names));
        parts.chain(heads).collect::<Vec<_>>().join("\n")
    }
}
