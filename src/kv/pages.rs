//! The pool of a group's pages, and the block tables with the pages of each sequence. A page may stand in the tables of
//! several sequences, and the index of prefixes may hold it too; it is free when neither is so.

use super::{Group, TILE, TOO_LARGE, WHAT};
use crate::error::Result;
use crate::kernels::attention::NO_PAGE;
use crate::memory::reserve::{filled, with_room};
use crate::memory::{AlignedBuf, checked_bytes};
use crate::ops::attention::LayerCache;

/// No node of the index.
pub(super) const NO_NODE: u32 = u32::MAX;

/// The pages of one group.
pub(super) struct Pool {
    group: Group,
    /// Bytes of one head's part of a page, and of a whole page.
    head_page: usize,
    page: usize,
    /// Owns the memory that `first` points to.
    memory: AlignedBuf,
    first: *mut u8,
    /// Free pages; the last one is allocated next.
    free: Vec<u32>,
    /// Tables that each page stands in.
    uses: Vec<u32>,
    /// The node of the index that holds each page, or [`NO_NODE`].
    holders: Vec<u32>,
    /// Pages that only the index holds.
    idle: usize,
    /// While a batch is reserved: pages that it takes, and how many of its sequences leave each page for a copy.
    wanted: usize,
    leaving: Vec<u32>,
}

