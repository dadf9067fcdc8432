//! Parts that several families share: the decoder that most of them are a kind of, projections, the head.

use crate::error::Result;
use crate::model::builder::{Builder, Ends};
use crate::model::config::{Config, LayerConfig, Mask, Scales};
use crate::model::experts::{ExpertsConfig, Form};
use crate::model::graph::{Activation, Scores, Value};

/// A family's norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norms {
    /// RMSNorm.
    Rms,
    /// RMSNorm, and a bias behind it.
    BiasedRms,
    /// LayerNorm, with a bias where the file has one.
    Layer,
    /// LayerNorm without weights.
    Plain,
}

/// The place of norms around attention and MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// Their input is normalised.
    Before,
    /// Their result is normalised before it is added to the residual stream.
    After,
    /// Both.
    Both,
}

/// A family's MLP.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inner {
    /// `f(x · gateᵀ) · (x · upᵀ)` (Shazeer 2020).
    Gated(Activation),
    /// The same with gate and up in one matrix, the gate's rows first.
    GateUp(Activation),
    /// `f(x · upᵀ)`.
    Plain(Activation),
    /// The square of `max(x · upᵀ, 0)` (So et al. 2021).
    Squared,
}

/// A gate on the results of heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// None.
    None,
    /// A sigmoid for each element.
    Elements,
    /// A sigmoid for each head.
    Heads,
}

/// Queries, keys and values of a layer between their projections and attention.
pub type Heads = fn(&mut Builder<'_>, [Value; 3], &LayerConfig) -> Result<[Value; 3]>;

/// A decoder of blocks with attention and an MLP. The default of each field is Llama's.
#[derive(Clone, Copy)]
pub struct Decoder {
    pub norms: Norms,
    pub place: Place,
    pub heads: Heads,
    pub inner: Inner,
    /// Whether the MLP's matrices have factors (`ffn_up.scale`); llama.cpp ignores them in many families.
    pub scaled_mlp: bool,
    /// Whether the MLP's matrices may have biases; llama.cpp ignores them in some families.
    pub biased_mlp: bool,
    /// Whether attention's projection may have a bias.
    pub biased_output: bool,
    /// The norm before the MLP, where it isn't `ffn_norm`.
    pub mlp_norm: &'static str,
    /// The norm after all blocks.
    pub last_norm: &'static str,
    /// A norm that the first block may lack.
    pub optional_norm: Option<&'static str>,
    pub gate: Gate,
    /// Tensors of a layer, besides its matrices and gains, without which the family's models don't compute.
    pub required: &'static [&'static str],
    /// Whether the matrix of queries, keys and values may have a factor.
    pub scaled_qkv: bool,
    /// The epsilon of norms after attention and MLP, where it is another one.
    pub post_eps: Option<f32>,
    /// The experts of layers that have a mixture.
    pub experts: Form,
    /// Attention, or what stands in its place.
    pub mixer: Mixer,
}

