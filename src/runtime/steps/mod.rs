//! The steps of a forward pass, one file each: its data, what it reads and writes, its scratch memory, operations and
//! bytes, and how a worker does its share. A step sees the pass as a [`Walk`]; none knows a family.

pub(super) mod attend;
pub(super) mod elementwise;
pub(super) mod embed;
pub(super) mod heads;
pub(super) mod linear;
pub(super) mod mlp;
pub(super) mod normalize;
pub(super) mod pool;
pub(super) mod quantize;
pub(super) mod select;

use std::ops::Range;

use super::plan::{Buf, Plan, PlanLayout};
use crate::error::Result;
use crate::isa;
use crate::kernels::KernelSet;
use crate::kernels::attention::Kernel as AttentionKernel;
use crate::kv::{self, LayerId, SequenceId};
use crate::model::Weights;
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::ops::Rows;
use crate::ops::attention::{LayerCache, Parts, SpanRows};
use crate::ops::rotary::RotaryTable;
use crate::profile::{Tally, Zone};
use crate::threads::{Shares, WorkCounter, Worker};

/// Floating-point operations and bytes of memory that a step needs at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Operations; a multiply-add is two.
    pub flops: u64,
    /// Bytes read or written.
    pub bytes: u64,
}

impl std::ops::Add for Work {
    type Output = Work;
    fn add(self, other: Work) -> Work {
        Work { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

/// What the plan must know of a step.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Under which name its time is counted.
    pub zone: Zone,
    /// Which rows it works on.
    pub rows: RowSet,
    /// Buffers that it reads.
    pub reads: Vec<Buf>,
    /// The buffer that it writes.
    pub out: Buf,
    /// A layer of the cache, and whether it is written.
    pub cache: Option<(LayerId, bool)>,
    /// Whether workers take its parts as they are free; else each has its share of the rows.
    pub dynamic: bool,
}

impl Facts {
    /// Of a step of which each worker does its share of the rows.
    fn by_row(zone: Zone, rows: RowSet, reads: &[Buf], out: Buf) -> Facts {
        Facts { zone, rows, reads: reads.to_vec(), out, cache: None, dynamic: false }
    }

    /// Of a step whose parts workers take as they are free.
    fn dynamic(zone: Zone, rows: RowSet, out: Buf) -> Facts {
        Facts { dynamic: true, ..Facts::by_row(zone, rows, &[], out) }
    }
}

/// One step of a forward pass.
pub trait Step: Send + Sync {
    /// What the plan must know of it.
    fn facts(&self) -> Facts;

    /// Floats of scratch memory that a worker needs.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) where the size overflows.
    fn scratch(&self, _: &Scratch<'_>) -> Result<usize> {
        Ok(0)
    }

    /// Asks for what the step reads of itself and of the model before its first row: weights drive that out of the
    /// caches from token to token.
    fn prefetch(&self, _: &Weights) {
        isa::prefetch(self);
    }

    /// What it does in this pass.
    fn work(&self, walk: &Walk<'_>) -> Work;

    /// Does a worker's share.
    ///
    /// # Safety
    /// Every worker of the pass calls it in the plan's order, with barriers where the plan has them and turns as the
    /// pass deals them out. So what the step reads was written by this worker or before a barrier, and what it writes
    /// nobody else touches before the next one: rows of [`At::share`] for a step that goes by rows, what `turn` hands
    /// out for a dynamic one. Buffers with overlapping lifetimes share no bytes.
    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>);

    /// What it does, for the plan's text: without what [`Step::facts`] say.
    fn text(&self, names: &Names<'_>) -> String;
}

/// What the size of scratch memory follows from.
pub struct Scratch<'a> {
    /// The model's weights.
    pub weights: &'a Weights,
    /// The attention kernel.
    pub attention: &'a AttentionKernel,
}

/// Who gets what of a dynamic step's work.
pub struct Turn {
    /// For products: even shares with stolen tails.
    pub shares: Shares,
    /// For attention: one piece after the other.
    pub counter: WorkCounter,
}

/// A worker at a step.
pub struct At<'a> {
    /// The worker.
    pub worker: &'a Worker<'a>,
    /// Its rows, where the step goes by rows.
    pub share: Range<usize>,
    /// Where it draws from, where the step is dynamic.
    pub turn: &'a Turn,
}

/// What the rows of each mask see.
pub struct Sight {
    /// The first position that each row sees; empty where all see from 0 on.
    pub starts: Vec<u32>,
    /// One past the last.
    pub limits: Vec<u32>,
}

/// An address that workers share; each step's partition keeps their accesses apart.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub *mut u8);

// SAFETY: only an address; every access through it is an unsafe operation in an op.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Where a pass works: the arena, and each worker's own memory.
pub(super) struct Memory<'a> {
    pub layout: &'a PlanLayout,
    /// The arena.
    pub base: Shared,
    /// Of each worker: scratch for a step, then its own copies of buffers.
    pub own: Shared,
    /// Bytes from one worker's to the next.
    pub own_stride: usize,
    /// Where the copies begin.
    pub own_copies: usize,
}

