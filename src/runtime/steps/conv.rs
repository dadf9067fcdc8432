//! A short causal convolution of each channel over the tokens of its sequence, whose last inputs are its state.

use super::recurrent::{Columns, StatePlace, rows_mut, share};
use super::{At, Facts, Step, Walk, Work};
use crate::kernels::recurrence::{ConvArgs, Gates};
use crate::model::graph::{self, RowSet};
use crate::model::text::Names;
use crate::profile::Zone;
use crate::runtime::plan::Buf;

/// Convolution of one layer.
pub struct Conv {
    /// Its weights and form.
    pub conv: graph::Conv,
    /// Input.
    pub x: Columns,
    /// Factors of input and output.
    pub gates: Option<[Columns; 2]>,
    /// Number of channels.
    pub channels: usize,
    /// Output rows of as many floats.
    pub out: Buf,
    /// The last `taps - 1` inputs of each channel.
    pub state: StatePlace,
}

/// Floats of a cache line: workers write no line in common.
const UNIT: usize = 16;

impl Step for Conv {
    fn facts(&self) -> Facts {
        let gates = self.gates.iter().flatten().map(|gate| gate.buf);
        let reads = [self.x.buf].into_iter().chain(gates).collect();
        Facts { reads, ..Facts::dynamic(Zone::Conv, RowSet::Batch, self.out) }
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let gates = self.gates.map_or(0, |gates| gates.len());
        let rows = walk.count(RowSet::Batch);
        let flops = self.channels * (2 * self.conv.taps + gates);
        self.state.work(walk, (rows, self.channels * (2 + gates), flops))
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let kernels = &walk.kernels.recurrence;
        let kernel = if self.conv.silu { &kernels.conv_silu } else { &kernels.conv };
        let bias = self.conv.bias.map_or(std::ptr::null(), |bias| walk.weights.vector(bias).as_ptr());
        share(walk, at, (self.channels, UNIT), |i, channels| {
            let span = &walk.batch.spans[i].rows;
            let rows = |columns: Columns| columns.rows(walk, at.worker, span.start);
            let args = ConvArgs {
                x: rows(self.x),
                y: rows_mut(walk, at.worker, self.out, span.start),
                state: self.state.of(walk, i),
                weights: walk.weights.vector(self.conv.weights).as_ptr(),
                bias,
                gates: self.gates.map(|[before, after]| Gates { before: rows(before), after: rows(after) }),
                tokens: span.len(),
                channels: self.channels,
                begin: channels.start,
                end: channels.end,
                taps: self.conv.taps,
            };
            // SAFETY: the pass contract: no worker writes the inputs, and only this one took these channels of this
            // span's rows and state. The builder has checked the weights' shapes and the number of taps, and lowering
            // has reserved the state.
            unsafe { kernel.run(&args) }
        });
    }

    fn text(&self, names: &Names<'_>) -> String {
        format!("{} channels, {}", self.channels, names.conv(&self.conv))
    }
}
