//! Converts text to tokens and back, with the vocabulary and merges of a model file. Byte-level BPE
//! (`tokenizer.ggml.model` = `"gpt2"`): special tokens are cut out, the rest of the text is cut into words by the
//! family's rules ([`split`]), and the `tokenizers` crate merges the bytes of each word.
//!
//! **Special tokens in text.** With `parse_special`, a text such as `<|im_start|>` becomes a control token. Use it for
//! the output of a chat template, but not for text from strangers: without `parse_special`, no text becomes a control
//! token. User-defined tokens are text and always found.
//!
//! **Lost bytes.** Encoding drops bytes without a token (SmolLM2, for example, has no tokens for some control
//! characters), as llama.cpp and Hugging Face do. Decoding loses nothing.

mod bytes;
mod inert;
mod source;
mod split;
mod vocab;

#[cfg(test)]
mod tests;

pub use source::TokenizerSource;

use crate::error::{Error, Result, quoted};
use crate::format::gguf::Metadata;
use crate::memory::reserve::{collected, copied_text, held, reserve, reserve_text};
use crate::memory::spare::Hold;
use aho_corasick::{AhoCorasick, MatchKind};
use split::Splitter;
use std::collections::{HashMap, HashSet};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use vocab::{Kind, Vocabulary};

/// Longest text for [`Tokenizer::encode`], in bytes: it has more tokens than any context holds.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Most bytes in the texts of all special tokens; real vocabularies have a few hundred KB.
const MAX_SPECIAL_BYTES: usize = 4 << 20;

/// Most memory that merging takes, in bytes for each byte of a word. A byte is spelled with at most two bytes of text,
/// and has a symbol (32 bytes), a queue entry (16, doubled by growth), and a token with its own text.
const MERGE_BYTES_PER_BYTE: usize = 200;
/// Memory of a vocabulary's tables, in bytes for each token and each merge, in addition to their texts: entries of hash
/// maps (24 to 32 bytes, doubled by growth), lists of strings, and the allocator's overhead.
const TABLE_BYTES: usize = 200;
/// Memory of the compiled patterns that cut a text into words, and that find special tokens.
const PATTERN_BYTES: usize = 8 << 20;
/// The tables hold this many copies of each text at the same time.
const TEXT_COPIES: usize = 4;

/// The purpose of the memory, in errors.
const WHAT: &str = "tokens and text";
const VOCABULARY: &str = "the vocabulary";

