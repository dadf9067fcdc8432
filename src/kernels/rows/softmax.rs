//! Softmax of rows and its logarithm: the largest element, then exponentials and their sum, then a factor.
//! scale·x − max is one fused step, and its rounding is the only error of the exponent; an error of max itself cancels
//! in the quotient.

use super::reduce::{GROUP, Max, Sum, fold, group_len};
use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::unary::functions::Scale;
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{Function, Over, Rows, RowsMut, Stored, Terms, visit};
use std::ptr::null;

/// Rows to take the softmax of.
///
/// # Memory
/// The visible part of each row of the input, and of the mask where not null, is readable, each output row
/// writable for `cols` floats; input and output are the same or do not overlap.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct SoftmaxArgs {
    /// First row of the input.
    pub src: *const f32,
    /// Floats between rows of the input.
    pub src_stride: usize,
    /// First row of the output; may be `src`, with the same stride.
    pub dst: *mut f32,
    /// Floats between rows of the output.
    pub dst_stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Factor on the input; any finite one.
    pub scale: f32,
    /// `Some(v)`: row r sees its first v + r elements only, and its others come out 0. `None`: all.
    pub causal: Option<usize>,
    /// First row of a mask that is added to scale · x, where −∞ hides an element; or null.
    pub mask: *const f32,
    /// Floats between rows of the mask; 0 where all rows share one.
    pub mask_stride: usize,
}

/// How softmax weighs its rows beforehand; the default changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Weighing<'a> {
    /// Factor on the input; any finite one.
    pub scale: f32,
    /// `Some(v)`: row r sees its first v + r elements only, and its others come out 0.
    pub causal: Option<usize>,
    /// Added to scale · x: as many rows as the input has, or one for all. −∞ hides an element.
    pub mask: Option<&'a [f32]>,
}

impl Default for Weighing<'_> {
    fn default() -> Self {
        Self { scale: 1.0, causal: None, mask: None }
    }
}

/// Softmax of each row of `scale · x + mask`.
///
/// A row with NaN, +∞, or nothing but −∞ comes out all NaN (as in PyTorch and ONNX); one that sees no element,
/// all 0. Elements that are not visible are not read, neither is their mask.
///
/// Error of each result y: at most (4 + d) ULP, d how far its exponent lies below the row's largest, and the sum's
/// (cols / (4·LANES) + 8) · 2⁻²⁴ · y, and 2⁻¹²⁶. With a mask, and on the scalar level, which does not fuse,
/// scale·x + mask is rounded beforehand: that moves exponents by 2⁻²⁴·|scale·x| + 2⁻²⁴·|scale·x + mask|, for the
/// element and for the row's largest, which adds to d.
pub type Softmax = Kernel<SoftmaxArgs>;

impl Kernel<SoftmaxArgs> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("softmax", "f32"), code: Code::of::<I, SoftmaxRows>() }
    }

    /// Softmax of adjoining rows of `cols`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the lengths differ or are no whole number of rows.
    pub fn apply(&self, src: &[f32], dst: &mut [f32], cols: usize, weighing: Weighing) -> Result<()> {
        self.adjoining(Some(src), dst, cols, weighing)
    }

    /// Softmax of adjoining rows of `cols`, in place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the length is no whole number of rows.
    pub fn apply_in_place(&self, x: &mut [f32], cols: usize, weighing: Weighing) -> Result<()> {
        self.adjoining(None, x, cols, weighing)
    }

    /// Softmax of rows of `cols` without gaps; without `src`, in place.
    fn adjoining(
        &self,
        src: Option<&[f32]>,
        dst: &mut [f32],
        cols: usize,
        Weighing { scale, causal, mask }: Weighing,
    ) -> Result<()> {
        let rows = whole_rows(src.map_or(dst.len(), <[f32]>::len), dst.len(), cols)?;
        let dst = dst.as_mut_ptr();
        let mask_len = mask.map_or(0, <[f32]>::len);
        if mask.is_some() && mask_len != rows * cols && mask_len != cols {
            return Err(Error::invalid(format!("a mask of {mask_len} floats for {rows} rows of {cols}")));
        }
        let args = SoftmaxArgs {
            src: src.map_or(dst.cast_const(), <[f32]>::as_ptr),
            src_stride: cols,
            dst,
            dst_stride: cols,
            rows,
            cols,
            scale,
            causal,
            mask: mask.map_or(null(), <[f32]>::as_ptr),
            mask_stride: if mask_len == cols { 0 } else { cols },
        };
        // SAFETY: both slices hold `rows` rows of `cols`, the mask its rows, and the output is borrowed mutably.
        unsafe { self.run(&args) };
        Ok(())
    }
}

