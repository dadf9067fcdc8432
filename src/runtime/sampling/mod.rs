//! Picks the next token from logits. A [`Sampler`] runs a chain of stages ([`Stage`]); each stage removes candidates or
//! changes their logits. All cuts are exact, and equal logits rank by lower id, so the same logits and seed give the
//! same token on any number of threads. After construction nothing is allocated.
//!
//! [`SamplerParams`] stand for the same chain as llama.cpp's default:
//! penalties → top-k → top-p → min-p → temperature → draw. [`Sampler::from_stages`] takes any other chain.
//!
//! A sampler remembers accepted tokens and can take them back: [`Sampler::rollback`].

mod cut;
mod mask;
mod params;
mod stage;
mod window;

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod tests;

use crate::memory::reserve::with_room;
use crate::{Error, Result};
use cut::Candidate;
pub use mask::{Mask, TokenSet};
pub use params::SamplerParams;
use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
pub use stage::{MAX_PENALTY_LAST_N, Penalties, Stage};
use std::collections::VecDeque;
use window::Window;

/// Most tokens that a sampler can take back.
pub const MAX_ROLLBACK: usize = 256;

/// Picks the tokens of one sequence.
pub struct Sampler {
    stages: Vec<Stage>,
    n_vocab: usize,
    seed: u64,
    rng: Pcg64Mcg,
    /// States of `rng`: before the first token that can be taken back, and after each such token.
    marks: VecDeque<Pcg64Mcg>,
    window: Window,
    /// Scratch memory, with room for the whole vocabulary.
    candidates: Vec<Candidate>,
    /// Scratch memory for masks; of an empty vocabulary in a chain without masks.
    allowed: TokenSet,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler")
            .field("stages", &self.stages)
            .field("n_vocab", &self.n_vocab)
            .finish_non_exhaustive()
    }
}

impl Sampler {
    /// A sampler for logits of `n_vocab` tokens.
    ///
    /// # Errors
    /// As [`SamplerParams::validate`]; [`Error::InvalidArgument`] for `n_vocab` 0 or above `u32::MAX`;
    /// [`Error::OutOfMemory`].
    pub fn new(params: SamplerParams, n_vocab: usize) -> Result<Self> {
        params.validate()?;
        Self::from_stages(params.stages(), n_vocab)
    }

    /// A sampler for logits of `n_vocab` tokens that runs these stages, in this order.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where a stage's value is outside its range, where the chain doesn't end with its only
    /// [`Stage::Draw`], where it has two [`Stage::Penalties`] or two [`Stage::Temperature`], and for `n_vocab` 0 or
    /// above `u32::MAX`; [`Error::OutOfMemory`].
    pub fn from_stages(stages: Vec<Stage>, n_vocab: usize) -> Result<Self> {
        let seed = stage::check_chain(&stages)?;
        if n_vocab == 0 || u32::try_from(n_vocab).is_err() {
            return Err(Error::invalid(format!("a vocabulary of {n_vocab} tokens")));
        }
        let candidates = with_room(n_vocab, "the sampler's candidates")?;
        let mut marks = VecDeque::from(with_room(MAX_ROLLBACK + 1, "the sampler's memory of draws")?);
        let last_n = stages.iter().find_map(|stage| match stage {
            Stage::Penalties(penalties) => Some(penalties.last_n),
            _ => None,
        });
        let window = last_n.map_or(Ok(Window::default()), |last_n| Window::new(last_n, n_vocab))?;
        let masked = stages.iter().any(|stage| matches!(stage, Stage::Mask(_)));
        let allowed = TokenSet::new(if masked { n_vocab } else { 0 })?;
        let rng = Pcg64Mcg::seed_from_u64(seed);
        marks.push_back(rng.clone());
        Ok(Self { stages, n_vocab, seed, rng, marks, window, candidates, allowed })
    }

