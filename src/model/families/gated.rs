//! Decoders whose attention has a gate: the results of heads are multiplied by a sigmoid, element by element (Muse
//! Glimmer) or head by head (Spark 2.5), before their projection.

use super::Family;
use super::parts::{self, Decoder, Gate, Inner, Norms, Place};
use crate::kernels::rope::Pairing;
use crate::model::config::Config;
use crate::model::graph::Activation;

/// The epsilon of Muse Glimmer's norms after attention and MLP.
const POST_EPS: f32 = 1e-8;

pub const FAMILIES: &[Family] = &[
    Family {
        name: "muse-glimmer",
        config: |keys, n_vocab| {
            let config = Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?;
            let config = config.with_windows(keys, 0, 4)?;
            let mut config = config.with_window_rope(keys, None, false)?;
            parts::rotate_only_windows(&mut config);
            config.scales.logits = keys.nonzero("logit_scale")?.unwrap_or(1.0);
            config.scales.logit_cap = keys.nonzero("final_logit_softcapping")?;
            Ok(config)
        },
        emit: |b, c| {
            let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
            let x = b.plain_rms_norm(x)?;
            let decoder = Decoder {
                place: Place::Both,
                heads: parts::normed_rotated,
                gate: Gate::Elements,
                post_eps: Some(POST_EPS),
                ..Decoder::LLAMA
            };
            decoder.emit_from(b, c, x)
        },
    },
    Family {
        name: "spark2_5",
        config: |keys, n_vocab| {
            let config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
            config.with_windows(keys, 0, 1)?.with_window_rope(keys, None, true)
        },
        emit: |b, c| {
            let inner = Inner::Gated(Activation::GeluTanh);
            Decoder { norms: Norms::Rms, inner, gate: Gate::Heads, ..Decoder::LLAMA }.emit(b, c)
        },
    },
];
