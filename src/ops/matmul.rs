//! The general product on slices and a team: C = f(α·op(A)·op(B) + β·C + bias), for a plain B and a packed one of any
//! type, once or for a batch. A product has one result to the bit, whatever the team.

use crate::error::{Error, Result};
use crate::kernels::KernelSet;
use crate::kernels::matmul::{self, Activation, Epilogue, Gemm, Lines, Matrix, Right};
use crate::ops::converted::Converted;
use crate::ops::gemm::Workspace;
use crate::ops::matrix::PackedMatrix;
use crate::threads::Team;

#[cfg(test)]
#[path = "matmul_tests.rs"]
mod tests;

/// The right-hand side B of a product: K × N.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Operand<'a> {
    /// f32 elements as they lie in memory.
    Plain {
        /// The kernel that multiplies them.
        kernel: &'static matmul::Kernel,
        /// Rows of B.
        k: usize,
        /// Columns of B.
        n: usize,
        /// The elements.
        matrix: Matrix<'a>,
    },
    /// Packed ahead.
    Packed(&'a PackedMatrix),
}

impl<'a> Operand<'a> {
    /// A plain matrix of `k` × `n`, for the f32 kernel of a set.
    pub fn plain(kernels: &KernelSet, k: usize, n: usize, matrix: Matrix<'a>) -> Self {
        Operand::Plain { kernel: kernels.matmul.f32, k, n, matrix }
    }

    /// Rows of B.
    pub fn k(&self) -> usize {
        match self {
            Operand::Plain { k, .. } => *k,
            Operand::Packed(matrix) => matrix.k(),
        }
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        match self {
            Operand::Plain { n, .. } => *n,
            Operand::Packed(matrix) => matrix.n(),
        }
    }
}

impl<'a> From<&'a PackedMatrix> for Operand<'a> {
    fn from(matrix: &'a PackedMatrix) -> Self {
        Operand::Packed(matrix)
    }
}

/// A product to compute: `Matmul::new(m, a, b)`, then the settings that differ from the defaults, then [`Matmul::run`].
///
/// Sums start from β·C + bias and add products for k ascending. With a quantised B, rows of A are quantised first (see
/// [`crate::kernels::qmatmul`]), and with a B of bfloat16 arithmetic they are rounded
/// ([`crate::kernels::bmatmul`]); α multiplies A before that. Activation, gate and residual are the same for all types.
///
/// ```
/// use smallmind::kernels::KernelSet;
/// use smallmind::kernels::matmul::Matrix;
/// use smallmind::ops::{Matmul, Operand, Workspace};
///
/// let kernels = KernelSet::default_set()?;
/// let (a, b) = ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 1.0]);
/// let matrix = |data| Matrix { data, ld: 2, transposed: false };
/// let mut c = [0.0; 4];
/// let product = Matmul::new(2, matrix(&a), Operand::plain(kernels, 2, 2, matrix(&b)));
/// product.alpha(2.0).run(&mut c, 2, None, &mut Workspace::default())?;
/// assert_eq!(c, [2.0, 4.0, 6.0, 8.0]);
/// # Ok::<(), smallmind::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[must_use]
pub struct Matmul<'a> {
    /// Rows of A and C.
    pub m: usize,
    /// A: `m` × K.
    pub a: Matrix<'a>,
    /// B: K × N.
    pub b: Operand<'a>,
    /// α; 1 by default. Another α multiplies A first, which rounds it.
    pub alpha: f32,
    /// β; 0 by default. C is not read then.
    pub beta: f32,
    /// Bias, activation, gate and residual; none by default. Batches share them.
    pub epilogue: Epilogue<'a>,
}

/// Where the matrices of a batch of products stand: as many of each, at fixed distances in floats.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Products.
    pub count: usize,
    /// From one A to the next; 0 for one A in all.
    pub stride_a: usize,
    /// From one plain B to the next; 0 for one B in all. A packed B is the same in all.
    pub stride_b: usize,
    /// From one C to the next: at least one C.
    pub stride_c: usize,
}

/// The matrices of one product of a batch.
pub(crate) struct Place<'a> {
    /// A's elements.
    pub a: &'a [f32],
    /// A plain B's elements; empty where B is packed.
    pub b: &'a [f32],
    /// C's first element.
    pub c: *mut f32,
}

impl<'a> Matmul<'a> {
    /// A · B of `m` rows.
    pub fn new(m: usize, a: Matrix<'a>, b: impl Into<Operand<'a>>) -> Self {
        Self { m, a, b: b.into(), alpha: 1.0, beta: 0.0, epilogue: Epilogue::default() }
    }

    /// Multiplies the product by `alpha`.
    pub fn alpha(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    /// Adds `beta` times C.
    pub fn beta(self, beta: f32) -> Self {
        Self { beta, ..self }
    }

    /// Adds N floats to each row, first of all.
    pub fn bias(mut self, bias: &'a [f32]) -> Self {
        self.epilogue.bias = Some(bias);
        self
    }

    /// Applies a function to each output, or to the gate if there is one.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.epilogue.activation = activation;
        self
    }

    /// Multiplies the outputs by the activation of an `m` × N gate.
    pub fn gate(mut self, gate: Lines<'a>) -> Self {
        self.epilogue.gate = Some(gate);
        self
    }

    /// Adds an `m` × N matrix last.
    pub fn residual(mut self, residual: Lines<'a>) -> Self {
        self.epilogue.residual = Some(residual);
        self
    }

