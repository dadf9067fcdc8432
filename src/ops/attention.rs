//! Attention over the cache: storing keys and values row by row, and the weighted sums, shared out over
//! workers by key/value head and block of tokens, or for a single token by head and parts of the sequence.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};

use super::Rows;
use crate::error::{Error, Result};
use crate::kernels::KernelSet;
use crate::kernels::attention::{AttentionArgs, HeadTiles, Layout, PART, Row};
use crate::memory::{AlignedBuf, checked_bytes};
use crate::threads::{WorkCounter, Worker};

/// Rows of a task, at least: enough for keys and values to be used often once they are in L1.
const FEW_ROWS: usize = 48;
/// Rows of a task, at most: by then, widening keys and values for all of them costs little.
const MANY_ROWS: usize = 192;
/// Tokens of a task, at least.
const FEW_TOKENS: usize = 16;
/// Tasks that a worker shall have, about: the last ones end at about the same time.
const TASKS: usize = 4;

/// How a row of queries, keys and values is divided.
#[derive(Clone, Copy, Debug)]
pub struct HeadShape {
    /// Query heads.
    pub n_head: usize,
    /// Key/value heads.
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl HeadShape {
    /// Query heads that share a key/value head.
    pub fn group(&self) -> usize {
        self.n_head / self.n_head_kv
    }

    /// Most tokens that a task takes at once.
    fn many_tokens(&self) -> usize {
        (MANY_ROWS / self.group()).max(FEW_TOKENS)
    }

    /// Tokens that a task takes at once, of so many that workers share.
    fn tokens_per_task(&self, tokens: usize, workers: usize) -> usize {
        let even = tokens * self.n_head_kv / (TASKS * workers);
        let few = (FEW_ROWS / self.group()).max(FEW_TOKENS);
        (even / FEW_TOKENS * FEW_TOKENS).clamp(few, self.many_tokens())
    }

    /// Columns of a row where key head `head` begins.
    fn key_column(&self, head: usize) -> usize {
        (self.n_head + head) * self.head_dim
    }

    fn value_column(&self, head: usize) -> usize {
        (self.n_head + self.n_head_kv + head) * self.head_dim
    }
}

/// Keys and values of one layer: in each tile, a head after the other, its keys before its values.
#[derive(Clone, Copy, Debug)]
pub struct LayerCache {
    /// The first tile of head 0.
    pub first: *mut u8,
    /// Bytes from one head to the next.
    pub head_stride: usize,
    /// Bytes from one tile to the next.
    pub tile_stride: usize,
    /// How positions lie within a head's tile, and as what.
    pub layout: Layout,
}

impl LayerCache {
    /// A head's keys and values.
    fn head(&self, head: usize) -> (HeadTiles, HeadTiles) {
        let first = self.first.wrapping_add(head * self.head_stride);
        let tiles = |first| HeadTiles { first, stride: self.tile_stride };
        (tiles(first), tiles(first.wrapping_add(self.layout.key_tile())))
    }
}

/// What is said where a size overflows.
const TOO_LARGE: Error = Error::OutOfMemory { bytes: usize::MAX, what: WHAT };
/// What the memory is for, in errors.
const WHAT: &str = "attention's scratch";

/// Floats of scratch that a worker needs.
///
/// # Errors
/// [`Error::OutOfMemory`] where the size overflows.
pub fn scratch_len(kernel: &Row, shape: &HeadShape) -> Result<usize> {
    let rows = shape.many_tokens() * shape.group();
    kernel.scratch_len(shape.head_dim, rows).ok_or(TOO_LARGE)
}

/// Where workers that share a head's sequence leave what they have of it. Made for a context; ops that a barrier
/// separates use it one after the other.
#[derive(Debug)]
pub struct Parts {
    /// Keeps what `first` points to.
    _buffer: AlignedBuf,
    first: *mut f32,
    /// Floats of a part.
    len: usize,
    /// Parts of a head.
    count: usize,
    /// Pieces of each head that are done.
    done: Vec<AtomicUsize>,
}

// SAFETY: the address is that of the buffer it holds; ops keep their accesses apart.
unsafe impl Send for Parts {}
// SAFETY: as above.
unsafe impl Sync for Parts {}

impl Parts {
    /// Floats of a part and parts of a head.
    fn sizes(kernel: &Row, shape: &HeadShape, n_ctx: usize, threads: usize) -> Result<(usize, usize)> {
        let len = kernel.part_len(shape.head_dim, shape.group()).ok_or(TOO_LARGE)?;
        Ok((len, if threads > 1 { n_ctx.div_ceil(PART) } else { 0 }))
    }

