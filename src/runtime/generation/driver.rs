//! Runs one generation on a context and reports to a callback.
//! The command line, the C ABI and [`generate`](super::super::generate::generate) are built on it.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use super::super::context::{Context, Logits};
use super::super::sampling::{Logprobs, Sampler, TokenLogprob};
use super::draft::{Drafting, MAX_DRAFT};
use super::{Feed, Generation, GenerationParams, Output, StopReason};
use crate::memory::reserve::with_room;
use crate::profile::{self, Zone};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// An event during a generation.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A piece of the prompt is decoded next. A break ends the generation before this piece.
    Prompt {
        /// Decoded tokens of the prompt.
        read: usize,
        /// All tokens of the prompt.
        total: usize,
    },
    /// The log-probabilities of the token whose [`Event::Output`] comes next, where
    /// [`GenerationParams::logprobs`] asks for them.
    Logprobs {
        /// The token's own.
        token: TokenLogprob,
        /// Those of the likeliest tokens, likeliest first.
        best: &'a [TokenLogprob],
    },
    /// A token of the text was picked; at the end also the text that was held back.
    Output(Output<'a>),
}

/// The counts and times of a generation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Why it ended.
    pub reason: StopReason,
    /// Decoded tokens of the prompt: all of them, unless the callback ended the generation earlier.
    pub n_prompt: usize,
    /// Sampled tokens, including one that ended the text.
    pub n_generated: usize,
    /// The last sampled token, also one that ended the text. It is not in the context: the next prompt of the same
    /// conversation begins with it. `None` where none was sampled.
    pub last_token: Option<u32>,
    /// Tokens that a drafter guessed.
    pub n_drafted: usize,
    /// Of these, tokens that were right, each of which saved a pass.
    pub n_accepted: usize,
    /// Time until the prompt's logits were computed.
    pub prefill_seconds: f64,
    /// Time from then to the end, including sampling and the caller's callback.
    pub decode_seconds: f64,
}

impl Summary {
    /// Prompt tokens per second.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.n_prompt, self.prefill_seconds)
    }

    /// Generated tokens per second. The first one isn't counted: it is sampled from the prefill's logits, without a
    /// pass of its own.
    pub fn decode_rate(&self) -> f64 {
        rate(self.n_generated.saturating_sub(1), self.decode_seconds)
    }
}

