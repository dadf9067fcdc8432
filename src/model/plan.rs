//! The plan: what one forward pass does, as a list of steps on named buffers.
//! Builders emit it once; the arena is laid out from its buffers' lifetimes; the executor walks it.

use super::weights::WeightId;
use crate::error::Result;
use crate::memory::ArenaPlan;
use crate::profile::Zone;

/// A buffer of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buf(pub(crate) u32);

impl Buf {
    /// Index into [`Plan::buffers`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many rows a buffer has, hence which rows of the batch a step works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufKind {
    /// A row for each token of the batch.
    Batch,
    /// A row for each token whose logits are wanted: the last ones of the batch.
    Output,
}

/// Shape and lifetime of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct BufSpec {
    /// Bytes of a row, a multiple of 64.
    pub row_bytes: usize,
    /// Number of rows.
    pub kind: BufKind,
    /// First step that writes it.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
}

/// One product of a [`StepKind::Linear`] step: `out[:, 0..n] (+)= x · Wᵀ (+ bias)`.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Input rows, f32 or quantised as the weight's kernel wants them.
    pub x: Buf,
    /// Weight matrix (N × K).
    pub weight: WeightId,
    /// Vector of N added to each row.
    pub bias: Option<WeightId>,
    /// Output rows, f32.
    pub out: Buf,
    /// First column of `out` to write.
    pub column: usize,
    /// Adds to `out` (the residual stream) instead of overwriting it.
    pub accumulate: bool,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum StepKind {
    /// `out[r] = table[token[r]]`.
    Embed {
        /// Table of `n_vocab` rows.
        table: WeightId,
        /// Residual stream.
        out: Buf,
    },
    /// Root-mean-square norm of each row (Zhang & Sennrich 2019).
    RmsNorm {
        /// Input rows.
        x: Buf,
        /// Gain.
        weight: WeightId,
        /// Normalised rows.
        out: Buf,
        /// Added to the mean square.
        eps: f32,
    },
    /// Rows quantised to 8 bits for integer matmul kernels.
    Quantize {
        /// Input rows, f32.
        x: Buf,
        /// Quantised rows.
        out: Buf,
        /// Elements of a row.
        k: usize,
    },
    /// Products over the same rows, done as one: parts share the barrier and the partition.
    Linear {
        /// The products.
        parts: Vec<Part>,
    },
    /// Rotates the first `heads` heads of `qkv`'s rows in place (queries then keys).
    Rope {
        /// Rows of queries, keys, values side by side.
        qkv: Buf,
        /// Query heads plus key heads.
        heads: usize,
    },
    /// Writes the keys and values of the batch into the cache.
    StoreKv {
        /// Layer of the cache.
        layer: usize,
        /// Rows of queries, keys, values side by side.
        qkv: Buf,
    },
    /// Causal attention over the cache.
    Attention {
        /// Layer of the cache.
        layer: usize,
        /// Rows of queries, keys, values side by side.
        qkv: Buf,
        /// Heads side by side.
        out: Buf,
        /// Multiplies the scores.
        scale: f32,
    },
    /// `out = silu(x[:, 0..n]) · x[:, n..2n]` (Shazeer 2020).
    SwiGlu {
        /// Gate and up projections side by side.
        x: Buf,
        /// Gated rows.
        out: Buf,
        /// Width of each.
        n: usize,
    },
}

/// A step and what the profile calls it.
#[derive(Clone, Debug)]
pub struct Step {
    /// What to do.
    pub kind: StepKind,
    /// Under which name its time is counted.
    pub zone: Zone,
    /// Which rows of the batch it works on.
    pub rows: BufKind,
    /// Whether workers wait for each other before the next step.
    pub barrier: bool,
}

impl Step {
    /// Whether a row of the output depends on the same row of the input alone, and rows are shared out
    /// among workers by index: two such steps in a row need no barrier between them.
    fn is_row_local(&self) -> bool {
        !matches!(self.kind, StepKind::Linear { .. } | StepKind::Attention { .. })
    }
}

/// A model's forward pass.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The buffers they work on.
    pub buffers: Vec<BufSpec>,
    /// The buffer that holds the logits at the end (f32, `n_vocab` a row).
    pub logits: Option<Buf>,
}

/// Where each buffer lies in the arena.
#[derive(Clone, Debug)]
pub struct PlanLayout {
    /// Byte offset of each buffer.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub total: usize,
}

impl Plan {
    /// Places the barriers: none between steps in which a worker reads only rows that it wrote itself.
    /// To be called once, when all steps are there.
    pub(super) fn place_barriers(&mut self) {
        for i in 1..self.steps.len() {
            let (before, after) = (&self.steps[i - 1], &self.steps[i]);
            let local = before.is_row_local() && after.is_row_local() && before.rows == after.rows;
            self.steps[i - 1].barrier = !local;
        }
        self.widen_lifetimes();
    }

    /// Between two barriers workers are at different steps: a buffer that one of them still reads must not
    /// share bytes with one that another writes already. So lifetimes reach from barrier to barrier.
    fn widen_lifetimes(&mut self) {
        let mut spans = Vec::with_capacity(self.steps.len());
        let mut begin = 0;
        for (i, step) in self.steps.iter().enumerate() {
            if step.barrier || i + 1 == self.steps.len() {
                spans.resize(i + 1, (begin, i));
                begin = i + 1;
            }
        }
        for spec in &mut self.buffers {
            spec.first = spans.get(spec.first).map_or(spec.first, |span| span.0);
            spec.last = spans.get(spec.last).map_or(spec.last, |span| span.1);
        }
    }

    /// Lays the buffers out for batches of up to `n_batch` tokens of which `n_output` yield logits.
    pub fn layout(&self, n_batch: usize, n_output: usize) -> Result<PlanLayout> {
        let mut arena = ArenaPlan::new();
        for spec in &self.buffers {
            let rows = match spec.kind {
                BufKind::Batch => n_batch,
                BufKind::Output => n_output,
            };
            let bytes = crate::memory::checked_bytes(spec.row_bytes, rows, "activations")?;
            arena.buffer(bytes, spec.first, spec.last);
        }
        let layout = arena.layout()?;
        Ok(PlanLayout { offsets: layout.offsets, total: layout.total })
    }
}
