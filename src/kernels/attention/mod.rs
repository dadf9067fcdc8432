//! Attention of queries over one key/value head after the other: softmax(scale · Q·Kᵀ + mask) · V, without a matrix
//! of all scores.
//! Keys and values come from a packed cache ([`Kernel::run`]) or from plain rows ([`attention()`]), with the same bits.
//!
//! # Contract
//! - The cache of one key/value head is tiles of [`TILE`] positions, each in the layout that [`Layout`] describes.
//!   A tile stands in a page, and [`HeadTiles`] says in which: nothing depends on where pages are or how many there
//!   are, so a cache can be any length, and sequences can share a pool of pages.
//! - A call reads all tiles from that of the first position that any of its tokens sees to that of the last one:
//!   these must have pages. It reads no other page, and looks up no other entry of the table.
//! - A cache holds f32, f16 or bytes ([`CacheType`]), rounded when stored, to nearest even. f16: an error of at most
//!   2⁻¹¹ of the number (2⁻²⁵ where that is more), and ∞ beyond 65504. Bytes: each run of 64 elements of a head (the
//!   last may be shorter) has an f32 factor, 1/127 of its largest magnitude; the error is at most 1/254 of that
//!   largest, times 1 + 2⁻¹⁴, and a largest below 2⁻¹¹⁹ counts as 0. A run with NaN or ∞ in it is NaN as a whole.
//! - Arithmetic is that of an f32 cache of the rounded numbers, to the bit, whatever the type: elements are widened
//!   as they are read, bytes times their factor, rounded once. For more rows than two of the highest tiles, each
//!   tile of the cache is widened once for all.
//! - Queries are `tokens × heads` rows: the heads are the query heads that share this key/value head. A token
//!   sees keys `starts[token]..limits[token]`, and so do all its heads. One that sees none gets zeros, and so does
//!   one whose keys a mask hides with −∞, all of them.
//! - Keys are taken in tiles of [`TILE`] positions that begin at multiples of it; a tile's exponentials are taken
//!   relative to the largest score so far, and earlier sums are scaled down when that grows (the online softmax of
//!   Milakov & Gimelshein 2018, arXiv:1805.02867; in tiles as FlashAttention, Dao et al. 2022, arXiv:2205.14135).
//!   This goes on within a part of the sequence: each part of [`PART`] positions, counted from 0, starts from nothing,
//!   and parts are joined in their order, by the same rule. Rows never mix, and tiles and parts are places in the
//!   sequence and not in the batch: a row's bits are the same alone and among others, however its sequence is cut
//!   into calls, and however its parts are shared among workers ([`Kernel::run_parts`]). Only the sign of a 0 may
//!   differ: a sum that underflowed to −0 becomes 0 when a zero is added for keys that only other rows see.
//! - The factor on the queries includes log₂ e, so that weights are powers of two. A score is one sum over the
//!   elements in order; an element of the result is one sum over the keys in order; the sum of the weights has
//!   the lanes of a vector. Keys that a row does not see add zeros to them.
//! - Keys and values from the largest limit of a call on do not count (a panel's remaining keys are read, and their
//!   scores dropped). A key that a row does not see has weight 0 in it, so its value must be finite (0 · ∞ is NaN)
//!   where it lies between the first and the last key that rows of the call see.
//! - Relative to Σ weight·|v|, the error is at most (head_dim + 8) · u · max(Σ|scale·q·k| + |mask|) for the
//!   scores, which the exponential passes on, and (n + 4·n/TILE + 16) · u for n visible keys; u = 2⁻²⁴.
//!   (Eight: three for the factor and its product with the query, one for products that the scalar level rounds,
//!   two for the mask, two for the difference from the largest score. Four: two to scale sums down in each tile,
//!   three to join each part of two tiles.)
//! - Where it is asked for, ln Σ e^score of each row is kept for a backward pass: off by the scores' error, by
//!   (TILE/LANES + 4·n/TILE + 12)·u, and by u of itself; −∞ for a row that sees no key.
//! - A NaN in a query, in a key that it sees or in their mask makes all of its row NaN, and so does a score of ∞.
//! - [`ScoreOptions`] change the scores of models that have them. A soft-cap replaces each scaled score by
//!   cap · tanh(score / cap), so that one of ±∞ becomes ±cap; then −slope · |i − j| is added for a query at position i
//!   and a key at position j (distances above 2²⁴ are rounded), and then the mask. A sink joins a row's weights as one
//!   more score once the row has met all its keys and its parts are joined; a row that sees no key still gets zeros.
//!   Each of these is a pass of its own over scores or sums: a call without it has the same bits and speed as if there
//!   were no such option, and a sink of −∞ or a slope of 0 changes no bit. The errors above hold with twenty in place
//!   of eight where there is a soft-cap, with slope · |i − j| added to |mask|, and with |sink| where that is more than
//!   the sum; a sink adds four to the sixteen. (Twelve: eight for the cap, its inverse and the products with them, and
//!   four for tanh, whose slope is at most 1.)

