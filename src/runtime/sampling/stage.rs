//! Stages of a sampler's chain as plain values, their ranges, and the arithmetic of penalties.
//! A chain is a list of stages that ends with a draw.

use super::cut::Candidate;
use super::mask::Mask;
use super::window::Window;
use super::{is_usable, unusable};
use crate::{Error, Result};
use std::fmt;

/// Longest window of last tokens.
pub const MAX_PENALTY_LAST_N: usize = 1 << 20;

/// One stage on the way from all logits to one token. Each works on the candidates that the stages before it left.
#[non_exhaustive]
pub enum Stage {
    /// Makes recent tokens less likely. Changes the model's logits, before any temperature. At most once in a chain.
    Penalties(Penalties),
    /// Keeps the tokens that the mask allows; if none is left, sampling fails.
    Mask(Box<dyn Mask>),
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    TopK(usize),
    /// Keeps the fewest likeliest tokens whose probability together reaches this; in (0, 1], 1 keeps all.
    TopP(f32),
    /// Keeps tokens at least this many times as likely as the likeliest; in [0, 1], 0 keeps all.
    MinP(f32),
    /// Divides the logits, and so changes the probabilities that later stages see; ≥ 0. 0 keeps only the likeliest
    /// token. At most once in a chain.
    Temperature(f32),
    /// Picks one of the candidates by probability. Every chain ends with a draw.
    Draw {
        /// Seed of the random draws.
        seed: u64,
    },
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Penalties(penalties) => f.debug_tuple("Penalties").field(penalties).finish(),
            Stage::Mask(_) => f.write_str("Mask"),
            Stage::TopK(k) => f.debug_tuple("TopK").field(k).finish(),
            Stage::TopP(p) => f.debug_tuple("TopP").field(p).finish(),
            Stage::MinP(p) => f.debug_tuple("MinP").field(p).finish(),
            Stage::Temperature(value) => f.debug_tuple("Temperature").field(value).finish(),
            Stage::Draw { seed } => f.debug_struct("Draw").field("seed", seed).finish(),
        }
    }
}

impl Stage {
    /// Checks the value.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where it is outside its range.
    fn check(&self) -> Result<()> {
        match *self {
            Stage::Penalties(penalties) => penalties.check(),
            Stage::TopP(p) => check(p > 0.0 && p <= 1.0, "top_p", p, "above 0 and at most 1"),
            Stage::MinP(p) => check((0.0..=1.0).contains(&p), "min_p", p, "within 0 and 1"),
            Stage::Temperature(value) => {
                check(value >= 0.0 && value.is_finite(), "temperature", value, "finite and ≥ 0")
            }
            Stage::Mask(_) | Stage::TopK(_) | Stage::Draw { .. } => Ok(()),
        }
    }

    /// Whether it removes candidates, or changes their order.
    pub(super) fn changes_ranks_or_removes(&self) -> bool {
        match self {
            Stage::Penalties(penalties) => penalties.are_on(),
            Stage::Mask(_) => true,
            Stage::TopK(k) => *k > 0,
            Stage::TopP(p) => *p < 1.0,
            Stage::MinP(p) => *p > 0.0,
            Stage::Temperature(value) => *value == 0.0,
            Stage::Draw { .. } => false,
        }
    }

    /// The number of best candidates that it keeps, if it keeps a number of them.
    pub(super) fn kept(&self) -> Option<usize> {
        match self {
            Stage::TopK(k) => Some(*k),
            Stage::Temperature(0.0) => Some(1),
            _ => None,
        }
    }
}

/// How tokens among the last `last_n` become less likely. All penalties are off by default.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Penalties {
    /// Divides positive logits of tokens in the window, and multiplies the other ones; > 0, 1 is off.
    pub repetition: f32,
    /// Subtracted from a logit for each time that its token is in the window; 0 is off.
    pub frequency: f32,
    /// Subtracted from the logit of each token in the window; 0 is off.
    pub presence: f32,
    /// Length of the window; at most [`MAX_PENALTY_LAST_N`], 0 is off.
    pub last_n: usize,
}

impl Default for Penalties {
    fn default() -> Self {
        Penalties { repetition: 1.0, frequency: 0.0, presence: 0.0, last_n: 64 }
    }
}

impl Penalties {
    /// Sets [`Penalties::repetition`].
    pub fn with_repetition(self, repetition: f32) -> Self {
        Self { repetition, ..self }
    }

    /// Sets [`Penalties::frequency`].
    pub fn with_frequency(self, frequency: f32) -> Self {
        Self { frequency, ..self }
    }

    /// Sets [`Penalties::presence`].
    pub fn with_presence(self, presence: f32) -> Self {
        Self { presence, ..self }
    }

    /// Sets [`Penalties::last_n`].
    pub fn with_last_n(self, last_n: usize) -> Self {
        Self { last_n, ..self }
    }

    fn check(&self) -> Result<()> {
        let repetition = self.repetition;
        let holds = repetition > 0.0 && repetition.is_finite();
        check(holds, "repetition_penalty", repetition, "finite and above 0")?;
        for (name, value) in [("frequency_penalty", self.frequency), ("presence_penalty", self.presence)] {
            check(value.is_finite(), name, value, "finite")?;
        }
        if self.last_n > MAX_PENALTY_LAST_N {
            return Err(Error::invalid(format!(
                "penalty_last_n is {}; it must be at most {MAX_PENALTY_LAST_N}",
                self.last_n
            )));
        }
        Ok(())
    }

    /// Whether they change any logit.
    pub(super) fn are_on(&self) -> bool {
        self.last_n > 0 && (self.repetition != 1.0 || self.frequency != 0.0 || self.presence != 0.0)
    }

    /// The logit of a token with `count` ≥ 1 occurrences in the window.
    pub(super) fn penalised(&self, logit: f32, count: u32) -> f32 {
        let repeated = if logit > 0.0 { logit / self.repetition } else { logit * self.repetition };
        repeated - count as f32 * self.frequency - self.presence
    }

    /// Changes the candidates' logits.
    pub(super) fn apply(&self, window: &Window, candidates: &mut [Candidate]) -> Result<()> {
        if window.is_empty() {
            return Ok(());
        }
        for candidate in candidates {
            let (id, count) = (candidate.id(), window.count(candidate.id()));
            if count > 0 {
                let logit = self.penalised(candidate.logit(), count);
                if !is_usable(logit) {
                    return Err(unusable(id, logit));
                }
                *candidate = Candidate::new(logit, id);
            }
        }
        Ok(())
    }
}

/// Checks every stage and the order; returns the seed of the draw.
pub(super) fn check_chain(stages: &[Stage]) -> Result<u64> {
    check_values(stages)?;
    let twice = |of: fn(&&Stage) -> bool| stages.iter().filter(of).count() > 1;
    if twice(|stage| matches!(stage, Stage::Penalties(_)))
        || twice(|stage| matches!(stage, Stage::Temperature(_)))
    {
        return Err(Error::invalid("penalties and temperature stand in a chain of stages at most once"));
    }
    match stages {
        [.., Stage::Draw { seed }] if !twice(|stage| matches!(stage, Stage::Draw { .. })) => Ok(*seed),
        _ => Err(Error::invalid("a chain of stages has one draw, at its end")),
    }
}

/// Checks the values of stages in any order.
pub(super) fn check_values(stages: &[Stage]) -> Result<()> {
    stages.iter().try_for_each(Stage::check)
}

/// An error about a value outside its range, unless `holds`.
fn check(holds: bool, name: &str, value: f32, range: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::invalid(format!("{name} is {value}; it must be {range}"))) }
}
