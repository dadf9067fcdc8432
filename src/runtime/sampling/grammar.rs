//! Grammars as masks: the text matches a JSON schema, a regular expression or a Lark grammar. The work is `llguidance`'s.
//! A [`Grammars`] knows a model's tokens and compiles any number of them; a [`Grammar`] follows one text.

use super::mask::{Mask, TokenSet};
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Longest text of a grammar in bytes.
pub const MAX_GRAMMAR_BYTES: usize = 1 << 20;
/// Most brackets of a grammar within one another.
pub const MAX_GRAMMAR_DEPTH: usize = 100;

/// Longest token in bytes that a grammar allows: the trie of tokens takes none above 1024.
const MAX_TOKEN_BYTES: usize = 1000;
/// Most tokens of a vocabulary, for the same reason.
const MAX_TOKENS: usize = 2 << 20;

/// The language of a grammar's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrammarKind {
    /// A JSON schema: the text is a JSON value that it holds for.
    JsonSchema,
    /// A regular expression in the syntax of the crate `regex`, without look-around, for the whole text.
    Regex,
    /// A context-free grammar in llguidance's variant of Lark's syntax.
    Lark,
}

impl GrammarKind {
    fn name(self) -> &'static str {
        match self {
            GrammarKind::JsonSchema => "the JSON schema",
            GrammarKind::Regex => "the regular expression",
            GrammarKind::Lark => "the grammar",
        }
    }

    fn tag(self) -> &'static str {
        match self {
            GrammarKind::JsonSchema => "json_schema",
            GrammarKind::Regex => "regex",
            GrammarKind::Lark => "lark",
        }
    }
}

/// Compiles grammars for the tokens of one model. Making it takes about as long as reading the vocabulary; threads may share
/// it.
pub struct Grammars {
    factory: ParserFactory,
    ends: Arc<[u32]>,
    /// Whether forced bytes have one way to be tokens, so that [`Mask::forced`] finds some.
    canonical: bool,
    n_vocab: u32,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").field("canonical", &self.canonical).finish_non_exhaustive()
    }
}

impl Grammars {
    /// For the model's vocabulary.
    ///
    /// # Errors
    /// Those of [`Model::tokenizer`]; [`Error::Unsupported`] for a vocabulary without a token that ends a text, or with more
    /// than 2,097,152 tokens.
    pub fn new(model: Arc<Model>) -> Result<Self> {
        let env = Env::new(model)?;
        let (ends, canonical) = (env.trie.eos_tokens().into(), env.canonical);
        let n_vocab = env.trie.vocab_size() as u32;
        let env: TokEnv = Arc::new(env);
        let slices = SlicedBiasComputer::json_slices();
        let made = catch_unwind(AssertUnwindSafe(|| {
            ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
        }));
        let mut factory = made.map_err(|error| Error::Unsupported(first_line(&error)))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { factory, ends, canonical, n_vocab })
    }

    /// A grammar at the beginning of a text.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], with llguidance's message, for a text that isn't one of that kind, uses what llguidance
    /// doesn't support, allows no text at all, or is too large: above [`MAX_GRAMMAR_BYTES`] or [`MAX_GRAMMAR_DEPTH`], or
    /// beyond the limits that docs/sampling.md has.
    pub fn compile(&self, kind: GrammarKind, text: &str) -> Result<Grammar> {
        let wrong = |what: String| Error::invalid(format!("{}: {what}", kind.name()));
        if text.len() > MAX_GRAMMAR_BYTES {
            return Err(wrong(format!("{} bytes; at most {MAX_GRAMMAR_BYTES} are taken", text.len())));
        }
        if depth(text) > MAX_GRAMMAR_DEPTH {
            return Err(wrong(format!("more than {MAX_GRAMMAR_DEPTH} brackets within one another")));
        }
        let parser = catch_unwind(AssertUnwindSafe(|| {
            self.factory.create_parser(TopLevelGrammar::from_tagged_str(kind.tag(), text)?)
        }));
        let fresh = Matcher::new(Ok(parser.map_err(|error| wrong(first_line(&error)))?));
        let matcher = fresh.clone();
        let (ends, canonical) = (self.ends.clone(), self.canonical);
        let mut grammar = Grammar {
            fresh,
            matcher,
            ends,
            canonical,
            n_vocab: self.n_vocab,
            text: Vec::new(),
            consumed: 0,
            pending: VecDeque::new(),
            run_ends: vec![0],
        };
        // A grammar that allows nothing is found here, not in the middle of a generation.
        grammar.fill()?;
        if grammar.pending.is_empty() && !grammar.matcher.is_stopped() {
            grammar.matcher.compute_mask().map_err(|error| wrong(first_line(&error)))?;
            grammar.matcher = grammar.fresh.clone();
        }
        Ok(grammar)
    }
}

