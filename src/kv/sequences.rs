//! A cache's record of a sequence: its length and its pages.

use super::WHAT;
use super::pages::BlockTable;
use crate::error::Result;
use crate::memory::reserve::collected;

/// Names a sequence of a cache. The id of a removed sequence is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId {
    pub(super) slot: u32,
    pub(super) serial: u32,
}

/// A place for a sequence.
pub(super) struct Sequence {
    pub alive: bool,
    /// Counts the sequences that have used this place.
    pub serial: u32,
    /// Filled positions.
    pub len: usize,
    /// Positions that the current pass adds.
    pub growing: usize,
    /// Pages of tokens that the index of prefixes has been told.
    pub indexed: usize,
    /// Most pages of tokens that it may be told: those behind them depend on tokens that were removed.
    pub told_most: usize,
    /// One for each group.
    pub tables: Vec<BlockTable>,
}

impl Sequence {
    pub fn new(groups: usize, entries: usize) -> Result<Self> {
        let tables = collected((0..groups).map(|_| BlockTable::new(entries)), WHAT)?;
        Ok(Sequence {
            alive: false,
            serial: 0,
            len: 0,
            growing: 0,
            indexed: 0,
            told_most: usize::MAX,
            tables,
        })
    }
}
