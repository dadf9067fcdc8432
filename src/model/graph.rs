//! The computation graph of a model: operations of the field, independent of how a CPU does them.
//! A value is a matrix of floats; a node computes one value from others. Families build graphs through `Builder`, which
//! checks every shape against the file's tensors; `runtime` lowers a graph to the steps of a forward pass.

use std::fmt;
use std::ops::Range;

use super::config::{Mask, Temperature};
use super::experts::Experts;
use super::pooling::{Heads, Pooling};
use super::rope::RopeConfig;
use super::text::{self, Cells, Names, Section, counted, write_sections};
use super::weights::{MatrixId, TableId, VectorId, WeightSpecs};
use crate::error::{Error, Result};
use crate::ops::attention::HeadShape;

pub use super::recurrence::{Delta, DeltaShape};

/// The value that a node computes: index of the node in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(pub(crate) u32);

impl Value {
    /// Index of the value, and of the node that computes it.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The rows of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowSet {
    /// A row for each token of the batch.
    Batch,
    /// A row for each output token.
    Output,
    /// A row for each span of the batch.
    Span,
}

impl RowSet {
    /// The name in texts of graphs and plans.
    pub fn name(self) -> &'static str {
        match self {
            RowSet::Batch => "batch",
            RowSet::Output => "output",
            RowSet::Span => "span",
        }
    }
}

/// Shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its rows.
    pub rows: RowSet,
    /// Floats in a row.
    pub width: usize,
}

/// A normalisation of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Norm {
    /// RMSNorm (Zhang & Sennrich 2019): x / √(mean of squares + eps) · gain.
    Rms {
        /// Factors, one for each column.
        gain: VectorId,
        /// Added to the mean square.
        eps: f32,
    },
    /// LayerNorm (Ba, Kiros & Hinton 2016): (x − mean) / √(variance + eps) · gain + bias.
    Layer {
        /// Factors, one for each column.
        gain: VectorId,
        /// Summands, one for each column.
        bias: VectorId,
        /// Added to the variance.
        eps: f32,
    },
}

/// A function of each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// x · sigmoid(x) (Elfwing et al. 2017).
    Silu,
    /// GELU by tanh (Hendrycks & Gimpel 2016).
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
}

/// A rotary table, by its number in [`Graph::ropes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopeId(pub(crate) u32);

/// A rotary table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RopeSpec {
    /// Dimensions, base, scaling, pairing.
    pub config: RopeConfig,
    /// Divisors of the frequencies, one for each pair of dimensions, where the file has them (Llama 3).
    pub factors: Option<Vec<f32>>,
    /// Divisors for contexts longer than [`RopeConfig::n_ctx_original`], where the file has them (LongRoPE, Ding et al.
    /// 2024, arXiv:2402.13753).
    pub long_factors: Option<Vec<f32>>,
}

impl RopeSpec {
    /// The divisors in a context of `n_ctx` positions.
    pub(crate) fn factors(&self, n_ctx: usize) -> Option<&[f32]> {
        let long = self.long_factors.as_deref().filter(|_| n_ctx > self.config.n_ctx_original);
        long.or(self.factors.as_deref())
    }
}

/// Softmax(scale · Q·Kᵀ + mask) · V over the keys and values of the sequence so far, with changes to the scores where
/// the family has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Queries, head by head.
    pub q: Value,
    /// Where keys and values come from.
    pub kv: KeyValues,
    /// The division of rows into heads.
    pub heads: HeadShape,
    /// The positions that a token sees.
    pub mask: Mask,
    /// How scores follow from the products of queries and keys.
    pub scores: Scores,
}

/// The source of attention's keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum KeyValues {
    /// Keys and values of the layer's own, which it stores.
    Own(Value, Value),
    /// Those that the attention of an earlier layer has stored.
    Of(Value),
}

impl KeyValues {
    fn inputs(self) -> [Option<Value>; 2] {
        match self {
            KeyValues::Own(k, v) => [Some(k), Some(v)],
            KeyValues::Of(attention) => [Some(attention), None],
        }
    }
}

/// How the scores of attention follow from the products of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scores {
    /// Multiplies the products.
    pub scale: f32,
    /// `cap · tanh(score / cap)` takes the score's place (Gemma 2).
    pub soft_cap: Option<f32>,
    /// A logit for each query head that takes part in the softmax without a value (gpt-oss).
    pub sinks: Option<VectorId>,
    /// A head's slope times the distance of query and key is subtracted from each score (ALiBi, Press et al. 2021,
    /// arXiv:2108.12409). The number is the largest bias, from which
    /// [`alibi_slopes`](crate::ops::attention::alibi_slopes) are computed.
    pub alibi: Option<f32>,
}

