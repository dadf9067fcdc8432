//! The builder of graphs: a method for each op. Each method checks shapes and looks up its tensors in the file.
//! Errors name the family and the layer, and come before any weights are read.

use std::ops::Range;

use super::adapter::{Adapters, Target};
use super::config::{Config, Temperature};
use super::graph::{Activation, Graph, Node, Norm, Op, RopeSpec, RowSet, Shape, Value};
use super::pooling::Heads;
use super::weights::{ExpertRows, ExpertsId, MatrixId, VectorId, WeightSpecs, name_in_layer};
use crate::error::{Error, Result, at};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::memory::reserve::{collected, filled, reserve};
use crate::quant;

/// The last hidden rows of a graph, and its logits unless it is an encoder's.
pub(crate) type Ends = (Value, Option<Value>);

/// Collects a graph.
pub(crate) struct Builder<'a> {
    pub(super) gguf: &'a Gguf,
    family: &'static str,
    pub(super) eps: f32,
    layer: Option<usize>,
    pub(super) nodes: Vec<Node>,
    pub(super) weights: WeightSpecs,
    pub(super) adapters: Adapters<'a>,
    pub(super) ropes: Vec<RopeSpec>,
    /// Projections of the current layer whose biases are ignored.
    unbiased: &'static [&'static str],
    /// Whether each tensor of the file has been looked up.
    read: Vec<bool>,
}

impl<'a> Builder<'a> {
    pub fn new(gguf: &'a Gguf, config: &Config, family: &'static str) -> Result<Self> {
        let mut read = filled(false, gguf.tensors().len(), "a list of tensors")?;
        // Where nothing is rotated, divisors of its frequencies mean nothing.
        let [any, short, long] = FACTORS;
        let lengths = config.ropes.iter().any(|rope| rope.lengths);
        for name in [any].into_iter().chain([short, long].into_iter().filter(|_| lengths)) {
            gguf.position(name).into_iter().for_each(|place| read[place] = true);
        }
        let factors = |name, pairs: usize| rope_factors(gguf, name, pairs).map_err(at(|| family.into()));
        let ropes = config.ropes.iter().map(|config| {
            let pairs = config.dim / 2;
            let any = if config.divided { factors(any, pairs)? } else { None };
            let (short, long) = match any {
                None if config.divided && config.lengths => (factors(short, pairs)?, factors(long, pairs)?),
                any => (any, None),
            };
            Ok(RopeSpec { config: config.clone(), factors: short, long_factors: long })
        });
        Ok(Builder {
            gguf,
            family,
            eps: config.norm_eps,
            layer: None,
            nodes: Vec::new(),
            weights: WeightSpecs::default(),
            adapters: Adapters::default(),
            ropes: collected(ropes, "the rotary tables")?,
            unbiased: &[],
            read,
        })
    }

    /// The graph, with the hidden rows that the head reads and the logits that it computes, if there is one; and whether each tensor of
    /// the file is read.
    pub fn finish(self, (hidden, logits): Ends, heads: Heads) -> (Graph, Vec<bool>) {
        let Builder { family, nodes, weights, ropes, read, .. } = self;
        (Graph { family, nodes, weights, ropes, hidden, logits, heads }, read)
    }

    /// Sets the layer of the nodes and tensors to come; `None` for those outside of all layers.
    pub fn enter_layer(&mut self, layer: Option<usize>) {
        self.layer = layer;
        self.unbiased = &[];
    }

    /// Whether nodes and tensors are of the first layer.
    pub fn in_first_layer(&self) -> bool {
        self.layer == Some(0)
    }

