//! The executor: walks a plan's steps in one parallel region. Every worker walks the whole plan and
//! takes its share of each step; barriers stand only where a step reads what another worker wrote.

use crate::error::{Error, Result};
use crate::kernels::rope::{Scaling, Table};
use crate::kv;
use crate::memory::{AlignedBuf, checked_bytes};
use crate::model::{Buf, BufKind, Model, Part, Step, StepKind, Weight, WeightId};
use crate::ops::attention::{self, HeadShape};
use crate::ops::linear::{self, Product};
use crate::ops::{Rows, rowwise};
use crate::profile::{self, Zone};
use crate::threads::{Poisoned, Team, WorkCounter, Worker};

/// The tokens of one pass and where they stand in the sequence.
pub(super) struct Batch<'a> {
    pub tokens: &'a [u32],
    /// Position of the first token.
    pub position: usize,
    /// How many of the last tokens get logits.
    pub n_output: usize,
}

/// Everything a forward pass works in: the arena, scratch for each worker, the rotary table.
pub(super) struct Pass {
    arena: AlignedBuf,
    offsets: Vec<usize>,
    logits: Buf,
    n_vocab: usize,
    scratch: AlignedBuf,
    scratch_stride: usize,
    parts: attention::Parts,
    rope: Table,
    /// Position of each row of the batch, and one past it: what the row sees.
    positions: Vec<u32>,
    limits: Vec<u32>,
    /// One a step, so that no reset has to be agreed on inside the region.
    counters: Vec<WorkCounter>,
}

/// Bytes of the parts of a pass.
struct Sizes {
    arena: usize,
    scratch_stride: usize,
    scratch: usize,
    parts: usize,
    rope: usize,
}

impl Sizes {
    fn new(model: &Model, cache: &kv::Shape, arena: usize, threads: usize) -> Result<Sizes> {
        let (config, n_ctx) = (model.config(), cache.n_ctx);
        let kernel = model.kernels().attention.of(cache.layout.stored);
        let floats = attention::scratch_len(kernel, &heads(model))?;
        let scratch_stride = (floats * size_of::<f32>()).next_multiple_of(64);
        let scratch = checked_bytes(scratch_stride, threads, "scratch")?;
        let rope = checked_bytes(n_ctx, config.rope.dim * size_of::<f32>(), "the rotary table")?;
        let parts = attention::Parts::bytes(kernel, &heads(model), n_ctx, threads)?;
        Ok(Sizes { arena, scratch_stride, scratch, parts, rope })
    }

    fn total(&self) -> Result<usize> {
        self.arena
            .checked_add(self.scratch)
            .and_then(|sum| sum.checked_add(self.parts))
            .and_then(|sum| sum.checked_add(self.rope))
            .ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "a context" })
    }
}

impl Pass {
    /// Bytes that `new` reserves for the same arguments.
    pub fn bytes(
        model: &Model,
        cache: &kv::Shape,
        n_batch: usize,
        n_output: usize,
        threads: usize,
    ) -> Result<usize> {
        let layout = model.plan().layout(n_batch, n_output)?;
        Sizes::new(model, cache, layout.total, threads)?.total()
    }

    pub fn new(
        model: &Model,
        cache: &kv::Shape,
        n_batch: usize,
        n_output: usize,
        threads: usize,
    ) -> Result<Pass> {
        let plan = model.plan();
        let layout = plan.layout(n_batch, n_output)?;
        let sizes = Sizes::new(model, cache, layout.total, threads)?;
        let (config, n_ctx) = (model.config(), cache.n_ctx);
        let kernel = model.kernels().attention.of(cache.layout.stored);
        let scaling = Scaling { freq_scale: 1.0 / config.rope.linear_factor, factors: model.rope_factors() };
        let logits = plan.logits.ok_or_else(|| Error::Internal("the plan yields no logits".into()))?;
        Ok(Pass {
            arena: AlignedBuf::zeroed(sizes.arena, "activations")?,
            offsets: layout.offsets,
            logits,
            n_vocab: config.n_vocab,
            scratch: AlignedBuf::zeroed(sizes.scratch, "scratch")?,
            scratch_stride: sizes.scratch_stride,
            parts: attention::Parts::new(kernel, &heads(model), n_ctx, threads)?,
            rope: Table::new(n_ctx, config.rope.dim, config.rope.base, scaling)?,
            positions: vec![0; n_batch],
            limits: vec![0; n_batch],
            counters: plan.steps.iter().map(|_| WorkCounter::new()).collect(),
        })
    }