/// Converts text to tokens and back. It may be shared by threads; see the module's notes.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    splitter: Splitter,
    bpe: BPE,
    /// Whether each byte has a token.
    has_byte: [bool; 256],
    /// Control tokens by text. `bpe` has the other tokens.
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
    /// [`Error::Unsupported`], with the name, for an unknown kind of tokenizer or pre-tokenizer; [`Error::Format`] for
    /// a vocabulary that is empty or contradicts itself: a token or a merge occurs twice, a merge refers to a token
    /// that doesn't exist or is a control token, the number of types isn't that of tokens, or an id is outside the
    /// vocabulary; [`Error::OutOfMemory`].
    pub fn new(source: TokenizerSource) -> Result<Self> {
        if source.model != "gpt2" {
            return Err(Error::Unsupported(format!(
                "tokenizer {} (tokenizer.ggml.model); byte-level BPE (\"gpt2\") is the only supported kind",
                quoted(&source.model)
            )));
        }
        let _held = hold_tables(&source)?;
        let splitter = Splitter::new(&source.pre)?;
        let vocabulary = Vocabulary::new(&source)?;
        let adds_bos = source.add_bos.unwrap_or(splitter.adds_bos && source.bos.is_some());
        let adds_eos = source.add_eos.unwrap_or(false);
        if adds_bos && source.bos.is_none() || adds_eos && source.eos.is_none() {
            return Err(Error::format(
                "tokenizer.ggml.add_bos_token or add_eos_token asks for a token that the file doesn't name",
            ));
        }
        let of_kind = |wanted: &[Kind]| {
            let ids = (0..vocabulary.len() as u32)
                .filter(|&id| vocabulary.kind(id).is_some_and(|kind| wanted.contains(&kind)))
                .filter(|&id| !source.tokens[id as usize].is_empty());
            collected(ids.map(Ok), VOCABULARY)
        };
        let all_special = Finder::new(&source.tokens, of_kind(&[Kind::Control, Kind::UserDefined])?)?;
        let user_defined = Finder::new(&source.tokens, of_kind(&[Kind::UserDefined])?)?;
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
        // Few texts have more tokens; `push` and `merge` reserve the rest.
        let mut ids = Vec::new();
        reserve(&mut ids, text.len() / 4 + 2, WHAT)?;
        ids.extend(self.added_bos().filter(|_| add_special));
        let finder = if parse_special { &self.all_special } else { &self.user_defined };
        let mut spelled = String::new();
        finder.split(text, |piece| match piece {
            Piece::Special(id) => push(&mut ids, id),
            Piece::Text(text) => {
                self.splitter.split(text, &mut |word| self.merge(word, &mut spelled, &mut ids))
            }
        })?;
        if let Some(eos) = self.vocabulary.eos.filter(|_| add_special && self.adds_eos) {
            push(&mut ids, eos)?;
        }
        Ok(ids)
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

    /// Appends the tokens of one word; `spelled` is scratch memory.
    fn merge(&self, word: &str, spelled: &mut String, ids: &mut Vec<u32>) -> Result<()> {
        const LONG: usize = 1 << 12;
        // `tokenizers` allocates infallibly: memory for a long word is held ready.
        let _held = if word.len() > LONG { held(word.len() * MERGE_BYTES_PER_BYTE, WHAT)? } else { None };
        // A byte without a token is dropped, but nothing is merged across it.
        for part in word.as_bytes().split(|&byte| !self.has_byte[usize::from(byte)]) {
            spelled.clear();
            reserve_text(spelled, 2 * part.len(), WHAT)?;
            bytes::spell(part, spelled);
            let tokens =
                self.bpe.tokenize(spelled).map_err(|error| Error::Internal(format!("merging: {error}")))?;
            reserve(ids, tokens.len(), WHAT)?;
            ids.extend(tokens.iter().map(|token| token.id));
        }
        Ok(())
    }

    /// The text of the tokens; each sequence of bytes that isn't UTF-8 becomes U+FFFD. `skip_special` leaves out
    /// control tokens.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an id outside the vocabulary; [`Error::OutOfMemory`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut bytes = Vec::new();
        self.decode_bytes(ids, skip_special, &mut bytes)?;
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
        self.control.get(text).copied().or_else(|| self.bpe.token_to_id(text))
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

/// Holds memory ready for the tables of a vocabulary, which `tokenizers` builds with infallible allocations, and for the
/// compiled patterns.
fn hold_tables(source: &TokenizerSource) -> Result<Option<Hold>> {
    let texts: usize = source.tokens.iter().chain(&source.merges).map(String::len).sum();
    let entries = source.tokens.len() + source.merges.len();
    let tables = texts.saturating_mul(TEXT_COPIES).saturating_add(entries.saturating_mul(TABLE_BYTES));
    held(tables.saturating_add(PATTERN_BYTES), VOCABULARY)
}

/// Ids by text, in two maps: ordinary and user-defined tokens, which merging may produce, and control tokens, which it
/// must not produce. Tokens without text are in neither.
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
    let pairs = lines.iter().enumerate().map(|(rank, line)| match line.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => {
            if seen.insert(line.as_str()) {
                Ok((copied_text(left, VOCABULARY)?, copied_text(right, VOCABULARY)?))
            } else {
                Err(Error::format(format!("merge {rank} occurs twice: {}", quoted(line))))
            }
        }
        _ => Err(Error::format(format!("merge {rank} is no pair: {}", quoted(line)))),
    });
    collected(pairs, VOCABULARY)
}

/// A stretch of text, or a special token found in it.
enum Piece<'t> {
    Text(&'t str),
    Special(u32),
}

/// Finds special tokens: the leftmost first, and of several at one place the longest.
struct Finder {
    /// `None` without tokens to find.
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