/// What a hostile grammar can cost, at most: about 20 ms for the first lexer, 15 ms for a mask, 100 MB of lexer states.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 50_000,
        max_grammar_size: 250_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// The text that follows a grammar: a stage of a sampler's chain.
pub struct Grammar {
    /// At the beginning of a text.
    fresh: Matcher,
    matcher: Matcher,
    /// Tokens that end a text.
    ends: Arc<[u32]>,
    canonical: bool,
    n_vocab: u32,
    /// All accepted tokens.
    text: Vec<u32>,
    /// Tokens of the text that `matcher` has: not those behind the end of the grammar.
    consumed: usize,
    /// Tokens that must come next.
    pending: VecDeque<u32>,
    /// For each beginning of `text`, the length of the text at which the tokens that were forced then end; 0 for none.
    run_ends: Vec<usize>,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").field("tokens", &self.text.len()).finish_non_exhaustive()
    }
}

impl Grammar {
    /// Whether the text is complete: it may end here, or must.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the grammar has failed.
    pub fn is_complete(&mut self) -> Result<bool> {
        Ok(self.has_ended()? || self.matcher.is_accepting().map_err(failed)?)
    }

    /// Whether nothing but the end may follow.
    fn has_ended(&self) -> Result<bool> {
        if let Some(message) = self.matcher.get_error() {
            return Err(failed(message));
        }
        Ok(self.matcher.is_stopped())
    }

    /// Finds out which tokens must come next.
    fn fill(&mut self) -> Result<()> {
        if self.pending.is_empty() && self.canonical && !self.has_ended()? {
            self.pending.extend(self.matcher.compute_ff_tokens());
            self.has_ended()?;
            if !self.pending.is_empty() {
                self.run_ends[self.text.len()] = self.text.len() + self.pending.len();
            }
        }
        Ok(())
    }

    /// Brings `matcher` to the first `len` tokens of the text.
    fn go_back(&mut self, len: usize) {
        if self.matcher.rollback(self.consumed - len).is_err() {
            // A failed matcher can't go back: the text is parsed once more.
            self.matcher = self.fresh.clone();
            let _ = self.matcher.consume_tokens(&self.text[..len]);
        }
        self.consumed = len;
    }
}

impl Mask for Grammar {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
        if self.has_ended()? {
            self.ends.iter().for_each(|&end| allowed.insert(end));
            return Ok(());
        }
        self.fill()?;
        match self.pending.front() {
            Some(&next) => allowed.insert(next),
            None => allowed.insert_bits(self.matcher.compute_mask().map_err(failed)?.as_slice()),
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        let refused = || Error::invalid(format!("the grammar doesn't allow token {token} here"));
        if token >= self.n_vocab {
            return Err(refused());
        }
        if self.has_ended()? {
            if !self.ends.contains(&token) {
                return Err(refused());
            }
        } else {
            if self.matcher.try_consume_tokens(&[token]).map_err(failed)? == 0 {
                return Err(refused());
            }
            self.consumed += 1;
        }
        self.text.push(token);
        let mut run_end = 0;
        if self.pending.pop_front() != Some(token) {
            self.pending.clear();
        } else if !self.pending.is_empty() {
            run_end = self.text.len() + self.pending.len();
        }
        self.run_ends.push(run_end);
        Ok(())
    }

