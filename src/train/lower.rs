//! Lowers a graph to a plan of training: the forward pass in the graph's order, the loss, and the backward pass in the
//! reverse order. Every value keeps its buffer until the last step that reads it, forward or backward.

mod backward;
mod forward;

use super::parameters::{Parameters, Weight};
use super::plan::{Plan, Planned, View, WHAT};
use super::steps::Step;
use super::steps::attention::Attention;
use super::steps::dropout::Dropout;
use super::steps::norm::Norm;
use crate::error::{Error, Result};
use crate::memory::reserve::{filled, reserve};
use crate::model::graph::{Graph, Op, Value};
use crate::model::{MatrixId, VectorId};

/// Bytes of logits that stand in memory together, about.
const LOGIT_BYTES: usize = 8 << 20;
/// Rows of logits that stand in memory together, at least.
const LOGIT_ROWS: usize = 64;

/// The sizes of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub sequences: usize,
    pub context: usize,
}

impl Sizes {
    pub fn rows(&self) -> usize {
        self.sequences * self.context
    }
}

/// What a plan of training has beyond one of losses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backward {
    /// The share of elements that are dropped.
    pub dropout: f64,
    /// Whether a layer's values are computed again when its backward pass comes, instead of being kept.
    pub recompute: bool,
}

/// The plan of losses, with the backward pass behind them if there is to be one.
///
/// # Errors
/// [`Error::Unsupported`], naming layer and operation, for a graph that can't be trained; [`Error::OutOfMemory`].
pub(super) fn lower(
    graph: &Graph,
    parameters: &Parameters,
    sizes: Sizes,
    backward: Option<Backward>,
) -> Result<Plan> {
    let mut lowering = Lowering::new(graph, parameters, sizes)?;
    lowering.dropout = backward.map_or(0.0, |backward| backward.dropout);
    let head = lowering.head()?;
    let before = 0..head.node.index();
    for i in before.clone() {
        if lowering.live[i] {
            lowering.forward(Value(i as u32))?;
        }
    }
    lowering.losses(head, backward.is_some())?;
    if let Some(Backward { recompute, .. }) = backward {
        // The last layer's values have just been computed.
        let mut present = before.clone().filter_map(|i| graph.nodes[i].layer).max();
        for i in before.rev() {
            if !lowering.live[i] {
                continue;
            }
            let layer = graph.nodes[i].layer;
            if recompute && layer.is_some() && layer != present {
                lowering.again(layer)?;
                present = layer;
            }
            lowering.backward(Value(i as u32))?;
        }
    }
    lowering.plan.place_barriers()?;
    Ok(lowering.plan)
}

/// The product that gives the logits.
#[derive(Clone, Copy)]
struct Head {
    node: Value,
    x: Value,
    matrix: MatrixId,
    bias: Option<VectorId>,
    scale: f32,
}

struct Lowering<'g> {
    graph: &'g Graph,
    parameters: &'g Parameters,
    sizes: Sizes,
    plan: Plan,
    /// The share of elements that are dropped.
    dropout: f64,
    /// Whether the logits depend on each node.
    live: Vec<bool>,
    /// The live nodes that read each value.
    readers: Vec<Vec<Value>>,
    /// The columns of each value.
    values: Vec<Option<View>>,
    /// What backward passes need of norms and of attention, by node.
    norms: Vec<Option<Norm>>,
    attentions: Vec<Option<Attention>>,
    /// The columns of each value's gradient.
    gradients: Vec<Option<View>>,
    /// Whether each gradient has its first part.
    begun: Vec<bool>,
    /// Whether the backward pass is through with each node.
    finished: Vec<bool>,
}

impl<'g> Lowering<'g> {
    fn new(graph: &'g Graph, parameters: &'g Parameters, sizes: Sizes) -> Result<Self> {
        let n = graph.nodes.len();
        let logits = graph.need_logits()?;
        let (mut live, mut readers) = (filled(false, n, WHAT)?, filled(Vec::new(), n, WHAT)?);
        live[logits.index()] = true;
        for i in (0..=logits.index()).rev().filter(|&i| i < n) {
            if live[i] {
                for input in graph.nodes[i].op.inputs() {
                    live[input.index()] = true;
                    reserve(&mut readers[input.index()], 1, WHAT)?;
                    readers[input.index()].push(Value(i as u32));
                }
            }
        }
        Ok(Lowering {
            graph,
            parameters,
            sizes,
            plan: Plan::default(),
            dropout: 0.0,
            live,
            readers,
            values: filled(None, n, WHAT)?,
            norms: filled(None, n, WHAT)?,
            attentions: filled(None, n, WHAT)?,
            gradients: filled(None, n, WHAT)?,
            begun: filled(false, n, WHAT)?,
            finished: filled(false, n, WHAT)?,
        })
    }