    /// Whether the file has a tensor of this name in the current layer.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(&self.name(name)).is_some()
    }

    /// Rows of the matrix of this name in the current layer; `None` where the file has none.
    pub fn rows(&self, name: &str) -> Option<usize> {
        let shape = self.gguf.tensor(&self.name(name))?.shape();
        Some(shape.get(1).map_or(1, |&rows| rows as usize))
    }

    fn name(&self, part: &str) -> String {
        self.layer.map_or_else(|| part.to_owned(), |layer| name_in_layer(layer, part))
    }

    /// Names the family and the layer in an error.
    pub(super) fn placed<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(at(|| match self.layer {
            Some(layer) => format!("{}, layer {layer}", self.family),
            None => self.family.to_owned(),
        }))
    }

    pub(super) fn fail<T>(&self, text: String) -> Result<T> {
        self.placed(Err(Error::format(text)))
    }

    pub(super) fn unsupported<T>(&self, text: String) -> Result<T> {
        self.placed(Err(Error::Unsupported(text)))
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

    pub(super) fn vector(&mut self, part: &str, n: usize, k: usize) -> Result<VectorId> {
        let tensor = self.tensor(part)?;
        let added = self.weights.add_vector(tensor, n, k);
        self.placed(added)
    }

    /// A tensor of `n` rows of `k` floats, which are columns in memory.
    pub(super) fn transposed(&mut self, part: &str, n: usize, k: usize) -> Result<VectorId> {
        let tensor = self.tensor(part)?;
        let added = self.weights.add_transposed(tensor, n, k);
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

    pub(super) fn push(&mut self, op: Op, rows: RowSet, width: usize) -> Result<Value> {
        reserve(&mut self.nodes, 1, "the graph of a model")?;
        self.nodes.push(Node { op, layer: self.layer, shape: Shape { rows, width } });
        Ok(Value(self.nodes.len() as u32 - 1))
    }

    pub(super) fn shape(&self, value: Value) -> Shape {
        self.nodes[value.index()].shape
    }

    pub(super) fn op(&self, value: Value) -> Op {
        self.nodes[value.index()].op
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
        let embedding = self.push(Op::Embed(table), RowSet::Batch, width)?;
        self.adapted_embedding(embedding, &tensor.name, n)
    }

    /// `n` learned positions.
    pub fn positions(&mut self, part: &str, n: usize, width: usize) -> Result<Value> {
        self.refuse_adapters("token_embd.weight", "to which learned positions are added")?;
        let rows = self.vector(&format!("{part}.weight"), n, width)?;
        self.push(Op::Positions(rows), RowSet::Batch, width)
    }

    /// RMSNorm by `{part}.weight`.
    pub fn rms_norm(&mut self, x: Value, part: &str) -> Result<Value> {
        self.rms_norm_by(x, part, self.eps)
    }

    /// RMSNorm by `{part}.weight`, or, in some files, `{part}`, with an epsilon of its own.
    pub fn rms_norm_by(&mut self, x: Value, part: &str, eps: f32) -> Result<Value> {
        let full = format!("{part}.weight");
        let name = if self.has(part) { part } else { &full };
        let gain = self.vector(name, 1, self.shape(x).width)?;
        self.map(Op::Norm(x, Norm::Rms { gain, eps }), x)
    }

    /// RMSNorm without a gain.
    pub fn plain_rms_norm(&mut self, x: Value) -> Result<Value> {
        let gain = self.ones(self.shape(x).width)?;
        self.map(Op::Norm(x, Norm::Rms { gain, eps: self.eps }), x)
    }

    /// LayerNorm by `{part}.weight` and `{part}.bias`; without a bias where the file has none.
    pub fn layer_norm(&mut self, x: Value, part: &str) -> Result<Value> {
        let norm = self.layer_norm_of(part, self.shape(x).width)?;
        self.map(Op::Norm(x, norm), x)
    }

    /// [`Builder::layer_norm`] for a row of this width.
    pub(super) fn layer_norm_of(&mut self, part: &str, width: usize) -> Result<Norm> {
        let gain = self.vector(&format!("{part}.weight"), 1, width)?;
        let bias = format!("{part}.bias");
        let bias = if self.has(&bias) { self.vector(&bias, 1, width)? } else { self.zeros(width)? };
        Ok(Norm::Layer { gain, bias, eps: self.eps })
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

    /// RMSNorm of each head by `{part}.weight`, which has a row for each head.
    pub fn heads_rms_norm(&mut self, x: Value, part: &str, head_dim: usize) -> Result<Value> {
        let width = self.shape(x).width;
        let gain = self.vector(&format!("{part}.weight"), width / head_dim.max(1), head_dim)?;
        self.map(Op::HeadNorm(x, head_dim, Norm::Rms { gain, eps: self.eps }), x)
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

    pub(super) fn matrix(&mut self, part: &str, n: usize, k: usize) -> Result<MatrixId> {
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
        let factor = if scaled { self.factor(&scale)? } else { 1.0 };
        self.ignore(&scale);
        let biased = self.has(&bias) && !self.unbiased.contains(&part);
        let width = self.shape(x).width;
        let matrix = self.matrix(part, n, width)?;
        let bias = if biased { Some(self.vector(&bias, 1, n)?) } else { None };
        let mut target = self.whole(part, n);
        if biased && factor != 1.0 {
            let product = self.product(x, Op::Linear(x, matrix, bias, 1.0), n, &target)?;
            return self.scale(product, factor);
        }
        target.factor = factor;
        self.product(x, Op::Linear(x, matrix, bias, factor), n, &target)
    }

    /// All `n` rows of `{part}.weight`.
    fn whole(&self, part: &str, n: usize) -> Target {
        Target { name: self.name(&format!("{part}.weight")), rows: 0..n, of: n, factor: 1.0 }
    }

    /// A projection to `n` by the rows of an embedding, `{table}.weight`, with `{part}.bias` if the file has one.
    pub fn linear_tied(&mut self, x: Value, table: &str, part: &str, n: usize) -> Result<Value> {
        let biased = self.has(&format!("{part}.bias"));
        self.project(x, table, part, n, biased)
    }

    /// A projection to `rows` of the `n` rows of `{part}.weight`: a part of matrices that the file has in one piece. It has
    /// neither bias nor factor.
    pub fn linear_rows(&mut self, x: Value, part: &str, rows: Range<usize>, n: usize) -> Result<Value> {
        let shape = self.shape(x);
        let tensor = self.tensor(&format!("{part}.weight"))?;
        let width = rows.len();
        let added = self.weights.add_matrix_rows(tensor, rows.clone(), (n, shape.width));
        let matrix = self.placed(added)?;
        self.ignore(&format!("{part}.scale"));
        let target = Target { rows, ..self.whole(part, n) };
        self.product(x, Op::Linear(x, matrix, None, 1.0), width, &target)
    }

    /// A projection to `n` by `{part}.weight` and its factor, without a bias.
    pub fn linear_unbiased(&mut self, x: Value, part: &str, n: usize) -> Result<Value> {
        self.project(x, part, part, n, false)
    }

    /// A projection to `n` by `{part}.weight`, with a bias if the file has one; llama.cpp ignores its factor.
    pub fn linear_unscaled(&mut self, x: Value, part: &str, n: usize) -> Result<Value> {
        self.linear_mlp(x, part, n, false)
    }

    /// A projection to `n` by `{part}.weight` alone; llama.cpp ignores its factor.
    pub fn linear_bare(&mut self, x: Value, part: &str, n: usize) -> Result<Value> {
        self.linear_rows(x, part, 0..n, n)
    }

    /// Checks that the file has tensors of the current layer, for a family in which nothing stands in for them.
    pub fn require(&self, names: &[&str]) -> Result<()> {
        match names.iter().find(|name| !self.has(name)) {
            Some(name) => self.fail(format!("tensor {} is missing", self.name(name))),
            None => Ok(()),
        }
    }

    /// Notes that projections of the current layer have no bias, even where the file has one, as in llama.cpp.
    pub fn without_bias(&mut self, parts: &'static [&'static str]) {
        self.unbiased = parts;
        parts.iter().for_each(|part| self.ignore(&format!("{part}.bias")));
    }

    /// Takes the file's divisors from rotary frequencies, for a family that llama.cpp rotates without them.
    pub fn ignore_rope_factors(&mut self) {
        self.ropes.iter_mut().for_each(|rope| (rope.factors, rope.long_factors) = (None, None));
    }

    /// Notes that a tensor of the current layer takes no part in the computation, as in llama.cpp.
    pub fn ignore(&mut self, name: &str) {
        let name = self.name(name);
        self.gguf.position(&name).into_iter().for_each(|place| self.read[place] = true);
    }

    /// A projection by `{weight}.weight`, with a bias of `part`, and a factor where the matrix is `part`'s own.
    fn project(&mut self, x: Value, weight: &str, part: &str, n: usize, biased: bool) -> Result<Value> {
        let matrix = self.matrix(weight, n, self.shape(x).width)?;
        let bias = if biased { Some(self.vector(&format!("{part}.bias"), 1, n)?) } else { None };
        let target = self.whole(weight, n);
        if weight != part {
            self.refuse_adapters(&target.name, "which is a table and a matrix")?;
        }
        let scale = if weight == part { self.factor(&format!("{part}.scale"))? } else { 1.0 };
        self.product(x, Op::Linear(x, matrix, bias, scale), n, &target)
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

    /// The number in `{name}`, a tensor of one element, as a factor on each element; unchanged where the file has none.
    pub fn scale_by(&mut self, x: Value, name: &str) -> Result<Value> {
        match self.factor(name)? {
            1.0 => Ok(x),
            factor => self.scale(x, factor),
        }
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

    /// Each row times a factor of its position.
    pub fn temper(&mut self, x: Value, temperature: Temperature) -> Result<Value> {
        if self.shape(x).rows != RowSet::Batch {
            return self.fail("a factor of positions on output rows".into());
        }
        self.map(Op::Temper(x, temperature), x)
    }

    /// A vector of the file.
    pub fn floats(&mut self, name: &str, width: usize) -> Result<VectorId> {
        self.vector(name, 1, width)
    }

    /// Each row plus the first of the rows in `{name}`.
    pub fn add_row(&mut self, x: Value, name: &str) -> Result<Value> {
        let tensor = self.tensor(name)?;
        let rows = tensor.shape().get(1).copied().unwrap_or(1) as usize;
        let added = self.weights.add_vector(tensor, rows, self.shape(x).width);
        let row = self.placed(added)?;
        self.map(Op::AddRow(x, row), x)
    }

    /// Each column divided by its element of `{name}`.
    pub fn divide(&mut self, x: Value, name: &str) -> Result<Value> {
        let by = self.vector(name, 1, self.shape(x).width)?;
        self.map(Op::Divide(x, by), x)
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

/// The tensors of divisors of rotary frequencies: of any context, of a short one, of a long one.
const FACTORS: [&str; 3] = ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// The file's divisors of rotary frequencies, one for each pair of dimensions, if it has them.
fn rope_factors(gguf: &Gguf, name: &str, pairs: usize) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = gguf.tensor(name) else { return Ok(None) };
    if tensor.shape() != [pairs as u64] {
        return Err(Error::format(format!("{name} has shape {:?}; expected [{pairs}]", tensor.shape())));
    }
    // The type first: a tensor of a type of unknown size has as many bytes as the file has room for.
    let dtype = tensor.dtype()?;
    let mut factors = filled(0.0f32, pairs, "rotary factors")?;
    let mut bytes = filled(0, tensor.bytes as usize, "rotary factors")?;
    gguf.read_tensor(tensor, 0, &mut bytes)?;
    quant::decode_row(dtype, &bytes, &mut factors)?;
    if factors.iter().any(|f| !f.is_finite() || *f == 0.0) {
        return Err(Error::format(format!("{name} holds a factor that is 0 or not finite")));
    }
    Ok(Some(factors))
}
