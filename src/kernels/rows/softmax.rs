//! Softmax of rows and its logarithm: the largest element, then exponentials and their sum, then a factor.
//! e^(scale·x − max) is computed as 2^(c·x − M) with c = scale · log₂e and M = max c·x, one fused step whose
//! rounding is all the error that the exponent gets; what M itself is off by cancels in the quotient.

use super::info;
use super::reduce::{Max, Negated, Sum, Terms, Values, fold, load, store, visit};
use crate::error::{Error, Result};
use crate::isa::{Isa, Kernel};
use crate::kernels::KernelInfo;
use crate::kernels::unary::vecmath;
use std::f32::consts::LOG2_E;

/// Rows to take the softmax of.
#[derive(Clone, Copy, Debug)]
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
}

/// Softmax of each row of `scale · x`.
///
/// A row with NaN, +∞, or nothing but −∞ comes out all NaN (as in PyTorch and ONNX); one that sees no element,
/// all 0. Elements that are not visible are not read.
///
/// Error of each result y: at most (cols / (4·LANES) + 16 + 2.1·(t + log₂ cols)) · 2⁻²⁴ · y + 2⁻¹²⁶, with t how far its
/// exponent lies below the row's largest, in powers of two (the mean of that over a row is at most log₂ cols).
/// On the scalar level, which does not fuse, the rounding of c·x comes to t: |c·x| more.
#[derive(Clone, Copy)]
pub struct Softmax {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(&SoftmaxArgs),
}

impl Softmax {
    pub(super) fn at<I: Isa>() -> Self {
        Self { info: info::<I>("softmax"), run: softmax_entry::<I> }
    }

    /// Softmax of adjoining rows of `cols`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the lengths differ or are no whole number of rows.
    pub fn apply(
        &self,
        src: &[f32],
        dst: &mut [f32],
        cols: usize,
        scale: f32,
        causal: Option<usize>,
    ) -> Result<()> {
        let rows = whole_rows(src.len(), dst.len(), cols)?;
        let (src_stride, dst_stride) = (cols, cols);
        let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
        // SAFETY: both slices hold `rows` rows of `cols`.
        unsafe { (self.run)(&SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, scale, causal }) };
        Ok(())
    }

    /// Softmax of adjoining rows of `cols`, in place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the length is no whole number of rows.
    pub fn apply_in_place(
        &self,
        x: &mut [f32],
        cols: usize,
        scale: f32,
        causal: Option<usize>,
    ) -> Result<()> {
        let rows = whole_rows(x.len(), x.len(), cols)?;
        let (src, dst) = (x.as_ptr(), x.as_mut_ptr());
        let (src_stride, dst_stride) = (cols, cols);
        // SAFETY: the slice holds `rows` rows of `cols`.
        unsafe { (self.run)(&SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, scale, causal }) };
        Ok(())
    }

    /// Softmax of the rows that `args` describes.
    ///
    /// # Safety
    /// The visible part of each input row is readable, each output row writable for `cols` floats; they are the
    /// same or do not overlap.
    pub unsafe fn run(&self, args: &SoftmaxArgs) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(args) }
    }
}

/// Logarithm of the softmax: x − max − ln Σ e^(x − max), for each row.
///
/// Absolute error of each result: at most (cols / (4·LANES) + 16 + 2·|x − max| + 6·ln cols) · 2⁻²⁴. NaN and
/// infinities as in [`Softmax`], but −∞ beside finite elements stays −∞. `scale` and `causal` have no effect.
#[derive(Clone, Copy)]
pub struct LogSoftmax {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(&SoftmaxArgs),
}

impl LogSoftmax {
    pub(super) fn at<I: Isa>() -> Self {
        Self { info: info::<I>("log_softmax"), run: log_softmax_entry::<I> }
    }

    /// Logarithm of the softmax of adjoining rows of `cols`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the lengths differ or are no whole number of rows.
    pub fn apply(&self, src: &[f32], dst: &mut [f32], cols: usize) -> Result<()> {
        let rows = whole_rows(src.len(), dst.len(), cols)?;
        let args = SoftmaxArgs {
            src: src.as_ptr(),
            src_stride: cols,
            dst: dst.as_mut_ptr(),
            dst_stride: cols,
            rows,
            cols,
            scale: 1.0,
            causal: None,
        };
        // SAFETY: both slices hold `rows` rows of `cols`.
        unsafe { (self.run)(&args) };
        Ok(())
    }