    /// The seed of the random draws.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Picks the next token, without [accepting](Self::accept) it.
    ///
    /// A logit of −∞ rules its token out.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `logits` doesn't have one value for each token, where a logit is NaN or +∞
    /// (also after penalties; the error names the token), or where no token is left, because of the logits or of a
    /// mask; any error of a mask. The state of the random numbers has not changed then.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.gather(logits)?;
        let mut temperature = 1.0;
        for stage in &mut self.stages {
            match stage {
                Stage::Penalties(penalties) => penalties.apply(&self.window, &mut self.candidates)?,
                Stage::Mask(mask) => mask::apply(mask.as_mut(), &mut self.allowed, &mut self.candidates)?,
                Stage::TopK(k) if *k > 0 => cut::top_k(&mut self.candidates, *k),
                Stage::TopP(p) if *p < 1.0 => cut::top_p(&mut self.candidates, *p, temperature),
                Stage::MinP(p) if *p > 0.0 => cut::min_p(&mut self.candidates, *p, temperature),
                Stage::Temperature(0.0) => cut::top_k(&mut self.candidates, 1),
                Stage::Temperature(value) => temperature = *value,
                Stage::TopK(_) | Stage::TopP(_) | Stage::MinP(_) | Stage::Draw { .. } => {}
            }
        }
        self.draw(temperature)
    }

    /// Tells the sampler that a token was appended to the text: it enters the penalties' window, and each mask accepts
    /// it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a token outside the vocabulary; the error of a mask that refuses it. Nothing has
    /// changed then.
    pub fn accept(&mut self, token: u32) -> Result<()> {
        self.check(token)?;
        for i in 0..self.stages.len() {
            if let Stage::Mask(mask) = &mut self.stages[i]
                && let Err(error) = mask.accept(token)
            {
                masks(&mut self.stages[..i]).for_each(|mask| mask.rollback(1));
                return Err(error);
            }
        }
        if self.marks.len() > MAX_ROLLBACK {
            self.marks.pop_front();
        }
        self.marks.push_back(self.rng.clone());
        self.window.push(token);
        Ok(())
    }

    /// Tells the sampler of a token of the prompt: it enters the penalties' window. Masks only constrain generated
    /// text, so they aren't told. Tokens accepted before can't be rolled back any more.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a token outside the vocabulary.
    pub fn read(&mut self, token: u32) -> Result<()> {
        self.check(token)?;
        self.marks.clear();
        self.marks.push_back(self.rng.clone());
        self.window.push(token);
        Ok(())
    }

    /// Takes back the last `n` accepted tokens. The penalties' window, the masks and the random numbers return to their
    /// earlier state (including any draws since the last of these tokens). So the sampler picks the tokens that it
    /// would have picked without the tokens taken back: the text depends on the seed alone, however many attempts were
    /// made.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where fewer tokens were accepted since [`Sampler::new`], [`Sampler::read`] or
    /// [`Sampler::reset`], or `n` is above [`MAX_ROLLBACK`]. Nothing has changed then.
    pub fn rollback(&mut self, n: usize) -> Result<()> {
        let most = self.marks.len() - 1;
        if n > most {
            return Err(Error::invalid(format!("can't roll back {n} tokens: only {most} are remembered")));
        }
        self.marks.truncate(1 + most - n);
        self.rng = self.marks[most - n].clone();
        self.window.rollback(n);
        masks(&mut self.stages).for_each(|mask| mask.rollback(n));
        Ok(())
    }

    /// Forgets all tokens and restarts the random numbers from the seed.
    pub fn reset(&mut self) {
        self.window.clear();
        self.rng = Pcg64Mcg::seed_from_u64(self.seed);
        self.marks.clear();
        self.marks.push_back(self.rng.clone());
        masks(&mut self.stages).for_each(|mask| mask.reset());
    }

    fn check(&self, token: u32) -> Result<()> {
        if token as usize >= self.n_vocab {
            return Err(Error::invalid(format!("token {token} of a vocabulary of {}", self.n_vocab)));
        }
        Ok(())
    }

    /// Fills `candidates` with all tokens in order of id, or, where the chain begins with keeping the best few, with
    /// these. Tokens with a logit of −∞ are included: they rank last, and their probability is 0.
    fn gather(&mut self, logits: &[f32]) -> Result<()> {
        if logits.len() != self.n_vocab {
            let (given, n_vocab) = (logits.len(), self.n_vocab);
            return Err(Error::invalid(format!("{given} logits for a vocabulary of {n_vocab}")));
        }
        let first_cut = self.stages.iter().find(|stage| stage.changes_ranks_or_removes());
        let kept = first_cut.and_then(Stage::kept).filter(|&kept| kept < logits.len());
        if let Some(kept) = kept {
            return cut::best_of(logits, kept, &mut self.candidates);
        }
        // The compiler can vectorise counting, but not a loop that stops at the first hit.
        if logits.iter().map(|&logit| u32::from(!is_usable(logit))).sum::<u32>() > 0 {
            let bad = (0..).zip(logits).find(|&(_, &logit)| !is_usable(logit));
            return bad.map_or(Ok(()), |(id, &logit)| Err(unusable(id, logit)));
        }
        self.candidates.clear();
        self.candidates.extend((0..).zip(logits).map(|(id, &logit)| Candidate::new(logit, id)));
        Ok(())
    }

    /// One of the candidates, by probability.
    fn draw(&mut self, temperature: f32) -> Result<u32> {
        let max = cut::likeliest(&self.candidates).filter(|&max| max > f32::NEG_INFINITY);
        let max = max.ok_or_else(|| Error::invalid("every logit is −∞: no token is left to pick"))?;
        let weights =
            || self.candidates.iter().map(|candidate| (candidate.id(), candidate.weight(max, temperature)));
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
        // If rounding keeps the sum below the target, the last candidate is it.
        Ok(drawn)
    }
}

/// The masks among the stages.
fn masks(stages: &mut [Stage]) -> impl Iterator<Item = &mut Box<dyn Mask>> {
    stages.iter_mut().filter_map(|stage| match stage {
        Stage::Mask(mask) => Some(mask),
        _ => None,
    })
}

/// Neither NaN nor +∞.
fn is_usable(logit: f32) -> bool {
    logit < f32::INFINITY
}

fn unusable(id: u32, logit: f32) -> Error {
    Error::invalid(format!("the logit of token {id} is {logit}"))
}