fn rate(count: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Appends `prompt` to the context and generates text within the limits of `params`. `on_event` is called before each
/// piece of the prompt and for each token of the text; a break ends the generation.
///
/// The sampler reads the prompt, so its penalties apply to the prompt's tokens too.
///
/// At the end, for whatever reason, the context holds its former tokens, the decoded tokens of the prompt, and all sampled
/// tokens except the last one ([`Summary::last_token`]), whose logits aren't known. So a next call whose prompt is that
/// token and what follows it goes on exactly as one call with all these tokens as its prompt would. After an error the
/// context holds its former tokens, and those pieces of the prompt and tokens of the text that were decoded before the
/// pass that failed ([`Context::tokens`] has them; those of a model with recurrent layers may end before the last piece of
/// the prompt).
///
/// # Errors
/// Those of [`Generation::new`], [`Context::decode`], [`Generation::fed`] and, if the text is needed,
/// [`Model::tokenizer`](crate::model::Model::tokenizer); [`Error::Cancelled`] where the generation was cancelled before it
/// began. A prompt that doesn't fit changes nothing.
pub fn drive(
    context: &mut Context,
    sampler: &mut Sampler,
    prompt: &[u32],
    params: &GenerationParams<'_>,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Summary> {
    drive_drafted(context, sampler, prompt, params, None, on_event)
}

/// [`drive`] with a drafter: the same tokens, to the bit, in fewer passes as far as its guesses are right. Guesses that
/// were wrong are taken back; a model with recurrent layers computes the right ones before them again.
///
/// # Errors
/// As [`drive`], and those of the drafter.
pub fn drive_drafted(
    context: &mut Context,
    sampler: &mut Sampler,
    prompt: &[u32],
    params: &GenerationParams<'_>,
    drafting: Option<Drafting<'_>>,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Summary> {
    let _zone = profile::scope(Zone::Generate);
    let model = context.model().clone();
    let tokenizer = match model.tokenizer() {
        Err(error) if params.needs_text || !params.stops.is_empty() => return Err(error),
        tokenizer => tokenizer.ok(),
    };
    context.check_room(prompt.len())?;
    check_shift(context, params.context_shift)?;
    let generation = Generation::new(prompt, params)?;
    let logprobs = params.logprobs(model.config().n_vocab)?;
    let start = Instant::now();
    let _running = context.begin_generation(params.id)?;
    let guesses = drafting.map(|drafting| Guesses::new(drafting, context)).transpose()?;
    let (most, shift) = (params.max_tokens, params.context_shift);
    let counts = (0, 0);
    let mut driver =
        Driver { context, sampler, tokenizer, generation, on_event, guesses, logprobs, most, shift, counts };
    let mut prefilled = start;
    while let Some(feed) = driver.generation.wanted() {
        let (read, total) = (driver.generation.n_read(), prompt.len());
        if read == total {
            driver.decode()?;
            continue;
        }
        if (driver.on_event)(Event::Prompt { read, total }).is_break() {
            driver.generation.stop(StopReason::Callback);
            break;
        }
        let logits = if feed.logits { Logits::Last } else { Logits::None };
        driver.context.decode_further(feed.tokens, logits)?;
        prefilled = Instant::now();
        let len = driver.context.len();
        driver.pick(0..driver.context.logits().len(), len)?;
    }
    driver.end()?;
    let Driver { mut generation, on_event, counts: (n_drafted, n_accepted), .. } = driver;
    if let Some(output) = generation.finish() {
        // The generation has ended already, so a break changes nothing.
        let _ = on_event(Event::Output(output));
    }
    let no_reason = || Error::Internal("a generation ended without a reason".into());
    Ok(Summary {
        reason: generation.reason().ok_or_else(no_reason)?,
        n_prompt: generation.n_read(),
        n_generated: generation.n_generated(),
        last_token: generation.last_sampled(),
        n_drafted,
        n_accepted,
        prefill_seconds: (prefilled - start).as_secs_f64(),
        decode_seconds: prefilled.elapsed().as_secs_f64(),
    })
}

/// Checks that a context can shift and keep so many tokens.
fn check_shift(context: &Context, n_keep: Option<usize>) -> Result<()> {
    let Some(n_keep) = n_keep else { return Ok(()) };
    let n_ctx = context.n_ctx();
    if n_keep.saturating_add(2) > n_ctx {
        return Err(Error::invalid(format!(
            "a shift keeps {n_keep} tokens of a context of {n_ctx}; it must have room for two more"
        )));
    }
    context.check_removal()
}

/// A drafter's guesses.
struct Guesses<'d> {
    drafting: Drafting<'d>,
    /// All tokens so far.
    history: Vec<u32>,
    draft: Vec<u32>,
}

impl<'d> Guesses<'d> {
    fn new(drafting: Drafting<'d>, context: &Context) -> Result<Self> {
        let most = drafting.most.min(context.n_output().saturating_sub(1));
        let drafting = Drafting { most, ..drafting };
        let (history, draft) = (with_room(context.n_ctx(), WHAT)?, with_room(MAX_DRAFT + 1, WHAT)?);
        Ok(Guesses { drafting, history, draft })
    }

    /// Guesses at most `most` of the tokens that follow the context's and `token`.
    fn guess(&mut self, context: &Context, token: u32, most: usize) -> Result<()> {
        let _zone = profile::scope(Zone::Draft);
        let most = most.min(self.drafting.most);
        self.draft.clear();
        if most == 0 {
            return Ok(());
        }
        self.history.clear();
        self.history.extend_from_slice(context.tokens());
        self.history.push(token);
        self.drafting.drafter.propose(&self.history, most, &mut self.draft)?;
        let n_vocab = context.model().config().n_vocab;
        let known = self.draft.iter().take_while(|&&token| (token as usize) < n_vocab).count();
        self.draft.truncate(known.min(most));
        Ok(())
    }
}

/// The purpose of the memory, in errors.
const WHAT: &str = "a draft";

/// A generation on a context.
struct Driver<'d, 'e> {
    context: &'d mut Context,
    sampler: &'d mut Sampler,
    tokenizer: Option<&'d Tokenizer>,
    generation: Generation,
    on_event: &'d mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    guesses: Option<Guesses<'e>>,
    logprobs: Option<Logprobs>,
    /// Most tokens to generate.
    most: usize,
    /// [`GenerationParams::context_shift`].
    shift: Option<usize>,
    /// Guessed tokens, and those of them that were right.
    counts: (usize, usize),
}