    fn rollback(&mut self, n: usize) {
        let (len, new) = (self.text.len(), self.text.len().saturating_sub(n));
        if n == 0 || len == 0 {
            return;
        }
        // What was forced there is so again: the rest of the run, of which some tokens may be pending still.
        let end = self.run_ends[new];
        if end > len && self.run_ends[len] != end {
            // The text left the run.
            self.pending.clear();
        } else {
            self.pending.truncate(end.saturating_sub(len));
            self.text[new..len.min(end.max(new))]
                .iter()
                .rev()
                .for_each(|&token| self.pending.push_front(token));
        }
        if new < self.consumed {
            self.go_back(new);
        }
        self.text.truncate(new);
        self.run_ends.truncate(new + 1);
    }

    fn reset(&mut self) {
        if self.text.is_empty() && self.matcher.get_error().is_none() {
            return;
        }
        self.matcher = self.fresh.clone();
        self.text.clear();
        self.consumed = 0;
        self.pending.clear();
        self.run_ends.clear();
        self.run_ends.push(0);
    }

    fn forced(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        if !self.has_ended()? {
            self.fill()?;
            tokens.extend(&self.pending);
        }
        Ok(())
    }
}

/// A model's tokens as llguidance sees them.
struct Env {
    model: Arc<Model>,
    trie: TokTrie,
    canonical: bool,
}

impl Env {
    fn new(model: Arc<Model>) -> Result<Self> {
        let tokenizer = model.tokenizer()?;
        let tokens = 0..tokenizer.vocab_size() as u32;
        let ends: Vec<u32> = tokens.clone().filter(|&token| tokenizer.is_end_of_generation(token)).collect();
        let unsupported = |what: &str| Error::Unsupported(format!("constrained text: {what}"));
        if ends.is_empty() {
            return Err(unsupported("the vocabulary has no token that ends a text"));
        }
        if tokens.len() > MAX_TOKENS {
            return Err(unsupported("the vocabulary is too large"));
        }
        let words = tokens.map(|token| word(tokenizer, token)).collect::<Result<Vec<_>>>()?;
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let trie = catch_unwind(AssertUnwindSafe(|| Ok(TokTrie::from(&info, &words).with_eos_tokens(&ends))));
        let trie = trie.map_err(|error| unsupported(&first_line(&error)))?;
        let canonical = ["{\"a\": 1}", " x", "true"].iter().all(|text| encode(tokenizer, text).is_some());
        Ok(Self { model, trie, canonical })
    }
}

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            let tokens = self.model.tokenizer().ok().and_then(|tokenizer| encode(tokenizer, text));
            tokens.unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}

/// The tokens of a text, if they are the text again: some tokenizers put a space in front, change letters, or drop some.
fn encode(tokenizer: &Tokenizer, text: &str) -> Option<Vec<u32>> {
    let tokens = tokenizer.encode(text, false, false).ok()?;
    let mut bytes = Vec::new();
    tokenizer.decode_bytes(&tokens, false, &mut bytes).ok()?;
    (bytes == text.as_bytes()).then_some(tokens)
}

/// The bytes of a token for the trie. Tokens that aren't text have a mark in front; those that are too long have none, so
/// that no grammar allows them.
fn word(tokenizer: &Tokenizer, token: u32) -> Result<Vec<u8>> {
    let bytes = tokenizer.token_bytes(token)?;
    if bytes.len() > MAX_TOKEN_BYTES {
        return Ok(Vec::new());
    }
    let is_special = tokenizer.is_control(token) || tokenizer.is_end_of_generation(token);
    let mut word = Vec::with_capacity(bytes.len() + 1);
    word.extend(is_special.then_some(TokTrie::SPECIAL_TOKEN_MARKER));
    word.extend_from_slice(bytes);
    Ok(word)
}

/// The most brackets within one another, wherever they stand: those in texts count too.
fn depth(text: &str) -> usize {
    let (mut depth, mut most) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::invalid(first_line(&error))
}

/// The message, without the backtrace or the remark that may follow.
fn first_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let line = text.split("\n<").next().unwrap_or(&text);
    crate::text::escaped(crate::text::shortened(line.trim_end(), 1000)).to_string()
}
