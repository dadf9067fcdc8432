//! Families with recurrent layers, in all blocks or beside attention: LFM2 (short convolutions), Mamba 1 and 2,
//! Granite 4, Falcon-H1, Nemotron-H and Jamba (state spaces).

use super::Family;
use super::parts::{self, Decoder, Inner};
use super::recurrent::{mix, recur};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::builder::Builder;
use crate::model::config::{Config, LayerConfig, Mask};
use crate::model::experts::Inner::SquaredRelu;
use crate::model::experts::Setting::{
    DenseFirst, Gated, GatingStated, NormStated, Normed, ScaleStated, SharedWidth, Width,
};
use crate::model::experts::{ExpertsConfig, Form, Gating};
use crate::model::graph::{Activation, Value};
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

/// Attention, state space or MLP: one of them in each block. MLPs may be mixtures.
const fn nemotron_h(name: &'static str) -> Family {
    let config = |keys: &Keys<'_>, n_vocab: usize| {
        let config = Config::read_hybrid(keys, n_vocab)?;
        let recurrence = Recurrence::mamba2(keys, true)?;
        let recurs = |layer: &LayerConfig| !layer.attends() && layer.n_ff == 0;
        let config = config.with_recurrence_where(keys, recurrence, recurs);
        // Tensors say the same.
        keys.void(&["moe_latent_size"]);
        let gating = Gated(Gating::Sigmoid);
        config.with_experts(keys, &[Width, SharedWidth, ScaleStated, NormStated, gating])
    };
    let emit = |b: &mut Builder<'_>, c: &Config| {
        let decoder = Decoder { inner: Inner::Squared, scaled_mlp: true, ..Decoder::LLAMA };
        decoder.emit_blocks(b, c, |b, layer, x| {
            let normed = b.rms_norm(x, "attn_norm")?;
            let moved = match (&layer.experts, layer.n_ff) {
                (_, 0) => mix(b, c, &decoder, normed, layer)?,
                (Some(experts), _) => squares(b, normed, experts)?,
                (None, n_ff) => decoder.mlp(b, normed, n_ff, c.n_embd)?,
            };
            b.add(moved, x)
        })
    };
    Family { name, config, emit }
}

/// Experts without gates, with squares of what is above 0 inside; those that are chosen may work on narrower rows.
fn squares(b: &mut Builder<'_>, x: Value, experts: &ExpertsConfig) -> Result<Value> {
    let form = Form { inner: SquaredRelu, gated: false, ..Form::SCALED };
    let (width, router) = (b.width(x), b.linear_bare(x, "ffn_gate_inp", experts.count)?);
    if b.has("ffn_latent_up.weight") {
        b.require(&["ffn_latent_down.weight"])?;
    }
    let chosen = match b.rows("ffn_latent_down.weight") {
        Some(narrow) => {
            let narrow = b.linear_bare(x, "ffn_latent_down", narrow)?;
            let sum = b.experts(narrow, router, experts, form)?;
            b.linear_bare(sum, "ffn_latent_up", width)?
        }
        None => b.experts(x, router, experts, form)?,
    };
    let up = b.linear_mlp(x, "ffn_up_shexp", experts.n_ff_shared, true)?;
    let up = b.activate(up, Activation::Relu)?;
    let inner = b.gate(up, up)?;
    let shared = b.linear_mlp(inner, "ffn_down_shexp", width, true)?;
    b.add(chosen, shared)
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
            let window = keys.window()?;
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
    nemotron_h("nemotron_h"),
    nemotron_h("nemotron_h_moe"),
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
                let experts = ["ffn_gate_inp.weight", "ffn_down_exps.weight"];
                let moved = match experts.iter().any(|name| b.has(name)) {
                    true => decoder.mlp_or_mixture(b, normed, layer, c.n_embd)?,
                    false => decoder.mlp(b, normed, layer.n_ff, c.n_embd)?,
                };
                b.add(x, moved)
            })
        },
    },
];
