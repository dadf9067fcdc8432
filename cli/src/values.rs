//! How values on the command line are read and checked, so that a wrong one is named with its option, before a model is
//! loaded. The rules are the library's.

use smallmind::Error;
use smallmind::isa::IsaId;
use smallmind::kernels::qmatmul::Activations;
use smallmind::kv::CacheType;
use smallmind::model::quantize::Mix;
use smallmind::model::{GptConfig, RopeOverrides};
use smallmind::runtime::generation::GenerationParams;
use smallmind::runtime::sampling::{MAX_PENALTY_LAST_N, SamplerParams, StageKind};
use smallmind::threads::MAX_WORKERS;

/// Accepts the sizes of a team.
pub fn thread_count() -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    whole(1, MAX_WORKERS as u64)
}

/// Accepts any whole number.
pub fn count() -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    whole(0, u64::MAX)
}

/// Accepts whole numbers from `least` to `most`.
pub fn whole(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    let needed = match (least, most) {
        (0, u64::MAX) => "a whole number is needed".to_owned(),
        (least, u64::MAX) => format!("a whole number from {least} on is needed"),
        (least, most) => format!("a whole number from {least} to {most} is needed"),
    };
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.and_then(|number| usize::try_from(number).ok()).ok_or_else(|| needed.clone())
    }
}

/// The seed of random numbers.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a whole number from 0 to {} is needed", u64::MAX))
}

/// How many bits activations keep.
pub fn activations(bits: &str) -> Result<Activations, &'static str> {
    match bits {
        "16" => Ok(Activations::Bits16),
        "auto" => Ok(Activations::Adaptive),
        "8" => Ok(Activations::Bits8),
        _ => Err("16, auto or 8 is needed"),
    }
}

/// What the cache holds.
pub fn cache_type(name: &str) -> Result<CacheType, &'static str> {
    CacheType::ALL.into_iter().find(|kv| kv.name() == name).ok_or("f32, f16 or q8_0 is needed")
}

/// The shape of a random model.
pub fn shape(text: &str) -> Result<GptConfig, String> {
    text.parse().map_err(why)
}

/// A choice of types for the tensors of a file.
pub fn mix(name: &str) -> Result<Mix, String> {
    Mix::named(name).map_err(why)
}

/// An instruction set that this CPU has.
pub fn isa(name: &str) -> Result<IsaId, String> {
    IsaId::parse(name).map_err(why)
}

pub fn temperature(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_temperature)
}

pub fn top_p(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_top_p)
}

pub fn min_p(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_min_p)
}

pub fn repeat_penalty(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_repetition_penalty)
}

pub fn top_n_sigma(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_top_n_sigma)
}

pub fn typical(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_typical_p)
}

pub fn xtc_probability(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_xtc_probability)
}

pub fn xtc_threshold(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_xtc_threshold)
}

pub fn dynatemp_range(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_temperature_range)
}

pub fn dynatemp_exp(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_temperature_exponent)
}

pub fn presence_penalty(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_presence_penalty)
}

pub fn frequency_penalty(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_frequency_penalty)
}

pub fn dry_multiplier(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_dry_multiplier)
}

pub fn dry_base(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_dry_base)
}

pub fn mirostat_tau(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_mirostat_tau)
}

pub fn mirostat_eta(text: &str) -> Result<f32, String> {
    sampling(text, SamplerParams::with_mirostat_eta)
}

/// Accepts the lengths of a window of last tokens.
pub fn repeat_last_n() -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    whole(0, MAX_PENALTY_LAST_N as u64)
}

/// Which Mirostat, if any.
pub fn mirostat(version: &str) -> Result<bool, &'static str> {
    match version {
        "0" => Ok(false),
        "2" => Ok(true),
        _ => Err("0 or 2 is needed"),
    }
}

/// A token and what is added to its logit.
pub fn logit_bias(text: &str) -> Result<(u32, f32), &'static str> {
    const NEEDED: &str = "a token and a number with its sign are needed, such as 15043+1 or 15043-inf";
    let at = text.find(['+', '-']).ok_or(NEEDED)?;
    let (token, bias) = text.split_at(at);
    let bias = bias.parse().ok().filter(|bias: &f32| *bias < f32::INFINITY);
    Ok((token.parse().map_err(|_| NEEDED)?, bias.ok_or(NEEDED)?))
}

/// A stage of sampling, by its name.
pub fn stage(name: &str) -> Result<StageKind, String> {
    StageKind::named(name).map_err(why)
}

/// The factor or the base of the rotary embedding.
pub fn rope(text: &str) -> Result<f32, String> {
    let value = number(text)?;
    RopeOverrides::default().with_base(value).check().map(|()| value).map_err(rule)
}

/// A share in percent.
pub fn percent(text: &str) -> Result<f64, &'static str> {
    let percent = text.parse().ok().filter(|percent: &f64| percent.is_finite() && *percent >= 0.0);
    percent.ok_or("a number of percent, not negative, is needed")
}

/// A string that ends a text.
pub fn stop(text: &str) -> Result<String, String> {
    GenerationParams::default().with_stops(&[text]).validate().map(|()| text.to_owned()).map_err(|error| {
        // clap names the string: not by its place in a list.
        why(error).replace("stop string 0", "it")
    })
}

fn number(text: &str) -> Result<f32, String> {
    text.parse().map_err(|_| "a number is needed".to_owned())
}

fn sampling(text: &str, set: fn(SamplerParams, f32) -> SamplerParams) -> Result<f32, String> {
    let value = number(text)?;
    set(SamplerParams::default(), value).validate().map(|()| value).map_err(rule)
}

/// The text of the library's error; clap adds the option and its value.
fn why(error: Error) -> String {
    match error {
        Error::InvalidArgument(what) => what,
        other => other.to_string(),
    }
}

/// What the library says of a value behind its own name for it.
fn rule(error: Error) -> String {
    let text = why(error);
    text.split_once("; ").map_or(text.clone(), |(_, rule)| rule.to_owned())
}
