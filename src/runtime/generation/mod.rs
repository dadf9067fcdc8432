//! A generation as a state machine. It says which tokens to decode next, takes the resulting logits, and returns tokens
//! and text. It runs no model and does no I/O, so one caller can drive many generations with one batch. [`drive`] runs
//! one generation on a [`Context`](super::Context).
//!
//! ```text
//! while let Some(feed) = generation.wanted() {       // a piece of the prompt, or the last token
//!     … decode feed.tokens, with the logits after the last one if feed.logits …
//!     if let Some(output) = generation.fed(logits, sampler, tokenizer)? { … output.text … }
//!     // As long as there is room for them: tokens that a grammar forces come without a pass each.
//!     while let Some(output) = generation.forced(sampler, tokenizer)? { … output.text … }
//! }
//! … decode generation.undecoded(), without logits, if anything is to follow …
//! if let Some(output) = generation.finish() { … the rest of the text … }
//! ```

pub mod draft;
mod driver;
mod text;

#[cfg(test)]
mod logprobs_tests;
#[cfg(test)]
mod shift_tests;
#[cfg(test)]
mod tests;

pub use driver::{Event, Summary, drive, drive_drafted};
pub use text::{MAX_STOP_BYTES, MAX_STOPS};

use super::sampling::{Logprobs, Sampler};
use crate::memory::reserve::{copied, reserve, with_room};
use crate::profile::{self, Zone};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use text::Text;

/// Most likely tokens whose log-probabilities come with a token.
pub const MAX_LOGPROBS: usize = 100;

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model ended its text.
    EndOfText,
    /// [`GenerationParams::max_tokens`] were generated.
    Length,
    /// The caller's callback ended it.
    Callback,
    /// The context is full.
    ContextFull,
    /// A stop string is complete.
    StopString,
}

/// The limits of a generation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GenerationParams<'a> {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// Stop strings: the generation ends as soon as one of them is complete; if several are complete at the same byte,
    /// the longest counts. The text ends before the stop string. At most [`MAX_STOPS`], each of 1 to [`MAX_STOP_BYTES`]
    /// bytes.
    pub stops: &'a [&'a str],
    /// Most tokens of the prompt that are decoded at once; 0 decodes the whole prompt. A multiple of the context's
    /// batch size wastes no pass.
    pub prompt_piece: usize,
    /// Whether the text is needed. If not, [`drive`] works without a tokenizer, as long as there are no stop strings: then
    /// the text is empty, and no token ends it.
    pub needs_text: bool,
    /// With `Some(n)`, each token of the text comes with its log-probability and those of the `n` likeliest tokens, under the
    /// model: no stage of the sampler changes them. At most [`MAX_LOGPROBS`].
    pub logprobs: Option<usize>,
    /// With `Some(n_keep)`, a full context doesn't end the generation: each time it is full, it
    /// [shifts](super::Context::shift), keeping its first `n_keep` tokens. The prompt must fit all the same. Not for servers.
    pub context_shift: Option<usize>,
    /// The generation's number for [`Canceller::cancel_generation`](super::engine::Canceller::cancel_generation), higher
    /// than those of the context's earlier generations; 0 for none.
    pub id: u64,
}

impl Default for GenerationParams<'_> {
    /// 256 tokens, no stop strings, and pieces of 256 tokens: the default batch size of contexts. The text is needed.
    fn default() -> Self {
        Self {
            max_tokens: 256,
            stops: &[],
            prompt_piece: 256,
            needs_text: true,
            logprobs: None,
            context_shift: None,
            id: 0,
        }
    }
}

impl<'a> GenerationParams<'a> {
    /// Sets [`GenerationParams::max_tokens`].
    pub fn with_max_tokens(self, max_tokens: usize) -> Self {
        Self { max_tokens, ..self }
    }

