//! Gemma 4: Gemma 3 with heads and MLPs of another size in layers with a window, with late layers that read the keys and
//! values of earlier ones, with a second embedding that every layer mixes in, and in one model with experts.

use super::Family;
use super::parts::{self, Decoder, Inner, Place};
use crate::error::{Error, Result};
use crate::kernels::rope::Pairing;
use crate::model::builder::{Builder, Ends};
use crate::model::config::{Config, LayerConfig, MAX_DIM, MAX_HEAD_DIM};
use crate::model::experts::{Form, Setting};
use crate::model::graph::{Activation, Value};
use crate::model::keys::Keys;

/// The base of rotations in windows, where the file states none.
const WINDOW_BASE: f32 = 10_000.0;

const GEMMA: Decoder = Decoder {
    place: Place::Both,
    inner: Inner::Gated(Activation::GeluTanh),
    scaled_mlp: true,
    experts: Form { scaled: true, ..Form::gated(Activation::GeluTanh) },
    ..Decoder::LLAMA
};

pub const FAMILIES: &[Family] = &[Family { name: "gemma4", config, emit }];

fn config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let config = Config::read(keys, n_vocab, crate::model::config::RMS_EPS)?;
    let mut config = config.with_windows(keys, 0, 5)?;
    let windowed = keys.optional("attention.key_length_swa", MAX_HEAD_DIM)?;
    keys.void(&["attention.value_length_swa"]);
    for layer in &mut config.layers {
        if let Some(head_dim) = windowed.filter(|_| layer.mask.is_window()) {
            layer.head_dim = head_dim;
        }
        layer.score_scale = 1.0;
    }
    config.with_window_table(keys, Pairing::Halves, WINDOW_BASE)?;
    config.scales.embedding = (config.n_embd as f32).sqrt();
    config.scales.logit_cap = keys.nonzero("final_logit_softcapping")?;
    config.n_shared_kv = keys.count_below("attention.shared_kv_layers", config.n_layer())?;
    config.n_embd_per_layer = keys.count_below("embedding_length_per_layer_input", MAX_DIM)?;
    config.with_experts(keys, &[Setting::Width, Setting::Normed])
}

fn emit(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    let mut x = parts::scale(b, x, c.scales.embedding)?;
    let extra = if c.n_embd_per_layer > 0 { Some(per_layer(b, c, x)?) } else { None };
    let mut attentions = Vec::new();
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        let normed = b.rms_norm(x, "attn_norm")?;
        let heads = attention(b, c, (i, layer), normed, &attentions)?;
        attentions.push(heads);
        let attended = b.linear(heads, "attn_output", c.n_embd)?;
        let attended = b.rms_norm(attended, "post_attention_norm")?;
        x = b.add(attended, x)?;
        let moved = match &layer.experts {
            None => {
                let normed = b.rms_norm(x, "ffn_norm")?;
                GEMMA.mlp(b, normed, layer.n_ff, c.n_embd)?
            }
            Some(_) => mixture(b, c, x, layer)?,
        };
        let moved = b.rms_norm(moved, "post_ffw_norm")?;
        x = b.add(moved, x)?;
        if let Some(extra) = extra {
            x = mix_in(b, c, (i, x), extra)?;
        }
        x = b.scale_by(x, "layer_output_scale.weight")?;
    }
    b.enter_layer(None);
    let last = b.select(x)?;
    let hidden = b.rms_norm(last, "output_norm")?;
    Ok((hidden, Some(parts::head(b, hidden, c)?)))
}

/// The heads' results: of queries over the layer's own keys and values, or over those of the last layer of the same kind
/// that has its own.
fn attention(
    b: &mut Builder<'_>,
    c: &Config,
    (i, layer): (usize, &LayerConfig),
    normed: Value,
    attentions: &[Value],
) -> Result<Value> {
    let scores = parts::scores(b, c, layer)?;
    let rotated = |b: &mut Builder<'_>, x, part| {
        let x = b.head_norm(x, part, layer.head_dim)?;
        b.rope(x, layer)
    };
    let q = b.linear(normed, "attn_q", layer.q_width())?;
    let q = rotated(b, q, "attn_q_norm")?;
    let own = c.n_layer() - c.n_shared_kv;
    if i >= own {
        let back = if layer.mask.is_window() { 2 } else { 1 };
        let Some(&earlier) = own.checked_sub(back).and_then(|earlier| attentions.get(earlier)) else {
            return Err(Error::format("layers that share keys and values without one that has them"));
        };
        for part in ["attn_k.weight", "attn_v.weight", "attn_k_norm.weight", "attn_k.scale", "attn_v.scale"] {
            b.ignore(part);
        }
        return b.attention_shared(q, earlier, layer, scores);
    }
    let k = b.linear(normed, "attn_k", layer.kv_width())?;
    // A layer without values of its own takes its keys for them.
    let v = if b.has("attn_v.weight") { b.linear(normed, "attn_v", layer.kv_width())? } else { k };
    let k = rotated(b, k, "attn_k_norm")?;
    let v = b.plain_head_norm(v, layer.head_dim)?;
    b.attention([q, k, v], layer, scores)
}

/// The MLP and the experts side by side, each between norms of its own.
fn mixture(b: &mut Builder<'_>, c: &Config, x: Value, layer: &LayerConfig) -> Result<Value> {
    let Some(experts) = &layer.experts else { return Ok(x) };
    let normed = b.rms_norm(x, "ffn_norm")?;
    let moved = GEMMA.mlp(b, normed, layer.n_ff, c.n_embd)?;
    let moved = b.rms_norm(moved, "post_ffw_norm_1")?;
    // The gain of the router's norm is a tensor of its own.
    let routed = b.rms_norm(x, "ffn_gate_inp.scale")?;
    let routed = b.scale(routed, 1.0 / (c.n_embd as f32).sqrt())?;
    let router = b.linear_unscaled(routed, "ffn_gate_inp", experts.count)?;
    let normed = b.rms_norm(x, "pre_ffw_norm_2")?;
    let mixed = GEMMA.mixture(b, normed, router, experts)?;
    let mixed = b.rms_norm(mixed, "post_ffw_norm_2")?;
    b.add(moved, mixed)
}

/// What every layer mixes in, side by side: a second embedding of the tokens and a projection of the first.
fn per_layer(b: &mut Builder<'_>, c: &Config, x: Value) -> Result<Value> {
    let (each, all) = (c.n_embd_per_layer, c.n_embd_per_layer * c.n_layer());
    let tokens = b.embed("per_layer_token_embd", c.n_vocab, all)?;
    let tokens = b.scale(tokens, (each as f32).sqrt())?;
    let projected = b.linear_unscaled(x, "per_layer_model_proj", all)?;
    let projected = b.scale(projected, 1.0 / (c.n_embd as f32).sqrt())?;
    let projected = b.head_norm(projected, "per_layer_proj_norm", each)?;
    let sum = b.add(projected, tokens)?;
    b.scale(sum, std::f32::consts::FRAC_1_SQRT_2)
}

/// The residual stream with the layer's part of [`per_layer`] mixed in.
fn mix_in(b: &mut Builder<'_>, c: &Config, (i, x): (usize, Value), extra: Value) -> Result<Value> {
    let each = c.n_embd_per_layer;
    let gate = b.linear_unscaled(x, "inp_gate", each)?;
    let gate = b.activate(gate, Activation::GeluTanh)?;
    let own = b.split(extra, i * each, each)?;
    let gated = b.gate(gate, own)?;
    let out = b.linear_unscaled(gated, "proj", c.n_embd)?;
    let out = b.rms_norm(out, "post_norm")?;
    b.add(x, out)
}
