//! The models of a profile side by side: speed, memory per token, and the cost of a larger model for its size.

mod markdown;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::data::{Method, ModelSpec, Part, Report};
use super::stats::{Difference, Sample};
use crate::error::{Error, Result, quoted};

pub use markdown::render_models;

/// Methods whose time is that of generating where a profile has one model: the first that is there counts. A name that
/// ends with an underscore is the beginning of others.
const GENERATING: [&str; 7] =
    ["InferenceComplete", "Inference", "Decode_", "Prefill_", "Batch_", "decode", "generate"];
/// The forward passes of such a profile.
const FORWARD: [&str; 4] = ["ForwardPass", "Transformer_Forward", "forward", "pass"];

/// A model's figures in a part, means over the runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelFigures {
    /// The model.
    pub name: String,
    /// Elements of its tensors.
    pub parameters: u64,
    /// Tokens of one run.
    pub tokens: u64,
    /// The method that generated them.
    pub method: String,
    /// Nanoseconds that they took in each run.
    #[serde(skip)]
    times_ns: Vec<f64>,
    /// Milliseconds in all: the geometric mean of the runs, as where times are compared.
    pub total_ms: f64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Milliseconds for a token.
    pub ms_per_token: f64,
    /// Bytes allocated for a token.
    pub bytes_per_token: f64,
    /// Its forward passes, where they were recorded.
    pub forward: Option<Forward>,
}

/// The forward passes of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forward {
    /// Passes of one run.
    pub calls: u64,
    /// Milliseconds for one.
    pub mean_ms: f64,
    /// Share of the time of generating, 0 to 1.
    pub share: f64,
    /// 10⁹ operations a second, where they were declared.
    pub gflops: Option<f64>,
}

/// All models of a profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelComparison {
    /// The models.
    pub models: Vec<ModelSpec>,
    /// Their figures, part by part.
    pub parts: Vec<PartModels>,
    /// Models that couldn't be compared, and why.
    pub notes: Vec<String>,
}

/// The models of a part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartModels {
    /// The part.
    pub name: String,
    /// Its runs.
    pub runs: usize,
    /// The models that were timed, in their order.
    pub models: Vec<ModelFigures>,
    /// Each model but the first, against the first.
    pub scaling: Vec<Scaling>,
}

/// A model against the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scaling {
    /// The model.
    pub name: String,
    /// Its parameters over those of the first.
    pub parameter_ratio: f64,
    /// Its time per token over that of the first.
    pub time_ratio: f64,
    /// The 95 % interval of `time_ratio`, where there were several runs.
    pub interval: Option<[f64; 2]>,
    /// Its memory per token over that of the first, where that allocated anything.
    pub memory_ratio: Option<f64>,
    /// `parameter_ratio` over `time_ratio`: 1 where time grows as the size does.
    pub efficiency: f64,
    /// Its grade.
    pub grade: Grade,
}

/// The grade of a scaling efficiency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Above 0.9.
    Excellent,
    /// Above 0.7.
    Good,
    /// Above 0.5.
    Fair,
    /// The rest.
    Poor,
}

impl Grade {
    /// The grade of an efficiency.
    pub fn of(efficiency: f64) -> Grade {
        match efficiency {
            _ if efficiency > 0.9 => Grade::Excellent,
            _ if efficiency > 0.7 => Grade::Good,
            _ if efficiency > 0.5 => Grade::Fair,
            _ => Grade::Poor,
        }
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Grade::Excellent => "excellent",
            Grade::Good => "good",
            Grade::Fair => "fair",
            Grade::Poor => "poor",
        }
    }
}

/// The figures of all models in the part of this index that made tokens and were timed.
pub fn figures(report: &Report, part: usize) -> Vec<ModelFigures> {
    let alone = report.models.len() == 1;
    let of = |model| model_figures(model, part, &report.parts[part], alone);
    report.models.iter().filter_map(of).collect()
}

/// Compares the models of a profile.
///
/// # Errors
/// [`Error::InvalidArgument`] where it has no model that was timed.
pub fn compare_models(report: &Report) -> Result<ModelComparison> {
    let mut notes = Vec::new();
    let parts: Vec<PartModels> = (0..report.parts.len())
        .map(|index| {
            let part = &report.parts[index];
            let models = figures(report, index);
            for model in &report.models {
                if !models.iter().any(|figures| figures.name == model.name) {
                    let (model, part) = (quoted(&model.name), quoted(&part.name));
                    notes
                        .push(format!("the model {model} made no tokens that were timed in the part {part}"));
                }
            }
            let scaling = models.iter().skip(1).map(|model| scaling(&models[0], model)).collect();
            PartModels { name: part.name.clone(), runs: part.runs.len(), models, scaling }
        })
        .collect();
    if parts.iter().all(|part| part.models.is_empty()) {
        return Err(Error::invalid("no model that made tokens is in this profile"));
    }
    Ok(ModelComparison { models: report.models.clone(), parts, notes })
}

