//! Two profiles compared, part by part and method by method; each verdict says whether the runs prove it.
//!
//! Times are compared by Welch's t test on the logarithms of the runs: the ratio is that of geometric means, and its
//! interval holds the true one with 95 %. Words are given by Holm's correction over all methods (and over all figures
//! of the summaries), so that a comparison of two alike programs says "improved" or "regressed" anywhere in at most
//! one case of twenty.

mod change;
mod markdown;
mod operations;
mod series;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::data::{Part, Run};
use super::models::{self, ModelFigures};
use super::read::{Layout, Read};
use crate::error::{Error, Result, quoted};
use series::Series;

pub use change::{Change, Verdict};
pub use markdown::render_comparison;
pub use operations::OperationChange;

/// A mean call below this many nanoseconds is as long as the scope that measures it, and gets no verdict.
pub const SHORTEST_CALL_NS: f64 = 100.0;
/// A total that a page has rounded by more than this share gets no verdict.
const ROUNDED: f64 = 0.02;

/// Two profiles compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The earlier profile.
    pub before: Side,
    /// The later profile.
    pub after: Side,
    /// Notes for the reader.
    pub notes: Vec<String>,
    /// The parts that both have.
    pub parts: Vec<PartChange>,
    /// Parts that only the later profile has.
    pub added_parts: Vec<String>,
    /// Parts that only the earlier profile has.
    pub removed_parts: Vec<String>,
}

/// Where one side comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// The file.
    pub source: String,
    /// How it is written.
    pub layout: Layout,
    /// When it was made.
    pub created: String,
    /// The mode that was profiled.
    pub mode: String,
    /// The processor, empty where unknown.
    pub cpu: String,
    /// Worker threads, 0 where unknown.
    pub threads: usize,
    /// The instruction set, empty where unknown.
    pub isa: String,
    /// The version of the library, empty where unknown.
    pub version: String,
    /// The commit, empty where unknown.
    pub commit: String,
}

/// A part that both sides have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartChange {
    /// Its name.
    pub name: String,
    /// Runs before and after.
    pub runs: [usize; 2],
    /// The verdict on its time.
    pub verdict: Verdict,
    /// Figures of the whole part.
    pub summary: Vec<Metric>,
    /// Methods before and after.
    pub methods_counted: [usize; 2],
    /// The methods that both have, by how much their time changed.
    pub methods: Vec<MethodChange>,
    /// Methods that only the later profile has.
    pub added: Vec<Lone>,
    /// Methods that only the earlier profile has.
    pub removed: Vec<Lone>,
    /// The models that both ran.
    pub models: Vec<ModelChange>,
    /// The operations whose arithmetic is known.
    pub operations: Vec<OperationChange>,
}

/// A figure of a whole part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: MetricUnit,
    /// How it changed.
    #[serde(flatten)]
    pub change: Change,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricUnit {
    /// Nanoseconds.
    Ns,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

/// A method that both sides have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MethodChange {
    /// Its name.
    pub name: String,
    /// Mean calls of a run before and after.
    pub calls: [f64; 2],
    /// Its time in nanoseconds.
    pub time_ns: Change,
    /// Bytes allocated in a run before and after.
    pub alloc_bytes: [f64; 2],
}

/// A method that one side has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lone {
    /// Its name.
    pub name: String,
    /// Mean calls of a run.
    pub calls: f64,
    /// Mean nanoseconds of a run.
    pub time_ns: f64,
}

/// A model on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelChange {
    /// Before.
    pub before: ModelFigures,
    /// After.
    pub after: ModelFigures,
    /// The verdict on the time of generating.
    pub verdict: Verdict,
}

/// Something that is slower by more than was allowed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Regression {
    /// The part.
    pub part: String,
    /// The method, or the figure of the whole part.
    pub what: String,
    /// After over before.
    pub ratio: f64,
    /// The 95 % interval of it.
    pub interval: [f64; 2],
}

