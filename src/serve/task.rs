//! A request inside the scheduler: its generation, its tokens, its sequence if it has one, and its place in the order.

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use super::event::Summary;
use super::request::RequestId;
use crate::error::{Error, Result};
use crate::kv::{PAGE, SequenceId};
use crate::memory::reserve::collected;
use crate::runtime::generation::Generation;
use crate::runtime::sampling::Sampler;

/// The order in which requests are served, the first one least: by priority, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(Reverse<i32>, RequestId);

/// A request that hasn't ended.
pub(super) struct Task {
    pub id: RequestId,
    pub priority: i32,
    pub generation: Generation,
    pub sampler: Sampler,
    /// The tokens that its sequence has or is to have: the prompt, and the sampled ones. It has room for all.
    pub tokens: Vec<u32>,
    pub n_prompt: usize,
    /// [`GenerationParams::logprobs`](crate::runtime::generation::GenerationParams::logprobs).
    pub logprobs: Option<usize>,
    /// For each page of [`PAGE`] tokens of the prompt, but for its last token, a hash of all tokens up to its end.
    pub pages: Vec<u64>,
    pub sequence: Option<SequenceId>,
    /// Tokens that the sequence lacks, and how many of them the next pass computes.
    pub lacks: usize,
    pub takes: usize,
    /// Whether an earlier request computes the page that comes next.
    pub follows: bool,
    /// The end, once it has come.
    pub outcome: Option<Result<()>>,
    pub n_preempted: usize,
    pub submitted: Instant,
    /// The first step that ran it, and the one that completed the prompt.
    pub started: Option<Instant>,
    pub prefilled: Option<Instant>,
}

impl Task {
    pub fn rank(&self) -> Rank {
        Rank(Reverse(self.priority), self.id)
    }

    /// Whether it reads its prompt, or what it lost by a preemption.
    pub fn reads(&self) -> bool {
        self.lacks > 1
    }

    /// Whether the next page of its prompt, behind so many tokens, is one that `earlier` computes.
    pub fn follows(&self, len: usize, earlier: &Task) -> bool {
        let page = len / PAGE;
        earlier.reads() && self.pages.get(page).is_some_and(|hash| earlier.pages.get(page) == Some(hash))
    }

    /// Takes what its generation wants to be computed next; where that is nothing, it has ended.
    pub fn go_on(&mut self) {
        match self.generation.wanted() {
            Some(feed) => self.tokens.extend_from_slice(feed.tokens),
            None => self.outcome = Some(Ok(())),
        }
    }

    /// The counts and times of a generation that has ended now.
    ///
    /// # Errors
    /// [`Error::Internal`] where it hasn't.
    pub fn summary(&self) -> Result<Summary> {
        let no_reason = || Error::Internal("a generation ended without a reason".into());
        let started = self.started.unwrap_or(self.submitted);
        let prefilled = self.prefilled.unwrap_or(started);
        Ok(Summary {
            reason: self.generation.reason().ok_or_else(no_reason)?,
            n_prompt: self.n_prompt,
            n_generated: self.generation.n_generated(),
            last_token: self.generation.last_sampled(),
            n_preempted: self.n_preempted,
            wait_seconds: (started - self.submitted).as_secs_f64(),
            prefill_seconds: (prefilled - started).as_secs_f64(),
            decode_seconds: prefilled.elapsed().as_secs_f64(),
        })
    }
}

/// [`Task::pages`] of a prompt.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(super) fn pages(prompt: &[u32]) -> Result<Vec<u64>> {
    let mut hasher = DefaultHasher::new();
    let whole = prompt[..prompt.len().saturating_sub(1)].chunks_exact(PAGE).map(|page| {
        page.hash(&mut hasher);
        Ok(hasher.finish())
    });
    collected(whole, "the pages of a prompt")
}
