//! Masks constrain a text token by token: a grammar, a list of words.
//! A mask says which tokens may come next, is told which one came, and can be rolled back.

use super::cut::Candidate;
use crate::memory::reserve::filled;
use crate::{Error, Result};

/// A rule for the tokens that may come next in a text: a stage of a sampler's chain ([`super::Stage::Mask`]).
///
/// Its state depends only on the tokens accepted since the last reset. Where the text may end, the mask allows a token
/// that ends the text, as it allows any other token.
pub trait Mask: Send {
    /// Inserts all tokens that may come next into `allowed`, which is empty at first.
    ///
    /// # Errors
    /// Any error of the mask; the sampler returns it.
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()>;

    /// Appends a token to the text.
    ///
    /// # Errors
    /// For a token that may not come next. The mask has not changed then.
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Takes back the last `n` accepted tokens; at least `n` were accepted since the last reset. `n` is at most
    /// [`super::MAX_ROLLBACK`].
    fn rollback(&mut self, n: usize);

    /// Takes back all tokens.
    fn reset(&mut self);

    /// Appends to `tokens` those that follow whatever the logits are, because the mask will allow only one token each
    /// time; a mask need not find them all. They are not accepted yet. [`Generation`](super::super::generation::Generation)
    /// decodes them in one batch.
    ///
    /// # Errors
    /// Any error of the mask.
    fn forced(&mut self, _tokens: &mut Vec<u32>) -> Result<()> {
        Ok(())
    }
}

/// A set of tokens of a vocabulary, with a bit for each token.
pub struct TokenSet {
    words: Vec<u64>,
    n_vocab: usize,
}

impl std::fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count: u32 = self.words.iter().map(|word| word.count_ones()).sum();
        write!(f, "TokenSet of {count} tokens out of {}", self.n_vocab)
    }
}

impl TokenSet {
    /// The empty set of tokens of a vocabulary of `n_vocab`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(n_vocab: usize) -> Result<Self> {
        Ok(Self { words: filled(0, n_vocab.div_ceil(64), "a set of tokens")?, n_vocab })
    }

    /// Number of tokens in the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Whether the token is in the set.
    pub fn contains(&self, token: u32) -> bool {
        self.words.get(token as usize / 64).is_some_and(|word| word >> (token % 64) & 1 == 1)
    }

    /// Inserts a token; a token outside the vocabulary is ignored.
    pub fn insert(&mut self, token: u32) {
        if (token as usize) < self.n_vocab {
            self.words[token as usize / 64] |= 1 << (token % 64);
        }
    }

    /// Removes a token.
    pub fn remove(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 64) {
            *word &= !(1 << (token % 64));
        }
    }

    /// Inserts all tokens.
    pub fn insert_all(&mut self) {
        self.words.fill(u64::MAX);
        if let Some(last) = self.words.last_mut()
            && !self.n_vocab.is_multiple_of(64)
        {
            *last = (1 << (self.n_vocab % 64)) - 1;
        }
    }

    /// Inserts the tokens whose bits are set, of words of 32 bits; others stay as they are.
    #[cfg(feature = "grammar")]
    pub(super) fn insert_bits(&mut self, bits: &[u32]) {
        for (word, pair) in self.words.iter_mut().zip(bits.chunks(2)) {
            *word |= u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32;
        }
        // The last word may have bits beyond the vocabulary.
        if let Some(last) = self.words.last_mut()
            && !self.n_vocab.is_multiple_of(64)
        {
            *last &= (1 << (self.n_vocab % 64)) - 1;
        }
    }

    /// Removes all tokens.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }
}

/// Fills `allowed` with the tokens that the mask allows; there is at least one.
fn ask(mask: &mut dyn Mask, allowed: &mut TokenSet) -> Result<()> {
    allowed.clear();
    mask.allow(allowed)?;
    if allowed.words.iter().all(|&word| word == 0) {
        return Err(none());
    }
    Ok(())
}

/// Keeps the candidates that the mask allows; `allowed` is scratch memory.
pub(super) fn apply(
    mask: &mut dyn Mask,
    allowed: &mut TokenSet,
    candidates: &mut Vec<Candidate>,
) -> Result<()> {
    ask(mask, allowed)?;
    candidates.retain(|candidate| allowed.contains(candidate.id()));
    if candidates.is_empty() { Err(none()) } else { Ok(()) }
}

/// Rules out the tokens that the mask doesn't allow, in a row of all logits; `allowed` is scratch memory. Returns the
/// only allowed token, if there is only one.
pub(super) fn edit(mask: &mut dyn Mask, allowed: &mut TokenSet, row: &mut [f32]) -> Result<Option<u32>> {
    ask(mask, allowed)?;
    for (&word, logits) in allowed.words.iter().zip(row.chunks_mut(64)) {
        match word {
            u64::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            _ => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }
    let mut words = allowed.words.iter().enumerate().filter(|&(_, &word)| word != 0);
    match (words.next(), words.next()) {
        (Some((at, word)), None) if word.is_power_of_two() => {
            Ok(Some(at as u32 * 64 + word.trailing_zeros()))
        }
        _ => Ok(None),
    }
}

fn none() -> Error {
    Error::invalid("the mask allows none of the tokens that are left to pick from")
}
