//! Attention over the cache: storing keys and values row by row, and the weighted sums, shared out over
//! workers by key/value head and block of tokens.

use std::ops::Range;

use super::Rows;
use crate::error::{Error, Result};
use crate::kernels::KernelSet;
use crate::kernels::attention::{AttentionArgs, Layout};
use crate::threads::{WorkCounter, Worker};

/// Rows of a task, about: enough for keys and values to be used often once they are in L1, few enough to share
/// a prompt out evenly.
const ROWS_PER_TASK: usize = 48;
/// Tokens of a task, at least.
const TOKENS_PER_TASK: usize = 16;

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

    /// Tokens that a task takes at once.
    fn tokens_per_task(&self) -> usize {
        (ROWS_PER_TASK / self.group()).max(TOKENS_PER_TASK)
    }

    /// Columns of a row where key head `head` begins.
    fn key_column(&self, head: usize) -> usize {
        (self.n_head + head) * self.head_dim
    }

    fn value_column(&self, head: usize) -> usize {
        (self.n_head + self.n_head_kv + head) * self.head_dim
    }
}

/// Keys and values of one layer: a run of heads, each `head_len` floats from the next.
#[derive(Clone, Copy, Debug)]
pub struct LayerCache {
    /// Keys of head 0.
    pub keys: *mut f32,
    /// Values of head 0.
    pub values: *mut f32,
    /// Floats of a head's keys.
    pub key_len: usize,
    /// Floats of a head's values.
    pub value_len: usize,
    /// How positions lie within a head.
    pub layout: Layout,
}

/// Floats of scratch that a worker needs.
///
/// # Errors
/// [`Error::OutOfMemory`] where the size overflows.
pub fn scratch_len(kernels: &KernelSet, shape: &HeadShape) -> Result<usize> {
    let len = kernels.attention.f32.scratch_len(shape.head_dim, shape.tokens_per_task() * shape.group());
    len.ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "scratch" })
}

/// Writes keys and values of the rows of `share` into the cache; row `r` stands at `position + r`.
///
/// # Safety
/// The cache has room for the positions and no one else touches these; rows `share` of `qkv` are written
/// by no other.
pub unsafe fn store(cache: &LayerCache, share: Range<usize>, qkv: Rows, shape: &HeadShape, position: usize) {
    let row = qkv.row_f32(share.start);
    let stride = qkv.stride() / size_of::<f32>();
    let (at, count) = (position + share.start, share.len());
    for head in 0..shape.n_head_kv {
        let keys = cache.keys.wrapping_add(head * cache.key_len);
        let values = cache.values.wrapping_add(head * cache.value_len);
        let (k, v) = (row.wrapping_add(shape.key_column(head)), row.wrapping_add(shape.value_column(head)));
        // SAFETY: by contract; a row holds keys and values of all heads.
        unsafe {
            cache.layout.write_keys(keys, at, k, stride, count);
            cache.layout.write_values(values, at, v, stride, count);
        }
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
}

/// This worker's part of the attention; every worker calls it with the same arguments and counter.
///
/// # Safety
/// Queries and cache are written by no one until the op ends, `out` by the workers of this op alone;
/// `scratch` is this worker's own and holds [`scratch_len`] floats.
pub unsafe fn run(
    kernels: &KernelSet,
    worker: &Worker<'_>,
    counter: &WorkCounter,
    args: &Args<'_>,
    scratch: *mut f32,
) {
    let shape = &args.shape;
    let (tokens, per_task) = (args.qkv.len(), shape.tokens_per_task());
    // Late tokens see more keys than early ones, so tasks are drawn one by one, the longest first.
    let blocks = tokens.div_ceil(per_task);
    let total = blocks * shape.n_head_kv;
    let grain = if worker.count() == 1 { total } else { 1 };
    while let Some(range) = counter.take(total, grain) {
        for task in range {
            let (head, block) = (task % shape.n_head_kv, blocks - 1 - task / shape.n_head_kv);
            let begin = block * per_task;
            let column = head * shape.group() * shape.head_dim;
            let call = AttentionArgs {
                q: args.qkv.row_f32(begin).wrapping_add(column),
                q_token_stride: args.qkv.stride() / size_of::<f32>(),
                q_head_stride: shape.head_dim,
                tokens: per_task.min(tokens - begin),
                heads: shape.group(),
                head_dim: shape.head_dim,
                scale: args.scale,
                k: args.cache.keys.wrapping_add(head * args.cache.key_len),
                v: args.cache.values.wrapping_add(head * args.cache.value_len),
                limits: args.limits[begin..].as_ptr(),
                starts: std::ptr::null(),
                // Between two tokens, all layers' weights and keys have passed through the caches.
                ahead: true,
                out: args.out.row_f32(begin).wrapping_add(column),
                out_token_stride: args.out.stride() / size_of::<f32>(),
                out_head_stride: shape.head_dim,
                scratch,
            };
            // SAFETY: the counter hands each block of rows and head to one worker; the rest by contract.
            unsafe { kernels.attention.f32.run(&call) }
        }
    }
}
