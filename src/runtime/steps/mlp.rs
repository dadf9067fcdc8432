//! The inside of an MLP: `f(x · upᵀ)`, or `f(x · gateᵀ) · (x · upᵀ)` (Shazeer 2020), a few columns at a time, so that
//! the activation finds the products in cache. The results are quantised in the same step if the next product needs
//! that.

use std::ops::Range;

use super::elementwise::activation;
use super::linear::Part;
use super::{At, Facts, Scratch, Step, Walk, Work};
use crate::error::Result;
use crate::isa;
use crate::kernels::KernelSet;
use crate::kernels::unary::Binary;
use crate::model::Weights;
use crate::model::graph::{Activation, RowSet};
use crate::model::text::Names;
use crate::ops::Rows;
use crate::ops::linear::{self, Beside, Product, Target, Then};
use crate::ops::rowwise;
use crate::profile::Zone;
use crate::quant::BLOCK;
use crate::runtime::plan::Buf;

/// One or two products and their activation.
pub struct Mlp {
    /// The gate's product, if there is a gate.
    pub gate: Option<Part>,
    /// The other product.
    pub up: Part,
    /// The function of the gate, or else of the product.
    pub function: Activation,
    /// Rows of results: f32, or quantised.
    pub out: Buf,
    /// Whether `out` has quantised rows.
    pub quantized: bool,
    /// Rows of inputs and output.
    pub rows: RowSet,
}

impl Mlp {
    /// Whether there is a kernel for this function, with or without a gate.
    pub fn has_kernel(gated: bool, function: Activation) -> bool {
        !gated || !matches!(function, Activation::Relu | Activation::Sigmoid)
    }

    /// Whether there is such a kernel that also quantises.
    pub fn quantizes(gated: bool, function: Activation) -> bool {
        matches!((gated, function), (true, Activation::Silu) | (false, Activation::GeluTanh))
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.gate.iter().chain([&self.up])
    }

    /// A product. Its `out` is only used in an MLP without gate and quantisation.
    fn product<'a>(&self, part: &Part, walk: &'a Walk<'_>, at: &At<'_>, out: Rows) -> Product<'a> {
        part.product(walk, at.worker, out, false)
    }

    /// Number of columns that are computed together: the size of a quantised block.
    fn unit(&self) -> usize {
        if self.quantized { BLOCK } else { 1 }
    }

    /// Operations and bytes of the function for each element.
    fn element_work(&self) -> (u64, u64) {
        if self.gate.is_some() { (5, 8) } else { (8, 8) }
    }

    fn function_zone(&self) -> Zone {
        match (self.function, self.gate.is_some()) {
            (Activation::Silu, true) => Zone::SwiGlu,
            (Activation::Silu, false) => Zone::Silu,
            (Activation::GeluTanh | Activation::GeluErf, _) => Zone::Gelu,
            (Activation::Relu | Activation::Sigmoid, _) => Zone::Elementwise,
        }
    }

    /// Runs products whose results go through scratch memory: with a gate, or to be quantised.
    ///
    /// # Safety
    /// As [`Step::run`].
    unsafe fn run_beside<const N: usize>(
        &self,
        walk: &Walk<'_>,
        at: &At<'_>,
        parts: [&Part; N],
        finish: impl Fn(Beside<N>),
    ) {
        let out = walk.view(self.out, at.worker);
        let products = parts.map(|part| self.product(part, walk, at, out));
        let n = walk.weights.matrix(self.up.matrix).n();
        let target = if self.quantized { Target::Blocks(out, n) } else { Target::Floats(out) };
        let (clock, (flops, bytes)) = (walk.tally(at.worker, self.function_zone()), self.element_work());
        let call = |part: Beside<N>| {
            let elements = (part.rows.len() * part.columns.len()) as u64;
            clock.piece(flops * elements, bytes * elements, || finish(part));
        };
        let (then, scratch) = (Then { unit: self.unit(), call }, walk.scratch(at.worker));
        // SAFETY: the pass contract: no worker writes the inputs, and each takes other columns and rows from the
        // shares; the pass reserved as much scratch memory as `Step::scratch` says.
        unsafe { linear::beside(at.worker, &at.schedule.shares, products.each_ref(), target, scratch, then) }
    }

    /// Runs an MLP without a gate, with results in f32.
    ///
    /// # Safety
    /// As [`Step::run`].
    unsafe fn run_plain(&self, walk: &Walk<'_>, at: &At<'_>) {
        let out = walk.view(self.out, at.worker);
        let product = self.product(&self.up, walk, at, out);
        let (clock, (flops, bytes)) = (walk.tally(at.worker, self.function_zone()), self.element_work());
        let kernel = activation(walk.kernels, self.function);
        let call = |_: usize, rows: Range<usize>, columns: Range<usize>| {
            let elements = (rows.len() * columns.len()) as u64;
            // SAFETY: this worker has just computed these columns of these rows, so it alone took them from the shares.
            clock.piece(flops * elements, bytes * elements, || unsafe {
                rowwise::activate(kernel, out, rows, columns);
            });
        };
        let then = Then { unit: self.unit(), call };
        // SAFETY: the pass contract: no worker writes the inputs, and each takes other columns and rows from the
        // shares.
        unsafe { linear::run(at.worker, &at.schedule.shares, &[product], Some(then)) }
    }
}

