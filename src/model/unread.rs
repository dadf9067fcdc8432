//! The meaning of hyperparameters that no family here computes with, by which a file that has them is refused or told
//! of. The keys are those of llama.cpp; a family that comes to read one needs no change here, since only keys that
//! nothing has read are looked up.

use crate::error::quoted;
use crate::format::gguf::{Array, Value};

/// The effect of ignoring a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Effect {
    /// None: the value is the one that is computed with anyhow, or the key computes nothing.
    None,
    /// Results may differ from what the file's maker has in mind, as llama.cpp's do. With the meaning of the key.
    Ignored(&'static str),
    /// Results would be wrong. With the meaning of the key.
    Wrong(&'static str),
}

/// A key without the architecture's prefix.
struct Key {
    name: &'static str,
    /// Its meaning, for messages.
    about: &'static str,
    /// Values that change nothing. Truth values count as 0 and 1, an empty text and `none` as 0.
    neutral: &'static [f64],
    /// Whether results would be wrong without it.
    wrong: bool,
}

const fn wrong(name: &'static str, about: &'static str, neutral: &'static [f64]) -> Key {
    Key { name, about, neutral, wrong: true }
}

const fn ignored(name: &'static str, about: &'static str, neutral: &'static [f64]) -> Key {
    Key { name, about, neutral, wrong: false }
}

const OFF: &[f64] = &[0.0];
/// Of factors; llama.cpp takes 0 as absent.
const FACTOR: &[f64] = &[0.0, 1.0];

/// First the keys that llama.cpp's loader reads for every architecture, and windows, which some of its families ignore.
/// Then those that only families read which don't exist here.
const KEYS: &[Key] = &[
    wrong("expert_count", "a mixture of experts", OFF),
    wrong("expert_used_count", "a mixture of experts", OFF),
    wrong("expert_group_count", "a mixture of experts", OFF),
    wrong("expert_group_used_count", "a mixture of experts", OFF),
    wrong("attention.causal", "attention that sees later positions", &[1.0]),
    wrong("rope.scaling.attn_factor", "a factor on rotated queries and keys", &[1.0]),
    ignored("logit_scale", "a factor on logits", FACTOR),
    ignored("residual_scale", "a factor on what layers add", FACTOR),
    ignored("embedding_scale", "a factor on embeddings", FACTOR),
    wrong("attention.sliding_window", "attention in a sliding window", OFF),
    ignored("attention.sliding_window_pattern", "the layers with a sliding window", OFF),
    ignored("attention.scale", "a factor on the scores of attention", OFF),
    ignored("attention.output_scale", "a factor on the results of attention", FACTOR),
    ignored("attention.value_scale", "a factor on values", FACTOR),
    ignored("attention.temperature_scale", "a factor on queries by position", OFF),
    ignored("attention.temperature_length", "a factor on queries by position", OFF),
    ignored("attention.clamp_kqv", "a limit of queries, keys and values", OFF),
    ignored("attention.max_alibi_bias", "a bias of scores by distance (ALiBi)", OFF),
    ignored("attn_logit_softcapping", "a soft cap of the scores of attention", OFF),
    ignored("final_logit_softcapping", "a soft cap of logits", OFF),
    ignored("router_logit_softcapping", "a soft cap of a router's scores", OFF),
    ignored("swiglu_clamp_exp", "a limit inside the MLP", OFF),
    ignored("swiglu_clamp_shexp", "a limit inside the MLP", OFF),
    ignored("use_parallel_residual", "attention and MLP side by side", OFF),
    ignored("swin_norm", "norms behind attention and MLP", OFF),
    ignored("hidden_activation", "another activation", OFF),
    ignored("rope.scaling.alpha", "a scale of rotary frequencies", FACTOR),
    ignored("rope.scaling.yarn_attn_factor", "a factor on rotated queries and keys", FACTOR),
    ignored("rope.scaling.yarn_log_multiplier", "a factor on rotated queries and keys", OFF),
    ignored("rope.dimension_sections", "rotation by several positions", OFF),
    ignored("rope.freq_base_swa", "another rotary base in windows", OFF),
];

/// Keys that compute nothing.
const IDLE: &[&str] = &[
    "vocab_size",
    "tensor_data_layout",
    "rope.scaling.finetuned",
    // Of the other kind of norm, of a mixture without experts, and of a rotation where there is none.
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "expert_weights_scale",
    "expert_weights_norm",
    "expert_gating_func",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
];

/// The effect of ignoring a key, which is given without the architecture's prefix.
pub(super) fn effect(name: &str, value: &Value) -> Effect {
    let is_neutral = |neutral: &[f64]| is_all(value, &|x| neutral.contains(&x));
    match KEYS.iter().find(|key| key.name == name) {
        _ if IDLE.contains(&name) => Effect::None,
        Some(key) if is_neutral(key.neutral) => Effect::None,
        Some(key) if key.wrong => Effect::Wrong(key.about),
        Some(key) => Effect::Ignored(key.about),
        None if is_neutral(OFF) => Effect::None,
        None => Effect::Ignored(subject(name)),
    }
}

/// The subject of a key of which no more is known.
fn subject(name: &str) -> &'static str {
    match name.split('.').next() {
        Some("attention") => "a setting of attention",
        Some("rope") => "a setting of rotary embeddings",
        Some(word) if word.starts_with("expert") => "a setting of experts",
        _ => "its meaning is not known",
    }
}

