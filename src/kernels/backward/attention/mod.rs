//! Attention's gradient, without a matrix of all scores: the gradients of queries, keys and values from that of the
//! result, one key/value head after the other. Weights are computed again from the log-sum-exp that the forward pass kept
//! ([`Kernel::run_rows`](crate::kernels::attention::Kernel::run_rows)), tile by tile (Dao et al. 2022, arXiv:2205.14135).
//!
//! # Contract
//! - With s = scale · q·k of a query and a key that it sees, w = e^(s − lse), and t = w · (do·v − o·do) · scale:
//!   dq = Σ t·k over keys, dk = Σ t·q and dv = Σ w·do over the queries that see the key, of all heads that share it.
//! - Each element of a result is one sum in f32: of a query's gradient over keys in order, of a key's or value's over
//!   query heads in order, and within a head over tokens in order. Keys that a query doesn't see add zeros. So bits
//!   depend neither on tiles nor on how the work is shared: by key/value heads ([`Share::All`]), and where these are
//!   few, also by tokens ([`Share::Queries`], [`Share::Keys`]), which computes scores and weights twice.
//! - With u = 2⁻²⁴, T tokens, D = head_dim, and c = (D + 6)·u · Σ|scale·q·k| + 4·u·|lse|, the largest of them for a row: a
//!   weight w is off by (c + 3·u)·w, and t by |scale| · w · ((c + 8·u)·|do·v − o·do| + (D + 4)·u·(Σ|do·v| + Σ|o·do|)).
//!   Sums of n terms add (n + 2)·u · Σ|term|.
//! - NaN in q, o, do or lse reaches the gradients of its row, and those of keys and values that it sees; one in q, k, v or do
//!   may also reach up to five rows behind these, whose weights of 0 it multiplies.

mod pass;
mod steps;
#[cfg(test)]
mod tests;
mod tile;

use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::kernels::attention::pack::{Pack, PackKeys, PackValues};
use crate::kernels::attention::step::Step;
use crate::kernels::info::KernelInfo;
use std::ops::Range;
use steps::{Level, Steps, Weigh};
use tile::Tiles;

/// Keys of a tile.
const KEYS: usize = 128;
/// Tokens of a tile.
const QUERIES: usize = 96;
/// Floats from one row of a tile's scores to the next: not a power of two, so that a column's elements don't share few
/// sets of L1.
const LINE: usize = KEYS + 16;

/// Rows of some heads of a sequence's tokens: row (t, h) begins at `first + t · token_stride + h · head_stride`, in floats.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct HeadRows {
    /// Row (0, 0). Only results are written.
    pub first: *mut f32,
    /// From one token to the next.
    pub token_stride: usize,
    /// From one head to the next.
    pub head_stride: usize,
}

impl HeadRows {
    #[inline(always)]
    fn row(&self, token: usize, head: usize) -> *mut f32 {
        self.first.wrapping_add(token * self.token_stride + head * self.head_stride)
    }
}

/// Which gradients a call computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// All of them.
    All,
    /// Those of the queries of these tokens.
    Queries(Range<usize>),
    /// Those of the keys and values of these tokens.
    Keys(Range<usize>),
}

/// One key/value head of one sequence, and the query heads that share it.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct AttentionBackwardArgs {
    /// Queries.
    pub q: HeadRows,
    /// Keys: rows of head 0.
    pub k: HeadRows,
    /// Values: rows of head 0.
    pub v: HeadRows,
    /// The result of the forward pass.
    pub o: HeadRows,
    /// The gradient of the result.
    pub d_o: HeadRows,
    /// ln Σ e^score of each query: of (t, h) at `lse + h · lse_stride + t`.
    pub lse: *const f32,
    /// Floats from one head's to the next's.
    pub lse_stride: usize,
    /// The gradient of the queries is written here.
    pub dq: HeadRows,
    /// The gradient of the keys: rows of head 0 are written.
    pub dk: HeadRows,
    /// The gradient of the values: rows of head 0 are written.
    pub dv: HeadRows,
    /// Tokens of the sequence.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// A query sees no key past its own position.
    pub causal: bool,
    /// What is computed: results that it leaves out are not touched.
    pub share: Share,
    /// [`AttentionBackward::scratch_len`] floats, 64-byte alignment is fastest.
    pub scratch: *mut f32,
}

/// The sizes of one sequence's attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Tokens.
    pub tokens: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key/value heads, of which the query heads are a multiple.
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// A query sees no key past its own position.
    pub causal: bool,
}

/// What the forward pass read and wrote, and the gradient of its result; rows `[token][head][head_dim]` without gaps.
#[derive(Clone, Copy, Debug)]
pub struct AttentionValues<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// The result.
    pub o: &'a [f32],
    /// The gradient of the result.
    pub d_o: &'a [f32],
    /// ln Σ e^score of each query, `[head][token]`.
    pub lse: &'a [f32],
}

