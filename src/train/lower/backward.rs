//! The backward half of the lowering. A gradient gets its columns when the first part of it is computed; later parts are
//! added. Where a gradient is that of another value unchanged (columns of a product, the operands of a sum), both have
//! the same columns, until one of them is to be changed while the other is still read.

use super::Lowering;
use super::forward::GatedParts;
use crate::error::{Error, Result};
use crate::memory::reserve::{copied, reserve};
use crate::model::graph::{KeyValues, Op, Value};
use crate::train::parameters::Weight;
use crate::train::plan::{View, WHAT};
use crate::train::steps::attention::AttendBack;
use crate::train::steps::elementwise::{ActivateBack, Combine, GatedBack, Pair, Scale, Zero};
use crate::train::steps::embed::{By, TableGradient};
use crate::train::steps::norm::{BiasGradient, NormInput, NormWeights};
use crate::train::steps::product::{InputGradient, MatrixGradient, Sizes};
use crate::train::steps::rope::Rotate;

/// Where a step puts a part of a gradient.
#[derive(Clone, Copy)]
struct Target {
    view: View,
    /// Whether the part is added to what is there.
    add: bool,
}

impl Lowering<'_> {
    /// Appends the steps from a value's gradient to those of its operands and weights.
    pub(super) fn backward(&mut self, value: Value) -> Result<()> {
        if self.drops(value) {
            let dy = self.own(value)?;
            self.drop_elements(value, dy)?;
        }
        match *self.op(value) {
            Op::Embed(table) => {
                let table = self.parameters.weight(self.graph, self.graph.weights.table(table))?;
                self.table_back(value, table, By::Token)?;
            }
            Op::Positions(rows) => self.table_back(value, self.vector(rows)?, By::Position)?,
            Op::Norm(x, _) | Op::HeadNorm(x, ..) => self.norm_back(value, x)?,
            Op::Linear(..) => self.product_back(value)?,
            Op::Split(x, first) => self.split_back(value, x, first)?,
            Op::Select(x) => self.unchanged(value, x)?,
            Op::Rope(x, head_dim, rope) => {
                let dy = self.own(value)?;
                let table = rope.0 as usize;
                self.push_by_row(value, Rotate { x: dy, head_dim, table, back: true }, &[dy])?;
                self.unchanged(value, x)?;
            }
            Op::Scale(x, factor) => {
                let dy = self.own(value)?;
                self.push_by_row(value, Scale { factor, x: dy, out: dy }, &[dy])?;
                self.unchanged(value, x)?;
            }
            Op::Attention(_) => self.attend_back(value)?,
            Op::Activate(x, function) => {
                // The gate did it.
                if self.gradients[value.index()].is_some() {
                    let (dy, view) = (self.own(value)?, self.value(x)?);
                    self.push_by_row(value, ActivateBack { function, x: view, dy }, &[view, dy])?;
                    self.unchanged(value, x)?;
                }
            }
            Op::Gate(a, b) => self.gate_back(value, a, b)?,
            Op::Add(a, b) => {
                let dy = self.gradient(value)?;
                self.give(value, a, dy)?;
                self.give(value, b, dy)?;
            }
            _ => return self.refuse(value),
        }
        self.finished[value.index()] = true;
        Ok(())
    }

    /// The columns of a value's gradient, which is complete.
    fn gradient(&self, value: Value) -> Result<View> {
        let lost = || Error::Internal(format!("value {} has no gradient", value.index()));
        self.gradients[value.index()].ok_or_else(lost)
    }

    /// Whether all readers of a product are splits whose columns are apart and leave none out, so that their gradients
    /// together are the product's.
    pub(super) fn splits_apart(&self, x: Value) -> bool {
        let splits = self.readers[x.index()].iter().map(|&reader| match *self.op(reader) {
            Op::Split(_, first) => Some((first, self.width(reader))),
            _ => None,
        });
        let Some(mut splits) = splits.collect::<Option<Vec<_>>>() else { return false };
        splits.sort_unstable();
        let end = splits.iter().try_fold(0, |end, &(first, width)| (first == end).then_some(end + width));
        end == Some(self.width(x))
    }

    /// The value whose gradient has, from the column given, the same columns as that of `value`.
    fn alias(&self, value: Value) -> Option<(Value, usize)> {
        match *self.op(value) {
            Op::Split(x, first) if self.splits_apart(x) => Some((x, first)),
            Op::Rope(x, ..) | Op::Activate(x, _) | Op::Select(x) | Op::Scale(x, _)
                if self.only_for(x, value) =>
            {
                Some((x, 0))
            }
            _ => None,
        }
    }

    /// The columns of a value's gradient, whether or not there is anything in them yet.
    pub(super) fn place(&mut self, value: Value) -> Result<View> {
        if let Some(view) = self.gradients[value.index()] {
            return Ok(view);
        }
        let width = self.width(value);
        let view = match self.alias(value) {
            Some((x, first)) => self.place(x)?.columns(first, width),
            None => self.buffer(width)?,
        };
        self.gradients[value.index()] = Some(view);
        Ok(view)
    }

    /// Where the next part of a value's gradient is put.
    fn target(&mut self, value: Value) -> Result<Target> {
        let add = std::mem::replace(&mut self.begun[value.index()], true);
        let view = if add { self.own(value)? } else { self.place(value)? };
        Ok(Target { view, add })
    }

    /// The columns of a value's gradient to change in place: copied first where another gradient has them too.
    fn own(&mut self, value: Value) -> Result<View> {
        let view = self.gradient(value)?;
        let others = (0..self.gradients.len()).filter(|&i| i != value.index());
        let read = |i: usize| self.begun[i] && !self.finished[i];
        let shared =
            others.into_iter().any(|i| read(i) && self.gradients[i].is_some_and(|v| v.overlaps(view)));
        if !shared {
            return Ok(view);
        }
        let out = self.buffer(view.width)?;
        self.push_by_row(value, Scale { factor: 1.0, x: view, out }, &[view, out])?;
        self.gradients[value.index()] = Some(out);
        Ok(out)
    }

    /// Makes all of `dy` a part of the gradient of `x`.
    fn give(&mut self, node: Value, x: Value, dy: View) -> Result<()> {
        let index = x.index();
        if self.gradients[index].is_none() && self.alias(x).is_none() && !self.has_splits(x) {
            self.gradients[index] = Some(dy);
            self.begun[index] = true;
            return Ok(());
        }
        let Target { view, add } = self.target(x)?;
        self.put(node, dy, Target { view, add })
    }

    /// Whether splits read a value.
    fn has_splits(&self, x: Value) -> bool {
        self.readers[x.index()].iter().any(|&reader| matches!(self.op(reader), Op::Split(..)))
    }

    /// Copies or adds columns to their target.
    fn put(&mut self, node: Value, dy: View, Target { view, add }: Target) -> Result<()> {
        match add {
            true => {
                let step = Combine { pair: Pair::Sum, a: view, b: dy, out: view };
                self.push_by_row(node, step, &[view, dy])
            }
            false => self.push_by_row(node, Scale { factor: 1.0, x: dy, out: view }, &[dy, view]),
        }
    }

    /// The gradient of `x` is that of `value`, or has it as a part.
    fn unchanged(&mut self, value: Value, x: Value) -> Result<()> {
        let dy = self.gradient(value)?;
        self.finished[value.index()] = true;
        if self.alias(value).is_some() && self.gradients[x.index()].is_none_or(|view| view == dy) {
            self.gradients[x.index()] = Some(dy);
            self.begun[x.index()] = true;
            return Ok(());
        }
        self.give(value, x, dy)
    }

    fn split_back(&mut self, value: Value, x: Value, first: usize) -> Result<()> {
        let dy = self.gradient(value)?;
        if self.alias(value).is_some() {
            let own = self.place(x)?.columns(first, dy.width);
            if own != dy {
                self.put(value, dy, Target { view: own, add: false })?;
            }
            return Ok(());
        }
        if !self.begun[x.index()] {
            let out = self.place(x)?;
            self.begun[x.index()] = true;
            self.push_by_row(value, Zero { out }, &[out])?;
        }
        let view = self.own(x)?.columns(first, dy.width);
        self.put(value, dy, Target { view, add: true })
    }

    /// Calls `push` with columns for a part of a gradient that its step can't add to what is there, and adds them then.
    fn apart<R>(
        &mut self,
        node: Value,
        value: Value,
        push: impl FnOnce(&mut Self, View) -> Result<R>,
    ) -> Result<R> {
        let target = self.target(value)?;
        if !target.add {
            return push(self, target.view);
        }
        let part = self.buffer(target.view.width)?;
        let result = push(self, part)?;
        self.put(node, part, target)?;
        Ok(result)
    }

    fn norm_back(&mut self, value: Value, x: Value) -> Result<()> {
        let lost = || Error::Internal("a norm without statistics".into());
        let norm = self.norms[value.index()].ok_or_else(lost)?;
        let (dy, view) = (self.gradient(value)?, self.value(x)?);
        let statistics = [norm.factors, norm.means.unwrap_or(norm.factors)];
        if norm.gain.trained {
            let uses = [view, dy, statistics[0], statistics[1]];
            self.push(value, NormWeights { norm, x: view, dy }, &uses)?;
        }
        let Target { view: dx, add } = self.target(x)?;
        let uses = [view, dy, dx, statistics[0], statistics[1]];
        self.push_by_row(value, NormInput { norm, x: view, dy, dx, add }, &uses)
    }

    fn table_back(&mut self, value: Value, table: Weight, by: By) -> Result<()> {
        let dy = self.gradient(value)?;
        match table.trained {
            true => self.push(value, TableGradient { table, by, dy }, &[dy]),
            false => Ok(()),
        }
    }

    fn product_back(&mut self, value: Value) -> Result<()> {
        let Op::Linear(x, matrix, bias, scale) = *self.op(value) else { return self.refuse(value) };
        let (w, bias) = (self.matrix(matrix)?, bias.map(|bias| self.vector(bias)).transpose()?);
        let (n, k) = (self.width(value), self.width(x));
        let sizes = Sizes { rows: 0..self.sizes.rows(), n, k, scale };
        let (dy, view) = (self.gradient(value)?, self.value(x)?);
        if w.trained {
            self.push(value, MatrixGradient { sizes: sizes.clone(), dy, x: view, w }, &[dy, view])?;
        }
        if let Some(bias) = bias.filter(|bias| bias.trained) {
            self.push(value, BiasGradient { dy, rows: self.sizes.rows(), bias }, &[dy])?;
        }
        let Target { view: dx, add } = self.target(x)?;
        self.push(value, InputGradient { sizes, dy, w, dx, add }, &[dy, dx])
    }

    fn attend_back(&mut self, value: Value) -> Result<()> {
        let lost = || Error::Internal("attention without statistics".into());
        let attention = self.attentions[value.index()].ok_or_else(lost)?;
        let Op::Attention(node) = *self.op(value) else { return self.refuse(value) };
        let KeyValues::Own(k, v) = node.kv else { return self.refuse(value) };
        let dout = self.gradient(value)?;
        let mut uses =
            copied(&[attention.q, attention.k, attention.v, attention.out, attention.lse, dout], WHAT)?;
        self.apart(value, node.q, |this, dq| {
            this.apart(value, k, |this, dk| {
                this.apart(value, v, |this, dv| {
                    reserve(&mut uses, 3, WHAT)?;
                    uses.extend([dq, dk, dv]);
                    this.push(value, AttendBack { attention, dout, dq, dk, dv }, &uses)
                })
            })
        })
    }

    fn gate_back(&mut self, value: Value, a: Value, b: Value) -> Result<()> {
        let dy = self.gradient(value)?;
        if let Some(GatedParts { function, gate, up }) = self.gated(value, a, b) {
            let (x, y) = (self.value(gate)?, self.value(up)?);
            return self.apart(value, gate, |this, dgate| {
                this.apart(value, up, |this, dup| {
                    let step = GatedBack { function, gate: x, up: y, dy, dgate, dup };
                    this.push_by_row(value, step, &[x, y, dy, dgate, dup])
                })
            });
        }
        let (x, y) = (self.value(a)?, self.value(b)?);
        for (operand, other) in [(a, y), (b, x)] {
            self.apart(value, operand, |this, out| {
                let step = Combine { pair: Pair::Product, a: dy, b: other, out };
                this.push_by_row(value, step, &[dy, other, out])
            })?;
        }
        Ok(())
    }
}
