//! The loops round the register tiles, cut so that memory that is read again stays in a cache.
//!
//! ```text
//! for passes         some hundred rows: queries and sums stay in L2
//!   for parts        of the sequence, 256 positions: joined in their order
//!     for tiles      128 keys and values, which all rows of the pass meet while they are in L2
//!       for groups   a few blocks of rows, whose scores stay in L1 or L2
//!         for panels of keys, for blocks     scores; the panel stays in L1
//!         for blocks                         weights
//!         for spans of values, for blocks    sums; the span stays in L1
//! ```
//!
//! No cut but that into parts changes a bit of the result.

use super::adjust::{Cap, ScoreArgs, ScoreRows, Sink, Slope};
use super::cache::Widen;
use super::layout::RUN;
use super::pack::Pack;
use super::scratch::{self, GROUP, Scratch, in_place, pass_rows, widens};
use super::steps::{Clear, Gather, HeadRows, Join, LogSums, MaskRows, Scatter, State, Weigh};
use super::tiles::{Scores, Sums, Tiles};
use super::{AttentionArgs, CacheType, HeadTiles, Kernel, Layout, PART, TILE};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Bytes of a slice of a panel of keys, at most: so much stays in L1 while the blocks pass by.
const SLICE_BYTES: usize = 32 << 10;

/// Which keys a token sees.
#[derive(Clone, Copy)]
pub(super) enum Sight {
    /// As two lists say: one past the last key of each token, and the first one (null for 0).
    Listed { limits: *const u32, starts: *const u32 },
    /// As positions say: token t stands at `t + keys − tokens`.
    Placed { tokens: usize, keys: usize, causal: bool, window: usize },
}

