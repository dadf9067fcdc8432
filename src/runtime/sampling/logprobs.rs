//! Log-probabilities of tokens under the model: from logits as they are, before any stage of a sampler.

use super::pool::Pool;
use crate::memory::reserve::with_room;
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
    pool: Pool,
    best: Vec<TokenLogprob>,
    n_vocab: usize,
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
        if n_vocab == 0 {
            return Err(Error::invalid("a vocabulary of 0 tokens"));
        }
        let n_best = n_best.min(n_vocab);
        Ok(Self {
            pool: Pool::new(n_vocab, false)?,
            best: with_room(n_best, "log-probabilities")?,
            n_vocab,
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
        let n_vocab = self.n_vocab;
        if logits.len() != n_vocab {
            return Err(Error::invalid(format!("{} logits for a vocabulary of {n_vocab}", logits.len())));
        }
        let Some(&logit) = logits.get(token as usize) else {
            return Err(Error::invalid(format!("token {token} of a vocabulary of {n_vocab}")));
        };
        self.pool.begin();
        let sums = self.pool.sums(logits, 1.0)?;
        let logprob = |logit: f32| (f64::from(logit) - f64::from(sums.scale.max) - sums.weights.ln()) as f32;
        self.best.clear();
        if self.n_best > 0 {
            let best = self.pool.best(logits, self.n_best)?.iter();
            self.best
                .extend(best.map(|best| TokenLogprob { token: best.id(), logprob: logprob(best.logit()) }));
            // Impossible tokens rank last.
            let impossible = (0..).zip(logits).filter(|(_, logit)| **logit == f32::NEG_INFINITY);
            let missing = self.n_best - self.best.len();
            self.best
                .extend(impossible.take(missing).map(|(token, &logprob)| TokenLogprob { token, logprob }));
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
