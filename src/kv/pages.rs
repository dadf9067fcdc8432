//! A pool of pages of one group, and the block tables that say which pages a sequence holds.

use super::{Group, TOO_LARGE, WHAT};
use crate::error::{Error, Result};
use crate::kernels::attention::NO_PAGE;
use crate::memory::{AlignedBuf, checked_bytes};
use crate::ops::attention::LayerCache;

/// The pages of one group.
pub(super) struct Pool {
    group: Group,
    /// Bytes of a page in one head, and in all of all layers.
    head_page: usize,
    page: usize,
    /// Keeps what `first` points to.
    _memory: AlignedBuf,
    first: *mut u8,
    /// Pages that nobody holds; the last is handed out next.
    free: Vec<u32>,
}

// SAFETY: the address is that of the buffer it holds; a pool itself reads and writes none of it, and ops keep their
// accesses apart.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// The pages of a sequence in one group: entry i holds positions from i · TILE on.
pub(super) struct BlockTable {
    pages: Vec<u32>,
    /// The first entry that has a page.
    first: usize,
}

impl BlockTable {
    /// An empty one, with room for so many entries.
    pub fn new(entries: usize) -> Result<Self> {
        let mut pages = Vec::new();
        let bytes = entries.saturating_mul(size_of::<u32>());
        pages.try_reserve_exact(entries).map_err(|_| Error::OutOfMemory { bytes, what: WHAT })?;
        Ok(BlockTable { pages, first: 0 })
    }

    /// The first entry that has a page; as many as there are entries where none has.
    pub fn first(&self) -> usize {
        self.first
    }
}

impl Pool {
    pub fn new(group: Group, pages: usize) -> Result<Self> {
        let (head_page, page) = group.page_bytes()?;
        let count = u32::try_from(pages).map_err(|_| TOO_LARGE)?;
        let mut free = Vec::new();
        let bytes = pages.saturating_mul(size_of::<u32>());
        free.try_reserve_exact(pages).map_err(|_| Error::OutOfMemory { bytes, what: WHAT })?;
        free.extend((0..count).rev());
        let mut memory = AlignedBuf::zeroed(checked_bytes(pages, page, WHAT)?, WHAT)?;
        let first = memory.as_mut_ptr();
        Ok(Pool { group, head_page, page, _memory: memory, first, free })
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Lengthens a table to so many entries; false where pages run out, which it may have taken some of then.
    pub fn extend(&mut self, table: &mut BlockTable, entries: usize) -> bool {
        while table.pages.len() < entries {
            let Some(page) = self.free.pop() else { return false };
            table.pages.push(page);
        }
        true
    }

    /// Shortens a table to so many entries.
    pub fn truncate(&mut self, table: &mut BlockTable, entries: usize) {
        while table.pages.len() > entries {
            self.free.extend(table.pages.pop().filter(|&page| page != NO_PAGE));
        }
        table.first = table.first.min(entries);
    }

    /// Takes back the pages before an entry.
    pub fn release_before(&mut self, table: &mut BlockTable, entry: usize) {
        let end = entry.min(table.pages.len());
        for page in &mut table.pages[table.first.min(end)..end] {
            self.free.push(std::mem::replace(page, NO_PAGE));
        }
        table.first = table.first.max(end);
    }

    /// The keys and values of a layer in the pages of a table.
    pub fn layer(&self, layer: usize, table: &BlockTable) -> LayerCache {
        LayerCache {
            first: self.first.wrapping_add(layer * self.group.n_head_kv * self.head_page),
            head_stride: self.head_page,
            page_stride: self.page,
            table: table.pages.as_ptr(),
            layout: self.group.layout,
        }
    }
}
