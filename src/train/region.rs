//! What the workers of one parallel region do: micro-batches forward and backward, the gradient's length, the update.

use std::ops::Range;
use std::ptr::null_mut;
use std::slice::from_raw_parts_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::parameters::Parameter;
use super::params::Optimizer;
use super::walk::{Shared, Walk, barrier};
use crate::kernels::backward::{AdamWArgs, AdamWStep, NORM_BLOCK, SgdArgs, SgdStep, norm_of};
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

/// Runs all micro-batches on one worker; the sum of losses is in `loss` at the end.
///
/// # Safety
/// As [`Walk::run`].
pub(super) unsafe fn batches(
    walk: &Walk<'_>,
    batches: &Batches<'_>,
    worker: &Worker<'_>,
    loss: &Number,
) -> Result<(), Poisoned> {
    let mut schedule = 0;
    for batch in 0..batches.count(walk.rows) {
        let walk = batches.walk(walk, batch);
        // SAFETY: promised; a plan's last step ends with a barrier.
        unsafe { walk.run(worker, &mut schedule, |_| Ok(false))? };
        if worker.index() == 0 {
            // SAFETY: the plan is through with losses, and the next one's come behind a barrier.
            let losses = (0..walk.rows).map(|row| f64::from(unsafe { *walk.losses(row) }));
            loss.put(losses.fold(loss.get(), |sum, loss| sum + loss));
        }
    }
    barrier(worker)
}

/// Sets this worker's share of the gradients to 0.
///
/// # Safety
/// All workers of the region call it alike, and nobody else uses gradients before the next barrier.
pub(super) unsafe fn clear(walk: &Walk<'_>, trained: usize, worker: &Worker<'_>) -> Result<(), Poisoned> {
    let share = worker.share(trained, GRAIN);
    let _zone = worker.clock(Zone::TrainClear, Moment::now()).work(0, 4 * trained as u64);
    // SAFETY: the share is this worker's.
    unsafe { slice(&walk.gradients, &share).fill(0.0) };
    barrier(worker)
}

/// The length of the gradient, the same on all workers.
///
/// # Safety
/// As [`clear`]; nobody writes gradients meanwhile.
pub(super) unsafe fn length(
    walk: &Walk<'_>,
    trained: usize,
    squares: &Shared<'_, f64>,
    worker: &Worker<'_>,
) -> Result<f64, Poisoned> {
    let _zone = worker.clock(Zone::TrainNorm, Moment::now()).work(0, 4 * trained as u64);
    let blocks = trained.div_ceil(NORM_BLOCK);
    let share = worker.share(blocks, 1);
    let floats = share.start * NORM_BLOCK..trained.min(share.end * NORM_BLOCK);
    if !share.is_empty() {
        // SAFETY: these blocks and their sums are this worker's.
        let (floats, sums) = unsafe { (slice(&walk.gradients, &floats), slice(squares, &share)) };
        // A sum for each block is all that it asks for.
        let _ = walk.kernels.backward.sum_of_squares.apply(floats, sums);
    }
    barrier(worker)?;
    // SAFETY: all sums have been written before the barrier, and nobody writes them any more.
    Ok(norm_of(unsafe { slice(squares, &(0..blocks)) }))
}

/// Updates this worker's share of the weights.
///
/// # Safety
/// As [`clear`]; nobody else uses weights and moments meanwhile.
pub(super) unsafe fn update(walk: &Walk<'_>, update: &Update<'_>, length: f64, worker: &Worker<'_>) {
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
        let (n, w, g) = (own.len(), walk.weights.at(own.start), walk.gradients.at(own.start));
        let [first, second] = update.moments.map(|moments| moments.at(own.start));
        // SAFETY: these elements are this worker's in weights, gradients and those moments that the optimizer has.
        unsafe {
            match if parameter.decays() { decaying } else { plain } {
                Factors::AdamW(step) => kernels.adamw.run(&AdamWArgs { step, w, g, m: first, v: second, n }),
                Factors::Sgd(step) => {
                    let b = if step.momentum > 0.0 { first } else { null_mut() };
                    kernels.sgd.run(&SgdArgs { step, w, g, b, n });
                }
            }
        }
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

/// Elements of shared memory.
///
/// # Safety
/// They are there, and nobody else uses them while the slice lives.
unsafe fn slice<'a, T>(memory: &Shared<'a, T>, range: &Range<usize>) -> &'a mut [T] {
    // SAFETY: promised.
    unsafe { from_raw_parts_mut(memory.at(range.start), range.len()) }
}

/// The first forward step, and the micro-batch, whose result isn't finite: all workers walk to it, and the first one looks
/// at each result behind a barrier.
///
/// # Safety
/// As [`Walk::run`].
pub(super) unsafe fn find_fault(
    walk: &Walk<'_>,
    batches: &Batches<'_>,
    worker: &Worker<'_>,
    fault: &AtomicU64,
) -> Result<(), Poisoned> {
    let mut schedule = 0;
    for batch in 0..batches.count(walk.rows) {
        let walk = batches.walk(walk, batch);
        let look = |step: usize| {
            let Some(view) = walk.plan.steps[step].result else { return Ok(false) };
            worker.barrier()?;
            let rows = walk.plan.buffers[view.buf.index()].rows;
            // SAFETY: all workers have computed the result and wait at the next barrier.
            let finite = |row| (0..view.width).all(|i| unsafe { *walk.row(view, row).add(i) }.is_finite());
            if worker.index() == 0 && !(0..rows).all(finite) {
                fault.store(step as u64, Relaxed);
            }
            worker.barrier()?;
            Ok(fault.load(Relaxed) != u64::MAX)
        };
        // SAFETY: promised.
        unsafe { walk.run(worker, &mut schedule, look)? };
        if fault.load(Relaxed) != u64::MAX {
            break;
        }
        worker.barrier()?;
    }
    Ok(())
}
