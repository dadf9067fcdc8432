//! Softmax and its logarithm, row by row, and one row added to all rows.

use super::{Input, Matrices, Piece, RowShape, bytes, check_finite, check_len, check_rows, divide, kernels};
use crate::error::Result;
use crate::kernels::rows::{AddRowArgs, LogSoftmaxArgs, RowKernels, SoftmaxArgs};
use crate::profile::{self, Zone};
use crate::threads::Team;

/// Picoseconds that softmax takes for an element, about.
const SOFTMAX_COST: usize = 500;
/// Picoseconds that a sum takes for an element, about.
const ADD_COST: usize = 150;

/// The options of [`softmax`]; the default takes x as it is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Softmax<'a> {
    /// Factor on x; any finite one. Default 1.
    pub scale: f32,
    /// `Some(n)`: row r sees its first n + r elements only; the others are not read, and their results are 0. `None`,
    /// the default: rows see all.
    pub visible: Option<usize>,
    /// Added to scale · x, where −∞ hides an element: rows × cols, or one row of it for all rows.
    pub mask: Option<&'a [f32]>,
    /// Leading dimension of the mask, at least `cols`; 0, the default, for one row of it that counts for all rows.
    pub ld_mask: usize,
}

impl Default for Softmax<'_> {
    fn default() -> Self {
        Self { scale: 1.0, visible: None, mask: None, ld_mask: 0 }
    }
}

/// Softmax of each row: `y = exp(z) / Σ exp(z)` with `z = scale · x + mask`, without overflow for any finite x.
///
/// A row that sees no element comes out 0; one with NaN, +∞, or nothing but −∞, NaN. Rows are divided among the
/// workers; each row is computed by one of them.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) where a slice is too short for its rows, a leading
/// dimension is below the number of columns, or `scale` is not finite; the errors of [`Team::run`].
///
/// # Examples
/// ```
/// use smallmind::ops::{Input, RowShape, Softmax, softmax};
/// use smallmind::threads::Team;
///
/// // Scores of 3 queries and 4 keys; the queries are the last three positions, and don't see the future.
/// let mut scores = vec![1.0; 3 * 4];
/// let mut params = Softmax::default();
/// params.scale = 0.125;
/// params.visible = Some(2);
/// let team = Team::new(2)?;
/// softmax(Input::InPlace, &mut scores, RowShape::new(3, 4), &params, Some(&team))?;
/// assert_eq!(scores[..8], [0.5, 0.5, 0.0, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
///
/// // From one buffer into another, on the calling thread.
/// let (x, mut y) = ([0.0, 0.0], [0.0; 2]);
/// softmax(&x, &mut y, RowShape::new(1, 2), &Softmax::default(), None)?;
/// assert_eq!(y, [0.5, 0.5]);
/// # Ok::<(), smallmind::Error>(())
/// ```
pub fn softmax<'a>(
    x: impl Into<Input<'a>>,
    y: &'a mut [f32],
    shape: RowShape,
    params: &Softmax<'a>,
    team: Option<&Team>,
) -> Result<()> {
    check_finite("scale", params.scale)?;
    if let Some(mask) = params.mask {
        let (rows, ld) = match params.ld_mask {
            0 => (shape.rows.min(1), shape.cols),
            ld => (shape.rows, ld),
        };
        check_rows("mask", mask.len(), rows, shape.cols, ld)?;
    }
    run(Function::Softmax(*params), x.into(), y, shape, team)
}

/// The logarithm of the softmax of each row: `y = x − max − ln Σ exp(x − max)`.
///
/// # Errors
/// As [`softmax`].
pub fn log_softmax<'a>(
    x: impl Into<Input<'a>>,
    y: &'a mut [f32],
    shape: RowShape,
    team: Option<&Team>,
) -> Result<()> {
    run(Function::LogSoftmax, x.into(), y, shape, team)
}

