//! Kernels
//! =======
//! The arithmetic by itself, on your own buffers of 32-bit floats, on the calling thread. They run on the
//! instruction set that the environment variable SMALLMIND_ISA names, or else on the CPU's best.
//!
//! Matrices are row-major; `lda`, `ldx` and so on are the numbers of floats from one row to the next, at least
//! the number of columns, and what stands between the rows is left alone. A buffer reaches from its first to
//! its last element: an output must not overlap an input, except that functions of one matrix may work in
//! place, on the same pointer with the same `ld`. With no rows or no columns, nothing is done, and pointers
//! may be NULL. NaN and infinities are values like others.

use std::ffi::c_char;
use std::mem::size_of;
use std::ops::Range;

use super::boundary;
use super::buffers;
use super::names::intern;
use super::params::{Versioned, boolean};
use super::status::{Failure, sm_status};
use crate::kernels::matmul::{Operand, gemm, gemm_scratch_len};
use crate::kernels::rows::{NormArgs, SoftmaxArgs};
use crate::kernels::unary::Unary;
use crate::kernels::{self, KernelInfo, KernelSet};
use crate::memory::AlignedBuf;
use crate::profile::{self, Zone};

/// GELU as it is defined: x * (1 + erf(x / sqrt(2))) / 2.
pub const SM_GELU_ERF: i32 = 0;
/// GELU in its customary approximation by tanh.
pub const SM_GELU_TANH: i32 = 1;

/// One kernel of the library: an operation on an element type for an instruction set.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_kernel {
    /// Operation, such as "matmul"; never freed, as the next two.
    pub op: *const c_char,
    /// Element types, such as "f32" or "q4_1".
    pub dtype: *const c_char,
    /// Instruction set that it needs, such as "avx2".
    pub isa: *const c_char,
    /// Rows of its register tile; 1 where that has no meaning.
    pub mr: u64,
    /// Columns of its register tile; 1 where that has no meaning.
    pub nr: u64,
    /// 1 where this CPU can run it.
    pub available: i32,
    /// Always 0.
    pub reserved: i32,
}

// SAFETY: repr(C); integers and raw pointers.
unsafe impl Versioned for sm_kernel {
    const NAME: &'static str = "sm_kernel";
}

impl From<KernelInfo> for sm_kernel {
    fn from(info: KernelInfo) -> Self {
        Self {
            op: intern(info.op),
            dtype: intern(info.dtype),
            isa: intern(info.isa.name()),
            mr: info.mr as u64,
            nr: info.nr as u64,
            available: info.isa.is_available().into(),
            reserved: 0,
        }
    }
}

/// Lists every kernel of this build. `stride` is `sizeof(sm_kernel)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_kernel_info(
    out: *mut sm_kernel,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let all = kernels::enumerate();
        buffers::give_structs(all.into_iter().map(sm_kernel::from), out, stride, capacity, count)
    })
}

/// C = A B, or A times the transpose of B: A is m by k, B is k by n (n by k where `b_transposed` is 1), C is
/// m by n.
///
/// Sums run over k in order; k = 0 gives zeros. Takes a few hundred KiB of memory for the call, at most.
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
    boundary::call(|| {
        let b_transposed = boolean(b_transposed, "b_transposed")?;
        let (b_rows, b_cols) = if b_transposed { (n, k) } else { (k, n) };
        let sizes = [floats("A", m, k, lda)?, floats("B", b_rows, b_cols, ldb)?, floats("C", m, n, ldc)?];
        if sizes[2] == 0 {
            return Ok(());
        }
        // SAFETY: the header's contract.
        let (data, b) = unsafe { (buffers::array(a, sizes[0], "A")?, buffers::array(b, sizes[1], "B")?) };
        buffers::check(c, sizes[2], "C")?;
        apart("C", c, sizes[2], "A", data)?;
        apart("C", c, sizes[2], "B", b)?;
        // SAFETY: the header's contract; it overlaps neither input.
        let c = unsafe { buffers::array_mut(c, sizes[2], "C") }?;
        let row = KernelSet::default_set()?.matmul.f32;
        let scratch_bytes = size_of::<f32>().saturating_mul(gemm_scratch_len(row, n, k));
        let mut scratch = AlignedBuf::zeroed(scratch_bytes, "a matrix product")?;
        let a = Operand { data, rows: m, cols: k, ld: lda };
        let b = Operand { data: b, rows: b_rows, cols: b_cols, ld: ldb };
        let flops = [m, n, k].iter().fold(2, |product: u64, &size| product.saturating_mul(size as u64));
        let _zone = profile::scope(Zone::MatMul).work(flops, bytes(sizes.iter().sum()));
        gemm(row, a, b, b_transposed, c, ldc, false, scratch.as_mut_slice())?;
        Ok(())
    })
}

