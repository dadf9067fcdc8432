//! Matrix products
//! ---------------
//! C = f(alpha op(A) op(B) + beta C + bias): op(A) is m by k, op(B) is k by n, C is m by n, and op takes a matrix
//! or its transpose. Sums run over k in order, from beta C + bias, whatever the threads: a product has one result
//! to the bit. With beta = 0, C is not read; with k = 0, nothing is added.

use std::mem::size_of;
use std::ptr;

use super::boundary;
use super::buffers;
use super::handle::borrow;
use super::matrices::{Extent, bytes, floats};
use super::packed::sm_matrix;
use super::params::{self, Params, Versioned, boolean, fields};
use super::status::{Failure, sm_status};
use super::team::{self, sm_team};
use crate::kernels::KernelSet;
use crate::kernels::matmul::{Activation, Lines, Matrix};
use crate::ops::matmul::Place;
use crate::ops::{Matmul, Operand, PackedMatrix, Workspace};
use crate::profile::{self, Zone};

/// No activation.
pub const SM_ACTIVATION_NONE: i32 = 0;
/// GELU as it is defined: x * (1 + erf(x / sqrt(2))) / 2.
pub const SM_ACTIVATION_GELU_ERF: i32 = 1;
/// GELU in its customary approximation by tanh.
pub const SM_ACTIVATION_GELU_TANH: i32 = 2;
/// x / (1 + exp(-x)).
pub const SM_ACTIVATION_SILU: i32 = 3;
/// max(x, 0); NaN stays.
pub const SM_ACTIVATION_RELU: i32 = 4;

/// A product, or `batch` products of one shape. Fill it with `sm_matmul_params_init`, then set `m`, `n`, `k` and
/// all that differs from the defaults. Leading dimensions and strides are in floats; a leading dimension of 0 means no gaps.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_matmul_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Rows of op(A) and C.
    pub m: usize,
    /// Columns of op(B) and C.
    pub n: usize,
    /// Columns of op(A), rows of op(B).
    pub k: usize,
    /// 1 where A is stored as k rows of m.
    pub a_transposed: i32,
    /// 1 where B is stored as n rows of k, as layers keep their weights.
    pub b_transposed: i32,
    /// From one stored row of A to the next.
    pub lda: usize,
    /// From one stored row of B to the next.
    pub ldb: usize,
    /// From one row of C to the next.
    pub ldc: usize,
    /// Factor of the product; 1 by default. Another factor multiplies A first, which rounds A.
    pub alpha: f32,
    /// Factor of C's old elements; 0 by default.
    pub beta: f32,
    /// Products; 1 by default.
    pub batch: usize,
    /// From one product's A to the next's; 0 for the same A in all.
    pub stride_a: usize,
    /// From one product's B to the next's; 0 for the same B in all.
    pub stride_b: usize,
    /// From one product's C to the next's; 0 means that they stand one behind the other.
    pub stride_c: usize,
    /// `n` floats added to each row, or NULL.
    pub bias: *const f32,
    /// m by n floats, or NULL: the result is (AB + bias) * f(gate), f being the activation.
    pub gate: *const f32,
    /// From one row of the gate to the next.
    pub ld_gate: usize,
    /// m by n floats that are added last, or NULL.
    pub residual: *const f32,
    /// From one row of the residual to the next.
    pub ld_residual: usize,
    /// f, one of `SM_ACTIVATION_*`.
    pub activation: i32,
    /// Always 0.
    pub reserved: i32,
    /// Threads and working memory, or NULL for the calling thread.
    pub team: *mut sm_team,
}

// SAFETY: repr(C); integers, floats and raw pointers.
unsafe impl Versioned for sm_matmul_params {
    const NAME: &'static str = "sm_matmul_params";

    fields!(
        struct_size,
        m,
        n,
        k,
        a_transposed,
        b_transposed,
        lda,
        ldb,
        ldc,
        alpha,
        beta,
        batch,
        stride_a,
        stride_b,
        stride_c,
        bias,
        gate,
        ld_gate,
        residual,
        ld_residual,
        activation,
        reserved,
        team
    );
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_matmul_params {
    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            m: 0,
            n: 0,
            k: 0,
            a_transposed: 0,
            b_transposed: 0,
            lda: 0,
            ldb: 0,
            ldc: 0,
            alpha: 1.0,
            beta: 0.0,
            batch: 1,
            stride_a: 0,
            stride_b: 0,
            stride_c: 0,
            bias: ptr::null(),
            gate: ptr::null(),
            ld_gate: 0,
            residual: ptr::null(),
            ld_residual: 0,
            activation: SM_ACTIVATION_NONE,
            reserved: 0,
            team: ptr::null_mut(),
        }
    }

    fn reserved(&self) -> i32 {
        self.reserved
    }
}

