//! Pooling: for each span the mean of its output rows, which are added in their order.

use super::{At, Facts, Step, Walk, Work};
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// Means of output rows.
pub struct Pool {
    /// Output rows.
    pub x: Buf,
    /// Floats in a row.
    pub width: usize,
    /// A row for each span; zeros for a span without output rows.
    pub out: Buf,
}

impl Step for Pool {
    fn facts(&self) -> Facts {
        Facts::by_row(Zone::Reduce, RowSet::Span, &[self.x], self.out)
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let (rows, spans) = (walk.count(RowSet::Output), walk.count(RowSet::Span));
        let (read, written) = ((rows * self.width) as u64, (spans * self.width) as u64);
        Work { flops: read + written, bytes: 4 * (read + written) }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let (x, out) = (walk.view(self.x, at.worker), walk.view(self.out, at.worker));
        let (outputs, unary) = (walk.batch.outputs, &walk.kernels.unary);
        for span in at.share.clone() {
            let rows = &walk.batch.spans[span].rows;
            let place = |row: usize| outputs.partition_point(|&output| (output as usize) < row);
            let rows = place(rows.start)..place(rows.end);
            // SAFETY: the pass contract: rows of its share are this worker's alone.
            let sum = unsafe { out.floats_mut(span, self.width) };
            sum.fill(0.0);
            for row in rows.clone() {
                // SAFETY: the pass contract: no worker writes `x` during this step.
                unary.add.apply_in_place(sum, unsafe { x.floats(row, self.width) });
            }
            unary.scale.apply_in_place(sum, 1.0 / rows.len().max(1) as f32);
        }
    }

    fn text(&self, _: &Names<'_>) -> String {
        format!("mean of output rows of {}", self.width)
    }
}
