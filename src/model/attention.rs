//! The builder's ops on heads: attention with its checks, rotary embeddings, parts of heads and their gates.

use super::builder::Builder;
use super::config::LayerConfig;
use super::graph::{Attention, KeyValues, Op, RopeId, Scores, Value};
use crate::error::Result;
use crate::kernels::attention::SOFT_CAPS;
use crate::ops::attention::HeadShape;

impl Builder<'_> {
    /// Of each head of `x`, of `head` columns, the `width` that start at `begin`.
    pub fn split_heads(&mut self, x: Value, head: usize, begin: usize, width: usize) -> Result<Value> {
        let whole = self.shape(x);
        if head == 0 || !whole.width.is_multiple_of(head) || begin + width > head {
            let end = begin + width;
            return self
                .fail(format!("columns {begin} to {end} of heads of {head} in rows of {}", whole.width));
        }
        self.push(Op::SplitHeads(x, head, begin), whole.rows, whole.width / head * width)
    }

    /// Queries or keys rotated by the layer's rotary table, or unchanged in a layer without one.
    pub fn rope(&mut self, x: Value, layer: &LayerConfig) -> Result<Value> {
        let Some(table) = layer.rope else { return Ok(x) };
        let Some(rope) = self.ropes.get(table) else {
            return self.fail(format!("there is no rotary table {table}"));
        };
        if rope.config.dim > layer.head_dim {
            let dim = rope.config.dim;
            return self.fail(format!("{dim} rotated dimensions in heads of {}", layer.head_dim));
        }
        self.map(Op::Rope(x, layer.head_dim, RopeId(table as u32)), x)
    }

    /// Attention of the layer's heads.
    pub fn attention(&mut self, [q, k, v]: [Value; 3], layer: &LayerConfig, scores: Scores) -> Result<Value> {
        let widths = [k, v].map(|x| self.shape(x).width);
        if widths != [layer.kv_width(); 2] {
            return self
                .fail(format!("keys and values of {widths:?}, where heads have {}", layer.kv_width()));
        }
        self.attend(q, KeyValues::Own(k, v), layer, scores)
    }

    /// Attention of the layer's queries over the keys and values of an earlier layer's attention.
    pub fn attention_shared(
        &mut self,
        q: Value,
        earlier: Value,
        layer: &LayerConfig,
        scores: Scores,
    ) -> Result<Value> {
        match self.nodes[earlier.index()].op {
            Op::Attention(Attention { heads, mask, kv: KeyValues::Own(..), .. })
                if (heads.n_head_kv, heads.head_dim, mask)
                    == (layer.n_head_kv, layer.head_dim, layer.mask) =>
            {
                if self.is_adapted(q) {
                    return self.unsupported("adapters of queries of another layer's keys".into());
                }
                self.attend(q, KeyValues::Of(earlier), layer, scores)
            }
            _ => self.fail("keys and values of a layer with other heads or another mask".into()),
        }
    }

    fn attend(&mut self, q: Value, kv: KeyValues, layer: &LayerConfig, scores: Scores) -> Result<Value> {
        let heads = HeadShape { n_head: layer.n_head, n_head_kv: layer.n_head_kv, head_dim: layer.head_dim };
        let width = self.shape(q).width;
        if width != layer.q_width() {
            return self.fail(format!("queries of {width} for {heads:?}"));
        }
        if matches!(layer.mask, super::Mask::Window(0) | super::Mask::SymmetricWindow(0)) {
            return self.fail("attention in a window of 0 positions".into());
        }
        let Scores { scale, soft_cap, alibi, .. } = scores;
        let caps = soft_cap.filter(|cap| !SOFT_CAPS.contains(cap));
        let biases = alibi.filter(|most| !(most.is_finite() && *most > 0.0));
        let scales = (!scale.is_finite()).then_some(scale);
        for (bad, name) in [(caps, "soft-cap"), (biases, "largest bias by distance"), (scales, "scale")] {
            if let Some(bad) = bad {
                return self.fail(format!("attention with a {name} of {bad}"));
            }
        }
        self.map(Op::Attention(Attention { q, kv, heads, mask: layer.mask, scores }), q)
    }

    /// The elements of each head of `x` times the head's element of `gate`.
    pub fn gate_heads(&mut self, x: Value, gate: Value) -> Result<Value> {
        let (rows, heads) = (self.shape(x), self.shape(gate));
        if rows.rows != heads.rows || !rows.width.is_multiple_of(heads.width) {
            return self.fail(format!("a gate of {heads:?} for heads of {rows:?}"));
        }
        self.map(Op::GateHeads(x, gate), x)
    }
}
