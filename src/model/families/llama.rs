//! Llama's decoder: pre-norm blocks with RMSNorm, rotary grouped-query attention and a SwiGLU MLP; the head is a matrix
//! of its own or the embedding's. Llama 1 to 3, Mistral, TinyLlama, SmolLM 2 and others are files of `llama`; the other
//! families here only have another name, or another order of the same parts.

use super::Family;
use super::parts::{self, Decoder};
use crate::error::{Error, Result};
use crate::kernels::rope::Pairing;
use crate::model::config::{Config, RMS_EPS};
use crate::model::experts::{Form, Setting};
use crate::model::graph::Activation;
use crate::model::keys::Keys;

/// Converters permute Q and K of these families so that pairs are adjacent.
fn config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    Config::read_rotary(keys, n_vocab, Pairing::Adjacent)
}

/// A family that is Llama's by another name.
const fn like(name: &'static str) -> Family {
    Family { name, config, emit: |b, c| Decoder::LLAMA.emit(b, c) }
}

/// A family whose MLP's matrices may have factors.
const fn scaled(name: &'static str) -> Family {
    Family { emit: |b, c| Decoder { scaled_mlp: true, ..Decoder::LLAMA }.emit(b, c), ..like(name) }
}

pub const FAMILIES: &[Family] = &[
    // With experts, Mixtral.
    Family {
        config: |keys, n_vocab| config(keys, n_vocab)?.with_experts(keys, &[Setting::Normed]),
        emit: |b, c| Decoder { scaled_mlp: true, experts: Form::SCALED, ..Decoder::LLAMA }.emit(b, c),
        ..like("llama")
    },
    like("internlm2"),
    like("xverse"),
    like("deci"),
    Family { config: nanbeige_config, ..scaled("nanbeige") },
    Family { config: baichuan_config, ..like("baichuan") },
    Family {
        config: |keys, n_vocab| {
            let config = Config::read(keys, n_vocab, RMS_EPS)?;
            let mut config = config.with_experts(keys, &[Setting::Normed])?;
            config.scales.alibi = Some(8.0);
            Ok(config)
        },
        emit: |b, c| Decoder { biased_mlp: false, biased_output: false, ..Decoder::LLAMA }.emit(b, c),
        ..like("refact")
    },
    // A diffusion model: all positions see each other.
    Family {
        config: |keys, n_vocab| config(keys, n_vocab)?.seeing_all(keys),
        emit: |b, c| {
            b.ignore_rope_factors();
            Decoder { biased_mlp: false, biased_output: false, ..Decoder::LLAMA }.emit(b, c)
        },
        ..like("llada")
    },
    Family { config: mrope_config, ..like("ernie4_5") },
    // AFM: the MLP has no gate, and squares.
    Family {
        emit: |b, c| Decoder { inner: parts::Inner::Squared, ..Decoder::LLAMA }.emit(b, c),
        ..like("arcee")
    },
    // GLM 3 and the older GLM 4: gate and up are one matrix.
    Family {
        emit: |b, c| Decoder { inner: parts::Inner::GateUp(Activation::Silu), ..Decoder::LLAMA }.emit(b, c),
        ..like("chatglm")
    },
    Family {
        emit: |b, c| Decoder { heads: parts::rotated_normed, ..Decoder::LLAMA }.emit(b, c),
        ..like("maincoder")
    },
    // Every fourth layer has no positions (Yang et al. 2025, arXiv:2501.18795).
    Family {
        config: |keys, n_vocab| {
            let mut config = config(keys, n_vocab)?;
            config.layers.iter_mut().skip(3).step_by(4).for_each(|layer| layer.rope = None);
            Ok(config)
        },
        ..like("smollm3")
    },
];

/// The file's layers run once; a file that repeats them is not supported.
fn nanbeige_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    match keys.optional("num_loops", 1 << 10)? {
        None | Some(1) => config(keys, n_vocab),
        Some(loops) => Err(Error::Unsupported(format!("layers that run {loops} times"))),
    }
}

/// Only the depth tells which of the two models a file is: the one of 32 layers has rotary positions, the one of 40 a
/// bias of scores.
fn baichuan_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = config(keys, n_vocab)?;
    if config.n_layer() != 32 {
        config.layers.iter_mut().for_each(|layer| layer.rope = None);
    }
    config.scales.alibi = (config.n_layer() == 40).then_some(8.0);
    Ok(config)
}

/// For text all of a token's positions are the same, so that sections of the rotation mean nothing.
fn mrope_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    keys.void(&["rope.dimension_sections"]);
    config(keys, n_vocab)
}
