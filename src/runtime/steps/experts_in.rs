//! The inside of experts: the gate and up products of each row's experts, and the function of them. Rows of results are
//! sorted by expert, `used` for each row of the batch. They are quantised in the same step if the next product needs that.

use super::elementwise::activation;
use super::route::RoutesRead;
use super::{At, Facts, Scratch, Step, Walk, Work};
use crate::error::{Error, Result};
use crate::isa;
use crate::model::Weights;
use crate::model::experts::{ExpertsProduct, Inner};
use crate::model::graph::{Activation, RowSet};
use crate::model::text::Names;
use crate::ops::Rows;
use crate::ops::experts::{self, ExpertProducts, Memory, Sorted};
use crate::ops::linear::{self, Beside, Target, Then};
use crate::ops::rowwise;
use crate::profile::Zone;
use crate::quant::BLOCK;
use crate::runtime::plan::Buf;

/// A product with experts' matrices.
#[derive(Clone, Copy)]
pub struct ExpertPart {
    /// Input rows: f32, or quantised as the matrices' kernel needs them.
    pub x: Buf,
    /// The matrices, their biases and factors.
    pub product: ExpertsProduct,
}

impl ExpertPart {
    /// The products of `x`.
    pub fn products<'a>(&self, walk: &'a Walk<'_>, x: Rows) -> ExpertProducts<'a> {
        let ExpertsProduct { matrices, bias, scale } = self.product;
        ExpertProducts {
            x,
            matrices: walk.weights.experts(matrices),
            bias: bias.map(|id| walk.weights.vector(id)),
            scale: scale.map(|id| walk.weights.vector(id)),
        }
    }

    /// Operations of a product for each of `positions`, and bytes: the matrices of `active` experts, inputs and outputs.
    pub fn work(&self, walk: &Walk<'_>, positions: usize, active: usize) -> Work {
        let weight = &walk.weights.experts(self.product.matrices)[0];
        let row = (weight.k() + weight.n()) * size_of::<f32>();
        let bytes = active * weight.bytes() + positions * row;
        Work { flops: positions as u64 * weight.flops_per_row(), bytes: bytes as u64 }
    }
}

/// The inside of experts.
pub struct ExpertsIn {
    /// The gate's product, if there is a gate.
    pub gate: Option<ExpertPart>,
    /// The other product.
    pub up: ExpertPart,
    /// The routes.
    pub routes: RoutesRead,
    /// The function.
    pub inner: Inner,
    /// Whether the weights of experts multiply their inputs.
    pub weighs_input: bool,
    /// Results, `used` in a row: f32, or quantised.
    pub out: Buf,
    /// Whether results are quantised.
    pub quantized: bool,
    /// Rows of inputs and output.
    pub rows: RowSet,
}

/// The parts of a worker's scratch memory, in floats: results of products, gathered rows of the gate and of the other
/// product, and the order of rows behind them.
struct Parts {
    results: usize,
    gathered: [usize; 2],
}

impl ExpertsIn {
    fn parts(&self) -> impl Iterator<Item = &ExpertPart> {
        self.gate.iter().chain([&self.up])
    }

    /// Number of columns that are computed together: the size of a quantised block.
    fn unit(&self) -> usize {
        if self.quantized { BLOCK } else { 1 }
    }

    fn memory(&self, weights: &Weights, stride: impl Fn(Buf) -> usize) -> Result<Parts> {
        const TOO_LARGE: Error = Error::OutOfMemory { bytes: usize::MAX, what: "the rows of experts" };
        let packing = |part: &ExpertPart| weights.experts(part.product.matrices)[0].packing();
        let gathered = |part: &ExpertPart| experts::gather_len(stride(part.x)).ok_or(TOO_LARGE);
        let (up, unit) = (packing(&self.up), self.unit());
        Ok(match &self.gate {
            Some(gate) => Parts {
                results: linear::scratch_len([packing(gate), up], unit).next_multiple_of(16),
                gathered: [gathered(gate)?, if gate.x == self.up.x { 0 } else { gathered(&self.up)? }],
            },
            None => Parts {
                results: linear::scratch_len([up], unit).next_multiple_of(16),
                gathered: [gathered(&self.up)?, 0],
            },
        })
    }