/// Compares two profiles.
///
/// # Errors
/// [`Error::InvalidArgument`] where they have no part in common.
pub fn compare(before: &Read, after: &Read) -> Result<Comparison> {
    let mut notes = Vec::new();
    notes_on_sides(before, after, &mut notes);
    let mut parts = Vec::new();
    for (index, part) in before.report.parts.iter().enumerate() {
        let same = |other: &&(usize, &Part)| other.1.name == part.name;
        if let Some(&other) = after.report.parts.iter().enumerate().collect::<Vec<_>>().iter().find(same) {
            parts.push(part_change([(before, index, part), (after, other.0, other.1)], &mut notes));
        }
    }
    let lone = |here: &Read, there: &Read| -> Vec<String> {
        let names = here.report.parts.iter().map(|part| part.name.clone());
        names.filter(|name| !there.report.parts.iter().any(|part| part.name == *name)).collect()
    };
    let (added_parts, removed_parts) = (lone(after, before), lone(before, after));
    if parts.is_empty() {
        let [removed, added] = [&removed_parts, &added_parts].map(|names| names.join(", "));
        return Err(Error::invalid(format!(
            "{} and {} have no part in common: {} against {}",
            before.source,
            after.source,
            quoted(&removed),
            quoted(&added)
        )));
    }
    let mut comparison =
        Comparison { before: side(before), after: side(after), notes, parts, added_parts, removed_parts };
    comparison.judge();
    Ok(comparison)
}

impl Comparison {
    /// Gives all verdicts: two sets of figures are each corrected for how many they are.
    fn judge(&mut self) {
        let metrics = self.parts.iter_mut().flat_map(|part| &mut part.summary);
        change::judge(&mut metrics.map(|metric| &mut metric.change).collect::<Vec<_>>());
        let methods = self.parts.iter_mut().flat_map(|part| &mut part.methods);
        change::judge(&mut methods.map(|method| &mut method.time_ns).collect::<Vec<_>>());
        for part in &mut self.parts {
            part.verdict = part.summary[0].change.verdict;
            let verdict = |name: &str| {
                let own = part.methods.iter().find(|method| method.name == name);
                own.map_or(Verdict::Unknown, |method| method.time_ns.verdict)
            };
            for model in &mut part.models {
                model.verdict = verdict(&model.after.method);
            }
            for operation in &mut part.operations {
                operation.verdict = verdict(&operation.name);
            }
        }
    }

    /// The methods and totals of parts that are slower by more than `percent`, with the whole interval above it even
    /// after correcting for how many were looked at.
    pub fn regressions(&self, percent: f64) -> Vec<Regression> {
        let limit = 1.0 + percent / 100.0;
        let totals = |part: &PartChange| vec![(part.summary[0].name.clone(), part.summary[0].change.clone())];
        let methods = |part: &PartChange| {
            part.methods
                .iter()
                .map(|method| (method.name.clone(), method.time_ns.clone()))
                .collect::<Vec<_>>()
        };
        let mut out = Vec::new();
        for family in [&totals as &dyn Fn(&PartChange) -> Vec<(String, Change)>, &methods] {
            let all: Vec<(&str, String, Change)> = self
                .parts
                .iter()
                .flat_map(|part| {
                    family(part).into_iter().map(|(what, change)| (part.name.as_str(), what, change))
                })
                .collect();
            let above = change::above(&all.iter().map(|(_, _, change)| change).collect::<Vec<_>>(), limit);
            for ((part, what, change), _) in all.into_iter().zip(above).filter(|(_, above)| *above) {
                if let (Some(ratio), Some(interval)) = (change.ratio, change.interval) {
                    out.push(Regression { part: part.to_owned(), what, ratio, interval });
                }
            }
        }
        out
    }

    /// Whether any figure had several runs on both sides, without which no regression can be shown.
    pub fn can_tell(&self) -> bool {
        self.parts.iter().any(|part| part.runs.iter().all(|&runs| runs > 1))
    }
}

fn side(read: &Read) -> Side {
    let machine = &read.report.machine;
    Side {
        source: read.source.clone(),
        layout: read.layout,
        created: read.report.created.clone(),
        mode: read.report.mode.clone(),
        cpu: machine.cpu.clone(),
        threads: machine.threads,
        isa: machine.isa.clone(),
        version: machine.version.clone(),
        commit: machine.commit.clone(),
    }
}

