//! LayerNorm and RMSNorm of rows, alone or fused with the residual sum before them.
//! The mean comes first and the variance from the deviations, in a second pass over a row that is in cache
//! by then: E(x²) − E(x)² would cancel.

use super::info;
use super::reduce::{GROUP, Sum, SumOfSquares, Terms, Values, fold, group_len, load, store, visit};
use super::softmax::whole_rows;
use crate::error::{Error, Result};
use crate::isa::{Isa, SimdBody};
use crate::kernels::info::KernelInfo;

/// Rows to normalise.
#[derive(Clone, Copy, Debug)]
pub struct NormArgs {
    /// First row of the input. Only read where `add` is null; else overwritten with the sum.
    pub x: *mut f32,
    /// Floats between rows of the input.
    pub x_stride: usize,
    /// First row of what is added to the input first, or null.
    pub add: *const f32,
    /// Floats between rows of `add`.
    pub add_stride: usize,
    /// First row of the output; may be `x`, with the same stride, where `add` is null.
    pub dst: *mut f32,
    /// Floats between rows of the output.
    pub dst_stride: usize,
    /// `cols` factors, or null for 1.
    pub gamma: *const f32,
    /// `cols` summands, or null for 0.
    pub beta: *const f32,
    /// Added to the variance (LayerNorm) or the mean square (RMSNorm).
    pub eps: f32,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Gets the mean of each row (0 for RMSNorm), for a backward pass; or null.
    pub mean: *mut f32,
    /// Gets the factor 1/√… of each row, for a backward pass; or null.
    pub rstd: *mut f32,
}

/// A normalisation of rows.
///
/// LayerNorm: (x − mean) / √(variance + eps) · gamma + beta. RMSNorm: x / √(mean of x² + eps) · gamma + beta.
/// With `add`, x + add takes the place of x, and is written there too (rounded to f32 before anything else).
///
/// With u = 2⁻²⁴ and s = cols / (4·LANES) + 10: the factor r = 1/√… is off by at most (½ s + 6)·u, relatively; a mean by
/// s·u · mean |x|, which shifts results by r·|gamma| times that. Squares must not overflow (|x| < 1e18). A row with
/// NaN or infinities comes out NaN; so does one without variance where eps is 0.
#[derive(Clone, Copy)]
pub struct Norm {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(&NormArgs),
}

/// What rows are scaled and shifted by: the same for every row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Affine<'a> {
    /// A factor for each column; absent for 1.
    pub gamma: Option<&'a [f32]>,
    /// A summand for each column; absent for 0.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance or mean square.
    pub eps: f32,
}

/// No place for means and factors.
const NOT_KEPT: (*mut f32, *mut f32) = (std::ptr::null_mut(), std::ptr::null_mut());

impl Norm {
    pub(super) fn layer<I: Isa>() -> Self {
        Self { info: info::<I>("layer_norm"), run: entry::<I, true> }
    }

    pub(super) fn rms<I: Isa>() -> Self {
        Self { info: info::<I>("rms_norm"), run: entry::<I, false> }
    }

    /// Normalises adjoining rows of `cols`, and keeps each row's mean (0 for RMSNorm) and factor 1/√….
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths do not fit.
    pub fn apply_and_keep(
        &self,
        src: &[f32],
        dst: &mut [f32],
        cols: usize,
        affine: Affine,
        mean: &mut [f32],
        rstd: &mut [f32],
    ) -> Result<()> {
        let rows = whole_rows(src.len(), dst.len(), cols)?;
        if mean.len() != rows || rstd.len() != rows {
            let (means, factors) = (mean.len(), rstd.len());
            return Err(Error::invalid(format!("{means} means and {factors} factors for {rows} rows")));
        }
        let x = src.as_ptr().cast_mut();
        let kept = (mean.as_mut_ptr(), rstd.as_mut_ptr());
        // SAFETY: both slices hold `rows` rows of `cols`, mean and rstd `rows`; without `add`, x is only read.
        unsafe { self.adjoining(x, std::ptr::null(), dst.as_mut_ptr(), rows, cols, affine, kept) }
    }

