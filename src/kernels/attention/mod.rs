//! Attention of a block of queries over one key/value head's cache: softmax(scale · Q·Kᵀ) · V, never T × T.
//!
//! # Contract
//! - The cache of one key/value head is two buffers in the layout that [`Layout`] describes and fills. Neither
//!   depends on how many positions there are, so a cache can be any length.
//! - Queries are `tokens × heads` rows: the heads are the query heads that share this key/value head. A token
//!   sees keys `starts[token]..limits[token]`, and so do all its heads. One that sees none gets zeros.
//! - Both products run on the f32 matmul kernel of the level. Keys are taken in tiles of [`TILE`] positions that
//!   begin at multiples of it; a tile's exponentials are taken relative to the largest score so far, and what was
//!   summed before is scaled down when that grows (the online softmax of Milakov & Gimelshein 2018,
//!   arXiv:1805.02867; in tiles as FlashAttention, Dao et al. 2022, arXiv:2205.14135). Rows never mix, and a tile
//!   is a place in the cache and not in the batch: a row's bits are the same alone and among others.
//! - What stands from the largest limit of a call on does not count (a panel's remaining keys are read, and their
//!   scores dropped). A key that a row does not see has weight 0 in it, so its value must be finite (0 · ∞ is NaN)
//!   where another row of the call does see it.
//! - Relative to Σ weight·|v|, the error is at most (head_dim + 2) · u · max Σ|scale·q·k| for the scores, which
//!   the exponential passes on, and (n + 2·n/TILE + 16) · u for n visible keys; u = 2⁻²⁴.
//! - A NaN in what a row sees makes all of that row NaN.

mod layout;
mod steps;
#[cfg(test)]
mod tests;

use super::KernelInfo;
use super::matmul::{self, Product};
use crate::isa::{Isa, IsaId};
pub use layout::Layout;
use steps::{Gather, Rows, Scatter, Weigh};

/// Keys in a tile. A constant, since results depend on it in their last bits.
pub const TILE: usize = 128;

/// Rows worked on at once: few enough that their scores and sums stay in L1 and L2.
const ROWS: usize = 24;

/// A block of queries, one key/value head's cache, and where the result goes. All strides in floats.
///
/// Row (t, h) of Q is the `head_dim` floats at `q + t · q_token_stride + h · q_head_stride`; of the result at
/// `out + t · out_token_stride + h · out_head_stride`. For activations `[tokens][n_head · head_dim]` and key/value
/// head g, both begin at column `g · heads · head_dim`, the token stride is `n_head · head_dim`, the head stride
/// `head_dim`. Queries and result may be the same memory.
#[derive(Clone, Copy, Debug)]
pub struct AttentionArgs {
    /// First query row.
    pub q: *const f32,
    /// From one token's queries to the next's.
    pub q_token_stride: usize,
    /// From one head's query to the next's.
    pub q_head_stride: usize,
    /// Tokens in the block.
    pub tokens: usize,
    /// Query heads that share this key/value head.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores, usually 1/√head_dim.
    pub scale: f32,
    /// Keys, as [`Layout`] places them.
    pub k: *const f32,
    /// Values, as [`Layout`] places them.
    pub v: *const f32,
    /// One past the last position that each token sees: `tokens` of them.
    pub limits: *const u32,
    /// The first position that each token sees (a sliding window): `tokens` of them, or null for 0.
    pub starts: *const u32,
    /// First row of the result.
    pub out: *mut f32,
    /// From one token's results to the next's.
    pub out_token_stride: usize,
    /// From one head's result to the next's.
    pub out_head_stride: usize,
    /// [`Row::scratch_len`] floats, 64-byte alignment is fastest.
    pub scratch: *mut f32,
}

/// One attention kernel.
#[derive(Clone, Copy)]
pub struct Row {
    /// Name, level, tile.
    pub info: KernelInfo,
    product: &'static matmul::Row,
    gather: unsafe fn(&Gather),
    weigh: unsafe fn(&Weigh),
    scatter: unsafe fn(&Scatter),
}

/// This family's kernels at one level.
#[derive(Clone, Copy)]
pub struct Set {
    /// Causal attention over a packed f32 cache.
    pub f32: Row,
}

impl super::levels::Levels for Set {
    fn at<I: Isa>() -> Self {
        let product = matmul::Set::select(I::ID).f32;
        let info = KernelInfo { op: "attention", dtype: "f32", isa: I::ID, ..product.info };
        Self {
            f32: Row {
                info,
                product,
                gather: steps::gather::<I>,
                weigh: steps::weigh::<I>,
                scatter: steps::scatter::<I>,
            },
        }
    }
}

impl Set {
    /// The best kernels that run at `isa`.
    pub fn select(isa: IsaId) -> Self {
        super::levels::select(isa)
    }
}

/// Every kernel of the family.
pub fn rows() -> impl Iterator<Item = KernelInfo> {
    super::levels::all::<Set>().into_iter().map(|(_, set)| set.f32.info)
}

