//! Hyperparameters: the keys of `config.json`, under the names that classes have for them, and those of GGUF, as tables.

use super::config::Settings;
use super::families::Description;
use crate::error::Result;
use crate::format::gguf::Value;

/// A hyperparameter.
pub(super) struct Key {
    /// Names in `config.json`, of which the first that is there counts.
    theirs: &'static [&'static str],
    /// The name in GGUF, without the architecture.
    ours: &'static str,
    value: Kind,
}

/// The type of a value, and what stands for one that is absent.
enum Kind {
    Count(Otherwise<u32>),
    Number(Otherwise<f32>),
    Flag(Otherwise<bool>),
}

enum Otherwise<T> {
    /// Without the key GGUF has none either.
    Absent,
    /// The key must be there.
    Needed,
    Default(T),
    /// Four times as much as another key of `config.json`, which must be there.
    FourTimes(&'static str),
}

use Otherwise::{Absent, Default, FourTimes, Needed};

const fn count(theirs: &'static [&'static str], ours: &'static str, otherwise: Otherwise<u32>) -> Key {
    Key { theirs, ours, value: Kind::Count(otherwise) }
}

const fn number(theirs: &'static [&'static str], ours: &'static str, otherwise: Otherwise<f32>) -> Key {
    Key { theirs, ours, value: Kind::Number(otherwise) }
}

const fn flag(theirs: &'static [&'static str], ours: &'static str, otherwise: Otherwise<bool>) -> Key {
    Key { theirs, ours, value: Kind::Flag(otherwise) }
}

const RMS: &str = "attention.layer_norm_rms_epsilon";
const LAYER: &str = "attention.layer_norm_epsilon";
pub(super) const CONTEXT: &str = "context_length";

/// Keys of all classes.
const COMMON: &[Key] = &[
    count(&["num_hidden_layers", "n_layer", "num_layers"], "block_count", Needed),
    count(&["max_position_embeddings", "n_positions", "n_ctx"], CONTEXT, Needed),
    count(&["hidden_size", "n_embd"], "embedding_length", Needed),
    count(&["intermediate_size", "n_inner"], "feed_forward_length", Needed),
    count(&["num_attention_heads", "n_head"], "attention.head_count", Needed),
    count(&["num_key_value_heads"], "attention.head_count_kv", Absent),
    count(&["head_dim"], "attention.key_length", Absent),
    count(&["head_dim"], "attention.value_length", Absent),
    number(&["rms_norm_eps", "norm_eps"], RMS, Absent),
    number(&["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"], LAYER, Absent),
    count(&["num_local_experts", "num_experts"], "expert_count", Absent),
    count(&["num_experts_per_tok"], "expert_used_count", Absent),
];

pub(super) const LLAMA: &[Key] = &[number(&["rms_norm_eps"], RMS, Default(1e-6))];

/// Qwen 3 states the elements of a head, or means 128.
pub(super) const QWEN3: &[Key] = &[
    count(&["head_dim"], "attention.key_length", Default(128)),
    count(&["head_dim"], "attention.value_length", Default(128)),
    count(&["moe_intermediate_size"], "expert_feed_forward_length", Absent),
];

pub(super) const QWEN2_MOE: &[Key] = &[
    count(&["moe_intermediate_size"], "expert_feed_forward_length", Absent),
    count(&["shared_expert_intermediate_size"], "expert_shared_feed_forward_length", Absent),
];

pub(super) const GEMMA: &[Key] = &[
    number(&["rms_norm_eps"], RMS, Default(1e-6)),
    count(&["head_dim"], "attention.key_length", Default(256)),
    count(&["head_dim"], "attention.value_length", Default(256)),
];

pub(super) const GEMMA2: &[Key] = &[
    number(&["attn_logit_softcapping"], "attn_logit_softcapping", Default(50.0)),
    number(&["final_logit_softcapping"], "final_logit_softcapping", Default(30.0)),
    count(&["sliding_window"], "attention.sliding_window", Default(4096)),
];

/// Configurations of models with pictures leave the class's defaults out.
pub(super) const GEMMA3: &[Key] = &[
    count(&["max_position_embeddings"], CONTEXT, Default(131_072)),
    count(&["num_attention_heads"], "attention.head_count", Default(8)),
    count(&["num_key_value_heads"], "attention.head_count_kv", Default(4)),
    number(&["final_logit_softcapping"], "final_logit_softcapping", Absent),
    count(&["sliding_window"], "attention.sliding_window", Default(4096)),
];

pub(super) const OLMO: &[Key] =
    &[number(&[], LAYER, Default(1e-5)), number(&["clip_qkv"], "attention.clamp_kqv", Absent)];

pub(super) const OLMOE: &[Key] = &[number(&["rms_norm_eps"], RMS, Default(1e-5))];

