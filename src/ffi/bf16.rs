//! Matrix products in bfloat16
//! ---------------------------
//! A mode of lower precision, which nothing chooses by itself: both factors are rounded to bfloat16, to the nearest,
//! which keeps 8 bits of each; products are exact, and sums in 32-bit floats. Weights are packed once. Where the CPU
//! has AMX, AVX512-BF16 or Arm's BF16, a product is several times as fast as one of floats.

use std::ffi::c_void;

use crate::kernels::matmul::Matrix;
use crate::ops::{Matmul, Workspace};
use crate::profile::{self, Zone};

use super::boundary;
use super::buffers;
use super::handle;
use super::matrices::{apart, floats};
use super::packed::{pack, sm_matrix, sm_matrix_free, sm_matrix_params};
use super::params::{Params, boolean};
use super::status::sm_status;

/// A packed matrix; with these functions one of n outputs by k inputs in bfloat16, which takes about 2 n k bytes.
pub type sm_matrix_bf16 = sm_matrix;

/// Rounds and packs W: n by k, or k by n where `transposed` is 1; `ldw` floats from one of its rows to the next. W
/// isn't needed any more afterwards. Free the matrix with sm_matrix_bf16_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matrix_bf16_pack(
    n: usize,
    k: usize,
    w: *const f32,
    ldw: usize,
    transposed: i32,
    matrix: *mut *mut sm_matrix_bf16,
) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        unsafe { handle::clear_out(matrix, "matrix") }?;
        let along_n = boolean(transposed, "transposed")?;
        floats("W", if along_n { k } else { n }, if along_n { n } else { k }, ldw)?;
        let params = sm_matrix_params {
            k,
            n,
            ldb: ldw,
            b_transposed: i32::from(!along_n),
            bf16_products: 1,
            ..Params::defaults()
        };
        // SAFETY: the header's contract, and checked by `clear_out`.
        unsafe { handle::give(matrix, sm_matrix { matrix: pack(&params, w.cast::<c_void>())? }) };
        Ok(())
    })
}

/// Y = X times the transpose of W, where X is m by k and Y m by n, plus `bias`, n floats, unless that is NULL, plus
/// the old Y where `accumulate` is 1.
///
/// A row of Y has the same bits whatever m is. Takes memory for the call: k numbers of 2 bytes (4 on CPUs without
/// products of bfloat16) for up to 512 rows. `sm_matmul_packed` computes the same on a team, and more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matrix_bf16_multiply(
    matrix: *const sm_matrix_bf16,
    m: usize,
    x: *const f32,
    ldx: usize,
    bias: *const f32,
    accumulate: i32,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        let matrix = &unsafe { handle::borrow(matrix, "matrix") }?.matrix;
        let (n, k) = (matrix.n(), matrix.k());
        let accumulate = boolean(accumulate, "accumulate")?;
        let sizes = [floats("X", m, k, ldx)?, floats("Y", m, n, ldy)?];
        if sizes[1] == 0 {
            return Ok(());
        }
        // SAFETY: the header's contract.
        let x = unsafe { buffers::array(x, sizes[0], "X") }?;
        buffers::check(y, sizes[1], "Y")?;
        apart("Y", y, sizes[1], "X", x)?;
        let bias = if bias.is_null() {
            None
        } else {
            // SAFETY: the header's contract.
            let bias = unsafe { buffers::array(bias, n, "bias") }?;
            apart("Y", y, sizes[1], "bias", bias)?;
            Some(bias)
        };
        // SAFETY: the header's contract; it overlaps neither input.
        let y = unsafe { buffers::array_mut(y, sizes[1], "Y") }?;
        let flops = [m, n, k].iter().fold(2, |product: u64, &size| product.saturating_mul(size as u64));
        let moved = sizes.iter().fold(matrix.bytes() as u64, |sum, &len| sum.saturating_add(4 * len as u64));
        let _zone = profile::scope(Zone::MatMul).work(flops, moved);
        let x = Matrix { data: x, ld: ldx, transposed: false };
        let mut product = Matmul::new(m, x, matrix).beta(if accumulate { 1.0 } else { 0.0 });
        product.epilogue.bias = bias;
        product.run(y, ldy, None, &mut Workspace::default())?;
        Ok(())
    })
}

/// Frees a packed matrix, which nothing uses any more. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matrix_bf16_free(matrix: *mut sm_matrix_bf16) -> sm_status {
    // SAFETY: the header's contract.
    unsafe { sm_matrix_free(matrix) }
}
