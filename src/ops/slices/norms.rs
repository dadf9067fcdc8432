//! LayerNorm and RMSNorm, row by row, also of a sum that is formed on the way.

use super::{Input, Piece, RowShape, bytes, check_len, check_rows, divide, kernels};
use crate::error::{Error, Result};
use crate::kernels::rows::{self, NormArgs};
use crate::profile::{self, Zone};
use crate::threads::Team;

/// Picoseconds that a norm takes for an element, about.
const COST: usize = 300;

/// A normalisation of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// `(x − mean) / √(variance + eps) · weight + bias`.
    Layer,
    /// `x / √(mean of x² + eps) · weight + bias`.
    Rms,
}

/// The factors and summands of normalised rows, and eps.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NormParams<'a> {
    /// `cols` factors; absent, the default, for 1.
    pub weight: Option<&'a [f32]>,
    /// `cols` summands; absent, the default, for 0.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance or the mean square; finite and at least 0. Default 1e-5.
    pub eps: f32,
}

impl Default for NormParams<'_> {
    fn default() -> Self {
        Self { weight: None, bias: None, eps: 1e-5 }
    }
}

/// Figures of each row that a backward pass needs; absent ones, the default, are not wanted.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct NormStatistics<'a> {
    /// Gets the mean of each row; of a LayerNorm only.
    pub mean: Option<&'a mut [f32]>,
    /// Gets `1 / √(variance + eps)`, or `1 / √(mean of x² + eps)`, of each row.
    pub rstd: Option<&'a mut [f32]>,
}

/// The rows that [`norm`] normalises.
#[derive(Debug)]
pub enum NormInput<'a> {
    /// These rows.
    Slice(&'a [f32]),
    /// The rows of the output, which are overwritten.
    InPlace,
    /// The sum of two: `x += add`, and the sum is normalised.
    Sum {
        /// Rows `ldx` floats apart, which the sum overwrites.
        x: &'a mut [f32],
        /// Rows that are added to x.
        add: &'a [f32],
        /// Leading dimension of `add`: floats from one row to the next, at least `cols`.
        ld_add: usize,
    },
}

impl<'a> From<Input<'a>> for NormInput<'a> {
    fn from(input: Input<'a>) -> Self {
        match input {
            Input::Slice(x) => NormInput::Slice(x),
            Input::InPlace => NormInput::InPlace,
        }
    }
}

/// LayerNorm of each row: `y = (x − mean) / √(variance + eps) · weight + bias`.
///
/// Rows are divided among the workers; each row is computed by one of them.
///
/// # Errors
/// [`Error::InvalidArgument`] where a slice is too short for its rows, a leading dimension is below the number of
/// columns, weight or bias don't have `cols` elements, or `eps` is negative or not finite; the errors of [`Team::run`].
///
/// # Examples
/// ```
/// use smallmind::ops::{NormParams, RowShape, layer_norm};
///
/// // Two rows of three in a buffer with rows of four.
/// let x = [1.0, 2.0, 3.0, 9.0, 40.0, 40.0, 40.0, 9.0];
/// let (weight, bias) = ([1.0, 1.0, 2.0], [0.0, 0.5, 0.0]);
/// let mut y = [0.0; 6];
/// let mut params = NormParams::default();
/// params.weight = Some(&weight);
/// params.bias = Some(&bias);
/// layer_norm(&x, &mut y, RowShape::new(2, 3).with_ld(4, 3), &params, None)?;
/// assert!((y[0] + 1.5f32.sqrt()).abs() < 1e-4 && y[1] == 0.5 && (y[2] - 6.0f32.sqrt()).abs() < 1e-4);
/// assert_eq!(y[3..], [0.0, 0.5, 0.0]);
/// # Ok::<(), smallmind::Error>(())
/// ```
pub fn layer_norm<'a>(
    x: impl Into<Input<'a>>,
    y: &'a mut [f32],
    shape: RowShape,
    params: &NormParams<'a>,
    team: Option<&Team>,
) -> Result<()> {
    norm(Norm::Layer, x.into().into(), y, shape, params, NormStatistics::default(), team)
}

/// RMSNorm of each row: `y = x / √(mean of x² + eps) · weight + bias`.
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm<'a>(
    x: impl Into<Input<'a>>,
    y: &'a mut [f32],
    shape: RowShape,
    params: &NormParams<'a>,
    team: Option<&Team>,
) -> Result<()> {
    norm(Norm::Rms, x.into().into(), y, shape, params, NormStatistics::default(), team)
}