    /// Appends the steps that compute a layer's values again, except those that only other layers read. From then on their
    /// columns are the new ones, so that the old ones needn't outlive the forward pass.
    fn again(&mut self, layer: Option<usize>) -> Result<()> {
        for i in (0..self.graph.nodes.len()).filter(|&i| self.graph.nodes[i].layer == layer) {
            let inside = |&reader: &Value| self.graph.node(reader).layer == layer;
            if self.live[i] && self.readers[i].iter().any(inside) {
                self.forward(Value(i as u32))?;
            }
        }
        Ok(())
    }

    fn op(&self, value: Value) -> &'g Op {
        &self.graph.node(value).op
    }

    fn width(&self, value: Value) -> usize {
        self.graph.shape(value).width
    }

    /// Whether `reader` is the only reader of a value.
    fn only_for(&self, value: Value, reader: Value) -> bool {
        self.readers[value.index()] == [reader]
    }

    fn matrix(&self, id: MatrixId) -> Result<Weight> {
        self.parameters.weight(self.graph, self.graph.weights.matrix(id))
    }

    fn vector(&self, id: VectorId) -> Result<Weight> {
        self.parameters.weight(self.graph, self.graph.weights.vector(id))
    }

    fn unsupported<T>(&self, value: Value, what: &str) -> Result<T> {
        let layer = self.graph.node(value).layer.map_or(String::new(), |layer| format!(", layer {layer}"));
        Err(Error::Unsupported(format!("{}{layer}: training of {what}", self.graph.family)))
    }

    /// The columns of a value that has been lowered.
    fn value(&self, value: Value) -> Result<View> {
        let lost = || Error::Internal(format!("value {} is read before it is computed", value.index()));
        self.values[value.index()].ok_or_else(lost)
    }

    /// A buffer with a row for each token of a micro-batch.
    fn buffer(&mut self, width: usize) -> Result<View> {
        self.plan.buffer(self.sizes.rows(), width)
    }

    /// Whether elements of a value are dropped: of embeddings, and of products that are added to the residual stream.
    fn drops(&self, value: Value) -> bool {
        let reader = |value: Value| match self.readers[value.index()][..] {
            [reader] => Some(self.op(reader)),
            _ => None,
        };
        let embedded = |x: Value| matches!(self.op(x), Op::Embed(_) | Op::Positions(_));
        self.dropout > 0.0
            && match *self.op(value) {
                Op::Linear(..) => matches!(reader(value), Some(Op::Add(..))),
                Op::Embed(_) => !matches!(reader(value), Some(Op::Add(..))),
                Op::Add(a, b) => embedded(a) && embedded(b),
                _ => false,
            }
    }

    /// Drops elements of columns that belong to a value or its gradient.
    fn drop_elements(&mut self, value: Value, x: View) -> Result<()> {
        let step = Dropout { x, site: value.index(), rate: self.dropout };
        self.push_by_row(value, step, &[x])
    }

    /// Appends a step whose workers meet others' rows or columns.
    fn push(&mut self, node: Value, step: impl Step + 'static, uses: &[View]) -> Result<()> {
        self.append(node, Box::new(step), None, uses, false)
    }

    /// Appends a step that works on the worker's own rows.
    fn push_by_row(&mut self, node: Value, step: impl Step + 'static, uses: &[View]) -> Result<()> {
        self.append(node, Box::new(step), None, uses, true)
    }

    fn append(
        &mut self,
        node: Value,
        step: Box<dyn Step>,
        result: Option<View>,
        uses: &[View],
        by_row: bool,
    ) -> Result<()> {
        self.plan.push(Planned { step, node, result, by_row, barrier: true }, uses)
    }

    /// The product behind the hidden rows.
    fn head(&self) -> Result<Head> {
        let logits = self.graph.need_logits()?;
        let (mut node, mut factor) = (logits, 1.0);
        if let Op::Scale(x, scale) = *self.op(node) {
            (node, factor) = (x, scale);
        }
        match *self.op(node) {
            Op::Linear(x, matrix, bias, scale) if bias.is_none() || factor == 1.0 => {
                Ok(Head { node, x, matrix, bias, scale: scale * factor })
            }
            _ => self.unsupported(node, "logits that are no plain product"),
        }
    }

    /// Rows of logits that stand in memory together.
    fn logit_rows(&self, vocabulary: usize) -> usize {
        (LOGIT_BYTES / (4 * vocabulary.max(1))).max(LOGIT_ROWS).min(self.sizes.rows()).max(1)
    }
}
