//! Attention divided by sequence, key/value head and block of queries. A worker computes a block into memory of its
//! own and copies the results from there, since results of neighbouring heads interleave.

use std::ops::Range;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::AttentionWorkspace;
use crate::error::Result;
use crate::kernels::attention::{Inputs, Kernel, Shape, Strides, Tensor, attention, scratch_len};
use crate::ops::slices::LINE;
use crate::threads::{Team, WorkCounter};

/// Blocks that each worker should find: enough that a worker that comes late costs little.
const BLOCKS_PER_WORKER: usize = 4;
/// Rows (queries × heads that share keys) of a block, at least: keys and values are packed once for each block.
const LEAST_ROWS: usize = 96;
/// Rows of a block, at most: the kernel packs keys and values once for so many.
const MOST_ROWS: usize = 768;

/// A checked attention whose queries can be divided: causal, or without a window and slopes.
pub(super) struct Blocks<'a> {
    row: &'a Kernel,
    shape: Shape,
    inputs: Inputs<'a>,
    /// Query heads that share a key/value head.
    heads: usize,
    /// Queries of a block; the last block of a sequence may have fewer.
    tokens: usize,
}

/// Queries of one sequence, with the heads that share one key/value head.
struct Block {
    sequence: usize,
    /// The key/value head.
    head: usize,
    tokens: Range<usize>,
}

impl<'a> Blocks<'a> {
    /// Blocks for so many workers.
    pub(super) fn new(row: &'a Kernel, shape: Shape, inputs: Inputs<'a>, workers: usize) -> Self {
        let heads = shape.n_head / shape.n_head_kv;
        let wanted = (BLOCKS_PER_WORKER * workers).div_ceil(shape.batch.saturating_mul(shape.n_head_kv));
        let (least, most) = (LEAST_ROWS.div_ceil(heads), (MOST_ROWS / heads).max(1));
        let tokens = shape.tokens_q.div_ceil(wanted).clamp(least, most).min(shape.tokens_q);
        Self { row, shape, inputs, heads, tokens }
    }

    /// Blocks of each head.
    fn per_head(&self) -> usize {
        self.shape.tokens_q.div_ceil(self.tokens)
    }

    fn get(&self, number: usize) -> Block {
        let heads = self.shape.batch * self.shape.n_head_kv;
        // Late queries see more keys than early ones, so the longest blocks come first.
        let (block, place) = (self.per_head() - 1 - number / heads, number % heads);
        let first = block * self.tokens;
        Block {
            sequence: place / self.shape.n_head_kv,
            head: place % self.shape.n_head_kv,
            tokens: first..self.shape.tokens_q.min(first + self.tokens),
        }
    }

    /// Computes all blocks on the team. `out` reaches over all rows of the result, and no two of them overlap.
    pub(super) fn compute(
        &self,
        team: &Team,
        out: &mut [f32],
        out_strides: &Strides,
        workspace: &mut AttentionWorkspace,
    ) -> Result<()> {
        let results = self.tokens.saturating_mul(self.heads).saturating_mul(self.shape.head_dim);
        let scratch = scratch_len(self.row, &self.block_shape(&(0..self.tokens))).unwrap_or(usize::MAX);
        // A multiple of a cache line, so that workers don't share one.
        let len = results.saturating_add(scratch).checked_next_multiple_of(LINE).unwrap_or(usize::MAX);
        let memory = Mutex::new(workspace.floats(team.count(), len)?.chunks_exact_mut(len));
        let count = self.shape.batch * self.shape.n_head_kv * self.per_head();
        let (counter, failure) = (WorkCounter::new(), Mutex::new(None));
        let out = AtomicPtr::new(out.as_mut_ptr());
        team.run(|_| {
            let Some(memory) = lock(&memory).next() else { return };
            let (results, scratch) = memory.split_at_mut(results);
            while let Some(number) = counter.take(count, 1) {
                let block = self.get(number.start);
                match self.run(&block, results, scratch) {
                    // SAFETY: `out` is borrowed exclusively and reaches over all rows, no two of which overlap; the
                    // counter hands each block, and so each row, to one worker.
                    Ok(()) => unsafe { self.store(&block, results, out.load(Relaxed), out_strides) },
                    Err(error) => *lock(&failure) = Some(error),
                }
            }
        })?;
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The shape of a block by itself. Its queries stand at the end of the keys: with causality, keys behind the
    /// last one are left out, which it doesn't see anyway; without, positions don't count.
    fn block_shape(&self, tokens: &Range<usize>) -> Shape {
        let shape = &self.shape;
        let behind = if shape.causal { shape.tokens_q - tokens.end } else { 0 };
        Shape {
            batch: 1,
            n_head: self.heads,
            n_head_kv: 1,
            tokens_q: tokens.len(),
            tokens_kv: shape.tokens_kv.saturating_sub(behind),
            ..*shape
        }
    }

    /// Computes a block into `results`, `[tokens][heads][head_dim]`.
    fn run(&self, block: &Block, results: &mut [f32], scratch: &mut [f32]) -> Result<()> {
        let from = |tensor: Tensor<'a>, token: usize, head: usize| {
            let Strides { batch, token: token_stride, head: head_stride } = tensor.strides;
            let first = block.sequence * batch + token * token_stride + head * head_stride;
            // Of no keys, the tensor may reach over nothing.
            Tensor { data: tensor.data.get(first..).unwrap_or(&[]), ..tensor }
        };
        let (token, head) = (block.tokens.start, block.head * self.heads);
        let inputs = Inputs {
            q: from(self.inputs.q, token, head),
            k: from(self.inputs.k, 0, block.head),
            v: from(self.inputs.v, 0, block.head),
            mask: self.inputs.mask.map(|mask| from(mask, token, head)),
            scores: self.inputs.scores.skip(head),
        };
        let shape = self.block_shape(&block.tokens);
        let strides = Strides::dense(shape.tokens_q, self.heads, shape.head_dim);
        attention(self.row, &shape, &inputs, results, strides, scratch)
    }

    /// Copies a block's results to their places.
    ///
    /// # Safety
    /// `out` is the first element of the result; the block's rows lie in it, and nobody else uses them.
    unsafe fn store(&self, block: &Block, results: &[f32], out: *mut f32, strides: &Strides) {
        let head_dim = self.shape.head_dim;
        let rows = results.chunks_exact(head_dim).take(block.tokens.len() * self.heads);
        for (r, row) in rows.enumerate() {
            let token = block.tokens.start + r / self.heads;
            let head = block.head * self.heads + r % self.heads;
            let first = block.sequence * strides.batch + token * strides.token + head * strides.head;
            // SAFETY: a row of `head_dim` floats of this block, writable as the caller has promised; `results` is the
            // worker's own memory, so they don't overlap.
            unsafe { out.add(first).copy_from_nonoverlapping(row.as_ptr(), head_dim) };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
