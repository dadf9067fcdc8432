//! Attention over the cache: storing keys and values row by row, and the weighted sums, shared out over
//! workers by span, key/value head and block of tokens, or for a single token by head and parts of the sequence.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};

use super::Rows;
use crate::error::{Error, Result};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Keys and values of one layer in one sequence: in each page, a head after the other, its keys before its values.
#[derive(Clone, Copy, Debug)]
pub struct LayerCache {
    /// Head 0 in page 0.
    pub first: *mut u8,
    /// Bytes from one head to the next.
    pub head_stride: usize,
    /// Bytes from one page to the next.
    pub page_stride: usize,
    /// The page of each tile of the sequence; what no row sees is never read.
    pub table: *const u32,
    /// How positions lie within a head's tile, and as what.
    pub layout: Layout,
}

impl LayerCache {
    /// A head's keys and values.
    fn head(&self, head: usize) -> (HeadTiles, HeadTiles) {
        let first = self.first.wrapping_add(head * self.head_stride);
        let tiles = |first| HeadTiles { first, stride: self.page_stride, table: self.table };
        (tiles(first), tiles(first.wrapping_add(self.layout.key_tile())))
    }
}

/// Rows of a batch that belong to one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanRows {
    /// Which rows of the batch.
    pub rows: Range<usize>,
    /// Position of the first.
    pub position: usize,
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

/// Results of parts of a sequence, until they are joined: for workers that share a single token's attention. Made
/// for a context; ops that a barrier separates use it one after the other.
#[derive(Debug)]
pub struct Parts {
    /// Keeps what `first` points to.
    _buffer: AlignedBuf,
    first: *mut f32,
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
    /// Parts that a head's sequence can have.
    fn count(n_ctx: usize, threads: usize) -> usize {
        if threads > 1 { n_ctx.div_ceil(PART) } else { 0 }
    }

    /// Bytes of a context's, for layers of this shape.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the size overflows.
    pub fn bytes(kernel: &Row, shape: &HeadShape, n_ctx: usize, threads: usize) -> Result<usize> {
        let len = kernel.part_len(shape.head_dim, shape.group()).ok_or(TOO_LARGE)?;
        let parts = checked_bytes(Self::count(n_ctx, threads), shape.n_head_kv, WHAT)?;
        checked_bytes(parts, checked_bytes(len, size_of::<f32>(), WHAT)?, WHAT)
    }

    /// Those of a context of so many positions and workers: so many bytes, for up to `heads` key/value heads.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(bytes: usize, heads: usize, n_ctx: usize, threads: usize) -> Result<Self> {
        let mut buffer = AlignedBuf::zeroed(bytes, WHAT)?;
        let done = (0..heads).map(|_| AtomicUsize::new(0)).collect();
        let first = buffer.as_mut_ptr().cast();
        Ok(Parts { _buffer: buffer, first, count: Self::count(n_ctx, threads), done })
    }

    /// Forgets what an op that did not end has left.
    pub fn reset(&self) {
        self.done.iter().for_each(|done| done.store(0, Relaxed));
    }
}

/// Writes some heads' keys and some heads' values of rows of one span into its cache.
///
/// # Safety
/// The cache has room for the positions and no one else touches these of these heads; their columns of rows
/// `span.rows` of `qkv` are written by no other.
pub unsafe fn store(
    kernel: &Row,
    cache: &LayerCache,
    span: &SpanRows,
    qkv: Rows,
    shape: &HeadShape,
    (key_heads, value_heads): (Range<usize>, Range<usize>),
) {
    let row = qkv.row_f32(span.rows.start);
    let stride = qkv.stride() / size_of::<f32>();
    let (at, count) = (span.position, span.rows.len());
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

/// What all workers share of an attention step. `C` gives a span's cache of the layer, the batch's own keys and
/// values included.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a, C> {
    /// Rows of queries, keys and values side by side.
    pub qkv: Rows,
    /// Rows of all heads' results side by side.
    pub out: Rows,
    /// The rows of each sequence; together all rows.
    pub spans: &'a [SpanRows],
    /// The cache of a span, by its number.
    pub cache: C,
    /// How rows are divided.
    pub shape: HeadShape,
    /// One past the last position that each row sees.
    pub limits: &'a [u32],
    /// The first position that each row sees; none where all see from 0 on.
    pub starts: Option<&'a [u32]>,
    /// Multiplies the scores.
    pub scale: f32,
    /// For a single token's sequence that several workers share.
    pub parts: &'a Parts,
}

