//! Optimizers, each in one pass over weights, gradient and state: AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)
//! and stochastic gradient descent with momentum.
//! Elementwise: any division of the elements among workers gives the same bits.

use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::vectors::{Row, RowMut, Terms, visit};
use std::ptr::null_mut;

/// The hyperparameters of AdamW that stay from step to step, for a group of tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients, 0 to 1.
    pub beta1: f64,
    /// Decay of the mean of squared gradients, 0 to 1.
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    pub eps: f64,
    /// Share of a weight that a step takes off, times the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// The factors of one step of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    grad_scale: f32,
    beta1: f32,
    /// 1 − β1.
    take1: f32,
    beta2: f32,
    /// 1 − β2.
    take2: f32,
    /// 1 / √(1 − β2ᵗ).
    correction2: f32,
    eps: f32,
    /// 1 − learning rate · weight decay.
    keep: f32,
    /// Learning rate / (1 − β1ᵗ).
    rate: f32,
}

impl AdamWStep {
    /// The factors of step `step`, counted from 1, at learning rate `lr`; gradients are multiplied by `grad_scale`
    /// before anything else. Each factor is computed in f64 and rounded once.
    pub fn new(config: &AdamWConfig, lr: f64, step: u64, grad_scale: f32) -> Self {
        let &AdamWConfig { beta1, beta2, eps, weight_decay } = config;
        let t = step as f64;
        Self {
            grad_scale,
            beta1: beta1 as f32,
            take1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            take2: (1.0 - beta2) as f32,
            correction2: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
            eps: eps as f32,
            keep: (1.0 - lr * weight_decay) as f32,
            rate: (lr / (1.0 - beta1.powf(t))) as f32,
        }
    }
}

/// Weights to change, their gradient and their state: `n` floats each.
///
/// # Memory
/// All arrays are readable, `w`, `m` and `v` writable for `n` floats, and none overlaps another.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct AdamWArgs {
    /// The step's factors.
    pub step: AdamWStep,
    /// Weights.
    pub w: *mut f32,
    /// Gradient.
    pub g: *const f32,
    /// Mean of gradients.
    pub m: *mut f32,
    /// Mean of squared gradients.
    pub v: *mut f32,
    /// Number of elements.
    pub n: usize,
}

/// A step of AdamW.
///
/// With g' = grad_scale · g: m = β1·m + (1 − β1)·g', v = β2·v + (1 − β2)·g'², and
/// w = w·(1 − lr·decay) − lr / (1 − β1ᵗ) · m / (√v / √(1 − β2ᵗ) + eps). Numbers of m and v below 2⁻¹²⁶ become 0, since
/// arithmetic on them can take a hundred times as long.
///
/// With u = 2⁻²⁴ and a = β1·|m| + (1 − β1)·|g'|: m is off by at most 6·u·a, v by 8·u·v, w by
/// 3·u·|w| + 20·u·lr / (1 − β1ᵗ) · a / (√v / √(1 − β2ᵗ) + eps).
pub type AdamW = Kernel<AdamWArgs>;

impl Kernel<AdamWArgs> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("adamw", "f32"), code: Code::of::<I, AdamWBody>() }
    }

    /// Changes weights and state by a step.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths differ; nothing is changed then.
    pub fn apply(
        &self,
        step: &AdamWStep,
        w: &mut [f32],
        g: &[f32],
        m: &mut [f32],
        v: &mut [f32],
    ) -> Result<()> {
        let n = w.len();
        same_lengths(n, &[("gradient", g.len()), ("first moment", m.len()), ("second moment", v.len())])?;
        let (w, g, m, v) = (w.as_mut_ptr(), g.as_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
        // SAFETY: all slices hold n floats, and those that are written are borrowed mutably.
        unsafe { self.run(&AdamWArgs { step: *step, w, g, m, v, n }) };
        Ok(())
    }
}

/// Refuses arrays whose length isn't that of the weights.
fn same_lengths(n: usize, arrays: &[(&str, usize)]) -> Result<()> {
    match arrays.iter().find(|(_, len)| *len != n) {
        None => Ok(()),
        Some((name, len)) => Err(Error::invalid(format!("{name} of {len} floats for {n} weights"))),
    }
}

/// 0 where |x| is below the smallest normal number, else x.
#[inline(always)]
fn without_denormals<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.select(isa.lt(isa.abs(x), isa.splat(f32::MIN_POSITIVE)), isa.zero(), x)
}

struct AdamWBody;

impl Routine<AdamWArgs> for AdamWBody {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &AdamWArgs) {
        let &AdamWArgs { step, w, g, m, v, n } = args;
        // SAFETY: the caller promises that all arrays hold n elements.
        let terms = unsafe {
            let (w, g) = (RowMut::new(w, n), Row::new(g, n));
            AdamWTerms { step, w, g, m: RowMut::new(m, n), v: RowMut::new(v, n) }
        };
        visit(isa, &terms, 0, n);
    }
}

/// New weights; weights and state are stored on the way.
struct AdamWTerms {
    step: AdamWStep,
    w: RowMut,
    g: Row,
    m: RowMut,
    v: RowMut,
}