/// Rows to take the logarithm of the softmax of.
///
/// # Memory
/// Each row of the input is readable, each of the output writable for `cols` floats; input and output are the same
/// or do not overlap.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct LogSoftmaxArgs {
    /// First row of the input.
    pub src: *const f32,
    /// Floats between rows of the input.
    pub src_stride: usize,
    /// First row of the output; may be `src`, with the same stride.
    pub dst: *mut f32,
    /// Floats between rows of the output.
    pub dst_stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

/// Logarithm of the softmax: x − max − ln Σ e^(x − max), for each row.
///
/// Absolute error of each result: at most (cols / (4·LANES) + 16 + 2·|x − max| + 6·ln cols) · 2⁻²⁴. NaN and
/// infinities as in [`Softmax`], but −∞ among finite elements stays −∞.
pub type LogSoftmax = Kernel<LogSoftmaxArgs>;

impl Kernel<LogSoftmaxArgs> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("log_softmax", "f32"), code: Code::of::<I, LogSoftmaxRows>() }
    }

    /// Logarithm of the softmax of adjoining rows of `cols`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the lengths differ or are no whole number of rows.
    pub fn apply(&self, src: &[f32], dst: &mut [f32], cols: usize) -> Result<()> {
        let rows = whole_rows(src.len(), dst.len(), cols)?;
        let (src, dst, src_stride, dst_stride) = (src.as_ptr(), dst.as_mut_ptr(), cols, cols);
        // SAFETY: both slices hold `rows` rows of `cols`, and the output is borrowed mutably.
        unsafe { self.run(&LogSoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols }) };
        Ok(())
    }
}

/// The number of rows of `cols` in two buffers, if both hold the same whole number of them.
pub(super) fn whole_rows(src: usize, dst: usize, cols: usize) -> Result<usize> {
    let rows = src.checked_div(cols).unwrap_or(0);
    if src != dst || rows * cols != src {
        return Err(Error::invalid(format!("{src} floats in and {dst} out are not rows of {cols}")));
    }
    Ok(rows)
}

/// The memory that arguments name. Rows of the mask, which may be one and the same, are there with a mask.
struct Memory<'a> {
    args: &'a SoftmaxArgs,
    src: Rows,
    dst: RowsMut,
    mask: Rows,
}

struct SoftmaxRows;

impl Routine<SoftmaxArgs> for SoftmaxRows {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &SoftmaxArgs) {
        let &SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, mask, mask_stride, .. } = args;
        let masks = if mask.is_null() { 0 } else { rows };
        // SAFETY: the caller promises what rows see of input and mask, of which no more is read, and the output.
        let all = unsafe {
            Memory {
                args,
                src: Rows::new(src, src_stride, rows, cols),
                dst: RowsMut::new(dst, dst_stride, rows, cols),
                mask: Rows::new(mask, mask_stride, masks, cols),
            }
        };
        let mut first = 0;
        while first < args.rows {
            let rows = group_len(args.rows - first, args.cols);
            if args.mask.is_null() {
                group::<I, Unmasked>(isa, &all, first, rows);
            } else {
                group::<I, Masked>(isa, &all, first, rows);
            }
            first += rows;
        }
    }
}

