//! Families with recurrent layers, in all blocks or beside attention: LFM2 (short convolutions), Mamba 1 and 2,
//! Granite 4, Falcon-H1, Nemotron-H and Jamba (state spaces).

use super::Family;
use super::parts::{self, Decoder, Inner};
use super::recurrent::{mix, recur};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::builder::Builder;
use crate::model::config::{Config, MAX_CONTEXT, Mask};
use crate::model::experts::Setting::{DenseFirst, GatingStated, Normed, ScaleStated, Width};
use crate::model::keys::Keys;
use crate::model::recurrence::Recurrence;

/// LFM2's decoder; its last norm has the name of another one.
const LFM2: Decoder =
    Decoder { heads: parts::normed_rotated, last_norm: "token_embd_norm", mixer: mix, ..Decoder::LLAMA };

fn lfm2_config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let config = Config::read_hybrid(keys, n_vocab)?.with_rope(keys, Pairing::Halves)?;
    Ok(config.with_recurrence(keys, Recurrence::short_conv(keys)?))
}

/// A decoder of blocks that are a recurrence alone.
const fn mamba(name: &'static str, config: fn(&Keys<'_>, usize) -> Result<Config>) -> Family {
    let emit = |b: &mut Builder<'_>, c: &Config| {
        Decoder::LLAMA.emit_blocks(b, c, |b, layer, x| {
            let Some(recurrence) = &layer.recurrence else { return Ok(x) };
            let normed = b.rms_norm(x, "attn_norm")?;
            let moved = recur(b, normed, recurrence, c.n_embd)?;
            b.add(moved, x)
        })
    };
    Family { name, config, emit }
}

/// A configuration in which no layer has attention, whatever numbers of heads the file states.
fn without_attention(keys: &Keys<'_>, n_vocab: usize, recurrence: Recurrence) -> Result<Config> {
    let mut config = Config::read_hybrid(keys, n_vocab)?;
    config.layers.iter_mut().for_each(|layer| (layer.n_head, layer.n_head_kv) = (0, 0));
    Ok(config.with_recurrence(keys, recurrence))
}

pub const FAMILIES: &[Family] = &[
    Family {
        name: "lfm2",
        config: |keys, n_vocab| {
            keys.void(&["leading_dense_block_count", "attention.sliding_window_pattern"]);
            let mut config = lfm2_config(keys, n_vocab)?;
            let window = keys.count_below("attention.sliding_window", MAX_CONTEXT + 1)?;
            if window > 0 {
                config.layers.iter_mut().for_each(|layer| layer.mask = Mask::Window(window));
            }
            Ok(config)
        },
        emit: |b, c| LFM2.emit(b, c),
    },
    Family {
        name: "lfm2moe",
        config: |keys, n_vocab| {
            let settings = [DenseFirst, Width, Normed, ScaleStated, GatingStated];
            lfm2_config(keys, n_vocab)?.with_experts(keys, &settings)
        },
        emit: |b, c| LFM2.emit(b, c),
    },
    mamba("mamba", |keys, n_vocab| without_attention(keys, n_vocab, Recurrence::mamba(keys)?)),
    mamba("mamba2", |keys, n_vocab| without_attention(keys, n_vocab, Recurrence::mamba2(keys, true)?)),
    // A state space beside attention, in every block.
    Family {
        name: "falcon-h1",
        config: |keys, n_vocab| {
            let config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
            Ok(config.with_recurrence_where(keys, Recurrence::mamba2(keys, false)?, |_| true))
        },
        emit: |b, c| {
            b.ignore_rope_factors();
            // llama.cpp ignores the bias.
            Decoder { mixer: mix, biased_output: false, ..Decoder::LLAMA }.emit(b, c)
        },
    },
    // Attention, state space or MLP: one of them in each block.
    Family {
        name: "nemotron_h",
        config: |keys, n_vocab| {
            let config = Config::read_hybrid(keys, n_vocab)?;
            let recurrence = Recurrence::mamba2(keys, true)?;
            Ok(config.with_recurrence_where(keys, recurrence, |layer| !layer.attends() && layer.n_ff == 0))
        },
        emit: |b, c| {
            let decoder = Decoder { mixer: mix, inner: Inner::Squared, scaled_mlp: true, ..Decoder::LLAMA };
            decoder.emit_blocks(b, c, |b, layer, x| {
                let normed = b.rms_norm(x, "attn_norm")?;
                let moved = match layer.n_ff {
                    0 => mix(b, c, &decoder, normed, layer)?,
                    n_ff => decoder.mlp(b, normed, n_ff, c.n_embd)?,
                };
                b.add(moved, x)
            })
        },
    },
    // Attention without positions; experts in some blocks, which their tensors tell.
    Family {
        name: "jamba",
        config: |keys, n_vocab| {
            let config = Config::read_hybrid(keys, n_vocab)?;
            config.with_recurrence(keys, Recurrence::mamba(keys)?).with_experts(keys, &[ScaleStated])
        },
        emit: |b, c| {
            let decoder = Decoder { mixer: mix, ..Decoder::LLAMA };
            decoder.emit_blocks(b, c, |b, layer, x| {
                let normed = b.rms_norm(x, "attn_norm")?;
                let moved = mix(b, c, &decoder, normed, layer)?;
                let x = b.add(x, moved)?;
                let normed = b.rms_norm(x, "ffn_norm")?;
                let moved = match b.has("ffn_gate_inp.weight") {
                    true => decoder.mlp_or_mixture(b, normed, layer, c.n_embd)?,
                    false => decoder.mlp(b, normed, layer.n_ff, c.n_embd)?,
                };
                b.add(x, moved)
            })
        },
    },
];
