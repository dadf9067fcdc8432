//! Matrix products in bfloat16
//! ---------------------------
//! A mode of lower precision, which nothing chooses by itself: both factors are rounded to bfloat16, to the nearest,
//! which keeps 8 bits of each; products are exact, and sums in 32-bit floats. Weights are packed once. Where the CPU
//! has AMX, AVX512-BF16 or Arm's BF16, a product is several times as fast as one of floats.

use crate::Error;
use crate::kernels::KernelSet;
use crate::kernels::bmatmul::{Kernel, Output, Packed};
use crate::kernels::matmul::Source;
use crate::memory::AlignedBuf;
use crate::profile::{self, Zone};

use super::boundary;
use super::buffers;
use super::handle;
use super::matrices::{apart, floats};
use super::params::boolean;
use super::status::{Failure, sm_status};

/// A packed matrix of n outputs by k inputs in bfloat16. It never changes, so any number of threads may multiply with it
/// at once. It takes about 2 n k bytes.
pub struct sm_matrix_bf16 {
    kernel: &'static Kernel,
    n: usize,
    k: usize,
    data: AlignedBuf,
}

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
        let transposed = boolean(transposed, "transposed")?;
        let (rows, cols) = if transposed { (k, n) } else { (n, k) };
        // SAFETY: the header's contract.
        let w = unsafe { buffers::array(w, floats("W", rows, cols, ldw)?, "W") }?;
        let strides = if transposed { (1, ldw) } else { (ldw, 1) };
        let packed = pack(KernelSet::default_set()?.bmatmul, [n, k], w, strides)?;
        // SAFETY: checked by `clear_out`.
        unsafe { handle::give(matrix, packed) };
        Ok(())
    })
}

/// Packs element (i, j) from `w[i * strides.0 + j * strides.1]`, a panel at a time.
fn pack(
    kernel: &'static Kernel,
    [n, k]: [usize; 2],
    w: &[f32],
    strides: (usize, usize),
) -> Result<sm_matrix_bf16, Failure> {
    const WHAT: &str = "a packed matrix";
    let layout = kernel.layout();
    let too_large = || Failure::invalid(format!("W of {n} x {k} doesn't fit into memory"));
    let bytes =
        layout.packed_bytes(n, k).filter(|&bytes| bytes <= isize::MAX as usize).ok_or_else(too_large)?;
    let mut data = AlignedBuf::zeroed(bytes, WHAT)?;
    let panel_bytes = layout.panel_bytes(k).unwrap_or(0);
    if panel_bytes > 0 {
        let mut rounded = AlignedBuf::zeroed(layout.nr().saturating_mul(k).saturating_mul(2), WHAT)?;
        for (panel, out) in data.as_mut_slice::<u8>().chunks_exact_mut(panel_bytes).enumerate() {
            let first = panel * layout.nr();
            let columns = layout.nr().min(n - first);
            let rounded = &mut rounded.as_mut_slice::<u8>()[..2 * columns * k];
            for (i, line) in rounded.chunks_exact_mut(2 * k).enumerate() {
                for (j, element) in line.chunks_exact_mut(2).enumerate() {
                    let value = w[(first + i) * strides.0 + j * strides.1];
                    element.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes());
                }
            }
            layout.pack(&Source::rows(rounded, columns, k), 0..1, out)?;
        }
    }
    Ok(sm_matrix_bf16 { kernel, n, k, data })
}

/// Y = X times the transpose of W, where X is m by k and Y m by n, plus `bias`, n floats, unless that is NULL, plus what
/// Y holds where `accumulate` is 1.
///
/// A row of Y has the same bits whatever m is. Takes memory for the call: k numbers of 2 bytes (4 on CPUs without
/// products of bfloat16) for up to 512 rows.
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
        let &sm_matrix_bf16 { kernel, n, k, ref data } = unsafe { handle::borrow(matrix, "matrix") }?;
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
        let packed = Packed::new(kernel, data.as_slice(), n, k)?;
        const WHAT: &str = "rounded rows";
        let bytes = packed.scratch_bytes(m).ok_or(Error::OutOfMemory { bytes: usize::MAX, what: WHAT })?;
        let mut scratch = AlignedBuf::zeroed(bytes, WHAT)?;
        let flops = [m, n, k].iter().fold(2, |product: u64, &size| product.saturating_mul(size as u64));
        let moved =
            sizes.iter().fold(data.len() as u64, |sum, &floats| sum.saturating_add(4 * floats as u64));
        let _zone = profile::scope(Zone::MatMul).work(flops, moved);
        packed.multiply(m, x, ldx, Output { data: y, ld: ldy, bias, accumulate }, scratch.as_mut_slice())?;
        Ok(())
    })
}

/// Frees a packed matrix, which nothing uses any more. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_matrix_bf16_free(matrix: *mut sm_matrix_bf16) -> sm_status {
    boundary::call(|| {
        if !matrix.is_null() {
            // SAFETY: the header's contract.
            drop(unsafe { handle::take(matrix) });
        }
        Ok(())
    })
}
