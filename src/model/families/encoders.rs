//! Encoders: BERT and its kin, in which all tokens of a text see each other, with norms after the sums, and newer ones
//! that are decoders without a causal mask. They give hidden rows and no logits.

use super::Family;
use super::parts::{self, Decoder, Inner, Norms, Place};
use crate::error::{Error, Result, quoted};
use crate::kernels::rope::Pairing;
use crate::model::builder::{Builder, Ends};
use crate::model::config::{Config, LAYER_EPS, LayerConfig, MAX_LAYERS, Mask};
use crate::model::experts::{Form, Setting};
use crate::model::graph::{Activation, Value};
use crate::model::keys::Keys;
use crate::model::pooling::Pooling;

/// BERT (Devlin et al. 2018, arXiv:1810.04805), XLM-RoBERTa and their fine-tuned models (MiniLM, bge, e5, arctic).
const BERT: Decoder = Decoder {
    norms: Norms::Layer,
    heads: parts::unchanged,
    inner: Inner::Plain(Activation::GeluTanh),
    ..Decoder::LLAMA
};

fn config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    keys.void(&["token_type_count"]);
    Config::read(keys, n_vocab, LAYER_EPS)?.seeing_all(keys)
}

fn rotary_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    config(keys, n_vocab)?.with_rope(keys, Pairing::Halves)
}

pub const FAMILIES: &[Family] = &[
    Family {
        name: "bert",
        config,
        emit: |b, c| {
            let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
            let positions = b.positions("position_embd", c.n_ctx_train, c.n_embd)?;
            let x = b.add(x, positions)?;
            let x = typed(b, x)?;
            encode(b, c, &BERT, x)
        },
    },
    // Nomic's: a SwiGLU MLP without biases.
    Family {
        name: "nomic-bert",
        config: rotary_config,
        emit: |b, c| {
            let x = tokens(b, c)?;
            let inner = Inner::Gated(Activation::Silu);
            encode(b, c, &Decoder { heads: parts::rotated, inner, biased_mlp: false, ..BERT }, x)
        },
    },
    // A mixture of experts without gates in every second layer or so; BERT's MLP in the others.
    Family {
        name: "nomic-bert-moe",
        config: mixture_config,
        emit: |b, c| {
            let x = tokens(b, c)?;
            let experts = Form { gated: false, ..Form::gated(Activation::GeluTanh) };
            encode(b, c, &Decoder { heads: parts::rotated, experts, ..BERT }, x)
        },
    },
    Family {
        name: "jina-bert-v3",
        config: rotary_config,
        emit: |b, c| {
            let x = tokens(b, c)?;
            encode(b, c, &Decoder { heads: parts::rotated, ..BERT }, x)
        },
    },
    Family {
        name: "jina-bert-v2",
        config: |keys, n_vocab| {
            let mut config = config(keys, n_vocab)?;
            config.scales.alibi = Some(8.0);
            Ok(config)
        },
        emit: |b, c| {
            let x = tokens(b, c)?;
            b.enter_layer(Some(0));
            let inner = match b.has("ffn_gate.weight") {
                true => Inner::Gated(Activation::GeluTanh),
                false if b.rows("ffn_up.weight") == Some(c.first().n_ff) => {
                    Inner::Plain(Activation::GeluTanh)
                }
                false => Inner::GateUp(Activation::GeluTanh),
            };
            b.enter_layer(None);
            encode(b, c, &Decoder { heads: wide_normed, inner, ..BERT }, x)
        },
    },
    // ModernBERT (Warner et al. 2024, arXiv:2412.13663): norms before, windows in two of three layers.
    Family {
        name: "modern-bert",
        config: modern_config,
        emit: |b, c| {
            let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
            let x = b.layer_norm(x, "token_embd_norm")?;
            let inner = Inner::GateUp(c.activation.unwrap_or(Activation::GeluTanh));
            let optional_norm = Some("attn_norm");
            let decoder = Decoder { heads: parts::rotated, inner, optional_norm, ..BERT };
            Ok((decoder.hidden(b, c, x)?, None))
        },
    },
    // NeoBERT (Le Breton et al. 2025, arXiv:2502.19587).
    Family {
        name: "neo-bert",
        config: |keys, n_vocab| Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?.seeing_all(keys),
        emit: |b, c| {
            let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
            let inner = Inner::GateUp(Activation::Silu);
            let decoder = Decoder { inner, last_norm: "enc.output_norm", ..Decoder::LLAMA };
            Ok((decoder.hidden(b, c, x)?, None))
        },
    },
    Family {
        name: "eurobert",
        config: |keys, n_vocab| Config::read_rotary(keys, n_vocab, Pairing::Halves)?.seeing_all(keys),
        emit: |b, c| {
            let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
            Ok((Decoder::LLAMA.hidden(b, c, x)?, None))
        },
    },
    // Llama, all of whose tokens see each other.
    Family {
        name: "llama-embed",
        config: |keys, n_vocab| Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?.seeing_all(keys),
        emit: |b, c| {
            b.ignore("output.weight");
            let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
            Ok((Decoder::LLAMA.hidden(b, c, x)?, None))
        },
    },
    // EmbeddingGemma: Gemma 3 with windows on both sides.
    Family {
        name: "gemma-embedding",
        config: gemma_config,
        emit: |b, c| {
            b.ignore("output.weight");
            let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
            let x = parts::scale(b, x, c.scales.embedding)?;
            let inner = Inner::Gated(Activation::GeluTanh);
            let heads = parts::normed_rotated;
            let decoder = Decoder { place: Place::Both, heads, inner, ..Decoder::LLAMA };
            Ok((decoder.hidden(b, c, x)?, None))
        },
    },
];