/// Fills in the defaults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matmul_params_init(
    params: *mut sm_matmul_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Computes C. C must not overlap any other matrix, nor one product's C another's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matmul(
    params: *const sm_matmul_params,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let params = params::read(params)?;
        let call = Call::new(&params, b, None)?;
        call.strided(a, c)
    })
}

/// Computes C for B packed ahead, of any type: `n`, `k` and `b_transposed` of `params` are the matrix's own (`n` and `k` may be
/// 0, else they must agree), and `ldb` and `stride_b` are not looked at.
///
/// With a quantised matrix, or one for products in bfloat16, each row of A is rounded first, after it was multiplied by
/// `alpha`; bias, activation, gate and residual are applied as with floats. That takes working memory for the rounded
/// rows of A, 512 at a time for each thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matmul_packed(
    params: *const sm_matmul_params,
    a: *const f32,
    matrix: *const sm_matrix,
    c: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let mut params = params::read(params)?;
        let matrix = &borrow(matrix, "matrix")?.matrix;
        for (name, given, own) in [("n", &mut params.n, matrix.n()), ("k", &mut params.k, matrix.k())] {
            if *given != 0 && *given != own {
                return Err(Failure::invalid(format!("{name} is {given}, but {own} in the matrix")));
            }
            *given = own;
        }
        let call = Call::new(&params, ptr::null(), Some(matrix))?;
        call.strided(a, c)
    })
}

/// Computes `batch` products whose matrices stand anywhere: `a`, `b` and `c` are `batch` pointers each, and the
/// strides are not looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matmul_batched(
    params: *const sm_matmul_params,
    a: *const *const f32,
    b: *const *const f32,
    c: *const *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let params = params::read(params)?;
        let call = Call::new(&params, ptr::null(), None)?;
        if call.is_empty() {
            return Ok(());
        }
        let a = buffers::array(a, params.batch, "a")?;
        let b = buffers::array(b, params.batch, "b")?;
        let c = buffers::array(c, params.batch, "c")?;
        call.run(&Places::Listed { a, b, c })
    })
}

/// C = A B, or A times the transpose of B: `sm_matmul` in short. A is m by k, B is k by n (n by k where
/// `b_transposed` is 1), C is m by n; leading dimensions as there, 0 for no gaps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matmul_f32(
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    b_transposed: i32,
    c: *mut f32,
    ldc: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let params = sm_matmul_params { m, n, k, lda, ldb, ldc, b_transposed, ..Params::defaults() };
        let call = Call::new(&params, b, None)?;
        call.strided(a, c)
    })
}

/// A checked call: its shape, and everything that all its products share.
struct Call<'a> {
    params: sm_matmul_params,
    b: *const f32,
    /// The product, but for the elements of A and a plain B.
    product: Matmul<'a>,
    /// Floats of one A, B and C.
    sizes: [usize; 3],
    /// Bias, gate, residual and packed matrix, which no C may overlap.
    shared: [Extent; 4],
}

fn activation(constant: i32) -> Result<Activation, Failure> {
    match constant {
        SM_ACTIVATION_NONE => Ok(Activation::None),
        SM_ACTIVATION_GELU_ERF => Ok(Activation::GeluErf),
        SM_ACTIVATION_GELU_TANH => Ok(Activation::GeluTanh),
        SM_ACTIVATION_SILU => Ok(Activation::Silu),
        SM_ACTIVATION_RELU => Ok(Activation::Relu),
        _ => {
            let message = format!("activation is {constant}, which is none of SM_ACTIVATION_*");
            Err(Failure::invalid(message))
        }
    }
}