impl Sight {
    /// The keys that a token, one of the call's, sees.
    pub fn of(&self, token: usize) -> Range<u32> {
        match *self {
            Sight::Listed { limits, starts } => {
                // SAFETY: the caller of `Kernel::run` promises lists with an entry for each token.
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

/// The places of keys and values.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// In a cache, in the places of [`super::Layout`].
    Cache { keys: HeadTiles, values: HeadTiles },
    /// In rows, `key_stride` and `value_stride` floats apart; they are packed tile by tile.
    Plain { keys: *const f32, key_stride: usize, values: *const f32, value_stride: usize },
}

/// One key/value head and the queries that share it.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub queries: HeadRows,
    pub result: HeadRows,
    /// ln Σ e^score of (token, head) is written at `log_sums + head · log_sum_stride + token`; or null.
    pub log_sums: *mut f32,
    pub log_sum_stride: usize,
    pub mask: Option<HeadRows>,
    /// Rows of queries.
    pub rows: usize,
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Further changes to the scores.
    pub scores: ScoreArgs,
    pub sight: Sight,
    pub source: Source,
    /// Prefetches a cache's keys and values.
    pub ahead: bool,
    /// [`scratch::len`] floats for as many rows or more, and for this source.
    pub scratch: *mut f32,
}

/// The values of a tile.
#[derive(Clone, Copy)]
struct Values {
    first: *const u8,
    /// Floats from one value to the next where they stand in plain rows; 0 where they stand in spans.
    stride: usize,
}

/// The start of a span's values, the number of elements between their lines, and their factors.
#[derive(Clone, Copy)]
struct Lines {
    first: *const u8,
    stride: usize,
    factors: *const f32,
}

impl Values {
    fn span(&self, layout: &Layout, span: &Range<usize>) -> Lines {
        if self.stride > 0 {
            let first = self.first.wrapping_add(span.start * size_of::<f32>());
            return Lines { first, stride: self.stride, factors: std::ptr::null() };
        }
        let factors = self.first.wrapping_add(layout.value_span(span.start));
        let first = factors.wrapping_add(layout.value_factors());
        Lines { first, stride: span.len(), factors: factors.cast() }
    }
}

/// Keys and values of a tile.
#[derive(Clone, Copy)]
struct Tile {
    /// Position of the first.
    first: usize,
    keys: *const u8,
    values: Values,
    /// The next tile's keys, if there is one and it is to be prefetched; else null.
    next: *const u8,
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

/// A call's work in one pass, and its scratch memory.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    kernel: &'a Kernel,
    call: &'a Call,
    /// The tiles that read keys and values, and the layout in which they read them.
    tiles: &'static Tiles,
    layout: Layout,
    scratch: Scratch,
    /// The state that the tiles add to.
    state: State,
    /// The first key that any row of a block sees, and one past the last, of each block.
    seen: *mut Seen,
}

/// The keys that some rows see: from the first key of any of them to the last.
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
/// All memory that the call names is there; the result overlaps nothing else but the queries, and these only row on
/// row.
pub(super) unsafe fn run(kernel: &Kernel, call: &Call) {
    let Some(pass) = Pass::new(kernel, call) else { return };
    for rows in pass.cut() {
        pass.rows(rows.start, rows.len());
    }
}

impl Kernel {
    /// Computes the contributions of some parts of the sequence to the result: parts of [`PART`] positions each,
    /// counted from 0, and [`Kernel::part_len`] floats for each, one after the other from `to` on. Nothing is written
    /// to `out`. No page is read of parts before the first position that any token sees, or after the last one.
    ///
    /// # Safety
    /// As [`Kernel::run`]; `to` is writable for as many floats.
    #[doc(hidden)]
    pub unsafe fn run_parts(&self, args: &AttentionArgs, parts: Range<usize>, to: *mut f32) {
        let (kernel, call) = (self, &args.call());
        let Some(pass) = Pass::new(kernel, call) else { return };
        let Some(len) = scratch::part_len(kernel, call.head_dim, call.rows) else { return };
        for rows in pass.cut() {
            let Span { start, end } = pass.begin(rows.start, rows.len());
            let visible = Span { start, end: end.min(parts.end * PART) };
            for (i, part) in parts.clone().enumerate() {
                let entries = pass.scratch.part;
                let kept =
                    scratch::kept(kernel, call.head_dim, call.rows, to.wrapping_add(i * len), &entries);
                let Some(kept) = kept else { return };
                let kept = kept.from(rows.start, kernel.tiles.lanes);
                let State { shrink, starts, ends, .. } = entries;
                let state = State { shrink, starts, ends, ..kept };
                Pass { state, ..pass }.part(part, visible, rows.start, rows.len());
            }
        }
    }

    /// Writes the result from its parts: `count` of them that follow each other in the sequence, one after the
    /// other from `parts` on. Where the first is that of the first position that any token sees, `starts / PART`,
    /// and the last that of the last one, they have the bits of [`Kernel::run`]. Parts before and after these may be
    /// among them, and add zeros. Without any part, each row is zeros.
    ///
    /// # Safety
    /// As [`Kernel::run`] of the result; `parts` holds the parts as [`Kernel::run_parts`] writes them, and they are
    /// overwritten. There is room for one part, also where `count` is 0.
    #[doc(hidden)]
    pub unsafe fn join_parts(&self, args: &AttentionArgs, parts: *mut f32, count: usize) {
        let (kernel, call) = (self, &args.call());
        let (head_dim, rows) = (call.head_dim, call.rows);
        let Some(len) = scratch::part_len(kernel, head_dim, rows) else { return };
        let bare = State::bare(head_dim.next_multiple_of(kernel.tiles.lanes));
        let Some(total) = scratch::kept(kernel, head_dim, rows, parts, &bare) else { return };
        if count == 0 {
            kernel.clear.run(&Clear { count: rows, state: total });
        }
        for i in 1..count {
            let part = scratch::kept(kernel, head_dim, rows, parts.wrapping_add(i * len), &bare);
            let Some(part) = part else { return };
            kernel.join.run(&Join { part, total, count: rows });
        }
        finish(kernel, call, 0, rows, total);
    }
}

/// Writes some rows of the result from their state over all keys.
fn finish(kernel: &Kernel, call: &Call, first: usize, count: usize, state: State) {
    let &Call { result: target, head_dim, scores: ScoreArgs { sinks, .. }, .. } = call;
    if !sinks.is_null() {
        kernel.sink.run(&Sink { first, heads: target.heads, count, sinks, state });
    }
    if !call.log_sums.is_null() {
        let (heads, to, stride) = (target.heads, call.log_sums, call.log_sum_stride);
        kernel.log_sums.run(&LogSums { first, heads, count, to, stride, state });
    }
    kernel.scatter.run(&Scatter { target, first, count, head_dim, state });
}

impl<'a> Pass<'a> {
    /// `None` where there is nothing to compute, or no memory could hold it.
    fn new(kernel: &'a Kernel, call: &'a Call) -> Option<Self> {
        let plain = matches!(call.source, Source::Plain { .. });
        let scratch = Scratch::new(kernel, call.head_dim, call.rows, plain, call.scratch)?;
        let layout = kernel.layout(call.head_dim);
        let (tiles, layout) = if plain || widens(kernel, call.rows) {
            (kernel.tiles, Layout { stored: CacheType::F32, ..layout })
        } else {
            (kernel.direct, layout)
        };
        let seen = scratch.seen.cast();
        let pass = Pass { kernel, call, tiles, layout, scratch, state: scratch.total, seen };
        (call.head_dim > 0).then_some(pass)
    }
}

impl Pass<'_> {
    /// The rows of each pass.
    fn cut(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, most) = (self.call.rows, pass_rows(self.kernel, self.call.head_dim));
        (0..rows).step_by(most).map(move |first| first..(first + most).min(rows))
    }

