//! Stages of a sampler's chain as plain values, and their ranges.
//! A chain is a list of stages that ends with a draw.

use super::custom::CustomStage;
use super::dry::Dry;
use super::mask::Mask;
use super::penalties::Penalties;
use crate::{Error, Result};
use std::fmt;

/// Most entries of a [`Stage::LogitBias`].
pub const MAX_LOGIT_BIASES: usize = 1 << 16;

/// One stage on the way from all logits to one token. Each works on the candidates that the stages before it left.
#[non_exhaustive]
pub enum Stage {
    /// Adds a number to the logit of a token, for each pair; −∞ rules the token out. Changes the model's logits, before
    /// any temperature, as penalties do. At most [`MAX_LOGIT_BIASES`] pairs.
    LogitBias(Vec<(u32, f32)>),
    /// Makes recent tokens less likely. Changes the model's logits, before any temperature. At most once in a chain.
    Penalties(Penalties),
    /// Makes tokens less likely that would continue a repetition. Changes the model's logits, before any temperature. At
    /// most once in a chain.
    Dry(Dry),
    /// Keeps the tokens that the mask allows; if none is left, sampling fails.
    Mask(Box<dyn Mask>),
    /// Keeps tokens whose logit is at most this many standard deviations of the logits below the best one; 0 and below
    /// keep all. Logits of −∞ don't count.
    TopNSigma(f32),
    /// Keeps this many of the likeliest tokens; 0 keeps all.
    TopK(usize),
    /// Keeps the tokens whose information content is nearest to the entropy, as many as it takes for their probability
    /// to exceed this; in (0, 1], 1 keeps all.
    Typical(f32),
    /// Keeps the fewest likeliest tokens whose probability together reaches this; in (0, 1], 1 keeps all.
    TopP(f32),
    /// Keeps tokens at least this many times as likely as the likeliest; in [0, 1], 0 keeps all.
    MinP(f32),
    /// Now and then excludes top choices: removes all tokens of at least a probability, except the least likely one of
    /// them.
    Xtc {
        /// How often it does so; in [0, 1], 0 is off.
        probability: f32,
        /// The probability of a top choice; in [0, 1]. Above 0.5 there can't be two, so the stage is off.
        threshold: f32,
    },
    /// Changes candidates as the host likes.
    Custom(Box<dyn CustomStage>),
    /// Divides the logits, and so changes the probabilities that later stages see; ≥ 0. 0 keeps only the likeliest
    /// token. A chain has at most one temperature of either kind.
    Temperature(f32),
    /// A temperature that follows the entropy of the candidates: `temperature` − `range` (at least 0) where one token is
    /// certain, `temperature` + `range` where all are equally likely, and between them the share of the greatest possible
    /// entropy to the power of `exponent` on the way.
    DynamicTemperature {
        /// Middle of the temperatures; ≥ 0.
        temperature: f32,
        /// Half of the way between the temperatures; ≥ 0, 0 makes it an ordinary temperature.
        range: f32,
        /// Power of the share; ≥ 0.
        exponent: f32,
    },
    /// Picks one of the candidates by probability. Every chain ends with this or [`Stage::Mirostat`].
    Draw {
        /// Seed of the random draws.
        seed: u64,
    },
    /// Mirostat 2.0: picks by probability one of the tokens whose surprise is at most μ bits. μ begins at 2 · `tau`, and
    /// each pick moves it by `eta` times what the surprise of the picked token is below `tau`.
    Mirostat {
        /// Surprise to aim at, in bits; ≥ 0.
        tau: f32,
        /// How fast μ follows; ≥ 0.
        eta: f32,
        /// Seed of the random draws.
        seed: u64,
    },
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::LogitBias(biases) => f.debug_tuple("LogitBias").field(biases).finish(),
            Stage::Penalties(penalties) => f.debug_tuple("Penalties").field(penalties).finish(),
            Stage::Dry(dry) => f.debug_tuple("Dry").field(dry).finish(),
            Stage::Mask(_) => f.write_str("Mask"),
            Stage::TopNSigma(n) => f.debug_tuple("TopNSigma").field(n).finish(),
            Stage::TopK(k) => f.debug_tuple("TopK").field(k).finish(),
            Stage::Typical(p) => f.debug_tuple("Typical").field(p).finish(),
            Stage::TopP(p) => f.debug_tuple("TopP").field(p).finish(),
            Stage::MinP(p) => f.debug_tuple("MinP").field(p).finish(),
            Stage::Xtc { probability, threshold } => {
                f.debug_tuple("Xtc").field(probability).field(threshold).finish()
            }
            Stage::Custom(_) => f.write_str("Custom"),
            Stage::Temperature(value) => f.debug_tuple("Temperature").field(value).finish(),
            Stage::DynamicTemperature { temperature, range, exponent } => {
                f.debug_tuple("DynamicTemperature").field(temperature).field(range).field(exponent).finish()
            }
            Stage::Draw { seed } => f.debug_struct("Draw").field("seed", seed).finish(),
            Stage::Mirostat { tau, eta, seed } => {
                f.debug_tuple("Mirostat").field(tau).field(eta).field(seed).finish()
            }
        }
    }
}

