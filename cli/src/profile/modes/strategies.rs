//! What `profile embed` says below its report: the strategies side by side, and, of two, the comparison that
//! `profile compare` would make of them.

use smallmind::Result;
use smallmind::report::compare::{MetricUnit, PartChange};
use smallmind::report::data::{Method, Run};
use smallmind::report::{self, Comparison, Read, Report};

use super::super::args::Embed;
use super::Addition;
use super::embed::{Facts, Noted};
use crate::failure;

/// The name of a part, and of a batch, where two strategies are compared: methods are matched by their names.
const PART: &str = "embed";
const METHOD: &str = "Embed";

/// How to read the comparison's figures of passes.
const SUMS: &str = "In passes that run one on each thread, the times of passes and of what they call are those of all \
                    threads together: of these strategies, compare the wall time and batches.";

/// Shown for a figure that isn't known.
const NOTHING: &str = "–";

pub fn addition(report: &Report, args: &Embed, noted: &Noted) -> failure::Result<Addition> {
    let facts = noted.borrow();
    let mut text = String::from("\n## Strategies\n\n");
    text.push_str(&table(report, args, &facts));
    let [before, after] = &facts[..] else { return Ok(Addition { text, files: Vec::new() }) };
    let sides = [side(report, 0, before)?, side(report, 1, after)?];
    let mut comparison = report::compare(&sides[0], &sides[1])?;
    comparison.notes.push(SUMS.into());
    text.push_str(&format!("\n{}\n", verdict(&comparison, [before.way.name, after.way.name])));
    let page = report::comparison_page(&comparison, [&sides[0].report, &sides[1].report], &[])?;
    let files = vec![("strategies.md", report::render_comparison(&comparison)), ("strategies.html", page)];
    Ok(Addition { text, files })
}

/// A strategy's part as a report of its own, in which batches have the name that those of the other one have.
fn side(report: &Report, part: usize, facts: &Facts) -> Result<Read> {
    let mut report = report.clone();
    report.parts = vec![report.parts.swap_remove(part)];
    report.parts[0].name = PART.into();
    for model in &mut report.models {
        model.tokens = vec![model.tokens[part]];
    }
    for run in &mut report.parts[0].runs {
        let methods = run.methods.iter_mut().chain(&mut run.tree).map(|method| &mut method.name);
        for name in methods.chain(run.timeline.iter_mut().map(|event| &mut event.name)) {
            if *name == facts.way.method {
                *name = METHOD.into();
            }
        }
    }
    Read::of(facts.way.name, report)
}

/// How the second strategy's time differs, and whether the runs show it.
fn verdict(comparison: &Comparison, [before, after]: [&str; 2]) -> String {
    let time = comparison.parts.iter().flat_map(|part: &PartChange| &part.summary);
    let Some(time) = time.into_iter().find(|metric| metric.unit == MetricUnit::Ns) else {
        return String::new();
    };
    let Some(percent) = time.change.percent() else { return String::new() };
    let difference = format!("The time of {after} differs from that of {before} by {percent:+.1} %");
    match time.change.interval {
        Some([low, high]) => {
            let [low, high] = [low, high].map(|ratio| 100.0 * (ratio - 1.0));
            format!("{difference} (95 % interval {low:+.1} to {high:+.1} %): {}.", time.change.verdict.name())
        }
        None => format!("{difference}; --runs 5 or more would show whether that is beyond noise."),
    }
}

