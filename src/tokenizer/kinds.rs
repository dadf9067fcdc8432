//! The kinds of vocabularies, their defaults, and how a tokenizer is built of each.

use super::bpe::Bpe;
use super::charsmap::Charsmap;
use super::json::Json;
use super::sentencepiece::SentencePiece;
use super::special::Finder;
use super::split::Splitter;
use super::trie::Trie;
use super::unigram::{UNKNOWN_PENALTY, Unigram};
use super::vocab::{Kind, Spelling, Vocabulary, byte_named};
use super::wordpiece::WordPiece;
use super::{Scratch, Tokenizer, TokenizerSource, VOCABULARY};
use crate::error::{Error, Result, quoted};
use crate::memory::reserve::{copied_text, held, with_room};
use crate::memory::spare::Hold;
use std::collections::HashMap;
use tokenizers::models::bpe::Vocab;

/// Memory of a vocabulary's tables, in bytes for each token and each merge, in addition to their texts: entries of hash
/// maps (24 to 32 bytes, doubled by growth), lists of strings, and the allocator's overhead.
const TABLE_BYTES: usize = 200;
/// Memory of the compiled patterns that cut a text into words, and that find special tokens.
const PATTERN_BYTES: usize = 8 << 20;
/// The tables hold this many copies of each text at the same time.
const TEXT_COPIES: usize = 4;

/// How text without special tokens becomes tokens.
pub(super) enum Algorithm {
    Bpe(Box<Bpe>),
    SentencePiece(Box<SentencePiece>),
    Unigram(Unigram),
    WordPiece(WordPiece),
    Json(Box<Json>),
}

impl Algorithm {
    /// Appends the tokens of `text`. `begins`: it begins a text, or stands behind a special token.
    pub(super) fn encode(
        &self,
        text: &str,
        begins: bool,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        match self {
            Self::Bpe(bpe) => bpe.encode(text, scratch, ids),
            Self::SentencePiece(sentencepiece) => sentencepiece.encode(text, begins, scratch, ids),
            Self::Unigram(unigram) => unigram.encode(text, scratch, ids),
            Self::WordPiece(wordpiece) => wordpiece.encode(text, scratch, ids),
            Self::Json(json) => json.encode(text, false, false, ids),
        }
    }

    /// The token with this text, if it may come out of plain text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        match self {
            Self::Bpe(bpe) => bpe.id(text),
            Self::SentencePiece(sentencepiece) => sentencepiece.vocab.get(text).copied(),
            Self::Unigram(unigram) => unigram.trie.id(text),
            Self::WordPiece(wordpiece) => wordpiece.id(text),
            Self::Json(json) => json.id(text),
        }
    }
}

/// Ids and settings of a kind where the file says nothing.
#[derive(Default)]
struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    sep: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
    adds_space: bool,
}

/// The defaults of `model`, and how it spells.
fn defaults(model: &str) -> Result<(Defaults, Spelling)> {
    let none = Defaults::default();
    Ok(match model {
        "gpt2" => (none, Spelling::Bytes),
        "gemma4" => (none, Spelling::Spaced),
        "llama" => {
            let (bos, eos, unknown) = (Some(1), Some(2), Some(0));
            (Defaults { bos, eos, unknown, adds_bos: true, adds_space: true, ..none }, Spelling::Spaced)
        }
        "t5" => (Defaults { eos: Some(1), unknown: Some(2), adds_eos: true, ..none }, Spelling::Spaced),
        "bert" => {
            let (bos, unknown, sep) = (Some(101), Some(100), Some(102));
            (Defaults { bos, unknown, sep, adds_bos: true, ..none }, Spelling::Spaced)
        }
        other => {
            return Err(Error::Unsupported(format!(
                "tokenizer {} (tokenizer.ggml.model), so that only token ids can be given; \"gpt2\", \"gemma4\", \
                 \"llama\", \"t5\" and \"bert\" are the known kinds",
                quoted(other)
            )));
        }
    })
}

