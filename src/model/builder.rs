//! Shared parts that family builders are made of: norm, projections, attention, gated MLP, head.
//! Each appends steps to the plan and asks for its weights by name and shape.

use std::collections::HashMap;

use super::config::Config;
use super::plan::{Buf, BufKind, BufSpec, Part, Plan, Step, StepKind};
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
    /// Quantised twin of an f32 buffer, valid until the buffer is written again.
    quantized: HashMap<u32, Buf>,
}

impl<'a> Builder<'a> {
    pub fn new(gguf: &'a Gguf, activations: Activations) -> Self {
        Builder {
            gguf,
            activations,
            plan: Plan::default(),
            specs: Vec::new(),
            by_name: HashMap::new(),
            quantized: HashMap::new(),
        }
    }

    pub fn finish(mut self, logits: Buf) -> (Plan, Vec<WeightSpec>) {
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
        self.weight(name, 1, len, Usage::VECTOR)
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

    fn buffer_of(&mut self, kind: BufKind, row_bytes: usize) -> Buf {
        let step = self.plan.steps.len();
        self.plan.buffers.push(BufSpec { row_bytes, kind, first: step, last: step });
        Buf(self.plan.buffers.len() as u32 - 1)
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
        self.quantized.remove(&out.0);
        let rows = self.plan.buffers[out.index()].kind;
        self.plan.steps.push(Step { kind, zone, rows, barrier: true });
    }

    /// Token embeddings: the residual stream's beginning.
    pub fn embed(&mut self, table: WeightId, width: usize) -> Result<Buf> {
        let out = self.buffer(BufKind::Batch, width)?;
        self.push(Zone::Embed, StepKind::Embed { table, out }, out, &[]);
        Ok(out)
    }

    /// RMSNorm of `x` into a new buffer; `kind` chooses which rows go on.
    pub fn rms_norm(&mut self, x: Buf, name: &str, width: usize, eps: f32, kind: BufKind) -> Result<Buf> {
        let weight = self.vector(name, width)?;
        let out = self.buffer(kind, width)?;
        self.push(Zone::RmsNorm, StepKind::RmsNorm { x, weight, out, eps }, out, &[x]);
        Ok(out)
    }

    /// `x` in the representation that the weight's kernel reads.
    fn activation(&mut self, x: Buf, weight: WeightId) -> Buf {
        let spec = &self.specs[weight.index()];
        let (dtype, k) = (spec.dtype, spec.k);
        if !dtype.is_quantized() {
            return x;
        }
        if let Some(&twin) = self.quantized.get(&x.0) {
            return twin;
        }
        let kind = self.plan.buffers[x.index()].kind;
        let out = self.buffer_of(kind, self.activations.row_bytes(k));
        self.push(Zone::Quantize, StepKind::Quantize { x, out, k }, out, &[x]);
        self.quantized.insert(x.0, out);
        out
    }

    /// Several projections of `x`, side by side in one new buffer.
    pub fn project(
        &mut self,
        zone: Zone,
        x: Buf,
        prefixes: &[impl AsRef<str>],
        widths: &[usize],
        k: usize,
    ) -> Result<Buf> {
        let mut weights = Vec::with_capacity(prefixes.len());
        for (prefix, &n) in prefixes.iter().zip(widths) {
            let prefix = prefix.as_ref();
            let weight = self.projection(&format!("{prefix}.weight"), n, k)?;
            weights.push((weight, self.bias(prefix, n)?));
        }
        let inputs: Vec<Buf> = weights.iter().map(|&(weight, _)| self.activation(x, weight)).collect();
        let kind = self.plan.buffers[x.index()].kind;
        let out = self.buffer(kind, widths.iter().sum())?;
        let mut column = 0;
        let mut parts = Vec::with_capacity(weights.len());
        for ((&x, &(weight, bias)), &n) in inputs.iter().zip(&weights).zip(widths) {
            parts.push(Part { x, weight, bias, out, column, accumulate: false });
            column += n;
        }
        self.push(zone, StepKind::Linear { parts }, out, &inputs);
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
        let weight = self.projection(&format!("{prefix}.weight"), n, k)?;
        let bias = self.bias(prefix, n)?;
        let x = self.activation(x, weight);
        let part = Part { x, weight, bias, out: residual, column: 0, accumulate: true };
        self.push(zone, StepKind::Linear { parts: vec![part] }, residual, &[x]);
        Ok(())
    }

    fn bias(&mut self, prefix: &str, n: usize) -> Result<Option<WeightId>> {
        let name = format!("{prefix}.bias");
        if self.has(&name) { self.vector(&name, n).map(Some) } else { Ok(None) }
    }

    /// Rotary causal attention over the layer's cache; returns all heads side by side.
    pub fn attention(&mut self, layer: usize, qkv: Buf, config: &Config) -> Result<Buf> {
        let heads = config.n_head + config.n_head_kv;
        self.push(Zone::Rope, StepKind::Rope { qkv, heads }, qkv, &[]);
        self.push(Zone::KvStore, StepKind::StoreKv { layer, qkv }, qkv, &[]);
        let out = self.buffer(BufKind::Batch, config.q_width())?;
        let scale = 1.0 / (config.head_dim as f32).sqrt();
        self.push(Zone::Attention, StepKind::Attention { layer, qkv, out, scale }, out, &[qkv]);
        Ok(out)
    }

    /// `silu(gate) · up` of two projections side by side.
    pub fn swiglu(&mut self, x: Buf, n: usize) -> Result<Buf> {
        let kind = self.plan.buffers[x.index()].kind;
        let out = self.buffer(kind, n)?;
        self.push(Zone::SwiGlu, StepKind::SwiGlu { x, out, n }, out, &[x]);
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
