//! What the page's template sets: cards, sentences, bars and tables of a part, the machine and the models.

use serde::Serialize;

use super::super::actions;
use super::super::family;
use super::super::insights::{self, Piece, Weight};
use super::super::models::{self, ModelRate};
use super::super::ops::{self, Op};
use super::super::text::{NOTHING, duration, mb, ms, percent, ratio, short, shortened, size};
use super::super::view::{MethodView, PartView};
use super::{icicle, place, roofline, threads, timeline, tooltip};
use crate::report::data::{KernelRow, Machine, Method, ModelSpec, Report};
use crate::sort;

/// Rows of the bars, and of the table of ops.
const BARS: usize = 16;
const ALLOCATORS: usize = 8;
const OPS: usize = 60;
/// Rows of the table of all methods: a host may have many.
const METHODS: usize = 1000;

/// A part of the page.
#[derive(Serialize)]
pub(in super::super) struct Section {
    name: String,
    about: String,
    runs: usize,
    number: usize,
    cards: Vec<Card>,
    insights: Vec<Sentence>,
    times: Vec<Bar>,
    more_than_wall: bool,
    memory: Vec<Bar>,
    icicle: icicle::Icicle,
    rooflines: Vec<roofline::Roofline>,
    ops: Vec<OpRow>,
    timeline: Option<timeline::Timeline>,
    threads: Vec<threads::Thread>,
    shared: Vec<threads::Shared>,
    counted: Vec<threads::Counted>,
    scale: [String; 2],
    methods: Vec<Row>,
    hidden: usize,
}

/// One figure to see at a glance.
#[derive(Serialize)]
struct Card {
    what: String,
    value: String,
    unit: String,
    note: String,
    /// A part of something, in percent, drawn as a bar.
    share: Option<String>,
}

#[derive(Serialize)]
struct Sentence {
    class: &'static str,
    kind: &'static str,
    pieces: Vec<Words>,
}

/// Something to act on, and what to do.
#[derive(Serialize)]
pub(super) struct Todo {
    pieces: Vec<Words>,
    advice: &'static str,
}

#[derive(Serialize)]
struct Words {
    text: String,
    is_name: bool,
}

#[derive(Serialize)]
pub(super) struct Bar {
    pub name: String,
    pub class: &'static str,
    pub width: String,
    pub value: String,
    pub percent: String,
    pub title: String,
}

#[derive(Serialize)]
struct OpRow {
    name: String,
    class: &'static str,
    total: String,
    calls: u64,
    gflops: String,
    gbps: String,
    intensity: String,
    limit: String,
    share: String,
    bar: String,
}

#[derive(Serialize)]
struct Row {
    name: String,
    class: &'static str,
    cells: Vec<String>,
    strip: Strip,
}

/// How long calls took, on a logarithmic scale that all methods share.
#[derive(Serialize)]
struct Strip {
    left: String,
    width: String,
    usual_left: String,
    usual_width: String,
    middle: String,
    title: String,
}

pub(super) fn part(report: &Report, part: &PartView<'_>, rates: &[ModelRate<'_>]) -> Section {
    let ops = ops::of(part, &report.machine);
    let limits = report.machine.limits.as_ref();
    let draw = |size| roofline::of(part, &ops, limits, size);
    let range = call_range(part);
    Section {
        name: shortened(&part.part.name),
        about: part.part.about.clone(),
        runs: part.part.runs.len(),
        number: part.number,
        cards: cards(report, part, rates),
        insights: insights::of(report, part, rates)
            .iter()
            .map(|found| sentence(&found.pieces, found.weight))
            .collect(),
        times: times(part),
        more_than_wall: part.self_sum() > part.middle.wall_ns,
        memory: memory(part),
        icicle: icicle::of(part),
        rooflines: roofline::SIZES.iter().filter_map(draw).collect(),
        ops: ops.iter().take(OPS).map(op_row).collect(),
        timeline: timeline::of(part.part),
        threads: threads::of(part),
        shared: threads::shared(part),
        counted: threads::counted(part),
        scale: range.map(|ns| duration(10f64.powf(ns))),
        methods: part.methods.iter().take(METHODS).map(|method| row(part, method, range)).collect(),
        hidden: part.methods.len().saturating_sub(METHODS),
    }
}

