//! The customary parameters of sampling, and the chain of stages that they stand for.
//! What an interface offers to people: flat values with defaults.

use super::stage::{Penalties, Stage, check_values};
use crate::Result;

/// How to pick. `Default` is the customary mix; [`SamplerParams::greedy`] always takes the likeliest.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// Where the draws begin.
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
        // What is the likeliest does not depend on what else is kept.
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
