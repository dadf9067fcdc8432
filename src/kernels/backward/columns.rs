//! Sums over rows, column by column: the gradient of a bias, and those of a norm's gain and bias.
//!
//! Order of additions: rows go in runs of [`RUN`], counted from the call's first row. A run's sum starts at 0 and takes its
//! rows in order; the runs' sums are added to what the output holds, in order. So an output collects a batch's parts, and
//! any division of the columns gives the same bits, but a division of the rows doesn't.

use super::norm::NormRows;
use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::vectors::{Row, RowMut, Rows};
use std::ops::Range;
use std::ptr::null_mut;

/// Rows that are summed from 0.
const RUN: usize = 64;
/// Vectors of columns that go through a run together, for one sum a column: rows are far apart in memory, which likes to be
/// read in long pieces.
const STRIP: usize = 8;
/// The same for two sums a column: as many fit the registers.
const STRIP_OF_TWO: usize = 4;

/// Rows to sum, and sums to add to.
///
/// # Memory
/// Each row is readable, `out` readable and writable for `cols` floats, and it overlaps no row.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct ColumnSumsArgs {
    /// First row.
    pub dy: *const f32,
    /// Floats between rows.
    pub dy_stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// `cols` sums that are added to.
    pub out: *mut f32,
}

/// out\[j\] += Σ dy\[r\]\[j\], over all rows.
///
/// With u = 2⁻²⁴, an output is off by at most (64 + rows / 64 + 1)·u · (|out| + Σ|dy|).
pub type ColumnSums = Kernel<ColumnSumsArgs>;

impl Kernel<ColumnSumsArgs> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("column_sums", "f32"), code: Code::of::<I, Plain>() }
    }

    /// Adds adjoining rows of the output's length to it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the length is no whole number of rows.
    pub fn apply(&self, dy: &[f32], out: &mut [f32]) -> Result<()> {
        let cols = out.len();
        let rows = dy.len().checked_div(cols).unwrap_or(0);
        if rows * cols != dy.len() {
            return Err(Error::invalid(format!("{} floats are not rows of {cols}", dy.len())));
        }
        let args = ColumnSumsArgs { dy: dy.as_ptr(), dy_stride: cols, rows, cols, out: out.as_mut_ptr() };
        // SAFETY: the slice holds `rows` rows of `cols`, and the output, borrowed mutably, `cols` floats.
        unsafe { self.run(&args) };
        Ok(())
    }
}

/// Rows before a norm, the gradient behind it, and sums to add to.
///
/// # Memory
/// Each row of `x` and `dy` is readable for `cols` floats, `rstd`, and for LayerNorm `mean`, for `rows`; outputs that
/// are not null are readable and writable for `cols` floats and overlap nothing else.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct NormGradientArgs {
    /// First row of the norm's input.
    pub x: *const f32,
    /// Floats between rows of the input.
    pub x_stride: usize,
    /// First row of the gradient of the norm's output.
    pub dy: *const f32,
    /// Floats between rows of the gradient.
    pub dy_stride: usize,
    /// The mean of each row; not read for RMSNorm.
    pub mean: *const f32,
    /// The factor 1/√… of each row.
    pub rstd: *const f32,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// `cols` sums that are added to.
    pub dgamma: *mut f32,
    /// `cols` sums that are added to; or null, and always so for RMSNorm.
    pub dbeta: *mut f32,
}

/// The gradients of a norm's gain and bias: dgamma\[j\] += Σ dy\[r\]\[j\] · (x\[r\]\[j\] − mean\[r\]) · rstd\[r\], over all rows,
/// and dbeta\[j\] += Σ dy\[r\]\[j\].
///
/// With u = 2⁻²⁴, an output is off by at most (64 + rows / 64 + 4)·u · (|output| + Σ|term|); means and factors count as
/// exact.
pub type NormGradient = Kernel<NormGradientArgs>;

/// The operation of LayerNorm's.
const LAYER_NORM: &str = "layer_norm_gain";

impl Kernel<NormGradientArgs> {
    pub(super) const fn layer<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>(LAYER_NORM, "f32"), code: Code::of::<I, Gain<true>>() }
    }

    pub(super) const fn rms<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("rms_norm_gain", "f32"), code: Code::of::<I, Gain<false>>() }
    }

    /// Adds the gradients of adjoining rows.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths don't fit, or there is a `dbeta` for RMSNorm.
    pub fn apply(&self, norm: &NormRows<'_>, dgamma: &mut [f32], dbeta: Option<&mut [f32]>) -> Result<()> {
        let layer = self.info.op == LAYER_NORM;
        let rows = norm.check(layer)?;
        let cols = norm.cols;
        let fits = dbeta.as_ref().is_none_or(|dbeta| layer && dbeta.len() == cols);
        if dgamma.len() != cols || !fits {
            return Err(Error::invalid(format!("gradients of a norm's vectors for rows of {cols}")));
        }
        let args = NormGradientArgs {
            x: norm.x.as_ptr(),
            x_stride: cols,
            dy: norm.dy.as_ptr(),
            dy_stride: cols,
            mean: norm.mean.as_ptr(),
            rstd: norm.rstd.as_ptr(),
            rows,
            cols,
            dgamma: dgamma.as_mut_ptr(),
            dbeta: dbeta.map_or(null_mut(), <[f32]>::as_mut_ptr),
        };
        // SAFETY: `check` has found `rows` rows of `cols` and as many factors, and means for LayerNorm; outputs hold
        // `cols` floats and are borrowed mutably.
        unsafe { self.run(&args) };
        Ok(())
    }
}