    /// Computes C, `m` × N with `ldc` floats between rows, on the team's threads or else the caller's. Allocates
    /// nothing where an earlier product needed as much of the workspace.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where a matrix doesn't lie inside its slice, the bias is not N floats, or the kernel
    /// is not one for this CPU: nothing is written then. [`Error::OutOfMemory`]; the errors of [`Team::run`].
    pub fn run(
        &self,
        c: &mut [f32],
        ldc: usize,
        team: Option<&Team>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let batch = Batch { count: 1, stride_a: 0, stride_b: 0, stride_c: 0 };
        self.run_batch(&batch, c, ldc, team, workspace)
    }

    /// Computes a batch of products of one shape: `a`, a plain `b` and `c` are the slices of all. An A or B that
    /// `m`, K and N give is the same size in each; bias, gate and residual are the same in all.
    ///
    /// # Errors
    /// As [`Matmul::run`]; also where a stride is shorter than one C, or the last matrix lies outside its slice.
    pub fn run_batch(
        &self,
        batch: &Batch,
        c: &mut [f32],
        ldc: usize,
        team: Option<&Team>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let Batch { count, stride_a, stride_b, stride_c } = *batch;
        let (n, k) = (self.b.n(), self.b.k());
        if count == 0 || self.m == 0 || n == 0 {
            return Ok(());
        }
        let b = match self.b {
            Operand::Plain { matrix, .. } => matrix,
            Operand::Packed(_) => Matrix { data: &[], ld: 0, transposed: false },
        };
        let size_c = matmul::extent("C", self.m, n, ldc)?;
        let size_a = self.a.extent("A", self.m, k)?;
        let size_b = if matches!(self.b, Operand::Packed(_)) { 0 } else { b.extent("B", k, n)? };
        if count > 1 && stride_c < size_c {
            return Err(Error::invalid(format!(
                "C: {stride_c} floats from one to the next hold no C of {size_c}"
            )));
        }
        let sides = [
            ("A", self.a.data.len(), size_a, stride_a),
            ("B", b.data.len(), size_b, stride_b),
            ("C", c.len(), size_c, stride_c),
        ];
        for (name, len, size, stride) in sides {
            let end =
                (count - 1).checked_mul(if size == 0 { 0 } else { stride }).and_then(|x| x.checked_add(size));
            if end.is_none_or(|end| end > len) {
                return Err(Error::invalid(format!("{name}: {count} of {size} floats do not fit {len}")));
            }
        }
        let first_c = Start(c.as_mut_ptr());
        let place = |i: usize| {
            let part = |data: &'a [f32], size: usize, stride: usize| {
                if size == 0 { &[][..] } else { &data[i * stride..][..size] }
            };
            let (a, b) = (part(self.a.data, size_a, stride_a), part(b.data, size_b, stride_b));
            Place { a, b, c: first_c.at(i * stride_c) }
        };
        // SAFETY: each C lies inside the slice, behind the one before, and the slice is borrowed mutably.
        unsafe { self.run_each(count, place, ldc, team, workspace) }
    }

    /// Computes `count` products of one shape; `place` says where the matrices of each stand.
    ///
    /// # Errors
    /// As [`Matmul::run`].
    ///
    /// # Safety
    /// Each C is writable, m × N with `ldc` floats between rows, and overlaps no other matrix of the batch.
    pub(crate) unsafe fn run_each<'p>(
        &self,
        count: usize,
        place: impl Fn(usize) -> Place<'p> + Sync,
        ldc: usize,
        team: Option<&Team>,
        workspace: &mut Workspace,
    ) -> Result<()>
    where
        'a: 'p,
    {
        if count == 0 || self.m == 0 || self.b.n() == 0 {
            return Ok(());
        }
        let first = place(0);
        let (kernel, right) = match self.b {
            Operand::Plain { kernel, matrix, .. } => {
                (kernel, Right::Plain(Matrix { data: first.b, ..matrix }))
            }
            Operand::Packed(matrix) => match matrix.float_kernel() {
                Some(kernel) => (kernel, Right::Packed(matrix.panels())),
                None => {
                    let product = Converted::new(self, matrix)?;
                    // SAFETY: the matrices are as this function demands.
                    return unsafe { product.run(count, place, ldc, team, workspace) };
                }
            },
        };
        let template = Gemm {
            m: self.m,
            n: self.b.n(),
            k: self.b.k(),
            alpha: self.alpha,
            a: Matrix { data: first.a, ..self.a },
            b: right,
            beta: self.beta,
            epilogue: self.epilogue,
        };
        template.check(kernel)?;
        let product = |i: usize| {
            let Place { a, b, c } = place(i);
            let right = match template.b {
                Right::Plain(matrix) => Right::Plain(Matrix { data: b, ..matrix }),
                packed => packed,
            };
            (Gemm { a: Matrix { data: a, ..template.a }, b: right, ..template }, c)
        };
        // SAFETY: all products have the shape of the first, which was checked, and where their matrices stand is as
        // this function demands.
        unsafe { workspace.multiply_each(team, kernel, count, product, ldc) }
    }
}

/// The address of the first C, which workers share.
struct Start(*mut f32);

// SAFETY: an address; each product writes a part of its own from there.
unsafe impl Sync for Start {}

impl Start {
    fn at(&self, floats: usize) -> *mut f32 {
        self.0.wrapping_add(floats)
    }
}
