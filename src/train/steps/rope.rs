//! Rotary positions in place: a rotation forward, and the rotation back of its gradient.

use super::{At, Step, bytes_of};
use crate::kernels::rope::RopeArgs;
use crate::profile::Zone;
use crate::train::plan::View;

/// Each head of `x` rotated by its row's position.
pub struct Rotate {
    pub x: View,
    pub head_dim: usize,
    /// The rotary table.
    pub table: usize,
    /// The other way round.
    pub back: bool,
}

impl Step for Rotate {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let rotation = &walk.rotations[self.table];
        let args = RopeArgs {
            x: walk.row(self.x, at.share.start),
            stride: walk.stride(self.x),
            positions: walk.positions[at.share.clone()].as_ptr(),
            tokens: at.share.len(),
            n_head: self.x.width / self.head_dim,
            head_dim: self.head_dim,
        };
        // SAFETY: the view has these rows and columns, which are this worker's, and the table the positions of a context.
        unsafe { walk.kernels.rope.of(rotation.pairing).run(rotation.angles(self.back), &args) }
    }

    fn zone(&self) -> Zone {
        Zone::Rope
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[2 * self.x.width])
    }
}
