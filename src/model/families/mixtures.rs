//! Mixtures of experts whose attention is that of a dense family: OLMoE, DeepSeek 1, dots.llm1, Ling, ERNIE 4.5,
//! Hunyuan, EXAONE, GLM 4.5, MiniMax M2, Mellum, LLaDA, DBRX, gpt-oss, AFM.

use super::Family;
use super::parts::{self, Decoder, Norms, Place};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::config::{Config, LAYER_EPS};
use crate::model::experts::Setting::{
    DenseFirst, Gated, GatingStated, Interleaved, NormStated, Normed, ScaleStated, SharedCount, SharedWidth,
    SharedWidthEach, Width,
};
use crate::model::experts::{Form, Gating, Inner, Setting};
use crate::model::keys::Keys;

/// Pairs that are adjacent.
fn adjacent(keys: &Keys<'_>, n_vocab: usize, settings: &[Setting]) -> Result<Config> {
    Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?.with_experts(keys, settings)
}

/// Pairs half a head apart.
fn halves(keys: &Keys<'_>, n_vocab: usize, settings: &[Setting]) -> Result<Config> {
    keys.void(&["rope.dimension_sections"]);
    Config::read_rotary(keys, n_vocab, Pairing::Halves)?.with_experts(keys, settings)
}

const NORMED: Decoder = Decoder { heads: parts::normed_rotated, ..Decoder::LLAMA };
const WIDE_NORMED: Decoder = Decoder { heads: parts::wide_normed_rotated, ..Decoder::LLAMA };

