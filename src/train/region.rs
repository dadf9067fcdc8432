//! What the workers of one parallel region do: micro-batches forward and backward, the gradient's length, the update.

use std::ops::Range;
use std::slice::from_raw_parts_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::parameters::Parameter;
use super::params::Optimizer;
use super::walk::{Shared, Walk, barrier};
use crate::kernels::backward::{AdamWStep, NORM_BLOCK, SgdStep, norm_of};
use crate::model::random_bits;
use crate::profile::{Moment, Zone};
use crate::threads::{Poisoned, Worker};

/// Floats that a worker's share is a multiple of: whole cache lines.
const GRAIN: usize = 1024;

/// A number in f64 that one worker writes and others read behind a barrier.
#[derive(Default)]
pub(super) struct Number(AtomicU64);

impl Number {
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    pub fn put(&self, x: f64) {
        self.0.store(x.to_bits(), Relaxed);
    }
}

/// The tokens and targets of micro-batches of the same size.
#[derive(Clone, Copy)]
pub(super) struct Batches<'a> {
    pub tokens: &'a [u32],
    pub targets: &'a [u32],
}

impl<'a> Batches<'a> {
    /// The walk of a micro-batch.
    pub fn walk(&self, walk: &Walk<'a>, batch: usize) -> Walk<'a> {
        let rows = batch * walk.rows..(batch + 1) * walk.rows;
        let seed = random_bits(walk.seed.wrapping_add(batch as u64));
        Walk { tokens: &self.tokens[rows.clone()], targets: &self.targets[rows], seed, ..*walk }
    }

    pub fn count(&self, rows: usize) -> usize {
        self.tokens.len() / rows
    }
}

/// How a step changes weights.
pub(super) struct Update<'a> {
    pub optimizer: Optimizer,
    pub rate: f64,
    /// Counted from 1.
    pub step: u64,
    pub clip: Option<f64>,
    pub parameters: &'a [Parameter],
    /// Floats of all of them.
    pub trained: usize,
    pub moments: [Shared<'a, f32>; 2],
}

/// One worker's way through a parallel region. All workers of the region call the same methods alike, and nobody else uses
/// the walk's memory meanwhile, as [`Region::new`] was promised.
pub(super) struct Region<'a> {
    walk: &'a Walk<'a>,
    worker: &'a Worker<'a>,
}

impl<'a> Region<'a> {
    /// # Safety
    /// All workers of the region call the same methods of theirs alike, on a walk of the same memory, which is as its plan
    /// was laid out, and so are the arguments; nobody else uses that memory meanwhile. Nothing of the walk's schedules is
    /// taken.
    pub unsafe fn new(walk: &'a Walk<'a>, worker: &'a Worker<'a>) -> Self {
        Region { walk, worker }
    }

