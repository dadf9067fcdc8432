//! The cache of keys and values, in pages that sequences share out among themselves.
//! Layers with the same heads and the same reach form a group, with a pool of pages of its own: a page is
//! [`TILE`] positions of one group, in the tiles that the attention kernel reads straight through. A sequence has a
//! block table a group, so that a layer with a window gives pages back that no row sees any more; and it may have
//! state of fixed size, for layers that keep a recurrence.
//! A page's layers and heads adjoin, and pages are handed out from the first on, so that memory fills from its
//! beginning as texts grow: it can lie on huge pages, and what is never filled is never taken.

mod pages;
mod sequences;
mod state;

use std::marker::PhantomData;

use crate::error::{Error, Result};
pub use crate::kernels::attention::CacheType;
use crate::kernels::attention::{Layout, TILE};
use crate::memory::checked_bytes;
use crate::ops::attention::LayerCache;
use pages::Pool;
use sequences::Sequence;
pub use sequences::SequenceId;
use state::States;

/// Most sequences of a cache.
pub const MAX_SEQUENCES: usize = 1 << 12;

/// What the memory is for, in errors.
const WHAT: &str = "the key/value cache";

/// What is said where a size overflows.
const TOO_LARGE: Error = Error::OutOfMemory { bytes: usize::MAX, what: WHAT };

/// Layers that share pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many layers.
    pub layers: usize,
    /// Key/value heads of a layer.
    pub n_head_kv: usize,
    /// How positions lie within a head, and as what.
    pub layout: Layout,
    /// How many positions up to its own a token sees; none for all.
    pub reach: Option<usize>,
}

/// Which layer of which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerId {
    /// Number of the group.
    pub group: usize,
    /// Number of the layer within it.
    pub layer: usize,
}

/// How large a cache is.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The groups, by number.
    pub groups: Vec<Group>,
    /// Bytes of state that a sequence has besides.
    pub state_bytes: usize,
    /// Sequences at once.
    pub n_sequences: usize,
    /// Positions of a sequence, at most.
    pub n_ctx: usize,
    /// Positions of all sequences together, in groups that see all of them.
    pub n_positions: usize,
    /// Most positions that a sequence grows by at once.
    pub n_batch: usize,
}

impl Group {
    /// Bytes of a page in one head, and in all of all layers.
    fn page_bytes(&self) -> Result<(usize, usize)> {
        let head = self.layout.tile_bytes().ok_or(TOO_LARGE)?;
        Ok((head, checked_bytes(checked_bytes(self.layers, self.n_head_kv, WHAT)?, head, WHAT)?))
    }
}

impl Shape {
    /// Most pages of a group that one sequence holds at once.
    fn pages_of_sequence(&self, group: &Group) -> usize {
        let all = self.n_ctx.div_ceil(TILE);
        // What is seen and what is being added, and a page more where neither begins at a page's edge.
        group.reach.map_or(all, |reach| all.min(reach.saturating_add(self.n_batch).div_ceil(TILE) + 1))
    }

    /// Pages of a group's pool.
    fn pages(&self, group: &Group) -> usize {
        let most = self.pages_of_sequence(group).saturating_mul(self.n_sequences);
        let wanted = match group.reach {
            Some(_) => most,
            // A page more a sequence: each may end within one.
            None => self.n_positions.div_ceil(TILE).saturating_add(self.n_sequences.saturating_sub(1)),
        };
        wanted.min(most)
    }

    /// Bytes of a cache of this shape: pages and states. What sequences note of them is not counted.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for more than [`MAX_SEQUENCES`] or none, [`Error::OutOfMemory`] where no memory
    /// could hold it.
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

/// Keys, values and states of some sequences.
pub struct Cache {
    shape: Shape,
    pools: Vec<Pool>,
    states: States,
    sequences: Vec<Sequence>,
}

impl Cache {
    /// A cache without sequences.
    ///
    /// # Errors
    /// As [`Shape::bytes`].
    pub fn new(shape: Shape) -> Result<Self> {
        shape.bytes()?;
        let pools = shape.groups.iter().map(|group| Pool::new(*group, shape.pages(group)));
        let pools = pools.collect::<Result<_>>()?;
        let states = States::new(shape.state_bytes, shape.n_sequences)?;
        let tables = shape.n_ctx.div_ceil(TILE);
        let sequences = (0..shape.n_sequences)
            .map(|_| Sequence::new(shape.groups.len(), tables))
            .collect::<Result<_>>()?;
        Ok(Cache { shape, pools, states, sequences })
    }

    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there are as many as the cache was made for.
    pub fn create(&mut self) -> Result<SequenceId> {
        let Some(slot) = self.sequences.iter().position(|sequence| !sequence.alive) else {
            return Err(Error::invalid(format!("there are {} sequences already", self.shape.n_sequences)));
        };
        let sequence = &mut self.sequences[slot];
        sequence.alive = true;
        sequence.serial = sequence.serial.wrapping_add(1);
        self.states.clear(slot);
        Ok(SequenceId { slot: slot as u32, serial: sequence.serial })
    }

    /// Ends a sequence and takes its pages back.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for one that isn't there.
    pub fn remove(&mut self, id: SequenceId) -> Result<()> {
        let slot = self.slot(id)?;
        self.truncate(slot, 0);
        self.sequences[slot].alive = false;
        Ok(())
    }

