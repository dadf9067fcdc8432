//! How to train: the sizes of a micro-batch, the optimizer, the schedule of learning rates.

use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::isa::IsaId;
use crate::kernels::backward::{AdamWConfig, SgdStep};

/// Most tokens of a micro-batch.
const MAX_ROWS: usize = 1 << 22;

/// AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct AdamW {
    /// Share of the mean of gradients that stays.
    pub beta1: f64,
    /// Share of the mean of their squares that stays.
    pub beta2: f64,
    /// Added to the root of the latter.
    pub eps: f64,
    /// Share of a weight that a learning rate of 1 would take away in a step. For matrices and tables; gains and biases
    /// don't decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 }
    }
}

impl AdamW {
    /// Sets [`AdamW::beta1`] and [`AdamW::beta2`].
    pub fn with_betas(self, beta1: f64, beta2: f64) -> Self {
        Self { beta1, beta2, ..self }
    }

    /// Sets [`AdamW::eps`].
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// Sets [`AdamW::weight_decay`].
    pub fn with_weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    /// The kernel's settings, with or without decay.
    pub(super) fn config(&self, decays: bool) -> AdamWConfig {
        let AdamW { beta1, beta2, eps, weight_decay } = *self;
        AdamWConfig { beta1, beta2, eps, weight_decay: if decays { weight_decay } else { 0.0 } }
    }

    fn check(&self) -> Result<()> {
        check_share("beta1", self.beta1)?;
        check_share("beta2", self.beta2)?;
        check_positive("eps", self.eps)?;
        check_positive("weight decay", self.weight_decay)
    }
}

fn check_share(what: &str, x: f64) -> Result<()> {
    if (0.0..1.0).contains(&x) {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} is {x}; expected a number from 0 on and below 1")))
}

fn check_positive(what: &str, x: f64) -> Result<()> {
    if x.is_finite() && x >= 0.0 {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} is {x}; expected a finite number from 0 on")))
}

/// Stochastic gradient descent with momentum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Sgd {
    /// Share of the last step's direction that stays; 0 keeps none.
    pub momentum: f64,
    /// Nesterov's momentum.
    pub nesterov: bool,
    /// Share of a matrix or table that is added to its gradient; gains and biases don't decay.
    pub weight_decay: f64,
}

impl Sgd {
    /// Sets [`Sgd::momentum`].
    pub fn with_momentum(self, momentum: f64) -> Self {
        Self { momentum, ..self }
    }

    /// Sets [`Sgd::nesterov`].
    pub fn with_nesterov(self, nesterov: bool) -> Self {
        Self { nesterov, ..self }
    }

    /// Sets [`Sgd::weight_decay`].
    pub fn with_weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    /// The kernel's settings, with or without decay.
    pub(super) fn step(&self, decays: bool, rate: f64, grad_scale: f32) -> SgdStep {
        SgdStep {
            lr: rate as f32,
            momentum: self.momentum as f32,
            weight_decay: if decays { self.weight_decay as f32 } else { 0.0 },
            nesterov: self.nesterov,
            grad_scale,
        }
    }

    fn check(&self) -> Result<()> {
        check_share("momentum", self.momentum)?;
        check_positive("weight decay", self.weight_decay)
    }
}

/// How gradients change weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Optimizer {
    /// AdamW.
    AdamW(AdamW),
    /// Stochastic gradient descent.
    Sgd(Sgd),
}

impl Optimizer {
    /// The name in states.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Optimizer::AdamW(_) => "adamw",
            Optimizer::Sgd(_) => "sgd",
        }
    }

    /// Numbers that it keeps for each trained one.
    pub(super) fn moments(&self) -> usize {
        match self {
            Optimizer::AdamW(_) => 2,
            Optimizer::Sgd(sgd) => usize::from(sgd.momentum > 0.0),
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Optimizer::AdamW(adamw) => adamw.check(),
            Optimizer::Sgd(sgd) => sgd.check(),
        }
    }
}

/// How to train.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TrainParams {
    /// Sequences of a micro-batch.
    pub sequences: usize,
    /// Tokens of a sequence; 0 = as many as the model's file names.
    pub context: usize,
    /// How gradients change weights.
    pub optimizer: Optimizer,
    /// Learning rates.
    pub schedule: Schedule,
    /// Longest gradient, all parameters taken together; a longer one is scaled down. `None` leaves any as it is.
    pub clip: Option<f64>,
    /// Share of elements that are dropped, at random, of embeddings and of whatever is added to the residual stream; 0
    /// for no dropout. Attention's probabilities aren't dropped.
    pub dropout: f64,
    /// The seed of dropout.
    pub seed: u64,
    /// Whether values of the forward pass are computed again, a layer at a time, when the backward pass needs them,
    /// instead of being kept: less memory, for about a third more work. The bits are the same.
    pub recompute: bool,
    /// Instruction set; `None` takes the process's default (`SMALLMIND_ISA`, else the best).
    pub isa: Option<IsaId>,
}

impl Default for TrainParams {
    fn default() -> Self {
        TrainParams {
            sequences: 1,
            context: 0,
            optimizer: Optimizer::AdamW(AdamW::default()),
            schedule: Schedule::constant(3e-4),
            clip: Some(1.0),
            dropout: 0.0,
            seed: 0,
            recompute: false,
            isa: None,
        }
    }
}

impl TrainParams {
    /// Sets [`TrainParams::sequences`].
    pub fn with_sequences(self, sequences: usize) -> Self {
        Self { sequences, ..self }
    }

    /// Sets [`TrainParams::context`].
    pub fn with_context(self, context: usize) -> Self {
        Self { context, ..self }
    }

    /// Sets [`TrainParams::optimizer`].
    pub fn with_optimizer(self, optimizer: Optimizer) -> Self {
        Self { optimizer, ..self }
    }

    /// Sets [`TrainParams::schedule`].
    pub fn with_schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Sets [`TrainParams::clip`].
    pub fn with_clip(self, clip: impl Into<Option<f64>>) -> Self {
        Self { clip: clip.into(), ..self }
    }

    /// Sets [`TrainParams::dropout`].
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Sets [`TrainParams::seed`].
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets [`TrainParams::recompute`].
    pub fn with_recompute(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// Sets [`TrainParams::isa`].
    pub fn with_isa(self, isa: impl Into<Option<IsaId>>) -> Self {
        Self { isa: isa.into(), ..self }
    }

    /// Checks all numbers but those that depend on the model.
    pub(super) fn check(&self) -> Result<()> {
        let rows = self.sequences.checked_mul(self.context.max(1));
        if self.sequences == 0 || rows.is_none_or(|rows| rows > MAX_ROWS) {
            let (sequences, context) = (self.sequences, self.context);
            return Err(Error::invalid(format!(
                "a micro-batch of {sequences} sequences of {context} tokens; expected 1 to {MAX_ROWS} tokens"
            )));
        }
        if let Some(clip) = self.clip
            && !(clip.is_finite() && clip > 0.0)
        {
            return Err(Error::invalid(format!("the longest gradient is {clip}; expected a number above 0")));
        }
        check_share("dropout", self.dropout)?;
        self.schedule.check()?;
        self.optimizer.check()
    }
}