    /// Elements of shared memory, which are this worker's until the next barrier, or are only read until then.
    fn slice<T>(&self, memory: &Shared<'a, T>, range: &Range<usize>) -> &'a mut [T] {
        // SAFETY: the memory is as long as its users divide, and no other worker writes these elements, or uses those that
        // this one writes.
        unsafe { from_raw_parts_mut(memory.at(range.start), range.len()) }
    }

    /// Walks through a micro-batch.
    fn steps(
        &self,
        walk: &Walk<'_>,
        schedule: &mut usize,
        stop: impl FnMut(usize) -> Result<bool, Poisoned>,
    ) -> Result<(), Poisoned> {
        // SAFETY: all workers walk alike, as promised. A plan's last step ends with a barrier, so the schedules are free again.
        unsafe { walk.run(self.worker, schedule, stop) }
    }

    /// Runs all micro-batches; the sum of losses is in `loss` at the end.
    pub fn batches(&self, batches: &Batches<'_>, loss: &Number) -> Result<(), Poisoned> {
        let mut schedule = 0;
        for batch in 0..batches.count(self.walk.rows) {
            let walk = batches.walk(self.walk, batch);
            self.steps(&walk, &mut schedule, |_| Ok(false))?;
            if self.worker.index() == 0 {
                // The plan is through with losses, and the next one's come behind a barrier.
                let losses =
                    self.slice(&self.walk.losses, &(0..walk.rows)).iter().map(|&loss| f64::from(loss));
                loss.put(losses.fold(loss.get(), |sum, loss| sum + loss));
            }
        }
        barrier(self.worker)
    }

    /// Sets this worker's share of the gradients to 0.
    pub fn clear(&self, trained: usize) -> Result<(), Poisoned> {
        let share = self.worker.share(trained, GRAIN);
        let _zone = self.worker.clock(Zone::TrainClear, Moment::now()).work(0, 4 * trained as u64);
        self.slice(&self.walk.gradients, &share).fill(0.0);
        barrier(self.worker)
    }

    /// The length of the gradient, the same on all workers.
    pub fn length(&self, trained: usize, squares: &Shared<'a, f64>) -> Result<f64, Poisoned> {
        let _zone = self.worker.clock(Zone::TrainNorm, Moment::now()).work(0, 4 * trained as u64);
        let blocks = trained.div_ceil(NORM_BLOCK);
        let share = self.worker.share(blocks, 1);
        let floats = share.start * NORM_BLOCK..trained.min(share.end * NORM_BLOCK);
        if !share.is_empty() {
            let (floats, sums) = (self.slice(&self.walk.gradients, &floats), self.slice(squares, &share));
            // A sum for each block is all that it asks for.
            let _ = self.walk.kernels.backward.sum_of_squares.apply(floats, sums);
        }
        barrier(self.worker)?;
        // All sums have been written before the barrier, and nobody writes them any more.
        Ok(norm_of(self.slice(squares, &(0..blocks))))
    }

    /// Updates this worker's share of the weights.
    pub fn update(&self, update: &Update<'_>, length: f64) {
        let (walk, worker) = (self.walk, self.worker);
        // Weights and moments are read and written, gradients read.
        let moved = 4 * update.trained as u64 * (3 + 2 * update.optimizer.moments() as u64);
        let _zone = worker.clock(Zone::TrainUpdate, Moment::now()).work(0, moved);
        let scale = update.clip.map_or(1.0, |clip| (clip / (length + 1e-6)).min(1.0)) as f32;
        let share = worker.share(update.trained, GRAIN);
        let [plain, decaying] = [false, true].map(|decays| Factors::new(update, decays, scale));
        let kernels = &walk.kernels.backward;
        for parameter in update.parameters {
            let end = parameter.offset + parameter.elements();
            let own = share.start.max(parameter.offset)..share.end.min(end);
            if own.is_empty() {
                continue;
            }
            let (w, g) = (self.slice(&walk.weights, &own), self.slice(&walk.gradients, &own));
            let moment = |i: usize| self.slice(&update.moments[i], &own);
            // The slices have one length, which is all that could be wrong.
            let _ = match if parameter.decays() { decaying } else { plain } {
                Factors::AdamW(step) => kernels.adamw.apply(&step, w, g, moment(0), moment(1)),
                Factors::Sgd(step) if step.momentum > 0.0 => kernels.sgd.apply(&step, w, g, moment(0)),
                Factors::Sgd(step) => kernels.sgd.apply(&step, w, g, &mut []),
            };
        }
    }
    /// The first forward step, and the micro-batch, whose result isn't finite: all workers walk to it, and the first one looks
    /// at each result behind a barrier.
    pub fn find_fault(&self, batches: &Batches<'_>, fault: &AtomicU64) -> Result<(), Poisoned> {
        let worker = self.worker;
        let mut schedule = 0;
        for batch in 0..batches.count(self.walk.rows) {
            let walk = batches.walk(self.walk, batch);
            let look = |step: usize| {
                let Some(view) = walk.plan.steps[step].result else { return Ok(false) };
                worker.barrier()?;
                let rows = walk.plan.buffers[view.buf.index()].rows;
                // SAFETY: all workers have computed the result and wait at the next barrier.
                let finite =
                    |row| (0..view.width).all(|i| unsafe { *walk.row(view, row).add(i) }.is_finite());
                if worker.index() == 0 && !(0..rows).all(finite) {
                    fault.store(step as u64, Relaxed);
                }
                worker.barrier()?;
                Ok(fault.load(Relaxed) != u64::MAX)
            };
            self.steps(&walk, &mut schedule, look)?;
            if fault.load(Relaxed) != u64::MAX {
                break;
            }
            worker.barrier()?;
        }
        Ok(())
    }
}

/// The factors of an update.
#[derive(Clone, Copy)]
enum Factors {
    AdamW(AdamWStep),
    Sgd(SgdStep),
}

impl Factors {
    fn new(update: &Update<'_>, decays: bool, scale: f32) -> Factors {
        match update.optimizer {
            Optimizer::AdamW(adamw) => {
                Factors::AdamW(AdamWStep::new(&adamw.config(decays), update.rate, update.step, scale))
            }
            Optimizer::Sgd(sgd) => Factors::Sgd(sgd.step(decays, update.rate, scale)),
        }
    }
}
