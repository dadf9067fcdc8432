//! The parameters of an embedder.

use std::sync::Arc;

use super::Prompt;
use crate::error::{Error, Result};
use crate::kv::CacheType;
use crate::model::{Model, Pooling};
use crate::threads::{self, Team};

/// What becomes of a text with more tokens than [`EmbedderParams::n_ctx`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LongTexts {
    /// Its end is left out, except the tokens that the model expects at the end of a text.
    #[default]
    Truncate,
    /// It is split into parts of even length, each with the tokens that the model expects around a text and with the
    /// prompt; its vector is the mean of theirs before normalisation, weighted by the parts' tokens.
    Split,
    /// It has no vector: [`TextStatus::TooLong`](super::TextStatus::TooLong).
    Refuse,
}

/// How passes use the threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// For each window of texts whichever is estimated to be faster.
    #[default]
    Auto,
    /// All threads in one pass: the least time for a few texts.
    Fine,
    /// A pass on each thread, which takes the next texts when it is done: the most texts a second.
    Coarse,
}

/// The size of an embedder, and what it makes of texts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbedderParams {
    /// The row that stands for a text; `None` for the file's.
    pub pooling: Option<Pooling>,
    /// Stands in front of each text until [`Embedder::set_prompt`](super::Embedder::set_prompt).
    pub prompt: Prompt,
    /// What becomes of texts that are too long.
    pub long_texts: LongTexts,
    /// Floats of a vector: the first so many of the model's, which must be trained for it (Matryoshka, Kusupati et al.
    /// 2022, arXiv:2205.13147); 0 for all.
    pub dimensions: usize,
    /// Whether vectors are scaled to length 1, after they were cut to `dimensions`.
    pub normalize: bool,
    /// How passes use the threads.
    pub strategy: Strategy,
    /// Threads, the calling one included. Ignored where a `team` is given.
    pub threads: usize,
    /// A team to share with contexts; `None` makes one.
    pub team: Option<Arc<Team>>,
    /// Most tokens of a text, special tokens and prompt included; 0 = as many as the model was trained on, but at most
    /// [`EmbedderParams::MAX_DEFAULT_CTX`].
    pub n_ctx: usize,
    /// Most tokens of several texts in one pass; 0 = a sensible default. A longer text has a pass of its own.
    pub n_batch: usize,
    /// The element type of keys and values during a pass.
    pub kv: CacheType,
}

impl Default for EmbedderParams {
    fn default() -> Self {
        EmbedderParams {
            pooling: None,
            prompt: Prompt::default(),
            long_texts: LongTexts::default(),
            dimensions: 0,
            normalize: true,
            strategy: Strategy::default(),
            threads: threads::available(),
            team: None,
            n_ctx: 0,
            n_batch: 0,
            kv: CacheType::default(),
        }
    }
}

impl EmbedderParams {
    /// Largest [`EmbedderParams::n_ctx`] by default: activations of a longer text take hundreds of megabytes.
    pub const MAX_DEFAULT_CTX: usize = 8192;

    /// Sets [`EmbedderParams::pooling`].
    pub fn with_pooling(self, pooling: impl Into<Option<Pooling>>) -> Self {
        Self { pooling: pooling.into(), ..self }
    }

    /// Sets [`EmbedderParams::prompt`].
    pub fn with_prompt(self, prompt: Prompt) -> Self {
        Self { prompt, ..self }
    }

    /// Sets [`EmbedderParams::long_texts`].
    pub fn with_long_texts(self, long_texts: LongTexts) -> Self {
        Self { long_texts, ..self }
    }

    /// Sets [`EmbedderParams::dimensions`].
    pub fn with_dimensions(self, dimensions: usize) -> Self {
        Self { dimensions, ..self }
    }

    /// Sets [`EmbedderParams::normalize`].
    pub fn with_normalize(self, normalize: bool) -> Self {
        Self { normalize, ..self }
    }

    /// Sets [`EmbedderParams::strategy`].
    pub fn with_strategy(self, strategy: Strategy) -> Self {
        Self { strategy, ..self }
    }

    /// Sets [`EmbedderParams::threads`].
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Sets [`EmbedderParams::team`].
    pub fn with_team(self, team: impl Into<Option<Arc<Team>>>) -> Self {
        Self { team: team.into(), ..self }
    }

    /// Sets [`EmbedderParams::n_ctx`].
    pub fn with_n_ctx(self, n_ctx: usize) -> Self {
        Self { n_ctx, ..self }
    }

    /// Sets [`EmbedderParams::n_batch`].
    pub fn with_n_batch(self, n_batch: usize) -> Self {
        Self { n_batch, ..self }
    }

    /// Sets [`EmbedderParams::kv`].
    pub fn with_kv(self, kv: CacheType) -> Self {
        Self { kv, ..self }
    }

    /// Workers, the calling thread included.
    pub(super) fn workers(&self) -> usize {
        self.team.as_ref().map_or(self.threads, |team| team.count())
    }

    /// The pooling that is asked for, or the file's.
    pub(super) fn pooling_of(&self, model: &Model) -> Result<Pooling> {
        if let Some(pooling) = self.pooling.or(model.config().pooling) {
            return Ok(pooling);
        }
        let name = &model.config().architecture;
        Err(Error::Unsupported(if model.graph().logits.is_some() {
            format!(
                "{name} writes text, and the file states no pooling: to embed with it, choose one (decoders have the \
                 last token's row as a rule)"
            )
        } else {
            format!("the file of this {name} states no pooling: choose one")
        }))
    }
}
