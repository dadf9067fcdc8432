//! Pooling: for each span its first output row, its last, or the mean of them, which are added in their order.

use super::{At, Facts, Step, Walk, Work};
use crate::model::Pooling;
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// One row for the output rows of each span.
pub struct Pool {
    /// Output rows.
    pub x: Buf,
    /// The row that is made of them.
    pub pooling: Pooling,
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
            // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes `x` during this step.
            let (row, x) = unsafe { (out.floats_mut(span, self.width), |row| x.floats(row, self.width)) };
            match self.pooling {
                _ if rows.is_empty() => row.fill(0.0),
                Pooling::Cls => row.copy_from_slice(x(rows.start)),
                Pooling::Last => row.copy_from_slice(x(rows.end - 1)),
                Pooling::Mean | Pooling::Rank => {
                    row.fill(0.0);
                    rows.clone().for_each(|i| unary.add.apply_in_place(row, x(i)));
                    unary.scale.apply_in_place(row, 1.0 / rows.len() as f32);
                }
            }
        }
    }

    fn text(&self, _: &Names<'_>) -> String {
        format!("{} of output rows of {}", self.pooling.name(), self.width)
    }
}
