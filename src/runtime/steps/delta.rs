//! The gated delta rule over the tokens of a sequence: each head has a state that maps keys to values.

use super::recurrent::{Columns, StatePlace, rows_mut, share};
use super::{At, Facts, Step, Walk, Work};
use crate::kernels::recurrence::DeltaArgs;
use crate::model::graph::{self, RowSet};
use crate::model::text::Names;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// The gated delta rule of one layer.
pub struct Delta {
    /// Its weights and sizes.
    pub delta: graph::Delta,
    /// Queries, keys and values side by side.
    pub qkv: Columns,
    /// A number for each head, which becomes its decay.
    pub alpha: Columns,
    /// A number for each head, which becomes the share by which it writes.
    pub beta: Columns,
    /// Heads whose gates adjoin, and columns from one such run to the next.
    pub runs: [usize; 2],
    /// Output rows.
    pub out: Buf,
    /// A row of values for each element of a key, of each head.
    pub state: StatePlace,
}

impl Step for Delta {
    fn facts(&self) -> Facts {
        let reads = [self.qkv, self.alpha, self.beta].map(|columns| columns.buf).to_vec();
        Facts { reads, ..Facts::dynamic(Zone::DeltaRule, RowSet::Batch, self.out) }
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let shape = &self.delta.shape;
        let values = shape.heads * shape.d_v;
        // What the state has for a key, its decay and change, what it has for a query.
        let flops = 7 * values * shape.d_k;
        let floats = shape.width() + 2 * shape.heads + values;
        self.state.work(walk, (walk.count(RowSet::Batch), floats, flops))
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let (shape, [run, step]) = (self.delta.shape, self.runs);
        let vector = |id| walk.weights.vector(id).as_ptr();
        let (a, dt_bias) = (vector(self.delta.a), vector(self.delta.dt_bias));
        share(walk, at, (shape.heads, 1), |i, heads| {
            let span = &walk.batch.spans[i].rows;
            let rows = |columns: Columns| columns.rows(walk, at.worker, span.start);
            let [q, k, v] =
                shape.begins().map(|begin| rows(Columns { begin: self.qkv.begin + begin, ..self.qkv }));
            let args = DeltaArgs {
                q,
                k,
                v,
                alpha: rows(self.alpha),
                beta: rows(self.beta),
                run,
                step,
                a,
                dt_bias,
                state: self.state.of(walk, i),
                y: rows_mut(walk, at.worker, self.out, span.start),
                tokens: span.len(),
                d_k: shape.d_k,
                d_v: shape.d_v,
                keys: shape.keys,
                begin: heads.start,
                end: heads.end,
                scale: 1.0 / (shape.d_k as f32).sqrt(),
                eps: self.delta.eps,
            };
            // SAFETY: the pass contract: no worker writes the inputs, and only this one took these heads of this span's
            // rows and state. The builder has checked the widths of inputs and weights, and lowering has reserved the
            // state.
            unsafe { walk.kernels.recurrence.delta.run(&args) }
        });
    }

    fn text(&self, names: &Names<'_>) -> String {
        names.delta(&self.delta)
    }
}