fn sentence(pieces: &[Piece], weight: Weight) -> Sentence {
    let (class, kind) = match weight {
        Weight::Doubt => ("doubt", "doubt"),
        Weight::Chance => ("chance", "to win"),
        Weight::Fact => ("fact", "note"),
    };
    Sentence { class, kind, pieces: pieces_of(pieces) }
}

fn pieces_of(pieces: &[Piece]) -> Vec<Words> {
    let piece = |piece: &Piece| match piece {
        Piece::Words(text) => Words { text: text.clone(), is_name: false },
        Piece::Name(text) => Words { text: text.clone(), is_name: true },
    };
    pieces.iter().map(piece).collect()
}

/// What a reader can act on.
pub(super) fn todo(report: &Report, parts: &[PartView<'_>], rates: &[ModelRate<'_>]) -> Vec<Todo> {
    let actions = actions::of(report, parts, rates);
    let todo = |action: &actions::Action| Todo { pieces: pieces_of(&action.found), advice: action.advice };
    actions.iter().map(todo).collect()
}

/// A value and its unit apart: they are set in different sizes.
fn card(what: &str, value: String, note: String) -> Card {
    let (value, unit) = match value.rsplit_once(' ') {
        Some((value, unit)) => (value.to_string(), unit.to_string()),
        None => (value, String::new()),
    };
    Card { what: what.to_string(), value, unit, note, share: None }
}

fn cards(report: &Report, part: &PartView<'_>, rates: &[ModelRate<'_>]) -> Vec<Card> {
    let runs = part.part.runs.len();
    let spread = match runs {
        0 => "no run".to_string(),
        1 => "one run".to_string(),
        _ => format!("{runs} runs, spread {} %", percent(part.wall.width())),
    };
    let mut cards = vec![card("wall time", duration(part.wall.median), spread)];
    for rate in rates.iter().filter(|rate| rate.part == part.index) {
        let each = format!("{} a token", duration(rate.total.median / rate.tokens as f64));
        cards.push(card(
            &shortened(&rate.model.name),
            format!("{} tokens/s", short(rate.speed.median)),
            each,
        ));
    }
    if part.flops() > 0 {
        let peak = report.machine.limits.as_ref().map(|limits| limits.fma_gflops).filter(|&peak| peak > 0.0);
        let share = peak.map(|peak| part.gflops() / peak);
        let note =
            share.map_or("of declared work".into(), |share| format!("{} % of the peak", percent(share)));
        let share = share.map(place);
        cards.push(Card { share, ..card("arithmetic", format!("{} GFLOPS", short(part.gflops())), note) });
    }
    match models::allocated_per_token(rates, part.index) {
        Some((bytes, count)) => {
            let note = format!("{} allocations a token", short(count));
            cards.push(card(
                "allocated",
                format!("{} a token", size(bytes)).replacen(" a token", "/token", 1),
                note,
            ));
        }
        None => {
            let note = format!("{:.0} allocations", part.alloc_count);
            cards.push(card("allocated", size(part.alloc_bytes), note));
        }
    }
    cards.push(card(
        "peak memory",
        size(part.peak_bytes as f64),
        format!("{} allocated in all", size(part.alloc_bytes)),
    ));
    cards
}

/// Self times of the run in the middle, down to what lies outside of every scope.
fn times(part: &PartView<'_>) -> Vec<Bar> {
    let methods = part.by_self_time();
    let longest = methods.first().map_or(0, |method| method.self_ns).max(part.outside_ns()) as f64;
    let wall = part.middle.wall_ns as f64;
    let bar = |name: String, class, ns: f64, title| Bar {
        name,
        class,
        width: place(ratio(ns, longest)),
        value: format!("{} ms", milliseconds(ns)),
        percent: percent(ratio(ns, wall)),
        title,
    };
    let (shown, rest) = methods.split_at(methods.len().min(BARS));
    let mut bars: Vec<Bar> = shown
        .iter()
        .map(|method| {
            let facts = [
                ("by itself", duration(method.self_ns as f64)),
                ("with what it called", duration(method.total_ns as f64)),
                ("calls", method.calls.to_string()),
            ];
            let class = family::of(&method.name).class;
            bar(method.name.clone(), class, method.self_ns as f64, tooltip(&method.name, &facts))
        })
        .collect();
    if !rest.is_empty() {
        let ns = rest.iter().map(|method| method.self_ns as f64).sum();
        bars.push(bar(format!("{} others", rest.len()), "rest", ns, String::new()));
    }
    bars.push(bar("outside of every scope".to_string(), "rest", part.outside_ns() as f64, String::new()));
    bars
}