    /// Sets [`GenerationParams::stops`].
    pub fn with_stops(self, stops: &'a [&'a str]) -> Self {
        Self { stops, ..self }
    }

    /// Sets [`GenerationParams::prompt_piece`].
    pub fn with_prompt_piece(self, prompt_piece: usize) -> Self {
        Self { prompt_piece, ..self }
    }

    /// Sets [`GenerationParams::needs_text`].
    pub fn with_needs_text(self, needs_text: bool) -> Self {
        Self { needs_text, ..self }
    }

    /// Sets [`GenerationParams::logprobs`].
    pub fn with_logprobs(self, logprobs: Option<usize>) -> Self {
        Self { logprobs, ..self }
    }

    /// Sets [`GenerationParams::context_shift`].
    pub fn with_context_shift(self, context_shift: Option<usize>) -> Self {
        Self { context_shift, ..self }
    }

    /// Sets [`GenerationParams::id`].
    pub fn with_id(self, id: u64) -> Self {
        Self { id, ..self }
    }

    /// Checks the stop strings and the number of log-probabilities.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there are too many stop strings, or one is empty or too long, and for more than
    /// [`MAX_LOGPROBS`] tokens.
    pub fn validate(&self) -> Result<()> {
        if let Some(n) = self.logprobs.filter(|&n| n > MAX_LOGPROBS) {
            return Err(Error::invalid(format!("log-probabilities of {n} tokens; at most {MAX_LOGPROBS}")));
        }
        text::check(self.stops)
    }

    /// What computes the log-probabilities that are asked for.
    pub(super) fn logprobs(&self, n_vocab: usize) -> Result<Option<Logprobs>> {
        self.logprobs.map(|n_best| Logprobs::new(n_vocab, n_best)).transpose()
    }
}

/// The tokens that a generation wants decoded next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feed<'a> {
    /// Tokens to append to the sequence; at least one.
    pub tokens: &'a [u32],
    /// Whether the logits after the last of them are needed.
    pub logits: bool,
}

/// A token that a generation has picked, and the text that it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output<'a> {
    /// The token; for text that [`Generation::finish`] returns, the last token again.
    pub token: u32,
    /// The text that is complete with this token. Empty while a character is incomplete, and while all of the text may
    /// be the beginning of a stop string.
    pub text: &'a str,
    /// Whether the token is a new one; false for text that [`Generation::finish`] returns.
    pub is_new: bool,
}

/// One generation, from its prompt to its end.
pub struct Generation {
    prompt: Vec<u32>,
    prompt_piece: usize,
    max_tokens: usize,
    /// Decoded tokens of the prompt.
    n_read: usize,
    /// Sampled tokens.
    n_generated: usize,
    /// The last token of the text.
    token: u32,
    /// Tokens that were picked, and not fed yet.
    picked: Vec<u32>,
    /// Tokens that must come next, the last one first.
    forced: Vec<u32>,
    /// Whether the sampler was asked for these since the last picked token.
    asked: bool,
    /// The last sampled token, which may end the text.
    sampled: Option<u32>,
    reason: Option<StopReason>,
    /// Whether an error has ended it.
    failed: bool,
    text: Text,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("n_prompt", &self.prompt.len())
            .field("n_read", &self.n_read)
            .field("n_generated", &self.n_generated)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl Generation {
    /// A generation that is to continue `prompt`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty prompt, and as [`GenerationParams::validate`];
    /// [`Error::OutOfMemory`].
    pub fn new(prompt: &[u32], params: &GenerationParams<'_>) -> Result<Self> {
        params.validate()?;
        if prompt.is_empty() {
            return Err(Error::invalid("the prompt is empty: no tokens to decode"));
        }
        Ok(Self {
            prompt: copied(prompt, "the prompt")?,
            prompt_piece: if params.prompt_piece == 0 { prompt.len() } else { params.prompt_piece },
            max_tokens: params.max_tokens,
            n_read: 0,
            n_generated: 0,
            token: 0,
            picked: with_room(8, "picked tokens")?,
            forced: Vec::new(),
            asked: false,
            sampled: None,
            reason: None,
            failed: false,
            text: Text::new(params.stops)?,
        })
    }

    /// The tokens to decode next; `None` once the generation has ended, and after an error.
    pub fn wanted(&self) -> Option<Feed<'_>> {
        if self.failed || self.reason().is_some() {
            return None;
        }
        let unread = &self.prompt[self.n_read..];
        if unread.is_empty() {
            return Some(Feed { tokens: &self.picked, logits: true });
        }
        let tokens = &unread[..unread.len().min(self.prompt_piece)];
        Some(Feed { tokens, logits: tokens.len() == unread.len() })
    }