impl Scores {
    /// Scores that are products times a scale.
    pub fn scaled(scale: f32) -> Scores {
        Scores { scale, soft_cap: None, sinks: None, alibi: None }
    }
}

/// Causal convolution of each channel over the tokens of its sequence, before which there are zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Conv {
    /// A channel a column.
    pub x: Value,
    /// Rows whose elements multiply the input, and rows that multiply the output.
    pub gates: Option<(Value, Value)>,
    /// A row of `taps` weights a channel, transposed; the last one is the token's own.
    pub weights: VectorId,
    /// A summand for each channel.
    pub bias: Option<VectorId>,
    /// Tokens that a sum takes in: in [`TAPS`](crate::kernels::recurrence::TAPS).
    pub taps: usize,
    /// Whether SiLU follows; not with gates.
    pub silu: bool,
}

/// The selective scan of a state space over the tokens of a sequence (Gu & Dao 2023, arXiv:2312.00752). With
/// Δ = softplus(dt + bias), each of the `d_state` numbers that an element of a head keeps becomes
/// `exp(Δ · a) · s + Δ · x · b`; the result is `Σ c · s + d · x`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scan {
    /// Input, head by head.
    pub x: Value,
    /// Steps: one for each head.
    pub dt: Value,
    /// How the input enters the state: `d_state` numbers for each group of heads.
    pub b: Value,
    /// How the result reads the state: as `b`.
    pub c: Value,
    /// The decays: one for each head, or, where heads are channels, `d_state` rows of one for each.
    pub a: VectorId,
    /// A summand of the steps of each head.
    pub dt_bias: VectorId,
    /// A factor of the input for each head.
    pub d: VectorId,
    /// Sizes.
    pub shape: ScanShape,
}

/// The sizes of a [`Scan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanShape {
    /// Heads.
    pub heads: usize,
    /// Elements of a head; `None` where a head is one channel with `d_state` decays of its own (Mamba), not one decay
    /// for all (Mamba-2).
    pub head_dim: Option<usize>,
    /// Numbers that an element of a head keeps.
    pub d_state: usize,
    /// Groups of heads with the same `b` and `c`; divides the heads.
    pub groups: usize,
}

impl ScanShape {
    /// Elements of all heads.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim.unwrap_or(1)
    }
}

/// The operation of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// The table's row of each token.
    Embed(TableId),
    /// The learned row of each token's position.
    Positions(VectorId),
    /// Normalised rows.
    Norm(Value, Norm),
    /// scale · (x · Wᵀ) (+ bias). The scale is 1 for a matrix that the file gives none.
    Linear(Value, MatrixId, Option<VectorId>, f32),
    /// The columns that start at the given one.
    Split(Value, usize),
    /// Of each head, of the given number of columns, those that start at the given one.
    SplitHeads(Value, usize, usize),
    /// Rows in which each head, of the given number of elements, is normalised: with one gain for all heads, or, where
    /// the gain is as long as the row, with a gain for each head.
    HeadNorm(Value, usize, Norm),
    /// Rows in which each head, of the given number of elements, is rotated by the row's position.
    Rope(Value, usize, RopeId),
    /// Attention over the sequence.
    Attention(Attention),
    /// A function of each element.
    Activate(Value, Activation),
    /// Products of elements.
    Gate(Value, Value),
    /// The elements of each head times the head's element in the second value.
    GateHeads(Value, Value),
    /// Each row plus the first row of the vector.
    AddRow(Value, VectorId),
    /// Each column divided by its element of the vector.
    Divide(Value, VectorId),
    /// Each row times a factor of its position.
    Temper(Value, Temperature),
    /// Convolution over the sequence.
    Conv(Conv),
    /// A selective scan over the sequence.
    Scan(Scan),
    /// The gated delta rule over the sequence.
    Delta(Delta),
    /// The sum of each row's experts.
    Experts(Experts),
    /// Sums of elements.
    Add(Value, Value),
    /// Each element times a factor.
    Scale(Value, f32),
    /// cap · tanh(x / cap) of each element.
    SoftCap(Value, f32),
    /// Each element, but at least the first and at most the second number.
    Clamp(Value, f32, f32),
    /// The output rows, out of all rows of the batch.
    Select(Value),
    /// One row of the output rows of each span; not [`Pooling::Rank`].
    Pool(Value, Pooling),
    /// The softmax of each row.
    Softmax(Value),
}

