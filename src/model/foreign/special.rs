//! The few things in a class's configuration that no table says: what GGUF's family computes with is checked, and values are
//! worked out of several others.

use serde_json::Value as Json;

use super::config::Settings;
use super::families::Description;
use super::keys::CONTEXT;
use crate::error::{Error, Result, quoted};
use crate::format::gguf::{Array, Strings, Value};

fn unsupported(settings: &Settings, what: &str) -> Error {
    Error::Unsupported(format!("{}: {what}", settings.file()))
}

/// Qwen's windows, which its files rarely use.
pub(super) fn full_windows(settings: &Settings, _: &mut Description) -> Result<()> {
    match settings.flag("use_sliding_window")? {
        true => Err(unsupported(settings, "sliding windows")),
        false => Ok(()),
    }
}

/// A window in all layers, which GGUF's family hasn't: within it, there is no difference.
pub(super) fn within_window(settings: &Settings, d: &mut Description) -> Result<()> {
    match (settings.count("sliding_window")?, d.stated(CONTEXT)) {
        (Some(window), Some(context)) if window < context => d.count(CONTEXT, window),
        _ => Ok(()),
    }
}

/// Whether the weights of the chosen experts sum to 1.
pub(super) fn scaled_scores(settings: &Settings, wanted: bool) -> Result<()> {
    match settings.get("norm_topk_prob") {
        Some(_) if settings.flag("norm_topk_prob")? != wanted => {
            Err(unsupported(settings, &format!("\"norm_topk_prob\" that isn't {wanted}")))
        }
        _ => Ok(()),
    }
}

/// The layers with a window by `layer_types`, where it is there.
fn windows(settings: &Settings) -> Option<Vec<bool>> {
    let list = settings.get("layer_types")?.as_array()?;
    Some(list.iter().map(|kind| kind.as_str() == Some("sliding_attention")).collect())
}

/// Checks that each `n`th layer sees all, and that the others have the window.
pub(super) fn every_nth_sees_all(settings: &Settings, _: &mut Description, n: usize) -> Result<()> {
    let period = match settings.count("sliding_window_pattern")? {
        None => settings.count("_sliding_window_pattern")?,
        period => period,
    };
    let listed = windows(settings).unwrap_or_default();
    let differs = listed.iter().enumerate().any(|(i, &windowed)| windowed == ((i + 1) % n == 0));
    match differs || period.is_some_and(|period| period as usize != n) {
        true => Err(unsupported(settings, &format!("layers other than each {n}th that see all positions"))),
        false => Ok(()),
    }
}

pub(super) fn gemma2(settings: &Settings, d: &mut Description) -> Result<()> {
    every_nth_sees_all(settings, d, 2)?;
    scale_of_gemma(settings, d, 46)
}

pub(super) fn gemma3(settings: &Settings, d: &mut Description) -> Result<()> {
    every_nth_sees_all(settings, d, 6)?;
    if settings.get("attn_logit_softcapping").is_some() {
        return Err(unsupported(settings, "a soft cap of the scores of attention"));
    }
    scale_of_gemma(settings, d, 62)
}

/// GGUF's family divides scores by the root of a head's elements, in the model of so many layers by that of the width's
/// share of a head.
fn scale_of_gemma(settings: &Settings, d: &Description, large: u32) -> Result<()> {
    let share =
        d.stated("embedding_length").unwrap_or(0) / d.stated("attention.head_count").unwrap_or(1).max(1);
    let wanted = if d.stated("block_count") == Some(large) { share } else { d.head_dim };
    match settings.number("query_pre_attn_scalar")? {
        Some(scalar) if scalar != wanted as f32 => {
            let what = format!("\"query_pre_attn_scalar\" {scalar}, where the family has {wanted}");
            Err(unsupported(settings, &what))
        }
        _ => Ok(()),
    }
}

pub(super) fn ministral3(settings: &Settings, d: &mut Description) -> Result<()> {
    let Some(rope) = settings.inner("rope_parameters")? else { return Ok(()) };
    if let Some(scale) = rope.number("mscale_all_dim")? {
        d.number("rope.scaling.yarn_log_multiplier", scale)?;
    }
    match rope.number("llama_4_scaling_beta")? {
        Some(beta) => d.number("attention.temperature_scale", beta),
        None => Ok(()),
    }
}

/// GGUF's family rotates all layers but each fourth.
pub(super) fn smollm3(settings: &Settings, _: &mut Description) -> Result<()> {
    let list = settings.get("no_rope_layers").and_then(Json::as_array).cloned().unwrap_or_default();
    // 1 says that the layer is rotated.
    let differs =
        |(i, rotated): (usize, &Json)| rotated.as_u64() != Some(u64::from(!(i + 1).is_multiple_of(4)));
    match list.iter().enumerate().any(differs) || settings.flag("use_sliding_window")? {
        true => Err(unsupported(settings, "layers other than each fourth without rotation, or windows")),
        false => Ok(()),
    }
}

