//! The customary parameters of sampling: flat values with defaults, as user interfaces offer them, and the chain of
//! stages that they stand for.

use super::chain::{ChainParts, StageKind, build};
use super::dry::Dry;
use super::penalties::Penalties;
use super::stage::{Stage, check_values};
use crate::Result;

/// How to pick tokens. `Default` has the customary values; [`SamplerParams::greedy`] always takes the likeliest token.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SamplerParams {
    /// Divides the logits before the draw; ≥ 0. 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keeps the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest likeliest tokens whose probability together reaches this; in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this many times as likely as the likeliest; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// Positive logits of tokens in the window are divided by it, others multiplied; > 0, 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from a logit for each time that its token is in the window; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each token in the window; 0 is off.
    pub presence_penalty: f32,
    /// Length of the window of last tokens that the penalties look at; 0 turns them off.
    pub penalty_last_n: usize,
    /// Seed of the random draws.
    pub seed: u64,
    /// The temperature follows the entropy, from `temperature` − this (at least 0) to `temperature` + this; ≥ 0, 0 keeps it
    /// fixed. Off at temperature 0.
    pub temperature_range: f32,
    /// Power of the entropy's share of the greatest possible one, for the temperature that follows it; ≥ 0.
    pub temperature_exponent: f32,
    /// Keeps tokens whose logit is at most this many standard deviations of all logits below the best one; finite, 0 and
    /// below keep all.
    pub top_n_sigma: f32,
    /// Keeps the tokens whose information content is nearest to the entropy, until their probability exceeds this; in
    /// (0, 1], 1 keeps all.
    pub typical_p: f32,
    /// How often top choices are excluded; in [0, 1], 0 is off.
    pub xtc_probability: f32,
    /// The probability of a top choice; in [0, 1], above 0.5 is off.
    pub xtc_threshold: f32,
    /// Scale of the penalty for tokens that continue a repetition; ≥ 0, 0 is off.
    pub dry_multiplier: f32,
    /// Growth of that penalty with each token of the repetition; ≥ 1.
    pub dry_base: f32,
    /// Tokens that may be repeated without that penalty.
    pub dry_allowed_length: usize,
    /// Length of the window in which repetitions count; 0 turns that penalty off.
    pub dry_last_n: usize,
    /// Mirostat 2.0 takes the place of all cuts, XTC and the draw.
    pub mirostat: bool,
    /// Surprise in bits that Mirostat aims at; ≥ 0.
    pub mirostat_tau: f32,
    /// How fast Mirostat follows; ≥ 0.
    pub mirostat_eta: f32,
}

impl Default for SamplerParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_last_n: 64,
            seed: 0,
            temperature_range: 0.0,
            temperature_exponent: 1.0,
            top_n_sigma: 0.0,
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_last_n: 4096,
            mirostat: false,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
        }
    }
}

impl SamplerParams {
    /// Always the likeliest token, without penalties.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Sets [`SamplerParams::temperature`].
    pub fn with_temperature(self, temperature: f32) -> Self {
        Self { temperature, ..self }
    }

