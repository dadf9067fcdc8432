//! The size of a server, its threads, and its engine's options.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kv::CacheType;
use crate::model::{Model, RopeOverrides};
use crate::runtime::EngineParams;
use crate::threads::{self, MAX_WORKERS, Team};

/// The size of a server, and its threads.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerParams {
    /// Most sequences that run at the same time.
    pub n_sequences: usize,
    /// Most positions of a sequence; 0 = as many as the model was trained on.
    pub n_ctx: usize,
    /// Positions that all running sequences share, at least `n_ctx`; 0 = `n_sequences · n_ctx`. With fewer, a sequence for
    /// which no page is free waits, or is preempted and computed again later.
    pub n_positions: usize,
    /// Most tokens in one pass, at least `n_sequences`; 0 = a sensible default. The running sequences' next tokens come
    /// first, pieces of prompts take the rest: a smaller budget keeps the time between two tokens even while prompts are
    /// read, a larger one reads prompts faster.
    pub n_batch: usize,
    /// Most requests that wait or run at the same time.
    pub n_requests: usize,
    /// Events that may wait for [`Server::poll`](super::Server::poll) before steps do nothing; at least
    /// `4 · n_sequences`.
    pub n_events: usize,
    /// Worker threads, the one that calls [`Server::step`](super::Server::step) included. Ignored where a `team` is given.
    pub threads: usize,
    /// A team to share with contexts and other servers, which then wait for each other's passes; `None` makes one.
    pub team: Option<Arc<Team>>,
    /// Whether requests whose prompts begin with the same pages of 128 tokens compute them once and share them, also with
    /// requests that have ended, as long as no other request needs the pages. Models with recurrent layers share nothing.
    pub prefix_index: bool,
    /// The element type of cached keys and values.
    pub kv: CacheType,
    /// Changes in the rotary embedding, for contexts longer than the model was trained on.
    pub rope: RopeOverrides,
}

impl Default for ServerParams {
    fn default() -> Self {
        ServerParams {
            n_sequences: 16,
            n_ctx: 0,
            n_positions: 0,
            n_batch: 0,
            n_requests: 1024,
            n_events: 4096,
            threads: threads::available(),
            team: None,
            prefix_index: true,
            kv: CacheType::default(),
            rope: RopeOverrides::default(),
        }
    }
}

/// Most requests and events: their places are reserved when the server is made.
const MOST: usize = 1 << 20;

impl ServerParams {
    /// Sets [`ServerParams::n_sequences`].
    pub fn with_n_sequences(self, n_sequences: usize) -> Self {
        Self { n_sequences, ..self }
    }

    /// Sets [`ServerParams::n_ctx`].
    pub fn with_n_ctx(self, n_ctx: usize) -> Self {
        Self { n_ctx, ..self }
    }

    /// Sets [`ServerParams::n_positions`].
    pub fn with_n_positions(self, n_positions: usize) -> Self {
        Self { n_positions, ..self }
    }

    /// Sets [`ServerParams::n_batch`].
    pub fn with_n_batch(self, n_batch: usize) -> Self {
        Self { n_batch, ..self }
    }

    /// Sets [`ServerParams::n_requests`].
    pub fn with_n_requests(self, n_requests: usize) -> Self {
        Self { n_requests, ..self }
    }

    /// Sets [`ServerParams::n_events`].
    pub fn with_n_events(self, n_events: usize) -> Self {
        Self { n_events, ..self }
    }

    /// Sets [`ServerParams::threads`].
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Sets [`ServerParams::team`].
    pub fn with_team(self, team: impl Into<Option<Arc<Team>>>) -> Self {
        Self { team: team.into(), ..self }
    }

    /// Sets [`ServerParams::prefix_index`].
    pub fn with_prefix_index(self, prefix_index: bool) -> Self {
        Self { prefix_index, ..self }
    }

    /// Sets [`ServerParams::kv`].
    pub fn with_kv(self, kv: CacheType) -> Self {
        Self { kv, ..self }
    }

    /// Sets [`ServerParams::rope`].
    pub fn with_rope(self, rope: RopeOverrides) -> Self {
        Self { rope, ..self }
    }

    /// Workers, the calling thread included.
    pub(super) fn workers(&self) -> usize {
        self.team.as_ref().map_or(self.threads, |team| team.count())
    }

    /// The engine's parameters, once the server's own have been checked.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the parameter.
    pub(super) fn engine(&self, model: &Model) -> Result<EngineParams> {
        let count = self.workers();
        if !(1..=MAX_WORKERS).contains(&count) {
            return Err(Error::invalid(format!("threads is {count}; expected 1 to {MAX_WORKERS}")));
        }
        let n_ctx = if self.n_ctx == 0 { model.config().n_ctx_train } else { self.n_ctx };
        if (1..n_ctx).contains(&self.n_positions) {
            let given = self.n_positions;
            return Err(Error::invalid(format!(
                "n_positions is {given}, fewer than the {n_ctx} of one sequence (n_ctx)"
            )));
        }
        for (name, count, least) in [("n_requests", self.n_requests, 1), ("n_events", self.n_events, 0)] {
            if !(least..=MOST).contains(&count) {
                return Err(Error::invalid(format!("{name} is {count}; expected {least} to {MOST}")));
            }
        }
        Ok(EngineParams::default()
            .with_n_sequences(self.n_sequences)
            .with_n_ctx(n_ctx)
            .with_n_positions(self.n_positions)
            .with_n_batch(self.n_batch)
            .with_n_output(self.n_sequences)
            .with_prefix_index(self.prefix_index)
            .with_kv(self.kv)
            .with_rope(self.rope))
    }
}
