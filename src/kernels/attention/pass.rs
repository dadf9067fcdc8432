//! The loops round the register tiles, cut so that what is read again stays in a cache.
//!
//! ```text
//! for passes       some hundred rows: queries and sums stay in L2
//!   for tiles      128 keys and values, which all rows of the pass meet while they are in L2
//!     for groups   a few blocks of rows, whose scores stay in L1 or L2
//!       for panels of keys, for blocks     scores; the panel stays in L1
//!       for blocks                         weights
//!       for spans of values, for blocks    sums; the span stays in L1
//! ```
//!
//! No cut changes a bit of the result.

use super::pack::Pack;
use super::steps::{Gather, HeadRows, MaskRows, Scatter, State, Weigh};
use super::tiles::{Scores, Sums};
use super::{Row, TILE};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Blocks of rows whose scores are worked on at once.
const GROUP: usize = 8;
/// Bytes of a slice of a panel of keys, at most: what shall stay in L1 while the blocks pass by.
const SLICE_BYTES: usize = 32 << 10;
/// Elements of the values in a span: of a tile 32 KiB, which shall stay in L1 while the blocks pass by.
const VALUE_SPAN: usize = 64;
/// Floats of queries in a pass, about: they and their sums stay in L2.
const PASS: usize = 48 << 10;

/// Which keys a token sees.
#[derive(Clone, Copy)]
pub(super) enum Sight {
    /// As two lists say: one past the last key of each token, and the first one (null for 0).
    Listed { limits: *const u32, starts: *const u32 },
    /// As positions say: token t stands at `t + keys − tokens`.
    Placed { tokens: usize, keys: usize, causal: bool, window: usize },
}

impl Sight {
    /// # Safety
    /// The lists have an entry for the token.
    unsafe fn of(&self, token: usize) -> Range<u32> {
        match *self {
            Sight::Listed { limits, starts } => {
                // SAFETY: the caller's promise.
                unsafe {
                    let start = if starts.is_null() { 0 } else { starts.add(token).read_unaligned() };
                    start..limits.add(token).read_unaligned()
                }
            }
            Sight::Placed { tokens, keys, causal, window } => {
                let up_to = (token + 1 + keys).saturating_sub(tokens);
                let end = if causal { up_to } else { keys };
                up_to.saturating_sub(window) as u32..end as u32
            }
        }
    }
}

/// Where keys and values stand.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// In a cache, as [`super::Layout`] has placed them.
    Cache { keys: *const f32, values: *const f32 },
    /// In rows, `key_stride` and `value_stride` floats apart; they are packed tile by tile.
    Plain { keys: *const f32, key_stride: usize, values: *const f32, value_stride: usize },
}

/// One key/value head and the queries that share it.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub queries: HeadRows,
    pub result: HeadRows,
    pub mask: Option<HeadRows>,
    /// Rows of queries.
    pub rows: usize,
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    pub sight: Sight,
    pub source: Source,
    /// [`scratch_len`] floats for as many rows or more, and for this source.
    pub scratch: *mut f32,
}

/// Rows of a pass, at most.
 fn pass_rows(row: &Row, head_dim: usize) -> usize {
    let group = GROUP * row.tiles.mr;
    (PASS / head_dim.max(1) / group).max(1) * group
}

/// A part of the scratch memory, in floats; each begins on a cache line.
struct Parts {
    queries: usize,
    scores: usize,
    sums: usize,
    weights: usize,
    /// Each of largest, shrink, starts and ends.
    entries: usize,
    keys: usize,
    values: usize,
}

impl Parts {
    /// `None` on overflow.
    fn new(row: &Row, head_dim: usize, rows: usize, plain: bool) -> Option<Self> {
        let rows = rows.min(pass_rows(row, head_dim));
        let line = |floats: usize| floats.checked_next_multiple_of(16);
        let width = head_dim.checked_next_multiple_of(row.tiles.lanes)?;
        let tile = if plain { TILE } else { 0 };
        Some(Self {
            queries: line(rows.checked_mul(head_dim)?)?,
            scores: rows.min(GROUP * row.tiles.mr) * TILE,
            sums: line(rows.checked_mul(width)?)?,
            weights: line(rows * row.tiles.lanes)?,
            entries: line(rows)?,
            keys: tile.checked_mul(head_dim)?,
            values: tile.checked_mul(width)?,
        })
    }

