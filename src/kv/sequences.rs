//! What a cache knows of a sequence: how long it is and which pages it holds.

use super::pages::BlockTable;
use crate::error::Result;

/// Names a sequence of a cache; one that was removed is no other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId {
    pub(super) slot: u32,
    pub(super) serial: u32,
}

/// A place for a sequence.
pub(super) struct Sequence {
    pub alive: bool,
    /// Rises with each sequence that has the place.
    pub serial: u32,
    /// Positions filled.
    pub len: usize,
    /// Positions that a pass adds.
    pub growing: usize,
    /// One a group.
    pub tables: Vec<BlockTable>,
}

impl Sequence {
    pub fn new(groups: usize, entries: usize) -> Result<Self> {
        let tables = (0..groups).map(|_| BlockTable::new(entries)).collect::<Result<_>>()?;
        Ok(Sequence { alive: false, serial: 0, len: 0, growing: 0, tables })
    }
}
