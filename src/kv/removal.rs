//! Positions taken out of the middle of a sequence: those behind them move up, and the pages that fall free are given back.
//! Values move as they are. Keys may depend on their positions, so the caller turns each of them on its way. A sequence
//! shares no page then into which something moves.

use std::ops::Range;

use super::pages::Pool;
use super::{Cache, CacheType, Group, LayerId, Layout, SequenceId, TILE, WHAT};
use crate::error::{Error, Result};
use crate::memory::reserve::reserve;

/// Changes keys that move up: rows of one head of a layer, one for each position.
pub type Turn<'a> = &'a mut dyn FnMut(LayerId, &mut [f32]) -> Result<()>;

/// Keys and values of some positions on their way. It keeps its memory.
#[derive(Default)]
pub(super) struct Moving {
    keys: Vec<f32>,
    values: Vec<u8>,
}

/// Some positions within a page of a head.
#[derive(Clone, Copy)]
struct Run {
    /// The first one's place in the page.
    begin: usize,
    count: usize,
}

impl Cache {
    /// Checks that positions can be taken out of the middle of sequences.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where sequences have a state of recurrent layers, which depends on all positions; where a
    /// layer has a window shorter than a sequence and releases positions that would move; and where keys are stored in
    /// q8_0, whose roundings would add up.
    pub fn check_removal(&self) -> Result<()> {
        let refused = |why: &str| Err(Error::Unsupported(format!("removing positions of a sequence: {why}")));
        if self.states.exist() {
            return refused("the state of the model's recurrent layers depends on all of them");
        }
        let groups = &self.shape.groups;
        if groups.iter().any(|group| group.reach.is_some_and(|reach| reach < self.shape.n_ctx)) {
            return refused("a layer with a window releases those before it");
        }
        if groups.iter().any(|group| group.layout.stored == CacheType::Q8_0) {
            return refused("keys are stored in q8_0; f32 and f16 work");
        }
        Ok(())
    }

    /// Takes the positions of `range` out of a sequence. Those behind it move up, with their keys turned. The sequence's
    /// keys and values from `range.start` on are no longer those of its tokens alone, so the index of prefixes learns no
    /// more of it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist or is growing, and for a range that it doesn't have;
    /// those of [`Cache::check_removal`], unless nothing stands behind the range, where it is [`Cache::rewind`];
    /// [`Error::ContextFull`] where pages that others share would be written to, and too few are free for copies. Nothing has
    /// changed then. After an error of `turn` the sequence ends at `range.start`.
    pub fn remove_range(&mut self, id: SequenceId, range: Range<usize>, turn: Turn<'_>) -> Result<()> {
        let slot = self.slot(id)?;
        let len = self.sequences[slot].len;
        if range.start > range.end || range.end > len {
            let Range { start, end } = range;
            return Err(Error::invalid(format!("can't remove {start} to {end}: {len} positions are filled")));
        }
        if range.end == len {
            return self.rewind(id, range.start);
        }
        self.check_removal()?;
        if range.is_empty() {
            return Ok(());
        }
        let end = len - range.len();
        let written = range.start / TILE..end.div_ceil(TILE);
        self.own_pages(slot, written)?;
        let sequence = &mut self.sequences[slot];
        sequence.told_most = sequence.told_most.min(range.start / TILE);
        let moved = self.move_up(slot, range.start..end, range.len(), turn);
        self.truncate(slot, if moved.is_ok() { end } else { range.start });
        moved
    }

    /// Makes these pages ones that only this sequence has.
    fn own_pages(&mut self, slot: usize, entries: Range<usize>) -> Result<()> {
        let tables = self.pools.iter().zip(&self.sequences[slot].tables);
        let lacks = |(pool, table): (&Pool, &super::pages::BlockTable)| {
            let shared = table.pages()[entries.clone()].iter().filter(|&&page| !pool.is_own(page)).count();
            shared > pool.available()
        };
        if tables.into_iter().any(lacks) {
            let n_ctx = self.shape.n_positions;
            return Err(Error::ContextFull { n_ctx, needed: n_ctx + 1 });
        }
        for group in 0..self.pools.len() {
            for entry in entries.clone() {
                let page = self.sequences[slot].tables[group].pages()[entry];
                self.make_own(slot, group, entry * TILE, page);
            }
        }
        Ok(())
    }

