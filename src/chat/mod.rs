//! Chat templates convert a conversation to the text that the model was trained to continue.
//! `smallmind-templates` compiles and renders them, as jinja2 does and within bounds; this module gives it memory, takes
//! its errors, and sees to it that contents are inert.
//!
//! **Content is not escaped.** [`Template::render`] writes special tokens and the messages' contents into one text. When
//! this text is tokenised with `parse_special`, `<|im_end|>` within a content ends its message.
//! [`Template::render_inert`] marks contents, so that only the template's own special tokens are tokens.

mod arguments;
mod inert;

pub use arguments::Arguments;
pub use inert::Marked;
pub use smallmind_templates::{MAX_RENDERED_BYTES, MAX_TEMPLATE_BYTES, Message};

use crate::format::gguf::Metadata;
use crate::memory::reserve::{held, probe, reserve_text};
use crate::{Error, Result};

/// The purpose of the memory, in errors.
const WHAT: &str = "a chat template";

/// What is rendered in addition to the messages.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Prompt<'a> {
    /// Whether the text ends with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Variables that the template sees: tools, and switches of its own.
    pub arguments: &'a Arguments,
    /// The beginning of the assistant's message, which stands at the end of the text.
    pub prefix: &'a str,
}

impl Default for Prompt<'_> {
    /// The beginning of an answer, without arguments and prefix.
    fn default() -> Self {
        static NONE: Arguments = Arguments::none();
        Prompt { add_generation_prompt: true, arguments: &NONE, prefix: "" }
    }
}

impl<'a> Prompt<'a> {
    /// Sets [`Prompt::add_generation_prompt`].
    pub fn with_generation_prompt(self, add_generation_prompt: bool) -> Self {
        Self { add_generation_prompt, ..self }
    }

    /// Sets [`Prompt::arguments`].
    pub fn with_arguments(self, arguments: &'a Arguments) -> Self {
        Self { arguments, ..self }
    }

    /// Sets [`Prompt::prefix`].
    pub fn with_prefix(self, prefix: &'a str) -> Self {
        Self { prefix, ..self }
    }
}

/// A compiled chat template. It may be shared by threads.
#[derive(Debug)]
pub struct Template(smallmind_templates::Template);

impl Template {
    /// Compiles `source`. The template sees `bos` and `eos` as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`Error::Format`] for a template that is empty, is longer than [`MAX_TEMPLATE_BYTES`] or doesn't compile, then
    /// with the line; [`Error::Unsupported`] for a statement that this library doesn't know, or nesting beyond its
    /// limits; [`Error::OutOfMemory`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let can_allocate = |bytes| probe(bytes, WHAT).is_ok();
        smallmind_templates::Template::new(source, bos, eos, can_allocate).map(Self).map_err(of_templates)
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
        self.render_with(messages, &Prompt::default().with_generation_prompt(add_generation_prompt))
    }

    /// The text of a conversation with a prompt's arguments, and its prefix at the end.
    ///
    /// # Errors
    /// Those of [`Template::render`]; [`Error::InvalidArgument`] for an argument that has the name of a variable of the
    /// rendering's own.
    pub fn render_with(&self, messages: &[Message<'_>], prompt: &Prompt<'_>) -> Result<String> {
        // minijinja allocates infallibly: memory for copies of the messages is held ready.
        let bytes = smallmind_templates::bytes_of(messages).saturating_add(prompt.arguments.bytes());
        let _held = held(bytes, WHAT)?;
        let rendered = self.0.render_with(messages, prompt.add_generation_prompt, prompt.arguments.pairs());
        let mut text = rendered.map_err(of_templates)?;
        reserve_text(&mut text, prompt.prefix.len(), WHAT)?;
        text.push_str(prompt.prefix);
        Ok(text)
    }
}

/// An error of the templates' crate as one of this library.
fn of_templates(error: smallmind_templates::Error) -> Error {
    use smallmind_templates::Error as Template;
    match error {
        Template::Source(text) => Error::Format(text),
        Template::Unsupported(text) => Error::Unsupported(text),
        Template::Rendering(text) => Error::InvalidArgument(text),
        Template::OutOfMemory { bytes } => Error::OutOfMemory { bytes, what: WHAT },
        other => Error::Internal(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_a_template_has_its_kind() {
        for (source, text) in [
            ("", "bad file: the chat template is empty (tokenizer.chat_template)"),
            ("a\n{{ 'b", "bad file: chat template (line 2): "),
            ("a\n{% trans %}", "not supported: chat template (line 2): the statement `trans`"),
        ] {
            let error = Template::new(source, "", "").unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
        let template = Template::new("\n{{ raise_exception('Roles must alternate!') }}", "", "").unwrap();
        match template.render(&[Message::new("user", "Hello")], true) {
            Err(Error::InvalidArgument(text)) => {
                assert_eq!(text, "chat template (line 2): Roles must alternate!");
            }
            other => panic!("{other:?}"),
        }
    }
}
