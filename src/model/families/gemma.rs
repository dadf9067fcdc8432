//! Gemma 1 to 3: embeddings scaled by √n_embd, a GELU-gated MLP; from Gemma 2 on norms before and after attention and
//! MLP, sliding windows, soft caps; from Gemma 3 on norms of heads and a rotary base of its own for windows.

use super::Family;
use super::parts::{self, Decoder, Inner, Place};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::config::Config;
use crate::model::graph::Activation;
use crate::model::keys::Keys;

const GEMMA: Decoder = Decoder { inner: Inner::Gated(Activation::GeluTanh), ..Decoder::LLAMA };

/// The base of rotations in Gemma 3's windows, where the file states none.
const WINDOW_BASE: f32 = 10_000.0;

fn config(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
    let mut config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
    config.scales.embedding = (config.n_embd as f32).sqrt();
    Ok(config)
}

/// The 27B models scale scores by the width of the model for each head, not by the length of a head.
fn scale_of_27b(config: &mut Config, n_layer: usize) {
    if config.n_layer() == n_layer {
        let width = config.n_embd / config.first().n_head;
        config.layers.iter_mut().for_each(|layer| layer.score_scale = 1.0 / (width as f32).sqrt());
    }
}

pub const FAMILIES: &[Family] = &[
    Family { name: "gemma", config, emit: |b, c| GEMMA.emit(b, c) },
    Family {
        name: "gemma2",
        config: |keys, n_vocab| {
            let config = config(keys, n_vocab)?.with_windows(keys, 4096, 2)?;
            let mut config = config.with_window_rope(keys, None, true)?;
            config.scales.score_cap = Some(keys.positive_or_unset("attn_logit_softcapping", 50.0)?);
            config.scales.logit_cap = Some(keys.positive_or_unset("final_logit_softcapping", 30.0)?);
            scale_of_27b(&mut config, 46);
            Ok(config)
        },
        emit: |b, c| Decoder { place: Place::Both, ..GEMMA }.emit(b, c),
    },
    Family {
        name: "gemma3",
        config: |keys, n_vocab| {
            let config = config(keys, n_vocab)?.with_windows(keys, 0, 6)?;
            let mut config = config.with_window_rope(keys, Some(WINDOW_BASE), false)?;
            config.scales.logit_cap = keys.nonzero("final_logit_softcapping")?;
            scale_of_27b(&mut config, 62);
            Ok(config)
        },
        emit: |b, c| Decoder { place: Place::Both, heads: parts::normed_rotated, ..GEMMA }.emit(b, c),
    },
];
