//! Log-probabilities of tokens under the model: from logits as they are, before any stage of a sampler.

use super::cut::{self, Candidate};
use crate::kernels::KernelSet;
use crate::kernels::rows::Weighing;
use crate::memory::reserve::{filled, with_room};
use crate::{Error, Result};

/// A token and the natural logarithm of its probability.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// The logarithm of its probability; −∞ where the token can't come.
    pub logprob: f32,
}

/// Computes log-probabilities. It reserves all memory at the start.
pub struct Logprobs {
    /// The logits' softmax.
    row: Vec<f32>,
    kernels: &'static KernelSet,
    candidates: Vec<Candidate>,
    best: Vec<TokenLogprob>,
    n_best: usize,
}

impl std::fmt::Debug for Logprobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logprobs").field("n_best", &self.n_best).finish_non_exhaustive()
    }
}

impl Logprobs {
    /// For logits of `n_vocab` tokens, with the `n_best` likeliest tokens of each row; a vocabulary of fewer has fewer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty vocabulary; [`Error::OutOfMemory`]; those of choosing kernels.
    pub fn new(n_vocab: usize, n_best: usize) -> Result<Self> {
        const WHAT: &str = "log-probabilities";
        if n_vocab == 0 {
            return Err(Error::invalid("a vocabulary of 0 tokens"));
        }
        let n_best = n_best.min(n_vocab);
        Ok(Self {
            row: filled(0.0, n_vocab, WHAT)?,
            kernels: KernelSet::default_set()?,
            candidates: with_room(n_vocab, WHAT)?,
            best: with_room(n_best, WHAT)?,
            n_best,
        })
    }

    /// The number of likeliest tokens.
    pub fn n_best(&self) -> usize {
        self.n_best
    }

    /// The log-probability of `token`; [`Self::best`] has the likeliest tokens of this row from then on.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `logits` doesn't have one value for each token, a logit is NaN or +∞, all are −∞,
    /// or the token is outside the vocabulary.
    pub fn compute(&mut self, logits: &[f32], token: u32) -> Result<f32> {
        let n_vocab = self.row.len();
        if logits.len() != n_vocab {
            return Err(Error::invalid(format!("{} logits for a vocabulary of {n_vocab}", logits.len())));
        }
        let Some(&logit) = logits.get(token as usize) else {
            return Err(Error::invalid(format!("token {token} of a vocabulary of {n_vocab}")));
        };
        cut::check_usable(logits)?;
        let max = cut::greatest(logits);
        if max == f32::NEG_INFINITY {
            return Err(Error::invalid("every logit is −∞"));
        }
        self.row.copy_from_slice(logits);
        self.kernels.rows().softmax.apply_in_place(&mut self.row, n_vocab, Weighing::default())?;
        // The likeliest token's probability is 1 / (the sum of all weights): its logarithm, less the sum's own, is exact
        // also where other probabilities are too small for an f32.
        let log_of_best = cut::greatest(&self.row).ln();
        let logprob = |logit: f32| logit - max + log_of_best;
        self.best.clear();
        if self.n_best > 0 {
            match self.n_best < n_vocab {
                true => cut::best_of(logits, self.n_best, &mut self.candidates)?,
                false => {
                    cut::all_of(logits, false, &mut self.candidates)?;
                    self.candidates.sort_unstable_by(|a, b| b.cmp(a));
                }
            }
            let best = self.candidates.iter();
            self.best
                .extend(best.map(|best| TokenLogprob { token: best.id(), logprob: logprob(best.logit()) }));
        }
        Ok(logprob(logit))
    }

    /// The likeliest tokens of the last row, likeliest first.
    pub fn best(&self) -> &[TokenLogprob] {
        &self.best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_softmax() {
        let logits: Vec<f32> = (0..1000).map(|i| ((i * 37 % 101) as f32 - 50.0) / 3.0).collect();
        let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let mut logprobs = Logprobs::new(1000, 7).unwrap();
        for token in [0, 17, 999] {
            let expected = f64::from(logits[token as usize]) - total.ln();
            // The softmax's error, and a rounding of a number of about 20.
            assert!((f64::from(logprobs.compute(&logits, token).unwrap()) - expected).abs() < 1e-5);
        }
        let mut ids: Vec<u32> = (0..1000).collect();
        ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        assert_eq!(logprobs.best().iter().map(|best| best.token).collect::<Vec<_>>(), ids[..7]);
        let fourth = logprobs.best()[3].logprob;
        assert_eq!(fourth, logprobs.compute(&logits, ids[3]).unwrap());
    }

    #[test]
    fn unlikely_tokens_have_finite_logarithms() {
        let mut logprobs = Logprobs::new(3, 9).unwrap();
        assert_eq!(logprobs.compute(&[0.0, -500.0, f32::NEG_INFINITY], 1).unwrap(), -500.0);
        let best: Vec<f32> = logprobs.best().iter().map(|best| best.logprob).collect();
        assert_eq!(best, [0.0, -500.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn bad_rows_are_refused() {
        let mut logprobs = Logprobs::new(2, 1).unwrap();
        for logits in [&[0.0][..], &[f32::NAN, 0.0], &[f32::INFINITY, 0.0], &[f32::NEG_INFINITY; 2]] {
            assert!(logprobs.compute(logits, 0).is_err(), "{logits:?}");
        }
        assert!(logprobs.compute(&[0.0; 2], 2).is_err());
        assert!(Logprobs::new(0, 1).is_err());
    }
}