/// N sums of each column over rows. Implementations are `#[inline(always)]`.
trait Sums<const N: usize> {
    /// Adds the terms of row `r` in columns `i .. i + count` to the sums; `count ≤ LANES`.
    fn add<I: Isa>(&self, isa: I, sums: [I::F32; N], r: usize, i: usize, count: usize) -> [I::F32; N];
}

/// Sums all rows, W vectors of columns at a time, and adds the sums to `out`; outputs that are null are not there.
#[inline(always)]
fn sum_rows<I: Isa, const W: usize, const N: usize>(
    isa: I,
    terms: &impl Sums<N>,
    rows: usize,
    cols: usize,
    out: [RowMut; N],
) {
    let wide = W * I::LANES;
    let mut first = 0;
    while first < rows {
        let run = first..rows.min(first + RUN);
        let mut i = 0;
        while i + wide <= cols {
            strip::<I, W, N>(isa, terms, run.clone(), i, I::LANES, out);
            i += wide;
        }
        while i + I::LANES <= cols {
            strip::<I, 1, N>(isa, terms, run.clone(), i, I::LANES, out);
            i += I::LANES;
        }
        if i < cols {
            strip::<I, 1, N>(isa, terms, run.clone(), i, cols - i, out);
        }
        first = run.end;
    }
}

/// Sums V vectors of columns from `i` on over a run of rows, and adds the sums to `out`; only the first `count` lanes of
/// each count.
#[inline(always)]
fn strip<I: Isa, const V: usize, const N: usize>(
    isa: I,
    terms: &impl Sums<N>,
    run: Range<usize>,
    i: usize,
    count: usize,
    out: [RowMut; N],
) {
    let mut sums = [[isa.zero(); N]; V];
    for r in run {
        for (v, sums) in sums.iter_mut().enumerate() {
            *sums = terms.add(isa, *sums, r, i + v * I::LANES, count);
        }
    }
    for (v, sums) in sums.iter().enumerate() {
        for (n, &sum) in sums.iter().enumerate() {
            if !out[n].is_null() {
                let at = i + v * I::LANES;
                out[n].store(isa, at, isa.add(out[n].load(isa, at, count), sum), count);
            }
        }
    }
}

struct Plain;

impl Routine<ColumnSumsArgs> for Plain {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &ColumnSumsArgs) {
        let &ColumnSumsArgs { dy, dy_stride, rows, cols, out } = args;
        // SAFETY: the caller promises rows and sums.
        let (dy, out) = unsafe { (Rows::new(dy, dy_stride, rows, cols), RowMut::new(out, cols)) };
        sum_rows::<I, STRIP, 1>(isa, &dy, rows, cols, [out]);
    }
}

impl Sums<1> for Rows {
    #[inline(always)]
    fn add<I: Isa>(&self, isa: I, [sum]: [I::F32; 1], r: usize, i: usize, count: usize) -> [I::F32; 1] {
        [isa.add(sum, self.row(r).load(isa, i, count))]
    }
}

/// Gradients of LayerNorm's vectors (`LAYER`), or of RMSNorm's gain.
struct Gain<const LAYER: bool>;

impl<const LAYER: bool> Routine<NormGradientArgs> for Gain<LAYER> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &NormGradientArgs) {
        let &NormGradientArgs { x, x_stride, dy, dy_stride, mean, rstd, rows, cols, .. } = args;
        // SAFETY: the caller promises the memory.
        let (terms, dgamma, dbeta) = unsafe {
            let terms = NormTerms {
                x: Rows::new(x, x_stride, rows, cols),
                dy: Rows::new(dy, dy_stride, rows, cols),
                mean: Row::or_empty(mean, rows),
                rstd: Row::new(rstd, rows),
            };
            (terms, RowMut::or_empty(args.dgamma, cols), RowMut::or_empty(args.dbeta, cols))
        };
        if LAYER {
            sum_rows::<I, STRIP_OF_TWO, 2>(isa, &terms, rows, cols, [dgamma, dbeta]);
        } else {
            sum_rows::<I, STRIP, 1>(isa, &terms, rows, cols, [dgamma]);
        }
    }
}

/// What the gradients of a norm's vectors are sums of.
struct NormTerms {
    x: Rows,
    dy: Rows,
    /// Only read for LayerNorm.
    mean: Row,
    rstd: Row,
}

/// Sums for LayerNorm's gain and bias.
impl Sums<2> for NormTerms {
    #[inline(always)]
    fn add<I: Isa>(
        &self,
        isa: I,
        [gain, bias]: [I::F32; 2],
        r: usize,
        i: usize,
        count: usize,
    ) -> [I::F32; 2] {
        let x = isa.sub(self.x.row(r).load(isa, i, count), isa.splat(self.mean.get(r)));
        let dy = self.dy.row(r).load(isa, i, count);
        let normed = isa.mul(x, isa.splat(self.rstd.get(r)));
        [isa.mul_add(dy, normed, gain), isa.add(bias, dy)]
    }
}

/// The sum for RMSNorm's gain.
impl Sums<1> for NormTerms {
    #[inline(always)]
    fn add<I: Isa>(&self, isa: I, [gain]: [I::F32; 1], r: usize, i: usize, count: usize) -> [I::F32; 1] {
        let x = self.x.row(r).load(isa, i, count);
        let dy = self.dy.row(r).load(isa, i, count);
        [isa.mul_add(dy, isa.mul(x, isa.splat(self.rstd.get(r))), gain)]
    }
}
