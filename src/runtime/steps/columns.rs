//! Copies some columns of rows, for steps that can't read them in place.

use super::{At, Facts, Step, Walk, Work};
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// Copies of columns.
pub struct Columns {
    /// Input rows, f32.
    pub x: Buf,
    /// The first column.
    pub begin: usize,
    /// Number of columns.
    pub width: usize,
    /// Output rows.
    pub out: Buf,
    /// Rows of both.
    pub rows: RowSet,
}

impl Step for Columns {
    fn facts(&self) -> Facts {
        Facts::by_row(Zone::Elementwise, self.rows, &[self.x], self.out)
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        Work { flops: 0, bytes: 8 * (walk.count(self.rows) * self.width) as u64 }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let (x, out) = (walk.view(self.x, at.worker), walk.view(self.out, at.worker));
        for r in at.share.clone() {
            // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes `x`. The builder
            // has checked that the columns lie within the rows.
            unsafe {
                let from = x.floats(r, self.begin + self.width);
                out.floats_mut(r, self.width).copy_from_slice(&from[self.begin..]);
            }
        }
    }

    fn text(&self, _: &Names<'_>) -> String {
        format!("columns {} to {}", self.begin, self.begin + self.width - 1)
    }
}
