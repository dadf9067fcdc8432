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
    /// Bytes of a row: a multiple of 64, but for the logits.
    pub row_bytes: usize,
    /// Number of rows.
    pub kind: BufKind,
    /// First step that writes it.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
    /// Made row by row from what all workers can see, and read by products alone: in a short pass
    /// ([`Plan::FEW_ROWS`]) every worker makes a copy of its own, which costs less than waiting for each other.
    pub own_copy: bool,
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
    /// `out[r] = table[token[r]] (+ positions[position of r])`.
    Embed {
        /// Table of `n_vocab` rows.
        table: WeightId,
        /// Learned positions, a row each.
        positions: Option<WeightId>,
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
    /// [`StepKind::RmsNorm`] whose result is quantised on the way.
    NormQuantize {
        /// Input rows.
        x: Buf,
        /// Gain.
        weight: WeightId,
        /// Normalised rows, quantised.
        out: Buf,
        /// Added to the mean square.
        eps: f32,
    },
    /// Layer norm of each row (Ba, Kiros & Hinton 2016).
    LayerNorm {
        /// Input rows.
        x: Buf,
        /// Gain.
        weight: WeightId,
        /// Added last.
        bias: WeightId,
        /// Normalised rows.
        out: Buf,
        /// Added to the variance.
        eps: f32,
    },
    /// Rows quantised for integer matmul kernels.
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
        /// What is done with columns once they are there.
        then: Then,
    },
    /// `out = silu(x · gateᵀ) · (x · upᵀ)` (Shazeer 2020), a few columns at a time.
    Gated {
        /// The gate's product; where it goes (`out`, `column`) means nothing.
        gate: Part,
        /// The product that is gated, likewise.
        up: Part,
        /// Gated rows: f32, or quantised.
        out: Buf,
        /// Whether `out` holds quantised rows.
        quantized: bool,
    },
    /// `out = gelu(x · wᵀ)`, by tanh (Hendrycks & Gimpel 2016), a few columns at a time.
    Gelu {
        /// The product. Where `out` is quantised, where it goes (`out`, `column`) means nothing.
        part: Part,
        /// Rows of results: f32, or quantised.
        out: Buf,
        /// Whether `out` holds quantised rows.
        quantized: bool,
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
}

/// What follows a product within its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// Heads of queries and keys are rotated, those of keys and values written into the cache.
    RopeStore {
        /// Layer of the cache.
        layer: usize,
    },
    /// Heads of keys and values are written into the cache.
    Store {
        /// Layer of the cache.
        layer: usize,
    },
}

/// What a step touches.
struct Access {
    reads: Vec<Buf>,
    writes: Vec<Buf>,
    /// A layer of the cache, and whether it is written.
    cache: Option<(usize, bool)>,
}

impl StepKind {
    fn access(&self) -> Access {
        let access = |reads: &[Buf], writes: &[Buf]| Access {
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            cache: None,
        };
        match self {
            StepKind::Embed { out, .. } => access(&[], &[*out]),
            StepKind::RmsNorm { x, out, .. }
            | StepKind::LayerNorm { x, out, .. }
            | StepKind::NormQuantize { x, out, .. }
            | StepKind::Quantize { x, out, .. } => access(&[*x], &[*out]),
            StepKind::Linear { parts, then } => Access {
                reads: parts.iter().map(|part| part.x).collect(),
                writes: parts.iter().map(|part| part.out).collect(),
                cache: match then {
                    Then::Nothing => None,
                    Then::RopeStore { layer } | Then::Store { layer } => Some((*layer, true)),
                },
            },
            StepKind::Gated { gate, up, out, .. } => access(&[gate.x, up.x], &[*out]),
            StepKind::Gelu { part, out, .. } => access(&[part.x], &[*out]),
            StepKind::Attention { layer, qkv, out, .. } => {
                Access { cache: Some((*layer, false)), ..access(&[*qkv], &[*out]) }
            }
        }
    }
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
    /// Whether workers wait for each other before the next step, in a pass of many rows.
    pub barrier: bool,
    /// The same in a pass of up to [`Plan::FEW_ROWS`] rows.
    pub barrier_few: bool,
    /// Whether, in such a pass, every worker makes its own copy of what the step writes.
    pub own_copy: bool,
}

impl Step {
    /// Whether workers draw their parts from a counter, whatever the rows; else rows are shared out by index.
    pub(crate) fn is_drawn(&self) -> bool {
        matches!(
            self.kind,
            StepKind::Linear { .. }
                | StepKind::Gated { .. }
                | StepKind::Gelu { .. }
                | StepKind::Attention { .. }
        )
    }
}

/// A model's forward pass.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The buffers they work on.
    pub buffers: Vec<BufSpec>,
    /// The buffer that holds the logits at the end: f32, `n_vocab` a row, no gaps between rows.
    pub logits: Option<Buf>,
}

/// Where each buffer lies.
#[derive(Clone, Debug)]
pub struct PlanLayout {
    /// Byte offset of each buffer in the arena.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub total: usize,
    /// Byte offset, in a worker's own memory, of its copy of each buffer that has such copies.
    pub own_offsets: Vec<usize>,
    /// Bytes of all copies of one worker.
    pub own_total: usize,
}

impl Plan {
    /// Most rows of a pass in which workers do row-wise work each for itself. For so few, that takes less time
    /// than a barrier.
    pub const FEW_ROWS: usize = 4;