mod adjust;
#[cfg(test)]
mod adjust_tests;
mod cache;
mod layout;
pub(super) mod pack;
#[cfg(test)]
mod paged_tests;
mod pass;
mod plain;
#[cfg(test)]
mod plain_tests;
mod scratch;
pub(super) mod step;
mod steps;
mod stored;
#[cfg(test)]
mod tests;
mod tiles;

use super::info::KernelInfo;
use super::levels::{self, At, LEVELS};
use super::table::{self, Entry};
use crate::error::{Error, Result};
use crate::isa::{Isa, IsaId};
use adjust::{Cap, Sink, Slope};
pub use adjust::{SOFT_CAPS, ScoreArgs, ScoreOptions};
use cache::{Put, PutKeys, PutValues, Widen, WidenKeys, WidenValues};
pub use layout::Layout;
use pack::{Pack, PackKeys, PackValues};
use pass::{Call, Sight, Source};
pub(crate) use plain::check_distinct;
pub use plain::{
    Inputs, RowsArgs, Shape, Strides, Tensor, attention, attention_and_keep, extent, scratch_len,
};
use std::ptr::{null, null_mut};
use step::Step;
use steps::{Clear, Gather, HeadRows, Join, LogSums, Scatter, Steps, Weigh};
pub use stored::CacheType;
use stored::{F16, F32, Q8, Stored};
use tiles::Tiles;

/// Keys in a tile. A constant, since results depend on it in their last bits.
pub const TILE: usize = 128;

/// Positions in a part of the sequence, of whole tiles. A constant for the same reason.
pub const PART: usize = 2 * TILE;

/// A table's entry for a tile without a page: not yet taken, or released since no later row sees it.
pub const NO_PAGE: u32 = u32::MAX;

/// A key/value head's keys, or its values, of one sequence: tiles of [`TILE`] positions, as [`Layout`] fills them,
/// each in a page.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct HeadTiles {
    /// The head's tile in page 0.
    pub first: *mut u8,
    /// Bytes from one page to the next.
    pub stride: usize,
    /// The page of each tile of the sequence, aligned as a `u32` is; or null where tile n stands in page n. Only
    /// entries of tiles that are stored to or read (see the module's contract) are looked up; the others can be
    /// anything, and the table can end before them.
    pub table: *const u32,
}

impl HeadTiles {
    /// The tile of that number. Where there is a table, it has an entry for the tile, which no one writes meanwhile.
    #[inline(always)]
    fn tile(&self, number: usize) -> *mut u8 {
        let page = if self.table.is_null() {
            number
        } else {
            // SAFETY: calls and stores look up only tiles whose entries their callers promise, and their alignment.
            let page = unsafe { self.table.add(number).read() };
            debug_assert_ne!(page, NO_PAGE, "tile {number} has no page");
            page as usize
        };
        self.first.wrapping_add(page * self.stride)
    }
}

/// A block of queries, one key/value head's cache, and where the result goes. All strides in floats.
///
/// Row (t, h) of Q is the `head_dim` floats at `q + t · q_token_stride + h · q_head_stride`; of the result at
/// `out + t · out_token_stride + h · out_head_stride`. For activations `[tokens][n_head · head_dim]` and key/value
/// head g, both begin at column `g · heads · head_dim`, the token stride is `n_head · head_dim`, the head stride
/// `head_dim`. Queries and result may be the same memory.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
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
    /// Keys.
    pub k: HeadTiles,
    /// Values.
    pub v: HeadTiles,
    /// One past the last position that each token sees: `tokens` of them.
    pub limits: *const u32,
    /// The first position that each token sees (a sliding window): `tokens` of them, or null for 0.
    pub starts: *const u32,
    /// Further changes to the scores; usually [`ScoreArgs::NONE`].
    pub scores: ScoreArgs,
    /// Prefetches keys and values, which gains time where they lie beyond L2 and few rows share them, and costs time
    /// where they lie in L2.
    pub ahead: bool,
    /// First row of the result.
    pub out: *mut f32,
    /// From one token's results to the next's.
    pub out_token_stride: usize,
    /// From one head's result to the next's.
    pub out_head_stride: usize,
    /// [`Kernel::scratch_len`] floats, 64-byte alignment is fastest.
    pub scratch: *mut f32,
}

