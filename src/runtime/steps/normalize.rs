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
    /// Elements of a head, where each head of a row is normalised by itself.
    pub head_dim: Option<usize>,
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
            let (gain, bias, eps) = match self.norm {
                Norm::Rms { gain, eps } => (weights.vector(gain), None, eps),
                Norm::Layer { gain, bias, eps } => (weights.vector(gain), Some(weights.vector(bias)), eps),
            };
            let head_dim = self.head_dim.unwrap_or(self.width);
            let heads = (0..self.width / head_dim, head_dim);
            // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes `x`.
            unsafe {
                match self.quantized {
                    true => rowwise::norm_quantize(kernels, rows, x, gain, eps, out),
                    false => rowwise::norm(kernels, rows, (x, out), heads, rowwise::Norm { gain, bias, eps }),
                }
            }
        });
    }

    fn text(&self, names: &Names<'_>) -> String {
        let quantized = if self.quantized { ", quantised" } else { "" };
        let heads = self.head_dim.map_or(String::new(), |head_dim| format!("heads of {head_dim}, "));
        format!("{heads}{}{quantized}", names.norm(&self.norm))
    }
}
