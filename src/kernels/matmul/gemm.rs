//! The general matrix product for direct callers: `C = A · B` or `A · Bᵀ (+ C)` on plain f32 slices.
//! B is packed a few panels at a time into scratch memory of the caller, so nothing is allocated.

use super::{Product, Row, Source};
use crate::error::{Error, Result};

/// Panels of B that are packed at a time: 128 KiB at most, which stay in L2 while the rows of A pass by.
const PANELS: usize = 4;

/// A row-major f32 matrix: `rows × cols`, lines `ld` floats apart.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Lines.
    pub rows: usize,
    /// Elements of a line.
    pub cols: usize,
    /// Floats from one line to the next, at least `cols`.
    pub ld: usize,
}

impl<'a> Operand<'a> {
    /// A matrix without gaps between its lines.
    pub fn dense(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, ld: cols }
    }
}

/// Floats of scratch memory that [`gemm`] asks for with B of `k` × `n`.
pub fn gemm_scratch_len(row: &Row, n: usize, k: usize) -> usize {
    row.panels(n).min(PANELS) * row.info.nr * row.blocking.k_slice().min(k)
}

/// `C = A · B`, or `A · Bᵀ` where `b_transposed`, or the same added to C where `accumulate`.
///
/// A is m × k, B is k × n (n × k where transposed), C is m × n with `ldc` floats between lines; nothing in the
/// gaps of C is touched. Sums run over k in order, from C's own value where `accumulate`; see the family's
/// contract for the error. `row` must be an f32 row; `scratch` holds [`gemm_scratch_len`] floats.
///
/// # Errors
/// [`Error::InvalidArgument`] where shapes disagree, a matrix does not fit its slice, `row` is not for f32 or
/// not for this CPU, or the scratch memory is too short.
#[allow(clippy::too_many_arguments)] // three matrices, two flags: the field's own signature
pub fn gemm(
    row: &Row,
    a: Operand<'_>,
    b: Operand<'_>,
    b_transposed: bool,
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
    scratch: &mut [f32],
) -> Result<()> {
    let (k, n) = if b_transposed { (b.cols, b.rows) } else { (b.rows, b.cols) };
    let m = a.rows;
    if a.cols != k {
        return Err(Error::invalid(format!(
            "A is {m} × {}, B is {k} × {n}: they can't be multiplied",
            a.cols
        )));
    }
    if row.weights != crate::quant::DType::F32 || !row.info.isa.is_available() {
        return Err(Error::invalid("the kernel is not one for f32 on this CPU"));
    }
    check("A", a.data.len(), a.rows, a.cols, a.ld)?;
    check("B", b.data.len(), b.rows, b.cols, b.ld)?;
    check("C", c.len(), m, n, ldc)?;
    let needed = gemm_scratch_len(row, n, k);
    if scratch.len() < needed {
        return Err(Error::invalid(format!(
            "{} floats of scratch memory where {needed} are needed",
            scratch.len()
        )));
    }
    let nr = row.info.nr;
    let whole = Product {
        x: a.data.as_ptr().cast(),
        ldx: a.ld * 4,
        m,
        k,
        w: b.data.as_ptr().cast(),
        row_stride: b.ld * 4,
        panel_stride: nr * 4,
        y: c.as_mut_ptr(),
        ldy: ldc,
        columns: n,
        resume: accumulate,
        bias: std::ptr::null(),
    };
    // With a single block of rows there is nothing to pack for: B's own lines serve as panels, full ones.
    let direct = if !b_transposed && m <= row.info.mr { n / nr * nr } else { 0 };
    // SAFETY: all three matrices were checked to lie in their slices, and C is borrowed mutably.
    unsafe { row.multiply(&Product { columns: direct, ..whole }) };
    let source = Source { data: bytes(b.data), n, k, ld: b.ld, transposed: !b_transposed };
    let mut panel = direct / nr;
    while panel < row.panels(n) {
        let panels = panel..row.panels(n).min(panel + PANELS);
        packed(row, &whole, &source, panels.clone(), scratch)?;
        panel = panels.end;
    }
    Ok(())
}

/// The columns of `panels`, through B packed slice by slice of k.
fn packed(
    row: &Row,
    whole: &Product,
    source: &Source<'_>,
    panels: std::ops::Range<usize>,
    scratch: &mut [f32],
) -> Result<()> {
    let nr = row.info.nr;
    let first = panels.start * nr;
    let mut k = 0;
    loop {
        let depth = row.blocking.k_slice().min(whole.k - k);
        let scratch = &mut scratch[..panels.len() * nr * depth];
        let skip = 4 * if source.transposed { k * source.ld } else { k };
        let slice = Source { data: source.data.get(skip..).unwrap_or(&[]), k: depth, ..*source };
        row.pack(&slice, panels.clone(), bytes_mut(scratch))?;
        let product = Product {
            x: whole.x.wrapping_add(4 * k),
            k: depth,
            w: scratch.as_ptr().cast(),
            row_stride: nr * 4,
            panel_stride: depth * nr * 4,
            y: whole.y.wrapping_add(first),
            columns: (panels.end * nr).min(whole.columns) - first,
            resume: whole.resume || k > 0,
            ..*whole
        };
        // SAFETY: a part of the product that `gemm` has checked, against panels in `scratch`.
        unsafe { row.multiply(&product) };
        k += depth;
        // One pass even for k = 0: the sums of nothing are written too.
        if k >= whole.k {
            return Ok(());
        }
    }
}

/// Checks that a matrix of `rows` × `cols` lies inside a slice of `len` floats.
fn check(name: &str, len: usize, rows: usize, cols: usize, ld: usize) -> Result<()> {
    let needed = match (rows, cols) {
        (0, _) | (_, 0) => Some(0),
        _ => (rows - 1).checked_mul(ld).and_then(|x| x.checked_add(cols)),
    };
    match needed {
        Some(needed) if needed <= len && (ld >= cols || rows <= 1) => Ok(()),
        _ => Err(Error::invalid(format!(
            "{name} of {rows} × {cols} with lines of {ld} does not fit {len} floats"
        ))),
    }
}

fn bytes(x: &[f32]) -> &[u8] {
    // SAFETY: any f32 is four bytes, and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

fn bytes_mut(x: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above, and any four bytes are an f32.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), size_of_val(x)) }
}
