//! Parts that several families share: a decoder of pre-norm blocks, projections, the head.

use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::config::{Config, LayerConfig};
use crate::model::experts::{ExpertsConfig, Form};
use crate::model::graph::{Activation, Value};

/// Llama's decoder: blocks with RMSNorm before attention and before a SwiGLU MLP (Shazeer 2020). `qkv` emits a layer's
/// queries, keys and values from normalised rows.
pub fn decoder(
    b: &mut Builder<'_>,
    c: &Config,
    qkv: impl Fn(&mut Builder<'_>, Value, &LayerConfig) -> Result<[Value; 3]>,
) -> Result<(Value, Value)> {
    let mut x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        let normed = b.rms_norm(x, "attn_norm")?;
        let qkv = qkv(b, normed, layer)?;
        let heads = b.attention(qkv, layer)?;
        let out = b.linear(heads, "attn_output", c.n_embd)?;
        x = b.add(x, out)?;
        let normed = b.rms_norm(x, "ffn_norm")?;
        if let Some(experts) = &layer.experts {
            x = mixture(b, x, normed, experts)?;
            continue;
        }
        let gate = b.linear(normed, "ffn_gate", layer.n_ff)?;
        let up = b.linear(normed, "ffn_up", layer.n_ff)?;
        let gate = b.activate(gate, Activation::Silu)?;
        let inner = b.gate(gate, up)?;
        let out = b.linear(inner, "ffn_down", c.n_embd)?;
        x = b.add(x, out)?;
    }
    b.enter_layer(None);
    let last = b.select(x)?;
    let hidden = b.rms_norm(last, "output_norm")?;
    Ok((hidden, head(b, hidden, c)?))
}

/// The residual stream `x` with the experts of normalised rows added, chosen and shared ones.
pub fn mixture(b: &mut Builder<'_>, x: Value, normed: Value, experts: &ExpertsConfig) -> Result<Value> {
    let router = b.linear(normed, "ffn_gate_inp", experts.count)?;
    let sum = b.experts(normed, router, experts, Form::SWIGLU)?;
    let x = b.add(x, sum)?;
    if experts.n_ff_shared == 0 {
        return Ok(x);
    }
    if b.has("ffn_gate_inp_shexp.weight") {
        let shared = b.shared_expert(normed, experts.n_ff_shared)?;
        return b.add(x, shared);
    }
    let gate = b.linear(normed, "ffn_gate_shexp", experts.n_ff_shared)?;
    let up = b.linear(normed, "ffn_up_shexp", experts.n_ff_shared)?;
    let gate = b.activate(gate, Activation::Silu)?;
    let inner = b.gate(gate, up)?;
    let width = b.shape(x).width;
    let out = b.linear(inner, "ffn_down_shexp", width)?;
    b.add(x, out)
}

/// Three projections: queries, keys and values.
pub fn qkv(b: &mut Builder<'_>, normed: Value, layer: &LayerConfig) -> Result<[Value; 3]> {
    let q = b.linear(normed, "attn_q", layer.q_width())?;
    let k = b.linear(normed, "attn_k", layer.kv_width())?;
    Ok([q, k, b.linear(normed, "attn_v", layer.kv_width())?])
}

/// The head: scores of the vocabulary, by a matrix of its own or the embedding's.
pub fn head(b: &mut Builder<'_>, hidden: Value, c: &Config) -> Result<Value> {
    if b.has("output.weight") {
        return b.linear(hidden, "output", c.n_vocab);
    }
    b.linear_tied(hidden, "token_embd", "output", c.n_vocab)
}