/// The kernel of a gate. Lowering only uses functions that have one ([`Mlp::has_kernel`]).
fn gate_kernel(kernels: &KernelSet, function: Activation) -> &Binary {
    match function {
        Activation::GeluTanh => &kernels.unary.geglu,
        Activation::GeluErf => &kernels.unary.geglu_erf,
        Activation::Silu | Activation::Relu | Activation::Sigmoid => &kernels.unary.swiglu,
    }
}

impl Step for Mlp {
    fn facts(&self) -> Facts {
        let zone = if self.gate.is_some() { Zone::LinearGateUp } else { Zone::LinearUp };
        let reads = self.parts().map(|part| part.x).collect();
        Facts { reads, ..Facts::dynamic(zone, self.rows, self.out) }
    }

    fn scratch(&self, scratch: &Scratch<'_>) -> Result<usize> {
        let packing = |part: &Part| scratch.weights.matrix(part.matrix).packing();
        let (up, unit) = (packing(&self.up), self.unit());
        Ok(match &self.gate {
            Some(gate) => linear::scratch_len([packing(gate), up], unit),
            None if self.quantized => linear::scratch_len([up], unit),
            None => 0,
        })
    }

    fn prefetch(&self, weights: &Weights) {
        isa::prefetch(self);
        self.parts().for_each(|part| part.prefetch(weights));
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let rows = walk.count(self.rows);
        self.parts().map(|part| part.work(walk, rows, false)).fold(Work::default(), |sum, work| sum + work)
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let kernels = walk.kernels;
        // SAFETY: the contract of `Step::run`, which the caller upholds, is also that of both functions.
        unsafe {
            match &self.gate {
                Some(gate) => self.run_beside(walk, at, [gate, &self.up], |pair| match self.quantized {
                    true => rowwise::gate_quantize(kernels, pair),
                    false => rowwise::gate(gate_kernel(kernels, self.function), pair),
                }),
                None if self.quantized => {
                    self.run_beside(walk, at, [&self.up], |x| rowwise::gelu_quantize(kernels, x));
                }
                None => self.run_plain(walk, at),
            }
        }
    }

    fn text(&self, names: &Names<'_>) -> String {
        let quantized = if self.quantized { ", quantised" } else { "" };
        let (name, up) = (self.function.name(), self.up.text(names));
        match &self.gate {
            Some(gate) => format!("{name} of {}\n· {up}{quantized}", gate.text(names)),
            None => format!("{name} of {up}{quantized}"),
        }
    }
}