/// y = GELU(x) for `n` floats; `form` is `SM_GELU_ERF` or `SM_GELU_TANH`. `y` may be `x`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_gelu_f32(x: *const f32, n: usize, form: i32, y: *mut f32) -> sm_status {
    boundary::call(|| {
        let kernels = &KernelSet::default_set()?.unary;
        let gelu = match form {
            SM_GELU_ERF => &kernels.gelu_erf,
            SM_GELU_TANH => &kernels.gelu_tanh,
            _ => return Err(Failure::invalid(format!("form is {form}, which is none of SM_GELU_*"))),
        };
        // SAFETY: the header's contract.
        unsafe { elementwise(gelu, Zone::Gelu, x, n, y) }
    })
}

/// y = x / (1 + exp(-x)) for `n` floats. `y` may be `x`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_silu_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { elementwise(&KernelSet::default_set()?.unary.silu, Zone::Silu, x, n, y) })
}

/// Softmax of each row: y = exp(x) / sum of exp(x), without overflow for any finite x.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_softmax_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    boundary::call(|| {
        let Some(moved) = row_by_row(rows, cols, x, ldx, y, ldy)? else { return Ok(()) };
        let softmax = KernelSet::default_set()?.rows.softmax;
        let _zone = profile::scope(Zone::Softmax).work(0, moved);
        // SAFETY: the header's contract, and `row_by_row` has checked sizes and overlap.
        unsafe {
            softmax.run(&SoftmaxArgs {
                src: x,
                src_stride: ldx,
                dst: y,
                dst_stride: ldy,
                rows,
                cols,
                scale: 1.0,
                causal: None,
            });
        }
        Ok(())
    })
}

/// LayerNorm of each row: y = (x - mean) / sqrt(variance + eps) * weight + bias.
///
/// `weight` and `bias` are `cols` floats each, or NULL for 1 and 0. `eps` is finite and at least 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_layer_norm_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    weight: *const f32,
    bias: *const f32,
    eps: f32,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    let args = norm_args(rows, cols, (x, ldx), weight, bias, eps, (y, ldy));
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { normalise(Zone::LayerNorm, &args) })
}

/// RMSNorm of each row: y = x / sqrt(mean of x^2 + eps) * weight.
///
/// `weight` is `cols` floats, or NULL for 1. `eps` is finite and at least 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_rms_norm_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    weight: *const f32,
    eps: f32,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    let args = norm_args(rows, cols, (x, ldx), weight, std::ptr::null(), eps, (y, ldy));
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { normalise(Zone::RmsNorm, &args) })
}

/// Runs one function over checked buffers.
///
/// # Safety
/// `x` is NULL or readable, `y` NULL or writable for `n` floats.
unsafe fn elementwise(
    function: &Unary,
    zone: Zone,
    x: *const f32,
    n: usize,
    y: *mut f32,
) -> Result<(), Failure> {
    let Some(moved) = row_by_row(1, n, x, n, y, n)? else { return Ok(()) };
    let _zone = profile::scope(zone).work(0, moved);
    // SAFETY: the function's contract, and `row_by_row` has checked sizes and overlap.
    unsafe { function.run(x, y, n) };
    Ok(())
}

