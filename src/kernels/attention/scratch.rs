//! The scratch memory of a call: how many rows a pass takes, and where its parts lie.

use super::steps::State;
use super::{CacheType, Kernel, TILE};

/// Blocks of rows whose scores are worked on at once.
pub(super) const GROUP: usize = 8;
/// Floats of queries in a pass, about: they and their sums stay in L2.
const PASS: usize = 48 << 10;
/// Rows of a pass, at most.
const PASS_ROWS: usize = 768;
/// Blocks of rows that read a cache as it is stored, at most: for more it is faster to widen the cache once.
const DIRECT: usize = 2;

/// Rows of a pass, at most.
pub(super) fn pass_rows(kernel: &Kernel, head_dim: usize) -> usize {
    let group = GROUP * kernel.tiles.mr;
    ((PASS / head_dim.max(1)).min(PASS_ROWS) / group).max(1) * group
}

/// Whether so many rows have a cache's tiles widened before they read them.
pub(super) fn widens(kernel: &Kernel, rows: usize) -> bool {
    kernel.stored != CacheType::F32 && rows > DIRECT * kernel.direct.mr
}

/// Whether so few rows read plain values where they are, which takes whole vectors.
pub(super) fn in_place(kernel: &Kernel, head_dim: usize, rows: usize) -> bool {
    rows <= kernel.tiles.mr && head_dim.is_multiple_of(kernel.tiles.lanes)
}

/// Sizes in floats; each part begins on a cache line.
struct Sizes {
    queries: usize,
    scores: usize,
    state: StateSizes,
    /// Each of shrink, starts and ends, and half of the keys that blocks see.
    entries: usize,
    keys: usize,
    values: usize,
}

/// Sizes of the state of some rows.
struct StateSizes {
    sums: usize,
    weights: usize,
    largest: usize,
}

fn line(floats: usize) -> Option<usize> {
    floats.checked_next_multiple_of(16)
}

impl StateSizes {
    /// `None` on overflow.
    fn new(kernel: &Kernel, head_dim: usize, rows: usize) -> Option<Self> {
        let width = head_dim.checked_next_multiple_of(kernel.tiles.lanes)?;
        Some(Self {
            sums: line(rows.checked_mul(width)?)?,
            weights: line(rows.checked_mul(kernel.tiles.lanes)?)?,
            largest: line(rows)?,
        })
    }

    fn total(&self) -> Option<usize> {
        self.sums.checked_add(self.weights)?.checked_add(self.largest)
    }
}

impl Sizes {
    /// `None` on overflow.
    fn new(kernel: &Kernel, head_dim: usize, rows: usize, plain: bool) -> Option<Self> {
        let widened = !plain && widens(kernel, rows);
        let rows = rows.min(pass_rows(kernel, head_dim));
        let width = head_dim.checked_next_multiple_of(kernel.tiles.lanes)?;
        let tile = if plain || widened { TILE } else { 0 };
        let copied = if plain && in_place(kernel, head_dim, rows) { 0 } else { tile };
        Some(Self {
            queries: line(rows.checked_mul(head_dim)?)?,
            scores: rows.min(GROUP * kernel.tiles.mr) * TILE,
            state: StateSizes::new(kernel, head_dim, rows)?,
            entries: line(rows)?,
            keys: tile.checked_mul(head_dim)?,
            values: copied.checked_mul(width)?,
        })
    }

    fn total(&self) -> Option<usize> {
        let state = self.state.total()?;
        let rest = [self.scores, state, state, 5 * self.entries, self.keys, self.values];
        rest.into_iter().try_fold(self.queries, usize::checked_add)
    }
}

/// Floats of scratch memory for calls of up to `rows` rows; `None` on overflow.
pub(super) fn len(kernel: &Kernel, head_dim: usize, rows: usize, plain: bool) -> Option<usize> {
    Sizes::new(kernel, head_dim, rows, plain)?.total()
}

/// Floats of the state that rows have from one part of the sequence; `None` on overflow.
pub(super) fn part_len(kernel: &Kernel, head_dim: usize, rows: usize) -> Option<usize> {
    StateSizes::new(kernel, head_dim, rows)?.total()
}

/// Places of a pass's scratch memory.
#[derive(Clone, Copy)]
pub(super) struct Scratch {
    pub queries: *mut f32,
    pub scores: *mut f32,
    /// The state of the rows.
    pub total: State,
    /// Their state from one part of the sequence.
    pub part: State,
    /// Two entries for each block of rows.
    pub seen: *mut u32,
    /// A tile's keys and values, packed or widened.
    pub keys: *mut f32,
    pub values: *mut f32,
}

/// Hands out memory from its start on.
struct Taker(*mut f32);

impl Taker {
    fn take(&mut self, floats: usize) -> *mut f32 {
        let part = self.0;
        self.0 = part.wrapping_add(floats);
        part
    }
}

impl Scratch {
    /// The places for calls of `rows` rows; `None` where [`len`] is.
    pub fn new(kernel: &Kernel, head_dim: usize, rows: usize, plain: bool, first: *mut f32) -> Option<Self> {
        let sizes = Sizes::new(kernel, head_dim, rows, plain)?;
        let mut at = Taker(first);
        let (queries, scores) = (at.take(sizes.queries), at.take(sizes.scores));
        let shrink = at.take(sizes.entries);
        let (starts, ends) = (at.take(sizes.entries).cast(), at.take(sizes.entries).cast());
        let rest = State {
            sums: first,
            width: head_dim.next_multiple_of(kernel.tiles.lanes),
            weights: first,
            largest: first,
            shrink,
            starts,
            ends,
        };
        let mut state = || place(&rest, &sizes.state, &mut at);
        let (total, part) = (state(), state());
        let seen = at.take(2 * sizes.entries).cast();
        let (keys, values) = (at.take(sizes.keys), at.take(sizes.values));
        Some(Self { queries, scores, total, part, seen, keys, values })
    }
}

fn place(rest: &State, sizes: &StateSizes, at: &mut Taker) -> State {
    let (sums, weights) = (at.take(sizes.sums), at.take(sizes.weights));
    State { sums, weights, largest: at.take(sizes.largest), ..*rest }
}

/// The state that `rows` rows have from a part of the sequence, which is kept from `first` on; entries that are not
/// kept are those of `rest`.
/// `None` where [`part_len`] is.
pub(super) fn kept(
    kernel: &Kernel,
    head_dim: usize,
    rows: usize,
    first: *mut f32,
    rest: &State,
) -> Option<State> {
    Some(place(rest, &StateSizes::new(kernel, head_dim, rows)?, &mut Taker(first)))
}

impl State {
    /// The state of rows that are only joined: no entries but the width of their sums.
    pub fn bare(width: usize) -> Self {
        let (none, no_entries) = (std::ptr::null_mut(), std::ptr::null_mut());
        State {
            sums: none,
            width,
            weights: none,
            largest: none,
            shrink: none,
            starts: no_entries,
            ends: no_entries,
        }
    }
}