    /// Bytes of a context's.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the size overflows.
    pub fn bytes(kernel: &Row, shape: &HeadShape, n_ctx: usize, threads: usize) -> Result<usize> {
        let (len, count) = Self::sizes(kernel, shape, n_ctx, threads)?;
        let parts = checked_bytes(count, shape.n_head_kv, WHAT)?;
        checked_bytes(parts, checked_bytes(len, size_of::<f32>(), WHAT)?, WHAT)
    }

    /// Those of a context of so many positions and workers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(kernel: &Row, shape: &HeadShape, n_ctx: usize, threads: usize) -> Result<Self> {
        let (len, count) = Self::sizes(kernel, shape, n_ctx, threads)?;
        let mut buffer = AlignedBuf::zeroed(Self::bytes(kernel, shape, n_ctx, threads)?, WHAT)?;
        let done = (0..shape.n_head_kv).map(|_| AtomicUsize::new(0)).collect();
        let first = buffer.as_mut_ptr().cast();
        Ok(Parts { _buffer: buffer, first, len, count, done })
    }

    /// Forgets what an op that did not end has left.
    pub fn reset(&self) {
        self.done.iter().for_each(|done| done.store(0, Relaxed));
    }

    /// The part of a head.
    fn part(&self, head: usize, part: usize) -> *mut f32 {
        self.first.wrapping_add((head * self.count + part) * self.len)
    }
}

/// Writes some heads' keys and some heads' values of the rows of `share` into the cache; row `r` stands at
/// `position + r`.
///
/// # Safety
/// The cache has room for the positions and no one else touches these of these heads; their columns of rows
/// `share` of `qkv` are written by no other.
pub unsafe fn store(
    kernels: &KernelSet,
    cache: &LayerCache,
    share: Range<usize>,
    qkv: Rows,
    shape: &HeadShape,
    position: usize,
    (key_heads, value_heads): (Range<usize>, Range<usize>),
) {
    let kernel = kernels.attention.of(cache.layout.stored);
    let row = qkv.row_f32(share.start);
    let stride = qkv.stride() / size_of::<f32>();
    let (at, count) = (position + share.start, share.len());
    for head in key_heads {
        let (rows, (keys, _)) = (row.wrapping_add(shape.key_column(head)), cache.head(head));
        // SAFETY: by contract; a row holds keys of all heads.
        unsafe { kernel.store_keys(shape.head_dim, keys, at, (rows, stride, count)) };
    }
    for head in value_heads {
        let (rows, (_, values)) = (row.wrapping_add(shape.value_column(head)), cache.head(head));
        // SAFETY: as above.
        unsafe { kernel.store_values(shape.head_dim, values, at, (rows, stride, count)) };
    }
}

/// What all workers share of an attention step.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Rows of queries, keys and values side by side.
    pub qkv: Rows,
    /// Rows of all heads' results side by side.
    pub out: Rows,
    /// The layer's cache, the batch's own keys and values included.
    pub cache: LayerCache,
    /// How rows are divided.
    pub shape: HeadShape,
    /// One past the last position that each row sees.
    pub limits: &'a [u32],
    /// Multiplies the scores.
    pub scale: f32,
    /// For a single token's sequence that several workers share.
    pub parts: &'a Parts,
}

/// This worker's part of the attention; every worker calls it with the same arguments and counter.
///
/// # Safety
/// Queries and cache are written by no one until the op ends, `out` and `parts` by the workers of this op alone;
/// `scratch` is this worker's own and holds [`scratch_len`] floats.
pub unsafe fn run(
    kernels: &KernelSet,
    worker: &Worker<'_>,
    counter: &WorkCounter,
    args: &Args<'_>,
    scratch: *mut f32,
) {
    let kernel = kernels.attention.of(args.cache.layout.stored);
    let parts = args.limits.first().map_or(0, |&limit| (limit as usize).div_ceil(PART));
    // SAFETY: the caller's promise.
    unsafe {
        if args.qkv.len() == 1 && worker.count() > 1 && parts > 1 && parts <= args.parts.count {
            run_parts(kernel, worker, counter, args, parts, scratch);
        } else {
            run_blocks(kernel, worker, counter, args, scratch);
        }
    }
}