    /// Whether `later` may only begin when all workers are done with `earlier`.
    fn conflict(&self, earlier: &Step, later: &Step, few: bool) -> bool {
        let by_row = |step: &Step| !(step.is_drawn() || few && step.own_copy);
        if earlier.is_drawn() && later.is_drawn() {
            // They take turns with two sets of counters, see the executor.
            return true;
        }
        if by_row(earlier) && by_row(later) && earlier.rows == later.rows {
            return false;
        }
        let (a, b) = (earlier.kind.access(), later.kind.access());
        let shared = |buf: &&Buf| !(few && self.buffers[buf.index()].own_copy);
        let meet = |written: &[Buf], other: &Access| {
            written.iter().filter(shared).any(|buf| other.reads.contains(buf) || other.writes.contains(buf))
        };
        let same_layer = a.cache.zip(b.cache).is_some_and(|(a, b)| a.0 == b.0 && (a.1 || b.1));
        meet(&a.writes, &b) || meet(&b.writes, &a) || same_layer
    }

    /// Places the barriers: as late as can be, and only where a step meets what other workers do since the last
    /// one. To be called once, when all steps are there.
    pub(super) fn place_barriers(&mut self) {
        for step in &mut self.steps {
            let own = |buf: &Buf| self.buffers[buf.index()].own_copy;
            step.own_copy = !step.is_drawn() && step.kind.access().writes.iter().all(own);
        }
        for few in [false, true] {
            let mut since = 0;
            for i in 1..self.steps.len() {
                let barrier = (since..i).any(|j| self.conflict(&self.steps[j], &self.steps[i], few));
                let step = &mut self.steps[i - 1];
                *if few { &mut step.barrier_few } else { &mut step.barrier } = barrier;
                if barrier {
                    since = i;
                }
            }
        }
        self.widen_lifetimes(|step| step.barrier);
        self.widen_lifetimes(|step| step.barrier_few);
    }

    /// Between two barriers workers are at different steps: a buffer that one of them still reads must not
    /// share bytes with one that another writes already. So lifetimes reach from barrier to barrier.
    fn widen_lifetimes(&mut self, barrier: impl Fn(&Step) -> bool) {
        let mut spans = Vec::with_capacity(self.steps.len());
        let mut begin = 0;
        for (i, step) in self.steps.iter().enumerate() {
            if barrier(step) || i + 1 == self.steps.len() {
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
        let (mut arena, mut own) = (ArenaPlan::new(), ArenaPlan::new());
        for spec in &self.buffers {
            let rows = match spec.kind {
                BufKind::Batch => n_batch,
                BufKind::Output => n_output,
            };
            let bytes = crate::memory::checked_bytes(spec.row_bytes, rows, "activations")?;
            arena.buffer(bytes, spec.first, spec.last);
            let own_rows = if spec.own_copy { rows.min(Self::FEW_ROWS) } else { 0 };
            own.buffer(spec.row_bytes * own_rows, spec.first, spec.last);
        }
        let (arena, own) = (arena.layout()?, own.layout()?);
        let (own_offsets, own_total) = (own.offsets, own.total);
        Ok(PlanLayout { offsets: arena.offsets, total: arena.total, own_offsets, own_total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(x: u32, out: u32, accumulate: bool) -> Part {
        Part { x: Buf(x), weight: WeightId::new(0), bias: None, out: Buf(out), column: 0, accumulate }
    }

    /// One layer as a Llama has it, over buffers 0 residual, 1 and 4 normed, 2 qkv, 3 heads, 5 gated.
    fn layer() -> Plan {
        let linear = |parts, then| StepKind::Linear { parts, then };
        let norm =
            |out| StepKind::NormQuantize { x: Buf(0), weight: WeightId::new(0), out: Buf(out), eps: 0.0 };
        let gated =
            StepKind::Gated { gate: part(4, 5, false), up: part(4, 5, false), out: Buf(5), quantized: true };
        let kinds = vec![
            StepKind::Embed { table: WeightId::new(0), positions: None, out: Buf(0) },
            norm(1),
            linear(vec![part(1, 2, false)], Then::RopeStore { layer: 0 }),
            StepKind::Attention { layer: 0, qkv: Buf(2), out: Buf(3), scale: 1.0 },
            linear(vec![part(3, 0, true)], Then::Nothing),
            norm(4),
            gated,
            linear(vec![part(5, 0, true)], Then::Nothing),
            norm(1),
        ];
        let step = |kind| Step {
            kind,
            zone: Zone::Other,
            rows: BufKind::Batch,
            barrier: true,
            barrier_few: true,
            own_copy: false,
        };
        let spec = |i| BufSpec {
            row_bytes: 64,
            kind: BufKind::Batch,
            first: 0,
            last: 8,
            own_copy: [1, 4].contains(&i),
        };
        let mut plan = Plan {
            steps: kinds.into_iter().map(step).collect(),
            buffers: (0..6).map(spec).collect(),
            logits: None,
        };
        plan.place_barriers();
        plan
    }

    #[test]
    fn barriers_stand_only_where_workers_meet() {
        let plan = layer();
        let places = |barrier: &dyn Fn(&Step) -> bool| -> Vec<usize> {
            (0..plan.steps.len() - 1).filter(|&i| barrier(&plan.steps[i])).collect()
        };
        // Many rows: the norm after the embedding has the same rows; everything else waits.
        assert_eq!(places(&|step| step.barrier), [1, 2, 3, 4, 5, 6, 7]);
        // Few: each worker normalises for itself what all have written.
        assert_eq!(places(&|step| step.barrier_few), [0, 2, 3, 4, 6, 7]);
    }
}