impl<'a> Call<'a> {
    /// Checks everything but A, B and C themselves.
    ///
    /// # Safety
    /// The pointers in `params` are as the header says.
    unsafe fn new(
        given: &sm_matmul_params,
        b: *const f32,
        packed: Option<&'a PackedMatrix>,
    ) -> Result<Self, Failure> {
        let mut params = *given;
        let (m, n, k) = (params.m, params.n, params.k);
        let a_transposed = boolean(params.a_transposed, "a_transposed")?;
        let b_transposed = boolean(params.b_transposed, "b_transposed")?;
        let activation = activation(params.activation)?;
        let (a_lines, a_line) = if a_transposed { (k, m) } else { (m, k) };
        let (b_lines, b_line) = if b_transposed { (n, k) } else { (k, n) };
        let dense = |ld: &mut usize, line: usize| *ld = if *ld == 0 { line } else { *ld };
        dense(&mut params.lda, a_line);
        dense(&mut params.ldb, b_line);
        for ld in [&mut params.ldc, &mut params.ld_gate, &mut params.ld_residual] {
            dense(ld, n);
        }
        let size_a = floats("A", a_lines, a_line, params.lda)?;
        let size_b = if packed.is_some() { 0 } else { floats("B", b_lines, b_line, params.ldb)? };
        let size_c = floats("C", m, n, params.ldc)?;
        if params.stride_c == 0 {
            params.stride_c = m.saturating_mul(params.ldc);
        } else if params.batch > 1 && params.stride_c < size_c {
            return Err(Failure::invalid(format!("stride_c is {}, less than one C", params.stride_c)));
        }
        let operand = match packed {
            Some(matrix) => Operand::Packed(matrix),
            None => {
                let matrix = Matrix { data: &[], ld: params.ldb, transposed: b_transposed };
                Operand::plain(KernelSet::default_set()?, k, n, matrix)
            }
        };
        let a = Matrix { data: &[], ld: params.lda, transposed: a_transposed };
        let mut product = Matmul::new(m, a, operand).alpha(params.alpha).beta(params.beta);
        let mut shared: [Extent; 4] = Default::default();
        product.epilogue.activation = activation;
        if size_c > 0 && params.batch > 0 {
            // SAFETY: the function's contract.
            unsafe { Self::finish(&params, &mut product, &mut shared) }?;
        }
        if let Some(matrix) = packed {
            shared[3] = Extent::of("matrix", matrix.panels());
        }
        Ok(Self { params, b, product, sizes: [size_a, size_b, size_c], shared })
    }

