//! Text to tokens and back, from the vocabulary and merges that a model file carries.
//! Byte-level BPE (`tokenizer.ggml.model` = `"gpt2"`): special tokens are cut out, the rest is cut into
//! words by the family's rules ([`split`]), and the `tokenizers` crate merges each word.
//!
//! **Special tokens in text.** With `parse_special`, text such as `<|im_start|>` becomes the control token.
//! That is right for the output of a chat template and wrong for words of a stranger: without it, control
//! tokens can't come out of text at all. User-defined tokens are text and are always found.
//!
//! **What is lost.** Bytes that no token stands for are dropped (SmolLM2, for one, lacks the tokens for
//! some control characters), as llama.cpp and Hugging Face drop them. Decoding loses nothing.

mod bytes;
mod source;
mod split;
mod vocab;

#[cfg(test)]
mod tests;

pub use source::TokenizerSource;

use crate::error::{Error, Result, quoted};
use crate::format::gguf::Metadata;
use aho_corasick::{AhoCorasick, MatchKind};
use split::Splitter;
use std::collections::{HashMap, HashSet};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use vocab::{Kind, Vocabulary};

/// Longest text that [`Tokenizer::encode`] takes, in bytes: more tokens than any context holds.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Most bytes that the texts of all special tokens may have; real vocabularies have a few hundred KB.
const MAX_SPECIAL_BYTES: usize = 4 << 20;

/// Bytes that merging takes, at most, per byte of a word: two characters at most stand for a byte, each a
/// symbol (32 bytes) and a queue entry (16, doubled by growth), and a token with its own text.
const MERGE_BYTES_PER_BYTE: usize = 200;

/// Turns text into tokens and back. Shared by threads; see the module's notes.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    splitter: Splitter,
    bpe: BPE,
    /// Which bytes have a token.
    has_byte: [bool; 256],
    /// Control tokens by text. The others are in `bpe`.
    control: HashMap<String, u32>,
    /// Finds control and user-defined tokens.
    all_special: Finder,
    /// Finds user-defined tokens.
    user_defined: Finder,
    adds_bos: bool,
    adds_eos: bool,
}

impl Tokenizer {
    /// Checks the vocabulary and builds the tables.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a kind of tokenizer or pre-tokenizer that isn't known, by name;
    /// [`Error::Format`] for a vocabulary that contradicts itself: empty, a token twice, a merge that refers
    /// to a token that isn't there or is a control token, a merge twice, types that don't match the tokens
    /// in number, ids outside it; [`Error::OutOfMemory`].
    pub fn new(source: TokenizerSource) -> Result<Self> {
        if source.model != "gpt2" {
            return Err(Error::Unsupported(format!(
                "tokenizer {} (tokenizer.ggml.model); only \"gpt2\", byte-level BPE, is",
                quoted(&source.model)
            )));
        }
        let splitter = Splitter::new(&source.pre)?;
        let vocabulary = Vocabulary::new(&source)?;
        let adds_bos = source.add_bos.unwrap_or(splitter.adds_bos && source.bos.is_some());
        let adds_eos = source.add_eos.unwrap_or(false);
        if adds_bos && source.bos.is_none() || adds_eos && source.eos.is_none() {
            return Err(Error::format(
                "a token is to be added that the file doesn't name (tokenizer.ggml.add_bos_token, add_eos_token)",
            ));
        }
        let of_kind = |wanted: &[Kind]| {
            let ids = 0..vocabulary.len() as u32;
            ids.filter(|&id| vocabulary.kind(id).is_some_and(|kind| wanted.contains(&kind)))
                .filter(|&id| !source.tokens[id as usize].is_empty())
                .collect::<Vec<u32>>()
        };
        let all_special = Finder::new(&source.tokens, of_kind(&[Kind::Control, Kind::UserDefined]))?;
        let user_defined = Finder::new(&source.tokens, of_kind(&[Kind::UserDefined]))?;
        let merges = merges(&source.merges)?;
        let (ordinary, control) = by_text(source.tokens, &vocabulary)?;
        let has_byte = bytes::CHARS.map(|char| ordinary.contains_key(char.encode_utf8(&mut [0; 4]) as &str));
        let bpe = BPE::builder()
            .vocab_and_merges(ordinary, merges)
            .ignore_merges(splitter.whole_words)
            .build()
            .map_err(|error| {
                Error::format(format!("tokenizer.ggml.merges: {}", quoted(&error.to_string())))
            })?;
        Ok(Self {
            vocabulary,
            splitter,
            bpe,
            has_byte,
            control,
            all_special,
            user_defined,
            adds_bos,
            adds_eos,
        })
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
    /// `parse_special` finds control tokens by their text (see the module's notes on who may write that
    /// text); `add_special` puts the tokens round the text that the model was trained with, mostly
    /// [`Self::bos`] in front or nothing.
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
        // One allowance for everything: a token has at least a byte, but for the two round the text.
        let mut ids = Vec::new();
        try_reserve(&mut ids, text.len() / 4 + 2)?;
        ids.extend(self.vocabulary.bos.filter(|_| add_special && self.adds_bos));
        let finder = if parse_special { &self.all_special } else { &self.user_defined };
        let mut spelled = String::new();
        finder.split(text, |piece| match piece {
            Piece::Special(id) => {
                ids.push(id);
                Ok(())
            }
            Piece::Text(text) => {
                self.splitter.split(text, &mut |word| self.merge(word, &mut spelled, &mut ids))
            }
        })?;
        ids.extend(self.vocabulary.eos.filter(|_| add_special && self.adds_eos));
        Ok(ids)
    }

