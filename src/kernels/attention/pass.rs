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
/// Floats of queries in a pass, about: they and their sums stay in L2.
const PASS: usize = 48 << 10;
/// Rows of a pass, at most.
const PASS_ROWS: usize = 768;

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
    pub unsafe fn of(&self, token: usize) -> Range<u32> {
        match *self {
            Sight::Listed { limits, starts } => {
                // SAFETY: the caller's promise.
                unsafe {
                    let start = if starts.is_null() { 0 } else { starts.add(token).read_unaligned() };
                    start..limits.add(token).read_unaligned()
                }
            }
            Sight::Placed { tokens, keys, causal, window } => {
                // One past the token's own position; 0 where it stands before the first key.
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
    /// Asks for a cache's keys and values before they are needed.
    pub ahead: bool,
    /// [`scratch_len`] floats for as many rows or more, and for this source.
    pub scratch: *mut f32,
}

/// Rows of a pass, at most.
fn pass_rows(row: &Row, head_dim: usize) -> usize {
    let group = GROUP * row.tiles.mr;
    ((PASS / head_dim.max(1)).min(PASS_ROWS) / group).max(1) * group
}

/// Whether so few rows read plain values where they are; only whole vectors can be read so.
fn in_place(row: &Row, head_dim: usize, rows: usize) -> bool {
    rows <= row.tiles.mr && head_dim.is_multiple_of(row.tiles.lanes)
}

/// Sizes of the parts of the scratch memory in floats; each begins on a cache line.
struct Parts {
    queries: usize,
    scores: usize,
    sums: usize,
    weights: usize,
    /// Each of largest, shrink, starts, ends, and what blocks see.
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
        let copied = if in_place(row, head_dim, rows) { 0 } else { tile };
        Some(Self {
            queries: line(rows.checked_mul(head_dim)?)?,
            scores: rows.min(GROUP * row.tiles.mr) * TILE,
            sums: line(rows.checked_mul(width)?)?,
            weights: line(rows * row.tiles.lanes)?,
            entries: line(rows)?,
            keys: tile.checked_mul(head_dim)?,
            values: copied.checked_mul(width)?,
        })
    }

    fn total(&self) -> Option<usize> {
        let rest = [self.scores, self.sums, self.weights, 6 * self.entries, self.keys, self.values];
        rest.into_iter().try_fold(self.queries, usize::checked_add)
    }
}

/// Floats of scratch memory for calls of up to `rows` rows; `None` on overflow.
pub(super) fn scratch_len(row: &Row, head_dim: usize, rows: usize, plain: bool) -> Option<usize> {
    Parts::new(row, head_dim, rows, plain)?.total()
}

/// The values of a tile.
#[derive(Clone, Copy)]
struct Values {
    first: *const f32,
    /// Floats from one value to the next where they stand in rows; 0 where they stand in spans.
    stride: usize,
}

impl Values {
    /// Where a span begins, and how far its lines are apart.
    fn span(&self, span: &Range<usize>) -> (*const f32, usize) {
        match self.stride {
            0 => (self.first.wrapping_add(span.start * TILE), span.end - span.start),
            stride => (self.first.wrapping_add(span.start), stride),
        }
    }
}

/// Keys and values of a tile.
#[derive(Clone, Copy)]
struct Tile {
    /// Position of the first.
    first: usize,
    keys: *const f32,
    values: Values,
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
    /// The first key that any row of a block sees, and one past the last, of each block.
    seen: *mut Seen,
}

/// What some rows see: from the first key of any of them to the last.
#[derive(Clone, Copy)]
struct Seen {
    start: u32,
    end: u32,
}

impl Seen {
    const NOTHING: Self = Self { start: u32::MAX, end: 0 };

    fn add(&mut self, keys: &Range<u32>) {
        if !keys.is_empty() {
            (self.start, self.end) = (self.start.min(keys.start), self.end.max(keys.end));
        }
    }
}

/// The rows of a pass in blocks of at most `most`, as even as can be; those one row taller come first.
fn blocks(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let total = rows.div_ceil(most);
    let (height, taller) = (rows / total.max(1), rows % total.max(1));
    (0..total).map(move |b| {
        let first = b * height + b.min(taller);
        first..first + height + usize::from(b < taller)
    })
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
    let seen = take(2 * parts.entries).cast();
    let (keys, values) = (take(parts.keys), take(parts.values));
    let pass = Pass { row, call, width, queries, scores, keys, values, state, seen };
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

    /// Notes what each row and block sees; what any of them does.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn look(&self, first: usize, count: usize) -> Span {
        let heads = self.call.queries.heads;
        let (mut token, mut head) = (first / heads, first % heads);
        let mut whole = Seen::NOTHING;
        for (b, rows) in blocks(count, self.row.tiles.mr).enumerate() {
            let mut block = Seen::NOTHING;
            for i in rows {
                // SAFETY: the caller's promise; the scratch memory has an entry for each row and block.
                unsafe {
                    let seen = self.call.sight.of(token);
                    self.state.starts.add(i).write(seen.start);
                    self.state.ends.add(i).write(seen.end);
                    block.add(&seen);
                }
                head += 1;
                if head == heads {
                    (token, head) = (token + 1, 0);
                }
            }
            // SAFETY: as above.
            unsafe { self.seen.add(b).write(block) };
            whole.add(&(block.start..block.end));
        }
        Span { start: whole.start.min(whole.end) as usize, end: whole.end as usize }
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
                values: Values { first: values.wrapping_add(first * self.width), stride: 0 },
                next: keys.wrapping_add(next * head_dim),
            },
            Source::Plain { keys, key_stride, values, value_stride } => {
                let (keys, values) =
                    (keys.wrapping_add(first * key_stride), values.wrapping_add(first * value_stride));
                let (width, to) = (self.row.tiles.nr, self.keys);
                let pack = Pack { rows: keys, stride: key_stride, count, head_dim, to, width };
                // SAFETY: the caller's promise; the scratch memory holds a tile of each.
                unsafe { (self.row.pack_keys)(&pack) };
                let in_place = in_place(self.row, head_dim, rows);
                if !in_place {
                    for span in self.row.layout(head_dim).value_spans() {
                        let elements = span.end.min(head_dim) - span.start;
                        let pack = Pack {
                            rows: values.wrapping_add(span.start),
                            stride: value_stride,
                            count,
                            head_dim: elements,
                            to: self.values.wrapping_add(span.start * TILE),
                            width: span.end - span.start,
                        };
                        // SAFETY: as above.
                        unsafe { (self.row.pack_values)(&pack) };
                    }
                }
                let values = if in_place {
                    Values { first: values, stride: value_stride }
                } else {
                    Values { first: self.values, stride: 0 }
                };
                Tile { first, keys: self.keys, values, next: self.keys }
            }
        }
    }

    /// All rows of a pass against a tile.
    ///
    /// # Safety
    /// As [`run`].
    unsafe fn tile(&self, tile: &Tile, first: usize, count: usize) {
        let none = Block { first: 0, rows: 0, scores: self.scores, columns: Span::default() };
        let mut group = [none; GROUP];
        let (mut n, mut scores) = (0, self.scores);
        let mut ahead = blocks(count, self.row.tiles.mr).enumerate().peekable();
        while let Some((b, rows)) = ahead.next() {
            // SAFETY: the scratch memory has an entry for each block.
            let seen = unsafe { self.seen.add(b).read() };
            let inside =
                |position: u32| (position as usize).clamp(tile.first, tile.first + TILE) - tile.first;
            let columns = Span { start: inside(seen.start), end: inside(seen.end) };
            if columns.start < columns.end {
                group[n] = Block { first: rows.start, rows: rows.len(), scores, columns };
                scores = scores.wrapping_add(rows.len() * TILE);
                n += 1;
            }
            if n == GROUP || (n > 0 && ahead.peek().is_none()) {
                // SAFETY: the caller's promise.
                unsafe {
                    self.score(tile, &group[..n]);
                    self.weigh(tile, first, &group[..n]);
                    self.sum(tile, &group[..n]);
                }
                (n, scores) = (0, self.scores);
            }
        }
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
                        next: self.ahead(blocks, tile.values.first.wrapping_add(column * head_dim)),
                    };
                    // SAFETY: the caller's promise.
                    unsafe {
                        if blocks.len() == 1 && end - column > (height.group - 1) * tiles.nr {
                            (height.panels)(&scores);
                            taken = height.group * tiles.nr;
                        } else {
                            let vectors = (end - column).min(tiles.nr).div_ceil(tiles.lanes);
                            (height.scores[vectors - 1])(&scores);
                        }
                    }
                }
            }
            column += taken;
        }
    }

    /// What a register tile shall ask for ahead of time, if anything. Several blocks read from L2 anyway, all
    /// but the first of them.
    fn ahead(&self, blocks: &[Block], next: *const f32) -> *const u8 {
        if self.call.ahead && blocks.len() == 1 { next.cast() } else { std::ptr::null() }
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
        let layout = self.row.layout(self.call.head_dim);
        for span in layout.value_spans() {
            let width = span.end - span.start;
            for block in blocks {
                let Span { start, end } = block.columns;
                let state = self.state.from(block.first, tiles.lanes);
                let height = &tiles.heights[block.rows - 1];
                let mut at = 0;
                while at < width {
                    let left = (width - at) / tiles.lanes;
                    // Two tiles of middling width are faster than a wide one and one of a single vector.
                    let spare = usize::from(height.widest > 2 && left == height.widest + 1);
                    let vectors = left.min(height.widest - spare);
                    let (values, stride) = tile.values.span(&span);
                    let step = Sums {
                        weights: block.scores.wrapping_add(start),
                        keys: end - start,
                        values: values.wrapping_add(start * stride + at),
                        value_stride: stride,
                        sums: state.sums.wrapping_add(span.start + at),
                        sum_stride: self.width,
                        shrink: state.shrink,
                        next: self.ahead(blocks, tile.next.wrapping_add((span.start + at) * TILE)),
                    };
                    // SAFETY: the caller's promise.
                    unsafe { (height.sums[vectors - 1])(&step) };
                    at += vectors * tiles.lanes;
                }
            }
        }
    }
}