    /// Positions that a sequence has.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for one that isn't there.
    pub fn len(&self, id: SequenceId) -> Result<usize> {
        Ok(self.sequences[self.slot(id)?].len)
    }

    fn slot(&self, id: SequenceId) -> Result<usize> {
        match self.sequences.get(id.slot as usize) {
            Some(sequence) if sequence.alive && sequence.serial == id.serial => Ok(id.slot as usize),
            _ => Err(Error::invalid("there is no such sequence (any more)")),
        }
    }

    /// Gets pages for a sequence to grow by `rows` positions from `first` on; without success it has what it had.
    /// [`Cache::advance`] or [`Cache::release`] ends it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that isn't there, does not end at `first`, or grows already;
    /// [`Error::ContextFull`] where it has no room for so many or no page is left.
    pub fn reserve(&mut self, id: SequenceId, first: usize, rows: usize) -> Result<()> {
        let slot = self.slot(id)?;
        let Sequence { len, growing, .. } = self.sequences[slot];
        if growing > 0 {
            return Err(Error::invalid("a sequence stands twice in a batch"));
        }
        if first != len {
            return Err(Error::invalid(format!(
                "tokens from position {first} on can't follow a sequence of {len}"
            )));
        }
        let (n_ctx, n_positions) = (self.shape.n_ctx, self.shape.n_positions);
        let end = len.saturating_add(rows);
        if end > n_ctx {
            return Err(Error::ContextFull { n_ctx, needed: end });
        }
        for (pool, table) in self.pools.iter_mut().zip(&mut self.sequences[slot].tables) {
            if !pool.extend(table, end.div_ceil(TILE)) {
                self.truncate(slot, len);
                return Err(Error::ContextFull { n_ctx: n_positions, needed: n_positions + 1 });
            }
        }
        self.sequences[slot].growing = rows;
        Ok(())
    }

    /// Gives back what [`Cache::reserve`] got, for positions that did not come.
    pub fn release(&mut self, id: SequenceId) {
        if let Ok(slot) = self.slot(id) {
            self.truncate(slot, self.sequences[slot].len);
        }
    }

    /// Counts the positions that [`Cache::reserve`] was for: they have come. Pages that no later row sees go back.
    pub fn advance(&mut self, id: SequenceId) {
        let Ok(slot) = self.slot(id) else { return };
        let Sequence { len, growing, tables, .. } = &mut self.sequences[slot];
        *len += std::mem::take(growing);
        for (pool, table) in self.pools.iter_mut().zip(tables) {
            if let Some(reach) = pool.group().reach {
                // The next row, at `len`, sees `reach` positions with its own.
                pool.release_before(table, (*len + 1).saturating_sub(reach) / TILE);
            }
        }
    }

    /// Keeps the first `n` positions of a sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that isn't there, that has fewer, whose window has let go of what
    /// the rows to come would see, or whose state was not kept at that position ([`Cache::keep`]). Nothing is
    /// changed then.
    pub fn rewind(&mut self, id: SequenceId, n: usize) -> Result<()> {
        let slot = self.slot(id)?;
        let sequence = &self.sequences[slot];
        if n > sequence.len {
            let len = sequence.len;
            return Err(Error::invalid(format!("can't rewind to {n}: only {len} positions are filled")));
        }
        for (pool, table) in self.pools.iter().zip(&sequence.tables) {
            let first = pool.group().reach.map_or(0, |reach| (n + 1).saturating_sub(reach) / TILE);
            if n > 0 && first < table.first() {
                return Err(Error::invalid(format!(
                    "can't rewind to {n}: a layer's window has let go of what the next token sees"
                )));
            }
        }
        self.states.rewind(slot, sequence.len, n)?;
        self.truncate(slot, n);
        Ok(())
    }

    /// Keeps a copy of a sequence's state, so that it can be rewound to here; the copy before is lost.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that isn't there.
    pub fn keep(&mut self, id: SequenceId) -> Result<()> {
        let slot = self.slot(id)?;
        self.states.keep(slot, self.sequences[slot].len);
        Ok(())
    }

    fn truncate(&mut self, slot: usize, n: usize) {
        let sequence = &mut self.sequences[slot];
        sequence.len = n;
        sequence.growing = 0;
        for (pool, table) in self.pools.iter_mut().zip(&mut sequence.tables) {
            pool.truncate(table, n.div_ceil(TILE));
        }
    }

    /// Access for the workers of a forward pass.
    pub fn view(&mut self) -> View<'_> {
        View { cache: self, exclusive: PhantomData }
    }
}

/// A cache that workers share during a pass; ops keep their writes apart.
#[derive(Clone, Copy)]
pub struct View<'a> {
    cache: &'a Cache,
    /// Nobody else changes the cache meanwhile.
    exclusive: PhantomData<&'a mut Cache>,
}

impl View<'_> {
    /// The group of a layer.
    pub fn group(&self, id: LayerId) -> &Group {
        self.cache.pools[id.group].group()
    }

    /// The keys and values of a layer in one sequence, which is there.
    pub fn layer(&self, id: LayerId, sequence: SequenceId) -> LayerCache {
        let table = &self.cache.sequences[sequence.slot as usize].tables[id.group];
        self.cache.pools[id.group].layer(id.layer, table)
    }
}
