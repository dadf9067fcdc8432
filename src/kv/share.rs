//! Sequences that share pages: forks, prefixes that the index knows, and the counts of pages by which a scheduler decides
//! what runs.

use super::pages::{BlockTable, Pool};
use super::sequences::Sequence;
use super::{Cache, PAGE, SequenceId};
use crate::error::{Error, Result};

/// Pages of a cache, each of [`PAGE`] positions in all layers without a window. Layers with a window never lack pages,
/// and don't count: in a model that has no other layers, all counts are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pages {
    /// All pages.
    pub total: usize,
    /// Pages that no sequence has: sequences can grow by so many.
    pub free: usize,
    /// Those of the free pages that the index of prefixes keeps until they are needed.
    pub kept: usize,
}

impl Cache {
    /// A new sequence with the first `n` positions of another one, whose pages both share. A page is copied when one of
    /// them is about to write into it: the last one of these positions, where they end within a page. The state of
    /// recurrent layers is copied at once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as [`Cache::rewind`], and where [`Shape::n_sequences`](super::Shape) sequences exist
    /// already. Nothing has changed then.
    pub fn fork(&mut self, id: SequenceId, n: usize) -> Result<SequenceId> {
        let from = self.slot(id)?;
        let len = self.sequences[from].len;
        if n > len {
            return Err(Error::invalid(format!("can't fork at {n}: only {len} positions are filled")));
        }
        self.check(from, n, "fork at")?;
        let new = self.create()?;
        let to = new.slot as usize;
        self.states.fork(from, to, len, n);
        let Ok([source, target]) = self.sequences.get_disjoint_mut([from, to]) else {
            return Err(Error::Internal("a sequence is forked into its own place".into()));
        };
        (target.len, target.indexed) = (n, source.indexed.min(n / PAGE));
        target.told_most = source.told_most;
        for ((pool, from), to) in self.pools.iter_mut().zip(&source.tables).zip(&mut target.tables) {
            let first = pool.group().first_page(n);
            pool.share_table(from, to, n.div_ceil(PAGE), first);
        }
        Ok(new)
    }

    /// Number of positions of the longest run of whole pages that `tokens` begin with and whose keys and values the index
    /// knows: at most `tokens.len() - 1`, since the last token's results are not kept. 0 without an index, and for a model
    /// with recurrent layers, whose states at the ends of pages are not kept.
    pub fn known_prefix(&self, tokens: &[u32]) -> usize {
        self.known(tokens).map_or(0, |(_, pages)| pages * PAGE)
    }

    /// The last node of the longest known prefix, and its number of pages.
    fn known(&self, tokens: &[u32]) -> Option<(u32, usize)> {
        let index = self.index.as_ref().filter(|_| !self.states.exist())?;
        let most = tokens.len().saturating_sub(1).min(self.shape.n_ctx);
        let (mut node, mut pages) = index.find(&tokens[..most])?;
        // Pages of layers with a window may be gone where those of other layers are still there.
        loop {
            let mut at = Some(node);
            let whole = (0..pages).rev().all(|entry| {
                let Some(id) = at else { return false };
                at = index.parent(id);
                let sees = |group: usize| entry >= self.pools[group].group().first_page(pages * PAGE);
                (0..self.pools.len()).all(|group| !sees(group) || index.page(id, group).is_some())
            });
            if whole {
                return Some((node, pages));
            }
            (node, pages) = (index.parent(node)?, pages - 1);
        }
    }

