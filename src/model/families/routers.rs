//! Mixtures of experts with blocks of their own: Arctic (experts beside the MLP) and SmallThinker (experts chosen before
//! attention).

use super::Family;
use super::parts::Decoder;
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::builder::{Builder, Ends};
use crate::model::config::{Config, Mask};
use crate::model::experts::Form;
use crate::model::experts::Setting::{GatingStated, Normed, Width};
use crate::model::graph::Activation;

fn arctic(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let decoder = Decoder::LLAMA;
    decoder.emit_blocks(b, c, |b, layer, x| {
        let normed = b.rms_norm(x, "attn_norm")?;
        let attended = decoder.attention(b, c, normed, layer)?;
        let sum = b.add(attended, x)?;
        let normed = b.rms_norm(sum, "ffn_norm")?;
        let moved = decoder.mlp(b, normed, c.n_embd, c.n_embd)?;
        let sum = b.add(sum, moved)?;
        let Some(experts) = &layer.experts else { return Ok(sum) };
        let normed = b.rms_norm(x, "ffn_norm_exps")?;
        let router = b.linear(normed, "ffn_gate_inp", experts.count)?;
        let moved = decoder.mixture(b, normed, router, experts)?;
        b.add(sum, moved)
    })
}

fn smallthinker(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let decoder = Decoder { experts: Form::gated(Activation::Relu), ..Decoder::LLAMA };
    decoder.emit_blocks(b, c, |b, layer, x| {
        let Some(experts) = &layer.experts else { return b.fail("a layer without experts".into()) };
        let router = b.linear(x, "ffn_gate_inp", experts.count)?;
        let normed = b.rms_norm(x, "attn_norm")?;
        let attended = decoder.attention(b, c, normed, layer)?;
        let sum = b.add(x, attended)?;
        let normed = b.rms_norm(sum, "ffn_norm")?;
        let moved = decoder.mixture(b, normed, router, experts)?;
        b.add(sum, moved)
    })
}

pub const FAMILIES: &[Family] = &[
    Family {
        name: "arctic",
        config: |keys, n_vocab| {
            Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?.with_experts(keys, &[Normed])
        },
        emit: arctic,
    },
    Family {
        name: "smallthinker",
        config: |keys, n_vocab| {
            let config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
            let mut config = config.with_experts(keys, &[Width, Normed, GatingStated])?;
            // The window is 4096 whatever the file says, if it says one; the first layer of four has none, and no
            // positions.
            if keys.window()? > 0 {
                keys.void(&["attention.sliding_window_pattern", "rope.freq_base_swa"]);
                for (i, layer) in config.layers.iter_mut().enumerate() {
                    match i % 4 {
                        0 => layer.rope = None,
                        _ => layer.mask = Mask::Window(4096),
                    }
                }
            }
            Ok(config)
        },
        emit: smallthinker,
    },
];
