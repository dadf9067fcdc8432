//! Softmax of rows and its logarithm: the largest element, then exponentials and their sum, then a factor.
//! scale·x − max is one fused step, whose rounding is all the error that the exponent gets; what max itself is off
//! by cancels in the quotient.

use super::info;
use super::reduce::{GROUP, Max, Negated, Sum, Terms, Values, fold, group_len, load, store, visit};
use crate::error::{Error, Result};
use crate::isa::{Isa, SimdBody};
use crate::kernels::info::KernelInfo;
use crate::kernels::unary::vecmath;

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
    /// First row of what is added to scale · x, where −∞ hides an element; or null.
    pub mask: *const f32,
    /// Floats between rows of the mask; 0 where all rows share one.
    pub mask_stride: usize,
}

/// What softmax does to its rows first; the default changes nothing.
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
/// scale·x + mask is rounded before: what that moves exponents by, 2⁻²⁴·|scale·x| + 2⁻²⁴·|scale·x + mask| for the
/// element and for the row's largest, comes to d ULP.
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
    pub fn apply(&self, src: &[f32], dst: &mut [f32], cols: usize, weighing: Weighing) -> Result<()> {
        let rows = whole_rows(src.len(), dst.len(), cols)?;
        // SAFETY: both slices hold `rows` rows of `cols`.
        unsafe { self.adjoining(src.as_ptr(), dst.as_mut_ptr(), rows, cols, weighing) }
    }

    /// Softmax of adjoining rows of `cols`, in place.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the length is no whole number of rows.
    pub fn apply_in_place(&self, x: &mut [f32], cols: usize, weighing: Weighing) -> Result<()> {
        let rows = whole_rows(x.len(), x.len(), cols)?;
        let x = x.as_mut_ptr();
        // SAFETY: the slice holds `rows` rows of `cols`.
        unsafe { self.adjoining(x, x, rows, cols, weighing) }
    }

    /// # Safety
    /// As [`Softmax::run`], with rows that adjoin.
    unsafe fn adjoining(
        &self,
        src: *const f32,
        dst: *mut f32,
        rows: usize,
        cols: usize,
        Weighing { scale, causal, mask }: Weighing,
    ) -> Result<()> {
        let mask_len = mask.map_or(0, <[f32]>::len);
        if mask.is_some() && mask_len != rows * cols && mask_len != cols {
            return Err(Error::invalid(format!("a mask of {mask_len} floats for {rows} rows of {cols}")));
        }
        let args = SoftmaxArgs {
            src,
            src_stride: cols,
            dst,
            dst_stride: cols,
            rows,
            cols,
            scale,
            causal,
            mask: mask.map_or(std::ptr::null(), <[f32]>::as_ptr),
            mask_stride: if mask_len == cols { 0 } else { cols },
        };
        // SAFETY: the caller's promise, and the mask holds its rows.
        unsafe { (self.run)(&args) };
        Ok(())
    }

    /// Softmax of the rows that `args` describes.
    ///
    /// # Safety
    /// The visible part of each row of the input, and of the mask where not null, is readable, each output row
    /// writable for `cols` floats; input and output are the same or do not overlap.
    pub unsafe fn run(&self, args: &SoftmaxArgs) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(args) }
    }
}

/// Logarithm of the softmax: x − max − ln Σ e^(x − max), for each row.
///
/// Absolute error of each result: at most (cols / (4·LANES) + 16 + 2·|x − max| + 6·ln cols) · 2⁻²⁴. NaN and
/// infinities as in [`Softmax`], but −∞ beside finite elements stays −∞. `scale`, `causal` and
/// `mask` have no effect.
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
            mask: std::ptr::null(),
            mask_stride: 0,
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

impl SimdBody for SoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let args = self.0;
        let mut first = 0;
        while first < args.rows {
            let rows = group_len(args.rows - first, args.cols);
            // SAFETY: the rows lie inside what the caller promised.
            unsafe {
                if args.mask.is_null() {
                    softmax_group::<I, Unmasked>(isa, args, first, rows);
                } else {
                    softmax_group::<I, Masked>(isa, args, first, rows);
                }
            }
            first += rows;
        }
    }
}

/// How a row of exponents comes about before the largest is taken off.
trait Exponent: Terms + Copy {
    /// Row `r`.
    ///
    /// # Safety
    /// The row lies inside what the caller promised.
    unsafe fn row(args: &SoftmaxArgs, r: usize) -> Self;
    /// The largest of the first `n`.
    ///
    /// # Safety
    /// The row reaches to `n`.
    unsafe fn largest<I: Isa>(&self, isa: I, n: usize) -> f32;
    /// Exponents `i .. i + count`, less `max`.
    ///
    /// # Safety
    /// The row reaches to `i + count`.
    unsafe fn below<I: Isa>(&self, isa: I, i: usize, count: usize, max: f32) -> I::F32;
}

