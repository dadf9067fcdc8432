//! What a server tells its host: events of requests, their status, and counts.

use crate::error::Error;
use crate::runtime::generation::StopReason;

use super::request::RequestId;

/// Something that happened to a request. Events of one request come in their order; the last one is
/// [`Event::Finished`] or [`Event::Failed`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A token of the text, or text that was held back. The event's text has whole characters only; it may be empty.
    Output {
        /// The request.
        request: RequestId,
        /// The token; if it isn't new, the last one again.
        token: u32,
        /// Whether the token is a new one; false for text that was held back until the end.
        is_new: bool,
    },
    /// The request has ended.
    Finished {
        /// The request.
        request: RequestId,
        /// Its counts and times.
        summary: Summary,
    },
    /// The request has failed: [`Error::Cancelled`], or an error of its sampler, of memory or of its passes.
    Failed {
        /// The request.
        request: RequestId,
        /// Why it failed.
        error: Error,
    },
}

impl Event {
    /// The request that it is about.
    pub fn request(&self) -> RequestId {
        match *self {
            Event::Output { request, .. }
            | Event::Finished { request, .. }
            | Event::Failed { request, .. } => request,
        }
    }
}

/// The counts and times of a request that has ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Why it ended.
    pub reason: StopReason,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Sampled tokens, including one that ended the text.
    pub n_generated: usize,
    /// The last sampled token, also one that ended the text; `None` where none was sampled.
    pub last_token: Option<u32>,
    /// How often the request was preempted.
    pub n_preempted: usize,
    /// Seconds from the submission to the first step that ran the request.
    pub wait_seconds: f64,
    /// Seconds from then until the prompt's logits were computed.
    pub prefill_seconds: f64,
    /// Seconds from then to the end.
    pub decode_seconds: f64,
}

/// The status of a request that hasn't ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// It has no sequence yet, or was preempted.
    Waiting,
    /// It has a sequence.
    Running,
}

/// The work of one step, and the work that is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Tokens that the pass computed.
    pub n_tokens: usize,
    /// Requests with a sequence.
    pub n_running: usize,
    /// Requests without one.
    pub n_waiting: usize,
    /// Whether the step did nothing because too many events wait to be polled.
    pub must_poll: bool,
}

impl Progress {
    /// Whether no request is left.
    pub fn is_idle(&self) -> bool {
        self.n_running + self.n_waiting == 0
    }
}

/// Counts since the server was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that wait.
    pub n_waiting: usize,
    /// Requests that run.
    pub n_running: usize,
    /// Events that wait to be polled.
    pub n_events: usize,
    /// Requests that were accepted.
    pub submitted: u64,
    /// Requests that ended without an error.
    pub finished: u64,
    /// Requests that failed, the cancelled ones included.
    pub failed: u64,
    /// Of these, requests that were cancelled.
    pub cancelled: u64,
    /// Passes.
    pub passes: u64,
    /// Tokens that passes computed: of prompts, of texts, and those that were computed again.
    pub computed: u64,
    /// Tokens that were sampled.
    pub sampled: u64,
    /// How often a sequence was preempted.
    pub preempted: u64,
    /// Positions that preempted sequences lost.
    pub lost: u64,
    /// Positions that sequences took over from others instead of computing them.
    pub shared: u64,
}
