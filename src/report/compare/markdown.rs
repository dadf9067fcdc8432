//! A comparison as Markdown: its two sides, each part's figures and verdict, and every method.

use super::change::{Change, Verdict};
use super::{Comparison, Lone, MethodChange, Metric, MetricUnit, PartChange, Side};
use crate::report::models::ModelFigures;
use crate::report::read::Layout;
use crate::report::render::text::{NOTHING, markdown, mb, ms, short, table};

/// Rows of the tables of the largest changes.
const TOP: usize = 10;
/// Columns that aren't numbers.
const WORDS: [&str; 8] =
    ["profile", "previous", "current", "metric", "method", "model", "95 % interval", "status"];

/// The whole comparison.
pub fn render_comparison(comparison: &Comparison) -> String {
    let mut text = String::from("# Profiles Compared\n\n");
    text += &sides(&comparison.before, &comparison.after);
    text += "\nTimes are milliseconds, 1 MB is 1048576 bytes. Of several runs, figures are geometric means; the \
             interval of a ratio is Welch's on the logarithms of the runs, at 95 %. \"improved\" and \"regressed\" \
             stand only where no change is excluded after Holm's correction for all methods (for figures of the \
             summaries: for all of those); anything else is \"no difference shown\".\n";
    if !comparison.notes.is_empty() {
        text += "\n## Notes\n\n";
        for note in &comparison.notes {
            text += &format!("- {}\n", markdown(note));
        }
    }
    for part in &comparison.parts {
        text += &part_text(part);
    }
    for (what, names) in [("added", &comparison.added_parts), ("removed", &comparison.removed_parts)] {
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(|name| format!("**{}**", markdown(name))).collect();
            text += &format!("\nParts {what}: {}.\n", names.join(", "));
        }
    }
    text
}

fn sides(before: &Side, after: &Side) -> String {
    let known = |text: &str| if text.is_empty() { NOTHING.to_owned() } else { markdown(text) };
    let layout = |layout: Layout| match layout {
        Layout::Json => "JSON".to_owned(),
        Layout::Markdown => "Markdown".to_owned(),
        Layout::Dialect(tool) => format!("Markdown of the {tool}"),
    };
    let row =
        |what: &str, figure: &dyn Fn(&Side) -> String| vec![what.to_owned(), figure(before), figure(after)];
    let threads = |side: &Side| if side.threads == 0 { NOTHING.to_owned() } else { side.threads.to_string() };
    let rows = [
        row("file", &|side| known(&side.source)),
        row("layout", &|side| layout(side.layout)),
        row("generated", &|side| known(&side.created)),
        row("mode", &|side| known(&side.mode)),
        row("CPU", &|side| known(&side.cpu)),
        row("instruction set", &|side| known(&side.isa)),
        row("threads", &threads),
        row("version", &|side| known(&side.version)),
        row("commit", &|side| known(&side.commit)),
    ];
    table(&["profile", "previous", "current"], &WORDS, rows)
}

fn part_text(part: &PartChange) -> String {
    let mut text = format!("\n## Part: {}\n\n### Summary\n\n", markdown(&part.name));
    text += &summary(part);
    text += &format!("\n### Verdict\n\n**{}**: {}\n", part.verdict.name(), reason(part));
    text += &top(part);
    text += "\n### Method by Method\n\n";
    text += &methods(&part.methods);
    text += &lone("Added Methods", &part.added);
    text += &lone("Removed Methods", &part.removed);
    text += &models(part);
    text += &operations(part);
    text
}

fn reason(part: &PartChange) -> String {
    let [before, after] = part.runs;
    let Metric { name, change, .. } = &part.summary[0];
    if before < 2 || after < 2 {
        return format!(
            "{before} and {after} runs. One run can't tell noise from a change: with `--runs 5` or more on both \
             sides there is an interval."
        );
    }
    match (change.percent(), change.interval) {
        (Some(percent), Some(_)) => format!(
            "{name} changed by {percent:+.1} %, with 95 % confidence by {} ({before} and {after} runs).",
            interval(change)
        ),
        _ => format!("{name} can't be compared."),
    }
}

