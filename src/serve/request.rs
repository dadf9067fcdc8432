//! A request: a prompt, a sampler, limits and a priority.

use std::fmt;

use crate::runtime::generation::GenerationParams;
use crate::runtime::sampling::Sampler;

/// Names a request of a server. A server never uses a number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {}", self.0)
    }
}

/// The beginning of a text, which a request continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prompt<'a> {
    /// Tokens, as the model reads them.
    Tokens(&'a [u32]),
    /// A text. Names of special tokens in it are text, and the model's first token stands in front of it, if it has one.
    Text(&'a str),
}

impl<'a> From<&'a [u32]> for Prompt<'a> {
    fn from(tokens: &'a [u32]) -> Self {
        Prompt::Tokens(tokens)
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for Prompt<'a> {
    fn from(tokens: &'a [u32; N]) -> Self {
        Prompt::Tokens(tokens)
    }
}

impl<'a> From<&'a Vec<u32>> for Prompt<'a> {
    fn from(tokens: &'a Vec<u32>) -> Self {
        Prompt::Tokens(tokens)
    }
}

impl<'a> From<&'a str> for Prompt<'a> {
    fn from(text: &'a str) -> Self {
        Prompt::Text(text)
    }
}

/// A generation that a server is to run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The text to continue.
    pub prompt: Prompt<'a>,
    /// Picks the request's tokens: a chain of stages and a seed of its own.
    pub sampler: Sampler,
    /// The limits. [`GenerationParams::prompt_piece`] and [`GenerationParams::id`] mean nothing here.
    pub params: GenerationParams<'a>,
    /// Requests of a higher priority come first: they take running requests' places and pages, if none are free.
    pub priority: i32,
}

impl<'a> Request<'a> {
    /// A request with the default limits and priority 0.
    pub fn new(prompt: impl Into<Prompt<'a>>, sampler: Sampler) -> Self {
        Request { prompt: prompt.into(), sampler, params: GenerationParams::default(), priority: 0 }
    }

    /// Sets [`Request::params`].
    pub fn with_params(self, params: GenerationParams<'a>) -> Self {
        Self { params, ..self }
    }

    /// Sets [`GenerationParams::max_tokens`].
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        let params = self.params.with_max_tokens(max_tokens);
        self.with_params(params)
    }

    /// Sets [`Request::priority`].
    pub fn with_priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }
}
