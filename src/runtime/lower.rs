//! Lowers a graph to a plan. This is the only place that decides which operations are fused: queries, keys and values
//! become one product, norms and gates quantise their results, residuals are added in place. Attention and sums are
//! lowered in the graph's order. All other nodes are lowered on demand, when a reader needs their value, in the form
//! that the reader needs.

mod attention;
mod gate;
mod recurrent;

use super::plan::{Buf, BufSpec, Plan, Planned};
use super::steps::Step;
use super::steps::columns::Columns;
use super::steps::elementwise::{Elementwise, Function};
use super::steps::embed::Embed;
use super::steps::experts_in::{ExpertPart, ExpertsIn};
use super::steps::experts_out::ExpertsOut;
use super::steps::heads::HeadsDone;
use super::steps::linear::{Linear, Part};
use super::steps::mlp::Mlp;
use super::steps::normalize::Normalize;
use super::steps::pool::Pool;
use super::steps::quantize::Quantize;
use super::steps::route::{Route, RoutesRead};
use super::steps::select::Select;
use crate::error::{Error, Result};
use crate::kernels::qmatmul::Activations;
use crate::kv::LayerId;
use crate::memory::reserve::{filled, reserve};
use crate::model::MatrixId;
use crate::model::experts::{Experts, ExpertsProduct};
use crate::model::graph::{Activation, Graph, Norm, Op, RowSet, Shape, Value};
use crate::ops::experts::Routes;
use crate::profile::Zone;

/// The purpose of the memory, in errors.
const WHAT: &str = "a plan";

/// The plan that computes `result`.
///
/// # Errors
/// [`Error::Unsupported`], naming the layer, for a graph that no steps can compute; [`Error::OutOfMemory`].
pub fn lower(graph: &Graph, activations: Activations, result: Value) -> Result<Plan> {
    let mut lowering = Lowering::new(graph, activations, result)?;
    for (i, node) in graph.nodes.iter().enumerate() {
        let value = Value(i as u32);
        match node.op {
            _ if !lowering.live[i] => {}
            Op::Attention(attention) => lowering.attention(value, &attention)?,
            Op::Add(a, b) => lowering.add(value, a, b)?,
            _ => {}
        }
    }
    let out = lowering.floats(result)?;
    lowering.finish(out)
}

struct Lowering<'g> {
    graph: &'g Graph,
    activations: Activations,
    result: Value,
    plan: Plan,
    /// Whether the result depends on each node.
    live: Vec<bool>,
    /// The live nodes that read each value.
    readers: Vec<Vec<usize>>,
    /// Whether the plan computes each node.
    done: Vec<bool>,
    /// The buffer of each value in f32.
    floats: Vec<Option<Buf>>,
    /// The buffer of each value in quantised form.
    quantized: Vec<Option<Buf>>,
    /// The layer of the cache that each attention reads.
    layers: Vec<Option<LayerId>>,
}

impl<'g> Lowering<'g> {
    fn new(graph: &'g Graph, activations: Activations, result: Value) -> Result<Self> {
        let n = graph.nodes.len();
        let (mut live, mut readers) = (filled(false, n, WHAT)?, filled(Vec::new(), n, WHAT)?);
        live[result.index()] = true;
        for i in (0..n).rev().filter(|&i| i <= result.index()) {
            if live[i] {
                for input in graph.nodes[i].op.inputs() {
                    live[input.index()] = true;
                    reserve(&mut readers[input.index()], 1, WHAT)?;
                    readers[input.index()].push(i);
                }
            }
        }
        let (floats, quantized) = (filled(None, n, WHAT)?, filled(None, n, WHAT)?);
        Ok(Lowering {
            graph,
            activations,
            result,
            plan: Plan { activations, ..Plan::default() },
            live,
            readers,
            done: filled(false, n, WHAT)?,
            floats,
            quantized,
            layers: filled(None, n, WHAT)?,
        })
    }