/// What a block adds to the residual stream before its MLP, from normalised rows.
pub type Mixer = fn(&mut Builder<'_>, &Config, &Decoder, Value, &LayerConfig) -> Result<Value>;

/// Divisors of an MLP's activations.
const ACT_SCALES: &str = "ffn.act.scales";

impl Decoder {
    /// Llama's decoder.
    pub const LLAMA: Decoder = Decoder {
        norms: Norms::Rms,
        place: Place::Before,
        heads: rotated,
        inner: Inner::Gated(Activation::Silu),
        scaled_mlp: false,
        biased_mlp: true,
        biased_output: true,
        mlp_norm: "ffn_norm",
        last_norm: "output_norm",
        optional_norm: None,
        gate: Gate::None,
        required: &[],
        scaled_qkv: true,
        post_eps: None,
        experts: Form::SWIGLU,
        mixer: |b, c, decoder, x, layer| decoder.attention(b, c, x, layer),
    };

    /// Emits the graph of a decoder with blocks of its own, each from the residual stream to the residual stream.
    pub fn emit_blocks(
        &self,
        b: &mut Builder<'_>,
        c: &Config,
        block: impl Fn(&mut Builder<'_>, &LayerConfig, Value) -> Result<Value>,
    ) -> Result<Ends> {
        let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
        let x = blocks(b, c, x, block)?;
        let last = b.select(x)?;
        let hidden = self.norm(b, last, self.last_norm)?;
        Ok((hidden, Some(head(b, hidden, c)?)))
    }

    /// Emits the graph; returns the last hidden rows and the logits.
    pub fn emit(&self, b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
        let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
        let x = scale(b, x, c.scales.embedding)?;
        self.emit_from(b, c, x)
    }

    /// [`Decoder::emit`] with rows of its own in place of embeddings.
    pub fn emit_from(&self, b: &mut Builder<'_>, c: &Config, x: Value) -> Result<Ends> {
        let hidden = self.hidden(b, c, x)?;
        Ok((hidden, Some(head(b, hidden, c)?)))
    }

    /// The last hidden rows.
    pub fn hidden(&self, b: &mut Builder<'_>, c: &Config, mut x: Value) -> Result<Value> {
        x = blocks(b, c, x, |b, layer, x| {
            b.require(self.required)?;
            if c.scales.parallel {
                return self.parallel_block(b, c, x, layer);
            }
            let names = ["attn_norm", "post_attention_norm"];
            let attended = self.between_norms(b, c, x, names, |b, x| (self.mixer)(b, c, self, x, layer))?;
            let x = b.add(x, attended)?;
            let names = [self.mlp_norm, "post_ffw_norm"];
            let mlp = |b: &mut Builder<'_>, x| self.mlp_or_mixture(b, x, layer, c.n_embd);
            let moved = self.between_norms(b, c, x, names, mlp)?;
            b.add(x, moved)
        })?;
        if self.required.contains(&"attn_norm.bias") {
            b.require(&["output_norm.bias"])?;
        }
        let last = b.select(x)?;
        self.norm(b, last, self.last_norm)
    }

    /// A block whose attention and MLP read the same rows: those of one norm, or of a norm each.
    fn parallel_block(
        &self,
        b: &mut Builder<'_>,
        c: &Config,
        x: Value,
        layer: &LayerConfig,
    ) -> Result<Value> {
        let normed = self.norm(b, x, "attn_norm")?;
        let for_mlp = if b.has(&format!("{}.weight", self.mlp_norm)) {
            self.norm(b, x, self.mlp_norm)?
        } else {
            normed
        };
        let attended = self.attention(b, c, normed, layer)?;
        let moved = self.mlp_or_mixture(b, for_mlp, layer, c.n_embd)?;
        let moved = b.add(moved, x)?;
        b.add(moved, attended)
    }

    /// `inner` of rows between the norms that the family has there, of the names before and after.
    fn between_norms(
        &self,
        b: &mut Builder<'_>,
        c: &Config,
        x: Value,
        [before, after]: [&str; 2],
        inner: impl FnOnce(&mut Builder<'_>, Value) -> Result<Value>,
    ) -> Result<Value> {
        let bare = self.place == Place::After || self.lacks(b, before);
        let normed = if bare { x } else { self.norm(b, x, before)? };
        let inside = inner(b, normed)?;
        let inside = match self.place {
            Place::Before => inside,
            _ => self.post_norm(b, inside, after)?,
        };
        scale(b, inside, c.scales.residual)
    }

    /// Whether a norm is missing that may be.
    fn lacks(&self, b: &Builder<'_>, norm: &str) -> bool {
        self.optional_norm == Some(norm) && b.in_first_layer() && !b.has(&format!("{norm}.weight"))
    }

    /// A norm of the family's kind.
    pub fn norm(&self, b: &mut Builder<'_>, x: Value, part: &str) -> Result<Value> {
        match self.norms {
            Norms::Rms => b.rms_norm(x, part),
            Norms::BiasedRms => {
                let normed = b.rms_norm(x, part)?;
                b.add_row(normed, &format!("{part}.bias"))
            }
            Norms::Layer => b.layer_norm(x, part),
            Norms::Plain => b.plain_layer_norm(x),
        }
    }

    fn post_norm(&self, b: &mut Builder<'_>, x: Value, part: &str) -> Result<Value> {
        match self.post_eps {
            Some(eps) => b.rms_norm_by(x, part, eps),
            None => self.norm(b, x, part),
        }
    }

    /// Attention, with the projections around it.
    pub fn attention(
        &self,
        b: &mut Builder<'_>,
        c: &Config,
        normed: Value,
        layer: &LayerConfig,
    ) -> Result<Value> {
        let qkv = qkv(b, normed, layer, (c.scales.qkv_limit, self.scaled_qkv))?;
        let [q, k, v] = qkv;
        // Before the rotation, which no factor changes, so that rotated rows go into the cache straight.
        let q = c.scales.temperature.map_or(Ok(q), |temperature| b.temper(q, temperature))?;
        let qkv = (self.heads)(b, [q, k, v], layer)?;
        let scores = scores(b, c, layer)?;
        let heads = b.attention(qkv, layer, scores)?;
        let heads = match self.gate {
            Gate::None => heads,
            Gate::Elements => {
                let gate = b.linear_unscaled(normed, "attn_gate", layer.q_width())?;
                let gate = b.activate(gate, Activation::Sigmoid)?;
                b.gate(heads, gate)?
            }
            Gate::Heads => {
                let gate = b.linear_unscaled(normed, "attn_gate", layer.n_head)?;
                let gate = b.activate(gate, Activation::Sigmoid)?;
                b.gate_heads(heads, gate)?
            }
        };
        if self.biased_output {
            return b.linear(heads, "attn_output", c.n_embd);
        }
        b.ignore("attn_output.bias");
        b.linear_unbiased(heads, "attn_output", c.n_embd)
    }

    /// The layer's MLP, or its mixture of experts.
    pub fn mlp_or_mixture(
        &self,
        b: &mut Builder<'_>,
        x: Value,
        layer: &LayerConfig,
        n_embd: usize,
    ) -> Result<Value> {
        match &layer.experts {
            Some(experts) => {
                let router = b.linear(x, "ffn_gate_inp", experts.count)?;
                self.mixture(b, x, router, experts)
            }
            None => self.mlp(b, x, layer.n_ff, n_embd),
        }
    }

    /// The experts chosen by the router's scores, and those that all rows go through.
    pub fn mixture(
        &self,
        b: &mut Builder<'_>,
        x: Value,
        router: Value,
        experts: &ExpertsConfig,
    ) -> Result<Value> {
        let sum = b.experts(x, router, experts, self.experts)?;
        if experts.n_ff_shared == 0 {
            return Ok(sum);
        }
        let shared = match b.has("ffn_gate_inp_shexp.weight") {
            true => b.shared_expert(x, experts.n_ff_shared, self.experts.scaled_shared)?,
            false => shared_experts(b, x, experts.n_ff_shared)?,
        };
        b.add(sum, shared)
    }

    /// The MLP, from normalised rows to rows of `n_embd`.
    pub fn mlp(&self, b: &mut Builder<'_>, x: Value, n_ff: usize, n_embd: usize) -> Result<Value> {
        let scaled = self.scaled_mlp;
        if !self.biased_mlp {
            b.without_bias(&["ffn_gate", "ffn_up", "ffn_down"]);
        }
        let inner = match self.inner {
            Inner::Gated(function) => {
                let gate = b.linear_mlp(x, "ffn_gate", n_ff, scaled)?;
                let up = b.linear_mlp(x, "ffn_up", n_ff, scaled)?;
                gated(b, gate, up, function)?
            }
            Inner::GateUp(function) => {
                let gate = b.linear_rows(x, "ffn_up", 0..n_ff, 2 * n_ff)?;
                let up = b.linear_rows(x, "ffn_up", n_ff..2 * n_ff, 2 * n_ff)?;
                gated(b, gate, up, function)?
            }
            Inner::Plain(function) => {
                let up = b.linear_mlp(x, "ffn_up", n_ff, scaled)?;
                let up = b.activate(up, function)?;
                // AWQ scales activations instead of weights (Lin et al. 2023, arXiv:2306.00978).
                if b.has(ACT_SCALES) { b.divide(up, ACT_SCALES)? } else { up }
            }
            Inner::Squared => {
                let up = b.linear_mlp(x, "ffn_up", n_ff, scaled)?;
                let up = b.activate(up, Activation::Relu)?;
                b.gate(up, up)?
            }
        };
        b.linear_mlp(inner, "ffn_down", n_embd, scaled)
    }
}

/// The blocks one after the other, each from the residual stream to the residual stream.
pub fn blocks(
    b: &mut Builder<'_>,
    c: &Config,
    mut x: Value,
    block: impl Fn(&mut Builder<'_>, &LayerConfig, Value) -> Result<Value>,
) -> Result<Value> {
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        x = block(b, layer, x)?;
    }
    b.enter_layer(None);
    Ok(x)
}

/// `f(gate) · up`.
pub fn gated(b: &mut Builder<'_>, gate: Value, up: Value, function: Activation) -> Result<Value> {
    let gate = b.activate(gate, function)?;
    b.gate(gate, up)
}

/// The experts that all rows go through, as one SwiGLU MLP.
pub fn shared_experts(b: &mut Builder<'_>, x: Value, n_ff: usize) -> Result<Value> {
    let width = b.width(x);
    let gate = b.linear_unscaled(x, "ffn_gate_shexp", n_ff)?;
    let up = b.linear_unscaled(x, "ffn_up_shexp", n_ff)?;
    let inner = gated(b, gate, up, Activation::Silu)?;
    b.linear_unscaled(inner, "ffn_down_shexp", width)
}

/// A factor on rows; none for 1.
pub fn scale(b: &mut Builder<'_>, x: Value, factor: f32) -> Result<Value> {
    if factor == 1.0 { Ok(x) } else { b.scale(x, factor) }
}

/// How a layer's scores follow from products; with sinks where the file has them.
pub fn scores(b: &mut Builder<'_>, c: &Config, layer: &LayerConfig) -> Result<Scores> {
    const SINKS: &str = "attn_sinks.weight";
    let sinks = if b.has(SINKS) { Some(b.floats(SINKS, layer.n_head)?) } else { None };
    let Scales { score_cap: soft_cap, alibi, .. } = c.scales;
    Ok(Scores { soft_cap, alibi, sinks, ..Scores::scaled(layer.score_scale) })
}

/// Queries, keys and values: of three matrices or one, clamped to the limit if there is one.
pub fn qkv(
    b: &mut Builder<'_>,
    normed: Value,
    layer: &LayerConfig,
    (limit, scaled): (Option<f32>, bool),
) -> Result<[Value; 3]> {
    let (q, kv) = (layer.q_width(), layer.kv_width());
    let clamped = |b: &mut Builder<'_>, x| limit.map_or(Ok(x), |limit| b.clamp(x, limit));
    if b.has("attn_qkv.weight") {
        let width = q + 2 * kv;
        let all = match scaled {
            true => b.linear(normed, "attn_qkv", width)?,
            false => b.linear_unscaled(normed, "attn_qkv", width)?,
        };
        let all = clamped(b, all)?;
        return Ok([b.split(all, 0, q)?, b.split(all, q, kv)?, b.split(all, q + kv, kv)?]);
    }
    let mut one = |part, width| {
        let x = b.linear(normed, part, width)?;
        clamped(b, x)
    };
    Ok([one("attn_q", q)?, one("attn_k", kv)?, one("attn_v", kv)?])
}

/// Queries and keys rotated.
pub fn rotated(b: &mut Builder<'_>, [q, k, v]: [Value; 3], layer: &LayerConfig) -> Result<[Value; 3]> {
    Ok([b.rope(q, layer)?, b.rope(k, layer)?, v])
}

/// Queries and keys normalised head by head, then rotated.
pub fn normed_rotated(b: &mut Builder<'_>, [q, k, v]: [Value; 3], layer: &LayerConfig) -> Result<[Value; 3]> {
    let q = b.head_norm(q, "attn_q_norm", layer.head_dim)?;
    let k = b.head_norm(k, "attn_k_norm", layer.head_dim)?;
    rotated(b, [q, k, v], layer)
}

/// Queries and keys rotated, then normalised head by head.
pub fn rotated_normed(b: &mut Builder<'_>, qkv: [Value; 3], layer: &LayerConfig) -> Result<[Value; 3]> {
    let [q, k, v] = rotated(b, qkv, layer)?;
    let q = b.head_norm(q, "attn_q_norm", layer.head_dim)?;
    Ok([q, b.head_norm(k, "attn_k_norm", layer.head_dim)?, v])
}

/// Queries and keys normalised over all heads together, then rotated.
pub fn wide_normed_rotated(
    b: &mut Builder<'_>,
    [q, k, v]: [Value; 3],
    layer: &LayerConfig,
) -> Result<[Value; 3]> {
    let q = b.rms_norm(q, "attn_q_norm")?;
    let k = b.rms_norm(k, "attn_k_norm")?;
    rotated(b, [q, k, v], layer)
}

/// Takes rotations from layers without a window.
pub fn rotate_only_windows(c: &mut Config) {
    let whole = c.layers.iter_mut().filter(|layer| layer.mask == Mask::Causal);
    whole.for_each(|layer| layer.rope = None);
}

/// Queries and keys as they are.
pub fn unchanged(_: &mut Builder<'_>, qkv: [Value; 3], _: &LayerConfig) -> Result<[Value; 3]> {
    Ok(qkv)
}

/// The head: scores of the vocabulary, by a matrix of its own or the embedding's, with the model's factor and cap.
pub fn head(b: &mut Builder<'_>, hidden: Value, c: &Config) -> Result<Value> {
    let logits = if b.has("output.weight") {
        b.linear(hidden, "output", c.n_vocab)?
    } else {
        b.linear_tied(hidden, "token_embd", "output", c.n_vocab)?
    };
    let logits = scale(b, logits, c.scales.logits)?;
    c.scales.logit_cap.map_or(Ok(logits), |cap| b.soft_cap(logits, cap))
}
