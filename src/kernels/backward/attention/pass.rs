//! The loops round the register tiles.
//!
//! ```text
//! for tiles of keys        128: keys and values packed, their gradients in scratch memory
//!   for query heads        that share the keys
//!     for tiles of tokens  96: queries, the result's gradient and that of the queries in scratch memory
//!       q·kᵀ and do·vᵀ     panel by panel
//!       weights and slopes
//!       dv += weightsᵀ·do, dk += slopesᵀ·q, dq += slopes·k
//! ```
//!
//! A causal tile on the diagonal is computed up to what each block of rows sees. No cut changes a bit of the result.

use super::steps::{Level, Weigh, clear, scatter};
use super::tile::{MAX_ROWS, Product};
use super::{AttentionBackward, AttentionBackwardArgs, KEYS, LINE, QUERIES, Share};
use crate::kernels::attention::pack::Pack;
use std::ops::Range;

/// Places of the scratch memory.
#[derive(Clone, Copy)]
struct Scratch {
    /// A tile's keys, and its values, in panels.
    key_panels: *mut f32,
    value_panels: *mut f32,
    /// Rows of a tile: keys, and gradients of keys and values.
    keys: *mut f32,
    dk: *mut f32,
    dv: *mut f32,
    /// Rows of a tile of tokens: queries, their gradient, and the result's gradient.
    q: *mut f32,
    dq: *mut f32,
    d_o: *mut f32,
    /// q·k, then weights; rows of [`LINE`] floats.
    scores: *mut f32,
    /// do·v, then slopes.
    slopes: *mut f32,
    /// Σ o·do of each head's tokens.
    levels: *mut f32,
}

/// Floats of the scratch memory; `None` on overflow. All parts begin on a cache line where the first does.
pub(super) fn scratch_len(lanes: usize, tokens: usize, heads: usize, head_dim: usize) -> Option<usize> {
    let width = head_dim.checked_next_multiple_of(lanes.max(16))?;
    let rows = width.checked_mul(5 * KEYS + 3 * QUERIES)?;
    let levels = tokens.checked_mul(heads)?.checked_next_multiple_of(16)?;
    rows.checked_add(2 * QUERIES * LINE)?.checked_add(levels)
}

impl Scratch {
    /// # Panics
    /// Never where [`scratch_len`] has a length.
    fn new(first: *mut f32, width: usize) -> Self {
        let mut at = first;
        let mut take = |floats: usize| {
            let part = at;
            at = at.wrapping_add(floats.next_multiple_of(16));
            part
        };
        Self {
            key_panels: take(KEYS * width),
            value_panels: take(KEYS * width),
            keys: take(KEYS * width),
            dk: take(KEYS * width),
            dv: take(KEYS * width),
            q: take(QUERIES * width),
            dq: take(QUERIES * width),
            d_o: take(QUERIES * width),
            scores: take(QUERIES * LINE),
            slopes: take(QUERIES * LINE),
            levels: take(0),
        }
    }
}

/// A call and its scratch memory.
struct Pass<'a> {
    kernel: &'a AttentionBackward,
    args: &'a AttentionBackwardArgs,
    scratch: Scratch,
    /// Floats of a row in scratch memory: `head_dim` in whole vectors.
    width: usize,
    /// Whether gradients of queries are computed, and those of keys and values.
    queries: bool,
    keys: bool,
}

/// A tile of keys and one of tokens, of one head.
#[derive(Clone, Copy)]
struct Tile {
    head: usize,
    /// First token, and number of tokens.
    token: usize,
    rows: usize,
    /// First key, and number of keys.
    key: usize,
    keys: usize,
}

