//! Normalises rows, and quantises them in the same step where only products read them.

use super::{At, Facts, Step, Walk, Work};
use crate::model::graph::{Norm, RowSet};
use crate::model::text::Names;
use crate::ops::rowwise;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// A norm of rows.
pub struct Normalize {
    /// Input rows.
    pub x: Buf,
    /// The norm.
    pub norm: Norm,
    /// Floats in a row.
    pub width: usize,
    /// Normalised rows: f32, or quantised.
    pub out: Buf,
    /// Whether `out` has quantised rows; only for RMSNorm.
    pub quantized: bool,
    /// Rows of `out`.
    pub rows: RowSet,
}

impl Step for Normalize {
    fn facts(&self) -> Facts {
        let zone = match self.norm {
            Norm::Rms { .. } => Zone::RmsNorm,
            Norm::Layer { .. } => Zone::LayerNorm,
        };
        Facts::by_row(zone, self.rows, &[self.x], self.out)
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let elements = (walk.count(self.rows) * self.width) as u64;
        match (self.norm, self.quantized) {
            (Norm::Layer { .. }, _) => Work { flops: 8 * elements, bytes: 8 * elements },
            (Norm::Rms { .. }, false) => Work { flops: 4 * elements, bytes: 8 * elements },
            (Norm::Rms { .. }, true) => Work { flops: 7 * elements, bytes: 6 * elements },
        }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let (kernels, weights) = (walk.kernels, walk.weights);
        let out = walk.view(self.out, at.worker);
        walk.runs(self.x, self.rows, at, |rows, x| {
            // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes `x`.
            unsafe {
                match (self.norm, self.quantized) {
                    (Norm::Rms { gain, eps }, true) => {
                        rowwise::norm_quantize(kernels, rows, x, weights.vector(gain), eps, out);
                    }
                    (Norm::Rms { gain, eps }, false) => {
                        rowwise::rms_norm(kernels, rows, x, weights.vector(gain), eps, out);
                    }
                    (Norm::Layer { gain, bias, eps }, _) => {
                        let affine = (weights.vector(gain), weights.vector(bias));
                        rowwise::layer_norm(kernels, rows, x, affine, eps, out);
                    }
                }
            }
        });
    }

    fn text(&self, names: &Names<'_>) -> String {
        let quantized = if self.quantized { ", quantised" } else { "" };
        format!("{}{quantized}", names.norm(&self.norm))
    }
}