    /// Runs products and then their function.
    ///
    /// # Safety
    /// As [`Step::run`].
    unsafe fn run_parts<const N: usize>(
        &self,
        walk: &Walk<'_>,
        at: &At<'_>,
        parts: [&ExpertPart; N],
        finish: impl Fn(Beside<N>, &Sorted<'_>),
    ) {
        let stride = |buf: Buf| walk.plan.buffers[buf.index()].row_bytes;
        // The pass has computed the same sizes when it reserved scratch memory.
        let Ok(memory) = self.memory(walk.weights, stride) else { return };
        let scratch = walk.scratch(at.worker);
        let gathered = scratch.wrapping_add(memory.results);
        let second = gathered.wrapping_add(memory.gathered[0]);
        let order = second.wrapping_add(memory.gathered[1]);
        // SAFETY: the pass contract; this part of the scratch memory is used for nothing else.
        let sorted = unsafe { self.routes.sorted(walk, at.worker, order) };
        let out = walk.view(self.out, at.worker).divided(self.routes.used);
        let products = parts.map(|part| part.products(walk, walk.view(part.x, at.worker)));
        let memory = Memory {
            results: scratch,
            gathered: std::array::from_fn(|i| if i == 0 { gathered } else { second }),
        };
        let target = if self.quantized { Target::Blocks(out, self.width(walk)) } else { Target::Floats(out) };
        let then = Then { unit: self.unit(), call: |part: Beside<N>| finish(part, &sorted) };
        let products = std::array::from_fn(|i| &products[i]);
        // SAFETY: the pass contract: no worker writes the inputs, and each takes other columns and positions from the
        // shares; the pass reserved as much scratch memory as `Step::scratch` says.
        unsafe { experts::beside(at.worker, &at.schedule.shares, products, &sorted, target, memory, then) }
    }

    /// The function of gates and their factors.
    fn finish_gated(&self, walk: &Walk<'_>, mut pair: Beside<2>, sorted: &Sorted<'_>) {
        let kernels = walk.kernels;
        if self.quantized && !self.weighs_input && self.inner == Inner::Activation(Activation::Silu) {
            return rowwise::gate_quantize(kernels, pair);
        }
        for (i, position) in pair.rows.clone().enumerate() {
            let [gate, up] = pair.results(i);
            if self.weighs_input {
                let weight = sorted.weight(position);
                kernels.unary.scale.apply_in_place(gate, weight);
                kernels.unary.scale.apply_in_place(up, weight);
            }
            match self.inner {
                Inner::Activation(Activation::Silu) => kernels.unary.swiglu.apply_in_place(gate, up),
                Inner::Activation(Activation::GeluTanh) => kernels.unary.geglu.apply_in_place(gate, up),
                Inner::Activation(function) => {
                    activation(kernels, function).apply_in_place(gate);
                    kernels.unary.mul.apply_in_place(gate, up);
                }
                // The builder gives such experts no gate.
                Inner::SquaredRelu => {}
                Inner::ClampedSwiGlu { alpha, limit } => {
                    clamp(gate, up, limit);
                    kernels.unary.mul.apply_in_place(up, gate);
                    kernels.unary.scale.apply_in_place(gate, alpha);
                    kernels.unary.sigmoid.apply_in_place(gate);
                    kernels.unary.mul.apply_in_place(gate, up);
                }
            }
        }
        self.store(walk, pair);
    }

    /// The function of products without a gate.
    fn finish_plain(&self, walk: &Walk<'_>, mut x: Beside<1>, sorted: &Sorted<'_>) {
        for (i, position) in x.rows.clone().enumerate() {
            let [row] = x.results(i);
            if self.weighs_input {
                walk.kernels.unary.scale.apply_in_place(row, sorted.weight(position));
            }
            match self.inner {
                Inner::Activation(function) => activation(walk.kernels, function).apply_in_place(row),
                Inner::SquaredRelu => {
                    walk.kernels.unary.relu.apply_in_place(row);
                    row.iter_mut().for_each(|x| *x *= *x);
                }
                Inner::ClampedSwiGlu { .. } => {}
            }
        }
        self.store(walk, x);
    }

    /// Stores the first columns.
    fn store<const N: usize>(&self, walk: &Walk<'_>, mut x: Beside<N>) {
        if self.quantized {
            return rowwise::quantize_columns(walk.kernels, x);
        }
        for i in 0..x.rows.len() {
            let (results, out) = x.row(i);
            out.copy_from_slice(results[0]);
        }
    }

    /// Floats of a result.
    fn width(&self, walk: &Walk<'_>) -> usize {
        walk.weights.experts(self.up.product.matrices)[0].n()
    }
}

/// Limits gates from above, and their factors from both sides; adds 1 to these. NaN stays.
fn clamp(gate: &mut [f32], up: &mut [f32], limit: f32) {
    gate.iter_mut().for_each(|x| *x = if *x > limit { limit } else { *x });
    up.iter_mut().for_each(|x| *x = x.clamp(-limit, limit) + 1.0);
}

impl Step for ExpertsIn {
    fn facts(&self) -> Facts {
        let reads = self.parts().map(|part| part.x).chain([self.routes.buf]).collect();
        Facts { reads, ..Facts::dynamic(Zone::ExpertsGateUp, self.rows, self.out) }
    }

    fn scratch(&self, scratch: &Scratch<'_>) -> Result<usize> {
        let stride = |buf: Buf| scratch.plan.buffers[buf.index()].row_bytes;
        let Parts { results, gathered } = self.memory(scratch.weights, stride)?;
        let order = self.routes.scratch(scratch, self.rows)?;
        let sum = [results, gathered[0], gathered[1], order].into_iter().try_fold(0, usize::checked_add);
        sum.ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "the rows of experts" })
    }

    fn prefetch(&self, weights: &Weights) {
        isa::prefetch(self);
        self.parts().for_each(|part| isa::prefetch(&weights.experts(part.product.matrices)[0]));
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let (active, rows) = (self.routes.active(walk, self.rows), walk.count(self.rows));
        let works = self.parts().map(|part| part.work(walk, rows * self.routes.used, active));
        works.fold(Work::default(), |sum, work| sum + work)
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        // SAFETY: the contract of `Step::run` is that of `run_parts`.
        unsafe {
            match &self.gate {
                Some(gate) => self.run_parts(walk, at, [gate, &self.up], |pair, sorted| {
                    self.finish_gated(walk, pair, sorted);
                }),
                None => {
                    self.run_parts(walk, at, [&self.up], |x, sorted| self.finish_plain(walk, x, sorted));
                }
            }
        }
    }

    fn text(&self, names: &Names<'_>) -> String {
        let quantized = if self.quantized { ", quantised" } else { "" };
        let weighed = if self.weighs_input { " of weighted inputs" } else { "" };
        let up = names.experts_product(&self.up.product);
        match &self.gate {
            Some(gate) => {
                let gate = names.experts_product(&gate.product);
                format!("{}{weighed} of {gate}\n· {up}{quantized}", self.inner)
            }
            None => format!("{}{weighed} of {up}{quantized}", self.inner),
        }
    }
}
