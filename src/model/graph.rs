//! The graph: what a model computes, in the field's own words, and nothing of how a CPU does it.
//! A value is rows of floats; a node makes one value from others. Families build graphs through `Builder`, which
//! checks every shape against the file's tensors; whoever runs or trains the model lowers the graph to its needs.

use std::fmt;
use std::ops::Range;

use super::config::Mask;
use super::rope::RopeConfig;
use super::text::{self, Names, Row, Section, counted, write_sections};
use super::weights::{MatrixId, TableId, VectorId, WeightSpecs};
use crate::ops::attention::HeadShape;

/// Rows of floats that a node makes: index of the node in [`Graph::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value(pub(crate) u32);

impl Value {
    /// Index of the value and of the node that makes it.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowSet {
    /// One for each token of the batch.
    Batch,
    /// One for each token whose output is wanted.
    Output,
    /// One for each span of the batch.
    Span,
}

impl RowSet {
    /// As it is written in texts.
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
    /// Which rows.
    pub rows: RowSet,
    /// Floats in a row.
    pub width: usize,
}

/// How rows are normalised: (x − mean) / √(variance + eps) · gain + bias, or without mean (Zhang & Sennrich 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Root mean square.
    Rms {
        /// Factors, one a column.
        gain: VectorId,
        /// Added to the mean square.
        eps: f32,
    },
    /// Layer norm (Ba, Kiros & Hinton 2016).
    Layer {
        /// Factors, one a column.
        gain: VectorId,
        /// Added last, one a column.
        bias: VectorId,
        /// Added to the variance.
        eps: f32,
    },
}

/// A function of each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x) (Elfwing et al. 2017).
    Silu,
    /// GELU by tanh (Hendrycks & Gimpel 2016).
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// max(x, 0).
    Relu,
}

/// A rotary table, by its number in [`Graph::ropes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopeId(pub(crate) u32);

/// What turns positions into rotations.
#[derive(Clone, Debug)]
pub struct RopeSpec {
    /// Dimensions, base, scaling, pairing.
    pub config: RopeConfig,
    /// Divisors of the frequencies, one a pair, where the file gives them (Llama 3).
    pub factors: Option<Vec<f32>>,
}

/// Softmax(scale · Q·Kᵀ + mask) · V over the keys and values of the sequence so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Queries, head by head.
    pub q: Value,
    /// Keys.
    pub k: Value,
    /// Values.
    pub v: Value,
    /// How their rows are divided.
    pub heads: HeadShape,
    /// Which positions a token sees.
    pub mask: Mask,
    /// Multiplies the scores.
    pub scale: f32,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Rows of a table, by token.
    Embed(TableId),
    /// Rows of learned positions.
    Positions(VectorId),
    /// Rows normalised.
    Norm(Value, Norm),
    /// x · Wᵀ (+ bias).
    Linear(Value, MatrixId, Option<VectorId>),
    /// Columns from the given one on.
    Split(Value, usize),
    /// Each head of so many elements normalised (root mean square) by one gain.
    HeadNorm(Value, usize, Norm),
    /// Heads of so many elements rotated by their row's position.
    Rope(Value, usize, RopeId),
    /// Attention over the sequence.
    Attention(Attention),
    /// A function of each element.
    Activate(Value, Activation),
    /// Products of elements: what a gate lets pass.
    Gate(Value, Value),
    /// Sums of elements.
    Add(Value, Value),
    /// A factor on each element.
    Scale(Value, f32),
    /// cap · tanh(x / cap) of each element.
    SoftCap(Value, f32),
    /// The rows whose output is wanted.
    Select(Value),
    /// The mean of the output rows of each span.
    Pool(Value),
}

impl Op {
    /// The values that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = Value> + use<> {
        let list = match *self {
            Op::Embed(_) | Op::Positions(_) => [None; 3],
            Op::Norm(x, _)
            | Op::Linear(x, ..)
            | Op::Split(x, _)
            | Op::HeadNorm(x, ..)
            | Op::Rope(x, ..)
            | Op::Activate(x, _)
            | Op::Scale(x, _)
            | Op::SoftCap(x, _)
            | Op::Select(x)
            | Op::Pool(x) => [Some(x), None, None],
            Op::Gate(a, b) | Op::Add(a, b) => [Some(a), Some(b), None],
            Op::Attention(a) => [Some(a.q), Some(a.k), Some(a.v)],
        };
        list.into_iter().flatten()
    }
}

/// A node: what it does, and in which layer it stands.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Its transformer block, if it is in one.
    pub layer: Option<usize>,
    /// What it makes.
    pub shape: Shape,
}