/// The notes of the files themselves, and conditions in which the sides differ.
fn notes_on_sides(before: &Read, after: &Read, notes: &mut Vec<String>) {
    for read in [before, after] {
        notes.extend(read.notes.iter().map(|note| format!("{}: {note}.", read.source)));
        for (part, run) in
            read.report.parts.iter().flat_map(|part| part.runs.iter().map(move |run| (part, run)))
        {
            if run.dropped > 0 || run.unbalanced > 0 {
                notes.push(format!(
                    "{}: in {}, {} scopes were not recorded and {} not closed: figures may be too low.",
                    read.source,
                    quoted(&part.name),
                    run.dropped,
                    run.unbalanced
                ));
            }
        }
    }
    let [a, b] = [before, after].map(side);
    for (what, a, b) in [
        ("mode", a.mode, b.mode),
        ("processor", a.cpu, b.cpu),
        ("instruction set", a.isa, b.isa),
        ("number of threads", shown(a.threads), shown(b.threads)),
    ] {
        if a != b && !a.is_empty() && !b.is_empty() {
            notes.push(format!("The {what} is not the same: {} against {}.", quoted(&a), quoted(&b)));
        }
    }
}

fn shown(threads: usize) -> String {
    if threads == 0 { String::new() } else { threads.to_string() }
}

/// The runs of a part without copies, which would count one measurement several times.
fn distinct<'a>(read: &Read, part: &'a Part, notes: &mut Vec<String>) -> Vec<&'a Run> {
    let mut runs: Vec<&Run> = Vec::with_capacity(part.runs.len());
    for (index, run) in part.runs.iter().enumerate() {
        match runs.iter().position(|other| *other == run) {
            Some(_) => notes.push(format!(
                "{}: run {} of {} is a copy of an earlier one, to the nanosecond: it was left out.",
                read.source,
                index + 1,
                quoted(&part.name)
            )),
            None => runs.push(run),
        }
    }
    runs
}

fn part_change(sides: [(&Read, usize, &Part); 2], notes: &mut Vec<String>) -> PartChange {
    let name = sides[0].2.name.clone();
    let runs = sides.map(|(read, _, part)| distinct(read, part, notes));
    let series = [&runs[0], &runs[1]].map(|runs| Series::of(runs.iter().copied()));
    let common: Vec<&str> =
        series[0].iter().map(|(name, _)| name).filter(|name| series[1].get(name).is_some()).collect();
    let lone = |here: &Series, there: &Series| -> Vec<Lone> {
        let alone = here.iter().filter(|(name, _)| there.get(name).is_none());
        let one = |(name, method): (&str, &series::MethodSeries)| Lone {
            name: name.to_owned(),
            calls: method.calls,
            time_ns: method.times_ns.iter().sum::<f64>() / method.times_ns.len().max(1) as f64,
        };
        alone.map(one).collect()
    };
    let mut methods: Vec<MethodChange> =
        common.iter().map(|name| method_change(name, sides, &series)).collect();
    let weight = |method: &MethodChange| method.time_ns.delta().map_or(0.0, f64::abs);
    methods.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    let operations = methods
        .iter()
        .filter_map(|method| operations::of(&method.name, &series[0], &series[1], &method.time_ns));
    PartChange {
        runs: [runs[0].len(), runs[1].len()],
        verdict: Verdict::Unknown,
        summary: summary(sides, &runs, &series, &common),
        methods_counted: [series[0].len(), series[1].len()],
        added: lone(&series[1], &series[0]),
        removed: lone(&series[0], &series[1]),
        models: models(sides),
        operations: operations.collect(),
        methods,
        name,
    }
}

