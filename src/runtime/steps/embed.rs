//! The first step: `out[r] = table[token of r] (+ positions[position of r])`.

use super::{At, Facts, Step, Walk, Work};
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::model::{TableId, VectorId};
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// Embeddings of the tokens.
pub struct Embed {
    /// The table with a row for each token.
    pub table: TableId,
    /// The table with a row for each learned position.
    pub positions: Option<VectorId>,
    /// Floats in a row.
    pub width: usize,
    /// Output rows.
    pub out: Buf,
}

impl Step for Embed {
    fn facts(&self) -> Facts {
        Facts::by_row(Zone::Embed, RowSet::Batch, &[], self.out)
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let elements = (walk.count(RowSet::Batch) * self.width) as u64;
        match self.positions {
            Some(_) => Work { flops: elements, bytes: 12 * elements },
            None => Work { flops: 0, bytes: 8 * elements },
        }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let out = walk.view(self.out, at.worker);
        for r in at.share.clone() {
            // SAFETY: the pass contract: rows of its share are this worker's alone.
            let row = unsafe { out.floats_mut(r, self.width) };
            let token = walk.batch.tokens[r] as usize;
            // The engine checked the token, the graph the table's shape.
            walk.weights.table_row(self.table, token, row).expect("a row of the embedding");
            if let Some(positions) = self.positions {
                let position = walk.batch.positions[r] as usize;
                // A sequence has no more positions than the table has rows.
                let position = walk.weights.vector_row(positions, position).expect("a learned position");
                walk.kernels.unary.add.apply_in_place(row, position);
            }
        }
    }

    fn text(&self, names: &Names<'_>) -> String {
        let positions = self.positions.map_or(String::new(), |id| format!(" + {}", names.positions(id)));
        format!("{}{positions}", names.table(self.table))
    }
}
