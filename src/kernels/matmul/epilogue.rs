//! How a product is finished while its outputs are still in a cache: bias, activation, gate, residual.
//! Each is the elementwise kernel's own function, so a fused product has the bits of the separate calls.

use crate::isa::{Isa, SimdBody};
use crate::kernels::rows::reduce::Same;
use crate::kernels::unary::functions::{GeluErf, GeluTanh, Relu, Silu};
use crate::kernels::vectors::{Function, Row, RowMut};

/// A function of each output; see the elementwise kernels for its error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// x
    #[default]
    None,
    /// GELU by erf.
    GeluErf,
    /// GELU by tanh.
    GeluTanh,
    /// x · σ(x)
    Silu,
    /// max(x, 0); NaN stays.
    Relu,
}

/// A row-major m × n matrix that meets the outputs element by element.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Floats from one line to the next, at least n.
    pub ld: usize,
}

/// `y = f(x + bias) + residual`, or `y = (x + bias) · f(gate) + residual`, of a product's outputs x.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// n floats added to each row, first of all.
    pub bias: Option<&'a [f32]>,
    /// f.
    pub activation: Activation,
    /// The argument of f instead of the outputs, which are then multiplied by f(gate): the other half of a gated MLP.
    pub gate: Option<Lines<'a>>,
    /// Added last.
    pub residual: Option<Lines<'a>>,
}

impl Epilogue<'_> {
    /// Whether nothing is left to do once the bias is in.
    pub(super) fn is_empty(&self) -> bool {
        self.activation == Activation::None && self.gate.is_none() && self.residual.is_none()
    }
}

/// A block of outputs to finish. Pointers stand at its first element; a null gate or residual is absent. The block lies
/// inside the matrices, of which none overlaps Y.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    pub activation: Activation,
    pub gate: *const f32,
    pub ld_gate: usize,
    pub residual: *const f32,
    pub ld_residual: usize,
    pub y: *mut f32,
    pub ldy: usize,
    pub rows: usize,
    pub columns: usize,
}

/// A block of C to scale before it is added to; it is writable.
pub(super) struct Scale {
    pub factor: f32,
    pub y: *mut f32,
    pub ldy: usize,
    pub rows: usize,
    pub columns: usize,
}

impl SimdBody for &Finish {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // One loop for each function: inside it there is no choice left.
        match self.activation {
            Activation::None => self.each(isa, Same),
            Activation::GeluErf => self.each(isa, GeluErf),
            Activation::GeluTanh => self.each(isa, GeluTanh),
            Activation::Silu => self.each(isa, Silu),
            Activation::Relu => self.each(isa, Relu),
        }
    }
}

impl Finish {
    #[inline(always)]
    fn each<I: Isa>(&self, isa: I, f: impl Function<1>) {
        for_vectors::<I>(
            self.rows,
            self.columns,
            #[inline(always)]
            |row, column, n| {
                // SAFETY: the block, and so n floats of each matrix, is there.
                unsafe {
                    let y = RowMut::new(self.y.add(row * self.ldy + column), n);
                    let mut x = y.load(isa, 0, n);
                    if self.gate.is_null() {
                        x = f.call(isa, [x]);
                    } else {
                        let gate = Row::new(self.gate.add(row * self.ld_gate + column), n);
                        x = isa.mul(f.call(isa, [gate.load(isa, 0, n)]), x);
                    }
                    if !self.residual.is_null() {
                        let residual = Row::new(self.residual.add(row * self.ld_residual + column), n);
                        x = isa.add(x, residual.load(isa, 0, n));
                    }
                    y.store(isa, 0, x, n);
                }
            },
        );
    }
}

impl SimdBody for &Scale {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let factor = isa.splat(self.factor);
        for_vectors::<I>(
            self.rows,
            self.columns,
            #[inline(always)]
            |row, column, n| {
                // SAFETY: the block is writable, and so are n floats of it.
                unsafe {
                    let y = RowMut::new(self.y.add(row * self.ldy + column), n);
                    y.store(isa, 0, isa.mul(factor, y.load(isa, 0, n)), n);
                }
            },
        );
    }
}

/// Row, column and length of every vector of a block.
#[inline(always)]
fn for_vectors<I: Isa>(rows: usize, columns: usize, mut body: impl FnMut(usize, usize, usize)) {
    for row in 0..rows {
        for column in (0..columns).step_by(I::LANES) {
            body(row, column, I::LANES.min(columns - column));
        }
    }
}
