//! Cross-entropy with the softmax before it: the loss of a row of logits, and its gradient in the place of the logits.
//! A row is read twice: for its largest element and the sum, then for the gradient.

use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::rows::reduce::{Max, Sum, fold};
use crate::kernels::rows::softmax::ExpBelow;
use crate::kernels::vectors::{Function, Over, Row, RowMut, RowsMut, Stored, visit};
use std::slice::from_raw_parts;

/// The target of a row that is left out: its loss is 0, and so is its gradient.
pub const NO_TARGET: u32 = u32::MAX;

/// Elements whose largest is found before they are summed, while they are in L1.
const RUN: usize = 2048;

/// Rows of logits, and where losses go.
///
/// # Memory
/// Each row is readable, and with `gradient` writable, for `cols` floats; `targets` is readable and `losses` writable for
/// `rows` numbers; targets are below `cols` or [`NO_TARGET`].
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct CrossEntropyArgs {
    /// First row of logits; overwritten with the gradient where that is asked for.
    pub logits: *mut f32,
    /// Floats between rows.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Logits of a row.
    pub cols: usize,
    /// The target of each row, below `cols`; or [`NO_TARGET`].
    pub targets: *const u32,
    /// Factor on the gradient, such as one over the number of targets.
    pub scale: f32,
    /// The loss of each row is written here.
    pub losses: *mut f32,
    /// Writes the gradient, too.
    pub gradient: bool,
}

/// Softmax and cross-entropy of rows: loss = ln Σ eˣ − x\[target\], gradient = (softmax(x) − onehot(target)) · scale.
///
/// Rows are computed each by itself, so any division of the rows gives the same bits. With u = 2⁻²⁴, h the largest
/// logit, and s = min(cols, 2048) / (4·LANES) + ln cols: the softmax p of a logit x is off by (s + 16 + h − x)·u·p and
/// 2⁻¹²⁶, the gradient by |scale| times that, and by u·|scale| at the target; the loss by (s + 12)·u and by 2·u times
/// (h − x\[target\]) + ln Σ e^(x − h). A row with NaN, +∞, or nothing but −∞ has NaN as its loss and gradient; −∞ among
/// finite logits has softmax 0, and as the target a loss of ∞.
pub type CrossEntropy = Kernel<CrossEntropyArgs>;

impl Kernel<CrossEntropyArgs> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("cross_entropy", "f32"), code: Code::of::<I, Losses>() }
    }

    /// The loss of each row of `cols` logits, and the gradient in the place of the logits.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths don't fit, or a target is neither below `cols` nor [`NO_TARGET`]; nothing
    /// is changed then.
    pub fn apply(
        &self,
        logits: &mut [f32],
        cols: usize,
        targets: &[u32],
        scale: f32,
        losses: &mut [f32],
    ) -> Result<()> {
        self.adjoining((logits.as_mut_ptr(), logits.len(), cols), targets, Some(scale), losses)
    }

    /// The loss of each row of `cols` logits alone.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as [`CrossEntropy::apply`].
    pub fn losses(&self, logits: &[f32], cols: usize, targets: &[u32], losses: &mut [f32]) -> Result<()> {
        // Logits are only read without a gradient.
        self.adjoining((logits.as_ptr().cast_mut(), logits.len(), cols), targets, None, losses)
    }

    /// Losses of so many adjoining logits in rows of `cols`, which the caller has borrowed; with a factor, which is given,
    /// the gradient too, for which they are borrowed mutably.
    fn adjoining(
        &self,
        (logits, len, cols): (*mut f32, usize, usize),
        targets: &[u32],
        scale: Option<f32>,
        losses: &mut [f32],
    ) -> Result<()> {
        let rows = check(len, cols, targets, losses.len())?;
        let args = CrossEntropyArgs {
            logits,
            stride: cols,
            rows,
            cols,
            targets: targets.as_ptr(),
            scale: scale.unwrap_or(0.0),
            losses: losses.as_mut_ptr(),
            gradient: scale.is_some(),
        };
        // SAFETY: there are `rows` rows of `cols` logits and as many targets, which were checked, and losses; those that are
        // written are borrowed mutably.
        unsafe { self.run(&args) };
        Ok(())
    }
}