    /// Goes on after the caller has decoded the [`wanted`](Self::wanted) tokens. `logits` has one value for each token
    /// of the vocabulary if logits were wanted, and is ignored otherwise. Each call takes the same sampler and
    /// tokenizer: the sampler reads the prompt and accepts the tokens that it picks. Without a tokenizer there is no text,
    /// and no token ends it.
    ///
    /// Returns the picked token, if one was picked and belongs to the text.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where no tokens were wanted; those of [`Sampler::sample`] and [`Sampler::accept`];
    /// [`Error::OutOfMemory`]. An error ends the generation, without a [reason](Self::reason).
    pub fn fed<'t>(
        &mut self,
        logits: &[f32],
        sampler: &mut Sampler,
        tokenizer: impl Into<Option<&'t Tokenizer>>,
    ) -> Result<Option<Output<'_>>> {
        let Some(feed) = self.wanted() else {
            return Err(Error::invalid("no tokens were wanted: the generation has ended"));
        };
        let (n_fed, sampling) = (feed.tokens.len(), feed.logits);
        // Stays so if one of the calls below fails.
        self.failed = true;
        if self.n_read < self.prompt.len() {
            let piece = &self.prompt[self.n_read..][..n_fed];
            piece.iter().try_for_each(|&token| sampler.read(token))?;
            self.n_read += n_fed;
        }
        self.picked.clear();
        let writes = sampling && self.max_tokens > 0 && self.sample(logits, sampler, tokenizer.into())?;
        self.failed = false;
        Ok(writes.then_some(Output { token: self.token, text: self.text.ready(), is_new: true }))
    }

    /// Appends the next token that follows whatever the logits are, because a [mask](super::sampling::Mask::forced) of the
    /// sampler allows no other; sampling would pick it too. Call it after [`Self::fed`], as often as it returns one and the
    /// sequence has room for one token more: the next feed is all of these tokens. A caller may leave it out.
    ///
    /// Returns `None` where no token is forced, and after the end of the generation.
    ///
    /// # Errors
    /// As [`Self::fed`].
    pub fn forced<'t>(
        &mut self,
        sampler: &mut Sampler,
        tokenizer: impl Into<Option<&'t Tokenizer>>,
    ) -> Result<Option<Output<'_>>> {
        if self.failed || self.picked.is_empty() || self.reason().is_some() {
            return Ok(None);
        }
        self.failed = true;
        if !self.asked {
            sampler.forced(&mut self.forced)?;
            self.forced.reverse();
            self.asked = true;
        }
        let next = self.forced.pop();
        let writes = match next {
            Some(token) => self.append(token, sampler, tokenizer.into())?,
            None => false,
        };
        self.failed = false;
        Ok(writes.then_some(Output { token: self.token, text: self.text.ready(), is_new: true }))
    }

    /// The picked tokens that have not been decoded, except the last one: some only where the generation ended among tokens
    /// that were [forced](Self::forced).
    pub fn undecoded(&self) -> &[u32] {
        self.picked.split_last().map_or(&[], |(_, before)| before)
    }

    /// Ends the generation for a reason of the caller: [`StopReason::Callback`] or [`StopReason::ContextFull`]. If the
    /// generation has ended already, its reason stays.
    pub fn stop(&mut self, reason: StopReason) {
        self.reason.get_or_insert(reason);
    }

    /// Why the generation has ended; `None` while it hasn't, and after an error.
    pub fn reason(&self) -> Option<StopReason> {
        let all = self.n_read == self.prompt.len() && self.n_generated == self.max_tokens;
        self.reason.or(all.then_some(StopReason::Length))
    }

    /// The rest of the text after the end: the beginning of a stop string that wasn't completed, and U+FFFD for an
    /// unfinished character. `None` after [`StopReason::Callback`] and [`StopReason::StopString`].
    pub fn finish(&mut self) -> Option<Output<'_>> {
        if matches!(self.reason(), None | Some(StopReason::Callback | StopReason::StopString)) {
            return None;
        }
        if self.text.finish() {
            self.reason = Some(StopReason::StopString);
        }
        let text = self.text.ready();
        (!text.is_empty()).then_some(Output { token: self.token, text, is_new: false })
    }

    /// Decoded tokens of the prompt.
    pub fn n_read(&self) -> usize {
        self.n_read
    }

    /// Sampled tokens, including one that ended the text.
    pub fn n_generated(&self) -> usize {
        self.n_generated
    }

    /// The last sampled token, including one that ended the text. It has not been decoded.
    pub fn last_sampled(&self) -> Option<u32> {
        self.sampled
    }

    /// Picks the next token and extends the text; returns whether the token belongs to the text.
    fn sample(
        &mut self,
        logits: &[f32],
        sampler: &mut Sampler,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<bool> {
        let token = {
            let _zone = profile::scope(Zone::Sample);
            sampler.sample(logits)?
        };
        self.forced.clear();
        self.asked = false;
        self.append(token, sampler, tokenizer)
    }

    /// Extends the text by a token; returns whether the token belongs to the text.
    fn append(&mut self, token: u32, sampler: &mut Sampler, tokenizer: Option<&Tokenizer>) -> Result<bool> {
        sampler.accept(token)?;
        self.n_generated += 1;
        self.sampled = Some(token);
        reserve(&mut self.picked, 1, "picked tokens")?;
        self.picked.push(token);
        let Some(tokenizer) = tokenizer else {
            self.token = token;
            return Ok(true);
        };
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