    /// Normalises adjoining rows of `cols`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths do not fit.
    pub fn apply(&self, src: &[f32], dst: &mut [f32], cols: usize, affine: Affine) -> Result<()> {
        let rows = whole_rows(src.len(), dst.len(), cols)?;
        let x = src.as_ptr().cast_mut();
        // SAFETY: both slices hold `rows` rows of `cols`, and without `add`, x is only read.
        unsafe { self.adjoining(x, std::ptr::null(), dst.as_mut_ptr(), rows, cols, affine, NOT_KEPT) }
    }

    /// Normalises adjoining rows of `cols` in place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths do not fit.
    pub fn apply_in_place(&self, x: &mut [f32], cols: usize, affine: Affine) -> Result<()> {
        let rows = whole_rows(x.len(), x.len(), cols)?;
        let x = x.as_mut_ptr();
        // SAFETY: the slice holds `rows` rows of `cols`.
        unsafe { self.adjoining(x, std::ptr::null(), x, rows, cols, affine, NOT_KEPT) }
    }

    /// `x += add`, and the normalised sum to `dst`; adjoining rows of `cols`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths do not fit.
    pub fn add_and_apply(
        &self,
        x: &mut [f32],
        add: &[f32],
        dst: &mut [f32],
        cols: usize,
        affine: Affine,
    ) -> Result<()> {
        whole_rows(add.len(), dst.len(), cols)?;
        let rows = whole_rows(x.len(), dst.len(), cols)?;
        // SAFETY: all three slices hold `rows` rows of `cols`.
        unsafe {
            self.adjoining(x.as_mut_ptr(), add.as_ptr(), dst.as_mut_ptr(), rows, cols, affine, NOT_KEPT)
        }
    }

    /// # Safety
    /// As [`Norm::run`], with rows that adjoin.
    #[allow(clippy::too_many_arguments)] // what `NormArgs` gathers, before it is checked
    unsafe fn adjoining(
        &self,
        x: *mut f32,
        add: *const f32,
        dst: *mut f32,
        rows: usize,
        cols: usize,
        affine: Affine,
        (mean, rstd): (*mut f32, *mut f32),
    ) -> Result<()> {
        for (name, values) in [("gamma", affine.gamma), ("beta", affine.beta)] {
            if values.is_some_and(|values| values.len() != cols) {
                return Err(Error::invalid(format!("{name} must hold one float for each of {cols} columns")));
            }
        }
        let pointer = |values: Option<&[f32]>| values.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let args = NormArgs {
            x,
            x_stride: cols,
            add,
            add_stride: cols,
            dst,
            dst_stride: cols,
            gamma: pointer(affine.gamma),
            beta: pointer(affine.beta),
            eps: affine.eps,
            rows,
            cols,
            mean,
            rstd,
        };
        // SAFETY: the caller's promise; gamma and beta hold `cols` floats.
        unsafe { (self.run)(&args) };
        Ok(())
    }

    /// Normalises the rows that `args` describes.
    ///
    /// # Safety
    /// Each row of `x` (and of `add`, gamma and beta where not null) is readable, and each row of `dst` writable,
    /// for `cols` floats; with `add`, rows of `x` are writable too. `mean` and `rstd` are writable for `rows` floats
    /// where not null. `dst` may be `x` where `add` is null; otherwise what is written overlaps nothing else.
    pub unsafe fn run(&self, args: &NormArgs) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(args) }
    }
}

/// # Safety
/// `I` is available; `args` as [`Norm::run`] says.
unsafe fn entry<I: Isa, const LAYER: bool>(args: &NormArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Rows::<LAYER>(args))
}

/// LayerNorm (`LAYER`) or RMSNorm.
struct Rows<'a, const LAYER: bool>(&'a NormArgs);

impl<const LAYER: bool> SimdBody for Rows<'_, LAYER> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let args = self.0;
        let mut first = 0;
        while first < args.rows {
            let rows = group_len(args.rows - first, args.cols);
            // SAFETY: the rows lie inside what the caller promised.
            unsafe {
                match (args.gamma.is_null(), args.beta.is_null()) {
                    (true, true) => group::<I, LAYER, false, false>(isa, args, first, rows),
                    (true, false) => group::<I, LAYER, false, true>(isa, args, first, rows),
                    (false, true) => group::<I, LAYER, true, false>(isa, args, first, rows),
                    (false, false) => group::<I, LAYER, true, true>(isa, args, first, rows),
                }
            }
            first += rows;
        }
    }
}

