//! Converts text to tokens and back, with the vocabulary of a model file. The kinds of vocabularies
//! (`tokenizer.ggml.model`) are `"gpt2"` and `"gemma4"` (BPE by merges, [`bpe`]), `"llama"` (SentencePiece BPE by scores,
//! [`sentencepiece`]), `"t5"` (Unigram, [`unigram`]) and `"bert"` (WordPiece, [`wordpiece`]). In all of them, special
//! tokens are cut out of a text first. A `tokenizer.json` of a Hugging Face folder is applied as it stands
//! ([`Tokenizer::from_json`]).
//!
//! **Special tokens in text.** With `parse_special`, a text such as `<|im_start|>` becomes a control token. Use it for
//! the output of a chat template, but not for text from strangers: without `parse_special`, no text becomes a control
//! token. User-defined tokens are text and always found.
//!
//! **Lost text.** Encoding drops bytes without a token (SmolLM2, for example, has no tokens for some control
//! characters), as llama.cpp and Hugging Face do. WordPiece and Unigram normalise text, so that decoding gives the
//! normalised one, and unknown tokens for what has no token. Decoding itself loses nothing.

mod bpe;
mod bytes;
mod charsmap;
mod families;
mod inert;
mod json;
mod kinds;
mod sentencepiece;
mod source;
mod special;
mod split;
mod trie;
mod unigram;
mod vocab;
mod wordpiece;

#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod kinds_tests;
#[cfg(test)]
mod tests;

pub use json::JsonConfig;
pub use source::TokenizerSource;

use crate::error::{Error, Result};
use crate::format::gguf::Metadata;
use crate::memory::reserve::{reserve, reserve_text};
use kinds::Algorithm;
use sentencepiece::SPACE;
use special::{Finder, Piece};
use std::collections::HashMap;
use vocab::{Kind, Vocabulary};

/// Longest text for [`Tokenizer::encode`], in bytes: it has more tokens than any context holds.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Most bytes in the texts of all special tokens; real vocabularies have a few hundred KB.
const MAX_SPECIAL_BYTES: usize = 4 << 20;

/// The purpose of the memory, in errors.
const WHAT: &str = "tokens and text";
const VOCABULARY: &str = "the vocabulary";

/// Converts text to tokens and back. It may be shared by threads; see the module's notes.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    /// The tokens that the algorithm doesn't have, by text: control tokens, and bytes.
    others: HashMap<String, u32>,
    /// Finds control and user-defined tokens.
    all_special: Finder,
    /// Finds user-defined tokens.
    user_defined: Finder,
    adds_bos: bool,
    /// The token that `add_special` appends.
    appended: Option<u32>,
    /// Whether encoding puts a space in front of a text, which decoding takes away.
    adds_space: bool,
}

impl Tokenizer {
    /// Checks the vocabulary and builds the tables.
    ///
    /// # Errors
    /// [`Error::Unsupported`], with the name, for an unknown kind of tokenizer or pre-tokenizer; [`Error::Format`] for
    /// a vocabulary that is empty or contradicts itself: a token or a merge occurs twice, a merge refers to a token
    /// that doesn't exist or is a control token, the number of types or scores isn't that of tokens, a score is no
    /// number, or an id is outside the vocabulary; [`Error::OutOfMemory`].
    pub fn new(source: TokenizerSource) -> Result<Self> {
        kinds::build(source)
    }

