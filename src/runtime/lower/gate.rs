//! Lowers gates: an activation and a product are one step, with a norm of heads before or after them. The step reads
//! columns of wider products where these stand.

use super::Lowering;
use crate::error::Result;
use crate::model::graph::{Activation, Op, Shape, Value};
use crate::runtime::plan::Buf;
use crate::runtime::steps::gate::{Gate, HeadsNorm};
use crate::runtime::steps::recurrent::HeadColumns;

/// The nodes of a gate.
struct Parts {
    /// The product.
    gated: Value,
    /// The gate after its function, and before.
    activated: Value,
    gate: Value,
    function: Activation,
    /// The values: of the product, or of the norm before it.
    x: Value,
    norm: Option<HeadsNorm>,
    /// The norm before the product.
    normed: Option<Value>,
}

impl Lowering<'_> {
    /// A gate as one step, if the value is one, or a norm of one.
    pub(super) fn gate(&mut self, value: Value, quantized: bool) -> Result<Option<Buf>> {
        let Some(parts) = self.gate_parts(value) else { return Ok(None) };
        let Parts { gated, activated, gate, function, x, norm, normed } = parts;
        let x = if normed.is_some() { self.own_columns(x)? } else { self.columns(x, gated)? };
        let (first, [width, every]) = self.runs(gate, activated)?;
        let gate = HeadColumns { first, width, every };
        for node in [Some(gated), Some(activated), normed].into_iter().flatten() {
            self.done[node.index()] = true;
        }
        let Shape { rows, width } = self.graph.shape(value);
        let out = self.buffer_of(value, quantized)?;
        self.push_row_wise(value, Gate { x, gate, function, norm, out, quantized, width, rows }, out)?;
        Ok(Some(out))
    }

    /// The nodes of the gate that a value is, or is the norm of. What only they read isn't computed by itself.
    fn gate_parts(&self, value: Value) -> Option<Parts> {
        let inside = |x: Value, reader: Value| self.only_for(x, reader) && !self.done[x.index()];
        let (gated, after) = match *self.op(value) {
            Op::HeadNorm(gated, head_dim, norm) if inside(gated, value) => {
                (gated, Some(HeadsNorm { norm, head_dim, first: false }))
            }
            _ => (value, None),
        };
        let Op::Gate(a, b) = *self.op(gated) else { return None };
        if self.mlp_parts(gated).is_some() {
            return None;
        }
        let (activated, x, gate, function) =
            [(a, b), (b, a)].into_iter().find_map(|(activated, x)| match *self.op(activated) {
                Op::Activate(gate, function) if inside(activated, gated) => {
                    Some((activated, x, gate, function))
                }
                _ => None,
            })?;
        let alone = Parts { gated, activated, gate, function, x, norm: after, normed: None };
        Some(match *self.op(x) {
            Op::HeadNorm(values, head_dim, norm) if after.is_none() && inside(x, gated) => Parts {
                x: values,
                norm: Some(HeadsNorm { norm, head_dim, first: true }),
                normed: Some(x),
                ..alone
            },
            _ => alone,
        })
    }
}
