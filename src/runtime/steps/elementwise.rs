//! Functions of elements that aren't fused with a product: sums, products, factors, caps, activations.

use super::{At, Facts, Step, Walk, Work};
use crate::kernels::KernelSet;
use crate::kernels::rows::SoftmaxArgs;
use crate::kernels::unary::Unary;
use crate::model::graph::{Activation, RowSet};
use crate::model::text::Names;
use crate::model::{Temperature, VectorId};
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// A function of each element, and in some cases of the element at the same place in another buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// a + b.
    Add(Buf),
    /// a · b.
    Mul(Buf),
    /// a · b, where an element of b is for a whole head of the given number of elements.
    MulHeads(Buf, usize),
    /// a plus the first row of a vector.
    AddRow(VectorId),
    /// a divided by the column's element of a vector.
    Divide(VectorId),
    /// a times a factor of the row's position.
    Temper(Temperature),
    /// a times a factor.
    Scale(f32),
    /// cap · tanh(a / cap).
    SoftCap(f32),
    /// At least the first number, and at most the second.
    Clamp(f32, f32),
    /// An activation.
    Activate(Activation),
    /// The softmax of the row.
    Softmax,
}

/// A function of each element of some rows.
pub struct Elementwise {
    /// The first input.
    pub a: Buf,
    /// The function.
    pub function: Function,
    /// Output rows; may be an input.
    pub out: Buf,
    /// Floats in a row.
    pub width: usize,
    /// Rows of inputs and output.
    pub rows: RowSet,
}

/// The kernel of an activation.
pub fn activation(kernels: &KernelSet, function: Activation) -> &Unary {
    match function {
        Activation::Silu => &kernels.unary.silu,
        Activation::GeluTanh => &kernels.unary.gelu_tanh,
        Activation::GeluErf => &kernels.unary.gelu_erf,
        Activation::Relu => &kernels.unary.relu,
        Activation::Sigmoid => &kernels.unary.sigmoid,
    }
}

impl Step for Elementwise {
    fn facts(&self) -> Facts {
        match self.function {
            Function::Add(b) => Facts::by_row(Zone::Add, self.rows, &[self.a, b], self.out),
            Function::Mul(b) | Function::MulHeads(b, _) => {
                Facts::by_row(Zone::Mul, self.rows, &[self.a, b], self.out)
            }
            _ => Facts::by_row(Zone::Elementwise, self.rows, &[self.a], self.out),
        }
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let elements = (walk.count(self.rows) * self.width) as u64;
        match self.function {
            Function::Add(_) | Function::Mul(_) => Work { flops: elements, bytes: 12 * elements },
            Function::Scale(_)
            | Function::Clamp(..)
            | Function::Temper(_)
            | Function::Divide(_)
            | Function::AddRow(_)
            | Function::MulHeads(..) => Work { flops: elements, bytes: 8 * elements },
            Function::SoftCap(_) | Function::Activate(_) | Function::Softmax => {
                Work { flops: 8 * elements, bytes: 8 * elements }
            }
        }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let view = |buf| walk.view(buf, at.worker);
        let (a, out, n) = (view(self.a), view(self.out), self.width);
        let unary = &walk.kernels.unary;
        for r in at.share.clone() {
            let (from, to) = (a.row_f32(r).cast_const(), out.row_f32(r));
            // SAFETY: the pass contract: row r of `out` is this worker's alone, and no other worker writes row r of an
            // input. All rows have `n` floats; an input is the output itself or a buffer that shares no bytes with it.
            unsafe {
                match self.function {
                    Function::Add(b) => unary.add.run(from, view(b).row_f32(r), to, n),
                    Function::Mul(b) => unary.mul.run(from, view(b).row_f32(r), to, n),
                    Function::MulHeads(b, head_dim) => {
                        let gate = view(b).row_f32(r);
                        for head in 0..n / head_dim {
                            let at = head * head_dim;
                            unary.scale.run(from.add(at), *gate.add(head), to.add(at), head_dim);
                        }
                    }
                    Function::AddRow(row) => {
                        unary.add.run(from, walk.weights.vector(row).as_ptr(), to, n);
                    }
                    Function::Divide(by) => {
                        for (i, by) in walk.weights.vector(by).iter().enumerate() {
                            *to.add(i) = *from.add(i) / by;
                        }
                    }
                    Function::Temper(temperature) => {
                        let factor = temperature.at(walk.batch.positions[r] as usize);
                        unary.scale.run(from, factor, to, n);
                    }
                    Function::Scale(factor) => unary.scale.run(from, factor, to, n),
                    Function::Activate(function) => activation(walk.kernels, function).run(from, to, n),
                    Function::Clamp(least, most) => {
                        // `max` and `min` would turn NaN into a number; a clamped NaN stays one.
                        for i in 0..n {
                            *to.add(i) = (*from.add(i)).clamp(least, most);
                        }
                    }
                    Function::Softmax => {
                        let args = SoftmaxArgs {
                            src: from,
                            src_stride: n,
                            dst: to,
                            dst_stride: n,
                            rows: 1,
                            cols: n,
                            scale: 1.0,
                            causal: None,
                            mask: std::ptr::null(),
                            mask_stride: 0,
                        };
                        walk.kernels.rows.softmax.run(&args);
                    }
                    Function::SoftCap(cap) => {
                        unary.scale.run(from, 1.0 / cap, to, n);
                        unary.tanh.run(to, to, n);
                        unary.scale.run(to, cap, to, n);
                    }
                }
            }
        }
    }

    fn text(&self, names: &Names<'_>) -> String {
        match self.function {
            Function::AddRow(row) => format!("add {}", names.vector(row)),
            Function::Divide(by) => format!("divide by {}", names.vector(by)),
            Function::Add(_) | Function::Mul(_) => format!("rows of {}", self.width),
            Function::MulHeads(_, head_dim) => format!("heads of {head_dim}"),
            Function::Temper(Temperature { scale, positions, .. }) => {
                format!("temper by {scale}, steps of {positions}")
            }
            Function::Scale(factor) => format!("scale by {factor}"),
            Function::SoftCap(cap) => format!("soft-cap at {cap}"),
            Function::Clamp(least, most) => format!("clamp {least} to {most}"),
            Function::Activate(function) => function.name().to_owned(),
            Function::Softmax => format!("softmax of {}", self.width),
        }
    }
}
