//! Picks the next token from logits: penalties → top-k → top-p → min-p → temperature → draw, the order
//! of llama.cpp's default chain. All cuts are exact; equal logits rank by lower id, so that the same
//! logits and seed give the same token on any number of threads. After construction nothing is allocated.

mod cut;
mod window;

#[cfg(test)]
mod tests;

use crate::{Error, Result};
use cut::Candidate;
use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
use window::Window;

/// How to pick. `Default` is the customary mix; [`SamplerParams::greedy`] always takes the likeliest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerParams {
    /// Divides the logits before the draw; ≥ 0. 0 takes the likeliest token, without a draw.
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

/// Longest window of last tokens.
pub const MAX_PENALTY_LAST_N: usize = 1 << 20;

impl SamplerParams {
    /// Always the likeliest token, without penalties.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks each value.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the first one outside its range.
    pub fn validate(&self) -> Result<()> {
        let check = |holds: bool, name: &str, value: f32, range: &str| {
            if holds { Ok(()) } else { Err(Error::invalid(format!("{name} is {value}; it must be {range}"))) }
        };
        let Self { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        check(temperature >= 0.0 && temperature.is_finite(), "temperature", temperature, "finite and ≥ 0")?;
        check(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0 and at most 1")?;
        check((0.0..=1.0).contains(&min_p), "min_p", min_p, "within 0 and 1")?;
        check(
            repetition_penalty > 0.0 && repetition_penalty.is_finite(),
            "repetition_penalty",
            repetition_penalty,
            "finite and above 0",
        )?;
        let finite =
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)];
        for (name, value) in finite {
            check(value.is_finite(), name, value, "finite")?;
        }
        if self.penalty_last_n > MAX_PENALTY_LAST_N {
            return Err(Error::invalid(format!(
                "penalty_last_n is {}; it must be at most {MAX_PENALTY_LAST_N}",
                self.penalty_last_n
            )));
        }
        Ok(())
    }

    fn penalises(&self) -> bool {
        self.penalty_last_n > 0
            && (self.repetition_penalty != 1.0
                || self.frequency_penalty != 0.0
                || self.presence_penalty != 0.0)
    }

    /// The logit of a token that is `count` ≥ 1 times in the window.
    fn penalised(&self, logit: f32, count: u32) -> f32 {
        let repeated =
            if logit > 0.0 { logit / self.repetition_penalty } else { logit * self.repetition_penalty };
        repeated - count as f32 * self.frequency_penalty - self.presence_penalty
    }
}

/// Picks tokens of one sequence. Belongs to one thread at a time.
pub struct Sampler {
    params: SamplerParams,
    n_vocab: usize,
    rng: Pcg64Mcg,
    window: Window,
    /// Capacity for the whole vocabulary.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for logits of `n_vocab` tokens.
    ///
    /// # Errors
    /// As [`SamplerParams::validate`]; [`Error::InvalidArgument`] for `n_vocab` 0 or above `u32::MAX`;
    /// [`Error::OutOfMemory`].
    pub fn new(params: SamplerParams, n_vocab: usize) -> Result<Self> {
        params.validate()?;
        if n_vocab == 0 || u32::try_from(n_vocab).is_err() {
            return Err(Error::invalid(format!("a vocabulary of {n_vocab} tokens")));
        }
        let mut candidates = Vec::new();
        candidates.try_reserve_exact(n_vocab).map_err(|_| Error::OutOfMemory {
            bytes: n_vocab.saturating_mul(size_of::<Candidate>()),
            what: "the sampler's candidates",
        })?;
        let window =
            if params.penalises() { Window::new(params.penalty_last_n, n_vocab)? } else { Window::default() };
        Ok(Self { params, n_vocab, rng: Pcg64Mcg::seed_from_u64(params.seed), window, candidates })
    }

    /// The parameters.
    pub fn params(&self) -> &SamplerParams {
        &self.params
    }

