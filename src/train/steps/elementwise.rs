//! Steps on single elements, forward and backward: activations, gates, sums, factors.

use super::{At, Step, bytes_of};
use crate::kernels::unary::{Binary, GatedArgs, GatedBackward, Unary};
use crate::model::graph::Activation;
use crate::profile::Zone;
use crate::train::plan::View;
use crate::train::walk::Walk;

/// `out = f(x)`.
pub struct Activate {
    pub function: Activation,
    pub x: View,
    pub out: View,
}

impl Step for Activate {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let kernel = forward(walk, self.function);
        for row in at.share.clone() {
            // SAFETY: both views have the row's columns, which are this worker's.
            unsafe { kernel.run(walk.row(self.x, row), walk.row(self.out, row), self.x.width) }
        }
    }

    fn zone(&self) -> Zone {
        zone(self.function)
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[2 * self.out.width])
    }
}

/// In place: `dy = dy · f'(x)`.
pub struct ActivateBack {
    pub function: Activation,
    pub x: View,
    pub dy: View,
}

impl Step for ActivateBack {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let kernel = backward(walk, self.function);
        for row in at.share.clone() {
            binary(at, kernel, [self.x, self.dy, self.dy], row);
        }
    }

    fn zone(&self) -> Zone {
        Zone::ElementwiseGradient
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[3 * self.dy.width])
    }
}

/// One of this worker's rows of the last view = a function of those of the others, of which it may be one.
fn binary(at: &At<'_>, kernel: &Binary, [a, b, out]: [View; 3], row: usize) {
    let walk = at.walk();
    // SAFETY: all views have the row's columns, which are this worker's; `out` is an operand or apart.
    unsafe { kernel.run(walk.row(a, row), walk.row(b, row), walk.row(out, row), out.width) }
}

fn zone(function: Activation) -> Zone {
    match function {
        Activation::Silu => Zone::Silu,
        Activation::GeluTanh | Activation::GeluErf => Zone::Gelu,
        Activation::Relu | Activation::Sigmoid => Zone::Elementwise,
    }
}

fn forward<'a>(walk: &Walk<'a>, function: Activation) -> &'a Unary {
    let unary = &walk.kernels.unary;
    match function {
        Activation::Silu => &unary.silu,
        Activation::GeluTanh => &unary.gelu_tanh,
        Activation::GeluErf => &unary.gelu_erf,
        Activation::Relu => &unary.relu,
        Activation::Sigmoid => &unary.sigmoid,
    }
}

fn backward<'a>(walk: &Walk<'a>, function: Activation) -> &'a Binary {
    let unary = &walk.kernels.unary;
    match function {
        Activation::Silu => &unary.silu_backward,
        Activation::GeluTanh => &unary.gelu_tanh_backward,
        Activation::GeluErf => &unary.gelu_erf_backward,
        Activation::Relu => &unary.relu_backward,
        Activation::Sigmoid => &unary.sigmoid_backward,
    }
}

/// Functions of gates that have a kernel for `f(gate) · up`.
#[derive(Clone, Copy)]
pub enum GateFunction {
    Silu,
    GeluTanh,
    GeluErf,
}

impl GateFunction {
    fn zone(self) -> Zone {
        match self {
            GateFunction::Silu => Zone::SwiGlu,
            GateFunction::GeluTanh | GateFunction::GeluErf => Zone::Gelu,
        }
    }

    /// The function of a gate; `None` without a kernel.
    pub fn of(function: Activation) -> Option<GateFunction> {
        match function {
            Activation::Silu => Some(GateFunction::Silu),
            Activation::GeluTanh => Some(GateFunction::GeluTanh),
            Activation::GeluErf => Some(GateFunction::GeluErf),
            _ => None,
        }
    }

    fn kernels<'a>(self, walk: &Walk<'a>) -> (&'a Binary, &'a GatedBackward) {
        let unary = &walk.kernels.unary;
        match self {
            GateFunction::Silu => (&unary.swiglu, &unary.swiglu_backward),
            GateFunction::GeluTanh => (&unary.geglu, &unary.geglu_backward),
            GateFunction::GeluErf => (&unary.geglu_erf, &unary.geglu_erf_backward),
        }
    }
}

/// `out = f(gate) · up`.
pub struct Gated {
    pub function: GateFunction,
    pub gate: View,
    pub up: View,
    pub out: View,
}

impl Step for Gated {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let (kernel, _) = self.function.kernels(walk);
        for row in at.share.clone() {
            binary(at, kernel, [self.gate, self.up, self.out], row);
        }
    }

    fn zone(&self) -> Zone {
        self.function.zone()
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[3 * self.out.width])
    }
}

/// `dgate = dy · up · f'(gate)` and `dup = dy · f(gate)`.
pub struct GatedBack {
    pub function: GateFunction,
    pub gate: View,
    pub up: View,
    pub dy: View,
    pub dgate: View,
    pub dup: View,
}

impl Step for GatedBack {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let (_, kernel) = self.function.kernels(walk);
        for row in at.share.clone() {
            let args = GatedArgs {
                gate: walk.row(self.gate, row),
                up: walk.row(self.up, row),
                dy: walk.row(self.dy, row),
                dgate: walk.row(self.dgate, row),
                dup: walk.row(self.dup, row),
                n: self.dy.width,
            };
            // SAFETY: all views have the row's columns, which are this worker's; the outputs overlap nothing.
            unsafe { kernel.run(&args) }
        }
    }

    fn zone(&self) -> Zone {
        Zone::ElementwiseGradient
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[5 * self.dy.width])
    }
}

/// A function of two elements.
#[derive(Clone, Copy)]
pub enum Pair {
    /// Their sum.
    Sum,
    /// Their product.
    Product,
}

/// `out` = sums or products of elements; `out` may be one of the operands.
pub struct Combine {
    pub pair: Pair,
    pub a: View,
    pub b: View,
    pub out: View,
}

impl Step for Combine {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let kernel = match self.pair {
            Pair::Sum => &walk.kernels.unary.add,
            Pair::Product => &walk.kernels.unary.mul,
        };
        for row in at.share.clone() {
            binary(at, kernel, [self.a, self.b, self.out], row);
        }
    }

    fn zone(&self) -> Zone {
        match self.pair {
            Pair::Sum => Zone::Add,
            Pair::Product => Zone::Mul,
        }
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[3 * self.out.width])
    }
}

/// `out = factor · x`; `out` may be `x`. Factor 1 copies.
pub struct Scale {
    pub factor: f32,
    pub x: View,
    pub out: View,
}

impl Step for Scale {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        for row in at.share.clone() {
            let (x, out) = (walk.row(self.x, row), walk.row(self.out, row));
            // SAFETY: both views have the row's columns, which are this worker's.
            unsafe { walk.kernels.unary.scale.run(x, self.factor, out, self.out.width) }
        }
    }

    fn zone(&self) -> Zone {
        Zone::Elementwise
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[2 * self.out.width])
    }
}

/// Zeros in all columns.
pub struct Zero {
    pub out: View,
}

impl Step for Zero {
    fn run(&self, at: &mut At<'_>) {
        for row in at.share.clone() {
            at.own(self.out, row).fill(0.0);
        }
    }

    fn zone(&self) -> Zone {
        Zone::Elementwise
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[self.out.width])
    }
}
