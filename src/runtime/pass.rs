//! A forward pass: its memory, and the execution of its plan in one parallel region. Each worker executes the whole
//! plan and does its share of each step; there are barriers only between steps that conflict.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::plan::{MostRows, Plan, PlanLayout, Planned};
use super::steps::{At, Batch, Memory, Schedule, Scratch, Shared, Sight, Walk, Work};
use crate::error::{Error, Result};
use crate::isa;
use crate::kernels::attention::Kernel as AttentionKernel;
use crate::kv::{self, CacheType, SequenceId};
use crate::memory::reserve::{collected, with_room};
use crate::memory::{ALIGNMENT, AlignedBuf, checked_bytes};
use crate::model::{Model, RopeOverrides};
use crate::ops::attention::{Parts, SpanRows};
use crate::ops::rotary::RotaryTable;
use crate::profile::{self, Moment, Zone};
use crate::threads::{Poisoned, Shares, Team, WorkCounter, Worker};

/// The limits of passes.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub most: MostRows,
    /// Most positions of a sequence.
    pub n_ctx: usize,
    pub threads: usize,
    pub kv: CacheType,
}

/// A run of tokens in a batch that continues one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// The sequence that the tokens continue.
    pub sequence: SequenceId,
    /// Number of tokens.
    pub rows: usize,
    /// Position of the first token: the number of positions that the sequence has.
    pub first: usize,
}

impl Span {
    /// A span of `rows` tokens at the positions from `first` on.
    pub fn new(sequence: SequenceId, first: usize, rows: usize) -> Self {
        Span { sequence, rows, first }
    }
}

/// The memory of forward passes: the arena, each worker's own memory, the rotary tables.
pub(super) struct Pass {
    plan: Plan,
    arena: AlignedBuf,
    layout: PlanLayout,
    /// For each worker: scratch memory of a step, then its own copies of buffers.
    own: AlignedBuf,
    /// Bytes from one worker's memory to the next one's.
    own_stride: usize,
    /// Offset of the copies in a worker's memory.
    own_copies: usize,
    parts: Parts,
    ropes: Vec<RotaryTable>,
    /// Position of each row of the batch.
    positions: Vec<u32>,
    /// One for each of the plan's masks.
    sights: Vec<Sight>,
    spans: Vec<SpanRows>,
    sequences: Vec<SequenceId>,
    /// Dynamic steps use these alternately: while one is in use, the other is reset for the next dynamic step.
    schedules: [Schedule; 2],
    /// A fault planted by a test.
    #[cfg(test)]
    pub fault: Option<super::pass_tests::Fault>,
}

impl Schedule {
    fn new(workers: usize) -> Result<Schedule> {
        Ok(Schedule { shares: Shares::new(workers)?, counter: WorkCounter::new() })
    }

    /// Resets one worker's part for another step.
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
    ropes: usize,
}

/// The error of a size that overflows.
const TOO_LARGE: Error = Error::OutOfMemory { bytes: usize::MAX, what: "a context" };

impl Sizes {
    fn new(model: &Model, plan: &Plan, layout: &PlanLayout, limits: &Limits) -> Result<Sizes> {
        let Limits { n_ctx, threads, kv, .. } = *limits;
        let attention = model.kernels().attention.of(kv);
        let scratch = Scratch { weights: model.weights(), attention, plan, most: limits.most };
        let floats = |sum: Result<usize>, planned: &Planned| Ok(sum?.max(planned.step.scratch(&scratch)?));
        let floats = plan.steps.iter().fold(Ok(0), floats)?;
        let own_copies = checked_bytes(floats, size_of::<f32>(), "scratch")?.next_multiple_of(ALIGNMENT);
        let own_stride = own_copies.checked_add(layout.own_total).ok_or(TOO_LARGE)?;
        let parts = plan.heads.iter().map(|heads| Parts::bytes(attention, heads, n_ctx, threads));
        let ropes = model
            .graph()
            .ropes
            .iter()
            .map(|rope| checked_bytes(n_ctx, rope.config.dim * size_of::<f32>(), "the rotary table"));
        Ok(Sizes {
            arena: layout.total,
            own_copies,
            own_stride,
            own: checked_bytes(own_stride, threads, "scratch")?,
            parts: collected(parts, PLAN)?.into_iter().max().unwrap_or(0),
            ropes: ropes.sum::<Result<usize>>()?,
        })
    }

