//! Penalties of tokens among the last ones of a text: their parameters, and the arithmetic.
//! They change a row of logits in the places of those tokens only.

use super::stage::check;
use super::window::Window;
use crate::{Error, Result};

/// Longest window of last tokens.
pub const MAX_PENALTY_LAST_N: usize = 1 << 20;

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

    /// Checks each value.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the first one outside its range.
    pub(super) fn check(&self) -> Result<()> {
        let repetition = self.repetition;
        let holds = repetition > 0.0 && repetition.is_finite();
        check(holds, "repetition_penalty", repetition, "finite and above 0")?;
        for (name, value) in [("frequency_penalty", self.frequency), ("presence_penalty", self.presence)] {
            check(value.is_finite(), name, value, "finite")?;
        }
        check_last_n("penalty_last_n", self.last_n)
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

    /// Changes the logits of the window's tokens in a row of all.
    pub(super) fn edit(&self, window: &Window, row: &mut [f32]) {
        for &token in window.distinct() {
            let logit = &mut row[token as usize];
            *logit = self.penalised(*logit, window.count(token));
        }
    }
}

/// Checks the length of a window.
pub(super) fn check_last_n(name: &str, last_n: usize) -> Result<()> {
    if last_n > MAX_PENALTY_LAST_N {
        return Err(Error::invalid(format!("{name} is {last_n}; it must be at most {MAX_PENALTY_LAST_N}")));
    }
    Ok(())
}