/// A norm of rows, or of the sum of two matrices, and the figures of each row that a backward pass needs.
///
/// With [`NormInput::Sum`], x + add takes the place of x in the same pass over memory.
///
/// # Errors
/// As [`layer_norm`]; also where `mean` or `rstd` don't have one element for each row, or a mean is wanted of an RMSNorm.
pub fn norm<'a>(
    norm: Norm,
    x: NormInput<'a>,
    y: &'a mut [f32],
    shape: RowShape,
    params: &NormParams<'a>,
    statistics: NormStatistics<'a>,
    team: Option<&Team>,
) -> Result<()> {
    let NormParams { weight, bias, eps } = *params;
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(Error::invalid(format!("eps is {eps}; it must be finite and at least 0")));
    }
    let (mut lines, mut shape) = (2, shape);
    match &x {
        NormInput::Slice(x) => shape = shape.check(Input::Slice(x), y)?,
        NormInput::InPlace => shape = shape.check(Input::InPlace, y)?,
        NormInput::Sum { x, add, ld_add } => {
            shape = shape.check(Input::Slice(x), y)?;
            check_rows("add", add.len(), shape.rows, shape.cols, *ld_add)?;
            lines = 4;
        }
    }
    let elements = shape.elements();
    if elements == 0 {
        return Ok(());
    }
    for (name, vector) in [("weight", weight), ("bias", bias)] {
        vector.map_or(Ok(()), |vector| check_len(name, vector.len(), shape.cols))?;
    }
    for (name, figures) in [("mean", &statistics.mean), ("rstd", &statistics.rstd)] {
        figures.as_ref().map_or(Ok(()), |figures| check_len(name, figures.len(), shape.rows))?;
    }
    if norm == Norm::Rms && statistics.mean.is_some() {
        return Err(Error::invalid("mean is given, but RMSNorm takes no mean"));
    }
    let kernels = &kernels()?.rows;
    let (kernel, zone) = match norm {
        Norm::Layer => (&kernels.layer_norm, Zone::LayerNorm),
        Norm::Rms => (&kernels.rms_norm, Zone::RmsNorm),
    };
    let whole = Rows { kernel, x, y, shape, params: *params, statistics };
    let _zone = profile::scope(zone).work(0, bytes(elements.saturating_mul(lines)));
    divide(whole, elements.saturating_mul(COST) / 1000, 1, team)
}

/// Some rows, checked.
struct Rows<'a> {
    kernel: &'static rows::Norm,
    x: NormInput<'a>,
    y: &'a mut [f32],
    shape: RowShape,
    params: NormParams<'a>,
    statistics: NormStatistics<'a>,
}

impl Piece for Rows<'_> {
    fn len(&self) -> usize {
        self.shape.rows
    }

    fn split(self, n: usize) -> (Self, Self) {
        let Self { kernel, x, y, shape, params, statistics } = self;
        let (first_x, x) = x.split_at(n, shape.ldx);
        let (first_y, y) = y.split_at_mut(n * shape.ldy);
        let (first_statistics, statistics) = statistics.split_at(n);
        let first_shape = RowShape { rows: n, ..shape };
        let shape = RowShape { rows: shape.rows - n, ..shape };
        (
            Self { kernel, x: first_x, y: first_y, shape: first_shape, params, statistics: first_statistics },
            Self { kernel, x, y, shape, params, statistics },
        )
    }

    fn run(self) {
        let Self { kernel, x, y, shape, params, statistics } = self;
        let dst = y.as_mut_ptr();
        let (x, add, add_stride) = match x {
            // Without `add`, the kernel only reads x.
            NormInput::Slice(x) => (x.as_ptr().cast_mut(), std::ptr::null(), 0),
            NormInput::InPlace => (dst, std::ptr::null(), 0),
            NormInput::Sum { x, add, ld_add } => (x.as_mut_ptr(), add.as_ptr(), ld_add),
        };
        let pointer = |vector: Option<&[f32]>| vector.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let target = |figures: Option<&mut [f32]>| figures.map_or(std::ptr::null_mut(), <[f32]>::as_mut_ptr);
        let args = NormArgs {
            x,
            x_stride: shape.ldx,
            add,
            add_stride,
            dst,
            dst_stride: shape.ldy,
            gamma: pointer(params.weight),
            beta: pointer(params.bias),
            eps: params.eps,
            rows: shape.rows,
            cols: shape.cols,
            mean: target(statistics.mean),
            rstd: target(statistics.rstd),
        };
        // SAFETY: x, add and y hold the rows that the shape says, the vectors a row, the figures one element for each
        // row, as the op has checked; the outputs are borrowed exclusively.
        unsafe { kernel.run(&args) }
    }
}

impl<'a> NormInput<'a> {
    /// The first `n` rows, and those behind them.
    fn split_at(self, n: usize, ldx: usize) -> (Self, Self) {
        match self {
            NormInput::Slice(x) => {
                let (first, x) = x.split_at(n * ldx);
                (NormInput::Slice(first), NormInput::Slice(x))
            }
            NormInput::InPlace => (NormInput::InPlace, NormInput::InPlace),
            NormInput::Sum { x, add, ld_add } => {
                let ((first, x), (first_add, add)) = (x.split_at_mut(n * ldx), add.split_at(n * ld_add));
                (NormInput::Sum { x: first, add: first_add, ld_add }, NormInput::Sum { x, add, ld_add })
            }
        }
    }
}

impl<'a> NormStatistics<'a> {
    /// The figures of the first `n` rows, and those of the rows behind them.
    fn split_at(self, n: usize) -> (Self, Self) {
        let split = |figures: Option<&'a mut [f32]>| figures.map(|figures| figures.split_at_mut(n)).unzip();
        let ((first_mean, mean), (first_rstd, rstd)) = (split(self.mean), split(self.rstd));
        (Self { mean: first_mean, rstd: first_rstd }, Self { mean, rstd })
    }
}