    /// Ends the plan with the rows of the result.
    fn finish(mut self, out: Buf) -> Result<Plan> {
        let spec = &mut self.plan.buffers[out.index()];
        // The caller gets the rows as one slice, so there are no gaps between them. It reads them after the last step,
        // so no other buffer may share their bytes.
        spec.row_bytes = self.graph.shape(self.result).width * size_of::<f32>();
        spec.last = self.plan.steps.len();
        spec.own_copy = false;
        self.plan.output = Some(out);
        self.plan.place_barriers()?;
        Ok(self.plan)
    }

    fn op(&self, value: Value) -> &'g Op {
        &self.graph.node(value).op
    }

    /// Whether `reader` is the only reader of a value.
    fn only_for(&self, value: Value, reader: Value) -> bool {
        value != self.result && self.readers[value.index()] == [reader.index()]
    }

    /// Whether the plan already computes all readers of a value except `reader`.
    fn last_for(&self, value: Value, reader: Value) -> bool {
        let others = || self.readers[value.index()].iter().filter(|&&other| other != reader.index());
        value != self.result && others().all(|&other| self.done[other])
    }

    fn is_quantized(&self, matrix: MatrixId) -> bool {
        self.graph.weights.matrix(matrix).dtype.is_quantized()
    }

    fn has_quantized(&self, product: &ExpertsProduct) -> bool {
        self.graph.weights.experts(product.matrices).dtype.is_quantized()
    }

    /// Whether some reader needs a value in f32: any reader except products with quantised
    /// matrices.
    fn wanted_as_floats(&self, value: Value) -> bool {
        let as_floats = |&&reader: &&usize| match self.graph.nodes[reader].op {
            Op::Linear(_, matrix, ..) => !self.is_quantized(matrix),
            Op::Experts(experts) if value != experts.router => {
                experts.ins().any(|product| !self.has_quantized(product))
            }
            _ => true,
        };
        value == self.result || self.readers[value.index()].iter().any(|reader| as_floats(&reader))
    }

    fn unsupported<T>(&self, value: Value, what: &str) -> Result<T> {
        let layer = self.graph.node(value).layer.map_or(String::new(), |layer| format!(", layer {layer}"));
        Err(Error::Unsupported(format!("{}{layer}: {what}", self.graph.family)))
    }

    /// A buffer of f32 rows, first written by the next step.
    fn float_buffer(&mut self, rows: RowSet, width: usize) -> Result<Buf> {
        let bytes = width.checked_mul(4).and_then(|b| b.checked_next_multiple_of(64));
        let bytes = bytes.ok_or_else(|| Error::format(format!("rows of {width} values are too long")))?;
        self.buffer(rows, bytes)
    }

    fn buffer(&mut self, rows: RowSet, row_bytes: usize) -> Result<Buf> {
        let step = self.plan.steps.len();
        reserve(&mut self.plan.buffers, 1, WHAT)?;
        self.plan.buffers.push(BufSpec { row_bytes, rows, first: step, last: step, own_copy: false });
        Ok(Buf(self.plan.buffers.len() as u32 - 1))
    }

    /// A buffer for a value, in f32 or quantised.
    fn buffer_of(&mut self, value: Value, quantized: bool) -> Result<Buf> {
        let Shape { rows, width } = self.graph.shape(value);
        if quantized {
            return self.buffer(rows, self.activations.row_bytes(width));
        }
        self.float_buffer(rows, width)
    }

    /// Appends a step that computes a value.
    fn push(&mut self, value: Value, step: impl Step + 'static) -> Result<()> {
        reserve(&mut self.plan.steps, 1, WHAT)?;
        let (index, planned) = (self.plan.steps.len(), Planned::new(step, self.graph.node(value).layer));
        for buf in planned.facts.reads.iter().chain([&planned.facts.out]) {
            let spec = &mut self.plan.buffers[buf.index()];
            spec.last = spec.last.max(index);
        }
        self.plan.steps.push(planned);
        Ok(())
    }

    /// [`Lowering::push`] for a step that computes `out` row by row, so that workers may have copies of their own.
    fn push_row_wise(&mut self, value: Value, step: impl Step + 'static, out: Buf) -> Result<()> {
        self.plan.buffers[out.index()].own_copy = true;
        self.push(value, step)
    }

    /// A value in f32.
    fn floats(&mut self, value: Value) -> Result<Buf> {
        if let Some(buf) = self.floats[value.index()] {
            return Ok(buf);
        }
        let Shape { rows, width } = self.graph.shape(value);
        let buf = match *self.op(value) {
            Op::Embed(_) => self.embed(value, value, None)?,
            Op::Norm(x, norm) => self.normalize(value, x, norm, false)?,
            Op::Linear(..) => {
                let x = self.input(value)?;
                let out = self.float_buffer(rows, width)?;
                self.linear(value, self.zone(value), &[(value, x, 0)], out, false, None)?;
                out
            }
            Op::Activate(x, function) => match self.mlp(value, false)? {
                Some(buf) => buf,
                None => self.elementwise(value, x, |_| Ok(Function::Activate(function)))?,
            },
            Op::Gate(a, b) => match self.mlp_or_gate(value, false)? {
                Some(buf) => buf,
                None => self.elementwise(value, a, |lowering| Ok(Function::Mul(lowering.floats(b)?)))?,
            },
            Op::Conv(conv) => self.conv(value, conv)?,
            Op::Scan(scan) => self.scan(value, scan)?,
            Op::Delta(delta) => self.delta(value, delta)?,
            Op::Experts(experts) => {
                let inside = self.experts_inside(value, &experts)?;
                let out = self.float_buffer(rows, width)?;
                self.experts_out(value, &experts, inside, out, false)?;
                out
            }
            Op::HeadNorm(x, head_dim, norm) => match self.gate(value, false)? {
                Some(buf) => buf,
                None => {
                    let x = self.floats(x)?;
                    let out = self.float_buffer(rows, width)?;
                    let head_dim = Some(head_dim);
                    let step = Normalize { x, norm, width, head_dim, out, quantized: false, rows };
                    self.push_row_wise(value, step, out)?;
                    out
                }
            },
            Op::AddRow(x, row) => self.elementwise(value, x, |_| Ok(Function::AddRow(row)))?,
            Op::Divide(x, by) => self.elementwise(value, x, |_| Ok(Function::Divide(by)))?,
            Op::GateHeads(a, b) => {
                let head_dim = width / self.graph.shape(b).width;
                self.elementwise(value, a, |lowering| Ok(Function::MulHeads(lowering.floats(b)?, head_dim)))?
            }
            Op::Temper(x, temperature) => {
                self.elementwise(value, x, |_| Ok(Function::Temper(temperature)))?
            }
            Op::Scale(x, factor) => self.elementwise(value, x, |_| Ok(Function::Scale(factor)))?,
            Op::SoftCap(x, cap) => self.elementwise(value, x, |_| Ok(Function::SoftCap(cap)))?,
            Op::Clamp(x, least, most) => self.elementwise(value, x, |_| Ok(Function::Clamp(least, most)))?,
            Op::Select(x) => {
                let x = self.floats(x)?;
                let out = self.float_buffer(rows, width)?;
                self.push(value, Select { x, width, out })?;
                out
            }
            Op::Pool(x, pooling) => {
                let x = self.floats(x)?;
                let out = self.float_buffer(rows, width)?;
                self.push(value, Pool { x, pooling, width, out })?;
                out
            }
            Op::Softmax(x) => self.elementwise(value, x, |_| Ok(Function::Softmax))?,
            Op::Positions(_) => {
                return self.unsupported(value, "learned positions that are not added to embeddings");
            }
            Op::Split(x, begin) => {
                let x = self.floats(x)?;
                let out = self.float_buffer(rows, width)?;
                self.push_row_wise(value, Columns { x, begin, width, heads: 1, every: 0, out, rows }, out)?;
                out
            }
            Op::SplitHeads(x, every, begin) => {
                let heads = self.graph.shape(x).width / every;
                let (x, width) = (self.floats(x)?, width / heads);
                let out = self.float_buffer(rows, heads * width)?;
                self.push_row_wise(value, Columns { x, begin, width, heads, every, out, rows }, out)?;
                out
            }
            Op::Rope(..) => {
                return self.unsupported(value, "rotations outside of attention");
            }
            Op::Attention(_) | Op::Add(..) => {
                return Err(Error::Internal("a node was lowered before what it reads".into()));
            }
        };
        Ok(self.made(value, buf))
    }

    /// Notes the buffer of a value in f32, and that the plan computes its node.
    fn made(&mut self, value: Value, buf: Buf) -> Buf {
        self.floats[value.index()] = Some(buf);
        self.done[value.index()] = true;
        buf
    }

    /// A value in quantised form: computed so where no reader needs f32, otherwise quantised from f32.
    fn quantized(&mut self, value: Value) -> Result<Buf> {
        if let Some(buf) = self.quantized[value.index()] {
            return Ok(buf);
        }
        let mut fused = None;
        if self.floats[value.index()].is_none() && !self.wanted_as_floats(value) {
            fused = match *self.op(value) {
                Op::Norm(x, norm @ Norm::Rms { .. }) => Some(self.normalize(value, x, norm, true)?),
                Op::Gate(..) | Op::Activate(..) => self.mlp_or_gate(value, true)?,
                Op::HeadNorm(..) => self.gate(value, true)?,
                _ => None,
            };
        }
        let buf = match fused {
            Some(buf) => buf,
            None => {
                let (x, Shape { rows, width }) = (self.floats(value)?, self.graph.shape(value));
                let out = self.buffer_of(value, true)?;
                self.push_row_wise(value, Quantize { x, out, width, rows }, out)?;
                out
            }
        };
        self.quantized[value.index()] = Some(buf);
        self.done[value.index()] = true;
        Ok(buf)
    }

    /// The input of a product, in the form that its matrix needs.
    fn input(&mut self, linear: Value) -> Result<Buf> {
        match *self.op(linear) {
            Op::Linear(x, matrix, ..) if self.is_quantized(matrix) => self.quantized(x),
            Op::Linear(x, ..) => self.floats(x),
            _ => Err(Error::Internal("no product".into())),
        }
    }

    /// A product's zone in the profile.
    fn zone(&self, linear: Value) -> Zone {
        let Op::Linear(x, ..) = *self.op(linear) else { return Zone::Linear };
        match self.op(x) {
            _ if self.graph.shape(linear).rows == RowSet::Output => Zone::LinearHead,
            _ if self.routes(linear) => Zone::LinearRouter,
            Op::Attention(_) => Zone::LinearAttnOut,
            Op::Gate(..) | Op::Activate(..) => Zone::LinearDown,
            _ => Zone::Linear,
        }
    }

    /// Whether a value is a router's scores.
    fn routes(&self, value: Value) -> bool {
        let mut readers = self.readers[value.index()].iter().map(|&reader| &self.graph.nodes[reader].op);
        readers.any(|op| matches!(op, Op::Experts(experts) if experts.router == value))
    }

    fn part(&self, linear: Value, x: Buf, column: usize) -> Option<Part> {
        let Op::Linear(_, matrix, bias, scale) = *self.op(linear) else { return None };
        Some(Part { x, matrix, bias, column: column as u32, scale })
    }

    /// Products, computed as one step, that `value` needs: each with its input and its first column of `out`.
    fn linear(
        &mut self,
        value: Value,
        zone: Zone,
        products: &[(Value, Buf, usize)],
        out: Buf,
        accumulate: bool,
        heads: Option<HeadsDone>,
    ) -> Result<()> {
        let rows = self.plan.buffers[out.index()].rows;
        let mut parts = products.iter().filter_map(|&(linear, x, column)| self.part(linear, x, column));
        let count = products.len();
        let Some(first) = parts.next() else { return Ok(()) };
        let parts = [first, parts.next().unwrap_or(first), parts.next().unwrap_or(first)];
        products.iter().for_each(|product| self.done[product.0.index()] = true);
        // Each worker writes other columns of it, so no worker can have a copy of its own.
        self.plan.buffers[out.index()].own_copy = false;
        self.push(value, Linear { zone, parts, count, out, accumulate, heads, rows })
    }

    fn embed(&mut self, value: Value, tokens: Value, positions: Option<Value>) -> Result<Buf> {
        let Op::Embed(table) = *self.op(tokens) else { return self.unsupported(value, "no embedding") };
        let positions = match positions.map(|positions| (positions, self.op(positions))) {
            Some((positions, Op::Positions(rows))) => {
                self.done[positions.index()] = true;
                Some(*rows)
            }
            _ => None,
        };
        let width = self.graph.shape(value).width;
        let out = self.float_buffer(RowSet::Batch, width)?;
        self.push(value, Embed { table, positions, width, out })?;
        self.done[tokens.index()] = true;
        Ok(out)
    }

    /// A norm. If its input is a selection of output rows, it reads them in place, among all rows.
    fn normalize(&mut self, value: Value, x: Value, norm: Norm, quantized: bool) -> Result<Buf> {
        let from = match *self.op(x) {
            Op::Select(all) if self.floats[x.index()].is_none() => {
                self.done[x.index()] = true;
                self.floats(all)?
            }
            _ => self.floats(x)?,
        };
        let Shape { rows, width } = self.graph.shape(value);
        let out = self.buffer_of(value, quantized)?;
        self.push_row_wise(
            value,
            Normalize { x: from, norm, width, head_dim: None, out, quantized, rows },
            out,
        )?;
        Ok(out)
    }

    /// A function of the elements of `a`, in place where nothing else reads `a` afterwards.
    fn elementwise(
        &mut self,
        value: Value,
        a: Value,
        function: impl FnOnce(&mut Self) -> Result<Function>,
    ) -> Result<Buf> {
        let (from, function) = (self.floats(a)?, function(self)?);
        let Shape { rows, width } = self.graph.shape(value);
        let out = if self.last_for(a, value) { from } else { self.float_buffer(rows, width)? };
        self.plan.buffers[out.index()].own_copy = false;
        self.push(value, Elementwise { a: from, function, out, width, rows })?;
        Ok(out)
    }

    /// A sum. A product is added to the residual stream in place, if nothing reads the stream's earlier value
    /// afterwards.
    fn add(&mut self, value: Value, a: Value, b: Value) -> Result<()> {
        if matches!((self.op(a), self.op(b)), (Op::Embed(_), Op::Positions(_)))
            && self.only_for(a, value)
            && self.only_for(b, value)
        {
            let out = self.embed(value, a, Some(b))?;
            self.made(value, out);
            return Ok(());
        }
        for (stream, product) in [(a, b), (b, a)] {
            let fits = matches!(self.op(product), Op::Linear(..) | Op::Experts(_))
                && !self.done[product.index()]
                && self.only_for(product, value);
            if !fits || stream == product {
                continue;
            }
            let residual = self.floats(stream)?;
            if self.add_in_place(value, (stream, residual), product)? {
                self.made(value, residual);
                return Ok(());
            }
        }
        let out = self.elementwise(value, a, |lowering| Ok(Function::Add(lowering.floats(b)?)))?;
        self.made(value, out);
        Ok(())
    }

    /// Adds a product, or the sum over experts, to the stream in place, unless something reads the stream's earlier value
    /// afterwards.
    fn add_in_place(
        &mut self,
        value: Value,
        (stream, residual): (Value, Buf),
        product: Value,
    ) -> Result<bool> {
        // Lowering the product's input may lower the last other reader of the stream.
        if let Op::Experts(experts) = *self.op(product) {
            let inside = self.experts_inside(product, &experts)?;
            let in_place = self.last_for(stream, value);
            let Shape { rows, width } = self.graph.shape(product);
            let out = if in_place { residual } else { self.float_buffer(rows, width)? };
            self.experts_out(value, &experts, inside, out, in_place)?;
            if in_place {
                self.done[product.index()] = true;
            } else {
                self.made(product, out);
            }
            return Ok(in_place);
        }
        let x = self.input(product)?;
        let in_place = self.last_for(stream, value);
        if in_place {
            self.linear(value, self.zone(product), &[(product, x, 0)], residual, true, None)?;
        }
        Ok(in_place)
    }

    /// The routes and the inside of experts.
    fn experts_inside(&mut self, value: Value, experts: &Experts) -> Result<(RoutesRead, Buf)> {
        let Experts { x, router, routing, gate, up, down, inner, weighs_input } = *experts;
        let Shape { rows, .. } = self.graph.shape(value);
        let (count, used) = (routing.count, routing.used);
        let too_long = || Error::format(format!("rows of {used} experts are too long"));
        let scores = self.floats(router)?;
        let row = Routes::row_bytes(used).and_then(|bytes| bytes.checked_next_multiple_of(64));
        let buf = self.buffer(rows, row.ok_or_else(too_long)?)?;
        self.push_row_wise(value, Route { scores, routing, out: buf, rows }, buf)?;
        let routes = RoutesRead { buf, count, used };

        let mut part = |product: ExpertsProduct| {
            let x = if self.has_quantized(&product) { self.quantized(x)? } else { self.floats(x)? };
            Ok::<_, Error>(ExpertPart { x, product })
        };
        let (gate, up) = (gate.map(&mut part).transpose()?, part(up)?);
        let (quantized, n) = (self.has_quantized(&down), self.graph.weights.experts(down.matrices).k);
        let bytes = match quantized {
            true => Some(self.activations.row_bytes(n)),
            false => n.checked_mul(size_of::<f32>()).and_then(|bytes| bytes.checked_next_multiple_of(64)),
        };
        let row = bytes.and_then(|bytes| bytes.checked_mul(used)).ok_or_else(too_long)?;
        let out = self.buffer(rows, row)?;
        self.push(value, ExpertsIn { gate, up, routes, inner, weighs_input, out, quantized, rows })?;
        Ok((routes, out))
    }

    /// The sum over experts, from their inside.
    fn experts_out(
        &mut self,
        value: Value,
        experts: &Experts,
        (routes, x): (RoutesRead, Buf),
        out: Buf,
        accumulate: bool,
    ) -> Result<()> {
        let rows = self.plan.buffers[out.index()].rows;
        let down = ExpertPart { x, product: experts.down };
        // Each worker writes other columns of it, so no worker can have a copy of its own.
        self.plan.buffers[out.index()].own_copy = false;
        self.push(value, ExpertsOut { down, routes, weighs: !experts.weighs_input, out, accumulate, rows })
    }

    /// The inside of an MLP or a gate as one step, if the value is one of them.
    fn mlp_or_gate(&mut self, value: Value, quantized: bool) -> Result<Option<Buf>> {
        match self.mlp(value, quantized)? {
            None => self.gate(value, quantized),
            mlp => Ok(mlp),
        }
    }

    /// The inside of an MLP as one step, if the value is one: an activated product, with or without a gate.
    fn mlp(&mut self, value: Value, quantized: bool) -> Result<Option<Buf>> {
        let Some((gate, up, function)) = self.mlp_parts(value) else { return Ok(None) };
        if quantized && !Mlp::quantizes(gate.is_some(), function) {
            return Ok(None);
        }
        let gate_x = gate.map(|gate| self.input(gate)).transpose()?;
        let up_x = self.input(up)?;
        let out = self.buffer_of(value, quantized)?;
        let gate = gate.zip(gate_x).and_then(|(gate, x)| {
            self.done[gate.index()] = true;
            self.part(gate, x, 0)
        });
        let Some(up_part) = self.part(up, up_x, 0) else { return Ok(None) };
        self.done[up.index()] = true;
        let rows = self.graph.shape(value).rows;
        self.push(value, Mlp { gate, up: up_part, function, out, quantized, rows })?;
        Ok(Some(out))
    }

    /// The products of gate (if there is one) and up, and the activation.
    fn mlp_parts(&self, value: Value) -> Option<(Option<Value>, Value, Activation)> {
        let product = |x: Value, reader: Value| {
            matches!(self.op(x), Op::Linear(..)) && !self.done[x.index()] && self.only_for(x, reader)
        };
        match *self.op(value) {
            Op::Activate(x, function) if product(x, value) && Mlp::has_kernel(false, function) => {
                Some((None, x, function))
            }
            Op::Gate(a, b) => [(a, b), (b, a)].into_iter().find_map(|(activated, up)| {
                let Op::Activate(gate, function) = *self.op(activated) else { return None };
                let fits = self.only_for(activated, value) && product(gate, activated) && product(up, value);
                (fits && Mlp::has_kernel(true, function)).then_some((Some(gate), up, function))
            }),
            _ => None,
        }
    }
}
