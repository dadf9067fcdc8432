//! Runs one generation on a context: feeds it, and tells a callback what happens.
//! What the command line, the C ABI and [`generate`](super::super::generate::generate) stand on.

use std::ops::ControlFlow;
use std::time::Instant;

use super::super::context::{Context, Logits};
use super::super::sampling::Sampler;
use super::{Generation, GenerationParams, Output, StopReason};
use crate::profile::{self, Zone};
use crate::{Error, Result};

/// What happens during a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of the prompt comes next. This is where a long prompt can be ended between two pieces.
    Prompt {
        /// Tokens of the prompt that were read.
        read: usize,
        /// All tokens of the prompt.
        total: usize,
    },
    /// A token came that belongs to the text; or text that was held back, at the end.
    Output(Output<'a>),
}

/// What a generation did and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Why it ended.
    pub reason: StopReason,
    /// Tokens of the prompt that were read: all, unless the callback ended the generation before.
    pub n_prompt: usize,
    /// Tokens sampled, the one that ended the text included.
    pub n_generated: usize,
    /// Time until the prompt's logits were there.
    pub prefill_seconds: f64,
    /// Time from there to the end, sampling and the caller's callback included.
    pub decode_seconds: f64,
}

impl Summary {
    /// Prompt tokens a second.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.n_prompt, self.prefill_seconds)
    }

    /// Generated tokens a second. The first comes out of the prefill's logits, so one token needs no pass.
    pub fn decode_rate(&self) -> f64 {
        rate(self.n_generated.saturating_sub(1), self.decode_seconds)
    }
}

fn rate(count: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Appends `prompt` to the context and samples as `params` say. `on_event` is told of each piece of the prompt
/// before it is read, and of each token that belongs to the text; a break from it ends the generation.
///
/// The sampler reads the prompt, so that its penalties see it. A token that ends the text, by itself or by a stop
/// string, is not put into the context.
///
/// # Errors
/// Those of [`Generation::new`], [`Context::decode`] and [`Generation::fed`]; a model without a tokenizer. A prompt
/// that doesn't fit changes nothing; after other errors the context may hold a part of prompt and text.
pub fn drive(
    context: &mut Context,
    sampler: &mut Sampler,
    prompt: &[u32],
    params: &GenerationParams<'_>,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Summary> {
    let _zone = profile::scope(Zone::Generate);
    let model = context.model().clone();
    let tokenizer = model.tokenizer()?;
    let mut generation = Generation::new(prompt, params)?;
    let start = Instant::now();
    context.begin_call();
    let (n_ctx, needed) = (context.n_ctx(), context.len().saturating_add(prompt.len()));
    if needed > n_ctx {
        return Err(Error::ContextFull { n_ctx, needed });
    }
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
        let Some(output) = generation.fed(context.logits(), sampler, tokenizer)? else { continue };
        if on_event(Event::Output(output)).is_break() {
            generation.stop(StopReason::Callback);
        } else if context.len() == n_ctx {
            generation.stop(StopReason::ContextFull);
        }
    }
    if let Some(output) = generation.finish() {
        // It has ended: what the callback answers changes nothing.
        let _ = on_event(Event::Output(output));
    }
    let no_reason = || Error::Internal("a generation ended without a reason".into());
    Ok(Summary {
        reason: generation.reason().ok_or_else(no_reason)?,
        n_prompt: generation.n_read(),
        n_generated: generation.n_generated(),
        prefill_seconds: (prefilled - start).as_secs_f64(),
        decode_seconds: prefilled.elapsed().as_secs_f64(),
    })
}