    /// The first `rows` rows of logits.
    pub fn logits(&self, rows: usize) -> &[f32] {
        let begin = self.offsets[self.logits.index()] / size_of::<f32>();
        &self.arena.as_slice::<f32>()[begin..begin + rows * self.n_vocab]
    }

    /// Runs the model on a batch that fits (the context has checked it).
    pub fn run(&mut self, team: &Team, model: &Model, cache: kv::View<'_>, batch: &Batch<'_>) -> Result<()> {
        for counter in &self.counters {
            counter.reset();
        }
        self.parts.reset();
        for (r, (position, limit)) in self.positions.iter_mut().zip(&mut self.limits).enumerate() {
            // Positions stay below the largest context, far within u32.
            *position = (batch.position + r) as u32;
            *limit = *position + 1;
        }
        let base = self.arena.as_mut_ptr();
        let scratch = self.scratch.as_mut_ptr();
        let walk = Walk { pass: self, model, cache, batch, base: Shared(base), scratch: Shared(scratch) };
        team.run(|worker| {
            // A poisoned barrier means that another worker panicked: `run` reports it.
            let _ = walk.all(worker);
        })
    }
}

/// How a model's rows of queries, keys and values are divided.
fn heads(model: &Model) -> HeadShape {
    let config = model.config();
    HeadShape { n_head: config.n_head, n_head_kv: config.n_head_kv, head_dim: config.head_dim }
}

/// An address that workers share; each step's partition keeps their accesses apart.
#[derive(Clone, Copy)]
struct Shared(*mut u8);

// SAFETY: only an address; every access through it is an unsafe operation in an op.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// One pass, as every worker sees it.
struct Walk<'a> {
    pass: &'a Pass,
    model: &'a Model,
    cache: kv::View<'a>,
    batch: &'a Batch<'a>,
    base: Shared,
    scratch: Shared,
}

