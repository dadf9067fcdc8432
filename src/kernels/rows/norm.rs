//! LayerNorm and RMSNorm of rows, alone or fused with the residual sum before them.
//! The mean comes first and the variance from the deviations, in a second pass over a row that is in cache
//! by then: E(x²) − E(x)² would cancel.

use super::reduce::{GROUP, Sum, SumOfSquares, fold, group_len};
use super::softmax::whole_rows;
use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::unary::functions::Add;
use crate::kernels::vectors::{Function, Over, Row, RowMut, Rows, RowsMut, Stored, Terms, visit};
use std::ptr::{null, null_mut};

/// Rows to normalise.
///
/// # Memory
/// Each row of `x` (and of `add`, gamma and beta where not null) is readable, and each row of `dst` writable,
/// for `cols` floats; with `add`, rows of `x` are writable too. `mean` and `rstd` are writable for `rows` floats
/// where not null. `dst` may be `x` where `add` is null; otherwise no output overlaps anything else.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct NormArgs {
    /// First row of the input. Only read where `add` is null, else overwritten with the sum.
    pub x: *mut f32,
    /// Floats between rows of the input.
    pub x_stride: usize,
    /// First row of the summands that are added to the input beforehand, or null.
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
    /// The mean of each row (0 for RMSNorm) is written here, for a backward pass; or null.
    pub mean: *mut f32,
    /// The factor 1/√… of each row is written here, for a backward pass; or null.
    pub rstd: *mut f32,
}

/// A normalisation of rows.
///
/// LayerNorm: (x − mean) / √(variance + eps) · gamma + beta. RMSNorm: x / √(mean of x² + eps) · gamma + beta.
/// With `add`, x + add takes the place of x, and is written there too (rounded to f32 before anything else).
///
/// With u = 2⁻²⁴ and s = cols / (4·LANES) + 10: the factor r = 1/√… is off by at most (½ s + 6)·u, relatively; a mean
/// by s·u · mean |x|, which shifts results by r·|gamma| times that. Squares must not overflow (|x| < 1e18). A row with
/// NaN or infinities comes out NaN; so does one without variance where eps is 0.
pub type Norm = Kernel<NormArgs>;

/// Factors and summands of the columns, the same for every row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Affine<'a> {
    /// A factor for each column; absent for 1.
    pub gamma: Option<&'a [f32]>,
    /// A summand for each column; absent for 0.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance or mean square.
    pub eps: f32,
}

/// The rows to normalise, in a caller's slices.
enum Slices<'a> {
    /// From one slice to another.
    Apart(&'a [f32], &'a mut [f32]),
    /// In place.
    InPlace(&'a mut [f32]),
    /// The sum of the first two, which the first gets, to the third.
    Residual(&'a mut [f32], &'a [f32], &'a mut [f32]),
}

impl Kernel<NormArgs> {
    pub(super) const fn layer<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("layer_norm", "f32"), code: Code::of::<I, Normalise<true>>() }
    }

    pub(super) const fn rms<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("rms_norm", "f32"), code: Code::of::<I, Normalise<false>>() }
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
        self.adjoining(Slices::Apart(src, dst), cols, affine, Some((mean, rstd)))
    }

    /// Normalises adjoining rows of `cols`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths do not fit.
    pub fn apply(&self, src: &[f32], dst: &mut [f32], cols: usize, affine: Affine) -> Result<()> {
        self.adjoining(Slices::Apart(src, dst), cols, affine, None)
    }

    /// Normalises adjoining rows of `cols` in place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths do not fit.
    pub fn apply_in_place(&self, x: &mut [f32], cols: usize, affine: Affine) -> Result<()> {
        self.adjoining(Slices::InPlace(x), cols, affine, None)
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
        self.adjoining(Slices::Residual(x, add, dst), cols, affine, None)
    }

    /// Normalises adjoining rows, and keeps means and factors where there is room for them.
    fn adjoining(
        &self,
        slices: Slices<'_>,
        cols: usize,
        affine: Affine,
        kept: Option<(&mut [f32], &mut [f32])>,
    ) -> Result<()> {
        let (x, add, dst, rows) = match slices {
            Slices::Apart(x, dst) => {
                let rows = whole_rows(x.len(), dst.len(), cols)?;
                // Without `add`, x is only read.
                (x.as_ptr().cast_mut(), null(), dst.as_mut_ptr(), rows)
            }
            Slices::InPlace(x) => {
                let rows = whole_rows(x.len(), x.len(), cols)?;
                let x = x.as_mut_ptr();
                (x, null(), x, rows)
            }
            Slices::Residual(x, add, dst) => {
                whole_rows(add.len(), dst.len(), cols)?;
                let rows = whole_rows(x.len(), dst.len(), cols)?;
                (x.as_mut_ptr(), add.as_ptr(), dst.as_mut_ptr(), rows)
            }
        };
        for (name, values) in [("gamma", affine.gamma), ("beta", affine.beta)] {
            if values.is_some_and(|values| values.len() != cols) {
                return Err(Error::invalid(format!("{name} must hold one float for each of {cols} columns")));
            }
        }
        let (mean, rstd) = match kept {
            None => (null_mut(), null_mut()),
            Some((mean, rstd)) if mean.len() == rows && rstd.len() == rows => {
                (mean.as_mut_ptr(), rstd.as_mut_ptr())
            }
            Some((mean, rstd)) => {
                let (means, factors) = (mean.len(), rstd.len());
                return Err(Error::invalid(format!("{means} means and {factors} factors for {rows} rows")));
            }
        };
        let pointer = |values: Option<&[f32]>| values.map_or(null(), <[f32]>::as_ptr);
        let (gamma, beta, eps) = (pointer(affine.gamma), pointer(affine.beta), affine.eps);
        let (x_stride, add_stride, dst_stride) = (cols, cols, cols);
        let args = NormArgs {
            x,
            x_stride,
            add,
            add_stride,
            dst,
            dst_stride,
            gamma,
            beta,
            eps,
            rows,
            cols,
            mean,
            rstd,
        };
        // SAFETY: all slices hold `rows` rows of `cols`, or `cols` floats, or `rows`; those that are written are
        // borrowed mutably.
        unsafe { self.run(&args) };
        Ok(())
    }
}

