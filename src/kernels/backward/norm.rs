//! What flows back through LayerNorm and RMSNorm to their input.

use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::rows::reduce::{GROUP, Sum, fold, group_len};
use crate::kernels::vectors::{Row, RowMut, Rows, RowsMut, Terms, visit};
use std::ptr::null;

/// Adjoining rows before a norm, the gradient behind it, and what the forward pass kept of each row
/// ([`Norm::apply_and_keep`](crate::kernels::rows::Norm::apply_and_keep)).
#[derive(Clone, Copy, Debug)]
pub struct NormRows<'a> {
    /// Rows of the norm's input.
    pub x: &'a [f32],
    /// Rows of the gradient of the norm's output.
    pub dy: &'a [f32],
    /// Elements of a row.
    pub cols: usize,
    /// The mean of each row; empty for RMSNorm.
    pub mean: &'a [f32],
    /// The factor 1/√… of each row.
    pub rstd: &'a [f32],
}

impl NormRows<'_> {
    /// The number of rows.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths don't fit.
    pub(super) fn check(&self, layer: bool) -> Result<usize> {
        let &Self { x, dy, cols, mean, rstd } = self;
        let rows = rstd.len();
        let means = if layer { rows } else { 0 };
        let floats = rows.checked_mul(cols);
        if floats != Some(x.len()) || floats != Some(dy.len()) || mean.len() != means {
            return Err(Error::invalid(format!(
                "{} and {} floats with {} means and {rows} factors are not rows of {cols}",
                x.len(),
                dy.len(),
                mean.len()
            )));
        }
        Ok(rows)
    }
}

/// Rows before a norm, the gradient behind it, and the gradient to write.
///
/// # Memory
/// Each row of `x` and `dy`, and gamma where not null, is readable for `cols` floats; `rstd`, and for LayerNorm `mean`,
/// for `rows`; rows of `dx` are writable, and readable with `accumulate`. `dx` is `x` or `dy` with the same stride
/// and without `accumulate`, or overlaps nothing else.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct NormBackwardArgs {
    /// First row of the norm's input.
    pub x: *const f32,
    /// Floats between rows of the input.
    pub x_stride: usize,
    /// First row of the gradient of the norm's output.
    pub dy: *const f32,
    /// Floats between rows of that gradient.
    pub dy_stride: usize,
    /// First row of the input's gradient, which is written; without `accumulate` it may be `x` or `dy`, with the same
    /// stride.
    pub dx: *mut f32,
    /// Floats between rows of the input's gradient.
    pub dx_stride: usize,
    /// `cols` factors, or null for 1.
    pub gamma: *const f32,
    /// The mean of each row; not read for RMSNorm.
    pub mean: *const f32,
    /// The factor 1/√… of each row.
    pub rstd: *const f32,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Adds to `dx` instead of overwriting it.
    pub accumulate: bool,
}

/// The gradient of a norm's input.
///
/// With a = dy·gamma and x̂ = (x − mean)·rstd (RMSNorm's mean is 0): dx = rstd·(a − mean of a − x̂ · mean of a·x̂); RMSNorm
/// leaves out the mean of a. Rows are computed each by itself, so any division of the rows gives the same bits.
///
/// With u = 2⁻²⁴ and s = cols / (4·LANES) + 16: an element is off by at most
/// rstd · (6·u·|a| + s·u·(mean of |a| + |x̂| · mean of |a·x̂|)), without the mean of |a| for RMSNorm, and by u times the
/// result where it is added to `dx`; mean and rstd count as exact. A row with NaN comes out NaN, one
/// with an infinity not finite.
pub type NormBackward = Kernel<NormBackwardArgs>;

/// The operation of LayerNorm's.
const LAYER_NORM: &str = "layer_norm_backward";

impl Kernel<NormBackwardArgs> {
    pub(super) const fn layer<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>(LAYER_NORM, "f32"), code: Code::of::<I, Backward<true>>() }
    }

    pub(super) const fn rms<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("rms_norm_backward", "f32"), code: Code::of::<I, Backward<false>>() }
    }

    /// Writes the gradient of the input to `dx`, or adds it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths don't fit; nothing is written then.
    pub fn apply(
        &self,
        norm: &NormRows<'_>,
        gamma: Option<&[f32]>,
        dx: &mut [f32],
        accumulate: bool,
    ) -> Result<()> {
        let rows = norm.check(self.info.op == LAYER_NORM)?;
        let cols = norm.cols;
        if dx.len() != norm.x.len() || gamma.is_some_and(|gamma| gamma.len() != cols) {
            return Err(Error::invalid(format!(
                "{} floats for the gradient of {rows} rows of {cols}",
                dx.len()
            )));
        }
        let args = NormBackwardArgs {
            x: norm.x.as_ptr(),
            x_stride: cols,
            dy: norm.dy.as_ptr(),
            dy_stride: cols,
            dx: dx.as_mut_ptr(),
            dx_stride: cols,
            gamma: gamma.map_or(null(), <[f32]>::as_ptr),
            mean: norm.mean.as_ptr(),
            rstd: norm.rstd.as_ptr(),
            rows,
            cols,
            accumulate,
        };
        // SAFETY: `check` has found `rows` rows of `cols` and as many factors, and means for LayerNorm; `dx` has as many
        // floats and is borrowed mutably.
        unsafe { self.run(&args) };
        Ok(())
    }
}

