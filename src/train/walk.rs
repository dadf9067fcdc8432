//! The execution of a plan: every worker runs every step, with barriers between steps that meet.

use std::marker::PhantomData;

use super::parameters::Weight;
use super::plan::{Plan, View};
use super::steps::At;
use crate::error::Result;
use crate::kernels::KernelSet;
use crate::kernels::rope::{Angles, Pairing};
use crate::memory::reserve::copied;
use crate::model::graph::RopeSpec;
use crate::ops::rotary::RotaryTable;
use crate::profile::{self, Moment, Zone};
use crate::threads::{Poisoned, Shares, Worker};

/// Memory that workers share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a, T> {
    begin: *mut T,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: an address. Reading or writing through it is unsafe, and each step states which elements are a worker's.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as for Sync.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Shared { begin: slice.as_mut_ptr(), owner: PhantomData }
    }

    /// The address of an element.
    pub fn at(&self, index: usize) -> *mut T {
        self.begin.wrapping_add(index)
    }
}

/// A barrier, the time at which is idle time in the profile.
pub(super) fn barrier(worker: &Worker<'_>) -> Result<(), Poisoned> {
    let _wait = (worker.count() > 1).then(|| worker.clock(Zone::Barrier, Moment::now()));
    worker.barrier()
}

/// The angles of a rotary table, and those of the rotations back.
pub(super) struct Rotation {
    pub pairing: Pairing,
    forward: RotaryTable,
    /// As [`Angles`] reads them, with negated sines.
    back: Vec<f32>,
    rot_dim: usize,
    n_ctx: usize,
}

impl Rotation {
    /// The rotations at the positions of a context.
    pub fn new(spec: &RopeSpec, n_ctx: usize) -> Result<Rotation> {
        let forward = spec.config.table(n_ctx, spec.factors(n_ctx))?;
        let rot_dim = spec.config.dim;
        let mut back = copied(forward.data(), "the rotary table")?;
        for position in back.chunks_mut(rot_dim.max(1)) {
            position[rot_dim / 2..].iter_mut().for_each(|sine| *sine = -*sine);
        }
        Ok(Rotation { pairing: spec.config.pairing, forward, back, rot_dim, n_ctx })
    }

    pub fn angles(&self, back: bool) -> Angles<'_> {
        match back {
            false => self.forward.angles(),
            true => Angles::new(&self.back, self.rot_dim).unwrap_or(Angles::none(self.n_ctx)),
        }
    }
}

/// A plan's memory and a micro-batch, as its steps see them.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub kernels: &'a KernelSet,
    pub plan: &'a Plan,
    /// Byte offset of each buffer in the arena.
    pub offsets: &'a [usize],
    pub arena: Shared<'a, u8>,
    pub weights: Shared<'a, f32>,
    pub gradients: Shared<'a, f32>,
    pub rotations: &'a [Rotation],
    /// Position of each row in its sequence.
    pub positions: &'a [u32],
    pub tokens: &'a [u32],
    pub targets: &'a [u32],
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Rows of a sequence.
    pub context: usize,
    /// Factor on the gradient of each row's loss.
    pub scale: f32,
    pub losses: Shared<'a, f32>,
    /// Of the random numbers of a micro-batch.
    pub seed: u64,
    /// Scratch memory of all workers.
    pub scratch: Shared<'a, f32>,
    /// Floats of one worker's.
    pub scratch_len: usize,
    /// Dynamic steps use these alternately.
    pub schedules: &'a [Shares; 2],
}

impl<'a> Walk<'a> {
    /// The address of a view's first column in a row.
    pub fn row(&self, view: View, row: usize) -> *mut f32 {
        let spec = &self.plan.buffers[view.buf.index()];
        debug_assert!(row <= spec.rows && view.column + view.width <= spec.stride);
        let first: *mut f32 = self.arena.at(self.offsets[view.buf.index()]).cast();
        first.wrapping_add(row * spec.stride + view.column)
    }

    /// Floats between a view's rows.
    pub fn stride(&self, view: View) -> usize {
        self.plan.buffers[view.buf.index()].stride
    }

    /// The address of a weight's element.
    pub fn weight_at(&self, weight: Weight, element: usize) -> *const f32 {
        debug_assert!(element < weight.len);
        self.weights.at(weight.offset + element)
    }

    /// The address of a trained weight's gradient.
    pub fn gradient(&self, weight: Weight) -> *mut f32 {
        debug_assert!(weight.trained);
        self.gradients.at(weight.offset)
    }

    /// The address of a row's loss.
    pub fn losses(&self, row: usize) -> *mut f32 {
        self.losses.at(row)
    }

    /// A worker's scratch memory.
    pub fn scratch(&self, worker: &Worker<'_>) -> *mut f32 {
        self.scratch.at(worker.index() * self.scratch_len)
    }

    /// One worker's execution of the steps, up to the one that `stop` asks to stop behind.
    ///
    /// # Safety
    /// All workers of the region call it alike, and nobody else uses the walk's memory meanwhile. Nothing of the schedules
    /// is taken, or the last walk of all workers has ended before a barrier.
    pub unsafe fn run(
        &self,
        worker: &Worker<'_>,
        schedule: &mut usize,
        mut stop: impl FnMut(usize) -> Result<bool, Poisoned>,
    ) -> Result<(), Poisoned> {
        let share = worker.share(self.rows, 1);
        let leads = worker.index() == 0;
        // The moment at which one step ends and the next begins.
        let mut between = Moment::now();
        for (i, planned) in self.plan.steps.iter().enumerate() {
            // SAFETY: each worker runs the plan's steps in their order with its barriers, on its memory.
            let mut at = unsafe { At::new(self, worker, share.clone(), &self.schedules[*schedule]) };
            let step = &planned.step;
            let work =
                if leads && profile::enabled() { (step.flops(), step.bytes(self.rows)) } else { (0, 0) };
            let zone = worker.clock(step.zone(), between).work(work.0, work.1);
            step.run(&mut at);
            if step.is_dynamic() {
                // No worker takes from the other schedule before the next barrier.
                *schedule = 1 - *schedule;
                self.schedules[*schedule].reset(worker.index());
            }
            if planned.barrier {
                barrier(worker)?;
            }
            between = Moment::now();
            zone.end_at(between);
            if stop(i)? {
                break;
            }
        }
        Ok(())
    }
}