/// Milliseconds with three digits behind the point, aligned in a column.
pub(super) fn milliseconds(ns: f64) -> String {
    format!("{:.3}", ns / 1e6)
}

/// Who allocated most by itself.
fn memory(part: &PartView<'_>) -> Vec<Bar> {
    let mut methods: Vec<&Method> =
        part.middle.methods.iter().filter(|method| method.self_alloc_bytes > 0).collect();
    sort::by_key(&mut methods, |method| std::cmp::Reverse(method.self_alloc_bytes));
    let largest = methods.first().map_or(0, |method| method.self_alloc_bytes) as f64;
    let bar = |method: &Method| {
        let bytes = method.self_alloc_bytes as f64;
        let facts = [
            ("by itself", size(bytes)),
            ("with what it called", size(method.alloc_bytes as f64)),
            ("allocations", method.alloc_count.to_string()),
            ("at once", size(method.peak_bytes as f64)),
        ];
        Bar {
            name: method.name.clone(),
            class: family::of(&method.name).class,
            width: place(ratio(bytes, largest)),
            value: size(bytes),
            percent: percent(ratio(bytes, part.middle.alloc_bytes as f64)),
            title: tooltip(&method.name, &facts),
        }
    };
    methods.into_iter().take(ALLOCATORS).map(bar).collect()
}

fn rate(value: f64) -> String {
    if value > 0.0 { short(value) } else { NOTHING.to_string() }
}

fn op_row(op: &Op<'_>) -> OpRow {
    let reached = op.roof.as_ref().map(|roof| roof.share);
    OpRow {
        name: op.label.clone(),
        class: family::of(&op.node.name).class,
        total: milliseconds(op.node.total_ns as f64),
        calls: op.node.calls,
        gflops: rate(op.node.gflops()),
        gbps: rate(op.node.gbps()),
        intensity: op.node.intensity().map_or(NOTHING.to_string(), rate),
        limit: op.roof.as_ref().map_or(NOTHING.to_string(), |roof| roof.name.clone()),
        share: reached.map_or(NOTHING.to_string(), percent),
        bar: place(reached.unwrap_or(0.0)),
    }
}

/// Shortest and longest call of all methods, as powers of ten of nanoseconds.
fn call_range(part: &PartView<'_>) -> [f64; 2] {
    let figures = || part.methods.iter().map(|method| &method.figures).filter(|method| method.calls > 0);
    let low = figures().map(|method| method.min_ns).min().unwrap_or(1).max(1);
    let high = figures().map(|method| method.max_ns).max().unwrap_or(1).max(low);
    [low as f64, high as f64].map(f64::log10)
}

fn row(part: &PartView<'_>, method: &MethodView, range: [f64; 2]) -> Row {
    let figures = &method.figures;
    let micro = |ns: u64| format!("{:.2}", ns as f64 / 1e3);
    let mut cells = vec![
        milliseconds(method.total.median),
        percent(part.share(method.total.median)),
        milliseconds(figures.self_ns as f64),
        figures.calls.to_string(),
    ];
    cells.extend([figures.mean_ns, figures.min_ns, figures.p50_ns].map(micro));
    cells.extend([figures.p95_ns, figures.p99_ns, figures.max_ns].map(micro));
    cells.push(if part.part.runs.len() > 1 { percent(method.total.width()) } else { NOTHING.to_string() });
    cells.extend([rate(figures.gflops()), rate(figures.gbps())]);
    cells.push(if figures.alloc_bytes == 0 { NOTHING.to_string() } else { mb(figures.alloc_bytes as f64) });
    Row {
        name: figures.name.clone(),
        class: family::of(&figures.name).class,
        cells,
        strip: strip(figures, range),
    }
}

fn strip(figures: &Method, [low, high]: [f64; 2]) -> Strip {
    let at = |ns: u64| ratio((ns.max(1) as f64).log10() - low, high - low).clamp(0.0, 1.0);
    let [min, p50, p95, max] = [figures.min_ns, figures.p50_ns, figures.p95_ns, figures.max_ns].map(at);
    let facts = [
        ("shortest", duration(figures.min_ns as f64)),
        ("half within", duration(figures.p50_ns as f64)),
        ("95 % within", duration(figures.p95_ns as f64)),
        ("99 % within", duration(figures.p99_ns as f64)),
        ("longest", duration(figures.max_ns as f64)),
        ("standard deviation", duration(figures.std_ns as f64)),
    ];
    Strip {
        left: place(min),
        width: place(max - min),
        usual_left: place(p50),
        usual_width: place((p95 - p50).max(0.0)),
        middle: place(p50),
        title: tooltip(&figures.name, &facts),
    }
}