/// One attention kernel.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Name, level, tile.
    pub info: KernelInfo,
    stored: CacheType,
    /// Tiles over f32: for packed rows and for a widened cache.
    tiles: &'static Tiles,
    /// Tiles over the type of the cache.
    direct: &'static Tiles,
    gather: Step<Gather>,
    clear: Step<Clear>,
    cap: Step<Cap>,
    slope: Step<Slope>,
    weigh: Step<Weigh>,
    join: Step<Join>,
    sink: Step<Sink>,
    log_sums: Step<LogSums>,
    scatter: Step<Scatter>,
    pack_keys: Step<Pack>,
    pack_values: Step<Pack>,
    put_keys: Step<Put>,
    put_values: Step<Put>,
    widen_keys: Step<Widen>,
    widen_values: Step<Widen>,
}

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
pub struct AttentionKernels {
    /// Attention over a cache of f32, or over plain keys and values.
    pub f32: Kernel,
    /// Attention over a cache of f16.
    pub f16: Kernel,
    /// Attention over a cache of bytes with factors.
    pub q8_0: Kernel,
}

impl<I: Isa> At<I> for AttentionKernels {
    const KERNELS: Self =
        Self { f32: Kernel::at::<I, F32>(), f16: Kernel::at::<I, F16>(), q8_0: Kernel::at::<I, Q8>() };
}

static TABLE: [AttentionKernels; LEVELS] = levels::table();

impl Entry for AttentionKernels {
    fn isa(&self) -> IsaId {
        self.f32.info.isa
    }
}

impl AttentionKernels {
    /// The best kernels that run at `isa` and on this CPU.
    pub fn select(isa: IsaId) -> Self {
        table::choose(&TABLE, isa)
    }

    /// The kernel for a cache of that type.
    pub fn of(&self, stored: CacheType) -> &Kernel {
        match stored {
            CacheType::F32 => &self.f32,
            CacheType::F16 => &self.f16,
            CacheType::Q8_0 => &self.q8_0,
        }
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    let of_type = |stored| TABLE.iter().map(move |kernels| kernels.of(stored).info);
    CacheType::ALL.into_iter().flat_map(of_type)
}

impl Kernel {
    const fn at<I: Isa, S: Stored>() -> Self {
        let tiles = const { &Tiles::of::<I, F32>() };
        let info = KernelInfo::of::<I>("attention", S::TYPE.name());
        Kernel {
            info: KernelInfo { mr: tiles.mr, nr: tiles.nr, ..info },
            stored: S::TYPE,
            tiles,
            direct: const { &Tiles::of::<I, S>() },
            gather: Step::of::<I, Steps>(),
            clear: Step::of::<I, Steps>(),
            cap: Step::of::<I, Steps>(),
            slope: Step::of::<I, Steps>(),
            weigh: Step::of::<I, Steps>(),
            join: Step::of::<I, Steps>(),
            sink: Step::of::<I, Steps>(),
            log_sums: Step::of::<I, Steps>(),
            scatter: Step::of::<I, Steps>(),
            pack_keys: Step::of::<I, PackKeys>(),
            pack_values: Step::of::<I, PackValues>(),
            put_keys: Step::of::<I, PutKeys<S>>(),
            put_values: Step::of::<I, PutValues<S>>(),
            widen_keys: Step::of::<I, WidenKeys<S>>(),
            widen_values: Step::of::<I, WidenValues<S>>(),
        }
    }

    /// The type of its cache.
    pub const fn stored(&self) -> CacheType {
        self.stored
    }

    /// Where the keys and values of heads of `head_dim` elements stand for this kernel.
    pub const fn layout(&self, head_dim: usize) -> Layout {
        Layout { stored: self.stored, head_dim, nr: self.tiles.nr, value_step: self.tiles.lanes }
    }

