//! Chat templates convert a conversation to the text that the model was trained to continue.
//! A template is a Jinja program in a model file (`tokenizer.chat_template`). minijinja runs it, with the settings and
//! helpers of Hugging Face's `apply_chat_template`, and renders what jinja2 renders there.
//!
//! `rewrite` rewrites a template into the part of the language in which minijinja and jinja2 agree; `python` has the
//! values, operators, filters, tests and methods that this part uses.
//!
//! **Templates come from outside**, so source, nesting, steps, work, memory and output are bounded.
//!
//! **Content is not escaped.** [`Template::render`] writes special tokens and the messages' contents into one text. When
//! this text is tokenised with `parse_special`, `<|im_end|>` within a content ends its message.
//! [`Template::render_inert`] marks contents, so that only the template's own special tokens are tokens.

mod clock;
mod inert;
mod python;
mod rewrite;

#[cfg(test)]
mod tests;

pub use inert::Marked;

use crate::format::gguf::Metadata;
use crate::memory::reserve::{copied_text, held, probe, reserve};
use crate::text::shortened;
use crate::{Error, Result};
use minijinja::{Environment, ErrorKind, Output, State, Value};
use python::{BUDGET, Budget};

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
/// Memory that compiling a template takes, roughly: of its own, and for each byte.
const COMPILED: usize = 256 << 10;
const COMPILED_EACH: usize = 64;
/// Most characters of an error: a template may have names of any length.
const MAX_MESSAGE: usize = 500;
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
    /// with the line; [`Error::Unsupported`] for a statement that this library doesn't know, or nesting beyond its
    /// limits; [`Error::OutOfMemory`].
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
        // The rewriting and the compilation allocate infallibly.
        probe(source.len().saturating_mul(COMPILED_EACH).saturating_add(COMPILED), WHAT)?;
        let rewritten = rewrite::rewrite(source).map_err(|error| {
            let text = format!("chat template (line {}): {}", error.line, error.message);
            if error.is_unsupported { Error::Unsupported(text) } else { Error::Format(text) }
        })?;
        let mut environment = Environment::empty();
        environment.set_keep_trailing_newline(true);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment.set_formatter(emit);
        python::install(&mut environment);
        environment.add_template_owned(NAME, rewritten).map_err(|error| Error::format(describe(&error)))?;
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
        let texts = messages.iter().map(|message| message.role.len().saturating_add(message.content.len()));
        let texts = texts.fold(0, usize::saturating_add);
        let _held = held(texts.saturating_add(messages.len().saturating_mul(MESSAGE_BYTES)), WHAT)?;
        let context =
            self.context(messages, texts, add_generation_prompt).map_err(|error| rejected(&error))?;
        let mut rendered = Bounded::default();
        template.render_captured_to(context, &mut rendered).map_err(|error| rejected(&error))?;
        String::from_utf8(rendered.0).map_err(|error| Error::Internal(format!("the chat template: {error}")))
    }

    /// What a template sees. There are no tools and no documents, which `apply_chat_template` passes as none.
    fn context(
        &self,
        messages: &[Message<'_>],
        texts: usize,
        add_generation_prompt: bool,
    ) -> Result<Value, minijinja::Error> {
        let budget = Budget::new(texts);
        let message = |message: &Message<'_>| {
            let pair = |name: &str, text: &str| (Value::from(name), Value::from(text));
            python::dict(&budget, vec![pair("role", message.role), pair("content", message.content)])
        };
        let messages = messages.iter().map(message).collect::<Result<_, _>>()?;
        let messages = python::list(&budget, messages)?;
        Ok(Value::from_iter([
            ("messages", messages),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(&self.bos)),
            ("eos_token", Value::from(&self.eos)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            (BUDGET, Value::from_object(budget)),
        ]))
    }
}

/// Writes a value into the output, or into a text that a template puts together.
fn emit(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    let budget = Budget::of(state)?;
    match value.as_str() {
        Some(text) => {
            budget.make(text.len())?;
            out.write_str(text)?;
        }
        None => {
            out.write_str(&python::shown(value, &budget)?)?;
        }
    }
    Ok(())
}

/// An error of a rendering.
fn rejected(error: &minijinja::Error) -> Error {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        // An error of a write holds its cause, but doesn't name it as its source.
        let written = inner.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        let own = written.and_then(|cause| cause.downcast_ref()).or_else(|| inner.downcast_ref());
        if let Some(Error::OutOfMemory { bytes, what }) = own {
            return Error::OutOfMemory { bytes: *bytes, what };
        }
        cause = inner.source();
    }
    Error::invalid(describe(error))
}

/// An error of a template, as one line.
fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let text = match error.detail() {
        _ if error.kind() == ErrorKind::OutOfFuel => "the template takes too many steps".to_owned(),
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    // The source has the cause of a failed write or call.
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("chat template{line}: {text}{cause}").replace(['\n', '\r'], " ");
    shortened(&text, MAX_MESSAGE).to_owned()
}

/// Output up to [`MAX_RENDERED_BYTES`].
#[derive(Default)]
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > MAX_RENDERED_BYTES - self.0.len() {
            return Err(std::io::Error::other(format!("more than {MAX_RENDERED_BYTES} bytes of text")));
        }
        reserve(&mut self.0, bytes.len(), WHAT).map_err(std::io::Error::other)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
