//! The builder of graphs: a method for each op. Each method checks shapes and looks up its tensors in the file.
//! Errors name the family and the layer, and come before any weights are read.

use std::ops::Range;

use super::config::{Config, LayerConfig};
use super::graph::{
    Activation, Attention, Graph, Node, Norm, Op, RopeId, RopeSpec, RowSet, Scores, Shape, Value,
};
use super::weights::{ExpertRows, ExpertsId, MatrixId, VectorId, WeightSpecs, name_in_layer};
use crate::error::{Error, Result, at};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::memory::reserve::{collected, filled, reserve};
use crate::ops::attention::HeadShape;
use crate::quant;

/// Collects a graph.
pub(crate) struct Builder<'a> {
    gguf: &'a Gguf,
    family: &'static str,
    eps: f32,
    layer: Option<usize>,
    nodes: Vec<Node>,
    weights: WeightSpecs,
    ropes: Vec<RopeSpec>,
    /// Whether each tensor of the file has been looked up.
    read: Vec<bool>,
}

impl<'a> Builder<'a> {
    pub fn new(gguf: &'a Gguf, config: &Config, family: &'static str) -> Result<Self> {
        let mut read = filled(false, gguf.tensors().len(), "a list of tensors")?;
        let mut factors = |pairs| {
            let factors = rope_factors(gguf, pairs)?;
            gguf.position(ROPE_FACTORS).into_iter().for_each(|place| read[place] = true);
            Ok::<_, Error>(factors)
        };
        let ropes = config.ropes.iter().map(|config| {
            Ok(RopeSpec {
                config: config.clone(),
                factors: factors(config.dim / 2).map_err(at(|| family.into()))?,
            })
        });
        Ok(Builder {
            gguf,
            family,
            eps: config.norm_eps,
            layer: None,
            nodes: Vec::new(),
            weights: WeightSpecs::default(),
            ropes: collected(ropes, "the rotary tables")?,
            read,
        })
    }

    /// The graph, with the hidden rows that the head reads and the logits that it computes; and whether each tensor of
    /// the file is read.
    pub fn finish(self, hidden: Value, logits: Value) -> (Graph, Vec<bool>) {
        let Builder { family, nodes, weights, ropes, read, .. } = self;
        (Graph { family, nodes, weights, ropes, hidden, logits }, read)
    }

    /// Sets the layer of the nodes and tensors to come; `None` for those outside of all layers.
    pub fn enter_layer(&mut self, layer: Option<usize>) {
        self.layer = layer;
    }