/// Each step for all rows of a group before the next: up to [`GROUP`] of them.
///
/// # Safety
/// As [`Norm::run`], for these rows.
#[inline(always)]
unsafe fn group<I: Isa, const LAYER: bool, const GAMMA: bool, const BETA: bool>(
    isa: I,
    args: &NormArgs,
    first: usize,
    rows: usize,
) {
    let n = args.cols;
    let share = 1.0 / n as f32;
    let (mut mean, mut rstd) = ([0.0; GROUP], [0.0; GROUP]);
    // SAFETY: the caller's promise.
    unsafe {
        for (g, mean) in mean.iter_mut().take(rows).enumerate() {
            let x = args.x.add((first + g) * args.x_stride);
            if !args.add.is_null() {
                visit(isa, &ResidualSum { x, add: args.add.add((first + g) * args.add_stride) }, n);
            }
            if LAYER {
                *mean = fold::<Sum, I>(isa, &Values(x), n) * share;
            }
        }
        for g in 0..rows {
            let x = args.x.add((first + g) * args.x_stride);
            rstd[g] = if LAYER {
                fold::<SumOfSquares, I>(isa, &Deviations { x, mean: mean[g] }, n)
            } else {
                fold::<SumOfSquares, I>(isa, &Values(x), n)
            };
        }
        for rstd in &mut rstd {
            *rstd = 1.0 / (*rstd * share + args.eps).sqrt();
        }
        for g in 0..rows {
            let r = first + g;
            let (x, dst) = (args.x.add(r * args.x_stride), args.dst.add(r * args.dst_stride));
            let (mean, rstd) = (mean[g], rstd[g]);
            visit(isa, &Normalised::<LAYER, GAMMA, BETA> { x, dst, mean, rstd, args }, n);
            if !args.mean.is_null() {
                args.mean.add(r).write(mean);
            }
            if !args.rstd.is_null() {
                args.rstd.add(r).write(rstd);
            }
        }
    }
}

/// x + add, stored to x on the way.
struct ResidualSum {
    x: *mut f32,
    add: *const f32,
}

impl Terms for ResidualSum {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = isa.add(load(isa, self.x.add(i), count), load(isa, self.add.add(i), count));
            store(isa, self.x.add(i), sum, count);
            sum
        }
    }
}

/// x − mean.
struct Deviations {
    x: *const f32,
    mean: f32,
}

impl Terms for Deviations {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        isa.sub(unsafe { load(isa, self.x.add(i), count) }, isa.splat(self.mean))
    }
}

/// (x − mean) · rstd · gamma + beta, stored to dst; what the flags leave out does not count.
struct Normalised<'a, const LAYER: bool, const GAMMA: bool, const BETA: bool> {
    x: *const f32,
    dst: *mut f32,
    mean: f32,
    rstd: f32,
    args: &'a NormArgs,
}

impl<const LAYER: bool, const GAMMA: bool, const BETA: bool> Terms for Normalised<'_, LAYER, GAMMA, BETA> {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let &Self { x, dst, mean, rstd, args } = self;
        // SAFETY: the caller's promise.
        unsafe {
            let mut y = load(isa, x.add(i), count);
            if LAYER {
                y = isa.sub(y, isa.splat(mean));
            }
            y = isa.mul(y, isa.splat(rstd));
            y = match (GAMMA, BETA) {
                (true, true) => {
                    isa.mul_add(y, load(isa, args.gamma.add(i), count), load(isa, args.beta.add(i), count))
                }
                (true, false) => isa.mul(y, load(isa, args.gamma.add(i), count)),
                (false, true) => isa.add(y, load(isa, args.beta.add(i), count)),
                (false, false) => y,
            };
            store(isa, dst.add(i), y, count);
            y
        }
    }
}