/// LayerNorm (`LAYER`) or RMSNorm.
struct Backward<const LAYER: bool>;

impl<const LAYER: bool> Routine<NormBackwardArgs> for Backward<LAYER> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &NormBackwardArgs) {
        let &NormBackwardArgs { x, x_stride, dy, dy_stride, dx, dx_stride, rows, cols, .. } = args;
        // SAFETY: the caller promises the memory.
        let all = unsafe {
            Memory {
                args,
                x: Rows::new(x, x_stride, rows, cols),
                dy: Rows::new(dy, dy_stride, rows, cols),
                dx: RowsMut::new(dx, dx_stride, rows, cols),
                gamma: Row::or_empty(args.gamma, cols),
                mean: Row::or_empty(args.mean, rows),
                rstd: Row::new(args.rstd, rows),
            }
        };
        let mut first = 0;
        while first < args.rows {
            let rows = group_len(args.rows - first, args.cols);
            if args.gamma.is_null() {
                group::<I, LAYER, false>(isa, &all, first, rows);
            } else {
                group::<I, LAYER, true>(isa, &all, first, rows);
            }
            first += rows;
        }
    }
}

/// The memory that arguments name; gamma has no floats where it isn't there.
struct Memory<'a> {
    args: &'a NormBackwardArgs,
    x: Rows,
    dy: Rows,
    dx: RowsMut,
    gamma: Row,
    /// Only read for LayerNorm.
    mean: Row,
    rstd: Row,
}

/// Takes all rows of a group through each step before the next: up to [`GROUP`] of them.
#[inline(always)]
fn group<I: Isa, const LAYER: bool, const GAMMA: bool>(isa: I, all: &Memory<'_>, first: usize, rows: usize) {
    let n = all.args.cols;
    let share = 1.0 / n as f32;
    let (mut level, mut slope) = ([0.0; GROUP], [0.0; GROUP]);
    for g in 0..rows {
        let row = NormRow::<LAYER, GAMMA>::new(all, first + g);
        if LAYER {
            level[g] = fold::<Sum, I>(isa, &Weighted(row), n) * share;
        }
        slope[g] = fold::<Sum, I>(isa, &Along(row), n) * share;
    }
    for g in 0..rows {
        let row = NormRow::<LAYER, GAMMA>::new(all, first + g);
        let dx = all.dx.row(first + g);
        // x̂ times the mean of a·x̂ is x − mean times this.
        let slope = slope[g] * row.rstd * row.rstd;
        let accumulate = all.args.accumulate;
        visit(isa, &Gradient { row, level: level[g], slope, dx, accumulate }, 0, n);
    }
}

/// A row of a norm and of the gradient behind it.
#[derive(Clone, Copy)]
struct NormRow<const LAYER: bool, const GAMMA: bool> {
    x: Row,
    dy: Row,
    gamma: Row,
    mean: f32,
    rstd: f32,
}

impl<const LAYER: bool, const GAMMA: bool> NormRow<LAYER, GAMMA> {
    #[inline(always)]
    fn new(all: &Memory<'_>, r: usize) -> Self {
        let mean = if LAYER { all.mean.get(r) } else { 0.0 };
        Self { x: all.x.row(r), dy: all.dy.row(r), gamma: all.gamma, mean, rstd: all.rstd.get(r) }
    }

    /// dy·gamma.
    #[inline(always)]
    fn weighted<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let dy = self.dy.load(isa, i, count);
        if GAMMA { isa.mul(dy, self.gamma.load(isa, i, count)) } else { dy }
    }

    /// x − mean.
    #[inline(always)]
    fn centred<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let x = self.x.load(isa, i, count);
        if LAYER { isa.sub(x, isa.splat(self.mean)) } else { x }
    }
}

/// dy·gamma.
struct Weighted<const LAYER: bool, const GAMMA: bool>(NormRow<LAYER, GAMMA>);

impl<const LAYER: bool, const GAMMA: bool> Terms for Weighted<LAYER, GAMMA> {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        self.0.weighted(isa, i, count)
    }
}

/// dy·gamma·(x − mean).
struct Along<const LAYER: bool, const GAMMA: bool>(NormRow<LAYER, GAMMA>);

impl<const LAYER: bool, const GAMMA: bool> Terms for Along<LAYER, GAMMA> {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        isa.mul(self.0.weighted(isa, i, count), self.0.centred(isa, i, count))
    }
}

/// The gradient, which is stored on the way.
struct Gradient<const LAYER: bool, const GAMMA: bool> {
    row: NormRow<LAYER, GAMMA>,
    /// The mean of dy·gamma, for LayerNorm.
    level: f32,
    /// The factor of x − mean.
    slope: f32,
    dx: RowMut,
    accumulate: bool,
}

impl<const LAYER: bool, const GAMMA: bool> Terms for Gradient<LAYER, GAMMA> {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let &Self { ref row, level, slope, dx, accumulate } = self;
        let mut gradient = row.weighted(isa, i, count);
        if LAYER {
            gradient = isa.sub(gradient, isa.splat(level));
        }
        gradient = isa.neg_mul_add(row.centred(isa, i, count), isa.splat(slope), gradient);
        let rstd = isa.splat(row.rstd);
        gradient = if accumulate {
            isa.mul_add(gradient, rstd, dx.load(isa, i, count))
        } else {
            isa.mul(gradient, rstd)
        };
        dx.store(isa, i, gradient, count);
        gradient
    }
}