impl Walk<'_> {
    fn all(&self, worker: &Worker<'_>) -> std::result::Result<(), Poisoned> {
        for (step, counter) in self.model.plan().steps.iter().zip(&self.pass.counters) {
            if self.rows(step.rows) == 0 {
                continue;
            }
            let _zone = (worker.index() == 0).then(|| {
                let work = if profile::enabled() { self.work(step) } else { (0, 0) };
                profile::scope(step.zone).work(work.0, work.1)
            });
            self.step(step, worker, counter);
            if step.barrier {
                let waits = worker.index() == 0 && worker.count() > 1;
                let _zone = waits.then(|| profile::scope(Zone::Barrier));
                worker.barrier()?;
            }
        }
        Ok(())
    }

    fn rows(&self, kind: BufKind) -> usize {
        match kind {
            BufKind::Batch => self.batch.tokens.len(),
            BufKind::Output => self.batch.n_output,
        }
    }

    /// A buffer's rows for a step that works on rows of `kind`: of a whole batch, an output step sees
    /// the last rows.
    fn view(&self, buf: Buf, kind: BufKind) -> Rows {
        let spec = &self.model.plan().buffers[buf.index()];
        let ptr = self.base.0.wrapping_add(self.pass.offsets[buf.index()]);
        // SAFETY: the layout gave this buffer `row_bytes` × its rows inside the arena, which outlives the
        // region; the batch has no more rows than the layout was made for.
        let rows = unsafe { Rows::new(ptr, spec.row_bytes, self.rows(spec.kind)) };
        rows.last(self.rows(kind))
    }

    fn vector(&self, id: WeightId) -> &[f32] {
        self.model.weights().vector(id)
    }

    fn step(&self, step: &Step, worker: &Worker<'_>, counter: &WorkCounter) {
        let view = |buf| self.view(buf, step.rows);
        let share = worker.share(self.rows(step.rows), 1);
        let kernels = self.model.kernels();
        let config = self.model.config();
        // SAFETY: row-local steps write only rows of `share`, which the workers' shares partition; linear
        // and attention steps partition by their counter. What a step reads was written by this worker or
        // before a barrier (`Step::barrier`), and buffers with overlapping lifetimes share no bytes.
        unsafe {
            match &step.kind {
                StepKind::Embed { table, out } => {
                    let table = self.model.weights().get(*table);
                    embed(table, self.batch.tokens, share, view(*out), config.n_embd);
                }
                StepKind::RmsNorm { x, weight, out, eps } => {
                    rowwise::rms_norm(kernels, share, view(*x), self.vector(*weight), *eps, view(*out));
                }
                StepKind::Quantize { x, out, k } => {
                    rowwise::quantize(kernels, share, view(*x), *k, view(*out))
                }
                StepKind::SwiGlu { x, out, n } => rowwise::swiglu(kernels, share, view(*x), *n, view(*out)),
                StepKind::Rope { qkv, heads } => {
                    let (table, positions) = (&self.pass.rope, &self.pass.positions);
                    let rope = kernels.rope.of(config.rope.pairing);
                    rowwise::rope(rope, share, view(*qkv), *heads, config.head_dim, table, positions);
                }
                StepKind::StoreKv { layer, qkv } => {
                    let cache = self.cache.layer(*layer);
                    let (heads, position) = (heads(self.model), self.batch.position);
                    attention::store(kernels, &cache, share, view(*qkv), &heads, position);
                }
                StepKind::Linear { parts } => {
                    linear::run(worker, counter, parts.len(), |i| self.product(&parts[i], step.rows));
                }
                StepKind::Attention { layer, qkv, out, scale } => {
                    let args = attention::Args {
                        qkv: view(*qkv),
                        out: view(*out),
                        cache: self.cache.layer(*layer),
                        shape: heads(self.model),
                        limits: &self.pass.limits,
                        scale: *scale,
                        parts: &self.pass.parts,
                    };
                    let scratch = self.scratch.0.wrapping_add(worker.index() * self.pass.scratch_stride);
                    attention::run(kernels, worker, counter, &args, scratch.cast());
                }
            }
        }
    }

    fn product(&self, part: &Part, rows: BufKind) -> Option<Product<'_>> {
        let Weight::Linear(weight) = self.model.weights().get(part.weight) else { return None };
        Some(Product {
            x: self.view(part.x, rows),
            weight,
            bias: part.bias.map(|id| self.vector(id)),
            y: self.view(part.out, rows),
            column: part.column,
            accumulate: part.accumulate,
        })
    }

    /// Floating-point operations and bytes of memory that a step needs at least.
    fn work(&self, step: &Step) -> (u64, u64) {
        let rows = self.rows(step.rows) as u64;
        let config = self.model.config();
        match &step.kind {
            StepKind::Linear { parts } => parts.iter().fold((0, 0), |(flops, bytes), part| {
                let Some(product) = self.product(part, step.rows) else { return (flops, bytes) };
                (flops + rows * product.weight.flops_per_row(), bytes + product.weight.bytes() as u64)
            }),
            StepKind::Attention { .. } => {
                // Row r sees position + r + 1 keys, in each of two products.
                let keys = rows * self.batch.position as u64 + rows * (rows + 1) / 2;
                let end = self.batch.position as u64 + rows;
                (4 * keys * config.q_width() as u64, self.cache.layer_bytes(end as usize) as u64)
            }
            StepKind::RmsNorm { .. } => (4 * rows * config.n_embd as u64, rows * config.n_embd as u64 * 8),
            StepKind::SwiGlu { n, .. } => (5 * rows * *n as u64, rows * *n as u64 * 12),
            StepKind::Quantize { k, .. } => (3 * rows * *k as u64, rows * *k as u64 * 5),
            StepKind::Rope { heads, .. } => {
                let elements = rows * (*heads * config.rope.dim) as u64;
                (3 * elements, elements * 8)
            }
            StepKind::StoreKv { .. } => (0, rows * config.kv_width() as u64 * 16),
            StepKind::Embed { .. } => (0, rows * config.n_embd as u64 * 8),
        }
    }
}

/// # Safety
/// Rows `share` of `out` are this worker's alone.
unsafe fn embed(table: &Weight, tokens: &[u32], share: std::ops::Range<usize>, out: Rows, width: usize) {
    for r in share {
        // SAFETY: the row belongs to this worker's share.
        let row = unsafe { out.floats_mut(r, width) };
        // The context checked the token, the loader the table's shape.
        table.decode_row(tokens[r] as usize, row).expect("a row of the embedding");
    }
}