fn summary(part: &PartChange) -> String {
    let heads = ["metric", "previous", "current", "delta", "change %", "95 % interval", "status"];
    let [before, after] = part.methods_counted;
    let number = |count: usize| count.to_string();
    let delta = format!("{:+}", after as i128 - before as i128);
    let nothing = || NOTHING.to_owned();
    let counted =
        vec!["methods".into(), number(before), number(after), delta, nothing(), nothing(), nothing()];
    let rows = part.summary.iter().map(|metric| {
        let (unit, show): (&str, fn(f64) -> String) = match metric.unit {
            MetricUnit::Ns => (" ms", ms),
            MetricUnit::Bytes => (" MB", mb),
            MetricUnit::Count => ("", |count| format!("{count:.0}")),
        };
        let mut row = vec![format!("{}{unit}", metric.name)];
        row.extend(figures(&metric.change, show));
        row.push(interval(&metric.change));
        row.push(metric.change.verdict.name().to_owned());
        row
    });
    table(&heads, &["metric", "95 % interval", "status"], rows.chain([counted]))
}

/// Before, after, delta and change in percent.
fn figures(change: &Change, show: fn(f64) -> String) -> [String; 4] {
    let shown = |figure: Option<f64>| figure.map_or(NOTHING.to_owned(), show);
    let delta = change.delta().map_or(NOTHING.to_owned(), |delta| {
        format!("{}{}", if delta < 0.0 { "-" } else { "+" }, show(delta.abs()))
    });
    [shown(change.before), shown(change.after), delta, percent(change)]
}

fn percent(change: &Change) -> String {
    change.percent().map_or(NOTHING.to_owned(), |percent| format!("{percent:+.1}"))
}

/// The interval of the change in percent; beyond a hundredfold it is only said to be wide.
fn interval(change: &Change) -> String {
    change.interval.map_or(NOTHING.to_owned(), |[low, high]| {
        let high =
            if high < 100.0 { format!("{:+.1}", 100.0 * (high - 1.0)) } else { "over +9900".to_owned() };
        format!("{:+.1} to {high} %", 100.0 * (low - 1.0))
    })
}

/// The largest changes: the proved ones where runs can prove any, else the measured ones, which the heading says.
fn top(part: &PartChange) -> String {
    let told = part.runs.iter().all(|&runs| runs > 1);
    let sections: [(&str, &str, Verdict, f64); 2] = [
        ("Improvements", "Largest Decreases", Verdict::Improved, -1.0),
        ("Regressions", "Largest Increases", Verdict::Regressed, 1.0),
    ];
    let mut text = String::new();
    for (proved, seen, verdict, sign) in sections {
        let wanted = |method: &&MethodChange| match told {
            true => method.time_ns.verdict == verdict,
            false => method.time_ns.delta().is_some_and(|delta| delta * sign > 0.0),
        };
        let found: Vec<&MethodChange> = part.methods.iter().filter(wanted).take(TOP).collect();
        text += &match told {
            true => format!("\n### Top {TOP} {proved}\n\n"),
            false => format!("\n### {seen} (Not Shown to Be Real)\n\n"),
        };
        text += &if found.is_empty() { "None.\n".to_owned() } else { short_methods(&found) };
    }
    text
}

fn short_methods(methods: &[&MethodChange]) -> String {
    let heads = ["rank", "method", "previous ms", "current ms", "delta ms", "change %", "95 % interval"];
    let rows = methods.iter().enumerate().map(|(index, method)| {
        let mut row = vec![(index + 1).to_string(), markdown(&method.name)];
        row.extend(figures(&method.time_ns, ms));
        row.push(interval(&method.time_ns));
        row
    });
    table(&heads, &WORDS, rows)
}

