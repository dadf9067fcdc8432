//! A generation as a state machine: it says what it wants to be fed next, is given the logits that came of it, and
//! yields tokens and text. It runs no model and writes nothing, so that one caller can drive many of them with one
//! batch. [`drive`] is the caller that runs one on a [`Context`](super::Context).
//!
//! ```text
//! while let Some(feed) = generation.wanted() {       // a piece of the prompt, or the last token
//!     … decode feed.tokens, with the logits after the last one if feed.logits …
//!     if let Some(output) = generation.fed(logits, sampler, tokenizer)? { … output.text … }
//! }
//! if let Some(output) = generation.finish() { … what was held back … }
//! ```

mod driver;
mod text;

#[cfg(test)]
mod tests;

pub use driver::{Event, Summary, drive};
pub use text::{MAX_STOP_BYTES, MAX_STOPS};

use super::sampling::Sampler;
use crate::profile::{self, Zone};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use text::Text;

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model ended its text.
    EndOfText,
    /// As many tokens as were asked for.
    Length,
    /// The caller's callback said so.
    Callback,
    /// The context is full.
    ContextFull,
    /// A stop string came.
    StopString,
}

/// How long to generate, and what ends it.
#[derive(Clone, Copy, Debug)]
pub struct GenerationParams<'a> {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// Texts that end the generation where the first of them is complete; of several that end at the same place,
    /// the longest. A stop string is not handed out, nor is anything behind it. At most [`MAX_STOPS`], each of 1
    /// to [`MAX_STOP_BYTES`] bytes.
    pub stops: &'a [&'a str],
    /// Most tokens of the prompt that are fed at once; 0 feeds the prompt whole. In a multiple of the context's
    /// batch no pass is smaller than it must be.
    pub prompt_piece: usize,
}

impl Default for GenerationParams<'_> {
    /// 256 tokens; no stop strings; pieces of 256 tokens, which is the context's default batch.
    fn default() -> Self {
        Self { max_tokens: 256, stops: &[], prompt_piece: 256 }
    }
}

impl GenerationParams<'_> {
    /// Checks the stop strings.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there are too many, or one is empty or too long.
    pub fn validate(&self) -> Result<()> {
        text::check(self.stops)
    }
}

/// What a generation wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed<'a> {
    /// Tokens to append to the sequence; one at least.
    pub tokens: &'a [u32],
    /// Whether the logits after the last of them are needed.
    pub logits: bool,
}

/// What a generation has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    /// The token; for text that was held back at the end, the last one again.
    pub token: u32,
    /// Text that is complete with it. Empty while a character is incomplete, and while all might be the beginning
    /// of a stop string.
    pub text: &'a str,
}

/// One generation, from its prompt to its end.
pub struct Generation {
    prompt: Vec<u32>,
    prompt_piece: usize,
    max_tokens: usize,
    /// Tokens of the prompt that were fed.
    n_read: usize,
    /// Tokens sampled.
    n_generated: usize,
    /// The last token of the text.
    token: u32,
    reason: Option<StopReason>,
    /// An error left it where it can't go on.
    failed: bool,
    text: Text,
}

impl Generation {
    /// A generation that hasn't read anything yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty prompt, and as [`GenerationParams::validate`];
    /// [`Error::OutOfMemory`].
    pub fn new(prompt: &[u32], params: &GenerationParams<'_>) -> Result<Self> {
        if prompt.is_empty() {
            return Err(Error::invalid("the prompt is empty: no tokens to decode"));
        }
        let mut owned = Vec::new();
        owned.try_reserve_exact(prompt.len()).map_err(no_memory("the prompt", size_of_val(prompt)))?;
        owned.extend_from_slice(prompt);
        Ok(Self {
            prompt: owned,
            prompt_piece: if params.prompt_piece == 0 { prompt.len() } else { params.prompt_piece },
            max_tokens: params.max_tokens,
            n_read: 0,
            n_generated: 0,
            token: 0,
            reason: None,
            failed: false,
            text: Text::new(params.stops)?,
        })
    }