/// What a model computes.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The family that emitted it.
    pub family: &'static str,
    /// The nodes; each reads values of earlier ones.
    pub nodes: Vec<Node>,
    /// What it reads of the file.
    pub weights: WeightSpecs,
    /// Its rotary tables.
    pub ropes: Vec<RopeSpec>,
    /// The last hidden rows: what the head reads.
    pub hidden: Value,
    /// Scores of the vocabulary's tokens.
    pub logits: Value,
}

impl Graph {
    /// The node that makes a value.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.index()]
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        self.node(value).shape
    }

    /// This graph with one row a span at its end, the mean of the hidden rows, and where that row is.
    pub fn pooled(&self) -> (Graph, Value) {
        let mut graph = self.clone();
        let shape = Shape { rows: RowSet::Span, ..self.shape(self.hidden) };
        graph.nodes.push(Node { op: Op::Pool(self.hidden), layer: None, shape });
        let pooled = Value(graph.nodes.len() as u32 - 1);
        (graph, pooled)
    }
}

impl fmt::Display for Graph {
    /// A line a node: what it does, from which values to which, its rows; sections and names as
    /// [`write_sections`] has them.
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
        writeln!(f, "hidden rows are %{}, logits %{}", self.hidden.0, self.logits.0)?;
        let span = |items: &Range<usize>| format!("%{} to %{}", items.start, items.end - 1);
        write_sections(f, &sections, &self.weights, span)
    }
}

impl Graph {
    /// A line a rotary table.
    pub(crate) fn write_ropes(&self, f: &mut impl fmt::Write) -> fmt::Result {
        for (i, rope) in self.ropes.iter().enumerate() {
            let factors =
                if rope.factors.is_some() { ", frequencies divided by the file's factors" } else { "" };
            writeln!(f, "rope {i}: {}{factors}", rope.config)?;
        }
        Ok(())
    }

    fn section(&self, layer: Option<usize>, items: Range<usize>) -> Section {
        let rows = |names: &Names<'_>, value: &dyn Fn(Value) -> String| -> Vec<Row> {
            items.clone().map(|i| self.row(Value(i as u32), names, value)).collect()
        };
        let shown = rows(&Names::shown(&self.weights, layer), &|value| format!("%{}", value.0));
        // Values are counted from where the layer begins: what it reads of the one before has the same number.
        let begin = items.start as i64;
        let compared =
            rows(&Names::compared(&self.weights, layer), &|value| (i64::from(value.0) - begin).to_string());
        let about = counted(items.len(), "node");
        Section { layer, items, about, tables: [shown, Vec::new()], likeness: format!("{compared:?}") }
    }

    fn row(&self, at: Value, names: &Names<'_>, value: &dyn Fn(Value) -> String) -> Row {
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

    /// What a node is called, and with what it does it.
    fn words(&self, op: &Op, width: usize, names: &Names<'_>) -> (&'static str, String) {
        match op {
            Op::Embed(table) => ("embed", names.table(*table)),
            Op::Positions(rows) => ("positions", names.positions(*rows)),
            Op::Norm(_, by @ Norm::Rms { .. }) => ("rms norm", names.norm(by)),
            Op::Norm(_, by @ Norm::Layer { .. }) => ("layer norm", names.norm(by)),
            Op::Linear(_, matrix, None) => ("linear", names.matrix(*matrix)),
            Op::Linear(_, matrix, Some(bias)) => {
                ("linear", format!("{} + {}", names.matrix(*matrix), names.vector(*bias)))
            }
            Op::Split(_, begin) => ("split", format!("columns {begin} to {}", begin + width - 1)),
            Op::HeadNorm(_, head_dim, by) => {
                ("head norm", format!("heads of {head_dim}, {}", names.norm(by)))
            }
            Op::Rope(_, head_dim, rope) => ("rope", format!("heads of {head_dim}, rope {}", rope.0)),
            Op::Attention(Attention { heads, mask, scale, .. }) => {
                let HeadShape { n_head, n_head_kv, head_dim } = heads;
                let heads = format!("{n_head} heads on {n_head_kv} key/value heads of {head_dim}");
                ("attention", format!("{heads}, {mask}, scale {scale}"))
            }
            Op::Activate(_, function) => (function.name(), String::new()),
            Op::Gate(..) => ("gate", String::new()),
            Op::Add(..) => ("add", String::new()),
            Op::Scale(_, factor) => ("scale", format!("by {factor}")),
            Op::SoftCap(_, cap) => ("soft-cap", format!("at {cap}")),
            Op::Select(_) => ("select", String::new()),
            Op::Pool(_) => ("mean", String::new()),
        }
    }
}

impl Activation {
    /// As it is written in texts.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu (tanh)",
            Activation::GeluErf => "gelu (erf)",
            Activation::Relu => "relu",
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
