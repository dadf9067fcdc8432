//! Chat templates: a conversation becomes the text that the model was trained to continue.
//! Templates are Jinja programs that model files carry (`tokenizer.chat_template`), run here by minijinja
//! with the settings and helpers of Hugging Face's `apply_chat_template`.
//!
//! **They come from outside**, so they run with limits: source, steps, nesting and output are bounded.
//! What isn't bounded is the memory of a value that a template doubles again and again on purpose.
//!
//! **Content is not escaped.** A template writes special tokens and the messages' contents into one text.
//! Tokenised with `parse_special`, a content that spells `<|im_end|>` ends its message, as in every engine
//! that works so. Whoever passes on text of strangers should strip what
//! [`Tokenizer::is_control`](crate::tokenizer::Tokenizer::is_control) tokens spell.

mod clock;
mod json;

#[cfg(test)]
mod tests;

use crate::format::gguf::Metadata;
use crate::{Error, Result};
use minijinja::{Environment, ErrorKind, Value, context};

/// Longest template, in bytes; the longest of well-known models have 20,000.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Longest text that a template may make, in bytes.
pub const MAX_RENDERED_BYTES: usize = 64 << 20;
/// Steps that one rendering may take: some tens per message in well-known templates.
const FUEL: u64 = 10_000_000;
/// Macros and blocks within each other.
const RECURSION_LIMIT: usize = 100;
const NAME: &str = "chat_template";

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

/// A compiled chat template. Shared by threads.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles `source`; `bos` and `eos` are what it sees as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`Error::Format`] with minijinja's message and line for a template that doesn't compile, is empty, or
    /// is longer than [`MAX_TEMPLATE_BYTES`].
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
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| Error::format(describe(&error)))?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The template that a GGUF file carries (`tokenizer.chat_template`).
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it carries none; else as [`Template::new`].
    pub fn from_metadata(metadata: &Metadata, bos: &str, eos: &str) -> Result<Self> {
        let source = metadata.get_str("tokenizer.chat_template")?.ok_or_else(|| {
            Error::Unsupported("chat: the file has no chat template (tokenizer.chat_template)".into())
        })?;
        Self::new(source, bos, eos)
    }

    /// The text of a conversation; with `add_generation_prompt` it ends where the assistant is to begin.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the template's own message where it rejects the messages (a role that
    /// it doesn't know, turns in the wrong order), and where it exceeds a limit.
    pub fn render(&self, messages: &[Message<'_>], add_generation_prompt: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(|e| Error::Internal(describe(&e)))?;
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

/// What the template says is wrong, as one line.
fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let text = match error.detail() {
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    // What lies behind a failed write, or a failed call, is in the source.
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
