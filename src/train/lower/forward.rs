//! The forward half of the lowering.

use super::{Head, Lowering};
use crate::error::Result;
use crate::model::Mask;
use crate::model::graph::{self, KeyValues, Norm as GraphNorm, Op, RowSet, Scores, Value};
use crate::profile::Zone;
use crate::train::parameters::Weight;
use crate::train::plan::View;
use crate::train::steps::Step;
use crate::train::steps::attention::{Attend, Attention};
use crate::train::steps::elementwise::{Activate, Combine, GateFunction, Gated, Pair, Scale};
use crate::train::steps::embed::{By, Embed};
use crate::train::steps::loss::CrossEntropy;
use crate::train::steps::norm::{BiasGradient, Norm, Normalize};
use crate::train::steps::product::{InputGradient, MatrixGradient, Product, Sizes};
use crate::train::steps::rope::Rotate;

/// `f(gate) · up` of two values.
pub(super) struct GatedParts {
    pub function: GateFunction,
    pub gate: Value,
    pub up: Value,
}

impl Lowering<'_> {
    /// Appends the steps that compute a value.
    pub(super) fn forward(&mut self, value: Value) -> Result<()> {
        if self.graph.shape(value).rows == RowSet::Span {
            return self.unsupported(value, "rows that stand for a sequence");
        }
        let view = match *self.op(value) {
            Op::Embed(table) => {
                let table = self.parameters.weight(self.graph, self.graph.weights.table(table))?;
                self.embed(value, table, By::Token)?
            }
            Op::Positions(rows) => {
                let table = self.vector(rows)?;
                self.embed(value, table, By::Position)?
            }
            Op::Norm(x, norm) => self.norm(value, x, norm, self.width(x))?,
            Op::HeadNorm(x, head_dim, norm) => self.norm(value, x, norm, head_dim)?,
            // A sum adds it to its other operand.
            Op::Linear(..) if self.fused_sum(value).is_some() => return Ok(()),
            Op::Linear(..) => self.product(value, None)?,
            Op::Split(x, first) => self.value(x)?.columns(first, self.width(value)),
            Op::Select(x) => self.value(x)?,
            Op::Rope(x, head_dim, rope) => self.rope(value, x, head_dim, rope.0 as usize)?,
            Op::Attention(attention) => self.attend(value, &attention)?,
            // The gate does it.
            Op::Activate(..) if self.fused_gate(value).is_some() => return Ok(()),
            Op::Activate(x, function) => {
                let (x, out) = (self.value(x)?, self.buffer(self.width(value))?);
                self.push_value(value, Activate { function, x, out }, out, &[x, out])?
            }
            Op::Gate(a, b) => self.gate(value, a, b)?,
            Op::Add(a, b) => self.add(value, a, b)?,
            Op::Scale(x, factor) => {
                let (view, out) = (self.value(x)?, self.in_place(value, x)?);
                self.push_value(value, Scale { factor, x: view, out }, out, &[view, out])?
            }
            _ => return self.refuse(value),
        };
        if self.drops(value) {
            self.drop_elements(value, view)?;
        }
        self.values[value.index()] = Some(view);
        Ok(())
    }

    /// The error for an operation without a backward pass.
    pub(super) fn refuse<T>(&self, value: Value) -> Result<T> {
        let what = match self.op(value) {
            Op::SplitHeads(..) => "parts of heads",
            Op::GateHeads(..) => "gates of heads",
            Op::AddRow(..) => "a row added to all",
            Op::Divide(..) => "divided columns",
            Op::Temper(..) => "factors of positions",
            Op::Conv(_) => "convolutions",
            Op::Scan(_) | Op::Delta(_) => "recurrent layers",
            Op::Experts(_) => "mixtures of experts",
            Op::SoftCap(..) => "soft-capped values",
            Op::Clamp(..) => "clamped values",
            Op::Pool(..) => "pooled rows",
            Op::Softmax(_) => "a softmax outside of attention",
            _ => "this operation",
        };
        self.unsupported(value, what)
    }

    /// Appends a step that works on the worker's own rows and computes a value in `out`.
    fn push_value(
        &mut self,
        node: Value,
        step: impl Step + 'static,
        out: View,
        uses: &[View],
    ) -> Result<View> {
        self.append(node, Box::new(step), Some(out), uses, true)?;
        Ok(out)
    }

    fn embed(&mut self, value: Value, table: Weight, by: By) -> Result<View> {
        let out = self.buffer(self.width(value))?;
        self.push_value(value, Embed { table, by, out }, out, &[out])
    }

    fn norm(&mut self, value: Value, x: Value, norm: GraphNorm, head_dim: usize) -> Result<View> {
        let heads = self.width(x) / head_dim;
        let rows = self.sizes.rows();
        let factors = self.plan.buffer(heads, rows)?;
        let (gain, bias, eps) = match norm {
            GraphNorm::Rms { gain, eps } => (gain, None, eps),
            GraphNorm::Layer { gain, bias, eps } => (gain, Some(bias), eps),
        };
        let (gain, bias) = (self.vector(gain)?, bias.map(|bias| self.vector(bias)).transpose()?);
        let means = match bias {
            Some(_) => Some(self.plan.buffer(heads, rows)?),
            None => None,
        };
        let norm = Norm { gain, bias, eps, heads, head_dim, factors, means };
        self.norms[value.index()] = Some(norm);
        let (x, out) = (self.value(x)?, self.buffer(self.width(value))?);
        let uses = [x, out, factors, means.unwrap_or(factors)];
        self.push_value(value, Normalize { norm, x, out }, out, &uses)
    }

    /// The product of a linear node, and its sum with a residual.
    fn product(&mut self, linear: Value, residual: Option<View>) -> Result<View> {
        let Op::Linear(x, matrix, bias, scale) = *self.op(linear) else { return self.refuse(linear) };
        let (w, bias) = (self.matrix(matrix)?, bias.map(|bias| self.vector(bias)).transpose()?);
        let (n, k) = (self.width(linear), self.width(x));
        let sizes = Sizes { rows: 0..self.sizes.rows(), n, k, scale };
        let (from, x, out) = (x, self.value(x)?, self.buffer(n)?);
        let zone = match self.graph.node(from).op {
            Op::Attention(_) => Zone::LinearAttnOut,
            Op::Gate(..) | Op::Activate(..) => Zone::LinearDown,
            _ => Zone::Linear,
        };
        let step = Product { zone, sizes, x, w, bias, residual, out };
        self.append(linear, Box::new(step), Some(out), &[x, out, residual.unwrap_or(x)], false)?;
        Ok(out)
    }

    /// The sum that computes a product together with its other operand.
    fn fused_sum(&self, linear: Value) -> Option<Value> {
        let [reader] = self.readers[linear.index()][..] else { return None };
        let Op::Add(a, b) = *self.op(reader) else { return None };
        (self.summand(reader, a, b) == Some(linear)).then_some(reader)
    }

    /// The operand of a sum that is a product of its own: the later one, when the other one has been computed.
    fn summand(&self, sum: Value, a: Value, b: Value) -> Option<Value> {
        let later = if a.index() > b.index() { a } else { b };
        let product = matches!(self.op(later), Op::Linear(..)) && self.only_for(later, sum);
        (a != b && product && !self.drops(later)).then_some(later)
    }

    fn add(&mut self, value: Value, a: Value, b: Value) -> Result<View> {
        if let Some(linear) = self.summand(value, a, b) {
            let residual = self.value(if linear == a { b } else { a })?;
            return self.product(linear, Some(residual));
        }
        let (x, y) = (self.value(a)?, self.value(b)?);
        let out = self.in_place(value, a)?;
        self.push_value(value, Combine { pair: Pair::Sum, a: x, b: y, out }, out, &[x, y, out])
    }

    /// The buffer of an operand that nothing else reads, nor its own backward pass; or a new one.
    fn in_place(&mut self, value: Value, x: Value) -> Result<View> {
        let owns = matches!(
            self.op(x),
            Op::Embed(_) | Op::Positions(_) | Op::Linear(..) | Op::Norm(..) | Op::HeadNorm(..)
        );
        match self.values[x.index()] {
            Some(view) if owns && self.only_for(x, value) => Ok(view),
            _ => self.buffer(self.width(value)),
        }
    }

    fn rope(&mut self, value: Value, x: Value, head_dim: usize, table: usize) -> Result<View> {
        let from = self.value(x)?;
        // Columns of a product are rotated where they are, if nobody else reads them.
        let split = match *self.op(x) {
            Op::Split(product, _) => self.only_for(x, value) && self.splits_apart(product),
            _ => false,
        };
        let out = if split { from } else { self.in_place(value, x)? };
        if out != from {
            self.push_by_row(value, Scale { factor: 1.0, x: from, out }, &[from, out])?;
        }
        self.push_value(value, Rotate { x: out, head_dim, table, back: false }, out, &[out])
    }

    fn attend(&mut self, value: Value, attention: &graph::Attention) -> Result<View> {
        let KeyValues::Own(k, v) = attention.kv else {
            return self.unsupported(value, "attention to another layer's keys");
        };
        match attention.mask {
            Mask::Causal => {}
            Mask::Window(n) if n >= self.sizes.context => {}
            _ => return self.unsupported(value, "attention with this mask"),
        }
        let Scores { scale, soft_cap, sinks, alibi } = attention.scores;
        if soft_cap.is_some() || sinks.is_some() || alibi.is_some() {
            return self.unsupported(value, "attention with changed scores");
        }
        let (heads, sizes) = (attention.heads, self.sizes);
        let (q, k, v) = (self.value(attention.q)?, self.value(k)?, self.value(v)?);
        let out = self.buffer(self.width(value))?;
        let lse = self.plan.buffer(sizes.sequences * heads.n_head, sizes.context)?;
        let (sequences, context) = (sizes.sequences, sizes.context);
        let attention = Attention { q, k, v, out, lse, heads, scale, sequences, context };
        self.attentions[value.index()] = Some(attention);
        self.append(value, Box::new(Attend(attention)), Some(out), &[q, k, v, out, lse], false)?;
        Ok(out)
    }

    /// The gate that computes an activation on the way.
    fn fused_gate(&self, activated: Value) -> Option<Value> {
        let [reader] = self.readers[activated.index()][..] else { return None };
        let Op::Gate(a, b) = *self.op(reader) else { return None };
        let parts = self.gated(reader, a, b)?;
        let gate = matches!(*self.op(activated), Op::Activate(x, _) if x == parts.gate);
        gate.then_some(reader)
    }

    /// A gate's parts, if one operand is an activation of its own that there is a kernel for.
    pub(super) fn gated(&self, gate: Value, a: Value, b: Value) -> Option<GatedParts> {
        [(a, b), (b, a)].into_iter().find_map(|(activated, up)| {
            let Op::Activate(x, function) = *self.op(activated) else { return None };
            let function = GateFunction::of(function)?;
            (a != b && self.only_for(activated, gate)).then_some(GatedParts { function, gate: x, up })
        })
    }

    fn gate(&mut self, value: Value, a: Value, b: Value) -> Result<View> {
        if let Some(GatedParts { function, gate, up }) = self.gated(value, a, b) {
            let (gate, up, out) = (self.value(gate)?, self.value(up)?, self.buffer(self.width(value))?);
            return self.push_value(value, Gated { function, gate, up, out }, out, &[gate, up, out]);
        }
        let (a, b, out) = (self.value(a)?, self.value(b)?, self.buffer(self.width(value))?);
        self.push_value(value, Combine { pair: Pair::Product, a, b, out }, out, &[a, b, out])
    }

    /// The logits, a run of rows at a time: each run's losses, and with `backward` the gradients of hidden rows and head
    /// before the next run takes the memory of its logits.
    pub(super) fn losses(&mut self, head: Head, backward: bool) -> Result<()> {
        let Head { node, x, matrix, bias, scale } = head;
        let (w, bias) = (self.matrix(matrix)?, bias.map(|bias| self.vector(bias)).transpose()?);
        let (rows, n, k) = (self.sizes.rows(), self.width(node), self.width(x));
        let most = self.logit_rows(n);
        let hidden = self.value(x)?;
        let gradient = if backward { Some(self.place(x)?) } else { None };
        for first in (0..rows).step_by(most) {
            let run = first..rows.min(first + most);
            let sizes = Sizes { rows: run.clone(), n, k, scale };
            let logits = self.plan.buffer(run.len(), n)?;
            let step = Product {
                zone: Zone::LinearHead,
                sizes: sizes.clone(),
                x: hidden,
                w,
                bias,
                residual: None,
                out: logits,
            };
            self.append(node, Box::new(step), Some(logits), &[hidden, logits], false)?;
            self.push(node, CrossEntropy { logits, rows: run.clone(), backward }, &[logits])?;
            let Some(dx) = gradient else { continue };
            let step = InputGradient { sizes: sizes.clone(), dy: logits, w, dx, add: false };
            self.push(node, step, &[logits, dx])?;
            if w.trained {
                self.push(node, MatrixGradient { sizes, dy: logits, x: hidden, w }, &[logits, hidden])?;
            }
            if let Some(bias) = bias.filter(|bias| bias.trained) {
                self.push(node, BiasGradient { dy: logits, rows: run.len(), bias }, &[logits])?;
            }
        }
        if backward {
            self.begun[x.index()] = true;
        }
        Ok(())
    }
}
