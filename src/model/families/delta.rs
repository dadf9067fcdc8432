//! Families whose layers are gated delta nets but for each fourth one, which has attention with a gate for each
//! element: Qwen3-Next and Qwen 3.5 (Yang et al. 2024, arXiv:2412.06464).

use super::Family;
use super::parts::{self, Decoder};
use super::recurrent::recur;
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::builder::Builder;
use crate::model::config::{Config, LayerConfig};
use crate::model::experts::{Form, Setting};
use crate::model::graph::{Activation, Value};
use crate::model::keys::Keys;
use crate::model::recurrence::Recurrence;

/// The period of layers with attention, where the file states none.
const PERIOD: usize = 4;

/// The configuration; `grouped` and `scaled` as in [`DeltaNet`](crate::model::DeltaNet).
fn config(keys: &Keys<'_>, n_vocab: usize, grouped: bool, scaled: bool) -> Result<Config> {
    // For text all of a token's positions are the same, so that sections of the rotation mean nothing.
    keys.void(&["rope.dimension_sections"]);
    let mut config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
    let n_block = config.n_layer() + config.n_predicting;
    let recurrent = match keys.is_list("attention.recurrent_layers") {
        true => keys.pattern("attention.recurrent_layers", 0, n_block)?,
        false => keys.pattern("full_attention_interval", PERIOD, n_block)?,
    };
    let net = Recurrence::delta(keys, grouped, scaled)?;
    for (layer, _) in config.layers.iter_mut().zip(recurrent).filter(|(_, recurrent)| *recurrent) {
        (layer.n_head, layer.n_head_kv, layer.recurrence) = (0, 0, Some(net));
    }
    Ok(config)
}

/// Attention whose queries stand beside gates of its results, head by head.
fn attention(b: &mut Builder<'_>, c: &Config, x: Value, layer: &LayerConfig) -> Result<Value> {
    let head = layer.head_dim;
    let all = b.linear(x, "attn_q", 2 * layer.q_width())?;
    let [q, gate] = [b.split_heads(all, 2 * head, 0, head)?, b.split_heads(all, 2 * head, head, head)?];
    let [k, v] = [b.linear(x, "attn_k", layer.kv_width())?, b.linear(x, "attn_v", layer.kv_width())?];
    let qkv = parts::normed_rotated(b, [q, k, v], layer)?;
    let scores = parts::scores(b, c, layer)?;
    let heads = b.attention(qkv, layer, scores)?;
    let gate = b.activate(gate, Activation::Sigmoid)?;
    let heads = b.gate(heads, gate)?;
    b.linear_unbiased(heads, "attn_output", c.n_embd)
}

/// The decoder, without experts.
const DENSE: Decoder = Decoder {
    mixer: |b, c, _, x, layer| match &layer.recurrence {
        Some(recurrence) => recur(b, x, recurrence, c.n_embd),
        None => attention(b, c, x, layer),
    },
    mlp_norm: "post_attention_norm",
    scaled_mlp: true,
    ..Decoder::LLAMA
};

/// The decoder with experts, among them a shared one with a gate.
const MIXTURE: Decoder = Decoder {
    experts: Form { scaled_shared: true, ..Form::SCALED },
    required: &["ffn_gate_inp_shexp.weight"],
    ..DENSE
};

/// The configuration of a mixture.
fn with_experts(keys: &Keys<'_>, config: Config) -> Result<Config> {
    config.with_experts(keys, &[Setting::Width, Setting::Normed, Setting::SharedWidthOrMlp])
}

pub const FAMILIES: &[Family] = &[
    Family {
        name: "qwen3next",
        config: |keys, n_vocab| with_experts(keys, config(keys, n_vocab, true, false)?),
        emit: |b, c| MIXTURE.emit(b, c),
    },
    Family {
        name: "qwen35",
        config: |keys, n_vocab| config(keys, n_vocab, false, true),
        emit: |b, c| DENSE.emit(b, c),
    },
    Family {
        name: "qwen35moe",
        config: |keys, n_vocab| with_experts(keys, config(keys, n_vocab, false, true)?),
        emit: |b, c| MIXTURE.emit(b, c),
    },
];