/// The warning about an ignored key.
pub(super) fn warning(key: &str, value: &Value, about: &str) -> String {
    format!("metadata key {} = {value} is ignored: {about}", quoted(key))
}

/// Whether all numbers of a value pass; an empty array does.
fn is_all(value: &Value, pass: &dyn Fn(f64) -> bool) -> bool {
    match value {
        Value::U8(x) => pass((*x).into()),
        Value::I8(x) => pass((*x).into()),
        Value::U16(x) => pass((*x).into()),
        Value::I16(x) => pass((*x).into()),
        Value::U32(x) => pass((*x).into()),
        Value::I32(x) => pass((*x).into()),
        Value::U64(x) => pass(*x as f64),
        Value::I64(x) => pass(*x as f64),
        Value::F32(x) => pass((*x).into()),
        Value::F64(x) => pass(*x),
        Value::Bool(x) => pass(f64::from(*x)),
        Value::Str(text) => pass(if matches!(text.as_str(), "" | "none") { 0.0 } else { f64::NAN }),
        Value::Bytes(_) => false,
        Value::Array(array) => is_all_of(array, pass),
    }
}

fn is_all_of(array: &Array, pass: &dyn Fn(f64) -> bool) -> bool {
    match array {
        Array::U8(a) => a.iter().all(|&x| pass(x.into())),
        Array::I8(a) => a.iter().all(|&x| pass(x.into())),
        Array::U16(a) => a.iter().all(|&x| pass(x.into())),
        Array::I16(a) => a.iter().all(|&x| pass(x.into())),
        Array::U32(a) => a.iter().all(|&x| pass(x.into())),
        Array::I32(a) => a.iter().all(|&x| pass(x.into())),
        Array::U64(a) => a.iter().all(|&x| pass(x as f64)),
        Array::I64(a) => a.iter().all(|&x| pass(x as f64)),
        Array::F32(a) => a.iter().all(|&x| pass(x.into())),
        Array::F64(a) => a.iter().all(|&x| pass(x)),
        Array::Bool(a) => a.iter().all(|&x| pass(f64::from(x))),
        Array::Array(a) => a.iter().all(|array| is_all_of(array, pass)),
        Array::Str(_) | Array::Bytes(_) => array.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_change_nothing() {
        for (name, value) in [
            ("attention.causal", Value::Bool(true)),
            ("expert_count", Value::U32(0)),
            ("logit_scale", Value::F32(1.0)),
            ("logit_scale", Value::F64(0.0)),
            ("final_logit_softcapping", Value::F32(0.0)),
            ("hidden_activation", Value::Str("none".into())),
            ("use_parallel_residual", Value::Bool(false)),
            ("swiglu_clamp_exp", Value::Array(Array::F32(vec![0.0; 3]))),
            ("never_heard_of", Value::U8(0)),
            ("vocab_size", Value::U32(9)),
        ] {
            assert_eq!(effect(name, &value), Effect::None, "{name} = {value}");
        }
    }

    #[test]
    fn every_known_key_has_values_that_change_something() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).chain(IDLE.iter().copied()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a key stands twice");
        for key in KEYS {
            for value in [Value::F32(f32::NAN), Value::I32(2), Value::Array(Array::U32(vec![0, 1, 2]))] {
                let wanted = if key.wrong { Effect::Wrong(key.about) } else { Effect::Ignored(key.about) };
                assert_eq!(effect(key.name, &value), wanted, "{} = {value}", key.name);
            }
        }
        assert!(matches!(effect("never_heard_of", &Value::Bool(true)), Effect::Ignored(_)));
        assert!(matches!(effect("attention.causal", &Value::Bool(false)), Effect::Wrong(_)));
    }
}