fn methods(methods: &[MethodChange]) -> String {
    if methods.is_empty() {
        return "The sides have no method in common.\n".into();
    }
    let heads = [
        "method",
        "previous ms",
        "current ms",
        "delta ms",
        "change %",
        "95 % interval",
        "status",
        "previous calls",
        "current calls",
        "previous MB",
        "current MB",
    ];
    let rows = methods.iter().map(|method| {
        let mut row = vec![markdown(&method.name)];
        row.extend(figures(&method.time_ns, ms));
        row.push(interval(&method.time_ns));
        row.push(method.time_ns.verdict.name().to_owned());
        row.extend(method.calls.map(short_count));
        row.extend(method.alloc_bytes.map(mb));
        row
    });
    let mut text = table(&heads, &WORDS, rows);
    if methods.iter().any(|method| method.calls[0] != method.calls[1]) {
        text += "\nWhere calls differ, the work may differ too: times are of all calls.\n";
    }
    text
}

/// Whole where it is.
fn short_count(count: f64) -> String {
    if count.fract() == 0.0 { format!("{count:.0}") } else { format!("{count:.1}") }
}

fn lone(title: &str, methods: &[Lone]) -> String {
    if methods.is_empty() {
        return String::new();
    }
    let rows = methods
        .iter()
        .map(|method| vec![markdown(&method.name), short_count(method.calls), ms(method.time_ns)]);
    format!("\n### {title}\n\n{}", table(&["method", "calls", "total ms"], &WORDS, rows))
}

fn models(part: &PartChange) -> String {
    if part.models.is_empty() {
        return String::new();
    }
    let heads = [
        "model",
        "parameters",
        "previous ms",
        "current ms",
        "change %",
        "previous tokens/s",
        "current tokens/s",
        "previous ms per token",
        "current ms per token",
        "previous MB per token",
        "current MB per token",
        "status",
    ];
    let rows = part.models.iter().map(|model| {
        let pair = |figure: fn(&ModelFigures) -> f64| [&model.before, &model.after].map(figure);
        let change = 100.0 * (model.after.total_ms / model.before.total_ms - 1.0);
        let mut row = vec![markdown(&model.after.name), model.after.parameters.to_string()];
        row.extend(pair(|figures| figures.total_ms * 1e6).map(ms));
        row.push(format!("{change:+.1}"));
        row.extend(pair(|figures| figures.tokens_per_second).map(|speed| format!("{speed:.1}")));
        row.extend(pair(|figures| figures.ms_per_token * 1e6).map(ms));
        row.extend(pair(|figures| figures.bytes_per_token).map(mb));
        row.push(model.verdict.name().to_owned());
        row
    });
    let mut text = format!("\n### Model Sizes\n\n{}", table(&heads, &WORDS, rows));
    let differing = part.models.iter().filter(|model| model.before.tokens != model.after.tokens);
    for model in differing {
        let [before, after] = [&model.before, &model.after].map(|figures| figures.tokens);
        text +=
            &format!("\n{} made {before} tokens before and {after} after.\n", markdown(&model.after.name));
    }
    text
}

fn operations(part: &PartChange) -> String {
    if part.operations.is_empty() {
        return String::new();
    }
    let heads = ["method", "GFLOP", "previous GFLOPS", "current GFLOPS", "change %", "status"];
    let rows = part.operations.iter().map(|operation| {
        let rate = |rate: Option<f64>| rate.map_or(NOTHING.to_owned(), short);
        let change = operation.gflops_before.zip(operation.gflops_after);
        vec![
            markdown(&operation.name),
            rate(operation.flops_after.or(operation.flops_before).map(|flops| flops / 1e9)),
            rate(operation.gflops_before),
            rate(operation.gflops_after),
            change.map_or(NOTHING.to_owned(), |(before, after)| {
                format!("{:+.1}", 100.0 * (after / before - 1.0))
            }),
            operation.verdict.name().to_owned(),
        ]
    });
    let mut text = String::from(
        "\n### SIMD Operations\n\nOperations declared over the time of the whole scope. The status is that of the time.\n\n",
    );
    text += &table(&heads, &WORDS, rows);
    text
}
