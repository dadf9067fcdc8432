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
    /// Number of columns, of each head where there are several.
    pub width: usize,
    /// Heads of which columns are copied.
    pub heads: usize,
    /// Columns from one head to the next.
    pub every: usize,
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
        Work { flops: 0, bytes: 8 * (walk.count(self.rows) * self.heads * self.width) as u64 }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let (x, out) = (walk.view(self.x, at.worker), walk.view(self.out, at.worker));
        for r in at.share.clone() {
            // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes `x`. The builder
            // has checked that the columns lie within the rows.
            unsafe {
                let from = x.floats(r, self.begin + (self.heads - 1) * self.every + self.width);
                let to = out.floats_mut(r, self.heads * self.width).chunks_exact_mut(self.width);
                for (head, to) in to.enumerate() {
                    to.copy_from_slice(&from[self.begin + head * self.every..][..self.width]);
                }
            }
        }
    }

    fn text(&self, _: &Names<'_>) -> String {
        let of = if self.heads == 1 { String::new() } else { format!(" of each {}", self.every) };
        format!("columns {} to {}{of}", self.begin, self.begin + self.width - 1)
    }
}
