//! Phi-3 and Phi-4: Llama's decoder with queries, keys and values in one matrix, gate and up in another, partial rotary
//! embedding, and factors of frequencies that depend on the length of the context (LongRoPE, Ding et al. 2024,
//! arXiv:2402.13753); Phi-3.5 MoE, with experts and biases.

use super::Family;
use super::parts::{Decoder, Inner, Norms};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::config::Config;
use crate::model::experts::Setting::Normed;
use crate::model::graph::Activation;
use crate::model::keys::Keys;

/// The factors have no scaling of a kind beside them.
fn rotary(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
    config.ropes.iter_mut().for_each(|rope| rope.lengths = true);
    Ok(config)
}

pub const FAMILIES: &[Family] = &[
    Family {
        name: "phi3",
        // All layers have the window; llama.cpp leaves it out.
        config: |keys, n_vocab| rotary(keys, n_vocab)?.with_windows(keys, 0, 0),
        emit: |b, c| Decoder { inner: Inner::GateUp(Activation::Silu), ..Decoder::LLAMA }.emit(b, c),
    },
    // Norms are those of llama.cpp: the model's authors have LayerNorm.
    Family {
        name: "phimoe",
        config: |keys, n_vocab| rotary(keys, n_vocab)?.with_experts(keys, &[Normed]),
        emit: |b, c| Decoder { norms: Norms::BiasedRms, ..Decoder::LLAMA }.emit(b, c),
    },
];