/// A figure of a strategy, as it is shown.
type Figure<'a> = &'a dyn Fn(&Column<'_>) -> String;

/// A column of figures for each strategy.
fn table(report: &Report, args: &Embed, facts: &[Facts]) -> String {
    let texts = (args.iterations * args.batch) as f64;
    let columns: Vec<Column<'_>> = facts
        .iter()
        .zip(&report.parts)
        .map(|(facts, part)| {
            let batches = part.runs.iter().filter_map(|run| method(run, facts.way.method)).collect();
            Column { facts, batches, iterations: args.iterations as f64, texts }
        })
        .collect();
    let count = |count: Option<usize>| count.map_or(NOTHING.to_owned(), |count| count.to_string());
    let rows: [(&str, Figure<'_>); 14] = [
        ("total ms", &|c| format!("{:.3}", c.total_ns() / 1e6)),
        ("ms per iteration", &|c| format!("{:.3}", c.total_ns() / 1e6 / c.iterations)),
        ("shortest ms", &|c| format!("{:.3}", c.of_all(|method| method.min_ns, u64::min) as f64 / 1e6)),
        ("longest ms", &|c| format!("{:.3}", c.of_all(|method| method.max_ns, u64::max) as f64 / 1e6)),
        ("ms per text", &|c| format!("{:.4}", c.total_ns() / 1e6 / c.texts)),
        ("texts/s", &|c| format!("{:.1}", c.texts * 1e9 / c.total_ns())),
        ("tokens/s", &|c| format!("{:.0}", c.facts.tokens as f64 * 1e9 / c.total_ns())),
        ("tokens per text", &|c| format!("{:.1}", c.facts.tokens as f64 / c.texts)),
        ("allocations per text", &|c| format!("{:.3}", c.median(|method| method.alloc_count) / c.texts)),
        ("bytes allocated per text", &|c| format!("{:.1}", c.median(|method| method.alloc_bytes) / c.texts)),
        ("MB of engines", &|c| format!("{:.1}", c.facts.engine_bytes as f64 / (1 << 20) as f64)),
        ("threads started with the embedder", &|c| count(c.facts.started)),
        ("threads started by batches", &|c| count(c.facts.started_later)),
        ("coarse and fine windows", &|c| format!("{} + {}", c.facts.coarse_windows, c.facts.fine_windows)),
    ];
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let names = columns.iter().map(|column| column.facts.way.name.to_owned());
    let mut text = line(std::iter::once("figure".to_owned()).chain(names).collect());
    text.push_str(&format!("|---|{}\n", "---:|".repeat(columns.len())));
    for (name, figure) in rows {
        text.push_str(&line(std::iter::once(name.to_owned()).chain(columns.iter().map(figure)).collect()));
    }
    text
}

fn method<'a>(run: &'a Run, name: &str) -> Option<&'a Method> {
    run.methods.iter().find(|method| method.name == name)
}

/// A strategy's batches in each run.
struct Column<'a> {
    facts: &'a Facts,
    batches: Vec<&'a Method>,
    /// Of a run.
    iterations: f64,
    texts: f64,
}

impl Column<'_> {
    /// The median of the runs.
    fn median(&self, figure: impl Fn(&Method) -> u64) -> f64 {
        let mut figures: Vec<u64> = self.batches.iter().map(|method| figure(method)).collect();
        figures.sort_unstable();
        let middle = |i: usize| figures.get(i).map_or(f64::NAN, |&figure| figure as f64);
        (middle(figures.len().saturating_sub(1) / 2) + middle(figures.len() / 2)) / 2.0
    }

    fn total_ns(&self) -> f64 {
        self.median(|method| method.total_ns)
    }

    fn of_all(&self, figure: impl Fn(&Method) -> u64, choose: fn(u64, u64) -> u64) -> u64 {
        self.batches.iter().map(|method| figure(method)).reduce(choose).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::embed::Facts;
    use super::*;

    #[test]
    fn figures_of_several_runs_are_medians_and_extremes() {
        let method = |total_ns, min_ns, max_ns| Method { total_ns, min_ns, max_ns, ..Method::default() };
        let methods = [method(50, 3, 9), method(10, 4, 5), method(30, 2, 6), method(20, 5, 8)];
        let facts = Facts::of_test();
        let column = |count: usize| Column {
            facts: &facts,
            batches: methods.iter().take(count).collect(),
            iterations: 1.0,
            texts: 1.0,
        };
        assert_eq!((column(3).total_ns(), column(4).total_ns()), (30.0, 25.0));
        let extremes = |column: Column<'_>| {
            (column.of_all(|method| method.min_ns, u64::min), column.of_all(|method| method.max_ns, u64::max))
        };
        assert_eq!(extremes(column(4)), (2, 9));
        assert_eq!(extremes(column(1)), (3, 9));
        assert!(column(0).total_ns().is_nan());
    }
}