    fn total(&self) -> Result<usize> {
        let sizes = [self.arena, self.own, self.parts, self.ropes];
        sizes.into_iter().try_fold(0, usize::checked_add).ok_or(TOO_LARGE)
    }
}

/// The purpose of the memory, in errors.
const ROWS: &str = "the rows of a batch";
const PLAN: &str = "the tables of a plan";

impl Pass {
    /// Bytes that `new` reserves for the same arguments.
    pub fn bytes(model: &Model, plan: &Plan, limits: &Limits) -> Result<usize> {
        Sizes::new(model, plan, &plan.layout(limits.most)?, limits)?.total()
    }

    pub fn new(model: &Model, plan: Plan, rope: &RopeOverrides, limits: &Limits) -> Result<Pass> {
        let Limits { most, n_ctx, threads, .. } = *limits;
        let layout = plan.layout(most)?;
        let sizes = Sizes::new(model, &plan, &layout, limits)?;
        let ropes = model.graph().ropes.iter();
        let ropes = ropes.map(|spec| spec.config.with(rope).table(n_ctx, spec.factors(n_ctx)));
        let sights = plan.masks.iter().map(|mask| {
            let starts =
                if mask.sight(n_ctx, n_ctx).start == 0 { Vec::new() } else { with_room(most.batch, ROWS)? };
            Ok(Sight { starts, limits: with_room(most.batch, ROWS)? })
        });
        let sights = collected(sights, PLAN)?;
        let heads = plan.heads.iter().map(|heads| heads.n_head_kv).max().unwrap_or(0);
        Ok(Pass {
            arena: AlignedBuf::zeroed(sizes.arena, "activations")?,
            layout,
            own: AlignedBuf::zeroed(sizes.own, "scratch")?,
            own_stride: sizes.own_stride,
            own_copies: sizes.own_copies,
            parts: Parts::new(sizes.parts, heads, n_ctx, threads)?,
            ropes: collected(ropes, PLAN)?,
            positions: with_room(most.batch, ROWS)?,
            sights,
            spans: with_room(most.spans, ROWS)?,
            sequences: with_room(most.spans, ROWS)?,
            schedules: [Schedule::new(threads)?, Schedule::new(threads)?],
            plan,
            #[cfg(test)]
            fault: None,
        })
    }

    /// The plan that it executes.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The tables of angles.
    pub fn ropes(&self) -> &[RotaryTable] {
        &self.ropes
    }

    /// The first `rows` rows of results.
    pub fn output(&self, rows: usize) -> &[f32] {
        let Some(output) = self.plan.output else { return &[] };
        let width = self.plan.buffers[output.index()].row_bytes / size_of::<f32>();
        let begin = self.layout.offsets[output.index()] / size_of::<f32>();
        &self.arena.as_slice::<f32>()[begin..begin + rows * width]
    }

