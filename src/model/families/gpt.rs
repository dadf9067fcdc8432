//! GPT-2's kin: pre-norm decoders with LayerNorm, biases on all projections and an MLP without gate. Positions are
//! learned (GPT-2, StarCoder), rotary (GPT-NeoX, Phi-2, StarCoder 2, Nemotron …) or a bias of scores (BLOOM, MPT).

use super::Family;
use super::parts::{self, Decoder, Inner, Norms};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::builder::{Builder, Ends};
use crate::model::config::{Config, LAYER_EPS};
use crate::model::graph::{Activation, Value};
use crate::model::keys::Keys;

/// Biases of every projection and norm, but for queries, keys and values.
const BIASES: &[&str] =
    &["attn_norm.bias", "attn_output.bias", "ffn_norm.bias", "ffn_up.bias", "ffn_down.bias"];

/// The same, and queries, keys and values in one matrix with a bias.
const FUSED_BIASES: &[&str] = &[
    "attn_norm.bias",
    "attn_qkv.weight",
    "attn_qkv.bias",
    "attn_output.bias",
    "ffn_norm.bias",
    "ffn_up.bias",
    "ffn_down.bias",
];

/// Biases of norms alone.
const NORM_BIASES: &[&str] = &["attn_norm.bias", "ffn_norm.bias"];

const GPT: Decoder = Decoder {
    norms: Norms::Layer,
    inner: Inner::Plain(Activation::GeluTanh),
    heads: parts::unchanged,
    required: BIASES,
    ..Decoder::LLAMA
};

const ROTARY: Decoder = Decoder { heads: parts::rotated, ..GPT };

fn config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    Config::read(keys, n_vocab, LAYER_EPS)
}

fn rotary_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    config(keys, n_vocab)?.with_rope(keys, Pairing::Halves)
}

/// The decoder of a speech model: StarCoder 2's with adjacent pairs.
const POCKET: Family = Family {
    name: "pockettts",
    config: |keys, n_vocab| config(keys, n_vocab)?.with_rope(keys, Pairing::Adjacent),
    emit: |b, c| Decoder { required: NORM_BIASES, ..ROTARY }.emit(b, c),
};

/// A family with learned positions.
const fn learned(name: &'static str) -> Family {
    Family {
        name,
        config,
        emit: |b, c| {
            let x = with_positions(b, c)?;
            Decoder { required: FUSED_BIASES, ..GPT }.emit_from(b, c, x)
        },
    }
}

/// A family with rotary positions.
const fn rotary(name: &'static str) -> Family {
    Family { name, config: rotary_config, emit: |b, c| ROTARY.emit(b, c) }
}

pub const FAMILIES: &[Family] = &[
    learned("gpt2"),
    learned("starcoder"),
    rotary("starcoder2"),
    rotary("codeshell"),
    POCKET,
    Family {
        config: |keys, n_vocab| {
            let mut config = rotary_config(keys, n_vocab)?;
            config.scales.parallel = keys.flag("use_parallel_residual", true)?;
            Ok(config)
        },
        ..rotary("gptneox")
    },
    Family {
        config: |keys, n_vocab| {
            let mut config = rotary_config(keys, n_vocab)?;
            config.scales.parallel = true;
            Ok(config)
        },
        emit: |b, c| {
            let required = &["attn_norm.bias", "attn_output.bias", "ffn_up.bias", "ffn_down.bias"];
            b.require(&["output.bias"])?;
            Decoder { required, ..ROTARY }.emit(b, c)
        },
        ..rotary("phi2")
    },
    Family {
        emit: |b, c| Decoder { inner: Inner::Squared, required: NORM_BIASES, ..ROTARY }.emit(b, c),
        ..rotary("nemotron")
    },
    Family { emit: |b, c| Decoder { inner: Inner::Squared, ..ROTARY }.emit(b, c), ..rotary("jais2") },
    Family {
        emit: |b, c| {
            let inner = Inner::Gated(Activation::Silu);
            Decoder { inner, required: NORM_BIASES, ..ROTARY }.emit(b, c)
        },
        ..rotary("orion")
    },
    Family { config: stablelm_config, emit: stablelm, ..rotary("stablelm") },
    Family { config: falcon_config, emit: falcon, ..rotary("falcon") },
    Family {
        name: "bloom",
        config: |keys, n_vocab| {
            let mut config = config(keys, n_vocab)?;
            config.scales.alibi = Some(8.0);
            Ok(config)
        },
        emit: |b, c| {
            let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
            let x = b.layer_norm(x, "token_embd_norm")?;
            GPT.emit_from(b, c, x)
        },
    },
    Family { name: "mpt", config: mpt_config, emit: mpt },
    // Scores are divided by the length of a head, not by its root; the MLP has a gate.
    Family {
        name: "jais",
        config: |keys, n_vocab| {
            let mut config = config(keys, n_vocab)?;
            config.scales.alibi = keys.nonzero("attention.max_alibi_bias")?;
            config.layers.iter_mut().for_each(|layer| layer.score_scale = 1.0 / layer.head_dim as f32);
            Ok(config)
        },
        emit: |b, c| Decoder { inner: Inner::Gated(Activation::Silu), ..GPT }.emit(b, c),
    },
];

