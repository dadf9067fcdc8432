//! Picks the next token from logits. A [`Sampler`] runs a chain of stages ([`Stage`]); each stage removes candidates or
//! changes their logits. All cuts are exact, and equal logits rank by lower id, so the same logits and seed give the
//! same token on any number of threads, with the same kernels. After construction nothing is allocated, except by grammars and stages of the host.
//!
//! [`SamplerParams`] stand for a chain in llama.cpp's default order ([`StageKind::ORDER`]): logit bias → mask → penalties →
//! DRY → top-n-sigma → top-k → typical → top-p → min-p → XTC → the host's stage → temperature → draw. [`SamplerParams::chain`]
//! takes another order, and [`Sampler::from_stages`] any chain.
//!
//! Logits live in a row of all tokens first (`pool.rs`), in which stages that change single logits do so. The first cut makes
//! a list of candidates of it; mostly these are few. No stage sorts all of them. What a stage needs of all logits, vector
//! kernels compute (`blocks.rs`).
//!
//! A sampler remembers accepted tokens and can take them back: [`Sampler::rollback`].

mod blocks;
mod breakers;
mod chain;
mod custom;
mod cut;
mod dry;
#[cfg(feature = "grammar")]
mod grammar;
mod logprobs;
mod mask;
mod params;
mod penalties;
mod pool;
mod shape;
mod stage;
mod window;

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod distribution_tests;
#[cfg(all(test, feature = "grammar"))]
mod grammar_tests;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod tests;

use crate::memory::reserve::with_room;
use crate::{Error, Result};
pub use breakers::{Breakers, MAX_BREAKER_BYTES};
pub use chain::{ChainParts, StageKind};
pub use custom::{CustomStage, TokenLogit};
pub use dry::Dry;
use dry::Repeats;
#[cfg(feature = "grammar")]
pub use grammar::{Grammar, GrammarKind, Grammars, MAX_GRAMMAR_BYTES, MAX_GRAMMAR_DEPTH};
pub use logprobs::{Logprobs, TokenLogprob};
pub use mask::{Mask, TokenSet};
pub use params::SamplerParams;
pub use penalties::{MAX_PENALTY_LAST_N, Penalties};
use pool::Pool;
use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
pub use stage::{MAX_LOGIT_BIASES, Stage};
use std::collections::VecDeque;
use window::Window;

/// Most tokens that a sampler can take back.
pub const MAX_ROLLBACK: usize = 256;

/// What draws have changed.
#[derive(Clone)]
struct Draws {
    rng: Pcg64Mcg,
    /// Mirostat's greatest surprise in bits.
    mu: f64,
}

/// Picks the tokens of one sequence.
pub struct Sampler {
    stages: Vec<Stage>,
    n_vocab: usize,
    seed: u64,
    draws: Draws,
    /// States of `draws`: before the first token that can be taken back, and after each such token.
    marks: VecDeque<Draws>,
    window: Window,
    /// In a chain with DRY.
    repeats: Option<Repeats>,
    /// Scratch memory: what is left while the chain runs.
    pool: Pool,
    /// Scratch memory for masks and stages of the host; of an empty vocabulary in a chain without them.
    allowed: TokenSet,
    /// Scratch memory for stages of the host.
    tokens: Vec<TokenLogit>,
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
    /// [`Stage::Draw`] or [`Stage::Mirostat`], where it has two [`Stage::Penalties`], two [`Stage::Dry`] or two temperatures,
    /// for a logit bias of a token outside the vocabulary, and for `n_vocab` 0 or above `u32::MAX`;
    /// [`Error::OutOfMemory`].
    pub fn from_stages(stages: Vec<Stage>, n_vocab: usize) -> Result<Self> {
        if n_vocab == 0 || u32::try_from(n_vocab).is_err() {
            return Err(Error::invalid(format!("a vocabulary of {n_vocab} tokens")));
        }
        let seed = stage::check_chain(&stages, n_vocab)?;
        let has = |of: fn(&Stage) -> bool| stages.iter().any(of);
        let room = |needed: bool| if needed { n_vocab } else { 0 };
        let (masked, custom) =
            (has(|stage| matches!(stage, Stage::Mask(_))), has(|stage| matches!(stage, Stage::Custom(_))));
        let (mut window, mut repeats) = (Window::default(), None);
        for stage in &stages {
            match stage {
                Stage::Penalties(penalties) if penalties.are_on() => {
                    window = Window::new(penalties.last_n, n_vocab)?;
                }
                Stage::Dry(dry) if dry.is_on() => repeats = Some(Repeats::new(dry, n_vocab)?),
                _ => {}
            }
        }
        let draws = first_draws(seed, &stages);
        let mut marks = VecDeque::from(with_room(MAX_ROLLBACK + 1, "the sampler's memory of draws")?);
        marks.push_back(draws.clone());
        Ok(Self {
            n_vocab,
            seed,
            draws,
            marks,
            window,
            repeats,
            pool: Pool::new(n_vocab, has(Stage::edits) || has(Stage::is_xtc))?,
            allowed: TokenSet::new(room(masked || custom))?,
            tokens: with_room(room(custom), "the sampler's candidates")?,
            stages,
        })
    }