    /// The next token. Does not [`accept`](Self::accept) it.
    ///
    /// A logit of −∞ rules its token out.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `logits` isn't one per token, holds a NaN or +∞ (after penalties;
    /// named by token), or rules every token out. No draw is used up then.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        if logits.len() != self.n_vocab {
            return Err(Error::invalid(format!(
                "{} logits for a vocabulary of {}",
                logits.len(),
                self.n_vocab
            )));
        }
        self.gather(logits)?;
        if self.params.temperature == 0.0 {
            return self.candidates.iter().max().map(|best| best.id()).ok_or_else(all_ruled_out);
        }
        self.cut();
        self.draw()
    }

    /// Puts a token into the window that the penalties look at: sampled ones, and prompts if wanted.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a token outside the vocabulary.
    pub fn accept(&mut self, token: u32) -> Result<()> {
        if token as usize >= self.n_vocab {
            return Err(Error::invalid(format!("token {token} of a vocabulary of {}", self.n_vocab)));
        }
        self.window.push(token);
        Ok(())
    }

    /// Empties the window and begins the draws anew from the seed.
    pub fn reset(&mut self) {
        self.window.clear();
        self.rng = Pcg64Mcg::seed_from_u64(self.params.seed);
    }

    /// Fills `candidates` with all tokens in order of id, penalties applied; one at least isn't ruled out.
    /// Ruled-out ones stay: they rank last and weigh nothing.
    fn gather(&mut self, logits: &[f32]) -> Result<()> {
        // Counting instead of stopping at the first lets the compiler use vectors.
        if logits.iter().map(|&logit| u32::from(!is_usable(logit))).sum::<u32>() > 0 {
            let bad = (0..).zip(logits).find(|&(_, &logit)| !is_usable(logit));
            return bad.map_or(Ok(()), |(id, &logit)| Err(unusable(id, logit)));
        }
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits).map(|(id, &logit)| Candidate::new(logit, id)));
        for &id in self.window.tokens() {
            // From the raw logit, so that a token that is there twice is penalised once, by its count.
            let logit = self.params.penalised(logits[id as usize], self.window.count(id));
            if !is_usable(logit) {
                return Err(unusable(id, logit));
            }
            self.candidates[id as usize] = Candidate::new(logit, id);
        }
        match cut::likeliest(&self.candidates) {
            Some(max) if max > f32::NEG_INFINITY => Ok(()),
            _ => Err(all_ruled_out()),
        }
    }

    /// Leaves the candidates that the parameters keep; one at least.
    fn cut(&mut self) {
        let SamplerParams { top_k, top_p, min_p, .. } = self.params;
        if top_k > 0 {
            cut::top_k(&mut self.candidates, top_k);
        }
        if top_p < 1.0 {
            cut::top_p(&mut self.candidates, top_p);
        }
        if min_p > 0.0 {
            cut::min_p(&mut self.candidates, min_p);
        }
    }

    /// One of the candidates, by probability.
    fn draw(&mut self) -> Result<u32> {
        let max = cut::likeliest(&self.candidates).ok_or_else(all_ruled_out)?;
        let weights = || {
            let temperature = self.params.temperature;
            self.candidates.iter().map(move |candidate| (candidate.id(), candidate.weight(max, temperature)))
        };
        // 53 random bits: an f64 in [0, 1).
        let uniform = (self.rng.next_u64() >> 11) as f64 * (0.5_f64).powi(53);
        let target = uniform * weights().map(|(_, weight)| weight).sum::<f64>();
        let mut passed = 0.0;
        let mut drawn = 0;
        for (id, weight) in weights().filter(|&(_, weight)| weight > 0.0) {
            drawn = id;
            passed += weight;
            if target < passed {
                break;
            }
        }
        // Where rounding leaves the target unmet, the last one stands.
        Ok(drawn)
    }
}

/// Neither NaN nor +∞.
fn is_usable(logit: f32) -> bool {
    logit < f32::INFINITY
}

fn unusable(id: u32, logit: f32) -> Error {
    Error::invalid(format!("the logit of token {id} is {logit}"))
}

fn all_ruled_out() -> Error {
    Error::invalid("every logit is −∞: no token is left to pick")
}
