//! The cache of keys and values, in pages that are allocated to sequences as they grow. Layers with the same heads and
//! the same window form a group with its own pool of pages. A page holds [`TILE`] positions of all layers of a group,
//! in tiles that the attention kernel reads sequentially. A sequence has a block table for each group, so a layer with
//! a window releases pages that no later row sees. A sequence may also have state of fixed size, for recurrent layers.
//! Sequences with a common beginning share its pages: a page that several sequences have is copied before one of them
//! writes into it. The layers and heads of a page are contiguous, and pages are allocated from the first one on. So memory fills from
//! its beginning as texts grow: it can use huge pages, and the part that is never filled is never resident.

mod pages;
mod prefix;
mod removal;
mod sequences;
mod share;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;
mod state;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use crate::error::{Error, Result};
pub use crate::kernels::attention::CacheType;
use crate::kernels::attention::{Layout, TILE};
use crate::memory::checked_bytes;
use crate::memory::reserve::collected;
use crate::ops::attention::LayerCache;
use pages::Pool;
use prefix::Index;
use removal::Moving;
pub use removal::Turn;
use sequences::Sequence;
pub use sequences::SequenceId;
pub use share::Pages;
pub use snapshot::{Sink, Tags};
use state::States;

/// Positions of a page.
pub const PAGE: usize = TILE;

/// Most sequences of a cache.
pub const MAX_SEQUENCES: usize = 1 << 12;

/// The purpose of the memory, in errors.
const WHAT: &str = "the key/value cache";

/// The error of a size that overflows.
const TOO_LARGE: Error = Error::OutOfMemory { bytes: usize::MAX, what: WHAT };

/// Layers that share pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number of layers.
    pub layers: usize,
    /// Key/value heads of a layer.
    pub n_head_kv: usize,
    /// Layout and element type of a head's positions.
    pub layout: Layout,
    /// Length of the window that ends with a token's own position; `None` where a token sees every position before it.
    pub reach: Option<usize>,
}

/// A layer of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerId {
    /// Number of the group.
    pub group: usize,
    /// Number of the layer within it.
    pub layer: usize,
}

/// The size of a cache.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The groups, by number.
    pub groups: Vec<Group>,
    /// Bytes of a sequence's state of fixed size.
    pub state_bytes: usize,
    /// Most sequences that live at the same time.
    pub n_sequences: usize,
    /// Most positions of a sequence.
    pub n_ctx: usize,
    /// Most positions of all sequences together, in groups without a window.
    pub n_positions: usize,
    /// Most positions by which a sequence grows at once.
    pub n_batch: usize,
    /// Whether there is an index of prefixes.
    pub prefix_index: bool,
}

impl Group {
    /// Bytes of one head's part of a page, and of a whole page.
    fn page_bytes(&self) -> Result<(usize, usize)> {
        let head = self.layout.tile_bytes().ok_or(TOO_LARGE)?;
        Ok((head, checked_bytes(checked_bytes(self.layers, self.n_head_kv, WHAT)?, head, WHAT)?))
    }

    /// The first page that the row at position `n` sees, which sees `reach` positions, including its own.
    fn first_page(&self, n: usize) -> usize {
        self.reach.map_or(0, |reach| (n + 1).saturating_sub(reach) / TILE)
    }
}

impl Shape {
    /// Most pages of a group that one sequence holds at once.
    fn pages_of_sequence(&self, group: &Group) -> usize {
        let all = self.n_ctx.div_ceil(TILE);
        // The positions in the window and those being added, and one more page, since they may begin within a page.
        group.reach.map_or(all, |reach| all.min(reach.saturating_add(self.n_batch).div_ceil(TILE) + 1))
    }

    /// An index of prefixes with a node for each page of the largest pool.
    fn index(&self) -> Result<Option<Index>> {
        if !self.prefix_index {
            return Ok(None);
        }
        let pages = self.groups.iter().map(|group| self.pages(group)).max().unwrap_or(0);
        Index::new(pages, self.groups.len()).map(Some)
    }

