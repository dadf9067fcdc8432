//! Generation in its simplest form: it continues a prompt, and a callback gets the text in whole characters.
//! [`super::generation`] offers stop strings, progress, and generations without a context.

use std::ops::ControlFlow;

use super::context::Context;
use super::generation::{Event, GenerationParams, Output, drive};
pub use super::generation::{StopReason, Summary};
use super::sampling::Sampler;
use crate::error::Result;

/// Appends `prompt` to the context and generates up to `max_tokens` tokens.
///
/// `on_text(token, text)` is called for each token of the text; `text` is empty while a character is incomplete. The
/// sampler's penalties apply to the prompt's tokens too. At the end the context holds all tokens except the last sampled
/// one, as [`drive`] says.
///
/// # Errors
/// Those of [`drive`].
pub fn generate(
    context: &mut Context,
    sampler: &mut Sampler,
    prompt: &[u32],
    max_tokens: usize,
    on_text: &mut dyn FnMut(u32, &str) -> ControlFlow<()>,
) -> Result<Summary> {
    let params = GenerationParams { max_tokens, prompt_piece: 0, ..GenerationParams::default() };
    drive(context, sampler, prompt, &params, &mut |event| match event {
        Event::Output(Output { token, text, .. }) => on_text(token, text),
        Event::Prompt { .. } | Event::Logprobs { .. } => ControlFlow::Continue(()),
    })
}