    /// Fills the positions of `to` with those `by` behind them.
    fn move_up(&mut self, slot: usize, to: Range<usize>, by: usize, turn: Turn<'_>) -> Result<()> {
        let Cache { pools, sequences, moving, .. } = self;
        let mut at = to.start;
        while at < to.end {
            let from = at + by;
            let count = (TILE - at % TILE).min(TILE - from % TILE).min(to.end - at);
            let [source, target] = [from, at].map(|first| Run { begin: first % TILE, count });
            for (group, (pool, table)) in pools.iter_mut().zip(&sequences[slot].tables).enumerate() {
                let pages = [table.pages()[from / TILE], table.pages()[at / TILE]];
                let Group { layers, n_head_kv, layout, .. } = *pool.group();
                moving.reserve(&layout)?;
                for head in 0..layers * n_head_kv {
                    let place = head * pool.head_len()..(head + 1) * pool.head_len();
                    moving.take(&layout, &pool.bytes(pages[0])[place.clone()], source);
                    turn(LayerId { group, layer: head / n_head_kv }, &mut moving.keys)?;
                    moving.put(&layout, &mut pool.bytes_mut(pages[1])[place], target);
                }
            }
            at += count;
        }
        Ok(())
    }
}

impl Moving {
    /// Makes room for a page of a head.
    fn reserve(&mut self, layout: &Layout) -> Result<()> {
        self.keys.clear();
        self.values.clear();
        reserve(&mut self.keys, TILE * layout.head_dim, WHAT)?;
        reserve(&mut self.values, layout.value_tile(), WHAT)
    }

    /// Reads positions of a head's page.
    fn take(&mut self, layout: &Layout, page: &[u8], run: Run) {
        self.keys.clear();
        self.values.clear();
        for position in run.begin..run.begin + run.count {
            let places = key_places(layout, position);
            self.keys.extend(places.map(|at| match layout.stored {
                CacheType::F32 => f32::from_ne_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]),
                _ => half::f16::from_ne_bytes([page[at], page[at + 1]]).to_f32(),
            }));
        }
        value_places(layout, run, |place| self.values.extend_from_slice(&page[place]));
    }

    /// Writes what was taken to as many positions of a head's page.
    fn put(&self, layout: &Layout, page: &mut [u8], run: Run) {
        let mut keys = self.keys.iter();
        for position in run.begin..run.begin + run.count {
            for (at, key) in key_places(layout, position).zip(&mut keys) {
                match layout.stored {
                    CacheType::F32 => page[at..at + 4].copy_from_slice(&key.to_ne_bytes()),
                    _ => page[at..at + 2].copy_from_slice(&half::f16::from_f32(*key).to_ne_bytes()),
                }
            }
        }
        let mut values = &self.values[..];
        value_places(layout, run, |place| {
            let (these, rest) = values.split_at(place.len());
            page[place].copy_from_slice(these);
            values = rest;
        });
    }
}

/// Bytes of an element of a type without factors.
fn element(layout: &Layout) -> usize {
    if layout.stored == CacheType::F32 { 4 } else { 2 }
}

/// The places of a position's key, element after element: lines of a panel of positions.
fn key_places(layout: &Layout, position: usize) -> impl Iterator<Item = usize> + use<> {
    let (nr, head_dim, bytes) = (layout.nr, layout.head_dim, element(layout));
    let panel = position / nr * nr * head_dim + position % nr;
    (0..head_dim).map(move |element| (panel + element * nr) * bytes)
}

/// Calls `each` with the places of the values of some positions: a run for each span of elements.
fn value_places(layout: &Layout, run: Run, mut each: impl FnMut(Range<usize>)) {
    let bytes = element(layout);
    for span in layout.value_spans() {
        let first = layout.key_tile() + TILE * span.start * bytes;
        let line = span.len() * bytes;
        each(first + run.begin * line..first + (run.begin + run.count) * line);
    }
}

/// The key of a position and the bytes of its value, in each of these heads' pages.
#[cfg(test)]
pub(super) fn read<'a>(
    layout: Layout,
    position: usize,
    heads: impl Iterator<Item = &'a [u8]>,
) -> (Vec<f32>, Vec<u8>) {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for page in heads {
        let mut moving = Moving::default();
        moving.take(&layout, page, Run { begin: position, count: 1 });
        keys.append(&mut moving.keys);
        values.append(&mut moving.values);
    }
    (keys, values)
}
