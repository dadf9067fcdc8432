//! Granite 3 and MiniCPM: Llama's decoder with four factors, on embeddings, on the results of attention and MLP, on the
//! scores of attention, and on logits.

use super::Family;
use super::parts::Decoder;
use super::recurrent::mix;
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::config::Config;
use crate::model::experts::Setting;
use crate::model::keys::Keys;
use crate::model::recurrence::Recurrence;

fn config(keys: &Keys<'_>, n_vocab: usize, factors: [f32; 3]) -> Result<Config> {
    scaled(keys, Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?, factors)
}

/// A configuration with the file's factors, or else these.
fn scaled(keys: &Keys<'_>, mut config: Config, [embedding, residual, logits]: [f32; 3]) -> Result<Config> {
    config.scales.embedding = keys.nonzero("embedding_scale")?.unwrap_or(embedding);
    config.scales.residual = keys.nonzero("residual_scale")?.unwrap_or(residual);
    config.scales.logits = 1.0 / keys.nonzero("logit_scale")?.unwrap_or(logits);
    if let Some(scale) = keys.nonzero("attention.scale")? {
        config.layers.iter_mut().for_each(|layer| layer.score_scale = scale);
    }
    Ok(config)
}

/// Granite, whose layers may have experts.
const fn granite(name: &'static str) -> Family {
    Family {
        name,
        config: |keys, n_vocab| {
            let config = config(keys, n_vocab, [1.0; 3])?;
            config.with_experts(keys, &[Setting::Normed, Setting::SharedWidth])
        },
        emit: |b, c| Decoder::LLAMA.emit(b, c),
    }
}

pub const FAMILIES: &[Family] = &[
    granite("granite"),
    granite("granitemoe"),
    // Granite 4: state spaces in the place of most layers' attention, which may have no positions.
    Family {
        name: "granitehybrid",
        config: |keys, n_vocab| {
            let mut config = Config::read_hybrid(keys, n_vocab)?;
            if keys.flag("rope.scaling.finetuned", true)? {
                config = config.with_rope(keys, Pairing::Adjacent)?;
            }
            let config = config.with_recurrence(keys, Recurrence::mamba2(keys, true)?);
            scaled(keys, config, [1.0; 3])?.with_experts(keys, &[Setting::Normed, Setting::SharedWidth])
        },
        emit: |b, c| Decoder { mixer: mix, ..Decoder::LLAMA }.emit(b, c),
    },
    // Granite with windows and sinks of attention.
    Family {
        name: "granite_swa",
        config: |keys, n_vocab| {
            let mut config = config(keys, n_vocab, [1.0; 3])?.with_windows(keys, 0, 1)?;
            // One number for all layers says that all are rotated, as in llama.cpp.
            if keys.is_list("attention.rope_pattern") {
                let rotated = keys.pattern("attention.rope_pattern", 0, config.n_layer())?;
                for (layer, rotated) in config.layers.iter_mut().zip(rotated) {
                    layer.rope = layer.rope.filter(|_| rotated);
                }
            }
            Ok(config)
        },
        emit: |b, c| Decoder { required: &["attn_sinks.weight"], ..Decoder::LLAMA }.emit(b, c),
    },
    Family {
        name: "minicpm",
        config: |keys, n_vocab| {
            let plain = Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?;
            // Older files state no factors.
            let residual = 1.4 / (plain.n_layer() as f32).sqrt();
            let config = config(keys, n_vocab, [12.0, residual, 256.0 / plain.n_embd as f32])?;
            config.with_experts(keys, &[Setting::Normed])
        },
        emit: |b, c| Decoder::LLAMA.emit(b, c),
    },
];