    /// Whether the file has a tensor of this name in the current layer.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(&self.name(name)).is_some()
    }

    fn name(&self, part: &str) -> String {
        self.layer.map_or_else(|| part.to_owned(), |layer| name_in_layer(layer, part))
    }

    /// Names the family and the layer in an error.
    fn placed<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(at(|| match self.layer {
            Some(layer) => format!("{}, layer {layer}", self.family),
            None => self.family.to_owned(),
        }))
    }

    pub(super) fn fail<T>(&self, text: String) -> Result<T> {
        self.placed(Err(Error::format(text)))
    }

    fn tensor(&mut self, part: &str) -> Result<&'a TensorInfo> {
        let name = self.name(part);
        match self.gguf.position(&name) {
            Some(place) => {
                self.read[place] = true;
                Ok(&self.gguf.tensors()[place])
            }
            None => self.fail(format!("tensor {name} is missing")),
        }
    }

    /// Counts a tensor as read that llama.cpp ignores in this family.
    pub(super) fn ignore(&mut self, part: &str) -> Result<()> {
        self.tensor(part).map(|_| ())
    }

    pub(super) fn vector(&mut self, part: &str, n: usize, k: usize) -> Result<VectorId> {
        let tensor = self.tensor(part)?;
        let added = self.weights.add_vector(tensor, n, k);
        self.placed(added)
    }

    /// The matrices of experts, of `n` rows of `k` each, in the tensor of this name.
    pub(super) fn expert_matrices(
        &mut self,
        name: &str,
        rows: ExpertRows,
        n: usize,
        k: usize,
    ) -> Result<ExpertsId> {
        let tensor = self.tensor(name)?;
        let added = self.weights.add_experts(tensor, rows, (n, k));
        self.placed(added)
    }

    fn push(&mut self, op: Op, rows: RowSet, width: usize) -> Result<Value> {
        reserve(&mut self.nodes, 1, "the graph of a model")?;
        self.nodes.push(Node { op, layer: self.layer, shape: Shape { rows, width } });
        Ok(Value(self.nodes.len() as u32 - 1))
    }

    pub(super) fn shape(&self, value: Value) -> Shape {
        self.nodes[value.index()].shape
    }

    /// Columns of a value.
    pub fn width(&self, value: Value) -> usize {
        self.shape(value).width
    }

    /// A node whose value has the shape of `x`.
    pub(super) fn map(&mut self, op: Op, x: Value) -> Result<Value> {
        let Shape { rows, width } = self.shape(x);
        self.push(op, rows, width)
    }

    /// A node that reads two values of the same shape, which is also its own.
    fn join(&mut self, op: Op, a: Value, b: Value) -> Result<Value> {
        if self.shape(a) != self.shape(b) {
            return self.fail(format!(
                "values of different shapes: {:?} and {:?}",
                self.shape(a),
                self.shape(b)
            ));
        }
        self.map(op, a)
    }

    /// Embeddings of the tokens, from `{part}.weight` of `n` rows.
    pub fn embed(&mut self, part: &str, n: usize, width: usize) -> Result<Value> {
        let tensor = self.tensor(&format!("{part}.weight"))?;
        let table = self.weights.add_table(tensor, n, width);
        let table = self.placed(table)?;
        self.push(Op::Embed(table), RowSet::Batch, width)
    }

    /// `n` learned positions.
    pub fn positions(&mut self, part: &str, n: usize, width: usize) -> Result<Value> {
        let rows = self.vector(&format!("{part}.weight"), n, width)?;
        self.push(Op::Positions(rows), RowSet::Batch, width)
    }

    /// RMSNorm by `{part}.weight`.
    pub fn rms_norm(&mut self, x: Value, part: &str) -> Result<Value> {
        let gain = self.vector(&format!("{part}.weight"), 1, self.shape(x).width)?;
        self.map(Op::Norm(x, Norm::Rms { gain, eps: self.eps }), x)
    }

    /// LayerNorm by `{part}.weight` and `{part}.bias`; without a bias where the file has none.
    pub fn layer_norm(&mut self, x: Value, part: &str) -> Result<Value> {
        let width = self.shape(x).width;
        let gain = self.vector(&format!("{part}.weight"), 1, width)?;
        let bias = format!("{part}.bias");
        let bias = if self.has(&bias) { self.vector(&bias, 1, width)? } else { self.zeros(width)? };
        self.map(Op::Norm(x, Norm::Layer { gain, bias, eps: self.eps }), x)
    }

    /// LayerNorm without gain and bias.
    pub fn plain_layer_norm(&mut self, x: Value) -> Result<Value> {
        let width = self.shape(x).width;
        let (gain, bias) = (self.ones(width)?, self.zeros(width)?);
        self.map(Op::Norm(x, Norm::Layer { gain, bias, eps: self.eps }), x)
    }

    /// RMSNorm of each head by `{part}.weight`, one gain for all heads.
    pub fn head_norm(&mut self, x: Value, part: &str, head_dim: usize) -> Result<Value> {
        let gain = self.vector(&format!("{part}.weight"), 1, head_dim)?;
        self.map(Op::HeadNorm(x, head_dim, Norm::Rms { gain, eps: self.eps }), x)
    }

    /// RMSNorm of each head without a gain.
    pub fn plain_head_norm(&mut self, x: Value, head_dim: usize) -> Result<Value> {
        let gain = self.ones(head_dim)?;
        self.map(Op::HeadNorm(x, head_dim, Norm::Rms { gain, eps: self.eps }), x)
    }

    /// LayerNorm of each head by `{part}.weight`, which has a row for each head, without a bias.
    pub fn heads_layer_norm(&mut self, x: Value, part: &str, head_dim: usize) -> Result<Value> {
        let width = self.shape(x).width;
        let gain = self.vector(&format!("{part}.weight"), width / head_dim.max(1), head_dim)?;
        let bias = self.zeros(head_dim)?;
        self.map(Op::HeadNorm(x, head_dim, Norm::Layer { gain, bias, eps: self.eps }), x)
    }

    /// The gain of a norm that has none.
    fn ones(&mut self, width: usize) -> Result<VectorId> {
        let added = self.weights.add_constant("ones", 1.0, width);
        self.placed(added)
    }

    /// The bias of a norm that has none.
    fn zeros(&mut self, width: usize) -> Result<VectorId> {
        let added = self.weights.add_constant("zeros", 0.0, width);
        self.placed(added)
    }

    fn matrix(&mut self, part: &str, n: usize, k: usize) -> Result<MatrixId> {
        let tensor = self.tensor(&format!("{part}.weight"))?;
        let added = self.weights.add_matrix(tensor, n, k);
        self.placed(added)
    }

    /// A projection to `n` by `{part}.weight`, with `{part}.bias` and the factor `{part}.scale` if the file has them.
    pub fn linear(&mut self, x: Value, part: &str, n: usize) -> Result<Value> {
        let biased = self.has(&format!("{part}.bias"));
        self.project(x, part, part, n, biased)
    }

    /// A projection to `n` of an MLP, whose factor multiplies the bias too, unless the family takes no factors there.
    pub fn linear_mlp(&mut self, x: Value, part: &str, n: usize, scaled: bool) -> Result<Value> {
        let (bias, scale) = (format!("{part}.bias"), format!("{part}.scale"));
        let factor = self.factor(&scale)?;
        let biased = self.has(&bias);
        let Shape { rows, width } = self.shape(x);
        let matrix = self.matrix(part, n, width)?;
        let bias = if biased { Some(self.vector(&bias, 1, n)?) } else { None };
        let factor = if scaled { factor } else { 1.0 };
        if biased && factor != 1.0 {
            let product = self.push(Op::Linear(x, matrix, bias, 1.0), rows, n)?;
            return self.scale(product, factor);
        }
        self.push(Op::Linear(x, matrix, bias, factor), rows, n)
    }

    /// A projection to `n` by the rows of an embedding, `{table}.weight`, with `{part}.bias` if the file has one.
    pub fn linear_tied(&mut self, x: Value, table: &str, part: &str, n: usize) -> Result<Value> {
        let biased = self.has(&format!("{part}.bias"));
        self.project(x, table, part, n, biased)
    }

    /// A projection to `rows` of the `n` rows of `{part}.weight`: a part of matrices that the file has in one piece.
    pub fn linear_rows(&mut self, x: Value, part: &str, rows: Range<usize>, n: usize) -> Result<Value> {
        let shape = self.shape(x);
        let tensor = self.tensor(&format!("{part}.weight"))?;
        let width = rows.len();
        let added = self.weights.add_matrix_rows(tensor, rows, (n, shape.width));
        let matrix = self.placed(added)?;
        let scale = self.factor(&format!("{part}.scale"))?;
        self.push(Op::Linear(x, matrix, None, scale), shape.rows, width)
    }

    /// A projection by `{weight}.weight`, with a bias of `part`, and a factor where the matrix is `part`'s own.
    fn project(&mut self, x: Value, weight: &str, part: &str, n: usize, biased: bool) -> Result<Value> {
        let Shape { rows, width } = self.shape(x);
        let matrix = self.matrix(weight, n, width)?;
        let bias = if biased { Some(self.vector(&format!("{part}.bias"), 1, n)?) } else { None };
        let scale = if weight == part { self.factor(&format!("{part}.scale"))? } else { 1.0 };
        self.push(Op::Linear(x, matrix, bias, scale), rows, n)
    }

    /// The number in a tensor of one element; 1 where the file has no such tensor.
    fn factor(&mut self, part: &str) -> Result<f32> {
        if !self.has(part) {
            return Ok(1.0);
        }
        let tensor = self.tensor(part)?;
        let factor = one_float(self.gguf, tensor);
        self.placed(factor)
    }

    /// The `width` columns of `x` that start at `begin`.
    pub fn split(&mut self, x: Value, begin: usize, width: usize) -> Result<Value> {
        let whole = self.shape(x);
        if begin + width > whole.width {
            return self.fail(format!("columns {begin} to {} of {}", begin + width, whole.width));
        }
        self.push(Op::Split(x, begin), whole.rows, width)
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

    /// Attention of the layer's heads, with the layer's scale of scores.
    pub fn attention(&mut self, qkv: [Value; 3], layer: &LayerConfig) -> Result<Value> {
        self.attention_by(qkv, layer, Scores::scaled(layer.score_scale))
    }

    /// Attention of the layer's heads with scores of another kind.
    pub fn attention_by(
        &mut self,
        [q, k, v]: [Value; 3],
        layer: &LayerConfig,
        scores: Scores,
    ) -> Result<Value> {
        let heads = HeadShape { n_head: layer.n_head, n_head_kv: layer.n_head_kv, head_dim: layer.head_dim };
        let widths = [q, k, v].map(|x| self.shape(x).width);
        if widths != [layer.q_width(), layer.kv_width(), layer.kv_width()] {
            return self.fail(format!("queries, keys and values of {widths:?} for {heads:?}"));
        }
        if matches!(layer.mask, super::Mask::Window(0) | super::Mask::SymmetricWindow(0)) {
            return self.fail("attention in a window of 0 positions".into());
        }
        self.map(Op::Attention(Attention { q, k, v, heads, mask: layer.mask, scores }), q)
    }

    /// A function of each element.
    pub fn activate(&mut self, x: Value, function: Activation) -> Result<Value> {
        self.map(Op::Activate(x, function), x)
    }

    /// Products of elements.
    pub fn gate(&mut self, a: Value, b: Value) -> Result<Value> {
        self.join(Op::Gate(a, b), a, b)
    }

    /// Sums of elements.
    pub fn add(&mut self, a: Value, b: Value) -> Result<Value> {
        self.join(Op::Add(a, b), a, b)
    }

    /// A factor on each element.
    pub fn scale(&mut self, x: Value, factor: f32) -> Result<Value> {
        self.map(Op::Scale(x, factor), x)
    }

    /// cap · tanh(x / cap) of each element.
    pub fn soft_cap(&mut self, x: Value, cap: f32) -> Result<Value> {
        self.map(Op::SoftCap(x, cap), x)
    }

    /// Each element, but at least `-limit` and at most `limit`.
    pub fn clamp(&mut self, x: Value, limit: f32) -> Result<Value> {
        self.map(Op::Clamp(x, -limit, limit), x)
    }

    /// The output rows, out of all rows of the batch.
    pub fn select(&mut self, x: Value) -> Result<Value> {
        let width = self.shape(x).width;
        self.push(Op::Select(x), RowSet::Output, width)
    }
}

