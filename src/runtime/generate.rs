//! Generation: a prompt goes in, tokens come out one by one, text is handed on as soon as it is whole.

use std::ops::ControlFlow;
use std::time::Instant;

use super::context::{Context, Logits};
use super::sampling::Sampler;
use super::stream::Utf8Stream;
use crate::error::Result;
use crate::profile::{self, Zone};

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
}

/// What a generation did and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Why it ended.
    pub reason: StopReason,
    /// Tokens of the prompt.
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

/// Appends `prompt` to the context and samples up to `max_tokens` tokens.
///
/// `on_text(token, text)` is called for each sampled token that belongs to the text; `text` is empty
/// while a character is incomplete. When the prompt is repeated in the sampler's window, its penalties
/// see it. A token that ends the text is not put into the context.
///
/// # Errors
/// Those of [`Context::decode`] and [`Sampler::sample`]; a model without a tokenizer.
pub fn generate(
    context: &mut Context,
    sampler: &mut Sampler,
    prompt: &[u32],
    max_tokens: usize,
    on_text: &mut dyn FnMut(u32, &str) -> ControlFlow<()>,
) -> Result<Summary> {
    let _zone = profile::scope(Zone::Generate);
    let model = context.model().clone();
    let tokenizer = model.tokenizer()?;
    let start = Instant::now();
    context.begin_call();
    context.decode_further(prompt, Logits::Last)?;
    for &token in prompt {
        sampler.accept(token)?;
    }
    let prefilled = Instant::now();
    let mut stream = Utf8Stream::new();
    let mut text = String::new();
    let mut n_generated = 0;
    let reason = loop {
        if n_generated == max_tokens {
            break StopReason::Length;
        }
        let token = {
            let _zone = profile::scope(Zone::Sample);
            sampler.sample(context.logits())?
        };
        sampler.accept(token)?;
        n_generated += 1;
        if tokenizer.is_end_of_generation(token) {
            break StopReason::EndOfText;
        }
        let flow = {
            let _zone = profile::scope(Zone::Detokenize);
            text.clear();
            stream.push(tokenizer.token_bytes(token)?, &mut text);
            on_text(token, &text)
        };
        if flow.is_break() {
            break StopReason::Callback;
        }
        if context.len() == context.n_ctx() {
            break StopReason::ContextFull;
        }
        if n_generated < max_tokens {
            context.decode_further(&[token], Logits::Last)?;
        }
    };
    text.clear();
    stream.flush(&mut text);
    if !text.is_empty()
        && reason != StopReason::Callback
        && let Some(&last) = context.tokens().last()
    {
        // An unfinished character is the text's end: nothing can come after it.
        let _ = on_text(last, &text);
    }
    Ok(Summary {
        reason,
        n_prompt: prompt.len(),
        n_generated,
        prefill_seconds: (prefilled - start).as_secs_f64(),
        decode_seconds: prefilled.elapsed().as_secs_f64(),
    })
}
