//! Generation in its simplest form: a prompt goes in, a callback gets text as soon as it is whole.
//! [`super::generation`] has the rest: stop strings, progress, and generations without a context.

use std::ops::ControlFlow;

use super::context::Context;
use super::generation::{Event, GenerationParams, Output, drive};
pub use super::generation::{StopReason, Summary};
use super::sampling::Sampler;
use crate::error::Result;

/// Appends `prompt` to the context and samples up to `max_tokens` tokens.
///
/// `on_text(token, text)` is called for each sampled token that belongs to the text; `text` is empty
/// while a character is incomplete. When the prompt is repeated in the sampler's window, its penalties
/// see it. A token that ends the text is not put into the context.
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
        Event::Output(Output { token, text }) => on_text(token, text),
        Event::Prompt { .. } => ControlFlow::Continue(()),
    })
}
