//! Llama and its kin (SmolLM, TinyLlama, Mistral without a window): pre-norm decoder with RMSNorm,
//! rotary grouped-query attention and a SwiGLU MLP; the head is its own matrix or the embedding's.

use super::{Family, parts};
use crate::kernels::rope::Pairing;
use crate::model::config::Config;

/// GGUF files of this family store Q and K permuted so that pairs are adjacent.
pub const FAMILY: Family = Family {
    name: "llama",
    config: |keys, n_vocab| Config::read_rotary(keys, n_vocab, Pairing::Adjacent),
    emit: |b, c| {
        parts::decoder(b, c, |b, normed, layer| {
            let [q, k, v] = parts::qkv(b, normed, layer)?;
            Ok([b.rope(q, layer)?, b.rope(k, layer)?, v])
        })
    },
};
