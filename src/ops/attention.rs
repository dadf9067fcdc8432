//! Attention over the cache: storing keys and values row by row, and the weighted sums. The sums are divided among
//! workers by span, key/value head and block of tokens, or for a single token by head and parts of the sequence.

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};

use super::Rows;
use crate::error::{Error, Result};
use crate::kernels::attention::{AttentionArgs, HeadTiles, Kernel, Layout, PART, ScoreOptions};
use crate::memory::{AlignedBuf, checked_bytes};
use crate::threads::{WorkCounter, Worker};

/// Rows of a task, at least: each tile of keys and values that is loaded into L1 is used for so many.
const FEW_ROWS: usize = 48;
/// Rows of a task, at most: widening keys and values once for so many costs little.
const MANY_ROWS: usize = 192;
/// Tokens of a task, at least.
const FEW_TOKENS: usize = 16;
/// Tasks for each worker, about: enough that all workers end at about the same time.
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

    /// Tokens of each task, where `workers` share `tokens`.
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
    /// The page of each tile of the sequence. Entries of tiles that no row sees are not read.
    pub table: *const u32,
    /// How positions are laid out within a head's tile, and their element type.
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
    /// The rows of the batch.
    pub rows: Range<usize>,
    /// Position of the first row in its sequence.
    pub position: usize,
}

/// ALiBi's slope of each query head, as llama.cpp computes them in f32: powers of 2^(−max_bias / n) for the first n
/// heads, where n is the largest power of two up to `n_head`; for the others, odd powers of that number's root.
pub fn alibi_slopes(n_head: usize, max_bias: f32) -> impl Iterator<Item = f32> {
    let n = n_head.checked_ilog2().map_or(1, |log| 1usize << log);
    let (base, root) = (2f32.powf(-max_bias / n as f32), 2f32.powf(-(max_bias / 2.0) / n as f32));
    (0..n_head).map(move |head| match head.checked_sub(n) {
        None => base.powf((head + 1) as f32),
        Some(rest) => root.powf((2 * rest + 1) as f32),
    })
}

/// The error for a size that overflows.
const TOO_LARGE: Error = Error::OutOfMemory { bytes: usize::MAX, what: WHAT };
/// What the memory is for, in errors.
const WHAT: &str = "attention's scratch";

/// Floats of scratch that a worker needs.
///
/// # Errors
/// [`Error::OutOfMemory`] where the size overflows.
pub fn scratch_len(kernel: &Kernel, shape: &HeadShape) -> Result<usize> {
    let rows = shape.many_tokens() * shape.group();
    kernel.scratch_len(shape.head_dim, rows).ok_or(TOO_LARGE)
}

/// The results of parts of a sequence until they are joined, for workers that share a single token's attention. It is made
/// for a context; ops that a barrier separates use it one after the other.
#[derive(Debug)]
pub struct Parts {
    /// A result of `part_len` floats for each part of each head.
    results: AlignedBuf,
    /// Parts of a head.
    count: usize,
    /// Pieces of each head that are done.
    done: Vec<AtomicUsize>,
}

impl Parts {
    /// Parts of the longest sequence; 0 where one worker computes all.
    fn count(n_ctx: usize, threads: usize) -> usize {
        if threads > 1 { n_ctx.div_ceil(PART) } else { 0 }
    }

    /// Bytes for a context of `n_ctx` positions and `threads` workers, with layers of this shape.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the size overflows.
    pub fn bytes(kernel: &Kernel, shape: &HeadShape, n_ctx: usize, threads: usize) -> Result<usize> {
        let len = kernel.part_len(shape.head_dim, shape.group()).ok_or(TOO_LARGE)?;
        let parts = checked_bytes(Self::count(n_ctx, threads), shape.n_head_kv, WHAT)?;
        checked_bytes(parts, checked_bytes(len, size_of::<f32>(), WHAT)?, WHAT)
    }

    /// Memory of `bytes` bytes, as [`Parts::bytes`] counts them, for up to `heads` key/value heads in a context of `n_ctx`
    /// positions and `threads` workers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(bytes: usize, heads: usize, n_ctx: usize, threads: usize) -> Result<Self> {
        let mut done = Vec::new();
        let refused =
            |_| Error::OutOfMemory { bytes: heads.saturating_mul(size_of::<AtomicUsize>()), what: WHAT };
        done.try_reserve_exact(heads).map_err(refused)?;
        done.resize_with(heads, AtomicUsize::default);
        Ok(Parts { results: AlignedBuf::zeroed(bytes, WHAT)?, count: Self::count(n_ctx, threads), done })
    }

    /// The result of a head's part, of `len` floats. Writing through it is sound: the buffer owns its memory by address
    /// and lends no references to it.
    fn result(&self, head: usize, part: usize, len: usize) -> *mut f32 {
        let first: *mut f32 = self.results.as_ptr().cast_mut().cast();
        first.wrapping_add((head * self.count + part) * len)
    }

    /// Starts over after an op that was interrupted.
    pub fn reset(&self) {
        self.done.iter().for_each(|done| done.store(0, Relaxed));
    }
}

