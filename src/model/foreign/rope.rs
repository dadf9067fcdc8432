//! Rotary embeddings of folders: bases, the rotated part of a head, and how frequencies are stretched for long contexts.

use serde_json::Value as Json;

use super::config::Settings;
use super::families::Description;
use crate::error::{Error, Result, quoted};
use crate::format::gguf::Value;

/// Names of the base of layers that see all, and of layers with a window.
const BASES: [&str; 3] = ["rope_theta", "global_rope_theta", "rotary_emb_base"];
const WINDOW_BASES: [&str; 2] = ["local_rope_theta", "rope_local_base_freq"];
const PARTS: [&str; 5] =
    ["partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent", "rotary_emb_fraction"];

/// Most elements of a head: it bounds a list of divisors.
const MOST: u32 = 1 << 16;

/// The first of these numbers that is there.
fn first(settings: &Settings, names: &[&str]) -> Result<Option<f32>> {
    for name in names {
        if let Some(number) = settings.number(name)? {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Puts the keys of the rotary embedding into the metadata; `part` is the share of a head that is rotated where the
/// configuration has none.
pub(super) fn insert(settings: &Settings, d: &mut Description, part: f32, base: f32) -> Result<()> {
    let parameters = match settings.inner("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => settings.inner("rope_parameters")?,
    };
    let of = |name: &str| parameters.as_ref().map(|all| all.inner(name)).transpose().map(Option::flatten);
    let (whole, windowed) = (of("full_attention")?, of("sliding_attention")?);
    let scaling = whole.as_ref().or(parameters.as_ref());
    let own = |name: &str| scaling.map(|own| own.number(name)).transpose().map(Option::flatten);
    let base = first(settings, &BASES)?.or(own("rope_theta")?).unwrap_or(base);
    d.number("rope.freq_base", base)?;
    let window_base = windowed.map(|own| own.number("rope_theta")).transpose()?.flatten();
    if let Some(base) = first(settings, &WINDOW_BASES)?.or(window_base) {
        d.number("rope.freq_base_swa", base)?;
    }
    let part = first(settings, &PARTS)?.or(own("partial_rotary_factor")?).unwrap_or(part);
    d.rotated = (part * d.head_dim as f32) as u32;
    d.count("rope.dimension_count", d.rotated)?;
    match scaling {
        Some(scaling) => stretch(scaling, d, base),
        None => Ok(()),
    }
}

/// How frequencies are stretched.
fn stretch(scaling: &Settings, d: &mut Description, base: f32) -> Result<()> {
    let kind = scaling.text("rope_type")?.or(scaling.text("type")?).unwrap_or("default");
    let factor = scaling.number("factor")?.unwrap_or(1.0);
    match kind {
        "default" => Ok(()),
        "linear" => {
            d.set("rope.scaling.type", Value::Str("linear".into()))?;
            d.number("rope.scaling.factor", factor)
        }
        "yarn" => {
            d.set("rope.scaling.type", Value::Str("yarn".into()))?;
            d.number("rope.scaling.factor", factor)?;
            let original = scaling.required("original_max_position_embeddings")?;
            d.count("rope.scaling.original_context_length", original)?;
            for (theirs, ours) in [
                ("extrapolation_factor", "rope.scaling.yarn_ext_factor"),
                ("attention_factor", "rope.scaling.yarn_attn_factor"),
                ("beta_fast", "rope.scaling.yarn_beta_fast"),
                ("beta_slow", "rope.scaling.yarn_beta_slow"),
            ] {
                if let Some(number) = scaling.number(theirs)? {
                    d.number(ours, number)?;
                }
            }
            Ok(())
        }
        "llama3" => {
            let divisors = llama3_divisors(scaling, base, factor, d.head_dim)?;
            d.extra.push(("rope_freqs.weight", divisors));
            Ok(())
        }
        "longrope" | "su" => by_length(scaling, d),
        other => Err(Error::Unsupported(format!("{}: the kind {}", scaling.file(), quoted(other)))),
    }
}

/// Llama 3.1's stretching: waves that are short against the original context stay, long ones are divided by the factor,
/// those between by something between.
fn llama3_divisors(scaling: &Settings, base: f32, factor: f32, head_dim: u32) -> Result<Vec<f32>> {
    if head_dim > MOST {
        return Err(Error::format(format!("{}: heads of {head_dim} elements", scaling.file())));
    }
    let original = scaling.count("original_max_position_embeddings")?.unwrap_or(8192) as f32;
    let low = scaling.number("low_freq_factor")?.unwrap_or(1.0);
    let high = scaling.number("high_freq_factor")?.unwrap_or(4.0);
    let divisor = |i: u32| {
        let wave = std::f64::consts::TAU * f64::from(base).powf(f64::from(2 * i) / f64::from(head_dim));
        let wave = wave as f32;
        if wave < original / high {
            1.0
        } else if wave > original / low {
            factor
        } else {
            let share = (original / wave - low) / (high - low);
            1.0 / ((1.0 - share) / factor + share)
        }
    };
    Ok((0..head_dim / 2).map(divisor).collect())
}

/// LongRoPE: two lists of divisors, one for contexts up to the original length.
fn by_length(scaling: &Settings, d: &mut Description) -> Result<()> {
    let wrong = |what: String| Error::format(format!("{}: {what}", scaling.file()));
    for (theirs, ours) in
        [("long_factor", "rope_factors_long.weight"), ("short_factor", "rope_factors_short.weight")]
    {
        let list = scaling.get(theirs).and_then(Json::as_array);
        let list = list.ok_or_else(|| wrong(format!("no list {}", quoted(theirs))))?;
        let numbers: Option<Vec<f32>> = list.iter().map(|x| x.as_f64().map(|x| x as f32)).collect();
        match numbers.filter(|numbers| numbers.len() as u32 == d.rotated / 2) {
            Some(numbers) => d.extra.push((ours, numbers)),
            None => {
                let needed = d.rotated / 2;
                return Err(wrong(format!("{} has no {needed} numbers", quoted(theirs))));
            }
        }
    }
    let own = scaling.count("original_max_position_embeddings")?;
    let (Some(original), Some(context)) =
        (d.stated("rope.scaling.original_context_length").or(own), d.stated(super::keys::CONTEXT))
    else {
        return Err(wrong("no \"original_max_position_embeddings\"".into()));
    };
    if !d.has("rope.scaling.original_context_length") {
        d.count("rope.scaling.original_context_length", original)?;
    }
    // Attention is sharpened with the length, in double precision, as the peer's writer does it.
    let scale = f64::from(context) / f64::from(original.max(1));
    let sharpened = (1.0 + scale.ln() / f64::from(original.max(2)).ln()).sqrt();
    d.number("rope.scaling.attn_factor", if scale > 1.0 { sharpened as f32 } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waves_are_stretched() {
        let text = br#"{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}"#;
        let scaling = Settings::read("config.json".into(), text).unwrap();
        let divisors = llama3_divisors(&scaling, 500_000.0, 8.0, 128).unwrap();
        assert_eq!((divisors.len(), divisors[0], divisors[63]), (64, 1.0, 8.0));
        assert!(divisors.is_sorted() && divisors.iter().any(|&x| x > 1.0 && x < 8.0));
    }
}
