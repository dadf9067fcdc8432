//! Ministral 3: Llama's decoder, with YaRN and queries that grow with their position (temperature).

use super::Family;
use super::parts::Decoder;
use crate::kernels::rope::Pairing;
use crate::model::config::{Config, Temperature};
use crate::model::experts::{Form, Setting};

pub const FAMILIES: &[Family] = &[Family {
    name: "mistral3",
    config: |keys, n_vocab| {
        let config = Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?;
        let mut config = config.with_experts(keys, &[Setting::Normed])?;
        if let Some(scale) = keys.nonzero("attention.temperature_scale")? {
            let positions = config.ropes[0].n_ctx_original;
            config.scales.temperature = Some(Temperature { scale, positions, offset: 0.0 });
        }
        config.with_experts(keys, &[Setting::Normed])
    },
    emit: |b, c| Decoder { scaled_mlp: true, experts: Form::SCALED, ..Decoder::LLAMA }.emit(b, c),
}];
