//! Copies the output rows out of all rows, for steps that can't read them in place.

use super::{At, Facts, Step, Walk, Work};
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// Copies of the rows whose output is wanted.
pub struct Select {
    /// Rows of the batch.
    pub x: Buf,
    /// Floats in a row.
    pub width: usize,
    /// Output rows.
    pub out: Buf,
}

impl Step for Select {
    fn facts(&self) -> Facts {
        Facts::by_row(Zone::Elementwise, RowSet::Output, &[self.x], self.out)
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        Work { flops: 0, bytes: 8 * (walk.count(RowSet::Output) * self.width) as u64 }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let out = walk.view(self.out, at.worker);
        walk.runs(self.x, RowSet::Output, at, |rows, x| {
            for r in rows {
                // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes `x`.
                unsafe { out.floats_mut(r, self.width).copy_from_slice(x.floats(r, self.width)) }
            }
        });
    }

    fn text(&self, _: &Names<'_>) -> String {
        format!("rows of {}", self.width)
    }
}