    /// Floats of scratch memory that calls of up to `rows` rows (tokens × heads) need, for any number of keys;
    /// it stops growing at some hundred KiB. `None` on overflow.
    pub fn scratch_len(&self, head_dim: usize, rows: usize) -> Option<usize> {
        scratch::len(self, head_dim, rows, false)
    }

    /// Floats that [`Kernel::run_parts`] writes for each part and `rows` rows; `None` on overflow.
    pub fn part_len(&self, head_dim: usize, rows: usize) -> Option<usize> {
        scratch::part_len(self, head_dim, rows)
    }

    /// Stores the keys of `count` adjoining positions, each row `stride` floats from the next.
    ///
    /// # Safety
    /// So many rows of `head_dim` floats are readable; `keys` are the head's tiles, which
    /// have pages for the positions, and no one else touches these positions or writes their entries of the table.
    #[doc(hidden)]
    pub unsafe fn store_keys(
        &self,
        head_dim: usize,
        keys: HeadTiles,
        position: usize,
        (rows, stride, count): (*const f32, usize, usize),
    ) {
        let put = Put { layout: self.layout(head_dim), to: keys, position, rows, stride, count };
        self.put_keys.run(&put);
    }

    /// Stores values, as [`Kernel::store_keys`] does keys.
    ///
    /// # Safety
    /// As [`Kernel::store_keys`].
    #[doc(hidden)]
    pub unsafe fn store_values(
        &self,
        head_dim: usize,
        values: HeadTiles,
        position: usize,
        (rows, stride, count): (*const f32, usize, usize),
    ) {
        let put = Put { layout: self.layout(head_dim), to: values, position, rows, stride, count };
        self.put_values.run(&put);
    }

    /// Stores the key and the value of one position of a head whose tiles adjoin in these buffers.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where key and value differ in length, or the position is not in both buffers.
    pub fn store(
        &self,
        keys: &mut [u8],
        values: &mut [u8],
        position: usize,
        key: &[f32],
        value: &[f32],
    ) -> Result<()> {
        let head_dim = key.len();
        let layout = self.layout(head_dim);
        let tiles = |len: usize, tile: usize| len.checked_div(tile).unwrap_or(usize::MAX);
        let (key_tile, value_tile) = (layout.key_tile(), layout.value_tile());
        if head_dim != value.len()
            || position / TILE >= tiles(keys.len(), key_tile).min(tiles(values.len(), value_tile))
        {
            return Err(Error::invalid(format!(
                "a key of {head_dim} elements and a value of {} at position {position} don't fit their cache",
                value.len()
            )));
        }
        // SAFETY: checked above; both buffers are borrowed exclusively.
        unsafe {
            let keys = HeadTiles { first: keys.as_mut_ptr(), stride: key_tile, table: null() };
            let values = HeadTiles { first: values.as_mut_ptr(), stride: value_tile, table: null() };
            self.store_keys(head_dim, keys, position, (key.as_ptr(), 0, 1));
            self.store_values(head_dim, values, position, (value.as_ptr(), 0, 1));
        }
        Ok(())
    }

    /// Computes the result; see the module's contract and [`AttentionArgs`].
    ///
    /// # Safety
    /// All memory that `args` names is there: the rows of Q and out, limits and starts, slopes and sinks, the
    /// scratch memory, and of keys and values the whole tiles from the first to the last of which any token sees
    /// something, with their entries of the table. The result overlaps nothing else but Q, and Q only row on row.
    #[doc(hidden)]
    pub unsafe fn run(&self, args: &AttentionArgs) {
        // SAFETY: the caller promises all memory that `args` names.
        unsafe { pass::run(self, &args.call()) }
    }
}

impl AttentionArgs {
    fn call(&self) -> Call {
        let heads = self.heads;
        Call {
            queries: HeadRows {
                first: self.q.cast_mut(),
                heads,
                token_stride: self.q_token_stride,
                head_stride: self.q_head_stride,
            },
            result: HeadRows {
                first: self.out,
                heads,
                token_stride: self.out_token_stride,
                head_stride: self.out_head_stride,
            },
            log_sums: null_mut(),
            log_sum_stride: 0,
            mask: None,
            rows: self.tokens * heads,
            head_dim: self.head_dim,
            scale: self.scale,
            scores: self.scores,
            sight: Sight::Listed { limits: self.limits, starts: self.starts },
            source: Source::Cache { keys: self.k, values: self.v },
            ahead: self.ahead,
            scratch: self.scratch,
        }
    }
}