    /// Logarithm of the softmax of the rows that `args` describes.
    ///
    /// # Safety
    /// As [`Softmax::run`].
    pub unsafe fn run(&self, args: &SoftmaxArgs) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(args) }
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

/// # Safety
/// `I` is available; `args` as [`Softmax::run`] says.
unsafe fn softmax_entry<I: Isa>(args: &SoftmaxArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(SoftmaxRows(args))
}

/// # Safety
/// `I` is available; `args` as [`Softmax::run`] says.
unsafe fn log_softmax_entry<I: Isa>(args: &SoftmaxArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(LogSoftmaxRows(args))
}

struct SoftmaxRows<'a>(&'a SoftmaxArgs);

impl Kernel for SoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let &SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, scale, causal } = self.0;
        let factor = scale * LOG2_E;
        for r in 0..rows {
            let visible = causal.map_or(cols, |v| cols.min(v.saturating_add(r)));
            // SAFETY: row r lies inside what the caller promised.
            unsafe {
                let (src, dst) = (src.add(r * src_stride), dst.add(r * dst_stride));
                let terms = Exponentials { src, dst, factor, max: largest(isa, src, factor, visible) };
                let sum = fold::<Sum, I>(isa, &terms, visible);
                visit(isa, &Scaled { x: dst, factor: 1.0 / sum }, visible);
                std::slice::from_raw_parts_mut(dst.add(visible), cols - visible).fill(0.0);
            }
        }
    }
}

/// The largest `factor · x`.
///
/// # Safety
/// `x` is readable for `n` floats.
#[inline(always)]
unsafe fn largest<I: Isa>(isa: I, x: *const f32, factor: f32, n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        if factor >= 0.0 {
            factor * fold::<Max, I>(isa, &Values(x), n)
        } else {
            -factor * fold::<Max, I>(isa, &Negated(x), n)
        }
    }
}

/// 2^(factor · src − max), stored to `dst`.
struct Exponentials {
    src: *const f32,
    dst: *mut f32,
    factor: f32,
    max: f32,
}

impl Terms for Exponentials {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let x = load(isa, self.src.add(i), count);
            let power = vecmath::exp2(isa, isa.mul_add(x, isa.splat(self.factor), isa.splat(-self.max)));
            store(isa, self.dst.add(i), power, count);
            power
        }
    }
}

/// x · factor, stored to x.
struct Scaled {
    x: *mut f32,
    factor: f32,
}

impl Terms for Scaled {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let y = isa.mul(load(isa, self.x.add(i), count), isa.splat(self.factor));
            store(isa, self.x.add(i), y, count);
            y
        }
    }
}

struct LogSoftmaxRows<'a>(&'a SoftmaxArgs);

impl Kernel for LogSoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let &SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, .. } = self.0;
        for r in 0..rows {
            // SAFETY: row r lies inside what the caller promised.
            unsafe {
                let (src, dst) = (src.add(r * src_stride), dst.add(r * dst_stride));
                let max = fold::<Max, I>(isa, &Values(src), cols);
                let log_sum = fold::<Sum, I>(isa, &Powers { src, max }, cols).ln();
                visit(isa, &Shifted { src, dst, first: max, second: log_sum }, cols);
            }
        }
    }
}

/// e^(src − max). Unlike in a softmax, an error of a rounded `log₂e · max` would not cancel here.
struct Powers {
    src: *const f32,
    max: f32,
}

impl Terms for Powers {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        let x = unsafe { load(isa, self.src.add(i), count) };
        vecmath::exp2(isa, isa.mul(isa.sub(x, isa.splat(self.max)), isa.splat(LOG2_E)))
    }
}

/// (src − first) − second, stored to dst.
struct Shifted {
    src: *const f32,
    dst: *mut f32,
    first: f32,
    second: f32,
}

impl Terms for Shifted {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let x = isa.sub(load(isa, self.src.add(i), count), isa.splat(self.first));
            let y = isa.sub(x, isa.splat(self.second));
            store(isa, self.dst.add(i), y, count);
            y
        }
    }
}
