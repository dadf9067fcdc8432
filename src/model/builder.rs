//! Shared parts that family builders are made of: norms, projections, attention, MLPs, head.
//! Each appends steps to the plan and asks for its weights by name and shape.

use std::collections::HashMap;

use super::config::Config;
use super::plan::{Buf, BufKind, BufSpec, Part, Plan, Step, StepKind, Then};
use super::weights::{Usage, WeightId, WeightSpec};
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::kernels::qmatmul::Activations;
use crate::profile::Zone;

/// Collects a plan and the weights it needs.
pub(super) struct Builder<'a> {
    gguf: &'a Gguf,
    activations: Activations,
    plan: Plan,
    specs: Vec<WeightSpec>,
    by_name: HashMap<String, WeightId>,
}

/// What a projection reads: rows that are there, or rows still to be normalised, in whatever form it wants.
#[derive(Clone, Copy)]
pub(super) enum Input {
    Rows(Buf),
    Normed { x: Buf, norm: Norm, eps: f32, kind: BufKind },
}

/// How rows are normalised.
#[derive(Clone, Copy)]
pub(super) enum Norm {
    Rms { weight: WeightId },
    Layer { weight: WeightId, bias: WeightId },
}

impl<'a> Builder<'a> {
    pub fn new(gguf: &'a Gguf, activations: Activations) -> Self {
        Builder { gguf, activations, plan: Plan::default(), specs: Vec::new(), by_name: HashMap::new() }
    }

    /// Ends the plan with rows of `n_vocab` logits.
    pub fn finish(mut self, logits: Buf, n_vocab: usize) -> (Plan, Vec<WeightSpec>) {
        // They go out as one run of floats: no gaps between rows, whatever the vocabulary.
        self.plan.buffers[logits.index()].row_bytes = n_vocab * size_of::<f32>();
        // Logits are read after the last step: nothing may share their bytes.
        self.touch(logits, self.plan.steps.len());
        self.plan.logits = Some(logits);
        self.plan.place_barriers();
        (self.plan, self.specs)
    }

