//! Llama 3, SmolLM 2 and other models of this architecture: a pre-norm decoder with RMSNorm, rotary grouped-query
//! attention and a SwiGLU MLP; the head is a matrix of its own or the embedding's. Older ones (Llama 2, TinyLlama,
//! Mistral) compute, but take and give token ids: their SentencePiece vocabularies are not supported.

use super::{Family, parts};
use crate::kernels::rope::Pairing;
use crate::model::config::Config;

/// GGUF files of this family store Q and K permuted so that pairs are adjacent.
pub const FAMILY: Family = Family {
    name: "llama",
    config: |keys, n_vocab| {
        let mut config = Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?;
        config.read_experts(keys, 0, |experts, _| {
            experts.norm = true;
            Ok(())
        })?;
        Ok(config)
    },
    emit: |b, c| {
        parts::decoder(b, c, |b, normed, layer| {
            let [q, k, v] = parts::qkv(b, normed, layer)?;
            Ok([b.rope(q, layer)?, b.rope(k, layer)?, v])
        })
    },
};
