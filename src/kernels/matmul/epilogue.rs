//! How a product is finished while its outputs are still in a cache: bias, activation, gate, residual.
//! Each is the elementwise kernel's own function, so a fused product has the bits of the separate calls.

use crate::isa::{Isa, SimdBody};
use crate::kernels::rows::reduce::Same;
use crate::kernels::unary::functions::{GeluErf, GeluTanh, Relu, Silu};
use crate::kernels::vectors::{Function, Rows, RowsMut};

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
        let Finish { rows, columns, .. } = *self;
        // SAFETY: the block is there in each matrix that isn't null.
        let (y, gate, residual) = unsafe {
            (
                RowsMut::new(self.y, self.ldy, rows, columns),
                Rows::new(self.gate, self.ld_gate, rows, columns),
                Rows::new(self.residual, self.ld_residual, rows, columns),
            )
        };
        map_vectors(
            isa,
            y,
            (rows, columns),
            #[inline(always)]
            |row, column, n, x| {
                let x = if self.gate.is_null() {
                    f.call(isa, [x])
                } else {
                    isa.mul(f.call(isa, [gate.row(row).load(isa, column, n)]), x)
                };
                if self.residual.is_null() { x } else { isa.add(x, residual.row(row).load(isa, column, n)) }
            },
        );
    }
}

impl SimdBody for &Scale {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let factor = isa.splat(self.factor);
        // SAFETY: the block is writable.
        let y = unsafe { RowsMut::new(self.y, self.ldy, self.rows, self.columns) };
        map_vectors(
            isa,
            y,
            (self.rows, self.columns),
            #[inline(always)]
            |_, _, _, x| isa.mul(factor, x),
        );
    }
}

/// Replaces every vector of a block of `y` by `f` of its row, its column, its length and itself.
#[inline(always)]
fn map_vectors<I: Isa>(
    isa: I,
    y: RowsMut,
    (rows, columns): (usize, usize),
    mut f: impl FnMut(usize, usize, usize, I::F32) -> I::F32,
) {
    for row in 0..rows {
        for column in (0..columns).step_by(I::LANES) {
            let n = I::LANES.min(columns - column);
            let x = f(row, column, n, y.row(row).load(isa, column, n));
            y.row(row).store(isa, column, x, n);
        }
    }
}
