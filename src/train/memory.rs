//! The memory of a trainer: what it will take, before it is reserved, and the buffers themselves.

use super::parameters::Parameters;
use super::plan::{Layout, Plan, WHAT};
use super::walk::Rotation;
use crate::error::{Error, Result};
use crate::kernels::KernelSet;
use crate::kernels::backward::NORM_BLOCK;
use crate::memory::reserve::filled;
use crate::memory::{AlignedBuf, checked_bytes};

/// Bytes that a trainer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrainMemory {
    /// Weights in f32.
    pub weights: usize,
    /// Their gradients.
    pub gradients: usize,
    /// The optimizer's moments.
    pub moments: usize,
    /// Activations and their gradients, in one arena.
    pub arena: usize,
    /// Scratch memory of workers, and tables.
    pub scratch: usize,
    /// All of it.
    pub total: usize,
}

/// The parts of a trainer's memory, in floats but for the arena.
pub(super) struct Sizes {
    pub layouts: [Layout; 2],
    pub arena: usize,
    /// Scratch memory of one worker.
    pub scratch: usize,
    pub blocks: usize,
}

impl Sizes {
    /// The sizes for two plans that share an arena.
    pub fn new(
        plans: [&Plan; 2],
        parameters: &Parameters,
        kernels: &KernelSet,
        workers: usize,
    ) -> Result<Sizes> {
        let layouts = [plans[0].layout()?, plans[1].layout()?];
        let mut scratch = 0;
        for planned in plans.iter().flat_map(|plan| &plan.steps) {
            scratch = planned.step.scratch(kernels, workers)?.max(scratch);
        }
        // Whole cache lines, so that workers don't share one.
        let scratch = scratch.checked_next_multiple_of(16).ok_or_else(too_large)?;
        let arena = layouts[0].total.max(layouts[1].total);
        Ok(Sizes { layouts, arena, scratch, blocks: parameters.trained.div_ceil(NORM_BLOCK) })
    }

    /// All bytes of a trainer with so many moments for each number, for micro-batches of `rows` and rotary tables of
    /// `ropes` bytes.
    pub fn bytes(
        &self,
        parameters: &Parameters,
        moments: usize,
        (rows, ropes): (usize, usize),
        workers: usize,
    ) -> Result<TrainMemory> {
        let floats = |count: usize| checked_bytes(count, size_of::<f32>(), WHAT);
        let (weights, gradients) = (floats(parameters.total)?, floats(parameters.trained)?);
        let moments = gradients.checked_mul(moments).ok_or_else(too_large)?;
        let tables = [checked_bytes(rows, 8, WHAT)?, checked_bytes(self.blocks, 8, WHAT)?, ropes];
        let scratch = floats(self.scratch.checked_mul(workers).ok_or_else(too_large)?)?;
        let add = |sum: Option<usize>, x: &usize| sum.and_then(|sum| sum.checked_add(*x));
        let scratch = tables.iter().fold(Some(scratch), add).ok_or_else(too_large)?;
        let parts = [weights, gradients, moments, self.arena, scratch];
        let total = parts.iter().fold(Some(0), add).ok_or_else(too_large)?;
        Ok(TrainMemory { weights, gradients, moments, arena: self.arena, scratch, total })
    }
}

fn too_large() -> Error {
    Error::OutOfMemory { bytes: usize::MAX, what: WHAT }
}

/// The buffers of a trainer, besides its weights.
pub(super) struct Memory {
    pub gradients: AlignedBuf,
    /// What the optimizer keeps of earlier steps; one that it doesn't need is empty.
    pub moments: [AlignedBuf; 2],
    pub arena: AlignedBuf,
    pub scratch: AlignedBuf,
    /// The loss of each row of a micro-batch.
    pub losses: Vec<f32>,
    /// Sums of squares of gradients.
    pub squares: Vec<f64>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    pub rotations: Vec<Rotation>,
}

impl Memory {
    pub fn new(
        sizes: &Sizes,
        parameters: &Parameters,
        count: usize,
        (rows, context): (usize, usize),
        rotations: Vec<Rotation>,
        workers: usize,
    ) -> Result<Memory> {
        let scratch = checked_bytes(sizes.scratch * size_of::<f32>(), workers, WHAT)?;
        let mut positions = filled(0, rows, WHAT)?;
        positions.iter_mut().enumerate().for_each(|(row, position)| *position = (row % context) as u32);
        let moments = |i: usize| parameters.zeros(if i < count { parameters.trained } else { 0 }, "moments");
        Ok(Memory {
            gradients: parameters.zeros(parameters.trained, "gradients")?,
            moments: [moments(0)?, moments(1)?],
            arena: AlignedBuf::zeroed(sizes.arena, "activations")?,
            scratch: AlignedBuf::zeroed(scratch, "scratch")?,
            losses: filled(0.0, rows, WHAT)?,
            squares: filled(0.0, sizes.blocks, WHAT)?,
            positions,
            rotations,
        })
    }
}