impl Row {
    /// Where the keys and values of heads of `head_dim` elements stand for this kernel.
    pub const fn layout(&self, head_dim: usize) -> Layout {
        Layout { head_dim, nr: self.info.nr, value_step: self.product.narrow() }
    }

    /// Floats of scratch memory a call needs, for any number of rows and keys; `None` on overflow.
    pub fn scratch_len(&self, head_dim: usize) -> Option<usize> {
        let width = self.layout(head_dim).value_stride();
        let row = head_dim.checked_add(width)?.checked_add(TILE + 2)?;
        row.checked_mul(ROWS)
    }

    /// Computes; see the module's contract and [`AttentionArgs`].
    ///
    /// # Safety
    /// The CPU has `info.isa`. All memory that `args` names is there: the rows of Q and out, the keys and values
    /// of whole panels up to the largest limit, limits and starts, the scratch memory. The result overlaps
    /// nothing else but Q, and Q only row on row.
    pub unsafe fn run(&self, args: &AttentionArgs) {
        let rows = args.tokens * args.heads;
        let layout = self.layout(args.head_dim);
        let queries = args.scratch;
        let scores = queries.wrapping_add(ROWS * args.head_dim);
        let sums = scores.wrapping_add(ROWS * TILE);
        let state = sums.wrapping_add(ROWS * layout.value_stride());
        let mut first = 0;
        while first < rows {
            let block = Block {
                rows: Rows { first, count: ROWS.min(rows - first), args },
                layout,
                queries,
                scores,
                sums,
                state,
            };
            // SAFETY: the caller's promise; the scratch memory holds ROWS rows of each part.
            unsafe { self.block(&block) };
            first += block.rows.count;
        }
    }

    /// A few rows over all their tiles.
    ///
    /// # Safety
    /// As [`Row::run`].
    unsafe fn block(&self, block: &Block<'_>) {
        let Block { rows, layout, queries, scores, sums, state } = *block;
        // SAFETY: the caller's promise, for every step.
        unsafe {
            (self.gather)(&Gather { rows, width: layout.value_stride(), queries, sums, state });
            let visible = rows.visible();
            let mut tile = visible.start / TILE * TILE;
            while tile < visible.end {
                let keys = TILE.min(visible.end - tile);
                self.score(block, tile, keys);
                (self.weigh)(&Weigh { rows, width: layout.value_stride(), tile, keys, scores, sums, state });
                self.sum_values(block, tile, keys);
                tile += keys;
            }
            (self.scatter)(&Scatter { rows, width: layout.value_stride(), sums, state });
        }
    }

    /// Scores of a tile: queries · keysᵀ, whose panels stand in the cache.
    ///
    /// # Safety
    /// As [`Row::run`].
    unsafe fn score(&self, block: &Block<'_>, tile: usize, keys: usize) {
        let Block { rows, layout, .. } = *block;
        let product = Product {
            x: block.queries.cast::<u8>(),
            ldx: 4 * layout.head_dim,
            m: rows.count,
            k: layout.head_dim,
            w: rows.args.k.wrapping_add(tile * layout.head_dim).cast(),
            row_stride: 4 * layout.nr,
            panel_stride: 4 * layout.nr * layout.head_dim,
            y: block.scores,
            ldy: TILE,
            columns: keys,
            resume: false,
            bias: std::ptr::null(),
        };
        // SAFETY: the caller's promise.
        unsafe { self.product.multiply(&product) }
    }

    /// Adds a tile's weights · values to the sums; the lines of the values are panels side by side.
    ///
    /// # Safety
    /// As [`Row::run`].
    unsafe fn sum_values(&self, block: &Block<'_>, tile: usize, keys: usize) {
        let Block { rows, layout, .. } = *block;
        let product = Product {
            x: block.scores.cast::<u8>(),
            ldx: 4 * TILE,
            m: rows.count,
            k: keys,
            w: rows.args.v.wrapping_add(tile * layout.value_stride()).cast(),
            row_stride: 4 * layout.value_stride(),
            panel_stride: 4 * layout.nr,
            y: block.sums,
            ldy: layout.value_stride(),
            columns: layout.head_dim,
            resume: true,
            bias: std::ptr::null(),
        };
        // SAFETY: the caller's promise.
        unsafe { self.product.multiply(&product) }
    }
}

/// A few rows, and the parts of the scratch memory.
#[derive(Clone, Copy)]
struct Block<'a> {
    rows: Rows<'a>,
    layout: Layout,
    /// Scaled queries, `ROWS × head_dim`.
    queries: *mut f32,
    /// Scores, then weights of a tile, `ROWS × TILE`.
    scores: *mut f32,
    /// Sums of weight · value, `ROWS × value_stride`.
    sums: *mut f32,
    /// Largest score and sum of weights, `ROWS` pairs.
    state: *mut f32,
}
