//! The steps of a forward pass, one file each: a step's data, its inputs and outputs, its scratch memory, its
//! operations and bytes, and the execution of a worker's share. A step sees the pass as a [`Walk`], and knows no
//! family.

pub(super) mod attend;
pub(super) mod columns;
pub(super) mod conv;
pub(super) mod delta;
pub(super) mod elementwise;
pub(super) mod embed;
pub(super) mod experts_in;
pub(super) mod experts_out;
pub(super) mod gate;
pub(super) mod gather;
pub(super) mod heads;
pub(super) mod linear;
pub(super) mod mlp;
pub(super) mod normalize;
pub(super) mod pool;
pub(super) mod quantize;
pub(super) mod recurrent;
pub(super) mod route;
pub(super) mod scan;
pub(super) mod select;

use std::ops::Range;

use super::plan::{Buf, MostRows, Plan, PlanLayout};
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

/// The facts of a step that a plan needs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its zone in the profile.
    pub zone: Zone,
    /// The rows that it works on.
    pub rows: RowSet,
    /// Buffers that it reads.
    pub reads: Vec<Buf>,
    /// The buffer that it writes.
    pub out: Buf,
    /// The layer of the cache that it reads (false) or writes (true).
    pub cache: Option<(LayerId, bool)>,
    /// Whether its work is dynamically scheduled; otherwise each worker has a static share of the rows.
    pub dynamic: bool,
}

impl Facts {
    /// The facts of a step in which each worker has a static share of the rows.
    fn by_row(zone: Zone, rows: RowSet, reads: &[Buf], out: Buf) -> Facts {
        Facts { zone, rows, reads: reads.to_vec(), out, cache: None, dynamic: false }
    }

    /// The facts of a dynamically scheduled step.
    fn dynamic(zone: Zone, rows: RowSet, out: Buf) -> Facts {
        Facts { dynamic: true, ..Facts::by_row(zone, rows, &[], out) }
    }
}

/// One step of a forward pass.
pub trait Step: Send + Sync {
    /// The facts that a plan needs.
    fn facts(&self) -> Facts;

    /// Floats of scratch memory that a worker needs.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) where the size overflows.
    fn scratch(&self, _: &Scratch<'_>) -> Result<usize> {
        Ok(0)
    }

    /// Prefetches the data that the step reads before its first row, of itself and of the model: from one token to the
    /// next, weights evict it from the caches.
    fn prefetch(&self, _: &Weights) {
        isa::prefetch(self);
    }

    /// Its operations and bytes in this pass.
    fn work(&self, walk: &Walk<'_>) -> Work;

    /// Does a worker's share.
    ///
    /// # Safety
    /// The pass contract: each worker of the pass calls it in the plan's order, with the plan's barriers between steps,
    /// and with the schedule that the pass has reset for the step; buffers with overlapping lifetimes share no bytes.
    /// So the data that the step reads was written by this worker or before a barrier, and no other worker uses the
    /// data that it writes before the next barrier: the rows of [`At::share`] in a static step, or the parts that this
    /// worker takes from [`At::schedule`] in a dynamic one.
    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>);

    /// Its weights and parameters, for the plan's text, which has [`Step::facts`] already.
    fn text(&self, names: &Names<'_>) -> String;
}

/// The data from which the size of scratch memory is computed.
pub struct Scratch<'a> {
    /// The model's weights.
    pub weights: &'a Weights,
    /// The attention kernel.
    pub attention: &'a AttentionKernel,
    /// The plan that the step belongs to.
    pub plan: &'a Plan,
    /// Most rows of a pass.
    pub most: MostRows,
}

/// The state of a dynamic step's scheduling.
pub struct Schedule {
    /// For products: even shares with work stealing.
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
    /// The schedule from which it takes work, if the step is dynamic.
    pub schedule: &'a Schedule,
}

/// The positions that rows see through one mask.
pub struct Sight {
    /// The first position that each row sees; empty where all rows see position 0.
    pub starts: Vec<u32>,
    /// One past the last position that each row sees.
    pub limits: Vec<u32>,
}

