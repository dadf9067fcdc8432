//! The pool of a group's pages, and the block tables with the pages of each sequence.

use super::{Group, TOO_LARGE, WHAT};
use crate::error::Result;
use crate::kernels::attention::NO_PAGE;
use crate::memory::reserve::with_room;
use crate::memory::{AlignedBuf, checked_bytes};
use crate::ops::attention::LayerCache;

/// The pages of one group.
pub(super) struct Pool {
    group: Group,
    /// Bytes of one head's part of a page, and of a whole page.
    head_page: usize,
    page: usize,
    /// Owns the memory that `first` points to.
    _memory: AlignedBuf,
    first: *mut u8,
    /// Free pages; the last one is allocated next.
    free: Vec<u32>,
}

// SAFETY: `first` points into `_memory`, which moves with the pool and may be used from any thread.
unsafe impl Send for Pool {}
// SAFETY: a shared pool only computes addresses from `first`. Reading or writing there takes an unsafe function, whose
// contract excludes data races.
unsafe impl Sync for Pool {}

/// The pages of a sequence in one group: entry i has the positions from i · TILE on.
pub(super) struct BlockTable {
    pages: Vec<u32>,
    /// The first entry with a page.
    first: usize,
}

impl BlockTable {
    /// An empty table with room for `entries`.
    pub fn new(entries: usize) -> Result<Self> {
        Ok(BlockTable { pages: with_room(entries, WHAT)?, first: 0 })
    }

    /// The first entry with a page, or the number of entries if none has a page.
    pub fn first(&self) -> usize {
        self.first
    }
}

impl Pool {
    pub fn new(group: Group, pages: usize) -> Result<Self> {
        let (head_page, page) = group.page_bytes()?;
        let count = u32::try_from(pages).map_err(|_| TOO_LARGE)?;
        let mut free = with_room(pages, WHAT)?;
        free.extend((0..count).rev());
        let mut memory = AlignedBuf::zeroed(checked_bytes(pages, page, WHAT)?, WHAT)?;
        let first = memory.as_mut_ptr();
        Ok(Pool { group, head_page, page, _memory: memory, first, free })
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Extends a table to `entries`; false if the pages run out, after some may have been allocated.
    pub fn extend(&mut self, table: &mut BlockTable, entries: usize) -> bool {
        while table.pages.len() < entries {
            let Some(page) = self.free.pop() else { return false };
            table.pages.push(page);
        }
        true
    }

    /// Shortens a table to `entries` and frees the other pages.
    pub fn truncate(&mut self, table: &mut BlockTable, entries: usize) {
        while table.pages.len() > entries {
            self.free.extend(table.pages.pop().filter(|&page| page != NO_PAGE));
        }
        table.first = table.first.min(entries);
    }

    /// Frees the pages before an entry.
    pub fn release_before(&mut self, table: &mut BlockTable, entry: usize) {
        let end = entry.min(table.pages.len());
        for page in &mut table.pages[table.first.min(end)..end] {
            self.free.push(std::mem::replace(page, NO_PAGE));
        }
        table.first = table.first.max(end);
    }

    /// The keys and values of a layer in the pages of a table. A group may have fewer layers than the model, which use
    /// the last one's memory one after the other.
    pub fn layer(&self, layer: usize, table: &BlockTable) -> LayerCache {
        let layer = layer.min(self.group.layers - 1);
        LayerCache {
            first: self.first.wrapping_add(layer * self.group.n_head_kv * self.head_page),
            head_stride: self.head_page,
            page_stride: self.page,
            table: table.pages.as_ptr(),
            layout: self.group.layout,
        }
    }
}