fn with_positions(b: &mut Builder<'_>, c: &Config) -> Result<Value> {
    let tokens = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    let positions = b.positions("position_embd", c.n_ctx_train, c.n_embd)?;
    b.add(tokens, positions)
}

/// StableLM: a gated MLP; a file without norms of MLPs has attention and MLP side by side, on one norm.
fn stablelm(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let heads: parts::Heads = |b, [mut q, mut k, v], layer| {
        if b.has("attn_q_norm.weight") {
            q = b.heads_layer_norm(q, "attn_q_norm", layer.head_dim)?;
        }
        if b.has("attn_k_norm.weight") {
            k = b.heads_layer_norm(k, "attn_k_norm", layer.head_dim)?;
        }
        parts::rotated(b, [q, k, v], layer)
    };
    b.enter_layer(Some(0));
    let mut c = c.clone();
    c.scales.parallel = !b.has("ffn_norm.weight");
    b.enter_layer(None);
    Decoder { inner: Inner::Gated(Activation::Silu), heads, required: &["attn_norm.bias"], ..ROTARY }
        .emit(b, &c)
}

fn stablelm_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    keys.void(&["use_parallel_residual"]);
    rotary_config(keys, n_vocab)
}

fn falcon_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = rotary_config(keys, n_vocab)?;
    config.scales.parallel = true;
    Ok(config)
}

/// Falcon: attention and MLP side by side; attention has the second norm, where there are two.
fn falcon(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    let x = parts::blocks(b, c, x, |b, layer, x| {
        let normed = b.layer_norm(x, "attn_norm")?;
        let second = b.has("attn_norm_2.weight");
        let for_attention = if second { b.layer_norm(x, "attn_norm_2")? } else { normed };
        let attended = ROTARY.attention(b, c, for_attention, layer)?;
        let moved = ROTARY.mlp(b, normed, layer.n_ff, c.n_embd)?;
        let sum = b.add(moved, attended)?;
        b.add(sum, x)
    })?;
    let last = b.select(x)?;
    let hidden = b.layer_norm(last, "output_norm")?;
    Ok((hidden, Some(parts::head(b, hidden, c)?)))
}

fn mpt_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = config(keys, n_vocab)?;
    config.scales.alibi = keys.nonzero("attention.max_alibi_bias")?;
    config.scales.qkv_limit = keys.nonzero("attention.clamp_kqv")?;
    Ok(config)
}

/// MPT: positions are a bias of scores, or learned; queries and keys may be normalised over all heads.
fn mpt(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let heads: parts::Heads = |b, [mut q, mut k, v], _| {
        if b.has("attn_q_norm.weight") {
            q = b.layer_norm(q, "attn_q_norm")?;
            k = b.layer_norm(k, "attn_k_norm")?;
        } else {
            b.ignore("attn_k_norm.weight");
            b.ignore("attn_k_norm.bias");
        }
        Ok([q, k, v])
    };
    let x = if b.has("position_embd.weight") {
        with_positions(b, c)?
    } else {
        b.embed("token_embd", c.n_vocab, c.n_embd)?
    };
    Decoder { heads, required: &[], ..GPT }.emit_from(b, c, x)
}