/// See [`Tokenizer::new`].
pub(super) fn build(mut source: TokenizerSource) -> Result<Tokenizer> {
    let (defaults, mut spelling) = defaults(&source.model)?;
    let _held = hold_tables(&source)?;
    let splitter = match source.model.as_str() {
        "gpt2" => Some(Splitter::new(&source.pre, source.default_pre)?),
        "gemma4" => Some(Splitter::new("gemma4", false)?),
        _ => None,
    };
    if splitter.as_ref().is_some_and(|splitter| splitter.spaced) {
        spelling = Spelling::Spaced;
    }
    let there = |id: Option<u32>| id.filter(|&id| (id as usize) < source.tokens.len());
    source.bos = source.bos.or(there(defaults.bos));
    source.eos = source.eos.or(there(defaults.eos));
    source.unknown = source.unknown.or(there(defaults.unknown));
    source.sep = source.sep.or(there(defaults.sep));
    let vocabulary = Vocabulary::new(&source, spelling)?;
    let (adds_bos, appended) = added(&source, splitter.as_ref(), &defaults)?;
    let adds_space = source.add_space_prefix.unwrap_or(defaults.adds_space);
    let removes_space = match source.model.as_str() {
        "bert" => true,
        "llama" | "t5" => adds_space,
        _ => false,
    };
    let all_special = Finder::new(&source, vocabulary.ids_of(&[Kind::Control, Kind::UserDefined])?)?;
    let user_defined = Finder::new(&source, vocabulary.ids_of(&[Kind::UserDefined])?)?;
    let (algorithm, others) = algorithm(source, splitter, &vocabulary, adds_space)?;
    Ok(Tokenizer {
        vocabulary,
        algorithm,
        others,
        all_special,
        user_defined,
        adds_bos,
        appended,
        adds_space: removes_space,
    })
}

/// Whether texts begin with `bos`, and the token that they end with.
fn added(
    source: &TokenizerSource,
    splitter: Option<&Splitter>,
    defaults: &Defaults,
) -> Result<(bool, Option<u32>)> {
    // BERT's texts stand between two tokens, whatever the file says.
    let is_bert = source.model == "bert";
    let adds_bos = match splitter {
        Some(splitter) if splitter.always_adds_bos => source.bos.is_some(),
        Some(splitter) => source.add_bos.unwrap_or(splitter.adds_bos && source.bos.is_some()),
        None => is_bert || source.add_bos.unwrap_or(defaults.adds_bos),
    };
    let appends = is_bert || source.add_eos.unwrap_or(defaults.adds_eos);
    let appended = if is_bert { source.sep } else { source.eos }.filter(|_| appends);
    if adds_bos && source.bos.is_none() || appends && appended.is_none() {
        return Err(Error::format(
            "tokenizer.ggml.add_bos_token or add_eos_token asks for a token that the file doesn't name",
        ));
    }
    Ok((adds_bos, appended))
}

/// The algorithm, and the tokens that it doesn't have, by text.
fn algorithm(
    mut source: TokenizerSource,
    splitter: Option<Splitter>,
    vocabulary: &Vocabulary,
    adds_space: bool,
) -> Result<(Algorithm, HashMap<String, u32>)> {
    if let Some(splitter) = splitter {
        let merges = std::mem::take(&mut source.merges);
        let (ordinary, others) = by_text(source.tokens, |id| vocabulary.kind(id) != Some(Kind::Control))?;
        return Ok((Algorithm::Bpe(Box::new(Bpe::new(splitter, ordinary, &merges)?)), others));
    }
    if source.model == "llama" {
        return sentencepiece(source, vocabulary, adds_space);
    }
    let (trie, others) = trie(&source, vocabulary)?;
    let unknown = source.unknown.ok_or_else(|| Error::format("the vocabulary has no unknown token"))?;
    let algorithm = if source.model == "bert" {
        let lowercase = source.lowercase.unwrap_or(true);
        let strip_accents = source.strip_accents.unwrap_or(lowercase);
        Algorithm::WordPiece(WordPiece::new(trie, unknown, lowercase, strip_accents)?)
    } else {
        Algorithm::Unigram(unigram(source, trie, unknown, adds_space)?)
    };
    Ok((algorithm, others))
}

/// Holds memory ready for the tables of a vocabulary, which `tokenizers` builds with infallible allocations, and for the
/// compiled patterns.
fn hold_tables(source: &TokenizerSource) -> Result<Option<Hold>> {
    let texts: usize = source.tokens.iter().chain(&source.merges).map(String::len).sum();
    let entries = source.tokens.len() + source.merges.len();
    let tables = texts.saturating_mul(TEXT_COPIES).saturating_add(entries.saturating_mul(TABLE_BYTES));
    held(tables.saturating_add(PATTERN_BYTES), VOCABULARY)
}