/// Embeddings of tokens, plus that of the first type of token where the file has types.
fn tokens(b: &mut Builder<'_>, c: &Config) -> Result<Value> {
    let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    typed(b, x)
}

/// Rows plus the first type of token, where the file has types.
fn typed(b: &mut Builder<'_>, x: Value) -> Result<Value> {
    const TYPES: &str = "token_types.weight";
    if b.has(TYPES) { b.add_row(x, TYPES) } else { Ok(x) }
}

/// Blocks with norms after the sums.
fn encode(b: &mut Builder<'_>, c: &Config, decoder: &Decoder, x: Value) -> Result<Ends> {
    let x = b.layer_norm(x, "token_embd_norm")?;
    let x = parts::blocks(b, c, x, |b, layer, x| {
        b.require(&["attn_output_norm.bias", "layer_output_norm.bias"])?;
        let attended = decoder.attention(b, c, x, layer)?;
        let sum = b.add(attended, x)?;
        let mut moved = b.layer_norm(sum, "attn_output_norm")?;
        if b.has("attn_norm_2.weight") {
            let sum = b.add(moved, x)?;
            moved = b.layer_norm(sum, "attn_norm_2")?;
        }
        let inner = decoder.mlp_or_mixture(b, moved, layer, c.n_embd)?;
        let sum = b.add(inner, moved)?;
        b.layer_norm(sum, "layer_output_norm")
    })?;
    Ok((b.select(x)?, None))
}

/// Queries and keys normalised over all heads together, where the file has such norms.
fn wide_normed(b: &mut Builder<'_>, [mut q, mut k, v]: [Value; 3], _: &LayerConfig) -> Result<[Value; 3]> {
    if b.has("attn_q_norm.weight") {
        q = b.layer_norm(q, "attn_q_norm")?;
    }
    if b.has("attn_k_norm.weight") {
        k = b.layer_norm(k, "attn_k_norm")?;
    }
    Ok([q, k, v])
}

fn modern_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = rotary_config(keys, n_vocab)?;
    let windowed = keys.first_of_period("attention.sliding_window_pattern", 3, config.n_layer())?;
    let window = keys.window()?;
    both_sides(&mut config, window, windowed.into_iter().map(|first| !first));
    config.activation = match keys.text("hidden_activation")? {
        None => None,
        Some("gelu" | "geglu") => Some(Activation::GeluTanh),
        Some("silu" | "swish" | "swiglu") => Some(Activation::Silu),
        Some(other) => return Err(Error::Unsupported(format!("an MLP with {}", quoted(other)))),
    };
    config.classifier.activation = Some(Activation::GeluTanh);
    if !keys.has("classifier.pooling_type") {
        config.classifier.pooling = Pooling::Mean;
    }
    config.with_window_rope(keys, Some(10_000.0), false)
}

/// Experts in each layer whose number leaves 1 when divided by the file's period.
fn mixture_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = rotary_config(keys, n_vocab)?.with_experts(keys, &[Setting::ScaleStated])?;
    let period = keys.count_below("moe_every_n_layers", MAX_LAYERS)?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        if period == 0 || i % period != 1 {
            layer.experts = None;
        }
    }
    Ok(config)
}

fn gemma_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?.seeing_all(keys)?;
    config.scales.embedding = (config.n_embd as f32).sqrt();
    let windowed = keys.pattern("attention.sliding_window_pattern", 6, config.n_layer())?;
    let window = keys.window()?;
    both_sides(&mut config, window, windowed);
    config.with_window_rope(keys, Some(10_000.0), false)
}

/// Gives some layers a window on both sides of a token.
fn both_sides(config: &mut Config, window: usize, windowed: impl IntoIterator<Item = bool>) {
    if window == 0 {
        return;
    }
    let layers = config.layers.iter_mut().zip(windowed).filter(|(_, windowed)| *windowed);
    layers.for_each(|(layer, _)| layer.mask = Mask::SymmetricWindow(window));
}