    /// Sets [`SamplerParams::top_k`].
    pub fn with_top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }

    /// Sets [`SamplerParams::top_p`].
    pub fn with_top_p(self, top_p: f32) -> Self {
        Self { top_p, ..self }
    }

    /// Sets [`SamplerParams::min_p`].
    pub fn with_min_p(self, min_p: f32) -> Self {
        Self { min_p, ..self }
    }

    /// Sets [`SamplerParams::repetition_penalty`].
    pub fn with_repetition_penalty(self, repetition_penalty: f32) -> Self {
        Self { repetition_penalty, ..self }
    }

    /// Sets [`SamplerParams::frequency_penalty`].
    pub fn with_frequency_penalty(self, frequency_penalty: f32) -> Self {
        Self { frequency_penalty, ..self }
    }

    /// Sets [`SamplerParams::presence_penalty`].
    pub fn with_presence_penalty(self, presence_penalty: f32) -> Self {
        Self { presence_penalty, ..self }
    }

    /// Sets [`SamplerParams::penalty_last_n`].
    pub fn with_penalty_last_n(self, penalty_last_n: usize) -> Self {
        Self { penalty_last_n, ..self }
    }

    /// Sets [`SamplerParams::seed`].
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets [`SamplerParams::temperature_range`].
    pub fn with_temperature_range(self, temperature_range: f32) -> Self {
        Self { temperature_range, ..self }
    }

    /// Sets [`SamplerParams::temperature_exponent`].
    pub fn with_temperature_exponent(self, temperature_exponent: f32) -> Self {
        Self { temperature_exponent, ..self }
    }

    /// Sets [`SamplerParams::top_n_sigma`].
    pub fn with_top_n_sigma(self, top_n_sigma: f32) -> Self {
        Self { top_n_sigma, ..self }
    }

    /// Sets [`SamplerParams::typical_p`].
    pub fn with_typical_p(self, typical_p: f32) -> Self {
        Self { typical_p, ..self }
    }

    /// Sets [`SamplerParams::xtc_probability`].
    pub fn with_xtc_probability(self, xtc_probability: f32) -> Self {
        Self { xtc_probability, ..self }
    }

    /// Sets [`SamplerParams::xtc_threshold`].
    pub fn with_xtc_threshold(self, xtc_threshold: f32) -> Self {
        Self { xtc_threshold, ..self }
    }

    /// Sets [`SamplerParams::dry_multiplier`].
    pub fn with_dry_multiplier(self, dry_multiplier: f32) -> Self {
        Self { dry_multiplier, ..self }
    }

    /// Sets [`SamplerParams::dry_base`].
    pub fn with_dry_base(self, dry_base: f32) -> Self {
        Self { dry_base, ..self }
    }

    /// Sets [`SamplerParams::dry_allowed_length`].
    pub fn with_dry_allowed_length(self, dry_allowed_length: usize) -> Self {
        Self { dry_allowed_length, ..self }
    }

    /// Sets [`SamplerParams::dry_last_n`].
    pub fn with_dry_last_n(self, dry_last_n: usize) -> Self {
        Self { dry_last_n, ..self }
    }

    /// Sets [`SamplerParams::mirostat`].
    pub fn with_mirostat(self, mirostat: bool) -> Self {
        Self { mirostat, ..self }
    }

    /// Sets [`SamplerParams::mirostat_tau`].
    pub fn with_mirostat_tau(self, mirostat_tau: f32) -> Self {
        Self { mirostat_tau, ..self }
    }

    /// Sets [`SamplerParams::mirostat_eta`].
    pub fn with_mirostat_eta(self, mirostat_eta: f32) -> Self {
        Self { mirostat_eta, ..self }
    }

    /// Checks each value.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] that names the first one outside its range.
    pub fn validate(&self) -> Result<()> {
        let kinds = StageKind::ORDER.into_iter();
        let stages = kinds.filter_map(|kind| self.stage(kind, &mut ChainParts::default()));
        check_values(&stages.chain([self.dynamic_temperature(), self.mirostat()]).collect::<Vec<_>>())
    }

    /// The chain that the parameters stand for, in the [customary order](StageKind::ORDER), without the stages that would
    /// change nothing.
    pub fn stages(&self) -> Vec<Stage> {
        build(self, &StageKind::ORDER, ChainParts::default())
    }

    /// The stage of a kind, on or off; `None` where the host would have to bring it and hasn't.
    pub(super) fn stage(&self, kind: StageKind, parts: &mut ChainParts) -> Option<Stage> {
        Some(match kind {
            StageKind::LogitBias => Stage::LogitBias(std::mem::take(&mut parts.logit_bias)),
            StageKind::Mask => Stage::Mask(parts.mask.take()?),
            StageKind::Penalties => Stage::Penalties(self.penalties()),
            StageKind::Dry => Stage::Dry(self.dry(parts)),
            StageKind::TopNSigma => Stage::TopNSigma(self.top_n_sigma),
            StageKind::TopK => Stage::TopK(self.top_k),
            StageKind::Typical => Stage::Typical(self.typical_p),
            StageKind::TopP => Stage::TopP(self.top_p),
            StageKind::MinP => Stage::MinP(self.min_p),
            StageKind::Xtc => Stage::Xtc { probability: self.xtc_probability, threshold: self.xtc_threshold },
            StageKind::Custom => Stage::Custom(parts.custom.take()?),
            StageKind::Temperature if self.temperature != 0.0 && self.temperature_range != 0.0 => {
                self.dynamic_temperature()
            }
            StageKind::Temperature => Stage::Temperature(self.temperature),
        })
    }

    /// The stage that picks a token.
    pub(super) fn last(&self) -> Stage {
        if self.mirostat { self.mirostat() } else { Stage::Draw { seed: self.seed } }
    }

    fn dynamic_temperature(&self) -> Stage {
        Stage::DynamicTemperature {
            temperature: self.temperature,
            range: self.temperature_range,
            exponent: self.temperature_exponent,
        }
    }

    fn mirostat(&self) -> Stage {
        Stage::Mirostat { tau: self.mirostat_tau, eta: self.mirostat_eta, seed: self.seed }
    }

    pub(super) fn penalties(&self) -> Penalties {
        Penalties {
            repetition: self.repetition_penalty,
            frequency: self.frequency_penalty,
            presence: self.presence_penalty,
            last_n: self.penalty_last_n,
        }
    }

    fn dry(&self, parts: &mut ChainParts) -> Dry {
        Dry {
            multiplier: self.dry_multiplier,
            base: self.dry_base,
            allowed_length: self.dry_allowed_length,
            last_n: self.dry_last_n,
            breakers: std::mem::take(&mut parts.breakers),
        }
    }
}