    /// Pages of a group's pool.
    fn pages(&self, group: &Group) -> usize {
        let most = self.pages_of_sequence(group).saturating_mul(self.n_sequences);
        let wanted = match group.reach {
            Some(_) => most,
            // One more page for each other sequence: each may end within a page.
            None => self.n_positions.div_ceil(TILE).saturating_add(self.n_sequences.saturating_sub(1)),
        };
        wanted.min(most)
    }

    /// Bytes of a cache of this shape: pages and states. Block tables and the index of prefixes are not counted.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no sequence or more than [`MAX_SEQUENCES`]; [`Error::OutOfMemory`] for a size
    /// that no address space holds.
    pub fn bytes(&self) -> Result<usize> {
        if !(1..=MAX_SEQUENCES).contains(&self.n_sequences) {
            let given = self.n_sequences;
            return Err(Error::invalid(format!("n_sequences is {given}; expected 1 to {MAX_SEQUENCES}")));
        }
        let states = checked_bytes(self.state_bytes, 2 * self.n_sequences, WHAT)?;
        self.groups.iter().try_fold(states, |sum, group| {
            let pool = checked_bytes(self.pages(group), group.page_bytes()?.1, WHAT)?;
            sum.checked_add(pool).ok_or(TOO_LARGE)
        })
    }
}

/// Keys, values and states of several sequences.
pub struct Cache {
    shape: Shape,
    pools: Vec<Pool>,
    states: States,
    sequences: Vec<Sequence>,
    index: Option<Index>,
    moving: Moving,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Cache {
    /// A cache without sequences.
    ///
    /// # Errors
    /// As [`Shape::bytes`]; [`Error::OutOfMemory`] where the memory can't be had.
    pub fn new(shape: Shape) -> Result<Self> {
        shape.bytes()?;
        let pools = shape.groups.iter().map(|group| Pool::new(*group, shape.pages(group)));
        let pools = collected(pools, WHAT)?;
        let states = States::new(shape.state_bytes, shape.n_sequences)?;
        let tables = shape.n_ctx.div_ceil(TILE);
        let sequences = (0..shape.n_sequences).map(|_| Sequence::new(shape.groups.len(), tables));
        let sequences = collected(sequences, WHAT)?;
        let index = shape.index()?;
        Ok(Cache { shape, pools, states, sequences, index, moving: Moving::default() })
    }

    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where [`Shape::n_sequences`] sequences exist already.
    pub fn create(&mut self) -> Result<SequenceId> {
        let Some(slot) = self.sequences.iter().position(|sequence| !sequence.alive) else {
            return Err(Error::invalid(format!("there are {} sequences already", self.shape.n_sequences)));
        };
        let sequence = &mut self.sequences[slot];
        sequence.alive = true;
        sequence.indexed = 0;
        sequence.told_most = usize::MAX;
        sequence.serial = sequence.serial.wrapping_add(1);
        self.states.clear(slot);
        Ok(SequenceId { slot: slot as u32, serial: sequence.serial })
    }

    /// Removes a sequence and frees its pages.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn remove(&mut self, id: SequenceId) -> Result<()> {
        let slot = self.slot(id)?;
        self.truncate(slot, 0);
        self.sequences[slot].alive = false;
        Ok(())
    }

