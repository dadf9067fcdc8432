//! OLMo 1 to 3: LayerNorm without weights and clamped queries, keys and values (OLMo), or norms after attention and MLP
//! and of queries and keys over all heads (OLMo 2, Walsh et al. 2024, arXiv:2501.00656), with windows in OLMo 3.

use super::Family;
use super::parts::{self, Decoder, Norms, Place};
use crate::kernels::rope::Pairing;
use crate::model::config::{Config, LAYER_EPS};

pub const FAMILIES: &[Family] = &[
    Family {
        name: "olmo",
        config: |keys, n_vocab| {
            let config = Config::read(keys, n_vocab, LAYER_EPS)?;
            let mut config = config.with_rope(keys, Pairing::Adjacent)?;
            config.scales.qkv_limit = keys.nonzero("attention.clamp_kqv")?;
            Ok(config)
        },
        emit: |b, c| Decoder { norms: Norms::Plain, ..Decoder::LLAMA }.emit(b, c),
    },
    Family {
        name: "olmo2",
        config: |keys, n_vocab| {
            let config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
            config.with_windows(keys, 0, 4)?.with_window_rope(keys, None, false)
        },
        emit: |b, c| {
            let heads = parts::wide_normed_rotated;
            Decoder { place: Place::After, heads, ..Decoder::LLAMA }.emit(b, c)
        },
    },
    // EXAONE 4: the same with norms of each head; where there are windows, only their layers have positions.
    Family {
        name: "exaone4",
        config: |keys, n_vocab| {
            let config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
            if config.n_layer() != 64 {
                keys.void(&["attention.sliding_window", "attention.sliding_window_pattern"]);
                return Ok(config);
            }
            let config = config.with_windows(keys, 4096, 4)?;
            let mut config = config.with_window_rope(keys, None, true)?;
            parts::rotate_only_windows(&mut config);
            Ok(config)
        },
        emit: |b, c| {
            Decoder { place: Place::After, heads: parts::normed_rotated, ..Decoder::LLAMA }.emit(b, c)
        },
    },
];
