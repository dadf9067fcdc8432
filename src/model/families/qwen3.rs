//! Qwen 3 (arXiv:2505.09388): Llama's decoder, with a norm of each head of queries and keys before the rotation.

use super::{Family, parts};
use crate::kernels::rope::Pairing;
use crate::model::config::Config;

pub const FAMILY: Family = Family {
    name: "qwen3",
    config: |keys, n_vocab| Config::read_rotary(keys, n_vocab, Pairing::Halves),
    emit: |b, c| {
        parts::decoder(b, c, |b, normed, layer| {
            let [q, k, v] = parts::qkv(b, normed, layer)?;
            let q = b.head_norm(q, "attn_q_norm", layer.head_dim)?;
            let k = b.head_norm(k, "attn_k_norm", layer.head_dim)?;
            Ok([b.rope(q, layer)?, b.rope(k, layer)?, v])
        })
    },
};