/// Each step for all rows of a group before the next: up to [`GROUP`] of them.
///
/// # Safety
/// As [`Softmax::run`], for these rows.
#[inline(always)]
unsafe fn softmax_group<I: Isa, E: Exponent>(isa: I, args: &SoftmaxArgs, first: usize, rows: usize) {
    let cols = args.cols;
    let (mut max, mut sum) = ([0.0; GROUP], [0.0; GROUP]);
    // SAFETY: the caller's promise.
    unsafe {
        for (g, max) in max.iter_mut().take(rows).enumerate() {
            *max = E::row(args, first + g).largest(isa, visible(args, first + g));
        }
        for (g, (max, sum)) in max.iter().zip(&mut sum).take(rows).enumerate() {
            let dst = args.dst.add((first + g) * args.dst_stride);
            let terms = Exponentials { exponent: E::row(args, first + g), dst, max: *max };
            *sum = fold::<Sum, I>(isa, &terms, visible(args, first + g));
        }
        for (g, sum) in sum.into_iter().take(rows).enumerate() {
            let (x, seen) = (args.dst.add((first + g) * args.dst_stride), visible(args, first + g));
            visit(isa, &Scaled { x, factor: 1.0 / sum }, seen);
            if seen < cols {
                x.add(seen).write_bytes(0, cols - seen);
            }
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
#[derive(Clone, Copy)]
struct Unmasked {
    src: *const f32,
    scale: f32,
}

impl Terms for Unmasked {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { isa.mul(load(isa, self.src.add(i), count), isa.splat(self.scale)) }
    }
}

impl Exponent for Unmasked {
    #[inline(always)]
    unsafe fn row(args: &SoftmaxArgs, r: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { src: unsafe { args.src.add(r * args.src_stride) }, scale: args.scale }
    }

    #[inline(always)]
    unsafe fn largest<I: Isa>(&self, isa: I, n: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe {
            if self.scale >= 0.0 {
                self.scale * fold::<Max, I>(isa, &Values(self.src), n)
            } else {
                -self.scale * fold::<Max, I>(isa, &Negated(self.src), n)
            }
        }
    }

    #[inline(always)]
    unsafe fn below<I: Isa>(&self, isa: I, i: usize, count: usize, max: f32) -> I::F32 {
        // SAFETY: the caller's promise.
        let x = unsafe { load(isa, self.src.add(i), count) };
        isa.mul_add(x, isa.splat(self.scale), isa.splat(-max))
    }
}

/// scale · x + mask.
#[derive(Clone, Copy)]
struct Masked {
    unmasked: Unmasked,
    mask: *const f32,
}

impl Terms for Masked {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let x = load(isa, self.unmasked.src.add(i), count);
            isa.mul_add(x, isa.splat(self.unmasked.scale), load(isa, self.mask.add(i), count))
        }
    }
}

impl Exponent for Masked {
    #[inline(always)]
    unsafe fn row(args: &SoftmaxArgs, r: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { unmasked: Unmasked::row(args, r), mask: args.mask.add(r * args.mask_stride) } }
    }

    #[inline(always)]
    unsafe fn largest<I: Isa>(&self, isa: I, n: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { fold::<Max, I>(isa, self, n) }
    }

    #[inline(always)]
    unsafe fn below<I: Isa>(&self, isa: I, i: usize, count: usize, max: f32) -> I::F32 {
        // SAFETY: the caller's promise.
        isa.sub(unsafe { self.at(isa, i, count) }, isa.splat(max))
    }
}

/// e^(exponent − max), stored to `dst`.
struct Exponentials<E> {
    exponent: E,
    dst: *mut f32,
    max: f32,
}

impl<E: Exponent> Terms for Exponentials<E> {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let power = vecmath::exp_flushed(isa, self.exponent.below(isa, i, count, self.max));
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

impl SimdBody for LogSoftmaxRows<'_> {
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

/// e^(src − max).
struct Powers {
    src: *const f32,
    max: f32,
}

impl Terms for Powers {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        let x = unsafe { load(isa, self.src.add(i), count) };
        vecmath::exp_flushed(isa, isa.sub(x, isa.splat(self.max)))
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