/// The number of rows, if lengths and targets fit.
fn check(logits: usize, cols: usize, targets: &[u32], losses: usize) -> Result<usize> {
    let rows = targets.len();
    if rows.checked_mul(cols) != Some(logits) || losses != rows {
        return Err(Error::invalid(format!(
            "{logits} logits and {losses} losses are not {rows} rows of {cols}"
        )));
    }
    match targets.iter().find(|&&target| target != NO_TARGET && target as usize >= cols) {
        None => Ok(rows),
        Some(target) => Err(Error::invalid(format!("target {target} of {cols} logits"))),
    }
}

/// Losses, and the gradient where it is asked for.
struct Losses;

impl Routine<CrossEntropyArgs> for Losses {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &CrossEntropyArgs) {
        let &CrossEntropyArgs { logits, stride, rows, cols, .. } = args;
        // SAFETY: the caller promises the memory.
        let (logits, losses, targets) = unsafe {
            let targets = from_raw_parts(args.targets, rows);
            (RowsMut::new(logits, stride, rows, cols), RowMut::new(args.losses, rows), targets)
        };
        if args.gradient {
            each::<I, true>(isa, args, logits, losses, targets);
        } else {
            each::<I, false>(isa, args, logits, losses, targets);
        }
    }
}

/// The loss of each row, and with `GRADIENT` the gradient.
#[inline(always)]
fn each<I: Isa, const GRADIENT: bool>(
    isa: I,
    args: &CrossEntropyArgs,
    logits: RowsMut,
    losses: RowMut,
    targets: &[u32],
) {
    let &CrossEntropyArgs { cols, scale, .. } = args;
    for (r, &target) in targets.iter().enumerate() {
        let x = logits.row(r);
        if target == NO_TARGET {
            losses.set(r, 0.0);
            if GRADIENT {
                x.clear_from(0);
            }
            continue;
        }
        let chosen = target as usize;
        let Partition { largest, sum } = partition(isa, x.row(), cols);
        losses.set(r, (largest - x.get(chosen)) + sum.ln() as f32);
        if GRADIENT {
            let factor = (f64::from(scale) / sum) as f32;
            visit(isa, &Stored(Over(Share { largest, factor }, [x.row()]), x), 0, cols);
            x.set(chosen, x.get(chosen) - scale);
        }
    }
}

/// A row's largest element h, and Σ e^(x − h).
struct Partition {
    largest: f32,
    sum: f64,
}

/// Of a row of `n` floats.
#[inline(always)]
fn partition<I: Isa>(isa: I, x: Row, n: usize) -> Partition {
    let mut row = Partition { largest: f32::NEG_INFINITY, sum: 0.0 };
    let mut first = 0;
    while first < n {
        let count = RUN.min(n - first);
        let x = x.from(first);
        let largest = fold::<Max, I>(isa, &x, count);
        if largest > row.largest {
            row.sum *= f64::from(row.largest - largest).exp();
            row.largest = largest;
        }
        // As long as all are −∞, their powers are 0 relative to any number, and NaN stays.
        let base = if row.largest == f32::NEG_INFINITY { 0.0 } else { row.largest };
        row.sum += f64::from(fold::<Sum, I>(isa, &Over(ExpBelow(base), [x]), count));
        first += count;
    }
    row
}

/// e^(x − largest) · factor.
#[derive(Clone, Copy)]
struct Share {
    largest: f32,
    factor: f32,
}

impl Function<1> for Share {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, x: [I::F32; 1]) -> I::F32 {
        isa.mul(ExpBelow(self.largest).call(isa, x), isa.splat(self.factor))
    }
}