/// An address that workers share. Each step partitions their accesses.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub *mut u8);

// SAFETY: it is only an address. Reading or writing there takes an unsafe function, whose contract excludes data races.
unsafe impl Send for Shared {}
// SAFETY: as for Send.
unsafe impl Sync for Shared {}

/// The memory of a pass: the arena, and each worker's own memory.
pub(super) struct Memory<'a> {
    pub layout: &'a PlanLayout,
    /// The arena.
    pub base: Shared,
    /// For each worker: scratch memory of a step, then its own copies of buffers.
    pub own: Shared,
    /// Bytes from one worker's memory to the next one's.
    pub own_stride: usize,
    /// Offset of the copies in a worker's memory.
    pub own_copies: usize,
}

/// The tokens of a pass, and their positions.
pub(super) struct Batch<'a> {
    pub tokens: &'a [u32],
    /// Position of each row.
    pub positions: &'a [u32],
    /// The rows of each sequence, in order.
    pub spans: &'a [SpanRows],
    /// The sequence of each span.
    pub sequences: &'a [SequenceId],
    /// Indices of the output rows, in ascending order.
    pub outputs: &'a [u32],
    /// The positions that rows see, for each mask.
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
    /// Whether this is a short pass, in which each worker does row-wise work for itself.
    pub(super) few: bool,
}

impl Walk<'_> {
    /// Number of rows in this pass.
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

    /// A worker's scratch memory: at least [`Step::scratch`] floats of each step.
    fn scratch(&self, worker: &Worker<'_>) -> *mut f32 {
        self.worker_memory(worker).cast()
    }

    /// A buffer's rows: the worker's own copy, if it has one in this pass.
    fn view(&self, buf: Buf, worker: &Worker<'_>) -> Rows {
        let spec = &self.plan.buffers[buf.index()];
        let Memory { layout, base, own_copies, .. } = &self.memory;
        let ptr = if self.few && spec.own_copy {
            self.worker_memory(worker).wrapping_add(own_copies + layout.own_offsets[buf.index()])
        } else {
            base.0.wrapping_add(layout.offsets[buf.index()])
        };
        // SAFETY: `Plan::layout` placed this buffer, `row_bytes` for each row of the largest batch (for copies, of the
        // largest short pass), inside the arena or the worker's memory. The engine checked that the batch isn't larger,
        // and the pass keeps both until the region ends.
        unsafe { Rows::new(ptr, spec.row_bytes, self.count(spec.rows)) }
    }

    /// Calls `f` with runs of a step's rows, each with a view of `x` in which its rows have the same indices. It is one
    /// run, unless the step works on output rows and `x` has all rows of the batch.
    fn runs(&self, x: Buf, rows: RowSet, at: &At<'_>, f: impl Fn(Range<usize>, Rows)) {
        let view = self.view(x, at.worker);
        if self.plan.buffers[x.index()].rows == rows {
            return f(at.share.clone(), view);
        }
        let mut begin = at.share.start;
        while begin < at.share.end {
            // Output rows are in ascending order, so none is below its index in their list.
            let ahead = |row: usize| self.batch.outputs[row] as usize - row;
            let same = (begin..at.share.end).take_while(|&row| ahead(row) == ahead(begin)).count();
            f(begin..begin + same, view.skip(ahead(begin)));
            begin += same;
        }
    }

    /// A layer's keys and values in the sequence of a span.
    fn layer(&self, id: LayerId, span: usize) -> LayerCache {
        self.cache.layer(id, self.batch.sequences[span])
    }

    /// A clock for work that is done piece by piece within a step. It is off in a short pass, where reading the clock
    /// would take longer than a piece.
    fn tally(&self, worker: &Worker<'_>, zone: Zone) -> Tally {
        match (self.batch.tokens.len() <= Plan::FEW_ROWS, worker.index()) {
            (true, _) => Tally::untimed(),
            (false, 0) => Tally::of_call(zone),
            (false, _) => Tally::of_assist(zone),
        }
    }
}
