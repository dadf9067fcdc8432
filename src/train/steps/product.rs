//! Products with weights: forward, the gradient of their input, and the gradient of their matrix. All three are the
//! general product with operands in another order: X·Wᵀ, dY·W and dYᵀ·X.

use std::ops::Range;

use super::{At, Step, bytes_of};
use crate::error::Result;
use crate::kernels::KernelSet;
use crate::kernels::matmul::{Epilogue, Gemm, Lines, Matrix, Right};
use crate::ops::region;
use crate::profile::Zone;
use crate::train::parameters::Weight;
use crate::train::plan::View;

/// The sizes of a product with a matrix of `n` rows of `k`, for some rows of the batch.
#[derive(Clone)]
pub struct Sizes {
    pub rows: Range<usize>,
    pub n: usize,
    pub k: usize,
    /// Factor on the product.
    pub scale: f32,
}

impl Sizes {
    fn flops(&self) -> u64 {
        [self.rows.len(), self.n, self.k].into_iter().fold(2, |flops, x| flops.saturating_mul(x as u64))
    }

    /// Bytes of both operands and the result: rows of `n` and of `k`, and the matrix, in any order.
    fn bytes(&self) -> u64 {
        bytes_of(self.rows.len(), &[self.n, self.k]).saturating_add(bytes_of(self.n, &[self.k]))
    }

    /// X · Wᵀ.
    fn forward<'a>(&self, (x, ldx): (&'a [f32], usize), w: &'a [f32], epilogue: Epilogue<'a>) -> Gemm<'a> {
        Gemm {
            m: self.rows.len(),
            n: self.n,
            k: self.k,
            alpha: self.scale,
            a: Matrix { data: x, ld: ldx, transposed: false },
            b: Right::Plain(Matrix { data: w, ld: self.k, transposed: true }),
            beta: 0.0,
            epilogue,
        }
    }

    /// dY · W, added to what is there with `beta` 1.
    fn input<'a>(&self, (dy, ldy): (&'a [f32], usize), w: &'a [f32], beta: f32) -> Gemm<'a> {
        Gemm {
            m: self.rows.len(),
            n: self.k,
            k: self.n,
            alpha: self.scale,
            a: Matrix { data: dy, ld: ldy, transposed: false },
            b: Right::Plain(Matrix { data: w, ld: self.k, transposed: false }),
            beta,
            epilogue: Epilogue::default(),
        }
    }

    /// dYᵀ · X, added to what is there.
    fn matrix<'a>(&self, (dy, ldy): (&'a [f32], usize), (x, ldx): (&'a [f32], usize)) -> Gemm<'a> {
        Gemm {
            m: self.n,
            n: self.k,
            k: self.rows.len(),
            alpha: self.scale,
            a: Matrix { data: dy, ld: ldy, transposed: true },
            b: Right::Plain(Matrix { data: x, ld: ldx, transposed: false }),
            beta: 1.0,
            epilogue: Epilogue::default(),
        }
    }
}

/// `out = scale · x · wᵀ + bias + residual`. Rows of `out` and `residual` are counted from the first of the product.
pub struct Product {
    pub zone: Zone,
    pub sizes: Sizes,
    pub x: View,
    pub w: Weight,
    pub bias: Option<Weight>,
    pub residual: Option<View>,
    pub out: View,
}

impl Step for Product {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let rest = 0..self.sizes.rows.len();
        let residual = self.residual.map(|view| at.rows(view, &rest)).map(|(data, ld)| Lines { data, ld });
        let (x, w) = (at.rows(self.x, &self.sizes.rows), at.weight(self.w));
        let bias = self.bias.map(|bias| at.weight(bias));
        let gemm = self.sizes.forward(x, w, Epilogue { bias, residual, ..Epilogue::default() });
        at.multiply(&gemm, (walk.row(self.out, 0), walk.stride(self.out)));
    }

    fn scratch(&self, kernels: &KernelSet, workers: usize) -> Result<usize> {
        let gemm = self.sizes.forward((&[], 0), &[], Epilogue::default());
        Ok(region::scratch_len(kernels.matmul.f32, &gemm, workers))
    }

    fn is_dynamic(&self) -> bool {
        true
    }

    fn flops(&self) -> u64 {
        self.sizes.flops()
    }

    fn zone(&self) -> Zone {
        self.zone
    }

    fn bytes(&self, _: usize) -> u64 {
        self.sizes.bytes()
    }
}

/// The gradient of a product's input: `dx = scale · dy · w`, or `dx += …`. Rows of `dy` are counted from the first of the
/// product.
pub struct InputGradient {
    pub sizes: Sizes,
    pub dy: View,
    pub w: Weight,
    pub dx: View,
    pub add: bool,
}

impl Step for InputGradient {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let (dy, w) = (at.rows(self.dy, &(0..self.sizes.rows.len())), at.weight(self.w));
        let gemm = self.sizes.input(dy, w, if self.add { 1.0 } else { 0.0 });
        at.multiply(&gemm, (walk.row(self.dx, self.sizes.rows.start), walk.stride(self.dx)));
    }

    fn scratch(&self, kernels: &KernelSet, workers: usize) -> Result<usize> {
        let gemm = self.sizes.input((&[], 0), &[], 0.0);
        Ok(region::scratch_len(kernels.matmul.f32, &gemm, workers))
    }

    fn is_dynamic(&self) -> bool {
        true
    }

    fn flops(&self) -> u64 {
        self.sizes.flops()
    }

    fn zone(&self) -> Zone {
        Zone::LinearInputGradient
    }

    fn bytes(&self, _: usize) -> u64 {
        self.sizes.bytes()
    }
}

/// The gradient of a product's matrix: `dw += scale · dyᵀ · x`. Rows of `dy` are counted from the first of the product.
pub struct MatrixGradient {
    pub sizes: Sizes,
    pub dy: View,
    pub x: View,
    pub w: Weight,
}

impl Step for MatrixGradient {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let dy = at.rows(self.dy, &(0..self.sizes.rows.len()));
        let gemm = self.sizes.matrix(dy, at.rows(self.x, &self.sizes.rows));
        at.multiply(&gemm, (walk.gradient(self.w), self.sizes.k));
    }

    fn scratch(&self, kernels: &KernelSet, workers: usize) -> Result<usize> {
        let gemm = self.sizes.matrix((&[], 0), (&[], 0));
        Ok(region::scratch_len(kernels.matmul.f32, &gemm, workers))
    }

    fn is_dynamic(&self) -> bool {
        true
    }

    fn flops(&self) -> u64 {
        self.sizes.flops()
    }

    fn zone(&self) -> Zone {
        Zone::LinearWeightGradient
    }

    fn bytes(&self, _: usize) -> u64 {
        self.sizes.bytes()
    }
}