    /// Appends the tokens of one word; `spelled` is scratch.
    fn merge(&self, word: &str, spelled: &mut String, ids: &mut Vec<u32>) -> Result<()> {
        const LONG: usize = 1 << 16;
        if word.len() > LONG {
            // The crate allocates infallibly: see first whether what a long word takes can be had.
            try_reserve(&mut Vec::<u8>::new(), word.len() * MERGE_BYTES_PER_BYTE)?;
        }
        // A byte without a token is dropped, but keeps apart what it stood between.
        for part in word.as_bytes().split(|&byte| !self.has_byte[usize::from(byte)]) {
            spelled.clear();
            bytes::spell(part, spelled);
            let tokens =
                self.bpe.tokenize(spelled).map_err(|error| Error::Internal(format!("merging: {error}")))?;
            ids.extend(tokens.iter().map(|token| token.id));
        }
        Ok(())
    }

    /// The bytes that `ids` stand for, as text; each sequence that isn't UTF-8 becomes U+FFFD.
    /// `skip_special` leaves control tokens out.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut bytes = Vec::new();
        self.decode_bytes(ids, skip_special, &mut bytes)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// Appends the bytes that `ids` stand for, exactly.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an id outside the vocabulary; [`Error::OutOfMemory`].
    pub fn decode_bytes(&self, ids: &[u32], skip_special: bool, out: &mut Vec<u8>) -> Result<()> {
        for &id in ids {
            let bytes = self.token_bytes(id)?;
            if !(skip_special && self.is_control(id)) {
                try_reserve(out, bytes.len())?;
                out.extend_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// The bytes of one token: part of a text (maybe of a character), or a special token's name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Result<&[u8]> {
        self.vocabulary
            .bytes(id)
            .ok_or_else(|| Error::invalid(format!("token {id} of a vocabulary of {}", self.vocabulary.len())))
    }

    /// The token that `text` names: a special token by its text, an ordinary one by its byte-level spelling
    /// (`"Ġthe"`).
    pub fn id(&self, text: &str) -> Option<u32> {
        self.control.get(text).copied().or_else(|| self.bpe.token_to_id(text))
    }

    /// Number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Begin of sequence.
    pub fn bos(&self) -> Option<u32> {
        self.vocabulary.bos
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<u32> {
        self.vocabulary.eos
    }

    /// Text of [`Self::bos`], as chat templates want it; empty where there is none.
    pub fn bos_text(&self) -> &str {
        self.text_or_empty(self.vocabulary.bos)
    }

    /// Text of [`Self::eos`]; empty where there is none.
    pub fn eos_text(&self) -> &str {
        self.text_or_empty(self.vocabulary.eos)
    }

    fn text_or_empty(&self, id: Option<u32>) -> &str {
        id.and_then(|id| self.vocabulary.bytes(id))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// Whether generation stops at this token: end of sequence, of turn, of message, by the file's word or
    /// by the token's well-known text.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.vocabulary.is_end(id)
    }

    /// Whether the token steers the model and is no text.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == Some(Kind::Control)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

fn try_reserve<T>(list: &mut Vec<T>, additional: usize) -> Result<()> {
    list.try_reserve(additional).map_err(|_| Error::OutOfMemory {
        bytes: additional.saturating_mul(size_of::<T>()),
        what: "tokens and text",
    })
}

/// Ids by text: ordinary and user-defined tokens, which merging may produce, and control tokens, which it
/// must not. Tokens without text are in neither.
fn by_text(tokens: Vec<String>, vocabulary: &Vocabulary) -> Result<(Vocab, HashMap<String, u32>)> {
    let mut ordinary = Vocab::with_capacity(tokens.len());
    let mut control = HashMap::new();
    for (id, text) in (0_u32..).zip(tokens) {
        if text.is_empty() {
            continue;
        }
        let (first, other) = if vocabulary.kind(id) == Some(Kind::Control) {
            (control.insert(text.clone(), id), ordinary.get(&text).copied())
        } else {
            (ordinary.insert(text.clone(), id), control.get(&text).copied())
        };
        if let Some(first) = first.or(other) {
            return Err(Error::format(format!("tokens {first} and {id} are both {}", quoted(&text))));
        }
    }
    Ok((ordinary, control))
}

/// Merges as pairs, in order.
fn merges(lines: &[String]) -> Result<Merges> {
    let mut seen = HashSet::with_capacity(lines.len());
    lines
        .iter()
        .enumerate()
        .map(|(rank, line)| match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() => {
                if seen.insert(line.as_str()) {
                    Ok((left.to_owned(), right.to_owned()))
                } else {
                    Err(Error::format(format!("merge {rank} is there twice: {}", quoted(line))))
                }
            }
            _ => Err(Error::format(format!("merge {rank} is no pair: {}", quoted(line)))),
        })
        .collect()
}

/// A stretch of text, or a special token found in it.
enum Piece<'t> {
    Text(&'t str),
    Special(u32),
}

/// Finds special tokens: leftmost first, longest where several begin.
struct Finder {
    /// `None` where there is nothing to find.
    automaton: Option<AhoCorasick>,
    /// Token of each pattern.
    ids: Vec<u32>,
}

impl Finder {
    fn new(tokens: &[String], ids: Vec<u32>) -> Result<Self> {
        let texts = || ids.iter().map(|&id| tokens[id as usize].as_str());
        if texts().map(str::len).sum::<usize>() > MAX_SPECIAL_BYTES {
            return Err(Error::Unsupported(format!(
                "special tokens with more than {MAX_SPECIAL_BYTES} bytes of text"
            )));
        }
        let automaton = if ids.is_empty() {
            None
        } else {
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts());
            Some(built.map_err(|error| Error::format(format!("special tokens: {error}")))?)
        };
        Ok(Self { automaton, ids })
    }

    /// Calls `each` with the pieces of `text` in order.
    fn split<'t>(&self, text: &'t str, mut each: impl FnMut(Piece<'t>) -> Result<()>) -> Result<()> {
        let mut done = 0;
        for found in self.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            if done < found.start() {
                each(Piece::Text(&text[done..found.start()]))?;
            }
            each(Piece::Special(self.ids[found.pattern().as_usize()]))?;
            done = found.end();
        }
        if done < text.len() { each(Piece::Text(&text[done..])) } else { Ok(()) }
    }
}
