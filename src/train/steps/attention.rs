//! Attention over whole sequences, forward and backward. Forward keeps the logarithm of each softmax's sum, from which
//! backward recomputes scores tile by tile. A piece of work is a key head of a sequence, with the queries that share it.

use super::{At, Step, bytes_of};
use crate::error::{Error, Result};
use crate::kernels::KernelSet;
use crate::kernels::attention::{RowsArgs, Shape, scratch_len};
use crate::kernels::backward::attention::{AttentionBackwardArgs, HeadRows, Share};
use crate::ops::attention::HeadShape;
use crate::profile::Zone;
use crate::train::plan::{View, WHAT};
use crate::train::walk::Walk;

/// The operands of attention and what it keeps.
#[derive(Clone, Copy)]
pub struct Attention {
    pub q: View,
    pub k: View,
    pub v: View,
    pub out: View,
    /// A row of `context` logarithms for each sequence and query head.
    pub lse: View,
    pub heads: HeadShape,
    pub scale: f32,
    pub sequences: usize,
    pub context: usize,
}

impl Attention {
    /// The rows of a key head, or of the query heads that share it, in one sequence.
    fn heads(&self, walk: &Walk<'_>, view: View, sequence: usize, head: usize) -> HeadRows {
        let column = head * self.heads.head_dim;
        HeadRows {
            first: walk.row(view.columns(column, self.heads.head_dim), sequence * self.context),
            token_stride: walk.stride(view),
            head_stride: self.heads.head_dim,
        }
    }

    fn lse(&self, walk: &Walk<'_>, sequence: usize, head: usize) -> *mut f32 {
        walk.row(self.lse, sequence * self.heads.n_head + head)
    }

    /// Calls `piece` with each sequence and key head that this worker takes.
    fn each(&self, at: &At<'_>, piece: impl Fn(usize, usize)) {
        let heads = self.heads.n_head_kv;
        while let Some(pieces) = at.shares.take(at.worker.index(), self.sequences * heads) {
            pieces.for_each(|i| piece(i / heads, i % heads));
        }
    }

    /// Floating-point operations of so many products of queries with the keys that they see.
    fn flops(&self, products: u64) -> u64 {
        let Attention { context, sequences, heads, .. } = *self;
        let sizes = [context, context + 1, sequences, heads.n_head, heads.head_dim];
        sizes.into_iter().fold(products, |flops, size| flops.saturating_mul(size as u64))
    }
}

fn too_large() -> Error {
    Error::OutOfMemory { bytes: usize::MAX, what: WHAT }
}

/// Attention forward.
pub struct Attend(pub Attention);

impl Step for Attend {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let this = &self.0;
        let group = this.heads.group();
        this.each(at, |sequence, head| {
            let (q, out) = (
                this.heads(walk, this.q, sequence, head * group),
                this.heads(walk, this.out, sequence, head * group),
            );
            let (k, v) = (this.heads(walk, this.k, sequence, head), this.heads(walk, this.v, sequence, head));
            let args = RowsArgs {
                q: q.first,
                q_token_stride: q.token_stride,
                q_head_stride: q.head_stride,
                k: k.first,
                k_stride: k.token_stride,
                v: v.first,
                v_stride: v.token_stride,
                out: out.first,
                out_token_stride: out.token_stride,
                out_head_stride: out.head_stride,
                log_sums: this.lse(walk, sequence, head * group),
                log_sum_stride: walk.stride(this.lse),
                tokens_q: this.context,
                tokens_kv: this.context,
                heads: group,
                head_dim: this.heads.head_dim,
                scale: this.scale,
                causal: true,
                scratch: walk.scratch(at.worker),
            };
            // SAFETY: the views have these heads in the sequence's rows; nobody writes the inputs now, these heads of the
            // outputs are this worker's, and its scratch memory has room.
            unsafe { walk.kernels.attention.f32.run_rows(&args) }
        });
    }

    fn scratch(&self, kernels: &KernelSet, _: usize) -> Result<usize> {
        let Attention { heads, context, scale, .. } = self.0;
        let HeadShape { n_head, n_head_kv, head_dim } = heads;
        let (tokens_q, tokens_kv) = (context, context);
        let shape = Shape {
            batch: 1,
            n_head,
            n_head_kv,
            tokens_q,
            tokens_kv,
            head_dim,
            scale,
            causal: true,
            window: None,
        };
        scratch_len(&kernels.attention.f32, &shape).ok_or_else(too_large)
    }

    fn is_dynamic(&self) -> bool {
        true
    }

    fn flops(&self) -> u64 {
        self.0.flops(2)
    }

    fn zone(&self) -> Zone {
        Zone::Attention
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[self.0.q.width, self.0.k.width, self.0.v.width, self.0.out.width])
    }
}

/// The gradients of queries, keys and values.
pub struct AttendBack {
    pub attention: Attention,
    pub dout: View,
    pub dq: View,
    pub dk: View,
    pub dv: View,
}

impl Step for AttendBack {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let this = &self.attention;
        let group = this.heads.group();
        this.each(at, |sequence, head| {
            let queries = |view| this.heads(walk, view, sequence, head * group);
            let keys = |view| this.heads(walk, view, sequence, head);
            let args = AttentionBackwardArgs {
                q: queries(this.q),
                k: keys(this.k),
                v: keys(this.v),
                o: queries(this.out),
                d_o: queries(self.dout),
                lse: this.lse(walk, sequence, head * group),
                lse_stride: walk.stride(this.lse),
                dq: queries(self.dq),
                dk: keys(self.dk),
                dv: keys(self.dv),
                tokens: this.context,
                heads: group,
                head_dim: this.heads.head_dim,
                scale: this.scale,
                causal: true,
                share: Share::All,
                scratch: walk.scratch(at.worker),
            };
            // SAFETY: as forward: the views have these heads, nobody writes the inputs now, these heads of the gradients
            // are this worker's and overlap nothing, and its scratch memory has room.
            unsafe { walk.kernels.backward.attention.run(&args) }
        });
    }

    fn scratch(&self, kernels: &KernelSet, _: usize) -> Result<usize> {
        let Attention { heads, context, .. } = self.attention;
        let floats = kernels.backward.attention.scratch_len(context, heads.group(), heads.head_dim);
        floats.ok_or_else(too_large)
    }

    fn is_dynamic(&self) -> bool {
        true
    }

    fn flops(&self) -> u64 {
        self.attention.flops(5)
    }

    fn zone(&self) -> Zone {
        Zone::AttentionGradient
    }

    fn bytes(&self, rows: usize) -> u64 {
        let Attention { q, k, v, out, .. } = self.attention;
        bytes_of(rows, &[2 * q.width, 2 * k.width, 2 * v.width, 2 * out.width])
    }
}
