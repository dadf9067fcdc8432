//! The executor: walks a plan's steps in one parallel region. Every worker walks the whole plan and
//! takes its share of each step; barriers stand only where a step reads what another worker wrote.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::kernels::rope::Table;
use crate::kv;
use crate::memory::{ALIGNMENT, AlignedBuf, checked_bytes};
use crate::model::{
    Buf, BufKind, Model, Part, Plan, PlanLayout, RopeConfig, Step, StepKind, Then, Weight, WeightId,
};
use crate::ops::attention::{self, HeadShape};
use crate::ops::linear::{self, Beside, Packer, Product};
use crate::ops::{Rows, rowwise};
use crate::profile::{self, Moment, Tally, Zone};
use crate::quant::BLOCK;
use crate::threads::{Poisoned, Shares, Team, WorkCounter, Worker};

/// The tokens of one pass and where they stand in the sequence.
pub(super) struct Batch<'a> {
    pub tokens: &'a [u32],
    /// Position of the first token.
    pub position: usize,
    /// How many of the last tokens get logits.
    pub n_output: usize,
    /// Looked at between steps: whether to end the pass.
    pub cancel: &'a AtomicBool,
}

/// Everything a forward pass works in: the arena, each worker's own memory, the rotary table.
pub(super) struct Pass {
    arena: AlignedBuf,
    layout: PlanLayout,
    logits: Buf,
    n_vocab: usize,
    /// Of each worker: scratch for a step, then its own copies of buffers.
    own: AlignedBuf,
    own_stride: usize,
    /// Where the copies begin.
    own_copies: usize,
    parts: attention::Parts,
    /// Absent where positions are learned.
    rope: Option<Table>,
    /// Position of each row of the batch, and one past it: what the row sees.
    positions: Vec<u32>,
    limits: Vec<u32>,
    /// Steps whose work is drawn use these in turn: while one is in use, the other is made ready for the next.
    turns: [Turn; 2],
    /// What a test lets go wrong.
    #[cfg(test)]
    pub fault: Option<super::exec_tests::Fault>,
}

/// Who gets what of a step's work.
struct Turn {
    shares: Shares,
    counter: WorkCounter,
}

impl Turn {
    fn new(workers: usize) -> Turn {
        Turn { shares: Shares::new(workers), counter: WorkCounter::new() }
    }

    /// Makes one worker's part of it ready for another step.
    fn reset(&self, worker: usize) {
        self.shares.reset(worker);
        if worker == 0 {
            self.counter.reset();
        }
    }
}

/// Bytes of the parts of a pass.
struct Sizes {
    arena: usize,
    own_copies: usize,
    own_stride: usize,
    own: usize,
    parts: usize,
    rope: usize,
}

impl Sizes {
    fn new(model: &Model, cache: &kv::Shape, layout: &PlanLayout, threads: usize) -> Result<Sizes> {
        let (config, n_ctx) = (model.config(), cache.n_ctx);
        let kernel = model.kernels().attention.of(cache.layout.stored);
        let attention = attention::scratch_len(kernel, &heads(model))?;
        let products = model.plan().steps.iter().filter_map(|step| product_scratch(model, step)).max();
        let floats = attention.max(products.unwrap_or(0));
        let own_copies = checked_bytes(floats, size_of::<f32>(), "scratch")?.next_multiple_of(ALIGNMENT);
        let own_stride = own_copies
            .checked_add(layout.own_total)
            .ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "scratch" })?;
        let own = checked_bytes(own_stride, threads, "scratch")?;
        let turned = config.rope.as_ref().map_or(0, |rope| rope.dim);
        let rope = checked_bytes(n_ctx, turned * size_of::<f32>(), "the rotary table")?;
        let parts = attention::Parts::bytes(kernel, &heads(model), n_ctx, threads)?;
        Ok(Sizes { arena: layout.total, own_copies, own_stride, own, parts, rope })
    }

    fn total(&self) -> Result<usize> {
        self.arena
            .checked_add(self.own)
            .and_then(|sum| sum.checked_add(self.parts))
            .and_then(|sum| sum.checked_add(self.rope))
            .ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "a context" })
    }
}

/// Columns that a step whose result is quantised takes together, or one that keeps floats.
fn columns_unit(quantized: bool) -> usize {
    if quantized { BLOCK } else { 1 }
}