/// OLMo 3's windows, which OLMo 2 hasn't.
pub(super) fn olmo3(settings: &Settings, d: &mut Description) -> Result<()> {
    let Some(window) = settings.count("sliding_window")? else { return Ok(()) };
    d.count("attention.sliding_window", window)?;
    let layers = d.stated("block_count").unwrap_or(0).min(1 << 16) as usize;
    let pattern = windows(settings).unwrap_or_else(|| (1..=layers).map(|i| !i.is_multiple_of(4)).collect());
    d.set("attention.sliding_window_pattern", Value::Array(Array::Bool(pattern)))
}

/// Falcon's groups: each head alone, one head of keys for all, or as many as are stated.
pub(super) fn falcon(settings: &Settings, d: &mut Description) -> Result<()> {
    if settings.flag("alibi")? {
        return Err(unsupported(settings, "a bias by distance (ALiBi)"));
    }
    let heads = d.stated("attention.head_count").unwrap_or(1).max(1);
    let grouped = settings.flag("new_decoder_architecture")?;
    let single = settings.get("multi_query").is_none() || settings.flag("multi_query")?;
    let groups = match (grouped, single) {
        (true, _) => settings.count("num_kv_heads")?.or(settings.count("n_head_kv")?).unwrap_or(heads),
        (false, true) => 1,
        (false, false) => heads,
    };
    if settings.get("parallel_attn").is_some() && !settings.flag("parallel_attn")? {
        return Err(unsupported(settings, "attention before the MLP"));
    }
    d.queries = heads / groups.max(1);
    d.set("tensor_data_layout", Value::Str("jploski".into()))?;
    d.count("attention.head_count_kv", groups)
}

pub(super) fn absolute(settings: &Settings, _: &mut Description) -> Result<()> {
    settings.expect("position_embedding_type", &["absolute"])
}

/// Positions are counted from behind the padding token's number.
pub(super) fn roberta(settings: &Settings, d: &mut Description) -> Result<()> {
    let Some(padding) = settings.count("pad_token_id")? else { return Ok(()) };
    d.skipped = padding.saturating_add(1);
    let positions = d.stated(CONTEXT).unwrap_or(0);
    let positions = positions.checked_sub(d.skipped).filter(|&left| left > 0);
    let positions = positions.ok_or_else(|| {
        Error::format(format!("{}: fewer positions than \"pad_token_id\" {padding}", settings.file()))
    })?;
    d.count(CONTEXT, positions)
}

/// The classes of a classifier.
pub(super) fn labels(settings: &Settings, d: &mut Description) -> Result<()> {
    let Some(Json::Object(map)) = settings.get("id2label") else { return Ok(()) };
    let mut numbered: Vec<_> = map
        .iter()
        .filter_map(|(number, label)| Some((number.parse::<u64>().ok()?, label.as_str()?)))
        .collect();
    numbered.sort_unstable();
    // Two classes without names of their own are what a configuration that states none becomes.
    if numbered.len() == 2 && numbered[0].1 == "LABEL_0" {
        return Ok(());
    }
    let mut texts = Strings::default();
    numbered.iter().try_for_each(|(_, label)| texts.push(label))?;
    d.set("classifier.output_labels", Value::Array(Array::Str(texts)))
}

/// Granite's class with a shared MLP may have no experts; GGUF's family then has another form of it.
pub(super) fn granite_moe(settings: &Settings, d: &mut Description) -> Result<()> {
    match d.stated("expert_count") {
        None | Some(0) => Err(unsupported(settings, "a mixture without experts")),
        Some(_) => Ok(()),
    }
}

pub(super) fn nomic(settings: &Settings, d: &mut Description) -> Result<()> {
    nomic_common(settings, d, false)
}

/// nomic-bert with experts, whose matrices have biases.
pub(super) fn nomic_moe(settings: &Settings, d: &mut Description) -> Result<()> {
    nomic_common(settings, d, true)
}

fn nomic_common(settings: &Settings, d: &mut Description, biased: bool) -> Result<()> {
    for (key, wanted) in [
        ("prenorm", false),
        ("rotary_emb_interleaved", false),
        ("causal", false),
        ("qkv_proj_bias", biased),
        ("mlp_fc1_bias", biased),
        ("mlp_fc2_bias", biased),
    ] {
        if settings.flag(key)? != wanted {
            return Err(unsupported(settings, &format!("{} that is {}", quoted(key), !wanted)));
        }
    }
    // Trained on fewer positions than are stated: of 8192 on 2048, and of 2048 on 512.
    let trained = settings.count("max_trained_positions")?.unwrap_or(2048);
    match d.stated(CONTEXT) {
        Some(2048) if trained == 2048 => d.count(CONTEXT, 512),
        Some(positions) if positions > trained => d.count(CONTEXT, trained),
        _ => Ok(()),
    }
}

pub(super) fn modern_bert(settings: &Settings, d: &mut Description) -> Result<()> {
    d.set("rope.scaling.type", Value::Str("none".into()))?;
    match settings.text("classifier_pooling")? {
        None => {}
        Some("mean") => d.count("classifier.pooling_type", 1)?,
        Some("cls") => d.count("classifier.pooling_type", 2)?,
        Some(other) => {
            return Err(unsupported(settings, &format!("\"classifier_pooling\" {}", quoted(other))));
        }
    }
    match settings.text("hidden_activation")? {
        Some(activation) => d.set("hidden_activation", Value::Str(activation.into())),
        None => Ok(()),
    }
}