    /// Whether the file has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// A vector of `len` f32.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<WeightId> {
        self.weight(name, 1, len, Usage::FLOATS)
    }

    /// Rows added to others by position.
    pub fn positions(&mut self, name: &str, n: usize, k: usize) -> Result<WeightId> {
        self.weight(name, n, k, Usage::FLOATS)
    }

    /// Rows looked up by token.
    pub fn table(&mut self, name: &str, n: usize, k: usize) -> Result<WeightId> {
        self.weight(name, n, k, Usage::TABLE)
    }

    /// A projection from `k` to `n`.
    pub fn projection(&mut self, name: &str, n: usize, k: usize) -> Result<WeightId> {
        self.weight(name, n, k, Usage::LINEAR)
    }

    fn weight(&mut self, name: &str, n: usize, k: usize, usage: Usage) -> Result<WeightId> {
        if let Some(&id) = self.by_name.get(name) {
            let spec = &mut self.specs[id.index()];
            if (spec.n, spec.k) != (n, k) {
                return Err(Error::format(format!("tensor {name} is used with two shapes")));
            }
            spec.usage = spec.usage.union(usage);
            return Ok(id);
        }
        let tensor =
            self.gguf.tensor(name).ok_or_else(|| Error::format(format!("tensor {name} is missing")))?;
        let dtype = check_shape(tensor, n, k)?;
        let id = WeightId::new(self.specs.len());
        self.specs.push(WeightSpec { name: name.to_owned(), n, k, dtype, usage });
        self.by_name.insert(name.to_owned(), id);
        Ok(id)
    }

    /// A buffer of f32 rows, first written by the next step.
    fn buffer(&mut self, kind: BufKind, width: usize) -> Result<Buf> {
        let row_bytes = width
            .checked_mul(4)
            .and_then(|b| b.checked_next_multiple_of(64))
            .ok_or_else(|| Error::format(format!("rows of {width} values are too long")))?;
        Ok(self.buffer_of(kind, row_bytes))
    }

    /// A buffer of quantised rows of `k` elements, first written by the next step.
    fn quantized_buffer(&mut self, kind: BufKind, k: usize) -> Buf {
        self.buffer_of(kind, self.activations.row_bytes(k))
    }

    fn buffer_of(&mut self, kind: BufKind, row_bytes: usize) -> Buf {
        let step = self.plan.steps.len();
        self.plan.buffers.push(BufSpec { row_bytes, kind, first: step, last: step, own_copy: false });
        Buf(self.plan.buffers.len() as u32 - 1)
    }

    fn kind(&self, buf: Buf) -> BufKind {
        self.plan.buffers[buf.index()].kind
    }

    fn touch(&mut self, buf: Buf, step: usize) {
        let spec = &mut self.plan.buffers[buf.index()];
        spec.last = spec.last.max(step);
    }

    /// Appends a step that works on the rows of `out` and reads or updates `touched` as well.
    fn push(&mut self, zone: Zone, kind: StepKind, out: Buf, touched: &[Buf]) {
        let step = self.plan.steps.len();
        for &buf in touched.iter().chain([&out]) {
            self.touch(buf, step);
        }
        let rows = self.kind(out);
        self.plan.steps.push(Step { kind, zone, rows, barrier: true, barrier_few: true, own_copy: false });
    }

    /// [`Builder::push`] for a step that makes rows of `out` from those of `x`, for products alone.
    fn push_row_wise(&mut self, zone: Zone, kind: StepKind, out: Buf, x: Buf) {
        self.plan.buffers[out.index()].own_copy = true;
        self.push(zone, kind, out, &[x]);
    }

    /// Token embeddings, and learned positions if there are any: the residual stream's beginning.
    pub fn embed(&mut self, table: WeightId, positions: Option<WeightId>, width: usize) -> Result<Buf> {
        let out = self.buffer(BufKind::Batch, width)?;
        self.push(Zone::Embed, StepKind::Embed { table, positions, out }, out, &[]);
        Ok(out)
    }

    /// RMSNorm of `x`; `kind` chooses which rows go on.
    pub fn rms_norm(&mut self, x: Buf, name: &str, width: usize, eps: f32, kind: BufKind) -> Result<Input> {
        let norm = Norm::Rms { weight: self.vector(name, width)? };
        Ok(Input::Normed { x, norm, eps, kind })
    }

    /// LayerNorm of `x` by `{prefix}.weight` and `{prefix}.bias`.
    pub fn layer_norm(
        &mut self,
        x: Buf,
        prefix: &str,
        width: usize,
        eps: f32,
        kind: BufKind,
    ) -> Result<Input> {
        let weight = self.vector(&format!("{prefix}.weight"), width)?;
        let bias = self.vector(&format!("{prefix}.bias"), width)?;
        Ok(Input::Normed { x, norm: Norm::Layer { weight, bias }, eps, kind })
    }

    /// The rows that each of `weights`, which multiply rows of `k`, reads: f32 or quantised.
    fn inputs(&mut self, input: Input, weights: &[WeightId], k: usize) -> Result<Vec<Buf>> {
        let quantized: Vec<bool> =
            weights.iter().map(|id| self.specs[id.index()].dtype.is_quantized()).collect();
        let rows = match input {
            Input::Rows(rows) => rows,
            Input::Normed { x, norm: Norm::Rms { weight }, eps, kind } if quantized.iter().all(|&q| q) => {
                let out = self.quantized_buffer(kind, k);
                self.push_row_wise(Zone::RmsNorm, StepKind::NormQuantize { x, weight, out, eps }, out, x);
                return Ok(vec![out; weights.len()]);
            }
            Input::Normed { x, norm, eps, kind } => {
                let out = self.buffer(kind, k)?;
                let (zone, step) = match norm {
                    Norm::Rms { weight } => (Zone::RmsNorm, StepKind::RmsNorm { x, weight, out, eps }),
                    Norm::Layer { weight, bias } => {
                        (Zone::LayerNorm, StepKind::LayerNorm { x, weight, bias, out, eps })
                    }
                };
                self.push_row_wise(zone, step, out, x);
                out
            }
        };
        let mut twin = rows;
        if quantized.contains(&true) {
            twin = self.quantized_buffer(self.kind(rows), k);
            let kind = StepKind::Quantize { x: rows, out: twin, k };
            self.push_row_wise(Zone::Quantize, kind, twin, rows);
        }
        Ok(quantized.into_iter().map(|quantized| if quantized { twin } else { rows }).collect())
    }

    /// A matrix `{prefix}.weight` from `k` to `n` and its bias, if the file has one.
    fn affine(&mut self, prefix: &str, n: usize, k: usize) -> Result<(WeightId, Option<WeightId>)> {
        let weight = self.projection(&format!("{prefix}.weight"), n, k)?;
        let name = format!("{prefix}.bias");
        let bias = if self.has(&name) { Some(self.vector(&name, n)?) } else { None };
        Ok((weight, bias))
    }

    /// Several projections of the same rows, side by side in one new buffer.
    pub fn project(
        &mut self,
        zone: Zone,
        input: Input,
        prefixes: &[impl AsRef<str>],
        widths: &[usize],
        k: usize,
        then: Then,
    ) -> Result<Buf> {
        let mut affine = Vec::with_capacity(prefixes.len());
        for (prefix, &n) in prefixes.iter().zip(widths) {
            affine.push(self.affine(prefix.as_ref(), n, k)?);
        }
        let weights: Vec<_> = affine.iter().map(|&(weight, _)| weight).collect();
        let inputs = self.inputs(input, &weights, k)?;
        let kind = inputs.first().map_or(BufKind::Batch, |&x| self.kind(x));
        let out = self.buffer(kind, widths.iter().sum())?;
        let mut column = 0;
        let mut parts = Vec::with_capacity(affine.len());
        for ((&x, (weight, bias)), &n) in inputs.iter().zip(affine).zip(widths) {
            parts.push(Part { x, weight, bias, out, column, accumulate: false });
            column += n;
        }
        self.push(zone, StepKind::Linear { parts, then }, out, &inputs);
        Ok(out)
    }

    /// `residual += x · Wᵀ (+ bias)`.
    pub fn project_residual(
        &mut self,
        zone: Zone,
        x: Buf,
        prefix: &str,
        n: usize,
        k: usize,
        residual: Buf,
    ) -> Result<()> {
        let (weight, bias) = self.affine(prefix, n, k)?;
        let inputs = self.inputs(Input::Rows(x), &[weight], k)?;
        let parts = inputs
            .iter()
            .map(|&x| Part { x, weight, bias, out: residual, column: 0, accumulate: true })
            .collect();
        self.push(zone, StepKind::Linear { parts, then: Then::Nothing }, residual, &inputs);
        Ok(())
    }

    /// `residual += (silu(x · gateᵀ) · (x · upᵀ)) · downᵀ`, with biases where the file has them.
    pub fn swiglu_mlp(
        &mut self,
        input: Input,
        [gate, up, down]: [&str; 3],
        (width, inner): (usize, usize),
        residual: Buf,
    ) -> Result<()> {
        let (gate, up) = (self.affine(gate, inner, width)?, self.affine(up, inner, width)?);
        let (weight, bias) = self.affine(down, width, inner)?;
        let inputs = self.inputs(input, &[gate.0, up.0], width)?;
        let (out, quantized) = self.inner(residual, weight, inner)?;
        let part = |x, (weight, bias)| Part { x, weight, bias, out, column: 0, accumulate: false };
        let (gate, up) = (part(inputs[0], gate), part(inputs[1], up));
        self.push(Zone::LinearGateUp, StepKind::Gated { gate, up, out, quantized }, out, &inputs);
        self.down(out, (weight, bias), residual);
        Ok(())
    }

    /// `residual += gelu(x · upᵀ) · downᵀ`, with biases where the file has them.
    pub fn gelu_mlp(
        &mut self,
        input: Input,
        [up, down]: [&str; 2],
        (width, inner): (usize, usize),
        residual: Buf,
    ) -> Result<()> {
        let (up, bias) = self.affine(up, inner, width)?;
        let down = self.affine(down, width, inner)?;
        let inputs = self.inputs(input, &[up], width)?;
        let (out, quantized) = self.inner(residual, down.0, inner)?;
        let part = Part { x: inputs[0], weight: up, bias, out, column: 0, accumulate: false };
        self.push(Zone::LinearUp, StepKind::Gelu { part, out, quantized }, out, &inputs);
        self.down(out, down, residual);
        Ok(())
    }

    /// A buffer for what the inside of an MLP yields, in the form that the `down` matrix reads, and whether that
    /// is quantised.
    fn inner(&mut self, residual: Buf, down: WeightId, width: usize) -> Result<(Buf, bool)> {
        let quantized = self.specs[down.index()].dtype.is_quantized();
        let kind = self.kind(residual);
        let out = if quantized { self.quantized_buffer(kind, width) } else { self.buffer(kind, width)? };
        Ok((out, quantized))
    }

    /// The end of an MLP.
    fn down(&mut self, x: Buf, (weight, bias): (WeightId, Option<WeightId>), residual: Buf) {
        let part = Part { x, weight, bias, out: residual, column: 0, accumulate: true };
        let kind = StepKind::Linear { parts: vec![part], then: Then::Nothing };
        self.push(Zone::LinearDown, kind, residual, &[x]);
    }

    /// Causal attention over the layer's cache; returns all heads side by side.
    pub fn attention(&mut self, layer: usize, qkv: Buf, config: &Config) -> Result<Buf> {
        let out = self.buffer(BufKind::Batch, config.q_width())?;
        let scale = 1.0 / (config.head_dim as f32).sqrt();
        self.push(Zone::Attention, StepKind::Attention { layer, qkv, out, scale }, out, &[qkv]);
        Ok(out)
    }
}

/// The tensor's type, if it is an `n × k` matrix (or a vector of `k` where `n` is 1) of a readable type.
fn check_shape(tensor: &TensorInfo, n: usize, k: usize) -> Result<crate::quant::DType> {
    let dims = tensor.shape();
    let found = (dims.get(1).copied().unwrap_or(1), dims.first().copied().unwrap_or(1));
    let higher = dims.iter().skip(2).any(|&d| d != 1);
    if higher || found != (n as u64, k as u64) {
        return Err(Error::format(format!(
            "tensor {} has shape {dims:?}; the configuration wants [{k}, {n}]",
            tensor.name
        )));
    }
    tensor.dtype()
}
