//! Masks: what constrains a text token by token, such as a grammar or a list of words.
//! A mask is asked for the tokens that may come next, told of the one that came, and can be taken back.

use super::cut::Candidate;
use crate::{Error, Result};

/// Says which tokens may come next in a text. A stage of a sampler's chain ([`super::Stage::Mask`]).
///
/// Its state follows from the tokens that it was told of since the last reset, and nothing else. A token that ends
/// the text has to be allowed as any other one where the text may end.
pub trait Mask: Send {
    /// Puts into `allowed`, which comes empty, all tokens that may come next.
    ///
    /// # Errors
    /// What keeps the mask from knowing; the sampler passes it on.
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()>;

    /// Appends a token to the text.
    ///
    /// # Errors
    /// For one that may not come next. The mask has not changed then.
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Takes back the last `n` tokens, which were accepted since the last reset. `n` is at most
    /// [`super::MAX_ROLLBACK`].
    fn rollback(&mut self, n: usize);

    /// Takes back all tokens.
    fn reset(&mut self);
}

/// A set of tokens of a vocabulary: a bit for each.
pub struct TokenSet {
    words: Vec<u64>,
    n_vocab: usize,
}

impl TokenSet {
    /// No token, of a vocabulary of `n_vocab`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(n_vocab: usize) -> Result<Self> {
        let n_words = n_vocab.div_ceil(64);
        let mut words = Vec::new();
        let no_room = |_| Error::OutOfMemory { bytes: n_words.saturating_mul(8), what: "a set of tokens" };
        words.try_reserve_exact(n_words).map_err(no_room)?;
        words.resize(n_words, 0);
        Ok(Self { words, n_vocab })
    }

    /// Tokens of the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Whether the token is in the set.
    pub fn contains(&self, token: u32) -> bool {
        self.words.get(token as usize / 64).is_some_and(|word| word >> (token % 64) & 1 == 1)
    }

    /// Puts a token in. One outside the vocabulary is left out.
    pub fn insert(&mut self, token: u32) {
        if (token as usize) < self.n_vocab {
            self.words[token as usize / 64] |= 1 << (token % 64);
        }
    }

    /// Takes a token out.
    pub fn remove(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 64) {
            *word &= !(1 << (token % 64));
        }
    }

    /// Puts all tokens in.
    pub fn insert_all(&mut self) {
        self.words.fill(u64::MAX);
        if let Some(last) = self.words.last_mut()
            && !self.n_vocab.is_multiple_of(64)
        {
            *last = (1 << (self.n_vocab % 64)) - 1;
        }
    }

    /// Takes all tokens out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }
}

/// Keeps the candidates that the mask allows; `allowed` is room for its answer.
pub(super) fn apply(
    mask: &mut dyn Mask,
    allowed: &mut TokenSet,
    candidates: &mut Vec<Candidate>,
) -> Result<()> {
    allowed.clear();
    mask.allow(allowed)?;
    candidates.retain(|candidate| allowed.contains(candidate.id()));
    if candidates.is_empty() {
        return Err(Error::invalid("the mask allows none of the tokens that are left to pick from"));
    }
    Ok(())
}
