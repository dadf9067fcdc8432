//! Queries, keys and values that are no plain products of one step: their rows are copied side by side, then the work
//! on heads is done as after a product.

use super::heads::HeadsDone;
use super::recurrent::HeadColumns;
use super::{At, Facts, Step, Walk, Work};
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::ops::attention::HeadShape;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// Rows of heads, gathered from up to three buffers.
pub struct Gather {
    /// The columns of queries, keys and values.
    pub from: [HeadColumns; 3],
    /// Rows of queries, then keys and values.
    pub out: Buf,
    /// The work on heads.
    pub heads: HeadsDone,
}

impl Gather {
    /// Columns of queries, keys and values.
    fn widths(&self) -> [usize; 3] {
        let HeadShape { n_head, n_head_kv, head_dim } = self.heads.shape;
        [n_head, n_head_kv, n_head_kv].map(|heads| heads * head_dim)
    }
}

impl Step for Gather {
    fn facts(&self) -> Facts {
        let reads = self.from.map(|from| from.first.buf);
        let cache = Some((self.heads.layer, true));
        Facts { cache, ..Facts::by_row(Zone::Elementwise, RowSet::Batch, &reads, self.out) }
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let elements = walk.count(RowSet::Batch) * self.widths().iter().sum::<usize>();
        Work { flops: 0, bytes: 8 * elements as u64 }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let out = walk.view(self.out, at.worker);
        let HeadShape { n_head, n_head_kv, .. } = self.heads.shape;
        let mut column = 0;
        for (from, width) in self.from.into_iter().zip(self.widths()) {
            let x = walk.view(from.first.buf, at.worker);
            for r in at.share.clone() {
                let (x, out) = (x.row_f32(r), out.row_f32(r).wrapping_add(column));
                from.each(width, |begin, at| {
                    let (x, out) = (x.wrapping_add(begin), out.wrapping_add(at));
                    // SAFETY: the pass contract: rows of its share are this worker's alone, and no worker writes `x`.
                    // Lowering has checked that these columns lie within the rows.
                    unsafe { out.copy_from_nonoverlapping(x, from.width) }
                });
            }
            column += width;
        }
        let clocks = self.heads.clocks(walk, at.worker);
        let heads = 0..n_head + 2 * n_head_kv;
        if !at.share.is_empty() {
            // SAFETY: the pass contract: the rows, and with them their positions in the cache, are this worker's alone.
            unsafe { self.heads.finish(walk, out, at.share.clone(), heads, &clocks) }
        }
    }

    fn text(&self, names: &Names<'_>) -> String {
        self.heads.text(names)
    }
}