    /// Runs the model on a batch that the engine has checked, unless `cancel` is set.
    pub fn run(
        &mut self,
        team: &Team,
        model: &Model,
        kv: CacheType,
        cache: kv::View<'_>,
        (tokens, spans, outputs): (&[u32], &[Span], &[u32]),
        cancel: &AtomicBool,
    ) -> Result<()> {
        // An interrupted pass leaves schedules and parts in an arbitrary state.
        for schedule in &self.schedules {
            (0..team.count()).for_each(|worker| schedule.reset(worker));
        }
        self.parts.reset();
        self.place(spans);
        let attention: &AttentionKernel = model.kernels().attention.of(kv);
        let memory = Memory {
            base: Shared(self.arena.as_mut_ptr()),
            own: Shared(self.own.as_mut_ptr()),
            layout: &self.layout,
            own_stride: self.own_stride,
            own_copies: self.own_copies,
        };
        let walk = Walk {
            plan: &self.plan,
            weights: model.weights(),
            kernels: model.kernels(),
            attention,
            parts: &self.parts,
            ropes: &self.ropes,
            cache,
            batch: Batch {
                tokens,
                positions: &self.positions,
                spans: &self.spans,
                sequences: &self.sequences,
                outputs,
                sights: &self.sights,
            },
            memory,
            few: team.count() > 1 && tokens.len() <= Plan::FEW_ROWS,
        };
        let this = &*self;
        team.run(|worker| {
            // A poisoned barrier means that another worker ended the region; `Team::run` returns the cause.
            let _ = this.walk(&walk, worker, cancel);
        })
    }

    /// Notes the position of each row and the positions that it sees. Positions are below the largest context, and fit
    /// u32.
    fn place(&mut self, spans: &[Span]) {
        self.positions.clear();
        self.spans.clear();
        self.sequences.clear();
        for span in spans {
            let begin = self.positions.len();
            self.spans.push(SpanRows { rows: begin..begin + span.rows, position: span.first });
            self.sequences.push(span.sequence);
            self.positions.extend((span.first..span.first + span.rows).map(|position| position as u32));
        }
        for (mask, sight) in self.plan.masks.iter().zip(&mut self.sights) {
            sight.starts.clear();
            sight.limits.clear();
            for span in spans {
                let end = span.first + span.rows;
                let seen = (span.first..end).map(|position| mask.sight(position, end));
                sight.limits.extend(seen.clone().map(|seen| seen.end as u32));
                if sight.starts.capacity() > 0 {
                    sight.starts.extend(seen.map(|seen| seen.start as u32));
                }
            }
        }
    }

    /// One worker's execution of the plan.
    fn walk(&self, walk: &Walk<'_>, worker: &Worker<'_>, cancel: &AtomicBool) -> Result<(), Poisoned> {
        let leads = worker.index() == 0;
        let mut schedule = 0;
        // The moment at which one step ends and the next begins.
        let mut between = Moment::now();
        let steps = &self.plan.steps;
        for (i, planned) in steps.iter().enumerate() {
            if let Some(next) = steps.get(i + 1) {
                isa::prefetch(next);
                next.step.prefetch(walk.weights);
            }
            if leads && cancel.load(Relaxed) {
                worker.cancel();
                return Err(Poisoned);
            }
            self.accident(i, worker)?;
            let step = &*planned.step;
            let work = if leads && profile::enabled() { step.work(walk) } else { Work::default() };
            let zone = worker.clock(planned.facts.zone, between).work(work.flops, work.bytes);
            let rows = walk.count(planned.facts.rows);
            if rows > 0 {
                let share = if walk.few && planned.own_copy { 0..rows } else { worker.share(rows, 1) };
                let at = At { worker, share, schedule: &self.schedules[schedule] };
                // SAFETY: each worker runs the plan's steps in their order, with the plan's barriers between them, and
                // with the schedule of this step, which was reset before a barrier.
                unsafe { step.run(walk, &at) };
            }
            if planned.facts.dynamic {
                // No worker takes from the other schedule before the next barrier.
                schedule = 1 - schedule;
                self.schedules[schedule].reset(worker.index());
            }
            let mut wait = None;
            if if walk.few { planned.barrier_few } else { planned.barrier } {
                wait = (worker.count() > 1).then(|| worker.clock(Zone::Barrier, Moment::now()));
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

    /// The fault that a test has planted at a step.
    #[cfg(test)]
    fn accident(&self, step: usize, worker: &Worker<'_>) -> Result<(), Poisoned> {
        super::pass_tests::happen(self.fault, step, worker)
    }

    #[cfg(not(test))]
    #[inline(always)]
    fn accident(&self, _: usize, _: &Worker<'_>) -> Result<(), Poisoned> {
        Ok(())
    }
}
