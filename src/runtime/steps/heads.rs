//! Work on heads of queries, keys and values after their product: a norm of each head, its rotation, and storing keys
//! and values in the cache. It is no step of its own: the worker that computed the columns of a head does it.

use std::ops::Range;

use super::Walk;
use crate::kernels::rope::Pairing;
use crate::kv::LayerId;
use crate::model::VectorId;
use crate::model::graph::RopeId;
use crate::model::text::Names;
use crate::ops::attention::{self, HeadShape, SpanRows};
use crate::ops::{Rows, rowwise};
use crate::profile::{Tally, Zone};
use crate::threads::Worker;

/// A piece of work on each head of queries, keys or values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HeadOp {
    /// Root mean square norm: its gain and its epsilon.
    Norm(VectorId, f32),
    /// Rotation.
    Rope(RopeId, Pairing),
}

/// The work on heads of one kind, in order.
pub type HeadWork = Vec<HeadOp>;

/// The work on rows of heads: queries, then keys, then values.
#[derive(Clone, Debug)]
pub struct HeadsDone {
    /// The division of rows into heads.
    pub shape: HeadShape,
    /// Work on heads of queries, of keys, of values.
    pub work: [HeadWork; 3],
    /// Whether queries and keys have the same work, so that it is done for both at once.
    pub alike: bool,
    /// The layer of the cache that attention reads.
    pub layer: LayerId,
    /// Whether keys and values are stored in it; otherwise the rows have queries only.
    pub stores: bool,
}

/// Clocks of the three kinds of work.
pub struct Clocks {
    norm: Tally,
    rope: Tally,
    store: Tally,
}

/// The intersection of two ranges.
fn both(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

impl HeadsDone {
    /// The worker's clocks for one step.
    pub fn clocks(&self, walk: &Walk<'_>, worker: &Worker<'_>) -> Clocks {
        let clock = |zone| walk.tally(worker, zone);
        Clocks { norm: clock(Zone::RmsNorm), rope: clock(Zone::Rope), store: clock(Zone::KvStore) }
    }

    /// Does all work on some heads of some rows.
    ///
    /// # Safety
    /// No other worker uses these heads of these rows, or their places in the cache, before the next barrier.
    pub unsafe fn finish(
        &self,
        walk: &Walk<'_>,
        qkv: Rows,
        rows: Range<usize>,
        heads: Range<usize>,
        clocks: &Clocks,
    ) {
        let HeadShape { n_head, n_head_kv, .. } = self.shape;
        let (queries, keys) = (0..n_head, n_head..n_head + n_head_kv);
        let values = keys.end..keys.end + n_head_kv;
        let [q, k, v] = &self.work;
        // SAFETY: all heads are among those that the caller promises this worker alone uses.
        unsafe {
            if self.alike {
                self.prepare(walk, qkv, &rows, both(&heads, &(0..keys.end)), q, clocks);
            } else {
                self.prepare(walk, qkv, &rows, both(&heads, &queries), q, clocks);
                self.prepare(walk, qkv, &rows, both(&heads, &keys), k, clocks);
            }
            self.prepare(walk, qkv, &rows, both(&heads, &values), v, clocks);
            let from = |all: Range<usize>| {
                let heads = both(&heads, &all);
                heads.start - all.start..heads.end - all.start
            };
            self.store(walk, qkv, rows, (from(keys), from(values)), &clocks.store);
        }
    }

    /// Normalises and rotates some heads.
    ///
    /// # Safety
    /// As [`HeadsDone::finish`].
    unsafe fn prepare(
        &self,
        walk: &Walk<'_>,
        qkv: Rows,
        rows: &Range<usize>,
        heads: Range<usize>,
        work: &[HeadOp],
        clocks: &Clocks,
    ) {
        if heads.is_empty() {
            return;
        }
        let (head_dim, count) = (self.shape.head_dim, rows.len() * heads.len());
        for op in work {
            let (rows, heads) = (rows.clone(), heads.clone());
            match *op {
                HeadOp::Norm(gain, eps) => {
                    let (elements, gain) = ((count * head_dim) as u64, walk.weights.vector(gain));
                    // SAFETY: the caller promises that only this worker uses these heads of these rows.
                    clocks.norm.piece(4 * elements, 8 * elements, || unsafe {
                        let norm = rowwise::Norm { gain, bias: None, eps };
                        rowwise::norm(walk.kernels, rows, (qkv, qkv), (heads, head_dim), norm);
                    });
                }
                HeadOp::Rope(rope, pairing) => {
                    let angles = walk.ropes[rope.0 as usize].angles();
                    let elements = (count * angles.rot_dim()) as u64;
                    let (kernel, positions) = (walk.kernels.rope.of(pairing), walk.batch.positions);
                    // SAFETY: the caller promises that only this worker uses these heads of these rows; the table has
                    // an entry for each position of a context.
                    clocks.rope.piece(3 * elements, 8 * elements, || unsafe {
                        rowwise::rope(kernel, rows, qkv, heads, head_dim, angles, positions);
                    });
                }
            }
        }
    }

    /// Stores some heads of keys and values in the cache.
    ///
    /// # Safety
    /// As [`HeadsDone::finish`].
    unsafe fn store(
        &self,
        walk: &Walk<'_>,
        qkv: Rows,
        rows: Range<usize>,
        (key_heads, value_heads): (Range<usize>, Range<usize>),
        clock: &Tally,
    ) {
        if key_heads.is_empty() && value_heads.is_empty() {
            return;
        }
        let elements = rows.len() * (key_heads.len() + value_heads.len()) * self.shape.head_dim;
        let store = || {
            for (i, span) in walk.batch.spans.iter().enumerate() {
                let own = both(&rows, &span.rows);
                if own.is_empty() {
                    continue;
                }
                let (cache, heads) = (walk.layer(self.layer, i), (key_heads.clone(), value_heads.clone()));
                let position = span.position + own.start - span.rows.start;
                // SAFETY: the caller promises that only this worker uses these heads of these rows and their places in
                // the cache; the engine has reserved pages for the positions.
                unsafe {
                    let own = SpanRows { rows: own, position };
                    attention::store(walk.attention, &cache, &own, qkv, &self.shape, heads);
                }
            }
        };
        clock.piece(0, 8 * elements as u64, store);
    }

    /// The text in a plan's text.
    pub fn text(&self, names: &Names<'_>) -> String {
        let op = |op: &HeadOp| match *op {
            HeadOp::Norm(gain, eps) => format!("norm by {}, eps {eps:e}", names.vector(gain)),
            HeadOp::Rope(rope, _) => format!("rope {}", rope.0),
        };
        let [q, k, v] = &self.work;
        let q: Vec<_> = q.iter().map(op).collect();
        if !self.stores {
            return format!("q: {}", q.join(", "));
        }
        let stored =
            |work: &HeadWork| work.iter().map(op).chain(["store".into()]).collect::<Vec<_>>().join(", ");
        let q = if q.is_empty() { String::new() } else { format!("q: {}\n", q.join(", ")) };
        format!("{q}k: {}\nv: {}", stored(k), stored(v))
    }
}