/// The exponents of a row, scale · x or scale · x + mask.
trait Exponents {
    /// e^(exponent − max) along row `r`.
    fn powers(all: &Memory<'_>, r: usize, max: f32) -> impl Terms;
    /// The largest of the first `n` exponents of row `r`, which sees as many.
    fn largest<I: Isa>(isa: I, all: &Memory<'_>, r: usize, n: usize) -> f32;
}

/// Takes all rows of a group through each step before the next: up to [`GROUP`] of them.
#[inline(always)]
fn group<I: Isa, E: Exponents>(isa: I, all: &Memory<'_>, first: usize, rows: usize) {
    let args = all.args;
    let cols = args.cols;
    let (mut max, mut sum) = ([0.0; GROUP], [0.0; GROUP]);
    for (g, max) in max.iter_mut().take(rows).enumerate() {
        *max = E::largest(isa, all, first + g, visible(args, first + g));
    }
    for (g, sum) in sum.iter_mut().enumerate().take(rows) {
        let powers = Stored(E::powers(all, first + g, max[g]), all.dst.row(first + g));
        *sum = fold::<Sum, I>(isa, &powers, visible(args, first + g));
    }
    for (g, sum) in sum.iter().enumerate().take(rows) {
        let (x, seen) = (all.dst.row(first + g), visible(args, first + g));
        visit(isa, &Stored(Over(Scale(1.0 / sum), [x.row()]), x), 0, seen);
        if seen < cols {
            x.clear_from(seen);
        }
    }
}

/// How many elements row `r` sees.
#[inline(always)]
fn visible(args: &SoftmaxArgs, r: usize) -> usize {
    match args.causal {
        Some(v) => args.cols.min(v.saturating_add(r)),
        None => args.cols,
    }
}

/// scale · x.
struct Unmasked;

impl Exponents for Unmasked {
    #[inline(always)]
    fn powers(all: &Memory<'_>, r: usize, max: f32) -> impl Terms {
        Over(ExpOfScaled { scale: all.args.scale, max }, [all.src.row(r)])
    }

    #[inline(always)]
    fn largest<I: Isa>(isa: I, all: &Memory<'_>, r: usize, n: usize) -> f32 {
        let (x, scale) = (all.src.row(r), all.args.scale);
        if scale >= 0.0 {
            scale * fold::<Max, I>(isa, &x, n)
        } else {
            -scale * fold::<Max, I>(isa, &Over(Negated, [x]), n)
        }
    }
}

/// e^(scale · x − max).
#[derive(Clone, Copy)]
struct ExpOfScaled {
    scale: f32,
    max: f32,
}

impl Function<1> for ExpOfScaled {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::exp_flushed(isa, isa.mul_add(x, isa.splat(self.scale), isa.splat(-self.max)))
    }
}

/// −x.
#[derive(Clone, Copy)]
struct Negated;

impl Function<1> for Negated {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.sub(isa.zero(), x)
    }
}

/// scale · x + mask.
struct Masked;

impl Masked {
    /// A function of row `r` and its mask.
    #[inline(always)]
    fn over<F>(all: &Memory<'_>, r: usize, function: F) -> Over<F, 2> {
        Over(function, [all.src.row(r), all.mask.row(r)])
    }
}

impl Exponents for Masked {
    #[inline(always)]
    fn powers(all: &Memory<'_>, r: usize, max: f32) -> impl Terms {
        Self::over(all, r, ExpOfMasked { masked: ScaledAndMasked(all.args.scale), max })
    }

    #[inline(always)]
    fn largest<I: Isa>(isa: I, all: &Memory<'_>, r: usize, n: usize) -> f32 {
        fold::<Max, I>(isa, &Self::over(all, r, ScaledAndMasked(all.args.scale)), n)
    }
}

/// scale · x + mask.
#[derive(Clone, Copy)]
struct ScaledAndMasked(f32);

impl Function<2> for ScaledAndMasked {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, mask]: [I::F32; 2]) -> I::F32 {
        isa.mul_add(x, isa.splat(self.0), mask)
    }
}

/// e^(scale · x + mask − max).
#[derive(Clone, Copy)]
struct ExpOfMasked {
    masked: ScaledAndMasked,
    max: f32,
}

impl Function<2> for ExpOfMasked {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, x: [I::F32; 2]) -> I::F32 {
        vecmath::exp_flushed(isa, isa.sub(self.masked.call(isa, x), isa.splat(self.max)))
    }
}

struct LogSoftmaxRows;

impl Routine<LogSoftmaxArgs> for LogSoftmaxRows {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &LogSoftmaxArgs) {
        let &LogSoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols } = args;
        // SAFETY: the caller promises the rows.
        let (src, dst) =
            unsafe { (Rows::new(src, src_stride, rows, cols), RowsMut::new(dst, dst_stride, rows, cols)) };
        for r in 0..rows {
            let (src, dst) = (src.row(r), dst.row(r));
            let max = fold::<Max, I>(isa, &src, cols);
            let log_sum = fold::<Sum, I>(isa, &Over(ExpBelow(max), [src]), cols).ln();
            visit(isa, &Stored(Over(Shifted { first: max, second: log_sum }, [src]), dst), 0, cols);
        }
    }
}

/// e^(x − max).
#[derive(Clone, Copy)]
pub(in crate::kernels) struct ExpBelow(pub f32);

impl Function<1> for ExpBelow {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::exp_flushed(isa, isa.sub(x, isa.splat(self.0)))
    }
}

/// (x − first) − second.
#[derive(Clone, Copy)]
struct Shifted {
    first: f32,
    second: f32,
}

impl Function<1> for Shifted {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.sub(isa.sub(x, isa.splat(self.first)), isa.splat(self.second))
    }
}