/// `y[r][j] = x[r][j] + row[j]`: one row added to all rows of x.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) where a slice is too short for its rows, a leading
/// dimension is below the number of columns, or `row` doesn't have `cols` elements; the errors of [`Team::run`].
pub fn add_row<'a>(
    x: impl Into<Input<'a>>,
    row: &'a [f32],
    y: &'a mut [f32],
    shape: RowShape,
    team: Option<&Team>,
) -> Result<()> {
    if shape.elements() > 0 {
        check_len("row", row.len(), shape.cols)?;
    }
    run(Function::AddRow(row), x.into(), y, shape, team)
}

/// A function of rows, and its arguments.
#[derive(Clone, Copy)]
enum Function<'a> {
    Softmax(Softmax<'a>),
    LogSoftmax,
    AddRow(&'a [f32]),
}

impl Function<'_> {
    /// For all rows but the first `n`.
    fn skip(self, n: usize) -> Self {
        match self {
            Function::Softmax(params) => Function::Softmax(Softmax {
                visible: params.visible.map(|visible| visible.saturating_add(n)),
                mask: params.mask.map(|mask| &mask[n * params.ld_mask..]),
                ..params
            }),
            other => other,
        }
    }

    /// The function's zone in the profile, and the picoseconds that it takes for an element, about.
    fn zone_and_cost(&self) -> (Zone, usize) {
        match self {
            Function::Softmax(_) | Function::LogSoftmax => (Zone::Softmax, SOFTMAX_COST),
            Function::AddRow(_) => (Zone::Add, ADD_COST),
        }
    }
}

/// Checks the rows and computes.
fn run<'a>(
    function: Function<'a>,
    x: Input<'a>,
    y: &'a mut [f32],
    shape: RowShape,
    team: Option<&Team>,
) -> Result<()> {
    let matrices = Matrices::new(x, y, shape)?;
    let elements = shape.elements();
    if elements == 0 {
        return Ok(());
    }
    let (zone, cost) = function.zone_and_cost();
    let whole = Rows { kernels: &kernels()?.rows, function, matrices };
    let _zone = profile::scope(zone).work(0, bytes(elements.saturating_mul(2)));
    divide(whole, elements.saturating_mul(cost) / 1000, 1, team)
}

/// Some rows.
struct Rows<'a> {
    kernels: &'static RowKernels,
    function: Function<'a>,
    matrices: Matrices<'a>,
}

impl Piece for Rows<'_> {
    fn len(&self) -> usize {
        self.matrices.shape.rows
    }

    fn split(self, n: usize) -> (Self, Self) {
        let (first, matrices) = self.matrices.split_at(n);
        (Self { matrices: first, ..self }, Self { matrices, function: self.function.skip(n), ..self })
    }

    fn run(self) {
        let Self { kernels, function, matrices: Matrices { x, y, shape } } = self;
        let RowShape { rows, cols, ldx: src_stride, ldy: dst_stride } = shape;
        let dst = y.as_mut_ptr();
        let src = x.pointer(dst);
        let plain = SoftmaxArgs {
            src,
            src_stride,
            dst,
            dst_stride,
            rows,
            cols,
            scale: 1.0,
            causal: None,
            mask: std::ptr::null(),
            mask_stride: 0,
        };
        // SAFETY: x, y and the mask hold the rows that the shape says and `row` one row, as the op has checked; x is y, or
        // a slice that can't overlap the exclusive one.
        unsafe {
            match function {
                Function::Softmax(Softmax { scale, visible, mask, ld_mask }) => {
                    let mask = mask.map_or(std::ptr::null(), <[f32]>::as_ptr);
                    let args = SoftmaxArgs { scale, causal: visible, mask, mask_stride: ld_mask, ..plain };
                    kernels.softmax.run(&args);
                }
                Function::LogSoftmax => {
                    let args = LogSoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols };
                    kernels.log_softmax.run(&args);
                }
                Function::AddRow(row) => {
                    let row = row.as_ptr();
                    let args = AddRowArgs { src, src_stride, row, dst, dst_stride, rows, cols };
                    kernels.add_row.run(&args);
                }
            }
        }
    }
}
