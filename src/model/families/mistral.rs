//! Ministral 3: Llama's decoder, with YaRN and queries that grow with their position (temperature).

use super::Family;
use super::parts::{self, Decoder};
use crate::error::Error;
use crate::kernels::rope::Pairing;
use crate::model::config::{Config, Temperature};

pub const FAMILIES: &[Family] = &[Family {
    name: "mistral3",
    config: |keys, n_vocab| {
        let mut config = Config::read_rotary(keys, n_vocab, Pairing::Adjacent)?;
        if let Some(scale) = keys.nonzero("attention.temperature_scale")? {
            let original = config.ropes[0].yarn.map_or(config.n_ctx_train, |yarn| yarn.n_ctx_original);
            if original == 0 {
                return Err(Error::format("a temperature of attention without an original context"));
            }
            config.scales.temperature = Some(Temperature { scale, positions: original, offset: 0.0 });
        }
        Ok(config)
    },
    emit: |b, c| {
        let heads = parts::rotated;
        Decoder { heads, scaled_mlp: true, ..Decoder::LLAMA }.emit(b, c)
    },
}];