/// This worker's part of the attention; every worker calls it with the same arguments and counter.
///
/// # Safety
/// Queries and caches are written by no one until the op ends, `out` and `parts` by the workers of this op alone;
/// `parts` has room for the shape ([`Parts::bytes`]); `scratch` is this worker's own and holds [`scratch_len`] floats.
pub unsafe fn run<C: Fn(usize) -> LayerCache>(
    kernel: &Row,
    worker: &Worker<'_>,
    counter: &WorkCounter,
    args: &Args<'_, C>,
    scratch: *mut f32,
) {
    let visible = |row: usize| {
        let start = args.starts.map_or(0, |starts| starts[row] as usize);
        start / PART..(args.limits[row] as usize).div_ceil(PART)
    };
    let shared = args.qkv.len() == 1 && worker.count() > 1;
    let parts = if shared { visible(0) } else { 0..0 };
    // SAFETY: this function's contract is both others'.
    unsafe {
        if parts.len() > 1 && parts.len() <= args.parts.count {
            run_parts(kernel, worker, counter, args, parts, scratch);
        } else {
            run_blocks(kernel, worker, counter, args, scratch);
        }
    }
}

/// Blocks of tokens of each head and span, drawn one by one.
///
/// # Safety
/// As [`run`].
unsafe fn run_blocks<C: Fn(usize) -> LayerCache>(
    kernel: &Row,
    worker: &Worker<'_>,
    counter: &WorkCounter,
    args: &Args<'_, C>,
    scratch: *mut f32,
) {
    let (spans, heads) = (args.spans, args.shape.n_head_kv);
    let per_task = args.shape.tokens_per_task(args.qkv.len(), worker.count());
    let tasks = |span: &SpanRows| span.rows.len().div_ceil(per_task) * heads;
    let total = spans.iter().map(tasks).sum();
    let grain = if worker.count() == 1 { total } else { 1 };
    let (mut span, mut before) = (0, 0);
    while let Some(range) = counter.take(total, grain) {
        for task in range {
            // Tasks come in order, so the span of the last one is where to look on.
            while task - before >= tasks(&spans[span]) {
                before += tasks(&spans[span]);
                span += 1;
            }
            // Late tokens see more keys than early ones, so a span's longest tasks come first.
            let (place, blocks) = (task - before, tasks(&spans[span]) / heads);
            let (head, block) = (place % heads, blocks - 1 - place / heads);
            let Range { start, end } = spans[span].rows;
            let begin = start + block * per_task;
            let call = args.call(span, head, begin..end.min(begin + per_task), scratch);
            // SAFETY: the counter hands each block of rows and head to one worker; the rest by contract.
            unsafe { kernel.run(&call) }
        }
    }
}

/// Pieces of a single token's sequence, a few parts each, drawn one by one. Whoever ends a head's last piece
/// joins its parts.
///
/// # Safety
/// As [`run`]; `visible` are the parts that the token sees, and `args.parts` has room for so many of each head.
unsafe fn run_parts<C: Fn(usize) -> LayerCache>(
    kernel: &Row,
    worker: &Worker<'_>,
    counter: &WorkCounter,
    args: &Args<'_, C>,
    visible: Range<usize>,
    scratch: *mut f32,
) {
    let (heads, count) = (args.shape.n_head_kv, visible.len());
    let Some(len) = kernel.part_len(args.shape.head_dim, args.shape.group()) else { return };
    let part =
        |head: usize, part: usize| args.parts.first.wrapping_add((head * args.parts.count + part) * len);
    let pieces = pieces(heads, count, worker.count());
    while let Some(range) = counter.take(heads * pieces, 1) {
        for task in range {
            let (head, piece) = (task % heads, task / heads);
            let parts = count * piece / pieces..count * (piece + 1) / pieces;
            let (call, to) = (args.call(0, head, 0..1, scratch), part(head, parts.start));
            let parts = visible.start + parts.start..visible.start + parts.end;
            // SAFETY: the counter hands each piece to one worker; the rest by contract.
            unsafe { kernel.run_parts(&call, parts, to) };
            let done = &args.parts.done[head];
            // Acquires what the others have left, and releases this piece.
            if done.fetch_add(1, AcqRel) + 1 == pieces {
                done.store(0, Relaxed);
                // SAFETY: all pieces are done, and nobody else sees that they are.
                unsafe { kernel.join_parts(&call, part(head, 0), count) }
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

impl<C: Fn(usize) -> LayerCache> Args<'_, C> {
    /// The call for one key/value head and some tokens of a span.
    fn call(&self, span: usize, head: usize, tokens: Range<usize>, scratch: *mut f32) -> AttentionArgs {
        let shape = &self.shape;
        let column = head * shape.group() * shape.head_dim;
        let (keys, values) = (self.cache)(span).head(head);
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
            starts: self.starts.map_or(std::ptr::null(), |starts| starts[tokens.start..].as_ptr()),
            // Between two tokens, all layers' weights and keys have passed through the caches.
            ahead: true,
            out: self.out.row_f32(tokens.start).wrapping_add(column),
            out_token_stride: self.out.stride() / size_of::<f32>(),
            out_head_stride: shape.head_dim,
            scratch,
        }
    }
}