pub(super) const GRANITE: &[Key] = &[
    number(&["attention_multiplier"], "attention.scale", Absent),
    number(&["embedding_multiplier"], "embedding_scale", Absent),
    number(&["residual_multiplier"], "residual_scale", Absent),
    number(&["logits_scaling"], "logit_scale", Absent),
];

pub(super) const GRANITE_MOE: &[Key] =
    &[count(&["shared_intermediate_size"], "expert_shared_feed_forward_length", Absent)];

pub(super) const NOMIC_MOE: &[Key] = &[
    count(&["moe_every_n_layers"], "moe_every_n_layers", Needed),
    count(&["num_experts"], "expert_count", Needed),
    count(&["moe_top_k"], "expert_used_count", Needed),
];

pub(super) const PHI3: &[Key] = &[
    count(&["original_max_position_embeddings"], "rope.scaling.original_context_length", Absent),
    // 0 says that there is none.
    count(&["sliding_window"], "attention.sliding_window", Default(0)),
];

pub(super) const GPT2: &[Key] = &[
    count(&["n_inner"], "feed_forward_length", FourTimes("n_embd")),
    number(&["layer_norm_epsilon"], LAYER, Default(1e-5)),
];

pub(super) const STARCODER2: &[Key] = &[number(&["norm_epsilon"], LAYER, Default(1e-5))];

pub(super) const GPTNEOX: &[Key] = &[
    number(&["layer_norm_eps"], LAYER, Default(1e-5)),
    flag(&["use_parallel_residual"], "use_parallel_residual", Default(true)),
];

pub(super) const STABLELM: &[Key] = &[
    number(&["layer_norm_eps", "norm_eps"], LAYER, Default(1e-5)),
    flag(&["use_parallel_residual"], "use_parallel_residual", Default(true)),
];

pub(super) const FALCON: &[Key] = &[
    // Configurations don't state it.
    count(&[], CONTEXT, Default(2048)),
    count(&["ffn_hidden_size"], "feed_forward_length", FourTimes("hidden_size")),
    number(&["layer_norm_epsilon"], LAYER, Default(1e-5)),
];

pub(super) const COHERE: &[Key] = &[
    count(&["model_max_length", "max_position_embeddings"], CONTEXT, Needed),
    number(&["layer_norm_eps"], LAYER, Default(1e-5)),
    number(&["logit_scale"], "logit_scale", Default(0.0625)),
];

pub(super) const COHERE2: &[Key] = &[count(&["sliding_window"], "attention.sliding_window", Default(4096))];

pub(super) const NEMOTRON: &[Key] = &[number(&["norm_eps", "layer_norm_eps"], LAYER, Default(1e-5))];

pub(super) const ENCODER: &[Key] = &[
    number(&["layer_norm_eps", "layer_norm_epsilon"], LAYER, Default(1e-12)),
    flag(&[], "attention.causal", Default(false)),
];

pub(super) const MODERN_BERT: &[Key] = &[
    number(&["layer_norm_eps", "norm_eps"], LAYER, Default(1e-5)),
    count(&["local_attention"], "attention.sliding_window", Default(128)),
    count(&["global_attn_every_n_layers"], "attention.sliding_window_pattern", Absent),
];

/// Puts a class's keys into the metadata: those of its tables, then the common ones that these lack.
pub(super) fn insert(tables: &[&[Key]], settings: &Settings, d: &mut Description) -> Result<()> {
    for key in tables.iter().copied().flatten().chain(COMMON) {
        if d.has(key.ours) {
            continue;
        }
        if let Some(value) = key.read(settings)? {
            d.set(key.ours, value)?;
        }
    }
    Ok(())
}

impl Key {
    fn read(&self, settings: &Settings) -> Result<Option<Value>> {
        // A missing key is told of by its newest name.
        let name = self.theirs.iter().find(|name| settings.get(name).is_some()).or(self.theirs.first());
        let name = name.copied().unwrap_or_default();
        Ok(match &self.value {
            Kind::Count(otherwise) => match (settings.count(name)?, otherwise) {
                (Some(count), _) => Some(Value::U32(count)),
                (None, Absent) => None,
                (None, Needed) => Some(Value::U32(settings.required(name)?)),
                (None, Default(count)) => Some(Value::U32(*count)),
                (None, FourTimes(other)) => Some(Value::U32(settings.required(other)?.saturating_mul(4))),
            },
            Kind::Number(otherwise) => match (settings.number(name)?, otherwise) {
                (Some(number), _) => Some(Value::F32(number)),
                (None, Default(number)) => Some(Value::F32(*number)),
                (None, _) => None,
            },
            Kind::Flag(otherwise) => match (settings.get(name), otherwise) {
                (Some(_), _) => Some(Value::Bool(settings.flag(name)?)),
                (None, Default(flag)) => Some(Value::Bool(*flag)),
                (None, _) => None,
            },
        })
    }
}
