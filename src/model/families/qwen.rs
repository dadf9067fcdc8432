//! Qwen 2 and 3 and their kin: Llama's decoder with pairs half a head apart, with biases on queries, keys and values
//! (Qwen 2), or a norm of each head of queries and keys before the rotation (Qwen 3, arXiv:2505.09388).

use super::Family;
use super::parts::{self, Decoder};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::builder::{Builder, Ends};
use crate::model::config::Config;
use crate::model::experts::{Form, Setting};
use crate::model::keys::Keys;
use crate::model::pooling::Pooling;

/// A family with plain rotary heads.
const fn like(name: &'static str) -> Family {
    Family {
        name,
        config: |keys, n_vocab| {
            // For text all of a token's positions are the same, so that sections of the rotation mean nothing.
            keys.void(&["rope.dimension_sections"]);
            Config::read_rotary(keys, n_vocab, Pairing::Halves)
        },
        emit: |b, c| Decoder::LLAMA.emit(b, c),
    }
}

/// A family with normalised heads.
const fn normed(name: &'static str) -> Family {
    Family {
        config: qwen3_config,
        emit: |b, c| Decoder { heads: parts::normed_rotated, ..Decoder::LLAMA }.emit(b, c),
        ..like(name)
    }
}

/// Rerankers tell by the last row how likely `yes` and `no` are.
fn qwen3_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = (like("qwen3").config)(keys, n_vocab)?;
    config.classifier.pooling = Pooling::Last;
    config.classifier.softmax = true;
    Ok(config)
}

/// Llama's decoder with a head that ignores its bias, as llama.cpp does in these families.
fn unbiased(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    b.ignore("output.bias");
    let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    let hidden = Decoder::LLAMA.hidden(b, c, x)?;
    let logits = match b.has("output.weight") {
        true => b.linear_unbiased(hidden, "output", c.n_vocab)?,
        false => b.linear_tied(hidden, "token_embd", "output", c.n_vocab)?,
    };
    Ok((hidden, Some(logits)))
}

/// A family whose heads are normalised after the rotation, and whose rotary base may be raised (NTK-aware scaling).
const fn hunyuan(name: &'static str) -> Family {
    Family {
        config: |keys, n_vocab| {
            let mut config = (like("hunyuan-dense").config)(keys, n_vocab)?;
            let alpha = keys.positive_or_unset("rope.scaling.alpha", 1.0)?;
            let dim = config.first().head_dim as f32;
            config.ropes.iter_mut().for_each(|rope| rope.base *= alpha.powf(dim / (dim - 2.0)));
            Ok(config)
        },
        emit: |b, c| Decoder { heads: parts::rotated_normed, ..Decoder::LLAMA }.emit(b, c),
        ..like(name)
    }
}

/// A family with normalised heads and experts.
const fn mixture(name: &'static str, scaled: bool) -> Family {
    let emit: fn(&mut Builder<'_>, &Config) -> Result<Ends> = if scaled {
        |b, c| {
            let experts = Form::SCALED;
            Decoder { heads: parts::normed_rotated, experts, ..Decoder::LLAMA }.emit(b, c)
        }
    } else {
        normed("").emit
    };
    Family {
        config: |keys, n_vocab| {
            (like("").config)(keys, n_vocab)?.with_experts(keys, &[Setting::Width, Setting::Normed])
        },
        emit,
        ..like(name)
    }
}

pub const FAMILIES: &[Family] = &[
    like("qwen2"),
    Family { emit: unbiased, ..like("qwen2vl") },
    Family {
        emit: |b, c| {
            b.ignore_rope_factors();
            Decoder::LLAMA.emit(b, c)
        },
        ..like("pangu-embedded")
    },
    like("exaone"),
    // The MLP's norm has the name of another one.
    Family {
        emit: |b, c| Decoder { mlp_norm: "post_attention_norm", ..Decoder::LLAMA }.emit(b, c),
        ..like("seed_oss")
    },
    mixture("qwen3moe", true),
    mixture("qwen3vlmoe", false),
    // A shared expert has a router of its own.
    Family {
        config: |keys, n_vocab| {
            let settings = [Setting::Width, Setting::SharedWidthOrMlp];
            (like("").config)(keys, n_vocab)?.with_experts(keys, &settings)
        },
        emit: |b, c| Decoder { required: &["ffn_gate_inp_shexp.weight"], ..Decoder::LLAMA }.emit(b, c),
        ..like("qwen2moe")
    },
    // A diffusion model: tokens see those behind them.
    Family {
        config: |keys, n_vocab| (mixture("", false).config)(keys, n_vocab)?.seeing_all(keys),
        ..mixture("rnd1", false)
    },
    Family {
        config: qwen3_config,
        emit: |b, c| Decoder { heads: parts::normed_rotated, scaled_mlp: true, ..Decoder::LLAMA }.emit(b, c),
        ..like("qwen3")
    },
    normed("qwen3vl"),
    // Heads and MLPs of another size in each layer; queries, keys and values are one matrix.
    Family {
        emit: |b, c| {
            let heads = parts::normed_rotated;
            Decoder { heads, scaled_qkv: false, ..Decoder::LLAMA }.emit(b, c)
        },
        ..like("openelm")
    },
    // A diffusion model: all positions see each other.
    Family {
        config: |keys, n_vocab| (like("dream").config)(keys, n_vocab)?.seeing_all(keys),
        emit: unbiased,
        ..like("dream")
    },
    // Attention and MLP side by side.
    Family {
        config: |keys, n_vocab| {
            let mut config = (like("plamo").config)(keys, n_vocab)?;
            config.scales.parallel = true;
            Ok(config)
        },
        ..like("plamo")
    },
    hunyuan("hunyuan-dense"),
    hunyuan("hunyuan_vl"),
    Family {
        // The file states twice the width of an MLP.
        config: |keys, n_vocab| {
            let mut config = (like("qwen").config)(keys, n_vocab)?;
            config.layers.iter_mut().for_each(|layer| layer.n_ff /= 2);
            Ok(config)
        },
        ..like("qwen")
    },
];