fn norm_args(
    rows: usize,
    cols: usize,
    (x, x_stride): (*const f32, usize),
    gamma: *const f32,
    beta: *const f32,
    eps: f32,
    (dst, dst_stride): (*mut f32, usize),
) -> NormArgs {
    // Without `add`, the kernel only reads x.
    let (x, add, add_stride) = (x.cast_mut(), std::ptr::null(), 0);
    NormArgs { x, x_stride, add, add_stride, dst, dst_stride, gamma, beta, eps, rows, cols }
}

/// Runs LayerNorm or RMSNorm over checked buffers.
///
/// # Safety
/// The pointers are NULL or valid for what the header says.
unsafe fn normalise(zone: Zone, args: &NormArgs) -> Result<(), Failure> {
    let &NormArgs { x, x_stride, dst, dst_stride, gamma, beta, eps, rows, cols, .. } = args;
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(Failure::invalid(format!("eps is {eps}; it must be finite and at least 0")));
    }
    let Some(moved) = row_by_row(rows, cols, x, x_stride, dst, dst_stride)? else { return Ok(()) };
    for (name, vector) in [("weight", gamma), ("bias", beta)] {
        if !vector.is_null() {
            // SAFETY: the function's contract.
            let vector = unsafe { buffers::array(vector, cols, name) }?;
            apart("y", dst, floats("y", rows, cols, dst_stride)?, name, vector)?;
        }
    }
    let kernels = &KernelSet::default_set()?.rows;
    let norm = if zone == Zone::LayerNorm { kernels.layer_norm } else { kernels.rms_norm };
    let _zone = profile::scope(zone).work(0, moved);
    // SAFETY: the function's contract, with sizes and overlap checked.
    unsafe { norm.run(args) };
    Ok(())
}

/// Checks the two matrices of a function that works row by row, in place or apart. The bytes that it moves;
/// `None` where there is nothing to do.
fn row_by_row(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    y: *mut f32,
    ldy: usize,
) -> Result<Option<u64>, Failure> {
    let (len_x, len_y) = (floats("x", rows, cols, ldx)?, floats("y", rows, cols, ldy)?);
    buffers::check(x, len_x, "x")?;
    buffers::check(y, len_y, "y")?;
    let in_place = x.addr() == y.addr() && ldx == ldy;
    if !in_place && overlap(&range(x, len_x), &range(y, len_y)) {
        return Err(Failure::invalid("x and y overlap, and aren't the same"));
    }
    Ok((len_x > 0).then(|| bytes(rows.saturating_mul(cols).saturating_mul(2))))
}

/// Floats from the first to the last element of a matrix; 0 for one without elements.
fn floats(name: &'static str, rows: usize, cols: usize, ld: usize) -> Result<usize, Failure> {
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    if ld < cols {
        return Err(Failure::invalid(format!(
            "{name}: {cols} columns, but only {ld} floats to the next row"
        )));
    }
    let len = (rows - 1).checked_mul(ld).and_then(|whole| whole.checked_add(cols));
    len.ok_or_else(|| Failure::invalid(format!("{name} of {rows} x {cols} doesn't fit into memory")))
}

/// Refuses an output that shares memory with an input.
fn apart(name: &str, output: *const f32, len: usize, input_name: &str, input: &[f32]) -> Result<(), Failure> {
    if overlap(&range(output, len), &range(input.as_ptr(), input.len())) {
        return Err(Failure::invalid(format!("{name} overlaps {input_name}")));
    }
    Ok(())
}

/// Addresses of `len` floats, which are known to fit into memory.
fn range(first: *const f32, len: usize) -> Range<usize> {
    first.addr()..first.addr() + len * size_of::<f32>()
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}

fn bytes(floats: usize) -> u64 {
    (floats as u64).saturating_mul(size_of::<f32>() as u64)
}
