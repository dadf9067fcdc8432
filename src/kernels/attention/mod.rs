//! Attention of queries over one key/value head after the other: softmax(scale · Q·Kᵀ + mask) · V, never T × T.
//! Keys and values come from a packed cache ([`Row::run`]) or from plain rows ([`attention()`]), with the same bits.
//!
//! # Contract
//! - The cache of one key/value head is two buffers in the layout that [`Layout`] describes and fills. Neither
//!   depends on how many positions there are, so a cache can be any length.
//! - Queries are `tokens × heads` rows: the heads are the query heads that share this key/value head. A token
//!   sees keys `starts[token]..limits[token]`, and so do all its heads. One that sees none gets zeros, and so does
//!   one whose keys a mask hides with −∞, all of them.
//! - Keys are taken in tiles of [`TILE`] positions that begin at multiples of it; a tile's exponentials are taken
//!   relative to the largest score so far, and what was summed before is scaled down when that grows (the online
//!   softmax of Milakov & Gimelshein 2018, arXiv:1805.02867; in tiles as FlashAttention, Dao et al. 2022,
//!   arXiv:2205.14135). Rows never mix, and a tile is a place in the sequence and not in the batch: a row's bits
//!   are the same alone and among others, and however its sequence is cut into calls.
//! - The factor on the queries includes log₂ e, so that weights are powers of two. A score is one sum over the
//!   elements in order; an element of the result is one sum over the keys in order; the sum of the weights has
//!   the lanes of a vector. What a row does not see adds zeros to them.
//! - What stands from the largest limit of a call on does not count (a panel's remaining keys are read, and their
//!   scores dropped). A key that a row does not see has weight 0 in it, so its value must be finite (0 · ∞ is NaN)
//!   where another row of the call does see it.
//! - Relative to Σ weight·|v|, the error is at most (head_dim + 8) · u · max(Σ|scale·q·k| + |mask|) for the
//!   scores, which the exponential passes on, and (n + 2·n/TILE + 16) · u for n visible keys; u = 2⁻²⁴.
//!   (Eight: three for the factor and its product with the query, one for products that the scalar level rounds,
//!   two for the mask, two for the difference from the largest score.)
//! - A NaN in a query, in a key that it sees or in their mask makes all of its row NaN, and so does a score of ∞.

mod layout;
mod pack;
mod pass;
mod plain;
#[cfg(test)]
mod plain_tests;
mod steps;
#[cfg(test)]
mod tests;
mod tiles;

use super::KernelInfo;
use crate::isa::{Isa, IsaId};
pub use layout::Layout;
use pack::Pack;
use pass::{Call, Sight, Source};
pub use plain::{Inputs, Shape, Strides, Tensor, attention, extent, scratch_len};
use steps::{Gather, HeadRows, Scatter, Weigh};
use tiles::Tiles;

/// Keys in a tile. A constant, since results depend on it in their last bits.
pub const TILE: usize = 128;

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
    /// Asks for keys and values before they are needed, which pays where they lie beyond L2 and few rows share
    /// them; where they lie in L2 it costs.
    pub ahead: bool,
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
    tiles: &'static Tiles,
    gather: unsafe fn(&Gather),
    weigh: unsafe fn(&Weigh),
    scatter: unsafe fn(&Scatter),
    pack_keys: unsafe fn(&Pack),
    pack_values: unsafe fn(&Pack),
}

/// This family's kernels at one level.
#[derive(Clone, Copy)]
pub struct Set {
    /// Attention over a packed f32 cache, or over plain keys and values.
    pub f32: Row,
}

impl super::levels::Levels for Set {
    fn at<I: Isa>() -> Self {
        let tiles = const { &Tiles::of::<I>() };
        Self {
            f32: Row {
                info: KernelInfo { op: "attention", dtype: "f32", isa: I::ID, mr: tiles.mr, nr: tiles.nr },
                tiles,
                gather: steps::gather::<I>,
                weigh: steps::weigh::<I>,
                scatter: steps::scatter::<I>,
                pack_keys: pack::keys::<I>,
                pack_values: pack::values::<I>,
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
        Layout { head_dim, nr: self.tiles.nr, value_step: self.tiles.lanes }
    }

    /// Floats of scratch memory that calls of up to `rows` rows (tokens × heads) need, for any number of keys;
    /// it stops growing at some hundred KiB. `None` on overflow.
    pub fn scratch_len(&self, head_dim: usize, rows: usize) -> Option<usize> {
        pass::scratch_len(self, head_dim, rows, false)
    }

    /// Computes; see the module's contract and [`AttentionArgs`].
    ///
    /// # Safety
    /// The CPU has `info.isa`. All memory that `args` names is there: the rows of Q and out, the keys and values
    /// of whole panels up to the largest limit, limits and starts, the scratch memory. The result overlaps
    /// nothing else but Q, and Q only row on row.
    pub unsafe fn run(&self, args: &AttentionArgs) {
        let heads = args.heads;
        let call = Call {
            queries: HeadRows {
                first: args.q.cast_mut(),
                heads,
                token_stride: args.q_token_stride,
                head_stride: args.q_head_stride,
            },
            result: HeadRows {
                first: args.out,
                heads,
                token_stride: args.out_token_stride,
                head_stride: args.out_head_stride,
            },
            mask: None,
            rows: args.tokens * heads,
            head_dim: args.head_dim,
            scale: args.scale,
            sight: Sight::Listed { limits: args.limits, starts: args.starts },
            source: Source::Cache { keys: args.k, values: args.v },
            ahead: args.ahead,
            scratch: args.scratch,
        };
        // SAFETY: the caller's promise.
        unsafe { pass::run(self, &call) }
    }
}
