//! The sequences of an engine: how they begin, share pages, go back and end, and the counts of pages by which a scheduler
//! decides what runs.

use super::Engine;
#[cfg(doc)]
use super::EngineParams;
use crate::error::{Error, Result};
#[cfg(doc)]
use crate::kv::Cache;
use crate::kv::{Pages, SequenceId};

impl Engine {
    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where [`EngineParams::n_sequences`] sequences exist already.
    pub fn create(&mut self) -> Result<SequenceId> {
        self.cache.create()
    }

    /// Removes a sequence; its pages are free for other sequences.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn remove(&mut self, sequence: SequenceId) -> Result<()> {
        self.cache.remove(sequence)
    }

    /// A new sequence with the first `n` positions of another one. Both share the pages of these positions: what they take
    /// together is what one takes, and a page more once one of them goes on, where `n` ends within a page. The new
    /// sequence gets the same bits as if it had been computed alone. The last pass's output stays.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the sequence has fewer positions or doesn't exist; where a layer with a window has
    /// released positions that the token at position `n` sees; where the model has recurrent layers, `n` is not the
    /// sequence's length, and no copy of their state at `n` was kept ([`Engine::keep`]); where sequences are decoded as a
    /// whole; and where [`EngineParams::n_sequences`] sequences exist already. Nothing has changed then.
    pub fn fork(&mut self, sequence: SequenceId, n: usize) -> Result<SequenceId> {
        if n > 0 && self.needs_whole() {
            return Err(Error::invalid("a sequence that is decoded as a whole has no beginning to share"));
        }
        self.cache.fork(sequence, n)
    }

    /// Number of positions that [`Engine::create_with_prefix`] would find for these tokens.
    pub fn known_prefix(&self, tokens: &[u32]) -> usize {
        self.cache.known_prefix(tokens)
    }

    /// A new sequence for these tokens, and the number of positions that it has already: the longest run of whole pages
    /// (of [`PAGE`](crate::kv::PAGE) positions) with the same tokens that the index of prefixes knows, at most
    /// `tokens.len() - 1` positions. The host goes on with the token at this position. Bits are the same as if all had been
    /// computed for this sequence.
    ///
    /// 0 positions are found where the engine has no index ([`EngineParams::prefix_index`]), for models with recurrent
    /// layers, and where a layer with a window doesn't have the pages any more that the next token sees.
    ///
    /// # Errors
    /// As [`Engine::create`].
    pub fn create_with_prefix(&mut self, tokens: &[u32]) -> Result<(SequenceId, usize)> {
        self.cache.create_with_prefix(tokens)
    }

    /// Tells the index of prefixes the tokens of a sequence, from position 0 on: its whole pages are found by later
    /// sequences with the same beginning, also after this one was removed, until other sequences need the memory; the
    /// least recently used pages go first. Where another sequence has the same pages already, this one shares them and
    /// frees its own. It costs little while no further page is whole, so a scheduler may call it after each pass; in a
    /// model with windows, prefixes can only be found that end where it was called, or up to a window before.
    ///
    /// Nothing is done without an index, and for models with recurrent layers.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist. Tokens other than those that the positions were
    /// computed from aren't noticed, and spoil later sequences.
    pub fn index_prefix(&mut self, sequence: SequenceId, tokens: &[u32]) -> Result<()> {
        if self.needs_whole() {
            return Ok(());
        }
        self.cache.index_prefix(sequence, tokens)
    }

    /// [`Engine::index_prefix`], then [`Engine::remove`].
    ///
    /// # Errors
    /// As [`Engine::index_prefix`].
    pub fn release_to_index(&mut self, sequence: SequenceId, tokens: &[u32]) -> Result<()> {
        self.index_prefix(sequence, tokens)?;
        self.remove(sequence)
    }

    /// Empties the index of prefixes: for a host that changed what keys and values depend on.
    pub fn clear_prefixes(&mut self) {
        self.cache.clear_prefixes();
    }

    /// The pages of the cache: all of them, and those by which sequences can grow.
    pub fn pages(&self) -> Pages {
        self.cache.pages()
    }

    /// Pages of [`Pages::free`] that a sequence takes to grow by `rows` positions. A batch whose sequences together take no
    /// more than are free doesn't run out of pages. (It may take one less for each page that is shared by sequences that
    /// all grow.)
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist; [`Error::ContextFull`] where it has no room for so
    /// many positions.
    pub fn pages_needed(&self, sequence: SequenceId, rows: usize) -> Result<usize> {
        self.cache.pages_needed(sequence, rows)
    }

    /// Pages that become free when a sequence is removed: those that it shares with no other sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn pages_freed(&self, sequence: SequenceId) -> Result<usize> {
        self.cache.pages_freed(sequence)
    }

    /// Whether sequences are decoded as a whole, in one span.
    pub(super) fn needs_whole(&self) -> bool {
        self.one_span || !self.is_causal()
    }

    /// Truncates a sequence to its first `n` positions, and discards the output of the last pass.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as [`Cache::rewind`]; nothing has changed then.
    pub fn rewind(&mut self, sequence: SequenceId, n: usize) -> Result<()> {
        self.cache.rewind(sequence, n)?;
        self.n_rows = 0;
        Ok(())
    }

    /// Whether sequences have a state of fixed size, of recurrent layers: then a sequence can only be rewound to position
    /// 0 and to where its state was copied ([`Engine::keep`]).
    pub fn has_state(&self) -> bool {
        self.plan().state_bytes > 0
    }

    /// Copies a sequence's state, so that it can be rewound to its current position. The copy replaces an earlier one.
    /// It does nothing for a model without recurrent layers.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn keep(&mut self, sequence: SequenceId) -> Result<()> {
        self.cache.keep(sequence)
    }

    /// The position of the copy of a sequence's state ([`Engine::keep`]), if there is one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn kept(&self, sequence: SequenceId) -> Result<Option<usize>> {
        self.cache.kept(sequence)
    }

    /// Number of positions of a sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn len(&self, sequence: SequenceId) -> Result<usize> {
        self.cache.len(sequence)
    }
}
