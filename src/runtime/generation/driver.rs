//! Runs one generation on a context and reports to a callback.
//! The command line, the C ABI and [`generate`](super::super::generate::generate) are built on it.

use std::ops::ControlFlow;
use std::time::Instant;

use super::super::context::{Context, Logits};
use super::super::sampling::Sampler;
use super::{Generation, GenerationParams, Output, StopReason};
use crate::profile::{self, Zone};
use crate::{Error, Result};

/// An event during a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A piece of the prompt is decoded next. A break ends the generation before this piece.
    Prompt {
        /// Decoded tokens of the prompt.
        read: usize,
        /// All tokens of the prompt.
        total: usize,
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
    let _zone = profile::scope(Zone::Generate);
    let model = context.model().clone();
    let tokenizer = match model.tokenizer() {
        Err(error) if params.needs_text || !params.stops.is_empty() => return Err(error),
        tokenizer => tokenizer.ok(),
    };
    context.check_room(prompt.len())?;
    let mut generation = Generation::new(prompt, params)?;
    let start = Instant::now();
    let _running = context.begin_generation(params.id)?;
    let n_ctx = context.n_ctx();
    let mut prefilled = start;
    while let Some(feed) = generation.wanted() {
        let (read, total) = (generation.n_read(), prompt.len());
        if read < total && on_event(Event::Prompt { read, total }).is_break() {
            generation.stop(StopReason::Callback);
            break;
        }
        context.decode_further(feed.tokens, if feed.logits { Logits::Last } else { Logits::None })?;
        if read < total {
            prefilled = Instant::now();
        }
        let mut next = generation.fed(context.logits(), sampler, tokenizer)?;
        let mut n_picked = 1;
        while let Some(output) = next {
            if on_event(Event::Output(output)).is_break() {
                generation.stop(StopReason::Callback);
            } else if context.len() + n_picked > n_ctx {
                generation.stop(StopReason::ContextFull);
            }
            next = generation.forced(sampler, tokenizer)?;
            n_picked += 1;
        }
    }
    let undecoded = generation.undecoded();
    if !undecoded.is_empty() {
        context.decode_further(undecoded, Logits::None)?;
    }
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
        prefill_seconds: (prefilled - start).as_secs_f64(),
        decode_seconds: prefilled.elapsed().as_secs_f64(),
    })
}
