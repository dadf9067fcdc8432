//! Quantises rows for integer products, where the step that computes them can't quantise them itself.

use super::{At, Facts, Step, Walk, Work};
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::ops::rowwise;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// Quantisation of rows.
pub struct Quantize {
    /// Input rows, f32.
    pub x: Buf,
    /// Quantised rows.
    pub out: Buf,
    /// Elements of a row.
    pub width: usize,
    /// Rows of both.
    pub rows: RowSet,
}

impl Step for Quantize {
    fn facts(&self) -> Facts {
        Facts::by_row(Zone::Quantize, self.rows, &[self.x], self.out)
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let elements = (walk.count(self.rows) * self.width) as u64;
        Work { flops: 3 * elements, bytes: 6 * elements }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let (x, out) = (walk.view(self.x, at.worker), walk.view(self.out, at.worker));
        // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes `x`.
        unsafe { rowwise::quantize(walk.kernels, at.share.clone(), x, self.width, out) }
    }

    fn text(&self, _: &Names<'_>) -> String {
        format!("rows of {}", self.width)
    }
}