impl Op {
    /// The values that the operation reads.
    pub fn inputs(&self) -> impl Iterator<Item = Value> + use<> {
        let none = None;
        let list = match *self {
            Op::Embed(_) | Op::Positions(_) => [none; 4],
            Op::Norm(x, _)
            | Op::Linear(x, ..)
            | Op::Split(x, _)
            | Op::SplitHeads(x, ..)
            | Op::HeadNorm(x, ..)
            | Op::Rope(x, ..)
            | Op::Activate(x, _)
            | Op::Scale(x, _)
            | Op::SoftCap(x, _)
            | Op::Temper(x, _)
            | Op::Divide(x, _)
            | Op::AddRow(x, _)
            | Op::Clamp(x, ..)
            | Op::Select(x)
            | Op::Softmax(x)
            | Op::Pool(x, _) => [Some(x), none, none, none],
            Op::Gate(a, b) | Op::GateHeads(a, b) | Op::Add(a, b) => [Some(a), Some(b), none, none],
            Op::Attention(a) => {
                let [k, v] = a.kv.inputs();
                [Some(a.q), k, v, none]
            }
            Op::Conv(Conv { x, gates, .. }) => [Some(x), gates.map(|g| g.0), gates.map(|g| g.1), none],
            Op::Scan(Scan { x, dt, b, c, .. }) => [Some(x), Some(dt), Some(b), Some(c)],
            Op::Delta(Delta { qkv, alpha, beta, .. }) => [Some(qkv), Some(alpha), Some(beta), none],
            Op::Experts(experts) => [Some(experts.x), Some(experts.router), none, none],
        };
        list.into_iter().flatten()
    }
}

/// A node of a graph.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Its transformer block; `None` outside of all blocks.
    pub layer: Option<usize>,
    /// The shape of its value.
    pub shape: Shape,
}

/// The computation of a model.
#[derive(Clone)]
#[non_exhaustive]
pub struct Graph {
    /// The family that emitted it.
    pub family: &'static str,
    /// The nodes; each reads values of earlier nodes only.
    pub nodes: Vec<Node>,
    /// The tensors that it reads.
    pub weights: WeightSpecs,
    /// Its rotary tables.
    pub ropes: Vec<RopeSpec>,
    /// The last hidden rows, which the head reads.
    pub hidden: Value,
    /// The scores of the vocabulary's tokens; `None` for an encoder, which has no head for them.
    pub logits: Option<Value>,
    /// The products behind pooling, where the file has them.
    pub heads: Heads,
}

impl fmt::Debug for Graph {
    /// The size; `Display` writes the whole graph.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, tensors) = (self.nodes.len(), self.weights.tensors().len());
        write!(f, "Graph of {} with {nodes} nodes on {tensors} tensors", self.family)
    }
}

impl Graph {
    /// The node that computes a value.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.index()]
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        self.node(value).shape
    }

    /// The scores of the vocabulary's tokens.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an encoder.
    pub fn need_logits(&self) -> Result<Value> {
        let none =
            || Error::Unsupported(format!("{} is an encoder: it gives vectors and no text", self.family));
        self.logits.ok_or_else(none)
    }
}

impl fmt::Display for Graph {
    /// A line for each node: operation, inputs, result, rows, weights. [`write_sections`] divides the lines into
    /// layers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sections: Vec<_> = text::sections(self.nodes.iter().map(|node| node.layer))
            .into_iter()
            .map(|(layer, items)| self.section(layer, items))
            .collect();
        let layers = sections.iter().filter(|section| section.layer.is_some()).count();
        let layers = counted(layers, "layer");
        let nodes = counted(self.nodes.len(), "node");
        let tensors = counted(self.weights.tensors().len(), "tensor");
        writeln!(f, "graph of {}: {layers}, {nodes}, {tensors}", self.family)?;
        self.write_ropes(f)?;
        let logits = self.logits.map_or("none".to_owned(), |logits| format!("%{}", logits.0));
        writeln!(f, "hidden rows are %{}, logits {logits}", self.hidden.0)?;
        let span = |items: &Range<usize>| format!("%{} to %{}", items.start, items.end - 1);
        write_sections(f, &sections, &self.weights, span)
    }
}

impl Graph {
    /// A line for each rotary table.
    pub(crate) fn write_ropes(&self, f: &mut impl fmt::Write) -> fmt::Result {
        for (i, rope) in self.ropes.iter().enumerate() {
            let factors =
                if rope.factors.is_some() { ", frequencies divided by the file's factors" } else { "" };
            writeln!(f, "rope {i}: {}{factors}", rope.config)?;
        }
        Ok(())
    }