impl Driver<'_, '_> {
    /// Decodes the last tokens, with guesses of the next ones behind them, and picks tokens as far as these are right.
    fn decode(&mut self) -> Result<()> {
        self.make_room()?;
        let Some(feed) = self.generation.wanted() else { return Ok(()) };
        let (&[token], Some(guesses)) = (feed.tokens, &mut self.guesses) else {
            self.context.decode_further(feed.tokens, Logits::Last)?;
            return self.pick(0..self.context.logits().len(), self.context.len()).map(drop);
        };
        let room = self.context.n_ctx() - self.context.len() - 1;
        // A guess behind the last token would be in vain.
        let left = (self.most - self.generation.n_generated()).saturating_sub(1);
        guesses.guess(self.context, token, room.min(left))?;
        let (guessed, begin) = (guesses.draft.len(), self.context.len());
        guesses.draft.insert(0, token);
        self.context.decode_further(&guesses.draft, Logits::All)?;
        let width = self.context.logits().len() / (guessed + 1);
        let mut right = 0;
        loop {
            let next = self.pick(right * width..(right + 1) * width, begin + right + 1)?;
            let guess = self.guesses.as_ref().and_then(|guesses| guesses.draft.get(right + 1));
            if next.is_none() || next.as_ref() != guess {
                break;
            }
            right += 1;
        }
        self.counts = (self.counts.0 + guessed, self.counts.1 + right);
        self.take_back(begin + 1 + right)
    }

    /// Shifts a context that is full.
    fn make_room(&mut self) -> Result<()> {
        if let Some(n_keep) = self.shift
            && self.context.len() == self.context.n_ctx()
        {
            self.context.shift(n_keep)?;
        }
        Ok(())
    }

    /// Takes back all tokens from position `len` on.
    fn take_back(&mut self, len: usize) -> Result<()> {
        if self.context.len() == len {
            return Ok(());
        }
        let Some(guesses) = &mut self.guesses else { return Ok(()) };
        guesses.history.clear();
        guesses.history.extend_from_slice(&self.context.tokens()[..len]);
        let kept = self.context.rewind_at_most(len);
        if kept < len {
            self.context.decode_further(&guesses.history[kept..], Logits::None)?;
        }
        Ok(())
    }

    /// Picks the token that follows position `len - 1`, and those that are forced behind it. Returns it where the
    /// generation goes on with it alone.
    fn pick(&mut self, logits: Range<usize>, len: usize) -> Result<Option<u32>> {
        let logits = &self.context.logits()[logits];
        let mut next = self.generation.fed(logits, self.sampler, self.tokenizer)?;
        let mut n_picked = 1;
        while let Some(output) = next {
            let mut told = ControlFlow::Continue(());
            if let Some(logprobs) = &mut self.logprobs {
                let token =
                    TokenLogprob { token: output.token, logprob: logprobs.compute(logits, output.token)? };
                told = (self.on_event)(Event::Logprobs { token, best: logprobs.best() });
            }
            if told.is_break() || (self.on_event)(Event::Output(output)).is_break() {
                self.generation.stop(StopReason::Callback);
            } else if self.shift.is_none() && len + n_picked > self.context.n_ctx() {
                self.generation.stop(StopReason::ContextFull);
            }
            // A forced token has no logits before a pass has computed them: it is picked from them. Nor are more tokens
            // taken than have room, where it can be made for one.
            if self.logprobs.is_some() || (self.shift.is_some() && len + n_picked >= self.context.n_ctx()) {
                break;
            }
            next = self.generation.forced(self.sampler, self.tokenizer)?;
            n_picked += 1;
        }
        Ok(match self.generation.wanted() {
            Some(Feed { tokens: &[token], .. }) => Some(token),
            _ => None,
        })
    }

    /// Decodes what was picked, except the last token, so that the context holds it.
    fn end(&mut self) -> Result<()> {
        let undecoded = self.generation.undecoded();
        if !undecoded.is_empty() {
            self.context.decode_further(undecoded, Logits::None)?;
        }
        Ok(())
    }
}
