//! Phi-3 and Phi-4: Llama's decoder with queries, keys and values in one matrix, gate and up in another, partial rotary
//! embedding, and factors of frequencies that depend on the length of the context (LongRoPE, Ding et al. 2024,
//! arXiv:2402.13753).

use super::Family;
use super::parts::{Decoder, Inner};
use crate::kernels::rope::Pairing;
use crate::model::config::Config;
use crate::model::graph::Activation;

pub const FAMILIES: &[Family] = &[Family {
    name: "phi3",
    // All layers have the window; llama.cpp leaves it out. The factors have no scaling of a kind beside them.
    config: |keys, n_vocab| {
        let mut config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?.with_windows(keys, 0, 0)?;
        config.ropes.iter_mut().for_each(|rope| rope.lengths = true);
        Ok(config)
    },
    emit: |b, c| Decoder { inner: Inner::GateUp(Activation::Silu), ..Decoder::LLAMA }.emit(b, c),
}];