// SAFETY: `first` points into `memory`, which moves with the pool and may be used from any thread.
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

    /// The page of each entry, or [`NO_PAGE`].
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// The page that has position `len - 1`, where `len` is the next position and lies in the same page.
    fn tail(&self, len: usize) -> Option<u32> {
        (!len.is_multiple_of(TILE)).then(|| self.pages[len / TILE])
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
        Ok(Pool {
            group,
            head_page,
            page,
            memory,
            first,
            free,
            uses: filled(0, pages, WHAT)?,
            holders: filled(NO_NODE, pages, WHAT)?,
            idle: 0,
            wanted: 0,
            leaving: filled(0, pages, WHAT)?,
        })
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    /// All pages.
    pub fn total(&self) -> usize {
        self.uses.len()
    }

    /// Pages of no table, those that the index holds included.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle
    }

    /// Pages that only the index holds.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Whether a page stands in no table.
    pub fn is_unused(&self, page: u32) -> bool {
        self.uses[page as usize] == 0
    }

    /// Whether a page stands in one table only.
    pub fn is_own(&self, page: u32) -> bool {
        self.uses[page as usize] == 1
    }

    /// The node of the index that holds a page.
    pub fn holder(&self, page: u32) -> Option<u32> {
        Some(self.holders[page as usize]).filter(|&node| node != NO_NODE)
    }

    /// A free page, for one table.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.uses[page as usize] = 1;
        Some(page)
    }

    /// Counts another table of a page.
    pub fn share(&mut self, page: u32) {
        let uses = &mut self.uses[page as usize];
        *uses += 1;
        // Only a page that the index holds is shared without being used.
        self.idle -= usize::from(*uses == 1);
    }

    /// Counts a table of a page less.
    fn leave(&mut self, page: u32) {
        let uses = &mut self.uses[page as usize];
        *uses -= 1;
        if *uses > 0 {
            return;
        }
        match self.holders[page as usize] {
            NO_NODE => self.free.push(page),
            _ => self.idle += 1,
        }
    }

    /// Lets a node of the index hold a page that stands in a table.
    pub fn hold(&mut self, page: u32, node: u32) {
        self.holders[page as usize] = node;
    }

    /// Ends a node's hold of a page.
    pub fn unhold(&mut self, page: u32) {
        self.holders[page as usize] = NO_NODE;
        if self.is_unused(page) {
            self.idle -= 1;
            self.free.push(page);
        }
    }

    /// Pages that a sequence of `len` positions needs to grow to `end`: new ones, and one for a copy of its last page
    /// where another sequence has that too.
    pub fn needed(&self, table: &BlockTable, len: usize, end: usize) -> usize {
        let new = end.div_ceil(TILE) - table.pages.len();
        new + usize::from(end > len && table.tail(len).is_some_and(|page| !self.is_own(page)))
    }

    /// Counts the pages that a batch takes for a sequence, as [`Pool::needed`] does, but considers that the batch's earlier
    /// sequences have left a shared page.
    pub fn want(&mut self, table: &BlockTable, len: usize, end: usize) {
        self.wanted += end.div_ceil(TILE) - table.pages.len();
        if let Some(page) = table.tail(len).map(|page| page as usize)
            && self.uses[page] - self.leaving[page] > 1
        {
            self.leaving[page] += 1;
            self.wanted += 1;
        }
    }

    /// Whether there are the pages that a batch takes.
    pub fn suffices(&self) -> bool {
        self.wanted <= self.available()
    }

    /// Forgets what [`Pool::want`] counted for a sequence.
    pub fn forget_wanted(&mut self, table: &BlockTable, len: usize) {
        self.wanted = 0;
        if let Some(page) = table.tail(len) {
            self.leaving[page as usize] = 0;
        }
    }

    /// The page that a sequence of `len` positions would write into next, if the page has positions already.
    pub fn tail(&self, table: &BlockTable, len: usize) -> Option<u32> {
        table.tail(len)
    }

    /// Replaces the page with position `len` by its copy in `page`, which [`Pool::take`] gave.
    pub fn copy_tail(&mut self, table: &mut BlockTable, len: usize, page: u32) {
        let from = std::mem::replace(&mut table.pages[len / TILE], page);
        let (begin, to) = (from as usize * self.page, page as usize * self.page);
        self.memory.as_mut_slice::<u8>().copy_within(begin..begin + self.page, to);
        self.leave(from);
    }

    /// Appends a page that [`Pool::take`] gave.
    pub fn append(&mut self, table: &mut BlockTable, page: u32) {
        table.pages.push(page);
    }

    /// Makes an empty table the first entries of another one, from entry `first` on with its pages.
    pub fn share_table(&mut self, from: &BlockTable, to: &mut BlockTable, entries: usize, first: usize) {
        let first = first.max(from.first).min(entries);
        for (entry, &page) in from.pages[..entries].iter().enumerate() {
            to.pages.push(if entry < first { NO_PAGE } else { page });
            if entry >= first {
                self.share(page);
            }
        }
        to.first = first;
    }

    /// Makes an empty table one of `entries` without pages, to which [`Pool::set`] gives pages from entry `first` on.
    pub fn lay_out(&self, table: &mut BlockTable, entries: usize, first: usize) {
        table.pages.resize(entries, NO_PAGE);
        table.first = first.min(entries);
    }

    /// Gives an entry a page that other tables or the index have, in place of the page that it has.
    pub fn set(&mut self, table: &mut BlockTable, entry: usize, page: u32) {
        self.share(page);
        let former = std::mem::replace(&mut table.pages[entry], page);
        if former != NO_PAGE {
            self.leave(former);
        }
    }

    /// Gives an entry without a page one that [`Pool::take`] gave.
    pub fn put(&mut self, table: &mut BlockTable, entry: usize, page: u32) {
        table.pages[entry] = page;
    }

    /// Bytes of a page.
    pub fn page_len(&self) -> usize {
        self.page
    }

    /// The bytes of a page.
    pub fn bytes(&self, page: u32) -> &[u8] {
        &self.memory.as_slice::<u8>()[page as usize * self.page..][..self.page]
    }

    /// The bytes of a page, to write.
    pub fn bytes_mut(&mut self, page: u32) -> &mut [u8] {
        &mut self.memory.as_mut_slice::<u8>()[page as usize * self.page..][..self.page]
    }

    /// Bytes of one head's part of a page.
    pub fn head_len(&self) -> usize {
        self.head_page
    }

    /// Shortens a table to `entries` and leaves the other pages.
    pub fn truncate(&mut self, table: &mut BlockTable, entries: usize) {
        while table.pages.len() > entries {
            if let Some(page) = table.pages.pop().filter(|&page| page != NO_PAGE) {
                self.leave(page);
            }
        }
        table.first = table.first.min(entries);
    }

    /// Leaves the pages before an entry.
    pub fn release_before(&mut self, table: &mut BlockTable, entry: usize) {
        let end = entry.min(table.pages.len());
        for at in table.first.min(end)..end {
            let page = std::mem::replace(&mut table.pages[at], NO_PAGE);
            self.leave(page);
        }
        table.first = table.first.max(end);
    }

    /// The keys and values of a layer in the pages of a table. A group may have fewer layers than the model, which use
    /// the last one's memory one after the other.
    #[inline]
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
    /// Checks the counts of pages against their uses.
    #[cfg(test)]
    pub fn audit(&self, uses: &[u32]) {
        assert_eq!(self.uses, uses);
        let mut free = vec![false; uses.len()];
        for &page in &self.free {
            assert!(!std::mem::replace(&mut free[page as usize], true), "page {page} is free twice");
        }
        let mut idle = 0;
        for (page, &uses) in uses.iter().enumerate() {
            let held = self.holders[page] != NO_NODE;
            idle += usize::from(held && uses == 0);
            assert_eq!(free[page], uses == 0 && !held, "page {page}");
        }
        assert_eq!(self.idle, idle);
        assert!(self.wanted == 0 && self.leaving.iter().all(|&leaving| leaving == 0));
    }
}