/// The gradients to write, in rows as [`AttentionValues`].
#[derive(Debug)]
pub struct AttentionGradients<'a> {
    /// Of the queries.
    pub dq: &'a mut [f32],
    /// Of the keys.
    pub dk: &'a mut [f32],
    /// Of the values.
    pub dv: &'a mut [f32],
}

/// The gradients of attention's queries, keys and values; see the module's contract.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBackward {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    tiles: &'static Tiles,
    transpose: Step<Pack>,
    copy: Step<Pack>,
    level: Step<Level>,
    weigh: Step<Weigh>,
}

impl AttentionBackward {
    pub(super) const fn at<I: Isa>() -> Self {
        let tiles = const { &Tiles::of::<I>() };
        let info = KernelInfo::of::<I>("attention_backward", "f32");
        Self {
            info: KernelInfo { mr: tiles.mr, nr: tiles.width * tiles.lanes, ..info },
            tiles,
            transpose: Step::of::<I, PackKeys>(),
            copy: Step::of::<I, PackValues>(),
            level: Step::of::<I, Steps>(),
            weigh: Step::of::<I, Steps>(),
        }
    }

    /// Floats of scratch memory for a call with `heads` query heads; `None` on overflow.
    pub fn scratch_len(&self, tokens: usize, heads: usize, head_dim: usize) -> Option<usize> {
        pass::scratch_len(self.tiles.lanes, tokens, heads, head_dim)
    }

    /// Computes all gradients of one sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths don't fit the shape, the query heads are no multiple of the key/value
    /// heads, or the scratch memory is shorter than [`AttentionBackward::scratch_len`] for the query heads that share a
    /// key/value head; nothing is written then.
    pub fn apply(
        &self,
        shape: &AttentionShape,
        values: &AttentionValues<'_>,
        gradients: AttentionGradients<'_>,
        scratch: &mut [f32],
    ) -> Result<()> {
        let &AttentionShape { tokens, n_head, n_head_kv, head_dim, scale, causal } = shape;
        let heads = n_head.checked_div(n_head_kv).unwrap_or(0);
        if heads * n_head_kv != n_head {
            return Err(Error::invalid(format!(
                "{n_head} query heads can't share {n_head_kv} key/value heads evenly"
            )));
        }
        let AttentionGradients { dq, dk, dv } = gradients;
        let rows = |heads: usize| tokens.checked_mul(heads)?.checked_mul(head_dim);
        let of_queries = [values.q.len(), values.o.len(), values.d_o.len(), dq.len()];
        let of_keys = [values.k.len(), values.v.len(), dk.len(), dv.len()];
        let fits = of_queries.iter().all(|&len| Some(len) == rows(n_head))
            && of_keys.iter().all(|&len| Some(len) == rows(n_head_kv))
            && tokens.checked_mul(n_head) == Some(values.lse.len());
        let needed = self.scratch_len(tokens, heads, head_dim);
        if !fits || needed.is_none_or(|needed| scratch.len() < needed) {
            return Err(Error::invalid(format!(
                "slices of {of_queries:?} (q, o, do, dq), {of_keys:?} (k, v, dk, dv), {} (lse) and {} (scratch) floats \
                 don't fit {shape:?}",
                values.lse.len(),
                scratch.len()
            )));
        }
        let (query, key) = (heads * head_dim, head_dim);
        let at = |first: *mut f32, all: usize, begin: usize| HeadRows {
            first: first.wrapping_add(begin),
            token_stride: all * head_dim,
            head_stride: head_dim,
        };
        let [dq, dk, dv] = [dq, dk, dv].map(<[f32]>::as_mut_ptr);
        for head in 0..n_head_kv {
            let read = |x: &[f32], all, each: usize| at(x.as_ptr().cast_mut(), all, head * each);
            let args = AttentionBackwardArgs {
                q: read(values.q, n_head, query),
                k: read(values.k, n_head_kv, key),
                v: read(values.v, n_head_kv, key),
                o: read(values.o, n_head, query),
                d_o: read(values.d_o, n_head, query),
                lse: values.lse.as_ptr().wrapping_add(head * heads * tokens),
                lse_stride: tokens,
                dq: at(dq, n_head, head * query),
                dk: at(dk, n_head_kv, head * key),
                dv: at(dv, n_head_kv, head * key),
                tokens,
                heads,
                head_dim,
                scale,
                causal,
                share: Share::All,
                scratch: scratch.as_mut_ptr(),
            };
            // SAFETY: the slices hold the shape's rows, as was just checked, and the scratch memory; those that are written
            // are borrowed mutably.
            unsafe { self.run(&args) };
        }
        Ok(())
    }

    /// Computes the gradients that `args` asks for.
    ///
    /// # Safety
    /// All rows of `args` are there, with `head_dim` floats each, and a log-sum-exp for each query; rows of those
    /// gradients that the share includes are writable (dq is read again, too), and the scratch memory is. No gradient
    /// overlaps anything else.
    #[doc(hidden)]
    pub unsafe fn run(&self, args: &AttentionBackwardArgs) {
        // SAFETY: the caller promises all memory that `args` names.
        unsafe { pass::run(self, args) }
    }
}
