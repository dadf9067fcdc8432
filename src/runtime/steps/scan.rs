//! The selective scan of a state space over the tokens of a sequence: Mamba's, whose channels have decays of their own,
//! and Mamba-2's, whose heads have one each.

use super::recurrent::{Columns, StatePlace, rows_mut, share};
use super::{At, Facts, Step, Walk, Work};
use crate::kernels::recurrence::{Scan1Args, Scan2Args};
use crate::model::graph::{self, RowSet};
use crate::model::text::Names;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// The scan of one layer.
pub struct Scan {
    /// Its weights and sizes.
    pub scan: graph::Scan,
    /// Input.
    pub x: Columns,
    /// Steps.
    pub dt: Columns,
    /// How the input enters the state.
    pub b: Columns,
    /// How the result reads the state.
    pub c: Columns,
    /// Output rows.
    pub out: Buf,
    /// `d_state` numbers for each element of each head.
    pub state: StatePlace,
}

/// Floats of a cache line: workers write no line in common where a head is one float.
const LINE: usize = 16;

impl Step for Scan {
    fn facts(&self) -> Facts {
        let reads = [self.x, self.dt, self.b, self.c].map(|columns| columns.buf).to_vec();
        Facts { reads, ..Facts::dynamic(Zone::Scan, RowSet::Batch, self.out) }
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let shape = &self.scan.shape;
        let (width, shared) = (shape.width(), 2 * shape.groups * shape.d_state);
        // The state's two products and two sums, the result's product and sum.
        let flops = 6 * width * shape.d_state;
        self.state.work(walk, (walk.count(RowSet::Batch), 2 * width + shape.heads + shared, flops))
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let shape = self.scan.shape;
        let vector = |id| walk.weights.vector(id).as_ptr();
        let (a, dt_bias, d) = (vector(self.scan.a), vector(self.scan.dt_bias), vector(self.scan.d));
        let unit = if shape.head_dim.is_some() { 1 } else { LINE };
        share(walk, at, (shape.heads, unit), |i, heads| {
            let span = &walk.batch.spans[i].rows;
            let [x, dt, b, c] = [self.x, self.dt, self.b, self.c]
                .map(|columns: Columns| columns.rows(walk, at.worker, span.start));
            let (y, state) = (rows_mut(walk, at.worker, self.out, span.start), self.state.of(walk, i));
            let (tokens, d_state, begin, end) = (span.len(), shape.d_state, heads.start, heads.end);
            // SAFETY: the pass contract: no worker writes the inputs, and only this one took these heads of this span's
            // rows and state. The builder has checked the widths of inputs and weights, and lowering has reserved the
            // state.
            unsafe {
                match shape.head_dim {
                    None => {
                        let channels = shape.heads;
                        #[rustfmt::skip]
                        let args = Scan1Args { x, dt, b, c, y, a, dt_bias, d, state, tokens, channels, d_state, begin, end };
                        walk.kernels.recurrence.scan1.run(&args);
                    }
                    Some(head_dim) => {
                        let group = shape.heads / shape.groups;
                        #[rustfmt::skip]
                        let args = Scan2Args { x, dt, b, c, y, a, dt_bias, d, state, tokens, head_dim, d_state, group, begin, end };
                        walk.kernels.recurrence.scan2.run(&args);
                    }
                }
            }
        });
    }

    fn text(&self, names: &Names<'_>) -> String {
        names.scan(&self.scan)
    }
}