/// The tokens of a pass and where they stand.
pub(super) struct Batch<'a> {
    pub tokens: &'a [u32],
    /// Position of each row.
    pub positions: &'a [u32],
    /// The rows of each sequence, in order.
    pub spans: &'a [SpanRows],
    /// The sequence of each span.
    pub sequences: &'a [SequenceId],
    /// Rows whose output is wanted, in order.
    pub outputs: &'a [u32],
    /// Of each mask, what rows see.
    pub sights: &'a [Sight],
}

/// One pass, as every step and worker sees it.
pub struct Walk<'a> {
    pub(super) plan: &'a Plan,
    pub(super) weights: &'a Weights,
    pub(super) kernels: &'a KernelSet,
    pub(super) attention: &'a AttentionKernel,
    pub(super) parts: &'a Parts,
    pub(super) ropes: &'a [RotaryTable],
    pub(super) cache: kv::View<'a>,
    pub(super) batch: Batch<'a>,
    pub(super) memory: Memory<'a>,
    /// Whether workers do row-wise work each for itself.
    pub(super) few: bool,
}

impl Walk<'_> {
    /// Rows of this pass.
    pub(super) fn count(&self, rows: RowSet) -> usize {
        match rows {
            RowSet::Batch => self.batch.tokens.len(),
            RowSet::Output => self.batch.outputs.len(),
            RowSet::Span => self.batch.spans.len(),
        }
    }

    fn worker_memory(&self, worker: &Worker<'_>) -> *mut u8 {
        self.memory.own.0.wrapping_add(worker.index() * self.memory.own_stride)
    }

    /// A worker's scratch memory: as many floats as the step asked for.
    fn scratch(&self, worker: &Worker<'_>) -> *mut f32 {
        self.worker_memory(worker).cast()
    }

    /// A buffer's rows, as this worker sees them.
    fn view(&self, buf: Buf, worker: &Worker<'_>) -> Rows {
        let spec = &self.plan.buffers[buf.index()];
        let Memory { layout, base, own_copies, .. } = &self.memory;
        let ptr = if self.few && spec.own_copy {
            self.worker_memory(worker).wrapping_add(own_copies + layout.own_offsets[buf.index()])
        } else {
            base.0.wrapping_add(layout.offsets[buf.index()])
        };
        // SAFETY: the layout gave this buffer `row_bytes` × its rows (or, of copies, as many as a short pass
        // has) inside the arena or the worker's memory, which outlive the region; the batch has no more rows
        // than the layout was made for.
        unsafe { Rows::new(ptr, spec.row_bytes, self.count(spec.rows)) }
    }

    /// Calls `f` with runs of a step's rows and a view of `x` in which they have the same numbers. There is one run,
    /// unless the step works on output rows and `x` has all of the batch.
    fn runs(&self, x: Buf, rows: RowSet, at: &At<'_>, f: impl Fn(Range<usize>, Rows)) {
        let view = self.view(x, at.worker);
        if self.plan.buffers[x.index()].rows == rows {
            return f(at.share.clone(), view);
        }
        let mut begin = at.share.start;
        while begin < at.share.end {
            // Output rows are rising numbers, so none is below its place in their list.
            let ahead = |row: usize| self.batch.outputs[row] as usize - row;
            let same = (begin..at.share.end).take_while(|&row| ahead(row) == ahead(begin)).count();
            f(begin..begin + same, view.skip(ahead(begin)));
            begin += same;
        }
    }

    /// A layer's keys and values in a span's sequence.
    fn layer(&self, id: LayerId, span: usize) -> LayerCache {
        self.cache.layer(id, self.batch.sequences[span])
    }

    /// A clock for what comes piece by piece within a step; of few rows a piece is done before the clock is read.
    fn tally(&self, worker: &Worker<'_>, zone: Zone) -> Tally {
        match (self.batch.tokens.len() <= Plan::FEW_ROWS, worker.index()) {
            (true, _) => Tally::untimed(),
            (false, 0) => Tally::of_call(zone),
            (false, _) => Tally::of_assist(zone),
        }
    }
}