/// Stores the keys of some heads and the values of some heads, from the rows of one span into its cache.
///
/// # Safety
/// The CPU has the kernel's instruction set. `cache` has pages for the span's positions, and nobody else reads or writes
/// these positions of these heads. Rows `span.rows` of `qkv` hold queries, keys and values of `shape`, and nobody writes
/// the columns of these heads.
pub unsafe fn store(
    kernel: &Kernel,
    cache: &LayerCache,
    span: &SpanRows,
    qkv: Rows,
    shape: &HeadShape,
    (key_heads, value_heads): (Range<usize>, Range<usize>),
) {
    let row = qkv.row_f32(span.rows.start);
    let stride = qkv.stride() / size_of::<f32>();
    let (at, count) = (span.position, span.rows.len());
    let keys = key_heads.map(|head| (shape.key_column(head), cache.head(head).0, true));
    let values = value_heads.map(|head| (shape.value_column(head), cache.head(head).1, false));
    for (column, tiles, are_keys) in keys.chain(values) {
        let rows = (row.wrapping_add(column).cast_const(), stride, count);
        // SAFETY: each row of the span holds the keys and values of all heads, and the cache has room for them, which is
        // this worker's alone, as promised.
        unsafe {
            match are_keys {
                true => kernel.store_keys(shape.head_dim, tiles, at, rows),
                false => kernel.store_values(shape.head_dim, tiles, at, rows),
            }
        }
    }
}

/// The arguments of an attention step, which all workers share. `C` gives the layer's cache of a span, which includes the
/// batch's own keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a, C> {
    /// Rows of queries, keys and values side by side.
    pub qkv: Rows,
    /// Rows of the results of all heads, side by side.
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
    /// Further changes to the scores, with a slope and a sink for each query head where there are any.
    pub scores: ScoreOptions<'a>,
    /// Memory for the parts of a single token's sequence, which several workers share.
    pub parts: &'a Parts,
}

/// This worker's share of the attention; every worker calls it with the same arguments and counter.
///
/// # Safety
/// The CPU has the kernel's instruction set. Until the op ends, nobody writes the queries and the caches, and only the
/// workers of this op touch `out` and `parts`. The rows and caches hold what `shape`, `spans`, `limits` and `starts` say;
/// `scores` has a slope and a sink for each query head where it has any; `parts` has room for the shape ([`Parts::bytes`]); `scratch` is this worker's own and holds [`scratch_len`] floats.
pub unsafe fn run<C: Fn(usize) -> LayerCache>(
    kernel: &Kernel,
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
    // SAFETY: both functions ask for the promises of this one, and the parts that the token sees fit into
    // `args.parts`.
    unsafe {
        if parts.len() > 1 && parts.len() <= args.parts.count {
            run_parts(kernel, worker, counter, args, parts, scratch);
        } else {
            run_blocks(kernel, worker, counter, args, scratch);
        }
    }
}

/// Blocks of tokens of each head and span, scheduled dynamically.
///
/// # Safety
/// As [`run`].
unsafe fn run_blocks<C: Fn(usize) -> LayerCache>(
    kernel: &Kernel,
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
            // Tasks come in order, so the search goes on from the last task's span.
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
            // SAFETY: the call describes rows and a cache that the caller has promised; the counter hands each block of
            // rows and head to one worker.
            unsafe { kernel.run(&call) }
        }
    }
}

/// Pieces of a single token's sequence, a few parts each, scheduled dynamically. The worker that ends a head's last piece
/// joins the head's parts.
///
/// # Safety
/// As [`run`]; `visible` are the parts that the token sees, and `args.parts` has room for so many of each head.
unsafe fn run_parts<C: Fn(usize) -> LayerCache>(
    kernel: &Kernel,
    worker: &Worker<'_>,
    counter: &WorkCounter,
    args: &Args<'_, C>,
    visible: Range<usize>,
    scratch: *mut f32,
) {
    let (heads, count) = (args.shape.n_head_kv, visible.len());
    let Some(len) = kernel.part_len(args.shape.head_dim, args.shape.group()) else { return };
    let part = |head: usize, part: usize| args.parts.result(head, part, len);
    let pieces = pieces(heads, count, worker.count());
    while let Some(range) = counter.take(heads * pieces, 1) {
        for task in range {
            let (head, piece) = (task % heads, task / heads);
            let parts = count * piece / pieces..count * (piece + 1) / pieces;
            let (call, to) = (args.call(0, head, 0..1, scratch), part(head, parts.start));
            let parts = visible.start + parts.start..visible.start + parts.end;
            // SAFETY: the call describes a row and a cache that the caller has promised; `args.parts` has room for the
            // parts, and the counter hands each piece to one worker.
            unsafe { kernel.run_parts(&call, parts, to) };
            let done = &args.parts.done[head];
            // Acquires the results of the other workers' pieces, and releases this one.
            if done.fetch_add(1, AcqRel) + 1 == pieces {
                done.store(0, Relaxed);
                // SAFETY: all pieces of the head are done, and only the worker that counted the last one comes here.
                unsafe { kernel.join_parts(&call, part(head, 0), count) }
            }
        }
    }
}

/// The number of pieces of a head's `count` parts, so that the pieces of all heads can be even among the workers.
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
        let first_head = head * shape.group();
        let column = first_head * shape.head_dim;
        let SpanRows { rows, position } = &self.spans[span];
        let position = (position + tokens.start - rows.start) as i64;
        let (keys, values) = (self.cache)(span).head(head);
        AttentionArgs {
            q: self.qkv.row_f32(tokens.start).wrapping_add(column),
            q_token_stride: self.qkv.stride() / size_of::<f32>(),
            q_head_stride: shape.head_dim,
            tokens: tokens.len(),
            heads: shape.group(),
            head_dim: shape.head_dim,
            scale: self.scale,
            scores: self.scores.args(first_head, position),
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
