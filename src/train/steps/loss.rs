//! The loss: cross-entropy of the logits' softmax with the targets, a run of rows at a time, so that the logits of all
//! rows never stand in memory together.

use std::ops::Range;

use super::{At, Step, bytes_of};
use crate::kernels::backward::CrossEntropyArgs;
use crate::profile::Zone;
use crate::threads::share;
use crate::train::plan::View;

/// Losses of some rows; their logits, which stand in a view's first rows, become the gradient of the mean loss.
pub struct CrossEntropy {
    pub logits: View,
    pub rows: Range<usize>,
    /// Whether the logits become gradients.
    pub backward: bool,
}

impl Step for CrossEntropy {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let own = share(self.rows.len(), 1, at.worker.index(), at.worker.count());
        if own.is_empty() {
            return;
        }
        let row = self.rows.start + own.start;
        let args = CrossEntropyArgs {
            logits: walk.row(self.logits, own.start),
            stride: walk.stride(self.logits),
            rows: own.len(),
            cols: self.logits.width,
            targets: walk.targets[row..].as_ptr(),
            scale: walk.scale,
            losses: walk.losses(row),
            gradient: self.backward,
        };
        // SAFETY: the view has these rows, which are this worker's, as are their losses; targets were checked to be columns.
        unsafe { walk.kernels.backward.cross_entropy.run(&args) }
    }

    fn zone(&self) -> Zone {
        Zone::Loss
    }

    fn bytes(&self, _: usize) -> u64 {
        bytes_of(self.rows.len(), &[self.logits.width * if self.backward { 2 } else { 1 }])
    }
}