    /// Computes some rows over all keys that they see.
    fn rows(&self, first: usize, count: usize) {
        let Pass { kernel, call, .. } = *self;
        let Scratch { total, part, .. } = self.scratch;
        let visible = self.begin(first, count);
        let parts = visible.start / PART..visible.end.div_ceil(PART);
        if parts.is_empty() {
            kernel.clear.run(&Clear { count, state: total });
        }
        for number in parts.clone() {
            if number == parts.start {
                self.part(number, visible, first, count);
            } else {
                Pass { state: part, ..*self }.part(number, visible, first, count);
                kernel.join.run(&Join { part, total, count });
            }
        }
        finish(kernel, call, first, count, total);
    }

    /// Fetches the queries of some rows, and returns the keys that any of them sees.
    fn begin(&self, first: usize, count: usize) -> Span {
        let Call { queries: source, head_dim, scale, .. } = *self.call;
        let (scale, queries) = (scale * LOG2_E, self.scratch.queries);
        self.kernel.gather.run(&Gather { source, first, count, head_dim, scale, queries });
        self.look(first, count)
    }

    /// Computes the state that some rows have from one part of the sequence, in `state`.
    fn part(&self, number: usize, visible: Span, first: usize, count: usize) {
        let end = visible.end.min((number + 1) * PART);
        let mut tile = (visible.start / TILE * TILE).max(number * PART);
        self.kernel.clear.run(&Clear { count, state: self.state });
        while tile < end {
            let keys = TILE.min(end - tile);
            self.tile(&self.fetch(tile, keys, count, visible.end), first, count);
            tile += keys;
        }
    }

    /// Notes the keys that each row and each block sees, and returns those that any of them sees.
    fn look(&self, first: usize, count: usize) -> Span {
        let heads = self.call.queries.heads;
        let (mut token, mut head) = (first / heads, first % heads);
        let mut whole = Seen::NOTHING;
        for (b, rows) in blocks(count, self.tiles.mr).enumerate() {
            let mut block = Seen::NOTHING;
            for i in rows {
                let seen = self.call.sight.of(token);
                block.add(&seen);
                // SAFETY: the scratch memory has an entry for each row of the pass.
                unsafe {
                    self.state.starts.add(i).write(seen.start);
                    self.state.ends.add(i).write(seen.end);
                }
                head += 1;
                if head == heads {
                    (token, head) = (token + 1, 0);
                }
            }
            // SAFETY: the scratch memory has an entry for each block of the pass.
            unsafe { self.seen.add(b).write(block) };
            whole.add(&(block.start..block.end));
        }
        Span { start: whole.start.min(whole.end) as usize, end: whole.end as usize }
    }

