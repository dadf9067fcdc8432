//! Chat templates convert a conversation to the text that the model was trained to continue.
//! A template is a Jinja program in a model file (`tokenizer.chat_template`). minijinja runs it, with the settings and
//! helpers of Hugging Face's `apply_chat_template`.
//!
//! **Templates come from outside**, so source, steps, nesting and output are bounded. One thing isn't: the memory of a
//! value that a malicious template doubles again and again.
//!
//! **Content is not escaped.** A template writes special tokens and the messages' contents into one text. When this
//! text is tokenised with `parse_special`, `<|im_end|>` within a content ends its message, as in all engines that use
//! templates. Before passing on text from strangers, remove the texts of all [control
//! tokens](crate::tokenizer::Tokenizer::is_control) from it.

mod clock;
mod inert;
mod json;

#[cfg(test)]
mod tests;

pub use inert::Marked;

use crate::format::gguf::Metadata;
use crate::memory::reserve::{copied_text, held};
use crate::{Error, Result};
use minijinja::{Environment, ErrorKind, Value, context};

/// Longest template, in bytes; the longest of well-known models have 20,000.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Longest rendered text, in bytes.
pub const MAX_RENDERED_BYTES: usize = 64 << 20;
/// Most steps of one rendering; well-known templates take a few dozen for each message.
const FUEL: u64 = 10_000_000;
/// Most levels of nested macros and blocks.
const RECURSION_LIMIT: usize = 100;
const NAME: &str = "chat_template";
/// Memory that a message takes during a rendering, in bytes, in addition to its text.
const MESSAGE_BYTES: usize = 1024;
/// The purpose of the memory, in errors.
const WHAT: &str = "a chat template";

/// A message of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The speaker: `"system"`, `"user"`, `"assistant"`, or another role that the template knows.
    pub role: &'a str,
    /// The text.
    pub content: &'a str,
}

impl<'a> Message<'a> {
    /// A message with this role and text.
    pub const fn new(role: &'a str, content: &'a str) -> Self {
        Message { role, content }
    }
}

/// A compiled chat template. It may be shared by threads.
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let source = self.environment.get_template(NAME).map_or(0, |template| template.source().len());
        f.debug_struct("Template").field("source_bytes", &source).finish_non_exhaustive()
    }
}

impl Template {
    /// Compiles `source`. The template sees `bos` and `eos` as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`Error::Format`] for a template that is empty, is longer than [`MAX_TEMPLATE_BYTES`] or doesn't compile, then
    /// with minijinja's message and line; [`Error::OutOfMemory`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        if source.trim().is_empty() {
            return Err(Error::format("the chat template is empty (tokenizer.chat_template)"));
        }
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(Error::format(format!(
                "a chat template of {} bytes; at most {MAX_TEMPLATE_BYTES} are taken",
                source.len()
            )));
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("strftime_now", clock::strftime_now);
        environment.add_function("raise_exception", raise_exception);
        environment
            .add_template_owned(NAME, copied_text(source, WHAT)?)
            .map_err(|error| Error::format(describe(&error)))?;
        Ok(Self { environment, bos: copied_text(bos, WHAT)?, eos: copied_text(eos, WHAT)? })
    }

    /// The template of a GGUF file (`tokenizer.chat_template`).
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the file has none; those of [`Template::new`].
    pub fn from_metadata(metadata: &Metadata, bos: &str, eos: &str) -> Result<Self> {
        let source = metadata.get_str("tokenizer.chat_template")?.ok_or_else(|| {
            Error::Unsupported("chat: the file has no chat template (tokenizer.chat_template)".into())
        })?;
        Self::new(source, bos, eos)
    }

    /// The text of a conversation. With `add_generation_prompt` it ends with the beginning of the assistant's answer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the template's own message where it rejects the messages (an unknown role, turns
    /// in the wrong order), and where a rendering exceeds a limit; [`Error::OutOfMemory`].
    pub fn render(&self, messages: &[Message<'_>], add_generation_prompt: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(|e| Error::Internal(describe(&e)))?;
        // minijinja allocates infallibly: memory for copies of the messages is held ready.
        let bytes = messages.iter().map(|message| message.role.len() + message.content.len() + MESSAGE_BYTES);
        let _held = held(bytes.fold(0, usize::saturating_add), WHAT)?;
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context!(role => message.role, content => message.content))
            .collect();
        let context = context!(
            messages,
            add_generation_prompt,
            bos_token => self.bos,
            eos_token => self.eos,
        );
        let mut rendered = Bounded::default();
        template
            .render_captured_to(context, &mut rendered)
            .map_err(|error| Error::invalid(describe(&error)))?;
        String::from_utf8(rendered.0).map_err(|error| Error::Internal(format!("the chat template: {error}")))
    }
}

/// An error of a template, as one line.
fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let text = match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    // The source has the cause of a failed write or call.
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("chat template{line}: {text}{cause}").replace(['\n', '\r'], " ")
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// Output up to [`MAX_RENDERED_BYTES`].
#[derive(Default)]
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > MAX_RENDERED_BYTES - self.0.len() || self.0.try_reserve(bytes.len()).is_err() {
            return Err(std::io::Error::other(format!("more than {MAX_RENDERED_BYTES} bytes of text")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