    fn total(&self) -> Option<usize> {
        let rest = [self.scores, self.sums, self.weights, 4 * self.entries, self.keys, self.values];
        rest.into_iter().try_fold(self.queries, usize::checked_add)
    }
}

/// Floats of scratch memory for calls of up to `rows` rows; `None` on overflow.
pub(super) fn scratch_len(row: &Row, head_dim: usize, rows: usize, plain: bool) -> Option<usize> {
    Parts::new(row, head_dim, rows, plain)?.total()
}

/// Keys and values of a tile.
#[derive(Clone, Copy)]
struct Tile {
    /// Position of the first.
    first: usize,
    keys: *const f32,
    values: *const f32,
    value_stride: usize,
    /// Where the next tile's keys will be read from.
    next: *const f32,
}

/// Rows that go through the register tiles together.
#[derive(Clone, Copy)]
struct Block {
    /// The first one in its pass.
    first: usize,
    rows: usize,
    /// Where its rows begin in the group's scores.
    scores: *mut f32,
    /// The columns of the tile that any of them sees.
    columns: Span,
}

/// A range that can be copied.
#[derive(Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
}

/// A call's work in one pass, and the parts of its scratch memory.
pub(super) struct Pass<'a> {
    row: &'a Row,
    call: &'a Call,
    /// Floats of a value's line in the sums.
    width: usize,
    queries: *mut f32,
    scores: *mut f32,
    keys: *mut f32,
    values: *mut f32,
    state: State,
}

/// Computes all rows of a call.
///
/// # Safety
/// The CPU has the row's level. All memory that the call names is there; the result overlaps nothing else but
/// the queries, and these only row on row.
pub(super) unsafe fn run(row: &Row, call: &Call) {
    let plain = matches!(call.source, Source::Plain { .. });
    let capacity = pass_rows(row, call.head_dim).min(call.rows);
    let sizes = Parts::new(row, call.head_dim, call.rows, plain);
    let (Some(parts), true) = (sizes, call.head_dim > 0) else { return };
    let mut at = call.scratch;
    let mut take = |floats: usize| {
        let part = at;
        at = at.wrapping_add(floats);
        part
    };
    let (queries, scores, sums) = (take(parts.queries), take(parts.scores), take(parts.sums));
    let width = row.layout(call.head_dim).value_stride();
    let state = State {
        sums,
        width,
        weights: take(parts.weights),
        largest: take(parts.entries),
        shrink: take(parts.entries),
        starts: take(parts.entries).cast(),
        ends: take(parts.entries).cast(),
    };
    let (keys, values) = (take(parts.keys), take(parts.values));
    let pass = Pass { row, call, width, queries, scores, keys, values, state };
    let mut first = 0;
    while first < call.rows {
        let count = capacity.min(call.rows - first);
        // SAFETY: the caller's promise; the scratch memory holds `capacity` rows.
        unsafe { pass.rows(first, count) };
        first += count;
    }
}