fn product_scratch(model: &Model, step: &Step) -> Option<usize> {
    let packer = |part: &Part| -> Option<Packer> {
        let Weight::Linear(weight) = model.weights().get(part.weight) else { return None };
        Some(weight.packer())
    };
    match &step.kind {
        StepKind::Gated { gate, up, quantized, .. } => {
            Some(linear::scratch_len([&packer(gate)?, &packer(up)?], columns_unit(*quantized)))
        }
        StepKind::Gelu { part, quantized: true, .. } => {
            Some(linear::scratch_len([&packer(part)?], columns_unit(true)))
        }
        _ => None,
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
        Sizes::new(model, cache, &layout, threads)?.total()
    }

    pub fn new(
        model: &Model,
        rope: Option<&RopeConfig>,
        cache: &kv::Shape,
        n_batch: usize,
        n_output: usize,
        threads: usize,
    ) -> Result<Pass> {
        let plan = model.plan();
        let layout = plan.layout(n_batch, n_output)?;
        let sizes = Sizes::new(model, cache, &layout, threads)?;
        let n_ctx = cache.n_ctx;
        let kernel = model.kernels().attention.of(cache.layout.stored);
        let logits = plan.logits.ok_or_else(|| Error::Internal("the plan yields no logits".into()))?;
        Ok(Pass {
            arena: AlignedBuf::zeroed(sizes.arena, "activations")?,
            layout,
            logits,
            n_vocab: model.config().n_vocab,
            own: AlignedBuf::zeroed(sizes.own, "scratch")?,
            own_stride: sizes.own_stride,
            own_copies: sizes.own_copies,
            parts: attention::Parts::new(kernel, &heads(model), n_ctx, threads)?,
            rope: rope.map(|rope| rope.table(n_ctx, model.rope_factors())).transpose()?,
            positions: vec![0; n_batch],
            limits: vec![0; n_batch],
            turns: [Turn::new(threads), Turn::new(threads)],
            #[cfg(test)]
            fault: None,
        })
    }

    /// The first `rows` rows of logits.
    pub fn logits(&self, rows: usize) -> &[f32] {
        let begin = self.layout.offsets[self.logits.index()] / size_of::<f32>();
        &self.arena.as_slice::<f32>()[begin..begin + rows * self.n_vocab]
    }

    /// Runs the model on a batch that fits (the context has checked it).
    pub fn run(&mut self, team: &Team, model: &Model, cache: kv::View<'_>, batch: &Batch<'_>) -> Result<()> {
        // An interrupted pass leaves them anyhow.
        for turn in &self.turns {
            (0..team.count()).for_each(|worker| turn.reset(worker));
        }
        self.parts.reset();
        for (r, (position, limit)) in self.positions.iter_mut().zip(&mut self.limits).enumerate() {
            // Positions stay below the largest context, far within u32.
            *position = (batch.position + r) as u32;
            *limit = *position + 1;
        }
        let base = self.arena.as_mut_ptr();
        let own = self.own.as_mut_ptr();
        let few = team.count() > 1 && batch.tokens.len() <= Plan::FEW_ROWS;
        let walk = Walk { pass: self, model, cache, batch, few, base: Shared(base), own: Shared(own) };
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
    /// Whether workers do row-wise work each for itself.
    few: bool,
    base: Shared,
    own: Shared,
}

impl Walk<'_> {
    fn all(&self, worker: &Worker<'_>) -> std::result::Result<(), Poisoned> {
        let leads = worker.index() == 0;
        let mut turn = 0;
        // Where one step ends and the next begins.
        let mut between = Moment::now();
        for (i, step) in self.model.plan().steps.iter().enumerate() {
            if leads && self.batch.cancel.load(Relaxed) {
                worker.cancel();
                return Err(Poisoned);
            }
            self.accident(i, worker)?;
            let work = if leads && profile::enabled() { self.work(step) } else { (0, 0) };
            let zone = clock(worker, step.zone, between).work(work.0, work.1);
            self.step(step, worker, &self.pass.turns[turn]);
            if step.is_drawn() {
                // Nobody draws from the other before the barrier that follows.
                turn = 1 - turn;
                self.pass.turns[turn].reset(worker.index());
            }
            let mut wait = None;
            if if self.few { step.barrier_few } else { step.barrier } {
                wait = (worker.count() > 1).then(|| clock(worker, Zone::Barrier, Moment::now()));
                worker.barrier()?;
            }
            between = Moment::now();
            if let Some(wait) = wait {
                wait.end_at(between);
            }
            zone.end_at(between);
        }
        Ok(())
    }

    /// What a test has planted at a step.
    #[cfg(test)]
    fn accident(&self, step: usize, worker: &Worker<'_>) -> std::result::Result<(), Poisoned> {
        super::exec_tests::happen(self.pass.fault, step, worker)
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn accident(&self, _: usize, _: &Worker<'_>) -> std::result::Result<(), Poisoned> {
        Ok(())
    }

    fn rows(&self, kind: BufKind) -> usize {
        match kind {
            BufKind::Batch => self.batch.tokens.len(),
            BufKind::Output => self.batch.n_output,
        }
    }

    fn worker_memory(&self, worker: &Worker<'_>) -> *mut u8 {
        self.own.0.wrapping_add(worker.index() * self.pass.own_stride)
    }

    /// A buffer's rows for a step that works on rows of `kind`: of a whole batch, an output step sees
    /// the last rows.
    fn view(&self, buf: Buf, kind: BufKind, worker: &Worker<'_>) -> Rows {
        let spec = &self.model.plan().buffers[buf.index()];
        let layout = &self.pass.layout;
        let ptr = if self.few && spec.own_copy {
            self.worker_memory(worker).wrapping_add(self.pass.own_copies + layout.own_offsets[buf.index()])
        } else {
            self.base.0.wrapping_add(layout.offsets[buf.index()])
        };
        // SAFETY: the layout gave this buffer `row_bytes` × its rows (or, of copies, as many as a short pass
        // has) inside the arena or the worker's memory, which outlive the region; the batch has no more rows
        // than the layout was made for.
        let rows = unsafe { Rows::new(ptr, spec.row_bytes, self.rows(spec.kind)) };
        rows.last(self.rows(kind))
    }

    fn floats(&self, id: WeightId) -> &[f32] {
        self.model.weights().floats(id)
    }

    fn step(&self, step: &Step, worker: &Worker<'_>, turn: &Turn) {
        let rows = self.rows(step.rows);
        if rows == 0 {
            return;
        }
        let view = |buf| self.view(buf, step.rows, worker);
        let share = if self.few && step.own_copy { 0..rows } else { worker.share(rows, 1) };
        let kernels = self.model.kernels();
        let config = self.model.config();
        // SAFETY: row-wise steps write only rows of `share`, which the workers' shares partition, or their own
        // copies; linear and attention steps are partitioned by what is drawn. What a step reads was written by
        // this worker or before a barrier (`Plan::place_barriers`), and buffers with overlapping lifetimes share
        // no bytes.
        unsafe {
            match &step.kind {
                StepKind::Embed { table, positions, out } => {
                    self.embed(*table, *positions, share, view(*out));
                }
                StepKind::RmsNorm { x, weight, out, eps } => {
                    rowwise::rms_norm(kernels, share, view(*x), self.floats(*weight), *eps, view(*out));
                }
                StepKind::LayerNorm { x, weight, bias, out, eps } => {
                    let affine = (self.floats(*weight), self.floats(*bias));
                    rowwise::layer_norm(kernels, share, view(*x), affine, *eps, view(*out));
                }
                StepKind::NormQuantize { x, weight, out, eps } => {
                    rowwise::norm_quantize(kernels, share, view(*x), self.floats(*weight), *eps, view(*out));
                }
                StepKind::Quantize { x, out, k } => {
                    rowwise::quantize(kernels, share, view(*x), *k, view(*out))
                }
                StepKind::Linear { parts, then } => {
                    let part = |i: usize| self.product(&parts[i], step.rows, worker);
                    let (shares, n) = (&turn.shares, parts.len());
                    let (layer, turns) = match *then {
                        Then::Nothing => {
                            return linear::run(worker, shares, n, part, linear::NOTHING);
                        }
                        Then::RopeStore { layer } => (layer, true),
                        Then::Store { layer } => (layer, false),
                    };
                    let (rope, store) = (self.tally(worker, Zone::Rope), self.tally(worker, Zone::KvStore));
                    let call = |i: usize, rows: Range<usize>, columns: Range<usize>| {
                        let (qkv, begin) = (view(parts[i].out), parts[i].column / config.head_dim);
                        let heads = columns.start / config.head_dim..columns.end / config.head_dim;
                        let heads = begin + heads.start..begin + heads.end;
                        if turns {
                            self.rotate(qkv, rows.clone(), heads.clone(), &rope);
                        }
                        self.store(layer, qkv, rows, heads, &store);
                    };
                    let then = linear::Then { unit: config.head_dim, call };
                    linear::run(worker, shares, n, part, Some(then));
                }
                StepKind::Gated { gate, up, out, quantized } => {
                    let product = |part| self.product(part, step.rows, worker);
                    let Some((gate, up)) = product(gate).zip(product(up)) else { return };
                    let (out, n) = (view(*out), gate.weight.n());
                    let gates = self.tally(worker, Zone::SwiGlu);
                    let call = |pair: Beside<2>| {
                        let elements = (pair.rows.len() * pair.columns.len()) as u64;
                        gates.piece(5 * elements, 8 * elements, || {
                            rowwise::swiglu(kernels, &pair, n, *quantized, out);
                        });
                    };
                    let then = linear::Then { unit: columns_unit(*quantized), call };
                    let scratch = self.worker_memory(worker).cast();
                    linear::beside(worker, &turn.shares, [&gate, &up], scratch, then);
                }
                StepKind::Gelu { part, out, quantized } => {
                    let Some(product) = self.product(part, step.rows, worker) else { return };
                    let (out, n) = (view(*out), product.weight.n());
                    let gelus = self.tally(worker, Zone::Gelu);
                    let elements =
                        |rows: &Range<usize>, columns: &Range<usize>| 8 * (rows.len() * columns.len()) as u64;
                    let (shares, unit) = (&turn.shares, columns_unit(*quantized));
                    if *quantized {
                        let call = |x: Beside<1>| {
                            let work = elements(&x.rows, &x.columns);
                            gelus.piece(work, work, || rowwise::gelu_quantize(kernels, &x, n, out));
                        };
                        let scratch = self.worker_memory(worker).cast();
                        linear::beside(worker, shares, [&product], scratch, linear::Then { unit, call });
                    } else {
                        let call = |_: usize, rows: Range<usize>, columns: Range<usize>| {
                            let work = elements(&rows, &columns);
                            gelus.piece(work, work, || rowwise::gelu(kernels, out, rows, columns));
                        };
                        linear::run(worker, shares, 1, |_| Some(product), Some(linear::Then { unit, call }));
                    }
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
                    let scratch = self.worker_memory(worker).cast();
                    attention::run(kernels, worker, &turn.counter, &args, scratch);
                }
            }
        }
    }

    /// Rows of the token table, and of the positions if there are any.
    ///
    /// # Safety
    /// Rows `share` of `out` are this worker's alone.
    unsafe fn embed(&self, table: WeightId, positions: Option<WeightId>, share: Range<usize>, out: Rows) {
        let (table, width) = (self.model.weights().get(table), self.model.config().n_embd);
        for r in share {
            // SAFETY: the row belongs to this worker's share.
            let row = unsafe { out.floats_mut(r, width) };
            // The context checked the token, the loader the table's shape.
            table.decode_row(self.batch.tokens[r] as usize, row).expect("a row of the embedding");
            if let Some(positions) = positions {
                // A context has no more positions than the table has rows.
                let at = (self.batch.position + r) * width;
                self.model.kernels().unary.add.apply_in_place(row, &self.floats(positions)[at..at + width]);
            }
        }
    }

    /// Rotates what is queries or keys among some heads of `qkv`.
    ///
    /// # Safety
    /// These heads of these rows are this worker's alone.
    unsafe fn rotate(&self, qkv: Rows, rows: Range<usize>, heads: Range<usize>, tally: &Tally) {
        let config = self.model.config();
        let Some((rope, table)) = config.rope.as_ref().zip(self.pass.rope.as_ref()) else { return };
        let values = config.n_head + config.n_head_kv;
        let turned = heads.start.min(values)..heads.end.min(values);
        if turned.is_empty() {
            return;
        }
        let elements = (rows.len() * turned.len() * rope.dim) as u64;
        let (kernel, positions) = (self.model.kernels().rope.of(rope.pairing), &self.pass.positions);
        // SAFETY: by contract; the table covers the context.
        tally.piece(3 * elements, 8 * elements, || unsafe {
            rowwise::rope(kernel, rows, qkv, turned, config.head_dim, table, positions);
        });
    }

    /// Puts what is keys or values among some heads of `qkv` into the cache.
    ///
    /// # Safety
    /// These heads of these rows, and their places in the cache, are this worker's alone.
    unsafe fn store(&self, layer: usize, qkv: Rows, rows: Range<usize>, heads: Range<usize>, tally: &Tally) {
        let shape = self::heads(self.model);
        let (keys, values) = (shape.n_head, shape.n_head + shape.n_head_kv);
        let (begin, end) = (heads.start, heads.end);
        let key_heads = begin.clamp(keys, values) - keys..end.clamp(keys, values) - keys;
        let value_heads = begin.max(values) - values..end.max(values) - values;
        if key_heads.is_empty() && value_heads.is_empty() {
            return;
        }
        let elements = rows.len() * (key_heads.len() + value_heads.len()) * shape.head_dim;
        let (cache, heads) = (self.cache.layer(layer), (key_heads, value_heads));
        let (kernels, position) = (self.model.kernels(), self.batch.position);
        // SAFETY: by contract; the context has room for the positions.
        tally.piece(0, 8 * elements as u64, || unsafe {
            attention::store(kernels, &cache, rows, qkv, &shape, position, heads);
        });
    }

    /// A clock for what comes piece by piece within a step; of few rows a piece is done before the clock is read.
    fn tally(&self, worker: &Worker<'_>, zone: Zone) -> Tally {
        match (self.batch.tokens.len() <= Plan::FEW_ROWS, worker.index()) {
            (true, _) => Tally::untimed(),
            (false, 0) => Tally::of_call(zone),
            (false, _) => Tally::of_assist(zone),
        }
    }

    fn product(&self, part: &Part, rows: BufKind, worker: &Worker<'_>) -> Option<Product<'_>> {
        let Weight::Linear(weight) = self.model.weights().get(part.weight) else { return None };
        Some(Product {
            x: self.view(part.x, rows, worker),
            weight,
            bias: part.bias.map(|id| self.floats(id)),
            y: self.view(part.out, rows, worker),
            column: part.column,
            accumulate: part.accumulate,
        })
    }

    /// Operations of a product over `rows` rows (a bias is what the sums start from), and bytes that it moves: the
    /// matrix once, rows in and out.
    fn product_work(&self, part: &Part, rows: u64) -> (u64, u64) {
        let Weight::Linear(weight) = self.model.weights().get(part.weight) else { return (0, 0) };
        let x = self.model.plan().buffers[part.x.index()].row_bytes;
        let y = weight.n() * size_of::<f32>();
        let row = x + if part.accumulate { 2 * y } else { y };
        let once = weight.bytes() + if part.bias.is_some() { y } else { 0 };
        (rows * weight.flops_per_row(), once as u64 + rows * row as u64)
    }

    /// Floating-point operations and bytes of memory that a step needs at least.
    fn work(&self, step: &Step) -> (u64, u64) {
        let rows = self.rows(step.rows) as u64;
        let config = self.model.config();
        match &step.kind {
            StepKind::Linear { parts, .. } => {
                parts.iter().map(|part| self.product_work(part, rows)).fold((0, 0), add)
            }
            StepKind::Gated { gate, up, .. } => {
                add(self.product_work(gate, rows), self.product_work(up, rows))
            }
            StepKind::Attention { .. } => {
                // Row r sees position + r + 1 keys, in each of two products.
                let keys = rows * self.batch.position as u64 + rows * (rows + 1) / 2;
                let end = self.batch.position as u64 + rows;
                let (width, cache) = (config.q_width() as u64, self.cache.layer_bytes(end as usize) as u64);
                (4 * keys * width, cache + 8 * rows * width)
            }
            StepKind::Gelu { part, .. } => self.product_work(part, rows),
            StepKind::LayerNorm { .. } => (8 * rows * config.n_embd as u64, rows * config.n_embd as u64 * 8),
            StepKind::RmsNorm { .. } => (4 * rows * config.n_embd as u64, rows * config.n_embd as u64 * 8),
            StepKind::NormQuantize { .. } => {
                (7 * rows * config.n_embd as u64, rows * config.n_embd as u64 * 6)
            }
            StepKind::Quantize { k, .. } => (3 * rows * *k as u64, rows * *k as u64 * 6),
            StepKind::Embed { positions, .. } => {
                let elements = rows * config.n_embd as u64;
                if positions.is_some() { (elements, 12 * elements) } else { (0, 8 * elements) }
            }
        }
    }
}

/// A scope of what workers share: the first one's is the call, the others' are their help in it.
#[inline(always)]
fn clock(worker: &Worker<'_>, zone: Zone, from: Moment) -> profile::Scope {
    if worker.index() == 0 { profile::scope_at(zone, from) } else { profile::assist_at(zone, from) }
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}