fn model_figures(model: &ModelSpec, index: usize, part: &Part, alone: bool) -> Option<ModelFigures> {
    let tokens = *model.tokens.get(index).filter(|&&tokens| tokens > 0)?;
    let name = generating(model, part, alone)?;
    let times_ns = figures_of(part, &name, |method| method.total_ns as f64);
    let mean_ns = Sample::of_logs(&times_ns, 1.0)?.mean.exp();
    let allocated = figures_of(part, &name, |method| method.alloc_bytes as f64);
    let own = format!("Model_{}_Forward", model.name);
    let forward = name_of(part, &own, &FORWARD, alone).and_then(|name| forward(part, &name, mean_ns));
    Some(ModelFigures {
        name: model.name.clone(),
        parameters: model.parameters,
        tokens,
        method: name,
        total_ms: mean_ns / 1e6,
        tokens_per_second: tokens as f64 * 1e9 / mean_ns,
        ms_per_token: mean_ns / 1e6 / tokens as f64,
        bytes_per_token: allocated.iter().sum::<f64>() / (allocated.len() as f64 * tokens as f64),
        forward,
        times_ns,
    })
}

fn forward(part: &Part, name: &str, generating_ns: f64) -> Option<Forward> {
    let times = figures_of(part, name, |method| method.total_ns as f64);
    let total_ns = Sample::of_logs(&times, 1.0)?.mean.exp();
    let method = part.runs[0].methods.iter().find(|method| method.name == name)?;
    Some(Forward {
        calls: method.calls,
        mean_ms: total_ns / 1e6 / method.calls.max(1) as f64,
        share: total_ns / generating_ns,
        gflops: (method.flops > 0).then(|| method.flops as f64 / total_ns),
    })
}

/// The method whose time is that of a model's tokens in a part; `alone`: no other model ran.
pub(super) fn generating(model: &ModelSpec, part: &Part, alone: bool) -> Option<String> {
    name_of(part, &format!("Model_{}_Inference", model.name), &GENERATING, alone)
}

/// The method of this name or, for the only model, the first that is called as one of the others or begins so where
/// that ends with an underscore.
fn name_of(part: &Part, own: &str, others: &[&str], alone: bool) -> Option<String> {
    let methods = &part.runs.first()?.methods;
    let find = |wanted: &str| {
        let like = |name: &str| name == wanted || (wanted.ends_with('_') && name.starts_with(wanted));
        methods.iter().map(|method| &method.name).find(|name| like(name))
    };
    let others = others.iter().copied().filter(|_| alone);
    std::iter::once(own).chain(others).find_map(find).cloned()
}

/// A figure of a method in each run.
fn figures_of(part: &Part, name: &str, figure: impl Fn(&Method) -> f64) -> Vec<f64> {
    let methods = part.runs.iter().filter_map(|run| run.methods.iter().find(|method| method.name == name));
    methods.map(figure).collect()
}

fn scaling(first: &ModelFigures, model: &ModelFigures) -> Scaling {
    let per_token = |figures: &ModelFigures| -> Vec<f64> {
        figures.times_ns.iter().map(|time| time / figures.tokens as f64).collect()
    };
    let sample = |figures: &ModelFigures| Sample::of_logs(&per_token(figures), 1.0 / figures.tokens as f64);
    let difference = sample(first).zip(sample(model)).and_then(|(a, b)| Difference::welch(&a, &b));
    let parameter_ratio = model.parameters as f64 / first.parameters.max(1) as f64;
    let time_ratio = model.ms_per_token / first.ms_per_token;
    let efficiency = parameter_ratio / time_ratio;
    Scaling {
        name: model.name.clone(),
        parameter_ratio,
        time_ratio,
        interval: difference.map(|difference| difference.interval()),
        memory_ratio: (first.bytes_per_token > 0.0).then(|| model.bytes_per_token / first.bytes_per_token),
        efficiency,
        grade: Grade::of(efficiency),
    }
}