    fn section(&self, layer: Option<usize>, items: Range<usize>) -> Section {
        let rows = |names: &Names<'_>, value: &dyn Fn(Value) -> String| -> Vec<Cells> {
            items.clone().map(|i| self.row(Value(i as u32), names, value)).collect()
        };
        let shown = rows(&Names::shown(&self.weights, layer), &|value| format!("%{}", value.0));
        // Values count from the layer's first one, so that equal layers have equal numbers, also for values of the
        // layer before.
        let begin = items.start as i64;
        let compared =
            rows(&Names::compared(&self.weights, layer), &|value| (i64::from(value.0) - begin).to_string());
        let about = counted(items.len(), "node");
        Section { layer, items, about, tables: [shown, Vec::new()], likeness: format!("{compared:?}") }
    }

    fn row(&self, at: Value, names: &Names<'_>, value: &dyn Fn(Value) -> String) -> Cells {
        let Node { op, shape, .. } = self.node(at);
        let sign = match op {
            Op::Add(..) => " + ",
            Op::Gate(..) => " · ",
            _ => " ",
        };
        let inputs: Vec<_> = op.inputs().map(value).collect();
        let (what, how) = self.words(op, shape.width, names);
        let shape = format!("{} × {}", shape.rows.name(), shape.width);
        vec![what.into(), inputs.join(sign), format!("→ {}", value(at)), shape, how]
    }

    /// The name of an operation, and its weights and parameters.
    fn words(&self, op: &Op, width: usize, names: &Names<'_>) -> (&'static str, String) {
        match op {
            Op::Embed(table) => ("embed", names.table(*table)),
            Op::Positions(rows) => ("positions", names.positions(*rows)),
            Op::Norm(_, by @ Norm::Rms { .. }) => ("rms norm", names.norm(by)),
            Op::Norm(_, by @ Norm::Layer { .. }) => ("layer norm", names.norm(by)),
            Op::Linear(_, matrix, bias, scale) => ("linear", names.product(*matrix, *bias, *scale)),
            Op::Split(_, begin) => ("split", format!("columns {begin} to {}", begin + width - 1)),
            Op::SplitHeads(x, head, begin) => {
                let kept = width / (self.shape(*x).width / head);
                ("split heads", format!("columns {begin} to {} of each {head}", begin + kept - 1))
            }
            Op::HeadNorm(_, head_dim, by) => {
                ("head norm", format!("heads of {head_dim}, {}", names.norm(by)))
            }
            Op::Rope(_, head_dim, rope) => ("rope", format!("heads of {head_dim}, rope {}", rope.0)),
            Op::Attention(Attention { heads, mask, scores, kv, .. }) => {
                let Scores { scale, soft_cap, alibi, sinks } = scores;
                let HeadShape { n_head, n_head_kv, head_dim } = heads;
                let heads = format!("{n_head} heads on {n_head_kv} key/value heads of {head_dim}");
                let cap = soft_cap.map_or(String::new(), |cap| format!(", soft-cap at {cap}"));
                let alibi = alibi.map_or(String::new(), |most| format!(", biased by distance up to {most}"));
                let sinks = sinks.map_or(String::new(), |sinks| format!(", sinks {}", names.vector(sinks)));
                let shared =
                    if matches!(kv, KeyValues::Of(_)) { ", another layer's keys and values" } else { "" };
                ("attention", format!("{heads}, {mask}, scale {scale}{cap}{alibi}{sinks}{shared}"))
            }
            Op::Conv(conv) => ("conv", names.conv(conv)),
            Op::Scan(scan) => ("scan", names.scan(scan)),
            Op::Delta(delta) => ("delta", names.delta(delta)),
            Op::Experts(experts) => ("experts", names.experts(experts)),
            Op::Activate(_, function) => (function.name(), String::new()),
            Op::Gate(..) => ("gate", String::new()),
            Op::AddRow(_, row) => ("add row", names.vector(*row).to_owned()),
            Op::Divide(_, by) => ("divide", format!("by {}", names.vector(*by))),
            Op::GateHeads(..) => ("gate heads", String::new()),
            Op::Temper(_, Temperature { scale, positions, .. }) => {
                ("temper", format!("by {scale}, steps of {positions}"))
            }
            Op::Add(..) => ("add", String::new()),
            Op::Scale(_, factor) => ("scale", format!("by {factor}")),
            Op::SoftCap(_, cap) => ("soft-cap", format!("at {cap}")),
            Op::Clamp(_, least, most) => ("clamp", format!("{least} to {most}")),
            Op::Select(_) => ("select", String::new()),
            Op::Pool(_, pooling) => (pooling.name(), String::new()),
            Op::Softmax(_) => ("softmax", String::new()),
        }
    }
}

impl Activation {
    /// The name in texts of graphs and plans.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu (tanh)",
            Activation::GeluErf => "gelu (erf)",
            Activation::Relu => "relu",
            Activation::Sigmoid => "sigmoid",
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mask::Causal => write!(f, "causal"),
            Mask::Full => write!(f, "full"),
            Mask::Window(n) => write!(f, "window of {n}"),
            Mask::SymmetricWindow(n) => write!(f, "symmetric window of {n}"),
        }
    }
}
