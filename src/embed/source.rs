//! Where a call's texts come from: texts, spans of tokens, or documents that are read together with a query.

use super::results::TextStatus;
use super::window::WHAT;
use crate::chat::{Message, Template};
use crate::error::{Error, Result};
use crate::memory::reserve::{reserve, reserve_text};
use crate::tokenizer::Tokenizer;

/// A list whose items may be broken.
pub(crate) trait List<T: ?Sized>: Sync {
    /// Number of items.
    fn len(&self) -> usize;
    /// Size of an item: bytes of a text, or tokens.
    fn size(&self, i: usize) -> usize;
    /// An item.
    fn get(&self, i: usize) -> Result<&T, TextStatus>;
}

impl List<str> for &[&str] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    fn size(&self, i: usize) -> usize {
        self[i].len()
    }
    fn get(&self, i: usize) -> Result<&str, TextStatus> {
        Ok(self[i])
    }
}

impl List<[u32]> for &[&[u32]] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }
    fn size(&self, i: usize) -> usize {
        self[i].len()
    }
    fn get(&self, i: usize) -> Result<&[u32], TextStatus> {
        Ok(self[i])
    }
}

/// Gives the tokens of each text of a call.
pub(super) trait Source: Sync {
    /// Number of texts.
    fn len(&self) -> usize;
    /// About the bytes of a text.
    fn bytes(&self, i: usize) -> usize;
    /// Appends the tokens of a text; `scratch` is for any use.
    fn tokens(&self, i: usize, scratch: &mut String, out: &mut Vec<u32>) -> Result<(), TextStatus>;
}

/// The status of a text whose tokens can't be had.
fn status(error: Error) -> TextStatus {
    match error {
        Error::InvalidArgument(_) => TextStatus::TooLong,
        Error::OutOfMemory { .. } => TextStatus::NoMemory,
        _ => TextStatus::Failed,
    }
}

fn append(out: &mut Vec<u32>, tokens: &[u32]) -> Result<()> {
    reserve(out, tokens.len(), WHAT)?;
    out.extend_from_slice(tokens);
    Ok(())
}

/// Texts behind a prompt.
pub(super) struct Texts<'a> {
    pub list: &'a dyn List<str>,
    pub tokenizer: &'a Tokenizer,
    pub prompt: &'a str,
}

impl Texts<'_> {
    /// The tokens of a text without content.
    pub fn frame(&self) -> Result<Vec<u32>> {
        self.tokenizer.encode(self.prompt, false, true)
    }
}

impl Source for Texts<'_> {
    fn len(&self) -> usize {
        self.list.len()
    }

    fn bytes(&self, i: usize) -> usize {
        self.prompt.len().saturating_add(self.list.size(i))
    }

    fn tokens(&self, i: usize, scratch: &mut String, out: &mut Vec<u32>) -> Result<(), TextStatus> {
        let text = self.list.get(i)?;
        let text = if self.prompt.is_empty() {
            text
        } else {
            scratch.clear();
            reserve_text(scratch, self.prompt.len() + text.len(), WHAT).map_err(status)?;
            scratch.push_str(self.prompt);
            scratch.push_str(text);
            scratch
        };
        let tokens = self.tokenizer.encode(text, false, true).map_err(status)?;
        append(out, &tokens).map_err(status)
    }
}

/// Spans of tokens as they are.
pub(super) struct Spans<'a>(pub &'a dyn List<[u32]>);

impl Source for Spans<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self, i: usize) -> usize {
        self.0.size(i).saturating_mul(size_of::<u32>())
    }

    fn tokens(&self, i: usize, _: &mut String, out: &mut Vec<u32>) -> Result<(), TextStatus> {
        append(out, self.0.get(i)?).map_err(status)
    }
}

/// Documents, each with the query.
pub(super) struct Pairs<'a> {
    documents: &'a dyn List<str>,
    tokenizer: &'a Tokenizer,
    query: Query<'a>,
}

enum Query<'a> {
    /// The tokens up to the document's own, and the special tokens in front of a text.
    Tokens { before: Vec<u32>, head: usize },
    /// A text with places for query and document.
    Template { template: Box<Template>, query: &'a str },
}

impl<'a> Pairs<'a> {
    /// Documents with a query: as the template says, or one behind the other, with the special tokens of two texts.
    pub fn new(
        documents: &'a dyn List<str>,
        tokenizer: &'a Tokenizer,
        template: Option<&str>,
        query: &'a str,
    ) -> Result<Self> {
        let query = match template {
            Some(template) => Query::Template { template: Box::new(compiled(template)?), query },
            None => {
                let mut before = tokenizer.encode(query, false, true)?;
                let bare = tokenizer.encode("", false, true)?;
                let some = tokenizer.encode("a", false, true)?;
                let head = some.iter().zip(&bare).take_while(|(a, b)| a == b).count();
                // RoBERTa's texts end with `</s>`, and a second text begins with another one.
                if let Some(&last) =
                    bare.last().filter(|&&last| tokenizer.token_bytes(last).ok() == Some(b"</s>"))
                {
                    append(&mut before, &[last])?;
                }
                Query::Tokens { before, head }
            }
        };
        Ok(Pairs { documents, tokenizer, query })
    }

    /// The tokens with an empty document.
    pub fn frame(&self) -> Result<Vec<u32>> {
        let mut frame = Vec::new();
        self.with("", &mut frame)?;
        Ok(frame)
    }

    fn with(&self, document: &str, out: &mut Vec<u32>) -> Result<()> {
        match &self.query {
            Query::Tokens { before, head } => {
                append(out, before)?;
                let tokens = self.tokenizer.encode(document, false, true)?;
                append(out, &tokens[(*head).min(tokens.len())..])
            }
            Query::Template { template, query } => {
                let messages = [Message::new("", query), Message::new("", document)];
                let marked = template.render_inert(&messages, false, self.tokenizer.control_texts())?;
                append(out, &self.tokenizer.encode_marked(&marked.text, marked.mark, false)?)
            }
        }
    }
}

impl Source for Pairs<'_> {
    fn len(&self) -> usize {
        self.documents.len()
    }

    fn bytes(&self, i: usize) -> usize {
        let query = match &self.query {
            Query::Tokens { before, .. } => before.len() * size_of::<u32>(),
            Query::Template { query, .. } => query.len(),
        };
        query.saturating_add(self.documents.size(i))
    }

    fn tokens(&self, i: usize, _: &mut String, out: &mut Vec<u32>) -> Result<(), TextStatus> {
        self.with(self.documents.get(i)?, out).map_err(status)
    }
}

/// llama.cpp's template, which has `{query}` and `{document}` in the places of these, as a chat template, whose contents
/// can be made inert. The empty expression at the end keeps a line break in front of it.
fn compiled(template: &str) -> Result<Template> {
    let source = template
        .replace("{query}", "{{ messages[0].content }}")
        .replace("{document}", "{{ messages[1].content }}");
    Template::new(&format!("{source}{{{{ '' }}}}"), "", "")
}
