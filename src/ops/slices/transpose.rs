//! The transpose of a matrix, divided by rows of the output.

use super::{LINE, Piece, RowShape, bytes, check_rows, divide, kernels};
use crate::error::Result;
use crate::kernels::transpose::{Transpose, TransposeArgs};
use crate::profile::{self, Zone};
use crate::threads::Team;

/// Picoseconds that an element takes, about.
const COST: usize = 400;

/// y = the transpose of x: x is rows × cols with `ldx`, y is cols × rows with `ldy`, which is at least `rows`. See
/// [`RowShape::transposed`].
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) where a slice is too short or a leading dimension too
/// small; the errors of [`Team::run`].
pub fn transpose(x: &[f32], y: &mut [f32], shape: RowShape, team: Option<&Team>) -> Result<()> {
    check_rows("x", x.len(), shape.rows, shape.cols, shape.ldx)?;
    check_rows("y", y.len(), shape.cols, shape.rows, shape.ldy)?;
    let elements = shape.elements();
    if elements == 0 {
        return Ok(());
    }
    let whole = Columns { kernel: &kernels()?.transpose.f32, x, y, shape };
    let _zone = profile::scope(Zone::Transpose).work(0, bytes(elements.saturating_mul(2)));
    divide(whole, elements.saturating_mul(COST) / 1000, LINE, team)
}

/// Some columns of x, which are rows of y.
struct Columns<'a> {
    kernel: &'static Transpose,
    x: &'a [f32],
    y: &'a mut [f32],
    shape: RowShape,
}

impl Piece for Columns<'_> {
    fn len(&self) -> usize {
        self.shape.cols
    }

    fn split(self, n: usize) -> (Self, Self) {
        let (first, y) = self.y.split_at_mut(n * self.shape.ldy);
        let columns = |cols| RowShape { cols, ..self.shape };
        let rest = Self { x: &self.x[n..], y, shape: columns(self.shape.cols - n), ..self };
        (Self { y: first, shape: columns(n), ..self }, rest)
    }

    fn run(self) {
        let RowShape { rows, cols, ldx, ldy } = self.shape;
        let args = TransposeArgs {
            src: self.x.as_ptr(),
            src_stride: ldx,
            dst: self.y.as_mut_ptr(),
            dst_stride: ldy,
            rows,
            cols,
        };
        // SAFETY: x holds the rows of these columns and y the columns as rows, as the op has checked; y is exclusive.
        unsafe { self.kernel.run(&args) }
    }
}
