//! GLM 4: Llama's decoder with norms before and after attention and MLP, and with gate and up in one matrix.
//! PLaMo 3 is its kin, with normalised heads and windows.

use super::Family;
use super::parts::{self, Decoder, Inner, Place};
use crate::kernels::rope::Pairing;
use crate::model::config::Config;
use crate::model::graph::Activation;

const GLM: Decoder = Decoder { place: Place::Both, inner: Inner::GateUp(Activation::Silu), ..Decoder::LLAMA };

/// The base of rotations in PLaMo 3's windows, where the file states none.
const WINDOW_BASE: f32 = 10_000.0;

pub const FAMILIES: &[Family] = &[
    Family {
        name: "glm4",
        // Files of models that also see pictures have other pairs.
        config: |keys, n_vocab| {
            let sections = keys.list("rope.dimension_sections")?;
            let pictures = sections.iter().take(2).filter(|&&section| section > 0).count() == 2;
            let pairing = if pictures { Pairing::Halves } else { Pairing::Adjacent };
            Config::read_rotary(keys, n_vocab, pairing)
        },
        emit: |b, c| GLM.emit(b, c),
    },
    Family {
        name: "plamo3",
        config: |keys, n_vocab| {
            let config = Config::read_rotary(keys, n_vocab, Pairing::Halves)?;
            config.with_windows(keys, 0, 8)?.with_window_rope(keys, Some(WINDOW_BASE), false)
        },
        emit: |b, c| Decoder { heads: parts::normed_rotated, scaled_qkv: false, ..GLM }.emit(b, c),
    },
];