    /// The tokenizer that a GGUF file's metadata describes.
    ///
    /// # Errors
    /// As [`TokenizerSource::from_metadata`] and [`Tokenizer::new`].
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        Self::new(TokenizerSource::from_metadata(metadata)?)
    }

    /// Tokens of `text`.
    ///
    /// `parse_special` finds control tokens by their text (see the module's notes on text from strangers).
    /// `add_special` adds the tokens with which the model was trained to begin and end a text: mostly [`Self::bos`] or
    /// none.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for more than [`MAX_TEXT_BYTES`]; [`Error::OutOfMemory`].
    pub fn encode(&self, text: &str, parse_special: bool, add_special: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::invalid(format!(
                "a text of {} bytes; the tokenizer takes {MAX_TEXT_BYTES}",
                text.len()
            )));
        }
        let mut run = Run::new(self, text)?;
        if let Algorithm::Json(json) = &self.algorithm {
            json.encode(text, parse_special, add_special, &mut run.ids)?;
            return Ok(run.ids);
        }
        run.ids.extend(self.added_bos().filter(|_| add_special));
        let finder = if parse_special { &self.all_special } else { &self.user_defined };
        finder.split(text, |piece| run.piece(piece))?;
        if let Some(appended) = self.appended.filter(|_| add_special) {
            push(&mut run.ids, appended)?;
        }
        Ok(run.ids)
    }

    /// Tokens of a conversation that a chat template has rendered: control tokens are parsed. With `add_bos`, the tokens
    /// begin with [`Tokenizer::added_bos`], if there is one, exactly once, whether the template writes it or not, as
    /// llama.cpp does; without, the tokens are those of the text alone. No token is appended: the model's reply follows.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_chat(&self, text: &str, add_bos: bool) -> Result<Vec<u32>> {
        self.begun_once(text, add_bos, |text| self.encode(text, true, false))
    }

    /// The tokens of a rendered conversation; with `add_bos`, behind [`Tokenizer::added_bos`], also where the text begins
    /// with that token's.
    fn begun_once(
        &self,
        text: &str,
        add_bos: bool,
        encode: impl FnOnce(&str) -> Result<Vec<u32>>,
    ) -> Result<Vec<u32>> {
        let Some(bos) = self.added_bos().filter(|_| add_bos) else { return encode(text) };
        let mut ids = encode(text.strip_prefix(self.bos_text()).unwrap_or(text))?;
        reserve(&mut ids, 1, WHAT)?;
        ids.insert(0, bos);
        Ok(ids)
    }

    /// The text of the tokens; each sequence of bytes that isn't UTF-8 becomes U+FFFD. `skip_special` leaves out
    /// control tokens. A space that encoding put in front of the text is left out.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an id outside the vocabulary; [`Error::OutOfMemory`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut bytes = Vec::new();
        self.decode_bytes(ids, skip_special, &mut bytes)?;
        let first = ids.iter().find(|&&id| !(skip_special && self.is_control(id)));
        if self.adds_space && first.is_some_and(|&id| !self.is_control(id)) && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        String::from_utf8(bytes).or_else(|error| lossy(error.as_bytes()))
    }

    /// Appends the exact bytes of the tokens.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an id outside the vocabulary; [`Error::OutOfMemory`].
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool, out: &mut Vec<u8>) -> Result<()> {
        for &id in ids {
            let bytes = self.token_bytes(id)?;
            if !(skip_special && self.is_control(id)) {
                reserve(out, bytes.len(), WHAT)?;
                out.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// The bytes of one token: a part of a text, which may be a part of a character, or the text of a special token.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        self.vocabulary
            .bytes(id)
            .ok_or_else(|| Error::invalid(format!("token {id} of a vocabulary of {}", self.vocabulary.len())))
    }

    /// The token with this text; for an ordinary token, `text` is its byte-level spelling (`"Ġthe"`).
    pub fn id(&self, text: &str) -> Option<u32> {
        self.others.get(text).copied().or_else(|| self.algorithm.id(text))
    }

    /// Number of tokens. Every id is below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// The token at the beginning of a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.vocabulary.bos
    }

    /// The token that every sequence begins with: [`Tokenizer::bos`], where the file (`tokenizer.ggml.add_bos_token`) or,
    /// if it says nothing, its pre-tokenizer wants one; as llama.cpp has it.
    pub fn added_bos(&self) -> Option<u32> {
        self.vocabulary.bos.filter(|_| self.adds_bos)
    }

    /// The token at the end of a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.vocabulary.eos
    }

    /// Text of [`Self::bos`], for chat templates; empty if there is no such token.
    pub fn bos_text(&self) -> &str {
        self.text_or_empty(self.vocabulary.bos)
    }

    /// Text of [`Self::eos`]; empty if there is no such token.
    pub fn eos_text(&self) -> &str {
        self.text_or_empty(self.vocabulary.eos)
    }

    fn text_or_empty(&self, id: Option<u32>) -> &str {
        id.and_then(|id| self.vocabulary.bytes(id))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// Makes a token end a generation.
    pub(crate) fn add_end(&mut self, id: u32) -> Result<()> {
        self.vocabulary.add_ends(&[id])
    }

    /// Whether generation stops at this token: it ends a sequence, a turn or a message, according to the file or by its
    /// well-known text.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.vocabulary.is_end(id)
    }

    /// Whether the token is a control token, which is not text.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == Some(Kind::Control)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

fn push(ids: &mut Vec<u32>, id: u32) -> Result<()> {
    reserve(ids, 1, WHAT)?;
    ids.push(id);
    Ok(())
}

/// As [`String::from_utf8_lossy`], in memory that is reserved fallibly.
fn lossy(bytes: &[u8]) -> Result<String> {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        reserve_text(&mut text, chunk.valid().len() + char::REPLACEMENT_CHARACTER.len_utf8(), WHAT)?;
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Ok(text)
}

/// Memory that encoding works in.
#[derive(Default)]
struct Scratch {
    text: String,
    word: String,
    bytes: Vec<u8>,
}

impl Scratch {
    /// `text` with [`SPACE`] in place of spaces, and one more in front if asked for.
    fn spaced(&mut self, text: &str, prefix: bool) -> Result<&str> {
        let spaces = text.bytes().filter(|&byte| byte == b' ').count() + usize::from(prefix);
        self.text.clear();
        reserve_text(&mut self.text, text.len() + SPACE.len() * spaces, WHAT)?;
        self.text.push_str(if prefix { SPACE } else { "" });
        for (i, part) in text.split(' ').enumerate() {
            self.text.push_str(if i > 0 { SPACE } else { "" });
            self.text.push_str(part);
        }
        Ok(&self.text)
    }
}

/// One text on its way to tokens.
struct Run<'t> {
    tokenizer: &'t Tokenizer,
    ids: Vec<u32>,
    scratch: Scratch,
    /// Whether the next piece begins the text, or stands behind a special token.
    begins: bool,
}

impl<'t> Run<'t> {
    fn new(tokenizer: &'t Tokenizer, text: &str) -> Result<Self> {
        // Few texts have more tokens; `push` and the algorithms reserve the rest.
        let mut ids = Vec::new();
        reserve(&mut ids, text.len() / 4 + 2, WHAT)?;
        Ok(Self { tokenizer, ids, scratch: Scratch::default(), begins: true })
    }

    /// Appends the tokens of the next piece.
    fn piece(&mut self, piece: Piece<'_>) -> Result<()> {
        match piece {
            Piece::Special(id) => {
                self.begins = true;
                push(&mut self.ids, id)
            }
            Piece::Text(text) => {
                let begins = std::mem::replace(&mut self.begins, false);
                self.tokenizer.algorithm.encode(text, begins, &mut self.scratch, &mut self.ids)
            }
        }
    }
}