    /// Number of positions of a sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn len(&self, id: SequenceId) -> Result<usize> {
        Ok(self.sequences[self.slot(id)?].len)
    }

    fn slot(&self, id: SequenceId) -> Result<usize> {
        match self.sequences.get(id.slot as usize) {
            Some(sequence) if sequence.alive && sequence.serial == id.serial => Ok(id.slot as usize),
            _ => Err(Error::invalid("there is no such sequence (any more)")),
        }
    }

    /// Allocates pages for sequences to grow: each span is a sequence, the position where it ends, and the number of
    /// positions by which it grows. A page that another sequence has too is copied before the sequence writes into it.
    /// [`Cache::advance`] keeps the new positions, [`Cache::release`] drops them. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist, doesn't end at its position, or is growing already;
    /// [`Error::ContextFull`] where a sequence has no room for its positions or pages run out.
    pub fn reserve(&mut self, spans: impl Iterator<Item = (SequenceId, usize, usize)> + Clone) -> Result<()> {
        let mut counted = 0;
        let mut outcome = spans.clone().try_for_each(|(id, first, rows)| {
            self.want(id, first, rows)?;
            counted += 1;
            Ok(())
        });
        if outcome.is_ok() && !self.pools.iter().all(Pool::suffices) {
            let n_ctx = self.shape.n_positions;
            outcome = Err(Error::ContextFull { n_ctx, needed: n_ctx + 1 });
        }
        for (id, ..) in spans.clone().take(counted) {
            self.forget_wanted(id, outcome.is_ok());
        }
        outcome?;
        spans.for_each(|(id, first, rows)| self.extend(id.slot as usize, first, rows));
        Ok(())
    }

    /// Checks one span of [`Cache::reserve`], and counts the pages that it takes.
    fn want(&mut self, id: SequenceId, first: usize, rows: usize) -> Result<()> {
        let slot = self.slot(id)?;
        let Sequence { len, growing, tables, .. } = &mut self.sequences[slot];
        if *growing > 0 {
            return Err(Error::invalid("two spans of a batch continue the same sequence"));
        }
        if first != *len {
            return Err(Error::invalid(format!(
                "tokens from position {first} on can't continue a sequence of {len} positions"
            )));
        }
        let (n_ctx, end) = (self.shape.n_ctx, len.saturating_add(rows));
        if end > n_ctx {
            return Err(Error::ContextFull { n_ctx, needed: end });
        }
        *growing = rows;
        for (pool, table) in self.pools.iter_mut().zip(tables) {
            pool.want(table, first, end);
        }
        Ok(())
    }

    /// Takes back what [`Cache::want`] counted, and, unless it `grows`, that the sequence is growing.
    fn forget_wanted(&mut self, id: SequenceId, grows: bool) {
        let Sequence { len, growing, tables, .. } = &mut self.sequences[id.slot as usize];
        if !grows {
            *growing = 0;
        }
        for (pool, table) in self.pools.iter_mut().zip(tables) {
            pool.forget_wanted(table, *len);
        }
    }

    /// Gives a sequence of `len` positions the pages to grow by `rows`, which have been counted.
    fn extend(&mut self, slot: usize, len: usize, rows: usize) {
        for group in 0..self.pools.len() {
            if let Some(page) = self.pools[group].tail(&self.sequences[slot].tables[group], len) {
                self.make_own(slot, group, len, page);
            }
            while self.sequences[slot].tables[group].pages().len() < (len + rows).div_ceil(TILE) {
                let Some(page) = self.take(group) else { return };
                self.pools[group].append(&mut self.sequences[slot].tables[group], page);
            }
        }
    }

    /// Makes the page with position `len` one that only this sequence has, and the index doesn't hold.
    fn make_own(&mut self, slot: usize, group: usize, len: usize, page: u32) {
        if !self.pools[group].is_own(page) {
            if let Some(copy) = self.take(group) {
                self.pools[group].copy_tail(&mut self.sequences[slot].tables[group], len, copy);
            }
        } else if let (Some(holder), Some(index)) = (self.pools[group].holder(page), &mut self.index) {
            index.remove(&mut self.pools, holder);
        }
    }

    /// A page for a table: a free one, or one that only the index holds.
    fn take(&mut self, group: usize) -> Option<u32> {
        if let page @ Some(_) = self.pools[group].take() {
            return page;
        }
        self.index.as_mut()?.evict(&mut self.pools, group);
        self.pools[group].take()
    }

    /// Drops the positions that [`Cache::reserve`] allocated pages for, and frees these pages. The failed pass may have
    /// written into the sequence's state: where there is one, the sequence returns to the position of the state's copy
    /// ([`Cache::keep`]), or loses all positions where there is no copy.
    pub fn release(&mut self, id: SequenceId) {
        let Ok(slot) = self.slot(id) else { return };
        self.truncate(slot, self.sequences[slot].len);
        if !self.states.exist() {
            return;
        }
        match self.states.kept(slot) {
            Some(n) if self.has_pages(slot, n) => {
                self.states.restore(slot);
                self.truncate(slot, n);
            }
            _ => {
                self.states.clear(slot);
                self.truncate(slot, 0);
            }
        }
    }

    /// Keeps the positions that [`Cache::reserve`] allocated pages for, which have been filled. Frees pages that no
    /// later row sees.
    pub fn advance(&mut self, id: SequenceId) {
        let Ok(slot) = self.slot(id) else { return };
        let Sequence { len, growing, tables, .. } = &mut self.sequences[slot];
        *len += std::mem::take(growing);
        for (pool, table) in self.pools.iter_mut().zip(tables) {
            pool.release_before(table, pool.group().first_page(*len));
        }
    }

    /// Truncates a sequence to its first `n` positions.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist or has fewer positions, where a group with a window
    /// has released pages that the next row would see, or where no copy of the state at that position was kept
    /// ([`Cache::keep`]). Nothing has changed then.
    pub fn rewind(&mut self, id: SequenceId, n: usize) -> Result<()> {
        let slot = self.slot(id)?;
        let sequence = &self.sequences[slot];
        if n > sequence.len {
            let len = sequence.len;
            return Err(Error::invalid(format!("can't rewind to {n}: only {len} positions are filled")));
        }
        let len = sequence.len;
        self.check(slot, n, "rewind to")?;
        self.states.rewind(slot, len, n);
        self.truncate(slot, n);
        Ok(())
    }

    /// Checks that the pages that the row at position `n` sees are still there, and that the state at `n` can be had.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`]; `what` is what the caller can't do.
    fn check(&self, slot: usize, n: usize, what: &str) -> Result<()> {
        if !self.has_pages(slot, n) {
            return Err(Error::invalid(format!(
                "can't {what} {n}: a layer with a window has released positions that the next token sees"
            )));
        }
        self.states.check(slot, self.sequences[slot].len, n, what)
    }

    /// Whether the pages that the row at position `n` sees are still there.
    fn has_pages(&self, slot: usize, n: usize) -> bool {
        let tables = self.pools.iter().zip(&self.sequences[slot].tables);
        n == 0 || tables.into_iter().all(|(pool, table)| pool.group().first_page(n) >= table.first())
    }

    /// Copies a sequence's state, so that it can be rewound to its current position. The copy replaces an earlier one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn keep(&mut self, id: SequenceId) -> Result<()> {
        let slot = self.slot(id)?;
        self.states.keep(slot, self.sequences[slot].len);
        Ok(())
    }

    /// The position at which a sequence's state was copied ([`Cache::keep`]); `None` where it wasn't, or where there is no
    /// state.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn kept(&self, id: SequenceId) -> Result<Option<usize>> {
        let slot = self.slot(id)?;
        Ok(self.states.kept(slot))
    }

    fn truncate(&mut self, slot: usize, n: usize) {
        let sequence = &mut self.sequences[slot];
        sequence.len = n;
        sequence.growing = 0;
        sequence.indexed = sequence.indexed.min(n / TILE);
        for (pool, table) in self.pools.iter_mut().zip(&mut sequence.tables) {
            pool.truncate(table, n.div_ceil(TILE));
        }
    }

    /// Access for the workers of a forward pass.
    #[doc(hidden)]
    pub fn view(&mut self) -> View<'_> {
        View { cache: self, exclusive: PhantomData }
    }
}

/// A cache that workers share during a pass. They write through raw pointers; ops partition the writes.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    cache: &'a Cache,
    /// The exclusive borrow lasts as long as the view.
    exclusive: PhantomData<&'a mut Cache>,
}

impl View<'_> {
    /// The group of a layer.
    pub fn group(&self, id: LayerId) -> &Group {
        self.cache.pools[id.group].group()
    }

    /// The state of a sequence, which must exist.
    pub fn state(&self, sequence: SequenceId) -> *mut u8 {
        self.cache.states.address(sequence.slot as usize)
    }

    /// The keys and values of a layer in a sequence, which must exist.
    pub fn layer(&self, id: LayerId, sequence: SequenceId) -> LayerCache {
        let table = &self.cache.sequences[sequence.slot as usize].tables[id.group];
        self.cache.pools[id.group].layer(id.layer, table)
    }
}