    /// The seed of the random draws.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Picks the next token, without [accepting](Self::accept) it.
    ///
    /// A logit of −∞ rules its token out. If a mask at the chain's beginning allows one token only, that is it, and no random
    /// number is used up.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `logits` doesn't have one value for each token, where a logit is NaN or +∞ and no
    /// mask rules it out (also after penalties; the error names the token), or where no token is left, because of the
    /// logits or of a mask; any error of a mask or of a stage of the host. The state of the random numbers has not changed
    /// then.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let before = self.draws.clone();
        let picked = self.pick(logits);
        if picked.is_err() {
            self.draws = before;
        }
        picked
    }

    /// Appends to `tokens` those that the chain's masks force next, whatever the logits are: [`Mask::forced`] of the only
    /// mask. Sampling would pick the same ones. They are not accepted.
    ///
    /// # Errors
    /// Those of the mask.
    pub fn forced(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        let first = self.first_cut();
        let mut masks = masks(&mut self.stages[..first]);
        match (masks.next(), masks.next()) {
            (Some(mask), None) => mask.forced(tokens),
            _ => Ok(()),
        }
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
        self.marks.push_back(self.draws.clone());
        self.remember(token);
        Ok(())
    }

    /// Tells the sampler of a token of the prompt: it enters the penalties' window. Masks only constrain generated
    /// text, so they aren't told: what follows a prompt is a new text for them. Tokens accepted before can't be rolled back
    /// any more.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a token outside the vocabulary.
    pub fn read(&mut self, token: u32) -> Result<()> {
        self.check(token)?;
        self.marks.clear();
        self.marks.push_back(self.draws.clone());
        masks(&mut self.stages).for_each(|mask| mask.reset());
        self.remember(token);
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
        self.draws = self.marks[most - n].clone();
        self.window.rollback(n);
        if let Some(repeats) = &mut self.repeats {
            repeats.rollback(n);
        }
        for stage in &mut self.stages {
            match stage {
                Stage::Mask(mask) => mask.rollback(n),
                Stage::Custom(custom) => custom.rollback(n),
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets all tokens and restarts the random numbers from the seed.
    pub fn reset(&mut self) {
        self.window.clear();
        if let Some(repeats) = &mut self.repeats {
            repeats.clear();
        }
        self.draws = first_draws(self.seed, &self.stages);
        self.marks.clear();
        self.marks.push_back(self.draws.clone());
        for stage in &mut self.stages {
            match stage {
                Stage::Mask(mask) => mask.reset(),
                Stage::Custom(custom) => custom.reset(),
                _ => {}
            }
        }
    }

    fn check(&self, token: u32) -> Result<()> {
        if token as usize >= self.n_vocab {
            return Err(Error::invalid(format!("token {token} of a vocabulary of {}", self.n_vocab)));
        }
        Ok(())
    }

    /// Appends a token to whatever looks at the last ones.
    fn remember(&mut self, token: u32) {
        self.window.push(token);
        if let Some(repeats) = &mut self.repeats {
            repeats.push(token);
        }
        for stage in &mut self.stages {
            if let Stage::Custom(custom) = stage {
                custom.accept(token);
            }
        }
    }

    /// The place of the first stage that needs the candidates: the draw at the latest.
    fn first_cut(&self) -> usize {
        self.stages.iter().position(Stage::needs_candidates).unwrap_or(self.stages.len())
    }

    /// Runs the chain.
    fn pick(&mut self, logits: &[f32]) -> Result<u32> {
        if logits.len() != self.n_vocab {
            let (given, n_vocab) = (logits.len(), self.n_vocab);
            return Err(Error::invalid(format!("{given} logits for a vocabulary of {n_vocab}")));
        }
        self.pool.begin();
        let first = self.first_cut();
        let mut temperature = 1.0;
        for at in 0..self.stages.len() {
            let picked = match self.edit(at, logits)? {
                Some(only) if at < first => Some(self.only(only, logits)?),
                _ => self.step(at, logits, &mut temperature)?,
            };
            if let Some(picked) = picked {
                return Ok(picked);
            }
        }
        Err(Error::Internal("a chain of stages without a draw".into()))
    }

    /// Lets a stage change single logits, if it is one that does; returns the only token that a mask allows, if it is only
    /// one.
    fn edit(&mut self, at: usize, logits: &[f32]) -> Result<Option<u32>> {
        let pool = &mut self.pool;
        match &mut self.stages[at] {
            stage if !stage.edits() => {}
            Stage::LogitBias(biases) => pool.edit(logits, |row| {
                biases.iter().for_each(|&(token, bias)| row[token as usize] += bias);
            })?,
            Stage::Penalties(penalties) => pool.edit(logits, |row| penalties.edit(&self.window, row))?,
            Stage::Dry(dry) => {
                if let Some(repeats) = &mut self.repeats {
                    pool.edit(logits, |row| repeats.edit(dry, row))?;
                }
            }
            Stage::Mask(mask) if pool.is_listed() => {
                mask::apply(mask.as_mut(), &mut self.allowed, pool.list(logits)?)?;
            }
            Stage::Mask(mask) => return mask::edit(mask.as_mut(), &mut self.allowed, pool.row(logits)),
            _ => {}
        }
        Ok(None)
    }

    /// The only token that a mask allows.
    fn only(&self, token: u32, logits: &[f32]) -> Result<u32> {
        let logit = self.pool.logit(logits, token);
        match (is_usable(logit), logit > f32::NEG_INFINITY) {
            (true, true) => Ok(token),
            (true, false) => Err(nothing_left()),
            (false, _) => Err(unusable(token, logit)),
        }
    }

    /// Runs a stage that looks at all that is left; returns a token if it picks one.
    fn step(&mut self, at: usize, logits: &[f32], temperature: &mut f32) -> Result<Option<u32>> {
        let pool = &mut self.pool;
        match &mut self.stages[at] {
            stage if !stage.is_on() => {}
            Stage::LogitBias(_) | Stage::Penalties(_) | Stage::Dry(_) | Stage::Mask(_) => {}
            Stage::TopNSigma(n) => shape::top_n_sigma(pool, logits, *n)?,
            Stage::TopK(k) => pool.top_k(logits, *k)?,
            Stage::Typical(p) => shape::typical(pool, logits, *p, *temperature)?,
            Stage::TopP(p) => shape::top_p(pool, logits, *p, *temperature)?,
            Stage::MinP(p) => shape::min_p(pool, logits, *p, *temperature)?,
            Stage::Xtc { probability, threshold } => {
                if uniform(&mut self.draws.rng) < f64::from(*probability) {
                    shape::exclude_top(pool, logits, *threshold, *temperature)?;
                }
            }
            Stage::Custom(custom) => {
                let (allowed, tokens) = (&mut self.allowed, &mut self.tokens);
                custom::apply(custom.as_mut(), *temperature, pool.list(logits)?, allowed, tokens)?;
                *temperature = 1.0;
            }
            Stage::Temperature(0.0) => pool.top_k(logits, 1)?,
            Stage::Temperature(value) => *temperature = *value,
            &mut Stage::DynamicTemperature { temperature: middle, range, exponent } => {
                match shape::dynamic_temperature(pool, logits, middle, range, exponent)? {
                    0.0 => pool.top_k(logits, 1)?,
                    value => *temperature = value,
                }
            }
            Stage::Draw { .. } => return self.draw(logits, *temperature).map(|drawn| Some(drawn.0)),
            &mut Stage::Mirostat { tau, eta, .. } => {
                return self.mirostat(logits, tau, eta, *temperature).map(Some);
            }
        }
        Ok(None)
    }

    /// One of the tokens that are left, by probability, and that probability.
    fn draw(&mut self, logits: &[f32], temperature: f32) -> Result<(u32, f64)> {
        self.pool.draw(logits, temperature, uniform(&mut self.draws.rng))
    }

    /// A draw among the tokens that aren't too surprising, after which that limit moves.
    fn mirostat(&mut self, logits: &[f32], tau: f32, eta: f32, temperature: f32) -> Result<u32> {
        shape::surprise_at_most(&mut self.pool, logits, self.draws.mu, temperature)?;
        let (drawn, probability) = self.draw(logits, temperature)?;
        self.draws.mu -= f64::from(eta) * (-probability.log2() - f64::from(tau));
        Ok(drawn)
    }
}

/// The state before any draw.
fn first_draws(seed: u64, stages: &[Stage]) -> Draws {
    let mu = match stages.last() {
        Some(Stage::Mirostat { tau, .. }) => 2.0 * f64::from(*tau),
        _ => 0.0,
    };
    Draws { rng: Pcg64Mcg::seed_from_u64(seed), mu }
}

/// 53 random bits: an f64 in [0, 1).
fn uniform(rng: &mut Pcg64Mcg) -> f64 {
    (rng.next_u64() >> 11) as f64 * (0.5_f64).powi(53)
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

fn nothing_left() -> Error {
    Error::invalid("every logit is −∞: no token is left to pick")
}