    /// What to feed next; `None` once the generation has ended, and after an error.
    pub fn wanted(&self) -> Option<Feed<'_>> {
        if self.failed || self.reason().is_some() {
            return None;
        }
        let unread = &self.prompt[self.n_read..];
        if unread.is_empty() {
            return Some(Feed { tokens: std::slice::from_ref(&self.token), logits: true });
        }
        let tokens = &unread[..unread.len().min(self.prompt_piece)];
        Some(Feed { tokens, logits: tokens.len() == unread.len() })
    }

    /// Goes on after the caller has fed what was [`wanted`](Self::wanted). `logits` has one value for each token of
    /// the vocabulary where logits were wanted, and isn't looked at otherwise. Pass the same sampler and tokenizer
    /// each time: the sampler reads the prompt and accepts what it picks.
    ///
    /// Gives the token that was picked, if one was and it belongs to the text.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where nothing was wanted; those of [`Sampler::sample`] and [`Sampler::accept`];
    /// [`Error::OutOfMemory`]. It is over after an error, without a reason.
    pub fn fed(
        &mut self,
        logits: &[f32],
        sampler: &mut Sampler,
        tokenizer: &Tokenizer,
    ) -> Result<Option<Output<'_>>> {
        let Some(feed) = self.wanted() else {
            return Err(Error::invalid("nothing was to be fed: the generation has ended"));
        };
        let (n_fed, sampling) = (feed.tokens.len(), feed.logits);
        // Unless all goes well.
        self.failed = true;
        if self.n_read < self.prompt.len() {
            let piece = &self.prompt[self.n_read..][..n_fed];
            piece.iter().try_for_each(|&token| sampler.read(token))?;
            self.n_read += n_fed;
        }
        let writes = sampling && self.max_tokens > 0 && self.sample(logits, sampler, tokenizer)?;
        self.failed = false;
        Ok(writes.then_some(Output { token: self.token, text: self.text.ready() }))
    }

    /// Ends the generation for a reason that the caller has: [`StopReason::Callback`] or
    /// [`StopReason::ContextFull`]. Where the text had ended by itself or by a stop string, that stays the reason.
    pub fn stop(&mut self, reason: StopReason) {
        self.reason.get_or_insert(reason);
    }

    /// Why it has ended; `None` while it hasn't.
    pub fn reason(&self) -> Option<StopReason> {
        let all = self.n_read == self.prompt.len() && self.n_generated == self.max_tokens;
        self.reason.or(all.then_some(StopReason::Length))
    }

    /// What is still held back once it has ended: the beginning of a stop string that didn't come, and U+FFFD for an
    /// unfinished character. Nothing after a [`StopReason::Callback`] or [`StopReason::StopString`].
    pub fn finish(&mut self) -> Option<Output<'_>> {
        if matches!(self.reason(), None | Some(StopReason::Callback | StopReason::StopString)) {
            return None;
        }
        if self.text.finish() {
            self.reason = Some(StopReason::StopString);
        }
        let text = self.text.ready();
        (!text.is_empty()).then_some(Output { token: self.token, text })
    }

    /// Tokens of the prompt that were fed.
    pub fn n_read(&self) -> usize {
        self.n_read
    }

    /// Tokens sampled, the one that ended the text included.
    pub fn n_generated(&self) -> usize {
        self.n_generated
    }

    /// Picks the next token and goes on with the text; whether the token belongs to it.
    fn sample(&mut self, logits: &[f32], sampler: &mut Sampler, tokenizer: &Tokenizer) -> Result<bool> {
        let token = {
            let _zone = profile::scope(Zone::Sample);
            sampler.sample(logits)?
        };
        sampler.accept(token)?;
        self.n_generated += 1;
        if tokenizer.is_end_of_generation(token) {
            self.reason = Some(StopReason::EndOfText);
            return Ok(false);
        }
        let _zone = profile::scope(Zone::Detokenize);
        self.token = token;
        if self.text.push(tokenizer.token_bytes(token)?)? {
            self.reason = Some(StopReason::StopString);
        }
        Ok(true)
    }
}

fn no_memory<E>(what: &'static str, bytes: usize) -> impl FnOnce(E) -> Error {
    move |_| Error::OutOfMemory { bytes, what }
}
