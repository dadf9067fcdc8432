//! Checks of the matrices that a host passes to kernels: shapes, leading dimensions, sizes, overlap.

use std::mem::size_of;
use std::ops::Range;

use super::buffers;
use super::status::Failure;

/// Checks the two matrices of a function that works row by row, in place or apart. The bytes that it moves;
/// `None` where there is nothing to do.
pub(super) fn row_by_row(
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
pub(super) fn floats(name: &'static str, rows: usize, cols: usize, ld: usize) -> Result<usize, Failure> {
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
pub(super) fn apart(
    name: &str,
    output: *const f32,
    len: usize,
    input_name: &str,
    input: &[f32],
) -> Result<(), Failure> {
    if overlap(&range(output, len), &range(input.as_ptr(), input.len())) {
        return Err(Failure::invalid(format!("{name} overlaps {input_name}")));
    }
    Ok(())
}

/// Addresses of `len` floats, which are known to fit into memory.
pub(super) fn range(first: *const f32, len: usize) -> Range<usize> {
    first.addr()..first.addr() + len * size_of::<f32>()
}

pub(super) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}

pub(super) fn bytes(floats: usize) -> u64 {
    (floats as u64).saturating_mul(size_of::<f32>() as u64)
}
