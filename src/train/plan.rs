//! The plan of a training step: forward and backward steps on buffers, made by lowering a graph. Lifetimes of buffers
//! give the layout of one arena, and barriers stand where workers may meet.

use super::steps::Step;
use crate::error::{Error, Result};
use crate::memory::reserve::{filled, reserve};
use crate::memory::{ArenaPlan, checked_bytes};
use crate::model::graph::Value;

/// The purpose of the memory, in errors.
pub(super) const WHAT: &str = "a plan of training";

/// A buffer of a plan: index into [`Plan::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buf(u32);

impl Buf {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Columns of a buffer's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub buf: Buf,
    /// The first column.
    pub column: usize,
    /// Number of columns.
    pub width: usize,
}

impl View {
    /// Some of the view's columns.
    pub fn columns(self, first: usize, width: usize) -> View {
        debug_assert!(first + width <= self.width);
        View { column: self.column + first, width, ..self }
    }

    /// Whether the views have a column in common.
    pub fn overlaps(self, other: View) -> bool {
        self.buf == other.buf
            && self.column < other.column + other.width
            && other.column < self.column + self.width
    }
}

/// Shape and lifetime of a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct BufSpec {
    pub rows: usize,
    /// Floats between rows.
    pub stride: usize,
    /// First step that writes it.
    pub first: usize,
    /// Last step that uses it.
    pub last: usize,
}

/// A step in its place.
pub(super) struct Planned {
    pub step: Box<dyn Step>,
    /// The node whose value or gradient it computes.
    pub node: Value,
    /// Columns whose numbers tell whether a forward step went wrong.
    pub result: Option<View>,
    /// Whether each worker touches its own share of the batch's rows alone.
    pub by_row: bool,
    /// Whether a barrier follows.
    pub barrier: bool,
}

/// A forward pass with losses, and the backward pass behind it unless the plan is for validation.
#[derive(Default)]
pub(super) struct Plan {
    pub steps: Vec<Planned>,
    pub buffers: Vec<BufSpec>,
}

/// The offset of each buffer in the arena, and the arena's size, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub offsets: Vec<usize>,
    pub total: usize,
}

impl Plan {
    /// A buffer that the next step writes first.
    pub fn buffer(&mut self, rows: usize, width: usize) -> Result<View> {
        let stride = width.checked_next_multiple_of(16).ok_or_else(too_large)?;
        let step = self.steps.len();
        reserve(&mut self.buffers, 1, WHAT)?;
        self.buffers.push(BufSpec { rows, stride, first: step, last: step });
        Ok(View { buf: Buf(self.buffers.len() as u32 - 1), column: 0, width })
    }

    /// Appends a step that uses these columns.
    pub fn push(&mut self, planned: Planned, uses: &[View]) -> Result<()> {
        reserve(&mut self.steps, 1, WHAT)?;
        let index = self.steps.len();
        for view in uses {
            self.buffers[view.buf.index()].last = index;
        }
        self.steps.push(planned);
        Ok(())
    }

    /// Places barriers behind all steps but those that, like the next one, work on the worker's own rows; then extends
    /// the lifetimes of buffers to whole runs between barriers, since within a run workers are at different steps.
    pub fn place_barriers(&mut self) -> Result<()> {
        let by_row = |i: usize, steps: &[Planned]| steps.get(i).is_some_and(|planned| planned.by_row);
        for i in 0..self.steps.len() {
            self.steps[i].barrier = !(by_row(i, &self.steps) && by_row(i + 1, &self.steps));
        }
        let mut runs = filled((0, 0), self.steps.len(), WHAT)?;
        let mut begin = 0;
        for (i, planned) in self.steps.iter().enumerate() {
            if planned.barrier {
                runs[begin..=i].fill((begin, i));
                begin = i + 1;
            }
        }
        for spec in &mut self.buffers {
            (spec.first, spec.last) = (runs[spec.first].0, runs[spec.last].1);
        }
        Ok(())
    }

    /// Computes the places of the buffers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the sizes overflow.
    pub fn layout(&self) -> Result<Layout> {
        let mut arena = ArenaPlan::new();
        for spec in &self.buffers {
            let row = checked_bytes(spec.stride, size_of::<f32>(), WHAT)?;
            arena.buffer(checked_bytes(row, spec.rows, WHAT)?, spec.first, spec.last);
        }
        let layout = arena.layout()?;
        Ok(Layout { offsets: layout.offsets, total: layout.total })
    }

    /// Floating-point operations of all products and of attention, a multiply-add being two.
    pub fn flops(&self) -> u64 {
        self.steps.iter().map(|planned| planned.step.flops()).fold(0, u64::saturating_add)
    }
}

fn too_large() -> Error {
    Error::OutOfMemory { bytes: usize::MAX, what: WHAT }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Zone;
    use crate::train::steps::At;

    struct Nothing;

    impl Step for Nothing {
        fn run(&self, _: &mut At<'_>) {}

        fn zone(&self) -> Zone {
            Zone::Other
        }

        fn bytes(&self, _: usize) -> u64 {
            0
        }
    }

    #[test]
    fn lifetimes_reach_over_runs_without_barriers() {
        let mut plan = Plan::default();
        let mut last = None;
        for (i, by_row) in [false, true, true, true, false, true].into_iter().enumerate() {
            let view = plan.buffer(4, 5).unwrap();
            let planned = Planned {
                step: Box::new(Nothing),
                node: Value(i as u32),
                result: None,
                by_row,
                barrier: false,
            };
            let uses: Vec<View> = last.into_iter().chain([view]).collect();
            plan.push(planned, &uses).unwrap();
            last = Some(view);
        }
        plan.place_barriers().unwrap();
        let barriers: Vec<bool> = plan.steps.iter().map(|planned| planned.barrier).collect();
        assert_eq!(barriers, [true, false, false, true, true, true]);
        let lives: Vec<_> = plan.buffers.iter().map(|spec| (spec.first, spec.last)).collect();
        assert_eq!(lives, [(0, 3), (1, 3), (1, 3), (1, 4), (4, 5), (5, 5)]);
        let layout = plan.layout().unwrap();
        assert!(layout.total >= 4 * 64 * 4 && layout.offsets.len() == 6);
    }

    #[test]
    fn views_know_their_columns() {
        let mut plan = Plan::default();
        let whole = plan.buffer(1, 12).unwrap();
        let (left, right) = (whole.columns(0, 4), whole.columns(4, 8));
        assert!(whole.overlaps(left) && whole.overlaps(right) && !left.overlaps(right));
        assert_eq!(right.columns(2, 3).column, 6);
        assert!(!whole.overlaps(plan.buffer(1, 12).unwrap()));
        assert!(plan.buffer(1, usize::MAX).is_err());
    }
}