fn method_change(name: &str, sides: [(&Read, usize, &Part); 2], series: &[Series; 2]) -> MethodChange {
    let empty = series::MethodSeries::default();
    let [before, after] = [&series[0], &series[1]].map(|series| series.get(name).unwrap_or(&empty));
    let rounding =
        sides.map(|(read, part, _)| read.rounding_ns.get(&(part, name.to_owned())).copied().unwrap_or(0.0));
    let step = (2.0 * rounding[0].max(rounding[1])).max(1.0);
    let mut time_ns = Change::of(Some(&before.times_ns), Some(&after.times_ns), step);
    let short = |method: &series::MethodSeries, rounding: f64| {
        let total = method.times_ns.iter().sum::<f64>() / method.times_ns.len() as f64;
        method.call_ns() < SHORTEST_CALL_NS || rounding > ROUNDED * total
    };
    if short(before, rounding[0]) || short(after, rounding[1]) {
        time_ns.too_short();
    }
    let mean = |figures: &[f64]| figures.iter().sum::<f64>() / figures.len().max(1) as f64;
    MethodChange {
        name: name.to_owned(),
        calls: [before.calls, after.calls],
        time_ns,
        alloc_bytes: [mean(&before.alloc_bytes), mean(&after.alloc_bytes)],
    }
}

/// The figures of the whole part; the first is its time.
fn summary(
    sides: [(&Read, usize, &Part); 2],
    runs: &[Vec<&Run>; 2],
    series: &[Series; 2],
    common: &[&str],
) -> Vec<Metric> {
    let mut metrics = Vec::new();
    let mut add = |name: &str, unit, figures: [Option<Vec<f64>>; 2]| {
        let change = Change::of(figures[0].as_deref(), figures[1].as_deref(), 1.0);
        metrics.push(Metric { name: name.to_owned(), unit, change });
    };
    let figures = |figure: fn(&Run) -> u64, known: fn(&Read, &[f64]) -> bool| {
        [0, 1].map(|side| {
            let figures: Vec<f64> = runs[side].iter().map(|run| figure(run) as f64).collect();
            known(sides[side].0, &figures).then_some(figures)
        })
    };
    let any: fn(&Read, &[f64]) -> bool = |_, figures| figures.iter().any(|figure| *figure > 0.0);
    let walls = figures(|run| run.wall_ns, any);
    // A total that isn't wall time is like no other total: the methods that both have are compared instead.
    if walls.iter().any(Option::is_none) {
        let sums = [0, 1].map(|side| Some(series[side].sums(common)).filter(|sums| !sums.is_empty()));
        add("same methods, nested ones counted again", MetricUnit::Ns, sums);
        let outer: Vec<&str> =
            common.iter().copied().filter(|name| !is_nested(sides, name, common)).collect();
        if outer.len() < common.len() {
            let sums = [0, 1].map(|side| Some(series[side].sums(&outer)).filter(|sums| !sums.is_empty()));
            add("same methods, nested ones left out", MetricUnit::Ns, sums);
        }
    }
    add("wall time", MetricUnit::Ns, walls);
    let whole: fn(&Read, &[f64]) -> bool = |read, _| read.nested_total_ns.is_none();
    add("allocated", MetricUnit::Bytes, figures(|run| run.alloc_bytes, whole));
    let counted: fn(&Read, &[f64]) -> bool = |read, _| read.allocations_counted;
    add("allocations", MetricUnit::Count, figures(|run| run.alloc_count, counted));
    add("peak memory", MetricUnit::Bytes, figures(|run| run.peak_bytes, any));
    metrics
}

/// Whether a method runs inside another of `names`, as far as a side without a call tree says so.
fn is_nested(sides: [(&Read, usize, &Part); 2], name: &str, names: &[&str]) -> bool {
    let outer = sides.iter().filter_map(|(read, ..)| read.inside.get(name)).flatten();
    outer.into_iter().any(|outer| names.contains(&outer.as_str()))
}

fn models(sides: [(&Read, usize, &Part); 2]) -> Vec<ModelChange> {
    let [before, after] = sides.map(|(read, part, _)| models::figures(&read.report, part));
    let pair = |before: ModelFigures| {
        let after = after.iter().find(|after| after.name == before.name)?.clone();
        Some(ModelChange { before, after, verdict: Verdict::Unknown })
    };
    before.into_iter().filter_map(pair).collect()
}