/// The value of a tensor that has one element.
fn one_float(gguf: &Gguf, tensor: &TensorInfo) -> Result<f32> {
    let name = &tensor.name;
    if tensor.elements() != 1 {
        return Err(Error::format(format!("tensor {name} has shape {:?}; expected [1]", tensor.shape())));
    }
    let dtype = tensor.dtype()?;
    let (mut bytes, mut value) = ([0; size_of::<f32>()], [0.0f32]);
    let Some(bytes) = usize::try_from(tensor.bytes).ok().and_then(|len| bytes.get_mut(..len)) else {
        return Err(Error::Unsupported(format!("tensor {name} is one number of type {}", tensor.ty)));
    };
    gguf.read_tensor(tensor, 0, bytes)?;
    quant::decode_row(dtype, bytes, &mut value)?;
    match value[0] {
        value if value.is_finite() => Ok(value),
        value => Err(Error::format(format!("tensor {name} is {value}; expected a finite number"))),
    }
}

/// The tensor of divisors of rotary frequencies.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The file's divisors of rotary frequencies, one for each pair of dimensions, if it has them.
fn rope_factors(gguf: &Gguf, pairs: usize) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = gguf.tensor(ROPE_FACTORS) else { return Ok(None) };
    if tensor.shape() != [pairs as u64] {
        return Err(Error::format(format!(
            "rope_freqs.weight has shape {:?}; expected [{pairs}]",
            tensor.shape()
        )));
    }
    // The type first: a tensor of a type of unknown size has as many bytes as the file has room for.
    let dtype = tensor.dtype()?;
    let mut factors = filled(0.0f32, pairs, "rotary factors")?;
    let mut bytes = filled(0, tensor.bytes as usize, "rotary factors")?;
    gguf.read_tensor(tensor, 0, &mut bytes)?;
    quant::decode_row(dtype, &bytes, &mut factors)?;
    if factors.iter().any(|f| !(f.is_finite() && *f > 0.0)) {
        return Err(Error::format("rope_freqs.weight holds a factor that is not a finite number above 0"));
    }
    Ok(Some(factors))
}