    /// A tile's keys and values where the products can read them, for `rows` rows that see no further than `end`.
    fn fetch(&self, first: usize, count: usize, rows: usize, end: usize) -> Tile {
        let (kernel, scratch) = (self.kernel, &self.scratch);
        let spans = |first: *const f32| Values { first: first.cast(), stride: 0 };
        match self.call.source {
            Source::Cache { keys, values } => {
                let layout = kernel.layout(self.call.head_dim);
                let number = first / TILE;
                // Tables have entries for the tiles that rows see, and for those in between.
                let (from, values) = (keys.tile(number), values.tile(number));
                if layout != self.layout {
                    kernel.widen_keys.run(&Widen { layout, from, count, to: scratch.keys });
                    kernel.widen_values.run(&Widen { layout, from: values, count, to: scratch.values });
                    let keys = scratch.keys.cast_const().cast();
                    return Tile { first, keys, values: spans(scratch.values), next: std::ptr::null() };
                }
                // The tile after the last one has no entry in the table.
                let next = if self.call.ahead && first + TILE < end {
                    keys.tile(number + 1)
                } else {
                    std::ptr::null_mut()
                };
                Tile { first, keys: from, values: Values { first: values, stride: 0 }, next }
            }
            Source::Plain { keys, key_stride, values, value_stride } => {
                let head_dim = self.call.head_dim;
                let (keys, values) =
                    (keys.wrapping_add(first * key_stride), values.wrapping_add(first * value_stride));
                let (width, to) = (self.tiles.nr, scratch.keys);
                let pack = Pack { rows: keys, stride: key_stride, count, head_dim, to, width };
                kernel.pack_keys.run(&pack);
                let in_place = in_place(kernel, head_dim, rows);
                if !in_place {
                    for span in self.layout.value_spans() {
                        let elements = span.end.min(head_dim) - span.start;
                        let pack = Pack {
                            rows: values.wrapping_add(span.start),
                            stride: value_stride,
                            count,
                            head_dim: elements,
                            to: scratch.values.wrapping_add(span.start * TILE),
                            width: span.end - span.start,
                        };
                        kernel.pack_values.run(&pack);
                    }
                }
                let values = if in_place {
                    Values { first: values.cast(), stride: value_stride }
                } else {
                    spans(scratch.values)
                };
                Tile { first, keys: scratch.keys.cast_const().cast(), values, next: std::ptr::null() }
            }
        }
    }