fn twice(first: u32, id: u32, text: &str) -> Error {
    Error::format(format!("tokens {first} and {id} are both {}", quoted(text)))
}

/// Ids by text, in two maps: the tokens that encoding may make of plain text, and the others. Tokens without text are in
/// neither.
fn by_text(tokens: Vec<String>, is_text: impl Fn(u32) -> bool) -> Result<(Vocab, HashMap<String, u32>)> {
    let mut ordinary = Vocab::with_capacity(tokens.len());
    let mut others = HashMap::new();
    for (id, text) in (0_u32..).zip(tokens).filter(|(_, text)| !text.is_empty()) {
        let (first, other) = if is_text(id) {
            (ordinary.insert(text.clone(), id), others.get(&text).copied())
        } else {
            (others.insert(text.clone(), id), ordinary.get(&text).copied())
        };
        if let Some(first) = first.or(other) {
            return Err(twice(first, id, &text));
        }
    }
    Ok((ordinary, others))
}

/// Whether SentencePiece and WordPiece may make this token of plain text.
fn in_text(vocabulary: &Vocabulary, id: u32) -> bool {
    matches!(vocabulary.kind(id), Some(Kind::Normal | Kind::UserDefined))
}

/// As [`by_text`], with a tree for the tokens of plain text.
fn trie(source: &TokenizerSource, vocabulary: &Vocabulary) -> Result<(Trie, HashMap<String, u32>)> {
    let mut ordinary = with_room(source.tokens.len(), VOCABULARY)?;
    let mut others = HashMap::new();
    for (id, text) in (0_u32..).zip(&source.tokens).filter(|(_, text)| !text.is_empty()) {
        if in_text(vocabulary, id) {
            ordinary.push((text.as_str(), id));
        } else if let Some(first) = others.insert(copied_text(text, VOCABULARY)?, id) {
            return Err(twice(first, id, text));
        }
    }
    let trie = Trie::new(ordinary)?;
    for (text, &id) in &others {
        if let Some(first) = trie.id(text) {
            return Err(twice(first, id, text));
        }
    }
    Ok((trie, others))
}

fn no_scores() -> Error {
    Error::format("the vocabulary has no scores (tokenizer.ggml.scores)")
}

fn sentencepiece(
    source: TokenizerSource,
    vocabulary: &Vocabulary,
    add_space_prefix: bool,
) -> Result<(Algorithm, HashMap<String, u32>)> {
    let mut scores = source.scores;
    if scores.is_empty() {
        return Err(no_scores());
    }
    // -0 and 0 are equal.
    scores.iter_mut().for_each(|score| *score += 0.0);
    let mut bytes = [None; 256];
    for (id, byte) in (0_u32..).zip(&source.tokens).filter_map(|(id, text)| Some((id, byte_named(text)?))) {
        bytes[usize::from(byte)] = Some(id);
    }
    let (vocab, others) = by_text(source.tokens, |id| in_text(vocabulary, id))?;
    let unknown = source.unknown;
    let built = SentencePiece { vocab, scores, bytes, unknown, add_space_prefix };
    Ok((Algorithm::SentencePiece(Box::new(built)), others))
}

fn unigram(source: TokenizerSource, trie: Trie, unknown: u32, add_space_prefix: bool) -> Result<Unigram> {
    let mut scores = source.scores;
    if scores.is_empty() {
        return Err(no_scores());
    }
    let type_of = |id: usize| source.token_types.get(id).copied().unwrap_or(1);
    let normal = scores.iter().enumerate().filter(|&(id, _)| type_of(id) == 1).map(|(_, &score)| score);
    let unknown_score = normal.fold(f32::MAX, f32::min) - UNKNOWN_PENALTY;
    for (_, score) in scores.iter_mut().enumerate().filter(|&(id, _)| type_of(id) == 4) {
        *score = 0.0;
    }
    let rules = &source.precompiled_charsmap;
    let charsmap = (!rules.is_empty()).then(|| Charsmap::new(rules)).transpose()?;
    let remove_extra_whitespaces = source.remove_extra_whitespaces;
    Ok(Unigram { trie, scores, unknown, unknown_score, charsmap, add_space_prefix, remove_extra_whitespaces })
}