pub const FAMILIES: &[Family] = &[
    Family {
        name: "olmoe",
        config: |keys, n_vocab| halves(keys, n_vocab, &[]),
        emit: |b, c| WIDE_NORMED.emit(b, c),
    },
    // A diffusion model: tokens see those behind them.
    Family {
        name: "llada-moe",
        config: |keys, n_vocab| halves(keys, n_vocab, &[Width])?.seeing_all(keys),
        emit: |b, c| NORMED.emit(b, c),
    },
    Family {
        name: "minimax-m2",
        config: |keys, n_vocab| halves(keys, n_vocab, &[Width, Normed, GatingStated]),
        emit: |b, c| WIDE_NORMED.emit(b, c),
    },
    Family {
        name: "deepseek",
        config: |keys, n_vocab| {
            let mut config = adjacent(keys, n_vocab, &[DenseFirst, Width, SharedCount, ScaleStated])?;
            if let Some(scale) = keys.nonzero("attention.scale")? {
                config.layers.iter_mut().for_each(|layer| layer.score_scale = scale);
            }
            Ok(config)
        },
        emit: |b, c| Decoder::LLAMA.emit(b, c),
    },
    Family {
        name: "bailingmoe",
        config: |keys, n_vocab| adjacent(keys, n_vocab, &[Width, SharedCount, ScaleStated, NormStated]),
        emit: |b, c| Decoder::LLAMA.emit(b, c),
    },
    Family {
        name: "dots1",
        config: |keys, n_vocab| {
            let settings = [DenseFirst, Width, SharedCount, ScaleStated, NormStated, GatingStated];
            halves(keys, n_vocab, &settings)
        },
        emit: |b, c| NORMED.emit(b, c),
    },
    Family {
        name: "glm4moe",
        config: |keys, n_vocab| {
            let gating = [Gated(Gating::Sigmoid), GatingStated];
            let settings = [DenseFirst, Width, SharedCount, ScaleStated, NormStated, gating[0], gating[1]];
            halves(keys, n_vocab, &settings)
        },
        emit: |b, c| {
            let heads: parts::Heads = |b, qkv, layer| match b.has("attn_q_norm.weight") {
                true => parts::normed_rotated(b, qkv, layer),
                false => parts::rotated(b, qkv, layer),
            };
            Decoder { heads, mlp_norm: "post_attention_norm", ..Decoder::LLAMA }.emit(b, c)
        },
    },
    Family {
        name: "ernie4_5-moe",
        config: |keys, n_vocab| {
            keys.void(&["rope.dimension_sections"]);
            adjacent(keys, n_vocab, &[DenseFirst, Interleaved, Width, SharedWidth, Normed])
        },
        emit: |b, c| Decoder { biased_output: false, ..Decoder::LLAMA }.emit(b, c),
    },
    Family {
        name: "hunyuan-moe",
        config: |keys, n_vocab| halves(keys, n_vocab, &[Width, SharedWidth, Normed]),
        emit: |b, c| Decoder { heads: parts::rotated_normed, ..Decoder::LLAMA }.emit(b, c),
    },
    // Windows in three layers of four, which alone have no scaling of positions.
    Family {
        name: "mellum",
        config: |keys, n_vocab| {
            let config = halves(keys, n_vocab, &[Width, Normed])?;
            config.with_windows(keys, 0, 4)?.with_window_rope(keys, None, false)
        },
        emit: |b, c| Decoder { experts: Form::SCALED, ..NORMED }.emit(b, c),
    },
    // Queries, keys and values are clamped.
    Family {
        name: "dbrx",
        config: |keys, n_vocab| {
            let config = Config::read(keys, n_vocab, LAYER_EPS)?.with_rope(keys, Pairing::Halves)?;
            let mut config = config.with_experts(keys, &[Normed])?;
            config.scales.qkv_limit = keys.nonzero("attention.clamp_kqv")?;
            Ok(config)
        },
        emit: |b, c| {
            let mlp_norm = "attn_output_norm";
            Decoder { norms: Norms::Layer, mlp_norm, ..Decoder::LLAMA }.emit(b, c)
        },
    },
    Family {
        name: "gpt-oss",
        config: |keys, n_vocab| {
            let config = halves(keys, n_vocab, &[Width, Gated(Gating::SoftmaxOfChosen)])?;
            config.with_windows(keys, 0, 2)?.with_window_rope(keys, None, true)
        },
        emit: |b, c| {
            let experts = Form { inner: Inner::ClampedSwiGlu { alpha: 1.702, limit: 7.0 }, ..Form::SWIGLU };
            let required = &["attn_sinks.weight"];
            Decoder { mlp_norm: "post_attention_norm", experts, required, ..Decoder::LLAMA }.emit(b, c)
        },
    },
    // Gated attention, norms on both sides, and no positions in every fourth layer.
    Family {
        name: "afmoe",
        config: |keys, n_vocab| {
            let gating = [Gated(Gating::Sigmoid), GatingStated];
            let settings = [DenseFirst, Width, SharedCount, ScaleStated, NormStated, gating[0], gating[1]];
            let config = halves(keys, n_vocab, &settings)?.with_windows(keys, 0, 4)?;
            let mut config = config.with_window_rope(keys, None, true)?;
            config.layers.iter_mut().skip(3).step_by(4).for_each(|layer| layer.rope = None);
            config.scales.embedding = (config.n_embd as f32).sqrt();
            Ok(config)
        },
        emit: |b, c| Decoder { place: Place::Both, gate: parts::Gate::Elements, ..NORMED }.emit(b, c),
    },
    Family {
        name: "exaone-moe",
        config: |keys, n_vocab| {
            let shared = [SharedWidth, SharedCount];
            let settings = [DenseFirst, Width, shared[0], shared[1], ScaleStated, NormStated, GatingStated];
            let config = halves(keys, n_vocab, &settings)?.with_windows(keys, 128, 4)?;
            let mut config = config.with_window_rope(keys, None, true)?;
            parts::rotate_only_windows(&mut config);
            Ok(config)
        },
        emit: |b, c| NORMED.emit(b, c),
    },
    // Ling 2.
    Family {
        name: "bailingmoe2",
        config: |keys, n_vocab| {
            let settings = [DenseFirst, Width, SharedWidthEach, ScaleStated, NormStated, GatingStated];
            halves(keys, n_vocab, &settings)
        },
        emit: |b, c| NORMED.emit(b, c),
    },
];
