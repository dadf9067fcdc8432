//! A gate of rows: `f(gate) · x`, which a norm of heads may precede or follow, row by row, so that each finds the row in
//! cache. The results are quantised in the same step if the next product needs that.

use super::elementwise::activation;
use super::recurrent::{Columns, HeadColumns};
use super::{At, Facts, Scratch, Step, Walk, Work};
use crate::error::{Error, Result};
use crate::model::graph::{Activation, Norm, RowSet};
use crate::model::text::Names;
use crate::ops::{Rows, rowwise};
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// A norm of heads, before or after the gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadsNorm {
    /// The norm.
    pub norm: Norm,
    /// Elements of a head.
    pub head_dim: usize,
    /// Whether the gate follows.
    pub first: bool,
}

/// A gate.
pub struct Gate {
    /// Values. With a norm before the gate, they are whole rows.
    pub x: Columns,
    /// The gate, before its function.
    pub gate: HeadColumns,
    /// The gate's function.
    pub function: Activation,
    /// A norm of the values, or of the results.
    pub norm: Option<HeadsNorm>,
    /// Output rows: f32, or quantised.
    pub out: Buf,
    /// Whether `out` has quantised rows.
    pub quantized: bool,
    /// Floats in a row of values.
    pub width: usize,
    /// Rows of inputs and output.
    pub rows: RowSet,
}

impl Gate {
    /// The norm of one row.
    ///
    /// # Safety
    /// As [`rowwise::norm`], for row 0 of both.
    unsafe fn normalize(&self, walk: &Walk<'_>, norm: &HeadsNorm, x: Rows, out: Rows) {
        let HeadsNorm { norm, head_dim, .. } = *norm;
        let (gain, bias, eps) = match norm {
            Norm::Rms { gain, eps } => (gain, None, eps),
            Norm::Layer { gain, bias, eps } => (gain, Some(walk.weights.vector(bias)), eps),
        };
        let norm = rowwise::Norm { gain: walk.weights.vector(gain), bias, eps };
        let heads = (0..self.width / head_dim, head_dim);
        // SAFETY: the caller promises row 0 of both.
        unsafe { rowwise::norm(walk.kernels, 0..1, (x, out), heads, norm) }
    }

    /// `to = f(gate) · x` of a row; `activated` has room for a head of the gate.
    ///
    /// # Safety
    /// The row of the gate's buffer is readable where its heads are, `x` for a row, and `to` is writable for a row; `to`
    /// is `x` or overlaps no other.
    unsafe fn multiply(
        &self,
        walk: &Walk<'_>,
        gate: *const f32,
        (x, to): (*const f32, *mut f32),
        activated: *mut f32,
    ) {
        let (unary, n) = (&walk.kernels.unary, self.gate.width);
        self.gate.each(self.width, |column, at| {
            // SAFETY: the caller promises each head of all rows.
            unsafe {
                let (gate, x, to) = (gate.add(column), x.add(at), to.add(at));
                match self.function {
                    Activation::Silu => unary.swiglu.run(gate, x, to, n),
                    Activation::GeluTanh => unary.geglu.run(gate, x, to, n),
                    Activation::GeluErf => unary.geglu_erf.run(gate, x, to, n),
                    Activation::Relu | Activation::Sigmoid => {
                        activation(walk.kernels, self.function).run(gate, activated, n);
                        unary.mul.run(activated, x, to, n);
                    }
                }
            }
        });
    }
}

impl Step for Gate {
    fn facts(&self) -> Facts {
        Facts::by_row(Zone::Gate, self.rows, &[self.x.buf, self.gate.first.buf], self.out)
    }

    fn scratch(&self, _: &Scratch<'_>) -> Result<usize> {
        // A row of results that are quantised, and a head of the gate.
        let floats = self.width.checked_add(self.gate.width);
        floats.ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "a row of a gate" })
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let elements = (walk.count(self.rows) * self.width) as u64;
        let norm = if self.norm.is_some() { 4 } else { 0 };
        let (quantized, out) = if self.quantized { (3, 2) } else { (0, 4) };
        Work { flops: (5 + norm + quantized) * elements, bytes: (8 + out) * elements }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let view = |buf| walk.view(buf, at.worker);
        let (x, gate, out) = (view(self.x.buf), view(self.gate.first.buf), view(self.out));
        let scratch = walk.scratch(at.worker);
        let activated = scratch.wrapping_add(self.width);
        // SAFETY: `Step::scratch` has reserved a row.
        let own = unsafe { Rows::new(scratch.cast(), self.width * size_of::<f32>(), 1) };
        for r in at.share.clone() {
            let result = if self.quantized { own } else { out.skip(r) };
            let (gate, to) = (gate.row_f32(r).cast_const(), result.row_f32(0));
            let from = x.row_f32(r).wrapping_add(self.x.begin).cast_const();
            // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes an input. The
            // builder has checked that all columns lie within the rows; scratch memory is the worker's.
            unsafe {
                match &self.norm {
                    Some(norm) if norm.first => {
                        self.normalize(walk, norm, x.skip(r), result);
                        self.multiply(walk, gate, (to, to), activated);
                    }
                    Some(norm) => {
                        self.multiply(walk, gate, (from, to), activated);
                        self.normalize(walk, norm, result, result);
                    }
                    None => self.multiply(walk, gate, (from, to), activated),
                }
                if self.quantized {
                    walk.kernels.qmatmul.quantize_rows(to, self.width, 1, self.width, out.row(r));
                }
            }
        }
    }

    fn text(&self, names: &Names<'_>) -> String {
        let quantized = if self.quantized { ", quantised" } else { "" };
        let norm = |first: bool| {
            let norm = self.norm.filter(|norm| norm.first == first);
            norm.map(|norm| format!("heads of {}, {}", norm.head_dim, names.norm(&norm.norm)))
        };
        let before = norm(true).map_or(String::new(), |norm| format!("{norm}\n· "));
        let after = norm(false).map_or(String::new(), |norm| format!("\n{norm}"));
        format!("{before}{} of {}{after}{quantized}", self.function.name(), self.gate.text())
    }
}
