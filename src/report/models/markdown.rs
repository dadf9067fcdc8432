//! The comparison of models as Markdown.

use super::{ModelComparison, ModelFigures, PartModels};
use crate::report::render::text::{MB, NOTHING, markdown, percent, short, table};

/// The whole comparison.
pub fn render_models(comparison: &ModelComparison) -> String {
    let mut text = String::from("# Models Compared\n\n");
    text += "Times are milliseconds, 1 MB is 1048576 bytes. Of several runs, times are geometric means. \
             Ratios are to the first model.\n\n## Specifications\n\n";
    text += &specifications(comparison);
    for part in &comparison.parts {
        text += &format!("\n## Part: {}\n\n", markdown(&part.name));
        if part.models.is_empty() {
            text += "No model made tokens that were timed in it.\n";
            continue;
        }
        text += &metrics(part);
        text += "\n### Scaling\n\n";
        text += &scaling(part);
        text += "\n### Forward Pass\n\n";
        text += &forward(part);
    }
    if !comparison.notes.is_empty() {
        text += "\n## Notes\n\n";
        for note in &comparison.notes {
            text += &format!("- {}.\n", markdown(note));
        }
    }
    text
}

/// A row for each figure, a column for each model.
fn specifications(comparison: &ModelComparison) -> String {
    let models = &comparison.models;
    let heads = names("specification", models.iter().map(|model| &model.name));
    let row = |what: &str, figure: &dyn Fn(usize) -> String| {
        std::iter::once(what.to_owned()).chain((0..models.len()).map(figure)).collect()
    };
    let count = |figure: u64| figure.to_string();
    table(
        &heads,
        &["specification"],
        [
            row("parameters", &|i| count(models[i].parameters)),
            row("tensors", &|i| count(models[i].tensors)),
            row("vocabulary", &|i| count(models[i].vocab)),
            row("context", &|i| count(models[i].context)),
            row("width", &|i| count(models[i].dim)),
            row("layers", &|i| count(models[i].layers)),
            row("heads", &|i| count(models[i].heads)),
            row("weights MB", &|i| short(models[i].weight_bytes as f64 / MB)),
        ],
    )
}

fn names<'a>(first: &str, names: impl Iterator<Item = &'a String>) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(names.map(|name| markdown(name))).collect()
}

/// A figure of a model, and whether it is of a kind that a ratio says something about.
type Figure = (&'static str, fn(&ModelFigures) -> f64, bool);

fn metrics(part: &PartModels) -> String {
    let mut heads = names("metric", part.models.iter().map(|model| &model.name));
    heads.extend(part.models.iter().skip(1).map(|model| format!("{} ratio", markdown(&model.name))));
    let figures: [Figure; 5] = [
        ("tokens", |model| model.tokens as f64, false),
        ("total ms", |model| model.total_ms, true),
        ("tokens/s", |model| model.tokens_per_second, true),
        ("ms per token", |model| model.ms_per_token, true),
        ("MB per token", |model| model.bytes_per_token / MB, true),
    ];
    let rows = figures.map(|(what, figure, compared)| {
        let first = figure(&part.models[0]);
        let ratio = |model: &ModelFigures| match compared && first > 0.0 {
            true => format!("{:.3}", figure(model) / first),
            false => NOTHING.to_owned(),
        };
        let mut row = vec![what.to_owned()];
        let show = |model| if compared { short(figure(model)) } else { format!("{:.0}", figure(model)) };
        row.extend(part.models.iter().map(show));
        row.extend(part.models.iter().skip(1).map(ratio));
        row
    });
    table(&heads, &["metric"], rows)
}

fn scaling(part: &PartModels) -> String {
    if part.scaling.is_empty() {
        return "One model only: nothing to scale to.\n".into();
    }
    let heads = [
        "model",
        "parameters ×",
        "time per token ×",
        "95 % interval",
        "memory per token ×",
        "efficiency",
        "grade",
    ];
    let rows = part.scaling.iter().map(|scaling| {
        let interval =
            scaling.interval.map_or(NOTHING.to_owned(), |[low, high]| format!("{low:.3} to {high:.3}"));
        vec![
            markdown(&scaling.name),
            format!("{:.2}", scaling.parameter_ratio),
            format!("{:.2}", scaling.time_ratio),
            interval,
            scaling.memory_ratio.map_or(NOTHING.to_owned(), |ratio| format!("{ratio:.2}")),
            format!("{:.2}", scaling.efficiency),
            scaling.grade.name().to_owned(),
        ]
    });
    let mut text = table(&heads, &["model", "95 % interval", "grade"], rows);
    text += "\nEfficiency is the ratio of parameters over the ratio of times: above 0.9 excellent, above 0.7 good, \
             above 0.5 fair, else poor.\n";
    text
}

fn forward(part: &PartModels) -> String {
    let heads = ["model", "passes", "ms per pass", "% of generating", "GFLOPS"];
    let rows: Vec<Vec<String>> = part
        .models
        .iter()
        .filter_map(|model| {
            let forward = model.forward.as_ref()?;
            Some(vec![
                markdown(&model.name),
                forward.calls.to_string(),
                format!("{:.4}", forward.mean_ms),
                percent(forward.share),
                forward.gflops.map_or(NOTHING.to_owned(), short),
            ])
        })
        .collect();
    if rows.is_empty() {
        "No forward pass was recorded.\n".into()
    } else {
        table(&heads, &["model", "95 % interval", "grade"], rows)
    }
}
