//! Attention of each span over its sequence's cache: softmax(scale · Q·Kᵀ) · V for each head.

use super::{At, Facts, Scratch, Step, Walk, Work};
use crate::error::Result;
use crate::kernels::attention::ScoreOptions;
use crate::kv::LayerId;
use crate::model::VectorId;
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::ops::attention::{self, HeadShape};
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// Attention of one layer.
pub struct Attend {
    /// Rows of queries, then keys and values.
    pub qkv: Buf,
    /// Output rows: the heads one after the other.
    pub out: Buf,
    /// The division of rows into heads.
    pub shape: HeadShape,
    /// The layer's keys and values.
    pub layer: LayerId,
    /// The positions that rows see: number of one of the plan's masks.
    pub mask: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// Soft-cap of the scores.
    pub soft_cap: Option<f32>,
    /// A slope for each query head (ALiBi).
    pub slopes: Option<Vec<f32>>,
    /// A sink for each query head.
    pub sinks: Option<VectorId>,
}

impl Step for Attend {
    fn facts(&self) -> Facts {
        let cache = Some((self.layer, false));
        Facts { reads: vec![self.qkv], cache, ..Facts::dynamic(Zone::Attention, RowSet::Batch, self.out) }
    }

    fn scratch(&self, scratch: &Scratch<'_>) -> Result<usize> {
        attention::scratch_len(scratch.attention, &self.shape)
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let (sight, group) = (&walk.batch.sights[self.mask], walk.cache.group(self.layer));
        let start = |row: usize| sight.starts.get(row).map_or(0, |&start| u64::from(start));
        let rows = walk.count(RowSet::Batch);
        let seen: u64 = (0..rows).map(|row| u64::from(sight.limits[row]) - start(row)).sum();
        // Each key and value that some row of a span sees is read once.
        let positions = walk.batch.spans.iter().filter(|span| !span.rows.is_empty());
        let positions: u64 =
            positions.map(|span| u64::from(sight.limits[span.rows.end - 1]) - start(span.rows.start)).sum();
        let width = (self.shape.n_head * self.shape.head_dim) as u64;
        let position = (group.n_head_kv * group.layout.position_bytes()) as u64;
        Work { flops: 4 * seen * width, bytes: positions * position + 8 * rows as u64 * width }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let sight = &walk.batch.sights[self.mask];
        let args = attention::Args {
            qkv: walk.view(self.qkv, at.worker),
            out: walk.view(self.out, at.worker),
            spans: walk.batch.spans,
            cache: |span| walk.layer(self.layer, span),
            shape: self.shape,
            limits: &sight.limits,
            starts: (!sight.starts.is_empty()).then_some(&sight.starts[..]),
            scale: self.scale,
            scores: ScoreOptions {
                soft_cap: self.soft_cap.unwrap_or(0.0),
                slopes: self.slopes.as_deref(),
                sinks: self.sinks.map(|sinks| walk.weights.vector(sinks)),
            },
            parts: walk.parts,
        };
        let scratch = walk.scratch(at.worker);
        // SAFETY: the pass contract: queries and caches were written before a barrier, and each worker takes other
        // results from the counter; the pass reserved scratch memory and parts for this shape.
        unsafe { attention::run(walk.attention, at.worker, &at.schedule.counter, &args, scratch) }
    }

    fn text(&self, names: &Names<'_>) -> String {
        let HeadShape { n_head, n_head_kv, head_dim } = self.shape;
        let Attend { mask, scale, .. } = self;
        let cap = self.soft_cap.map_or(String::new(), |cap| format!(", soft-cap at {cap}"));
        let slopes = if self.slopes.is_some() { ", slopes of heads" } else { "" };
        let sinks = self.sinks.map_or(String::new(), |sinks| format!(", sinks {}", names.vector(sinks)));
        let heads = format!("{n_head} heads on {n_head_kv} key/value heads of {head_dim}");
        format!("{heads}, mask {mask}, scale {scale}{cap}{slopes}{sinks}")
    }
}
