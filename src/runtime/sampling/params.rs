//! The customary parameters of sampling: flat values with defaults, as user interfaces offer them, and the chain of
//! stages that they stand for.

use super::stage::{Penalties, Stage, check_values};
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

    /// Checks each value.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] that names the first one outside its range.
    pub fn validate(&self) -> Result<()> {
        let [top_k, top_p, min_p] = self.cuts();
        check_values(&[
            Stage::Temperature(self.temperature),
            top_k,
            top_p,
            min_p,
            Stage::Penalties(self.penalties()),
        ])
    }

    /// The chain that the parameters stand for: penalties → top-k → top-p → min-p → temperature → draw, without
    /// the stages that would change nothing.
    pub fn stages(&self) -> Vec<Stage> {
        let penalties = self.penalties();
        let mut stages = Vec::new();
        if penalties.are_on() {
            stages.push(Stage::Penalties(penalties));
        }
        // Cuts never remove the likeliest token, so greedy sampling doesn't need them.
        if self.temperature != 0.0 {
            stages.extend(self.cuts());
        }
        stages.extend([Stage::Temperature(self.temperature), Stage::Draw { seed: self.seed }]);
        stages
    }

    pub(super) fn penalties(&self) -> Penalties {
        Penalties {
            repetition: self.repetition_penalty,
            frequency: self.frequency_penalty,
            presence: self.presence_penalty,
            last_n: self.penalty_last_n,
        }
    }

    fn cuts(&self) -> [Stage; 3] {
        [Stage::TopK(self.top_k), Stage::TopP(self.top_p), Stage::MinP(self.min_p)]
    }
}