/// Blocks of tokens of each head, drawn one by one.
///
/// # Safety
/// As [`run`].
unsafe fn run_blocks(
    kernel: &Row,
    worker: &Worker<'_>,
    counter: &WorkCounter,
    args: &Args<'_>,
    scratch: *mut f32,
) {
    let shape = &args.shape;
    let tokens = args.qkv.len();
    let per_task = shape.tokens_per_task(tokens, worker.count());
    // Late tokens see more keys than early ones, so the longest tasks come first.
    let blocks = tokens.div_ceil(per_task);
    let total = blocks * shape.n_head_kv;
    let grain = if worker.count() == 1 { total } else { 1 };
    while let Some(range) = counter.take(total, grain) {
        for task in range {
            let (head, block) = (task % shape.n_head_kv, blocks - 1 - task / shape.n_head_kv);
            let begin = block * per_task;
            let call = args.call(head, begin..tokens.min(begin + per_task), scratch);
            // SAFETY: the counter hands each block of rows and head to one worker; the rest by contract.
            unsafe { kernel.run(&call) }
        }
    }
}

/// Pieces of a single token's sequence, a few parts each, drawn one by one. Whoever ends a head's last piece
/// joins its parts.
///
/// # Safety
/// As [`run`]; `args.parts` has room for `count` parts of each head.
unsafe fn run_parts(
    kernel: &Row,
    worker: &Worker<'_>,
    counter: &WorkCounter,
    args: &Args<'_>,
    count: usize,
    scratch: *mut f32,
) {
    let heads = args.shape.n_head_kv;
    let pieces = pieces(heads, count, worker.count());
    while let Some(range) = counter.take(heads * pieces, 1) {
        for task in range {
            let (head, piece) = (task % heads, task / heads);
            let parts = count * piece / pieces..count * (piece + 1) / pieces;
            let (call, to) = (args.call(head, 0..1, scratch), args.parts.part(head, parts.start));
            // SAFETY: the counter hands each piece to one worker; the rest by contract.
            unsafe { kernel.run_parts(&call, parts, to) };
            let done = &args.parts.done[head];
            // Acquires what the others have left, and releases this piece.
            if done.fetch_add(1, AcqRel) + 1 == pieces {
                done.store(0, Relaxed);
                // SAFETY: all pieces are done, and nobody else sees that they are.
                unsafe { kernel.join_parts(&call, args.parts.part(head, 0), count) }
            }
        }
    }
}

/// Pieces of a head's `count` parts: such that all heads' can be even among the workers.
fn pieces(heads: usize, count: usize, workers: usize) -> usize {
    let (mut common, mut rest) = (workers, heads);
    while rest > 0 {
        (common, rest) = (rest, common % rest);
    }
    (TASKS * workers).div_ceil(heads).next_multiple_of(workers / common).min(count)
}

impl Args<'_> {
    /// The call for one key/value head and some tokens.
    fn call(&self, head: usize, tokens: Range<usize>, scratch: *mut f32) -> AttentionArgs {
        let shape = &self.shape;
        let column = head * shape.group() * shape.head_dim;
        let (keys, values) = self.cache.head(head);
        AttentionArgs {
            q: self.qkv.row_f32(tokens.start).wrapping_add(column),
            q_token_stride: self.qkv.stride() / size_of::<f32>(),
            q_head_stride: shape.head_dim,
            tokens: tokens.len(),
            heads: shape.group(),
            head_dim: shape.head_dim,
            scale: self.scale,
            k: keys,
            v: values,
            limits: self.limits[tokens.start..].as_ptr(),
            starts: std::ptr::null(),
            // Between two tokens, all layers' weights and keys have passed through the caches.
            ahead: true,
            out: self.out.row_f32(tokens.start).wrapping_add(column),
            out_token_stride: self.out.stride() / size_of::<f32>(),
            out_head_stride: shape.head_dim,
            scratch,
        }
    }
}
