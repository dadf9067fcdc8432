//! Chat templates convert a conversation to the text that the model was trained to continue.
//! `smallmind-templates` compiles and renders them, as jinja2 does and within bounds; this module gives it memory, takes
//! its errors, and sees to it that contents are inert.
//!
//! **Content is not escaped.** [`Template::render`] writes special tokens and the messages' contents into one text. When
//! this text is tokenised with `parse_special`, `<|im_end|>` within a content ends its message.
//! [`Template::render_inert`] marks contents, so that only the template's own special tokens are tokens.

mod inert;

pub use inert::Marked;
pub use smallmind_templates::{MAX_RENDERED_BYTES, MAX_TEMPLATE_BYTES, Message};

use crate::format::gguf::Metadata;
use crate::memory::reserve::{held, probe};
use crate::{Error, Result};

/// The purpose of the memory, in errors.
const WHAT: &str = "a chat template";

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
        // minijinja allocates infallibly: memory for copies of the messages is held ready.
        let _held = held(smallmind_templates::bytes_of(messages), WHAT)?;
        self.0.render(messages, add_generation_prompt).map_err(of_templates)
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