    /// A new sequence with the positions of [`Cache::known_prefix`], and their number.
    ///
    /// # Errors
    /// As [`Cache::create`].
    pub fn create_with_prefix(&mut self, tokens: &[u32]) -> Result<(SequenceId, usize)> {
        let new = self.create()?;
        let (Some((node, pages)), Some(index)) = (self.known(tokens), &mut self.index) else {
            return Ok((new, 0));
        };
        index.touch(node);
        let sequence = &mut self.sequences[new.slot as usize];
        (sequence.len, sequence.indexed) = (pages * PAGE, pages);
        for (group, (pool, table)) in self.pools.iter_mut().zip(&mut sequence.tables).enumerate() {
            let first = pool.group().first_page(pages * PAGE);
            pool.lay_out(table, pages, first);
            let mut at = Some(node);
            for entry in (first.min(pages)..pages).rev() {
                let Some(id) = at else { break };
                if let Some(page) = index.page(id, group) {
                    pool.set(table, entry, page);
                }
                at = index.parent(id);
            }
        }
        Ok((new, pages * PAGE))
    }

    /// Tells the index the tokens of a sequence, from position 0 on, so that later sequences that begin with the same
    /// pages find their keys and values, also after this sequence has been removed. Where the index knows a page already,
    /// the sequence shares it and leaves its own. The index never keeps a page that a sequence needs. Nothing is done
    /// without an index, or for a model with recurrent layers.
    ///
    /// The tokens must be those that the positions were computed from: the cache can't check it, and others' text would
    /// depend on it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn index_prefix(&mut self, id: SequenceId, tokens: &[u32]) -> Result<()> {
        let slot = self.slot(id)?;
        let Sequence { len, indexed, told_most, tables, .. } = &mut self.sequences[slot];
        let Some(index) = self.index.as_mut().filter(|_| !self.states.exist()) else { return Ok(()) };
        let pages = (tokens.len().min(*len) / PAGE).min(*told_most);
        if pages <= *indexed {
            return Ok(());
        }
        // Before nodes are added, which may take the place of the oldest ones.
        if let Some((known, _)) = index.find(&tokens[..pages * PAGE]) {
            index.touch(known);
        }
        let mut parent = None;
        for (entry, page) in tokens[..pages * PAGE].chunks_exact(PAGE).enumerate() {
            let Some(node) = index.add(&mut self.pools, parent, page) else { break };
            index.merge(&mut self.pools, node, tables, entry);
            parent = Some(node);
        }
        if let Some(last) = parent {
            index.touch(last);
        }
        *indexed = pages;
        Ok(())
    }

    /// Empties the index of prefixes.
    pub fn clear_prefixes(&mut self) {
        if let Some(index) = &mut self.index {
            index.clear(&mut self.pools);
        }
    }

    /// The pages of the cache.
    pub fn pages(&self) -> Pages {
        let pools = self.pools.iter().filter(|pool| pool.group().reach.is_none());
        let tightest = pools.min_by_key(|pool| pool.available());
        tightest.map_or(Pages::default(), |pool| Pages {
            total: pool.total(),
            free: pool.available(),
            kept: pool.idle(),
        })
    }

    /// The largest count of a sequence's groups without a window.
    fn most(&self, id: SequenceId, count: impl Fn(&Pool, &BlockTable) -> usize) -> Result<usize> {
        let tables = self.pools.iter().zip(&self.sequences[self.slot(id)?].tables);
        let counts = tables.filter(|(pool, _)| pool.group().reach.is_none());
        Ok(counts.map(|(pool, table)| count(pool, table)).max().unwrap_or(0))
    }

    /// Pages that a sequence takes of [`Pages::free`] to grow by `rows` positions. Sequences of a batch together take at
    /// most the sum of these: one page less for each page that all sequences that share it are about to write into.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist; [`Error::ContextFull`] where it has no room for so
    /// many positions.
    pub fn pages_needed(&self, id: SequenceId, rows: usize) -> Result<usize> {
        let (len, n_ctx) = (self.len(id)?, self.shape.n_ctx);
        let end = len.saturating_add(rows);
        if end > n_ctx {
            return Err(Error::ContextFull { n_ctx, needed: end });
        }
        self.most(id, |pool, table| pool.needed(table, len, end))
    }

    /// Pages that become free when a sequence is removed: those that no other sequence has.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn pages_freed(&self, id: SequenceId) -> Result<usize> {
        self.most(id, |pool, table| table.pages().iter().filter(|&&page| pool.is_own(page)).count())
    }
}