/// What ran: words and what they say.
#[derive(Serialize)]
pub(super) struct MachineView {
    chips: Vec<String>,
    facts: Vec<[String; 2]>,
    limits: Vec<[String; 3]>,
    kernels: Vec<[String; 2]>,
    others: Vec<[String; 3]>,
}

pub(super) fn machine(machine: &Machine) -> MachineView {
    let threads = format!("{} of {} threads", machine.threads, machine.cores);
    let build = format!("smallmind {} {}", machine.version, machine.commit);
    let chips = [machine.cpu.trim(), machine.isa.trim(), threads.trim(), build.trim()];
    let known = |text: &str| if text.is_empty() { NOTHING.to_string() } else { text.to_string() };
    let memory = if machine.memory_bytes == 0 { NOTHING.into() } else { size(machine.memory_bytes as f64) };
    let fact = |what: &str, value: String| [what.to_string(), value];
    let facts = vec![
        fact("CPU", known(&machine.cpu)),
        fact("instruction set", known(&machine.isa)),
        fact("hardware threads", machine.cores.to_string()),
        fact("threads", machine.threads.to_string()),
        fact("memory", memory),
        fact("system", known(&machine.os)),
        fact("version", known(&machine.version)),
        fact("commit", known(&machine.commit)),
    ];
    let mut limits = Vec::new();
    if let Some(measured) = &machine.limits {
        let peak = format!("{} GFLOPS", short(measured.fma_gflops));
        limits.push(["arithmetic".to_string(), "registers".to_string(), peak]);
        limits.extend(measured.levels.iter().map(|level| {
            let holds = if level.bytes == 0 { NOTHING.to_string() } else { size(level.bytes as f64) };
            [level.name.clone(), holds, format!("{} GB/s", short(level.gbps))]
        }));
    }
    MachineView {
        chips: chips.iter().filter(|chip| !chip.is_empty()).map(|chip| shortened(chip)).collect(),
        facts,
        limits,
        kernels: machine.kernels.chunk_by(|a, b| a.family == b.family).map(family_row).collect(),
        others: machine
            .other_kernels
            .iter()
            .map(|kernel| [&kernel.family, &kernel.name, &kernel.reason].map(String::clone))
            .collect(),
    }
}

/// An operation and the kernels chosen for it.
fn family_row(rows: &[KernelRow]) -> [String; 2] {
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    [rows[0].family.clone(), names.join(", ")]
}

/// Name and sizes of each model.
pub(super) fn specs(report: &Report) -> Vec<Vec<String>> {
    let spec = |model: &ModelSpec| {
        let sizes = [
            model.parameters,
            model.tensors,
            model.vocab,
            model.context,
            model.dim,
            model.layers,
            model.heads,
        ];
        let mut cells = vec![model.name.clone()];
        cells.extend(sizes.map(|figure| figure.to_string()));
        cells.push(size(model.weight_bytes as f64));
        cells
    };
    report.models.iter().map(spec).collect()
}

/// A model in a part.
#[derive(Serialize)]
pub(super) struct RateRow {
    name: String,
    part: String,
    cells: Vec<String>,
    bar: String,
}

pub(super) fn rates(report: &Report, parts: &[PartView<'_>], rates: &[ModelRate<'_>]) -> Vec<RateRow> {
    let fastest = rates.iter().map(|rate| rate.speed.median).fold(0.0, f64::max);
    let peak = report.machine.limits.as_ref().map_or(0.0, |limits| limits.fma_gflops);
    let show = |rate: &ModelRate<'_>| {
        let share = ratio(rate.gflops, peak);
        RateRow {
            name: rate.model.name.clone(),
            part: parts[rate.part].part.name.clone(),
            bar: place(ratio(rate.speed.median, fastest)),
            cells: vec![
                format!("{:.1}", rate.speed.median),
                ms(rate.total.median / rate.tokens as f64),
                rate.tokens.to_string(),
                size(rate.alloc_bytes),
                short(rate.alloc_count),
                short(rate.flops / 1e6),
                self::rate(rate.gflops),
                if share > 0.0 { percent(share) } else { NOTHING.to_string() },
            ],
        }
    };
    rates.iter().map(show).collect()
}
