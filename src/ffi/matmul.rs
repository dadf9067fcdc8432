//! Matrix products
//! ---------------

use std::mem::size_of;

use super::boundary;
use super::buffers;
use super::matrices::{apart, bytes, floats};
use super::params::boolean;
use super::status::sm_status;
use crate::kernels::KernelSet;
use crate::kernels::matmul::{Operand, gemm, gemm_scratch_len};
use crate::memory::AlignedBuf;
use crate::profile::{self, Zone};

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
