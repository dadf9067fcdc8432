//! Qwen 2 and 2.5 (arXiv:2407.10671): Llama's decoder, with biases on queries, keys and values.

use super::{Family, parts};
use crate::kernels::rope::Pairing;
use crate::model::config::Config;

pub const FAMILY: Family = Family {
    name: "qwen2",
    config: |keys, n_vocab| Config::read_rotary(keys, n_vocab, Pairing::Halves),
    emit: |b, c| {
        parts::decoder(b, c, |b, normed, layer| {
            let q = b.linear_biased(normed, "attn_q", layer.q_width())?;
            let k = b.linear_biased(normed, "attn_k", layer.kv_width())?;
            let v = b.linear_biased(normed, "attn_v", layer.kv_width())?;
            Ok([b.rope(q, layer)?, b.rope(k, layer)?, v])
        })
    },
};