    /// Reads bias, gate and residual.
    ///
    /// # Safety
    /// The pointers in `params` are as the header says.
    unsafe fn finish(
        params: &sm_matmul_params,
        product: &mut Matmul<'a>,
        shared: &mut [Extent; 4],
    ) -> Result<(), Failure> {
        let (m, n, epilogue) = (params.m, params.n, &mut product.epilogue);
        let lines = |name: &'static str, data: *const f32, ld: usize| {
            // SAFETY: the function's contract.
            let data = unsafe { buffers::array(data, floats(name, m, n, ld)?, name) }?;
            Ok::<_, Failure>((Some(Lines { data, ld }), Extent::of(name, data)))
        };
        if !params.bias.is_null() {
            // SAFETY: the function's contract.
            let bias = unsafe { buffers::array(params.bias, n, "bias") }?;
            shared[0] = Extent::of("bias", bias);
            epilogue.bias = Some(bias);
        }
        if !params.gate.is_null() {
            (epilogue.gate, shared[1]) = lines("gate", params.gate, params.ld_gate)?;
        }
        if !params.residual.is_null() {
            (epilogue.residual, shared[2]) = lines("residual", params.residual, params.ld_residual)?;
        }
        Ok(())
    }

    /// Whether there is no element of any C.
    fn is_empty(&self) -> bool {
        self.sizes[2] == 0 || self.params.batch == 0
    }

    /// Products whose matrices stand at fixed distances.
    ///
    /// # Safety
    /// The matrices are as the header says.
    unsafe fn strided(&self, a: *const f32, c: *mut f32) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        let params = &self.params;
        let strides = [params.stride_a, params.stride_b, params.stride_c];
        for ((name, stride), size) in ["A", "B", "C"].into_iter().zip(strides).zip(self.sizes) {
            let last = (params.batch - 1).checked_mul(stride).and_then(|last| last.checked_add(size));
            if last.is_none_or(|last| last > isize::MAX as usize / size_of::<f32>()) {
                return Err(Failure::invalid(format!(
                    "{name}: {} of them don't fit into memory",
                    params.batch
                )));
            }
        }
        // SAFETY: the function's contract.
        unsafe { self.run(&Places::Strided { first: (a, self.b, c), strides }) }
    }

    /// The products.
    ///
    /// # Safety
    /// The matrices are as the header says.
    unsafe fn run(&self, places: &Places<'_>) -> Result<(), Failure> {
        let params = &self.params;
        let [size_a, size_b, size_c] = self.sizes;
        let extents = |i: usize| {
            let (a, b, c) = places.of(i);
            buffers::check(a, size_a, "A")?;
            buffers::check(b, size_b, "B")?;
            buffers::check(c, size_c, "C")?;
            let inputs = [Extent::new("A", a, size_a), Extent::new("B", b, size_b)];
            Ok::<_, Failure>((inputs, Extent::new("C", c, size_c)))
        };
        let (inputs, output) = extents(0)?;
        let mut outputs = [output];
        Extent::check_apart(&mut outputs, &inputs)?;
        Extent::check_apart(&mut outputs, &self.shared)?;
        if params.batch > 1 {
            let out_of_memory = |_| crate::Error::OutOfMemory { bytes: params.batch, what: "a batch" };
            let (mut all_inputs, mut all_outputs) = (Vec::new(), Vec::new());
            all_inputs.try_reserve(params.batch.saturating_mul(2)).map_err(out_of_memory)?;
            all_outputs.try_reserve(params.batch).map_err(out_of_memory)?;
            for i in 0..params.batch {
                let (inputs, output) = extents(i)?;
                all_inputs.extend(inputs);
                all_outputs.push(output);
            }
            Extent::check_apart(&mut all_outputs, &all_inputs)?;
            Extent::check_apart(&mut all_outputs, &self.shared)?;
        }
        let place = |i: usize| {
            let (a, b, c) = places.of(i);
            // SAFETY: the function's contract, and checked above.
            let (a, b) = unsafe { (slice(a, size_a), slice(b, size_b)) };
            Place { a, b, c }
        };
        let work = [params.m, params.n, params.k, params.batch].into_iter();
        let flops = work.fold(2, |product: u64, size| product.saturating_mul(size as u64));
        let moved = self.sizes.iter().fold(0, |sum: usize, &size| sum.saturating_add(size));
        let _zone = profile::scope(Zone::MatMul).work(flops, bytes(moved.saturating_mul(params.batch)));
        // SAFETY: the function's contract.
        let mut team = unsafe { team::enter(params.team) }?;
        let mut own = Workspace::default();
        let (team, workspace) = match &mut team {
            Some(inside) => (Some(inside.team), &mut *inside.workspace),
            None => (None, &mut own),
        };
        // SAFETY: each C is as large as its shape says, and it was checked that nothing overlaps.
        unsafe { self.product.run_each(params.batch, place, params.ldc, team, workspace) }?;
        Ok(())
    }
}

/// Where the matrices of a batch stand.
enum Places<'a> {
    /// At fixed distances, in floats.
    Strided { first: (*const f32, *const f32, *mut f32), strides: [usize; 3] },
    /// Anywhere.
    Listed { a: &'a [*const f32], b: &'a [*const f32], c: &'a [*mut f32] },
}

// SAFETY: addresses; reads and writes through them are unsafe operations with reasons of their own.
unsafe impl Sync for Places<'_> {}

impl Places<'_> {
    /// A, B and C of product `i`.
    fn of(&self, i: usize) -> (*const f32, *const f32, *mut f32) {
        match *self {
            Self::Strided { first: (a, b, c), strides } => {
                let [a_at, b_at, c_at] = strides.map(|stride| i * stride);
                (a.wrapping_add(a_at), b.wrapping_add(b_at), c.wrapping_add(c_at))
            }
            Self::Listed { a, b, c } => (a[i], b[i], c[i]),
        }
    }
}

/// An array that has been checked.
///
/// # Safety
/// `data` is readable for `len` floats, unless `len` is 0.
unsafe fn slice<'a>(data: *const f32, len: usize) -> &'a [f32] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the function's contract.
    unsafe { std::slice::from_raw_parts(data, len) }
}