/// LayerNorm (`LAYER`) or RMSNorm.
struct Normalise<const LAYER: bool>;

impl<const LAYER: bool> Routine<NormArgs> for Normalise<LAYER> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &NormArgs) {
        let &NormArgs { x, x_stride, add, add_stride, dst, dst_stride, rows, cols, mean, rstd, .. } = args;
        // SAFETY: the caller promises the memory.
        let all = unsafe {
            Memory {
                args,
                x: RowsMut::new(x, x_stride, rows, cols),
                add: Rows::new(add, add_stride, if add.is_null() { 0 } else { rows }, cols),
                dst: RowsMut::new(dst, dst_stride, rows, cols),
                gamma: Row::or_empty(args.gamma, cols),
                beta: Row::or_empty(args.beta, cols),
                mean: RowMut::or_empty(mean, rows),
                rstd: RowMut::or_empty(rstd, rows),
            }
        };
        let mut first = 0;
        while first < args.rows {
            let rows = group_len(args.rows - first, args.cols);
            match (args.gamma.is_null(), args.beta.is_null()) {
                (true, true) => group::<I, LAYER, false, false>(isa, &all, first, rows),
                (true, false) => group::<I, LAYER, false, true>(isa, &all, first, rows),
                (false, true) => group::<I, LAYER, true, false>(isa, &all, first, rows),
                (false, false) => group::<I, LAYER, true, true>(isa, &all, first, rows),
            }
            first += rows;
        }
    }
}

/// The memory that arguments name. Where a pointer is null, there are no rows or floats.
struct Memory<'a> {
    args: &'a NormArgs,
    x: RowsMut,
    add: Rows,
    dst: RowsMut,
    gamma: Row,
    beta: Row,
    mean: RowMut,
    rstd: RowMut,
}

/// Takes all rows of a group through each step before the next: up to [`GROUP`] of them.
#[inline(always)]
fn group<I: Isa, const LAYER: bool, const GAMMA: bool, const BETA: bool>(
    isa: I,
    all: &Memory<'_>,
    first: usize,
    rows: usize,
) {
    let args = all.args;
    let n = args.cols;
    let share = 1.0 / n as f32;
    let (mut mean, mut rstd) = ([0.0; GROUP], [0.0; GROUP]);
    for (g, mean) in mean.iter_mut().take(rows).enumerate() {
        let x = all.x.row(first + g);
        if !args.add.is_null() {
            visit(isa, &Stored(Over(Add, [x.row(), all.add.row(first + g)]), x), 0, n);
        }
        if LAYER {
            *mean = fold::<Sum, I>(isa, &x.row(), n) * share;
        }
    }
    for g in 0..rows {
        let x = all.x.row(first + g).row();
        rstd[g] = if LAYER {
            fold::<SumOfSquares, I>(isa, &Over(Less(mean[g]), [x]), n)
        } else {
            fold::<SumOfSquares, I>(isa, &x, n)
        };
    }
    for rstd in &mut rstd {
        *rstd = 1.0 / (*rstd * share + args.eps).sqrt();
    }
    for g in 0..rows {
        let r = first + g;
        let (x, mean, rstd) = (all.x.row(r).row(), mean[g], rstd[g]);
        let normalised = Normalised::<LAYER, GAMMA, BETA> { x, mean, rstd, gamma: all.gamma, beta: all.beta };
        visit(isa, &Stored(normalised, all.dst.row(r)), 0, n);
        if !all.mean.is_null() {
            all.mean.set(r, mean);
        }
        if !all.rstd.is_null() {
            all.rstd.set(r, rstd);
        }
    }
}

/// x less a number.
#[derive(Clone, Copy)]
struct Less(f32);

impl Function<1> for Less {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.sub(x, isa.splat(self.0))
    }
}

/// (x − mean) · rstd · gamma + beta, without the parts that the flags leave out.
struct Normalised<const LAYER: bool, const GAMMA: bool, const BETA: bool> {
    x: Row,
    mean: f32,
    rstd: f32,
    gamma: Row,
    beta: Row,
}

impl<const LAYER: bool, const GAMMA: bool, const BETA: bool> Terms for Normalised<LAYER, GAMMA, BETA> {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let &Self { x, mean, rstd, gamma, beta } = self;
        let mut y = x.load(isa, i, count);
        if LAYER {
            y = isa.sub(y, isa.splat(mean));
        }
        y = isa.mul(y, isa.splat(rstd));
        match (GAMMA, BETA) {
            (true, true) => isa.mul_add(y, gamma.load(isa, i, count), beta.load(isa, i, count)),
            (true, false) => isa.mul(y, gamma.load(isa, i, count)),
            (false, true) => isa.add(y, beta.load(isa, i, count)),
            (false, false) => y,
        }
    }
}
