//! Command R and Cohere 2: attention and MLP side by side on one LayerNorm without bias, factors on logits. Cohere 2 has
//! windows, and positions only in layers with a window.

use super::Family;
use super::parts::{self, Decoder, Norms};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::config::{Config, LAYER_EPS};
use crate::model::keys::Keys;

fn config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = Config::read(keys, n_vocab, LAYER_EPS)?.with_rope(keys, Pairing::Adjacent)?;
    config.scales.parallel = true;
    config.scales.logits = keys.nonzero("logit_scale")?.unwrap_or(1.0);
    Ok(config)
}

pub const FAMILIES: &[Family] = &[
    Family {
        name: "command-r",
        config,
        emit: |b, c| {
            let heads: parts::Heads = |b, [mut q, mut k, v], layer| {
                if b.has("attn_q_norm.weight") {
                    q = b.heads_layer_norm(q, "attn_q_norm", layer.head_dim)?;
                    k = b.heads_layer_norm(k, "attn_k_norm", layer.head_dim)?;
                }
                parts::rotated(b, [q, k, v], layer)
            };
            Decoder { norms: Norms::Layer, heads, ..Decoder::LLAMA }.emit(b, c)
        },
    },
    Family {
        name: "cohere2",
        config: |keys, n_vocab| {
            let config = config(keys, n_vocab)?.with_windows(keys, 0, 4)?;
            let mut config = config.with_window_rope(keys, None, true)?;
            parts::rotate_only_windows(&mut config);
            Ok(config)
        },
        emit: |b, c| Decoder { norms: Norms::Layer, scaled_mlp: true, ..Decoder::LLAMA }.emit(b, c),
    },
];