impl Stage {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where one is outside its range.
    fn check(&self) -> Result<()> {
        match self {
            Stage::LogitBias(biases) => check_biases(biases),
            Stage::Penalties(penalties) => penalties.check(),
            Stage::Dry(dry) => dry.check(),
            &Stage::TopNSigma(n) => check(n.is_finite(), "top_n_sigma", n, "finite"),
            &Stage::Typical(p) => share("typical_p", p),
            &Stage::TopP(p) => share("top_p", p),
            &Stage::MinP(p) => probability("min_p", p),
            &Stage::Xtc { probability: often, threshold } => {
                probability("xtc_probability", often)?;
                probability("xtc_threshold", threshold)
            }
            &Stage::Temperature(value) => positive("temperature", value),
            &Stage::DynamicTemperature { temperature, range, exponent } => {
                positive("temperature", temperature)?;
                positive("temperature_range", range)?;
                positive("temperature_exponent", exponent)
            }
            &Stage::Mirostat { tau, eta, .. } => {
                positive("mirostat_tau", tau)?;
                positive("mirostat_eta", eta)
            }
            Stage::Mask(_) | Stage::TopK(_) | Stage::Custom(_) | Stage::Draw { .. } => Ok(()),
        }
    }

    /// Whether it changes single logits of a row of all, and does so now.
    pub(super) fn edits(&self) -> bool {
        match self {
            Stage::LogitBias(biases) => !biases.is_empty(),
            Stage::Penalties(penalties) => penalties.are_on(),
            Stage::Dry(dry) => dry.is_on(),
            Stage::Mask(_) => true,
            _ => false,
        }
    }

    /// Whether it needs the candidates, because it removes some or looks at all.
    pub(super) fn needs_candidates(&self) -> bool {
        match *self {
            Stage::TopNSigma(n) => n > 0.0,
            Stage::TopK(k) => k > 0,
            Stage::Typical(p) | Stage::TopP(p) => p < 1.0,
            Stage::MinP(p) => p > 0.0,
            Stage::Xtc { probability, threshold } => probability > 0.0 && threshold <= 0.5,
            Stage::Temperature(value) => value == 0.0,
            Stage::DynamicTemperature { .. }
            | Stage::Custom(_)
            | Stage::Draw { .. }
            | Stage::Mirostat { .. } => true,
            Stage::LogitBias(_) | Stage::Penalties(_) | Stage::Dry(_) | Stage::Mask(_) => false,
        }
    }

    /// Whether it changes anything, with these values.
    pub(super) fn is_on(&self) -> bool {
        self.edits() || self.needs_candidates() || matches!(*self, Stage::Temperature(value) if value != 1.0)
    }

    /// Whether it is XTC, which removes the likeliest of all tokens, and does so now.
    pub(super) fn is_xtc(&self) -> bool {
        matches!(self, Stage::Xtc { .. }) && self.is_on()
    }

    /// The seed, where it picks a token.
    fn seed(&self) -> Option<u64> {
        match *self {
            Stage::Draw { seed } | Stage::Mirostat { seed, .. } => Some(seed),
            _ => None,
        }
    }
}

/// Checks every stage and the order; returns the seed of the draw.
pub(super) fn check_chain(stages: &[Stage], n_vocab: usize) -> Result<u64> {
    check_values(stages)?;
    for stage in stages {
        if let Stage::LogitBias(biases) = stage
            && let Some((token, _)) = biases.iter().find(|(token, _)| *token as usize >= n_vocab)
        {
            return Err(Error::invalid(format!(
                "a logit bias for token {token} of a vocabulary of {n_vocab}"
            )));
        }
    }
    let twice = |of: fn(&&Stage) -> bool| stages.iter().filter(of).count() > 1;
    let temperature =
        |stage: &&Stage| matches!(stage, Stage::Temperature(_) | Stage::DynamicTemperature { .. });
    if twice(|stage| matches!(stage, Stage::Penalties(_))) || twice(temperature) {
        return Err(Error::invalid("penalties and temperature stand in a chain of stages at most once"));
    }
    if twice(|stage| matches!(stage, Stage::Dry(_))) {
        return Err(Error::invalid("DRY stands in a chain of stages at most once"));
    }
    match stages.split_last().map(|(last, rest)| (last.seed(), rest)) {
        Some((Some(seed), rest)) if rest.iter().all(|stage| stage.seed().is_none()) => Ok(seed),
        _ => Err(Error::invalid("a chain of stages has one draw, at its end")),
    }
}

/// Checks the values of stages in any order.
pub(super) fn check_values(stages: &[Stage]) -> Result<()> {
    stages.iter().try_for_each(Stage::check)
}

fn check_biases(biases: &[(u32, f32)]) -> Result<()> {
    if biases.len() > MAX_LOGIT_BIASES {
        let len = biases.len();
        return Err(Error::invalid(format!("{len} logit biases; at most {MAX_LOGIT_BIASES} are taken")));
    }
    match biases.iter().find(|(_, bias)| !super::is_usable(*bias)) {
        None => Ok(()),
        Some((token, bias)) => {
            Err(Error::invalid(format!("the logit bias of token {token} is {bias}; it must be finite or −∞")))
        }
    }
}

fn share(name: &str, value: f32) -> Result<()> {
    check(value > 0.0 && value <= 1.0, name, value, "above 0 and at most 1")
}

fn probability(name: &str, value: f32) -> Result<()> {
    check((0.0..=1.0).contains(&value), name, value, "within 0 and 1")
}

fn positive(name: &str, value: f32) -> Result<()> {
    check(value >= 0.0 && value.is_finite(), name, value, "finite and ≥ 0")
}

/// An error about a value outside its range, unless `holds`.
pub(super) fn check(holds: bool, name: &str, value: f32, range: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::invalid(format!("{name} is {value}; it must be {range}"))) }
}