    /// Adds a tile's keys and values to the state of all rows of a pass.
    fn tile(&self, tile: &Tile, first: usize, count: usize) {
        let none = Block { first: 0, rows: 0, scores: self.scratch.scores, columns: Span::default() };
        let mut group = [none; GROUP];
        let (mut n, mut scores) = (0, self.scratch.scores);
        let mut ahead = blocks(count, self.tiles.mr).enumerate().peekable();
        while let Some((b, rows)) = ahead.next() {
            // SAFETY: `look` has written an entry for each block of the pass.
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
                self.score(tile, &group[..n]);
                self.weigh(tile, first, &group[..n]);
                self.sum(tile, &group[..n]);
                (n, scores) = (0, self.scratch.scores);
            }
        }
    }

    /// Computes the scores of a group of blocks, whose rows in `scores` lie as in the group.
    fn score(&self, tile: &Tile, blocks: &[Block]) {
        let (tiles, layout, head_dim) = (self.tiles, &self.layout, self.call.head_dim);
        let panel_stride = tiles.nr * layout.key_position();
        let slice = match layout.stored {
            CacheType::Q8_0 => RUN,
            _ if blocks.len() == 1 => head_dim,
            stored => (SLICE_BYTES / stored.bytes() / tiles.nr).min(head_dim),
        };
        let (begin, end) = blocks.iter().fold((TILE, 0), |(begin, end), block| {
            (begin.min(block.columns.start), end.max(block.columns.end))
        });
        let mut column = begin / tiles.nr * tiles.nr;
        while column < end {
            let mut taken = tiles.nr;
            for depth in (0..head_dim).step_by(slice) {
                let place = column * layout.key_position() + layout.key_run(depth);
                let factors = tile.keys.wrapping_add(place);
                for block in blocks {
                    let Span { start, end } = block.columns;
                    if end <= column || start >= column + tiles.nr {
                        continue;
                    }
                    let height = &tiles.heights[block.rows - 1];
                    let scores = Scores {
                        queries: self.scratch.queries.wrapping_add(block.first * head_dim + depth),
                        query_stride: head_dim,
                        depth: slice.min(head_dim - depth),
                        keys: factors.wrapping_add(layout.key_factors()),
                        factors: factors.cast(),
                        key_stride: tiles.nr,
                        panel_stride,
                        scores: block.scores.wrapping_add(column),
                        resume: depth > 0,
                        next: self.ahead(blocks, tile.values.first, place),
                    };
                    if blocks.len() == 1 && end - column > (height.group - 1) * tiles.nr {
                        height.panels.run(&scores);
                        taken = height.group * tiles.nr;
                    } else {
                        let vectors = (end - column).min(tiles.nr).div_ceil(tiles.lanes);
                        height.scores[vectors - 1].run(&scores);
                    }
                }
            }
            column += taken;
        }
    }

    /// The memory that a register tile prefetches, if any: from so many bytes behind `next` on. Of several blocks, all
    /// but the first read from L2 anyway.
    fn ahead(&self, blocks: &[Block], next: *const u8, bytes: usize) -> *const u8 {
        if self.call.ahead && blocks.len() == 1 && !next.is_null() {
            next.wrapping_add(bytes)
        } else {
            std::ptr::null()
        }
    }

    /// Changes the scores of a block before its mask.
    fn adjust(&self, tile: &Tile, first: usize, block: &Block) {
        let ScoreArgs { soft_cap, slopes, position, .. } = self.call.scores;
        let Span { start, end } = block.columns;
        let at = ScoreRows { scores: block.scores, rows: block.rows, columns: start..end };
        if soft_cap > 0.0 {
            self.kernel.cap.run(&Cap { at: at.clone(), soft_cap });
        }
        if !slopes.is_null() {
            let (first, heads) = (first + block.first, self.call.queries.heads);
            self.kernel.slope.run(&Slope { at, tile: tile.first, first, heads, slopes, position });
        }
    }

    /// Turns a group's scores into weights.
    fn weigh(&self, tile: &Tile, first: usize, blocks: &[Block]) {
        for block in blocks {
            self.adjust(tile, first, block);
            let step = Weigh {
                scores: block.scores,
                rows: block.rows,
                tile: tile.first,
                columns: block.columns.start..block.columns.end,
                mask: self.call.mask.map(|rows| MaskRows { rows, first: first + block.first }),
                state: self.state.from(block.first, self.tiles.lanes),
            };
            self.kernel.weigh.run(&step);
        }
    }

    /// Adds a group's weights · values to its sums.
    fn sum(&self, tile: &Tile, blocks: &[Block]) {
        let (tiles, layout) = (self.tiles, &self.layout);
        for span in layout.value_spans() {
            let width = span.end - span.start;
            let Lines { first: values, stride, factors } = tile.values.span(layout, &span);
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
                    let asked = layout.value_span(span.start) + at * TILE * layout.stored.bytes();
                    let step = Sums {
                        weights: block.scores.wrapping_add(start),
                        keys: end - start,
                        values: values.wrapping_add((start * stride + at) * layout.stored.bytes()),
                        factors: factors.wrapping_add(start),
                        value_stride: stride,
                        sums: state.sums.wrapping_add(span.start + at),
                        sum_stride: state.width,
                        shrink: state.shrink,
                        next: self.ahead(blocks, tile.next, asked),
                    };
                    height.sums[vectors - 1].run(&step);
                    at += vectors * tiles.lanes;
                }
            }
        }
    }
}
