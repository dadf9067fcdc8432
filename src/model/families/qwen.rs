//! Qwen 2 and 3 and their kin: Llama's decoder with pairs half a head apart, with biases on queries, keys and values
//! (Qwen 2), or a norm of each head of queries and keys before the rotation (Qwen 3, arXiv:2505.09388).

use super::Family;
use super::parts::{self, Decoder};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::builder::Builder;
use crate::model::config::{Config, Mask};
use crate::model::experts::{Form, Setting};
use crate::model::graph::Value;

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
        emit: |b, c| Decoder { heads: parts::normed_rotated, ..Decoder::LLAMA }.emit(b, c),
        ..like(name)
    }
}

/// A family with normalised heads and experts.
const fn mixture(name: &'static str, scaled: bool) -> Family {
    let emit: fn(&mut Builder<'_>, &Config) -> Result<(Value, Value)> = if scaled {
        |b, c| {
            let experts = Form { scaled: true, ..Form::SWIGLU };
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
    like("qwen2vl"),
    like("pangu-embedded"),
    like("exaone"),
    // The MLP's norm has the name of another one.
    Family {
        emit: |b, c| Decoder { mlp_norm: "post_attention_norm", ..Decoder::LLAMA }.emit(b, c),
        ..like("seed_oss")
    },
    normed("qwen3"),
    normed("qwen3vl"),
    mixture("qwen3moe", true),
    mixture("qwen3vlmoe", false),
    // A shared expert has a router of its own.
    Family {
        config: |keys, n_vocab| {
            let settings = [Setting::Width, Setting::SharedWidthOrMlp];
            (like("").config)(keys, n_vocab)?.with_experts(keys, &settings)
        },
        ..like("qwen2moe")
    },
    // A diffusion model: tokens see those behind them.
    Family {
        config: |keys, n_vocab| {
            let mut config = (mixture("", false).config)(keys, n_vocab)?;
            config.layers.iter_mut().for_each(|layer| layer.mask = Mask::Full);
            Ok(config)
        },
        ..mixture("rnd1", false)
    },
    Family {
        emit: |b, c| Decoder { heads: parts::rotated_normed, ..Decoder::LLAMA }.emit(b, c),
        ..like("hunyuan-dense")
    },
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
