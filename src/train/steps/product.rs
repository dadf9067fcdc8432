//! Products with weights: forward, the gradient of their input, and the gradient of their matrix. All three are the
//! general product with operands in another order: X·Wᵀ, dY·W and dYᵀ·X.

use std::ops::Range;
use std::slice::from_raw_parts;

use super::{At, Step, bytes_of};
use crate::error::Result;
use crate::kernels::KernelSet;
use crate::kernels::matmul::{Epilogue, Gemm, Lines, Matrix, Right};
use crate::ops::region;
use crate::profile::Zone;
use crate::train::parameters::Weight;
use crate::train::plan::View;
use crate::train::walk::Walk;

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

/// Some of a view's rows, and the floats between them.
///
/// # Safety
/// Nobody writes them while the slice lives.
unsafe fn rows<'a>(walk: &Walk<'a>, view: View, rows: &Range<usize>) -> (&'a [f32], usize) {
    let stride = walk.stride(view);
    let len = if rows.is_empty() { 0 } else { (rows.len() - 1) * stride + view.width };
    // SAFETY: the buffer has these rows, which nobody writes, as promised.
    (unsafe { from_raw_parts(walk.row(view, rows.start), len) }, stride)
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
    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let rest = 0..self.sizes.rows.len();
        // SAFETY: the plan keeps the inputs unwritten during this step, and no step of a plan writes weights.
        let (x, w, bias, residual) = unsafe {
            let residual = self.residual.map(|view| rows(walk, view, &rest));
            (
                rows(walk, self.x, &self.sizes.rows),
                walk.weight(self.w),
                self.bias.map(|bias| walk.weight(bias)),
                residual.map(|(data, ld)| Lines { data, ld }),
            )
        };
        let gemm = self.sizes.forward(x, w, Epilogue { bias, residual, ..Epilogue::default() });
        let out = (walk.row(self.out, 0), walk.stride(self.out));
        // SAFETY: the slices have the sizes of the product; the plan gives `out` to this step alone.
        unsafe { walk.multiply(at, &gemm, out) }
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
    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        // SAFETY: the plan keeps `dy` unwritten during this step, and no step of a plan writes weights.
        let (dy, w) = unsafe { (rows(walk, self.dy, &(0..self.sizes.rows.len())), walk.weight(self.w)) };
        let gemm = self.sizes.input(dy, w, if self.add { 1.0 } else { 0.0 });
        let out = (walk.row(self.dx, self.sizes.rows.start), walk.stride(self.dx));
        // SAFETY: the slices have the sizes of the product; the plan gives these rows of `dx` to this step alone.
        unsafe { walk.multiply(at, &gemm, out) }
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
    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        // SAFETY: the plan keeps both inputs unwritten during this step.
        let (dy, x) = unsafe {
            (rows(walk, self.dy, &(0..self.sizes.rows.len())), rows(walk, self.x, &self.sizes.rows))
        };
        let gemm = self.sizes.matrix(dy, x);
        // SAFETY: the slices have the sizes of the product; a step has the gradients of its weights to itself.
        unsafe { walk.multiply(at, &gemm, (walk.gradient(self.w), self.sizes.k)) }
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
