//! The crates `gemm`, `faer` and `matrixmultiply` behind one C signature:
//! C (m × n) = A (m × k) times B (k × n, or n × k where transposed), all row-major without gaps.

use std::slice;

/// Steps to the next row and the next column of B.
fn steps_of_b(n: usize, k: usize, transposed: i32) -> (isize, isize) {
    if transposed != 0 { (1, k as isize) } else { (n as isize, 1) }
}

/// # Safety
/// The pointers hold the matrices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_gemm(
    threads: usize,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    b: *const f32,
    transposed: i32,
    c: *mut f32,
) {
    let (row, column) = steps_of_b(n, k, transposed);
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    // SAFETY: the caller's matrices have these sizes.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            n as isize,
            false,
            a,
            1,
            k as isize,
            b,
            column,
            row,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// # Safety
/// The pointers hold the matrices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_faer(
    threads: usize,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    b: *const f32,
    transposed: i32,
    c: *mut f32,
) {
    use faer::{Accum, MatMut, MatRef, Par};
    // SAFETY: the caller's matrices have these sizes.
    let (a, b, c) = unsafe {
        (
            slice::from_raw_parts(a, m * k),
            slice::from_raw_parts(b, k * n),
            slice::from_raw_parts_mut(c, m * n),
        )
    };
    let a = MatRef::from_row_major_slice(a, m, k);
    let b = if transposed != 0 {
        MatRef::from_row_major_slice(b, n, k).transpose()
    } else {
        MatRef::from_row_major_slice(b, k, n)
    };
    let par = if threads == 1 { Par::Seq } else { Par::rayon(threads) };
    faer::linalg::matmul::matmul(MatMut::from_row_major_slice_mut(c, m, n), Accum::Replace, a, b, 1.0, par);
}

/// Threads as `MATMUL_NUM_THREADS` says.
///
/// # Safety
/// The pointers hold the matrices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_matrixmultiply(
    _threads: usize,
    m: usize,
    n: usize,
    k: usize,
    a: *const f32,
    b: *const f32,
    transposed: i32,
    c: *mut f32,
) {
    let (row, column) = steps_of_b(n, k, transposed);
    // SAFETY: the caller's matrices have these sizes.
    unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, k as isize, 1, b, row, column, 0.0, c, n as isize, 1) }
}