/// Computes the gradients.
///
/// # Safety
/// All memory that `args` names is there, as [`AttentionBackward::run`] demands.
pub(super) unsafe fn run(kernel: &AttentionBackward, args: &AttentionBackwardArgs) {
    let (tokens, all) = (args.tokens, 0..args.tokens);
    let (rows, columns, queries, keys) = match args.share.clone() {
        Share::All => (all.clone(), all, true, true),
        Share::Queries(range) => (range.start.min(tokens)..range.end.min(tokens), all, true, false),
        Share::Keys(range) => (all, range.start.min(tokens)..range.end.min(tokens), false, true),
    };
    if args.head_dim == 0 || args.heads == 0 || rows.is_empty() || columns.is_empty() {
        return;
    }
    let width = args.head_dim.next_multiple_of(kernel.tiles.lanes);
    let pass = Pass { kernel, args, scratch: Scratch::new(args.scratch, width), width, queries, keys };
    pass.run(rows, columns);
}

impl Pass<'_> {
    /// Takes all tiles of some tokens and keys.
    fn run(&self, tokens: Range<usize>, keys: Range<usize>) {
        let &AttentionBackwardArgs { causal, heads, head_dim, o, d_o, .. } = self.args;
        // What earlier tokens don't see, they have no gradient from.
        let begin = if causal { tokens.start.max(keys.start) } else { tokens.start };
        for head in 0..heads {
            let levels = self.levels(head);
            self.kernel.level.run(&Level { o, d_o, head, tokens: begin..tokens.end, head_dim, levels });
        }
        let end = if causal { keys.end.min(tokens.end) } else { keys.end };
        for key in (keys.start..end).step_by(KEYS) {
            let count = KEYS.min(end - key);
            self.fetch_keys(key, count);
            for head in 0..heads {
                let from = if causal { begin.max(key) } else { begin };
                for token in (from..tokens.end).step_by(QUERIES) {
                    let rows = QUERIES.min(tokens.end - token);
                    self.tile(&Tile { head, token, rows, key, keys: count }, key == keys.start);
                }
            }
            if self.keys {
                let at = key..key + count;
                scatter(self.scratch.dk, self.width, &self.args.dk, 0, at.clone(), head_dim);
                scatter(self.scratch.dv, self.width, &self.args.dv, 0, at, head_dim);
            }
        }
    }

    /// Σ o·do of a head's tokens.
    fn levels(&self, head: usize) -> *mut f32 {
        self.scratch.levels.wrapping_add(head * self.args.tokens)
    }

    /// Packs a tile's keys and values, and starts their gradients at 0.
    fn fetch_keys(&self, key: usize, count: usize) {
        let Self { kernel, args, scratch, width, .. } = *self;
        let panel = kernel.tiles.width * kernel.tiles.lanes;
        let pack = |rows: &super::HeadRows, to, width| Pack {
            rows: rows.row(key, 0),
            stride: rows.token_stride,
            count,
            head_dim: args.head_dim,
            to,
            width,
        };
        kernel.transpose.run(&pack(&args.k, scratch.key_panels, panel));
        kernel.transpose.run(&pack(&args.v, scratch.value_panels, panel));
        if self.queries {
            kernel.copy.run(&pack(&args.k, scratch.keys, width));
        }
        if self.keys {
            clear(scratch.dk, count * width);
            clear(scratch.dv, count * width);
        }
    }

    /// Adds what a tile contributes to all gradients; `first` where nothing was added to those of its tokens yet.
    fn tile(&self, tile: &Tile, first: bool) {
        let Self { kernel, args, scratch, width, .. } = *self;
        let rows = |rows: &super::HeadRows, to| Pack {
            rows: rows.row(tile.token, tile.head),
            stride: rows.token_stride,
            count: tile.rows,
            head_dim: args.head_dim,
            to,
            width,
        };
        kernel.copy.run(&rows(&args.q, scratch.q));
        kernel.copy.run(&rows(&args.d_o, scratch.d_o));
        self.scores(tile, scratch.q, scratch.key_panels, scratch.scores);
        self.scores(tile, scratch.d_o, scratch.value_panels, scratch.slopes);
        self.weigh(tile);
        if self.keys {
            self.add_to_keys(tile, scratch.scores, scratch.d_o, scratch.dv);
            self.add_to_keys(tile, scratch.slopes, scratch.q, scratch.dk);
        }
        if self.queries {
            if !first {
                kernel.copy.run(&rows(&args.dq, scratch.dq));
            }
            self.add_to_queries(tile, !first);
            let tokens = tile.token..tile.token + tile.rows;
            scatter(scratch.dq, width, &args.dq, tile.head, tokens, args.head_dim);
        }
    }

    /// Keys of the tile that row `i` of its tokens sees.
    fn seen(&self, tile: &Tile, i: usize) -> usize {
        if self.args.causal { (tile.token + i + 1 - tile.key).min(tile.keys) } else { tile.keys }
    }

    /// Products of a tile's rows with keys, or with values, in panels.
    fn scores(&self, tile: &Tile, rows: *const f32, panels: *const f32, to: *mut f32) {
        let (tiles, depth) = (&self.kernel.tiles, self.args.head_dim);
        let panel = tiles.width * tiles.lanes;
        for column in (0..tile.keys).step_by(panel) {
            for block in tiles.blocks(tile.rows) {
                let seen = self.seen(tile, block.end - 1);
                if seen <= column {
                    continue;
                }
                let vectors = (seen - column).min(panel).div_ceil(tiles.lanes);
                let product = Product {
                    a: rows.wrapping_add(block.start * self.width),
                    a_row: self.width,
                    a_step: 1,
                    b: panels.wrapping_add(column * depth),
                    b_step: panel,
                    depth,
                    c: to.wrapping_add(block.start * LINE + column),
                    c_row: LINE,
                    resume: false,
                };
                tiles.run(block.len(), vectors, &product);
            }
        }
    }

    fn weigh(&self, tile: &Tile) {
        let &AttentionBackwardArgs { lse, lse_stride, scale, causal, .. } = self.args;
        let step = Weigh {
            scores: self.scratch.scores,
            slopes: self.scratch.slopes,
            rows: tile.rows,
            seen: self.seen(tile, 0),
            more: usize::from(causal),
            keys: tile.keys,
            behind: MAX_ROWS,
            lse: lse.wrapping_add(tile.head * lse_stride + tile.token),
            levels: self.levels(tile.head).wrapping_add(tile.token),
            scale,
        };
        self.kernel.weigh.run(&step);
    }

    /// Adds a tile's weights or slopes, times rows, to the gradients of its values or keys.
    fn add_to_keys(&self, tile: &Tile, factors: *const f32, rows: *const f32, sums: *mut f32) {
        let (tiles, width) = (&self.kernel.tiles, self.width);
        for block in tiles.blocks(tile.keys) {
            // The first row that sees any key of the block.
            let first =
                if self.args.causal { (tile.key + block.start).saturating_sub(tile.token) } else { 0 };
            if first >= tile.rows {
                continue;
            }
            let product = Product {
                a: factors.wrapping_add(first * LINE + block.start),
                a_row: 1,
                a_step: LINE,
                b: rows.wrapping_add(first * width),
                b_step: width,
                depth: tile.rows - first,
                c: sums.wrapping_add(block.start * width),
                c_row: width,
                resume: true,
            };
            tiles.run(block.len(), width / tiles.lanes, &product);
        }
    }

    /// Adds a tile's slopes times its keys to the gradient of its queries.
    fn add_to_queries(&self, tile: &Tile, resume: bool) {
        let (tiles, width, scratch) = (&self.kernel.tiles, self.width, &self.scratch);
        for block in tiles.blocks(tile.rows) {
            let product = Product {
                a: scratch.slopes.wrapping_add(block.start * LINE),
                a_row: LINE,
                a_step: 1,
                b: scratch.keys,
                b_step: width,
                depth: self.seen(tile, block.end - 1),
                c: scratch.dq.wrapping_add(block.start * width),
                c_row: width,
                resume,
            };
            tiles.run(block.len(), width / tiles.lanes, &product);
        }
    }
}