impl Terms for AdamWTerms {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let &Self { step, w, g, m, v } = self;
        let splat = |x| isa.splat(x);
        let gradient = isa.mul(g.load(isa, i, count), splat(step.grad_scale));
        let kept = isa.mul(m.load(isa, i, count), splat(step.beta1));
        let mean = without_denormals(isa, isa.mul_add(gradient, splat(step.take1), kept));
        m.store(isa, i, mean, count);
        let kept = isa.mul(v.load(isa, i, count), splat(step.beta2));
        let squares = isa.mul_add(isa.mul(gradient, splat(step.take2)), gradient, kept);
        let squares = without_denormals(isa, squares);
        v.store(isa, i, squares, count);
        let root = isa.mul_add(isa.sqrt(squares), splat(step.correction2), splat(step.eps));
        let kept = isa.mul(w.load(isa, i, count), splat(step.keep));
        let weights = isa.neg_mul_add(isa.div(mean, root), splat(step.rate), kept);
        w.store(isa, i, weights, count);
        weights
    }
}

/// The factors of one step of stochastic gradient descent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the sum of gradients; 0 for none.
    pub momentum: f32,
    /// Share of a weight that is added to its gradient.
    pub weight_decay: f32,
    /// Looks ahead by a step of the momentum (Nesterov's).
    pub nesterov: bool,
    /// Factor on the gradients, before anything else.
    pub grad_scale: f32,
}

/// Weights to change, their gradient and their sum of gradients: `n` floats each.
///
/// # Memory
/// All arrays are readable, `w` and `b` writable for `n` floats, and none overlaps another; without momentum, `b` is not
/// touched.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct SgdArgs {
    /// The step's factors.
    pub step: SgdStep,
    /// Weights.
    pub w: *mut f32,
    /// Gradient.
    pub g: *const f32,
    /// Decayed sum of gradients; null where the momentum is 0, which leaves it alone.
    pub b: *mut f32,
    /// Number of elements.
    pub n: usize,
}

/// A step of stochastic gradient descent.
///
/// d = grad_scale · g + decay · w; b = momentum · b + d; w = w − lr · b, with Nesterov's w = w − lr · (d + momentum · b).
/// Without momentum, w = w − lr · d, and b is left alone. Numbers of b below 2⁻¹²⁶ become 0.
///
/// With u = 2⁻²⁴ and a = momentum·|b| + |grad_scale · g| + decay·|w|: b is off by at most 5·u·a, w by u·|w| + 9·u·lr·a,
/// with Nesterov's twice as much.
pub type Sgd = Kernel<SgdArgs>;

impl Kernel<SgdArgs> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("sgd", "f32"), code: Code::of::<I, SgdBody>() }
    }

    /// Changes weights and sums by a step. Without momentum, `b` may be empty.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths differ; nothing is changed then.
    pub fn apply(&self, step: &SgdStep, w: &mut [f32], g: &[f32], b: &mut [f32]) -> Result<()> {
        let n = w.len();
        let without = step.momentum == 0.0;
        same_lengths(n, &[("gradient", g.len()), ("momentum", if without { n } else { b.len() })])?;
        let b = if without { null_mut() } else { b.as_mut_ptr() };
        // SAFETY: all slices hold n floats, but for `b` without momentum; those that are written are borrowed mutably.
        unsafe { self.run(&SgdArgs { step: *step, w: w.as_mut_ptr(), g: g.as_ptr(), b, n }) };
        Ok(())
    }
}

struct SgdBody;

impl Routine<SgdArgs> for SgdBody {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &SgdArgs) {
        let &SgdArgs { step, w, g, b, n } = args;
        // SAFETY: the caller promises that the arrays hold n elements; that of sums is there with momentum.
        let rows = unsafe { (RowMut::new(w, n), Row::new(g, n), RowMut::or_empty(b, n)) };
        match (step.momentum != 0.0, step.nesterov) {
            (false, _) => visit(isa, &SgdTerms::<false, false>(step, rows), 0, n),
            (true, false) => visit(isa, &SgdTerms::<true, false>(step, rows), 0, n),
            (true, true) => visit(isa, &SgdTerms::<true, true>(step, rows), 0, n),
        }
    }
}

/// New weights; weights and sums are stored on the way. Rows of weights, gradient and sums.
struct SgdTerms<const MOMENTUM: bool, const NESTEROV: bool>(SgdStep, (RowMut, Row, RowMut));

impl<const MOMENTUM: bool, const NESTEROV: bool> Terms for SgdTerms<MOMENTUM, NESTEROV> {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let &Self(step, (w, g, b)) = self;
        let weights = w.load(isa, i, count);
        let gradient = isa.mul(g.load(isa, i, count), isa.splat(step.grad_scale));
        let gradient = isa.mul_add(weights, isa.splat(step.weight_decay), gradient);
        let mut direction = gradient;
        if MOMENTUM {
            let momentum = isa.splat(step.momentum);
            let sums = isa.mul_add(b.load(isa, i, count), momentum, gradient);
            let sums = without_denormals(isa, sums);
            b.store(isa, i, sums, count);
            direction = if NESTEROV { isa.mul_add(sums, momentum, gradient) } else { sums };
        }
        let weights = isa.neg_mul_add(direction, isa.splat(step.lr), weights);
        w.store(isa, i, weights, count);
        weights
    }
}