impl Pass<'_> {
    /// Some rows over all their tiles.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn rows(&self, first: usize, count: usize) {
        let Pass { row, call, state, queries, .. } = *self;
        let head_dim = call.head_dim;
        // SAFETY: the caller's promise, for every step.
        unsafe {
            let scale = call.scale * LOG2_E;
            (row.gather)(&Gather { source: call.queries, first, count, head_dim, scale, queries, state });
            let visible = self.look(first, count);
            let mut tile = visible.start / TILE * TILE;
            while tile < visible.end {
                let keys = TILE.min(visible.end - tile);
                self.tile(&self.fetch(tile, keys, count), first, count);
                tile += keys;
            }
            (row.scatter)(&Scatter { target: call.result, first, count, head_dim, state });
        }
    }

    /// Notes what each row sees; what any of them does.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn look(&self, first: usize, count: usize) -> Span {
        let (mut start, mut end) = (usize::MAX, 0);
        for i in 0..count {
            // SAFETY: the caller's promise; the scratch memory has an entry for each row.
            let seen = unsafe {
                let seen = self.call.sight.of((first + i) / self.call.queries.heads);
                self.state.starts.add(i).write(seen.start);
                self.state.ends.add(i).write(seen.end);
                seen
            };
            if !seen.is_empty() {
                (start, end) = (start.min(seen.start as usize), end.max(seen.end as usize));
            }
        }
        Span { start: start.min(end), end }
    }

    /// A tile's keys and values where the products can read them, for `rows` rows.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn fetch(&self, first: usize, count: usize, rows: usize) -> Tile {
        let head_dim = self.call.head_dim;
        let next = first + TILE;
        match self.call.source {
            Source::Cache { keys, values } => Tile {
                first,
                keys: keys.wrapping_add(first * head_dim),
                values: values.wrapping_add(first * self.width),
                value_stride: self.width,
                next: keys.wrapping_add(next * head_dim),
            },
            Source::Plain { keys, key_stride, values, value_stride } => {
                let (keys, values) = (keys.wrapping_add(first * key_stride), values.wrapping_add(first * value_stride));
                let (width, to) = (self.row.tiles.nr, self.keys);
                let pack = Pack { rows: keys, stride: key_stride, count, head_dim, to, width };
                // SAFETY: the caller's promise; the scratch memory holds a tile of each.
                unsafe { (self.row.pack_keys)(&pack) };
                // Few rows read the values where they are; only whole vectors can be read so.
                let in_place = rows <= self.row.tiles.mr && head_dim == self.width;
                if !in_place {
                    let (width, to) = (self.width, self.values);
                    let pack = Pack { rows: values, stride: value_stride, count, head_dim, to, width };
                    // SAFETY: as above.
                    unsafe { (self.row.pack_values)(&pack) };
                }
                let (values, value_stride) =
                    if in_place { (values, value_stride) } else { (self.values.cast_const(), self.width) };
                Tile { first, keys: self.keys, values, value_stride, next: self.keys }
            }
        }
    }

    /// All rows of a pass against a tile.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn tile(&self, tile: &Tile, first: usize, count: usize) {
        let total = count.div_ceil(self.row.tiles.mr);
        // As even as can be; those one row taller come first.
        let (height, taller) = (count / total, count % total);
        let mut blocks = [Block { first: 0, rows: 0, scores: self.scores, columns: Span::default() }; GROUP];
        let (mut n, mut scores) = (0, self.scores);
        for b in 0..total {
            let rows = height + usize::from(b < taller);
            let block_first = b * height + b.min(taller);
            // SAFETY: the caller's promise.
            let columns = unsafe { self.columns(tile.first, block_first, rows) };
            if columns.start < columns.end {
                blocks[n] = Block { first: block_first, rows, scores, columns };
                scores = scores.wrapping_add(rows * TILE);
                n += 1;
            }
            if n == GROUP || (b + 1 == total && n > 0) {
                // SAFETY: the caller's promise.
                unsafe {
                    self.score(tile, &blocks[..n]);
                    self.weigh(tile, first, &blocks[..n]);
                    self.sum(tile, &blocks[..n]);
                }
                (n, scores) = (0, self.scores);
            }
        }
    }

    /// The columns of the tile at `tile` that any of some rows sees.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn columns(&self, tile: usize, first: usize, rows: usize) -> Span {
        let (mut start, mut end) = (TILE, 0);
        for i in first..first + rows {
            // SAFETY: the row's entries are there.
            let seen = unsafe { self.state.seen(i) };
            let inside = |position: usize| position.clamp(tile, tile + TILE) - tile;
            let (begin, stop) = (inside(seen.start), inside(seen.end));
            if begin < stop {
                (start, end) = (start.min(begin), end.max(stop));
            }
        }
        Span { start, end }
    }

    /// Scores of a group of blocks, whose rows in `scores` lie as in the group.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn score(&self, tile: &Tile, blocks: &[Block]) {
        let tiles = self.row.tiles;
        let head_dim = self.call.head_dim;
        let panel_stride = tiles.nr * head_dim;
        let slice = if blocks.len() == 1 { head_dim } else { (SLICE_BYTES / 4 / tiles.nr).min(head_dim) };
        let (begin, end) = blocks.iter().fold((TILE, 0), |(begin, end), block| {
            (begin.min(block.columns.start), end.max(block.columns.end))
        });
        let mut column = begin / tiles.nr * tiles.nr;
        while column < end {
            let mut taken = tiles.nr;
            for depth in (0..head_dim).step_by(slice) {
                for block in blocks {
                    let Span { start, end } = block.columns;
                    if end <= column || start >= column + tiles.nr {
                        continue;
                    }
                    let height = &tiles.heights[block.rows - 1];
                    let scores = Scores {
                        queries: self.queries.wrapping_add(block.first * head_dim + depth),
                        query_stride: head_dim,
                        depth: slice.min(head_dim - depth),
                        keys: tile.keys.wrapping_add(column * head_dim + depth * tiles.nr),
                        key_stride: tiles.nr,
                        panel_stride,
                        scores: block.scores.wrapping_add(column),
                        resume: depth > 0,
                        next: tile.values.wrapping_add(column * tile.value_stride).cast(),
                    };
                    // SAFETY: the caller's promise.
                    unsafe {
                        if blocks.len() == 1 && end - column > (height.group - 1) * tiles.nr {
                            (height.panels)(&scores);
                            taken = height.group * tiles.nr;
                        } else {
                            let fits = |(vectors, _): &&(usize, _)| *vectors * tiles.lanes >= end - column;
                            let (_, narrow) = height.scores.iter().find(fits).unwrap_or(&height.scores[2]);
                            narrow(&scores);
                        }
                    }
                }
            }
            column += taken;
        }
    }

    /// Turns a group's scores into weights.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn weigh(&self, tile: &Tile, first: usize, blocks: &[Block]) {
        for block in blocks {
            let step = Weigh {
                scores: block.scores,
                rows: block.rows,
                tile: tile.first,
                columns: block.columns.start..block.columns.end,
                mask: self.call.mask.map(|rows| MaskRows { rows, first: first + block.first }),
                state: self.state.from(block.first, self.row.tiles.lanes),
            };
            // SAFETY: the caller's promise.
            unsafe { (self.row.weigh)(&step) };
        }
    }

    /// Adds a group's weights · values to its sums.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn sum(&self, tile: &Tile, blocks: &[Block]) {
        let tiles = self.row.tiles;
        let span = if blocks.len() == 1 { self.width } else { VALUE_SPAN };
        for begin in (0..self.width).step_by(span) {
            for block in blocks {
                let Span { start, end } = block.columns;
                let state = self.state.from(block.first, tiles.lanes);
                let weights = block.scores.wrapping_add(start);
                let mut at = begin;
                while at < (begin + span).min(self.width) {
                    let left = ((begin + span).min(self.width) - at) / tiles.lanes;
                    let fits = |(vectors, _): &&(usize, _)| *vectors <= left;
                    let sums = &tiles.heights[block.rows - 1].sums;
                    let (vectors, run) = sums.iter().find(fits).unwrap_or(&sums[3]);
                    let step = Sums {
                        weights,
                        keys: end - start,
                        values: tile.values.wrapping_add(start * tile.value_stride + at),
                        value_stride: tile.value_stride,
                        sums: state.sums.wrapping_add(at),
                        sum_stride: self.width,
                        shrink: state.shrink,
                        next: tile.next.wrapping_add(at * TILE).cast(),
                    };
                    // SAFETY: the caller's promise.
                    unsafe { run(&step) };
                    at += vectors * tiles.lanes;
                }
            }
        }
    }
}
