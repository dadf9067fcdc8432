//! A report as Markdown: every section of it, in tables that can be read back. Columns are told by their headings,
//! times are milliseconds, "MB" is 1,048,576 bytes, and numbers are plain.

use super::insights::{self, Piece};
use super::models::{self, ModelRate};
use super::text::{self, NOTHING, markdown, mb, ms, percent, ratio, short};
use super::view::{self, MethodView, PartView};
use super::{actions, counts, ops, view::Spread};
use crate::report::data::{Machine, Report};
use crate::sort;

/// Rows of the tables of the largest figures.
const HOT: usize = 30;
const ALLOCATORS: usize = 15;
const CALLED: usize = 15;
const OPS: usize = 30;
/// Lines of the call tree.
const TREE_LINES: usize = 400;

/// The whole report.
pub(super) fn render(report: &Report) -> String {
    let parts = view::parts(report);
    let rates = models::rates(report, &parts);
    let mut page = Page::default();
    page.line(&format!("# Profile: {}", markdown(&report.mode)));
    page.line("");
    page.line("Times are milliseconds of wall time, and 1 MB is 1048576 bytes. Of several runs, tables hold the median of each figure, and the shortest and longest call of all.\n");
    first(&mut page, report, &parts, &rates);
    summary(&mut page, report, &parts, &rates);
    system(&mut page, report);
    model_tables(&mut page, report, &parts, &rates);
    for part in &parts {
        page.section(&format!("Part: {}", markdown(&part.part.name)));
        if !part.part.about.is_empty() {
            page.line(&markdown(&part.part.about));
            page.line("");
        }
        hot_paths(&mut page, part);
        self_times(&mut page, part);
        allocators(&mut page, part);
        most_called(&mut page, part);
        rated_ops(&mut page, part, &report.machine);
        threads(&mut page, part);
        counted(&mut page, report, part);
        hierarchy(&mut page, part);
        all_methods(&mut page, part);
    }
    page.section("Performance Insights");
    for part in &parts {
        page.line(&format!("### {}", markdown(&part.part.name)));
        page.line("");
        for insight in insights::of(report, part, &rates) {
            page.line(&format!("- {}", sentence(&insight.pieces)));
        }
        page.line("");
    }
    kernels(&mut page, &report.machine);
    page.text
}

/// Text that grows by lines and tables.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.line(&format!("## {title}\n"));
    }

    fn subsection(&mut self, title: &str) {
        self.line(&format!("### {title}\n"));
    }

    /// A table; columns whose heads aren't among `words` are numbers.
    fn table(&mut self, heads: &[&str], words: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        self.text.push_str(&text::table(heads, words, rows));
        self.line("");
    }
}

/// A figure of a part, as it is shown.
type Figure<'a> = &'a dyn Fn(&PartView<'_>) -> String;

/// The findings that a reader can act on, with advice.
fn first(page: &mut Page, report: &Report, parts: &[PartView<'_>], rates: &[ModelRate<'_>]) {
    let actions = actions::of(report, parts, rates);
    if actions.is_empty() {
        return;
    }
    page.section("What to Do First");
    for action in actions {
        page.line(&format!("- {} {}", sentence(&action.found), action.advice));
    }
    page.line("");
}

fn summary(page: &mut Page, report: &Report, parts: &[PartView<'_>], rates: &[ModelRate<'_>]) {
    page.section("Summary");
    page.line(&format!("- generated: {}", markdown(&report.created)));
    page.line(&format!("- mode: {}", markdown(&report.mode)));
    page.line("");
    let names: Vec<String> = parts.iter().map(|part| markdown(&part.part.name)).collect();
    let heads: Vec<&str> = std::iter::once("metric").chain(names.iter().map(String::as_str)).collect();
    let tokens = |part: &PartView<'_>| -> u64 {
        let here = rates.iter().filter(|rate| rate.part == part.index);
        here.fold(0, |sum: u64, rate| sum.saturating_add(rate.tokens))
    };
    let per_token = |part: &PartView<'_>, show: fn((f64, f64)) -> String| {
        models::allocated_per_token(rates, part.index).map_or(NOTHING.to_string(), show)
    };
    let rows: [(&str, Figure<'_>); 14] = [
        ("wall ms", &|part| ms(part.wall.median)),
        ("lowest wall ms", &|part| ms(part.wall.low)),
        ("highest wall ms", &|part| ms(part.wall.high)),
        ("runs", &|part| part.part.runs.len().to_string()),
        ("methods", &|part| part.methods.len().to_string()),
        ("GFLOP", &|part| short(part.flops() as f64 / 1e9)),
        ("GFLOPS", &|part| rate(part.gflops())),
        ("allocated MB", &|part| mb(part.alloc_bytes)),
        ("allocations", &|part| format!("{:.0}", part.alloc_count)),
        ("peak MB", &|part| mb(part.peak_bytes as f64)),
        ("tokens", &|part| tokens(part).to_string()),
        ("allocations per token", &|part| per_token(part, |(_, count)| short(count))),
        ("MB per token", &|part| per_token(part, |(bytes, _)| mb(bytes))),
        ("scopes dropped or unbalanced", &|part| part.amiss().0.saturating_add(part.amiss().1).to_string()),
    ];
    let rows = rows.into_iter().map(|(metric, figure)| {
        std::iter::once(metric.to_string()).chain(parts.iter().map(figure)).collect()
    });
    page.table(&heads, &["metric"], rows);
}

/// A rate that is nothing where no work was declared.
fn rate(value: f64) -> String {
    if value > 0.0 { short(value) } else { NOTHING.to_string() }
}

fn system(page: &mut Page, report: &Report) {
    let machine = &report.machine;
    page.section("System Information");
    let known = |text: &str| if text.is_empty() { NOTHING.to_string() } else { markdown(text) };
    let memory = match machine.memory_bytes {
        0 => NOTHING.to_string(),
        bytes => mb(bytes as f64),
    };
    let rows = [
        ("CPU", known(&machine.cpu)),
        ("hardware threads", machine.cores.to_string()),
        ("threads", machine.threads.to_string()),
        ("system", known(&machine.os)),
        ("memory MB", memory),
        ("instruction set", known(&machine.isa)),
        ("version", known(&machine.version)),
        ("commit", known(&machine.commit)),
    ];
    let rows = rows.into_iter().map(|(what, value)| vec![what.to_string(), value]);
    page.table(&["machine", "value"], &["machine", "value"], rows);
    if let Some(limits) = &machine.limits {
        let peak =
            ["arithmetic".to_string(), NOTHING.to_string(), NOTHING.to_string(), short(limits.fma_gflops)];
        let levels = limits.levels.iter().map(|level| {
            let size = if level.bytes == 0 { NOTHING.to_string() } else { mb(level.bytes as f64) };
            vec![markdown(&level.name), size, short(level.gbps), NOTHING.to_string()]
        });
        page.table(
            &["limit", "MB", "GB/s", "GFLOPS"],
            &["limit"],
            std::iter::once(peak.to_vec()).chain(levels),
        );
    }
}

/// The rows of each family, in a line each.
fn kernels(page: &mut Page, machine: &Machine) {
    if machine.kernels.is_empty() {
        return;
    }
    page.section("Kernels");
    let families = machine.kernels.chunk_by(|a, b| a.family == b.family).map(|rows| {
        let names: Vec<String> = rows.iter().map(|row| markdown(&row.name)).collect();
        vec![markdown(&rows[0].family), names.join(", ")]
    });
    page.table(&["family", "kernels"], &["family", "kernels"], families);
    if !machine.other_kernels.is_empty() {
        page.subsection("Kernels Not Chosen");
        let others = machine
            .other_kernels
            .iter()
            .map(|kernel| [&kernel.family, &kernel.name, &kernel.reason].map(|text| markdown(text)).to_vec());
        let heads = ["family", "kernel", "reason"];
        page.table(&heads, &heads, others);
    }
}

fn model_tables(page: &mut Page, report: &Report, parts: &[PartView<'_>], rates: &[ModelRate<'_>]) {
    if report.models.is_empty() {
        return;
    }
    page.section("Models");
    let heads =
        ["model", "parameters", "tensors", "vocab", "context", "dim", "layers", "heads", "weights MB"];
    let rows = report.models.iter().map(|model| {
        let sizes = [
            model.parameters,
            model.tensors,
            model.vocab,
            model.context,
            model.dim,
            model.layers,
            model.heads,
        ];
        let mut row = vec![markdown(&model.name)];
        row.extend(sizes.map(|size| size.to_string()));
        row.push(mb(model.weight_bytes as f64));
        row
    });
    page.table(&heads, &["model"], rows);
    if rates.is_empty() {
        return;
    }
    let heads = [
        "model",
        "part",
        "tokens",
        "total ms",
        "tokens/s",
        "spread %",
        "ms per token",
        "MB per token",
        "allocations per token",
        "MFLOP per token",
        "GFLOPS",
        "% of peak",
    ];
    let rows = rates.iter().map(|rate| {
        vec![
            markdown(&rate.model.name),
            markdown(&parts[rate.part].part.name),
            rate.tokens.to_string(),
            ms(rate.total.median),
            format!("{:.1}", rate.speed.median),
            spread(&rate.total, parts[rate.part].part.runs.len()),
            ms(rate.total.median / rate.tokens as f64),
            mb(rate.alloc_bytes),
            short(rate.alloc_count),
            short(rate.flops / 1e6),
            self::rate(rate.gflops),
            of_peak(rate.gflops, &report.machine),
        ]
    });
    page.table(&heads, &["model", "part"], rows);
}

fn of_peak(gflops: f64, machine: &Machine) -> String {
    match &machine.limits {
        Some(limits) if gflops > 0.0 && limits.fma_gflops > 0.0 => percent(gflops / limits.fma_gflops),
        _ => NOTHING.to_string(),
    }
}

/// From the lowest to the highest of several runs, in percent of the median.
fn spread(over: &Spread, runs: usize) -> String {
    if runs > 1 { percent(over.width()) } else { NOTHING.to_string() }
}

fn rank(index: usize) -> String {
    (index + 1).to_string()
}

/// The smallest, usual and largest call.
fn calls(method: &MethodView) -> [String; 4] {
    let figures = &method.figures;
    let [mean, min, max] = [figures.mean_ns, figures.min_ns, figures.max_ns].map(|ns| ms(ns as f64));
    [figures.calls.to_string(), mean, min, max]
}

fn hot_paths(page: &mut Page, part: &PartView<'_>) {
    page.subsection("Hot Paths");
    page.line("By time, what was called included.\n");
    let heads =
        ["rank", "method", "total ms", "% of wall", "calls", "avg ms", "min ms", "max ms", "spread %"];
    let rows = part.methods.iter().take(HOT).enumerate().map(|(index, method)| {
        let mut row = vec![
            rank(index),
            markdown(&method.figures.name),
            ms(method.total.median),
            percent(part.share(method.total.median)),
        ];
        row.extend(calls(method));
        row.push(spread(&method.total, part.part.runs.len()));
        row
    });
    page.table(&heads, &["method"], rows);
}

fn self_times(page: &mut Page, part: &PartView<'_>) {
    let (wall, sum) = (part.middle.wall_ns, part.self_sum());
    page.subsection("Self Time");
    page.line(&format!(
        "Time outside of what was called, in run {} of {}, whose wall time stands in the middle.\n",
        part.number,
        part.part.runs.len()
    ));
    let row = |rank: String, what: String, ns: u64, calls: String| {
        vec![rank, what, ms(ns as f64), percent(ratio(ns as f64, wall as f64)), calls]
    };
    let methods = part.by_self_time();
    let (shown, rest) = methods.split_at(methods.len().min(HOT));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (index, method) in shown.iter().enumerate() {
        rows.push(row(rank(index), markdown(&method.name), method.self_ns, method.calls.to_string()));
    }
    if !rest.is_empty() {
        let ns = rest.iter().fold(0, |sum: u64, method| sum.saturating_add(method.self_ns));
        rows.push(row(String::new(), format!("*{} others*", rest.len()), ns, String::new()));
    }
    rows.push(row(String::new(), "*outside of every scope*".into(), part.outside_ns(), String::new()));
    rows.push(row(String::new(), "**all**".into(), sum.max(wall), String::new()));
    page.table(&["rank", "method", "self ms", "% of wall", "calls"], &["method"], rows);
    if sum > wall {
        page.line("Threads of the host ran side by side: self times are more than the wall time.\n");
    }
}

fn allocators(page: &mut Page, part: &PartView<'_>) {
    page.subsection("Top Allocators");
    let mut methods: Vec<&MethodView> =
        part.methods.iter().filter(|method| method.figures.alloc_bytes > 0).collect();
    if methods.is_empty() {
        page.line("No method allocated anything, or nothing counted allocations.\n");
        return;
    }
    sort::by_key(&mut methods, |method| std::cmp::Reverse(method.figures.alloc_bytes));
    let heads = ["rank", "method", "MB", "% of all", "self MB", "calls", "avg KB", "allocations", "peak MB"];
    let rows = methods.into_iter().take(ALLOCATORS).enumerate().map(|(index, method)| {
        let figures = &method.figures;
        let bytes = figures.alloc_bytes as f64;
        vec![
            rank(index),
            markdown(&figures.name),
            mb(bytes),
            percent(ratio(bytes, part.alloc_bytes)),
            mb(figures.self_alloc_bytes as f64),
            figures.calls.to_string(),
            format!("{:.3}", ratio(bytes / 1024.0, figures.calls as f64)),
            figures.alloc_count.to_string(),
            mb(figures.peak_bytes as f64),
        ]
    });
    page.table(&heads, &["method"], rows);
}

fn most_called(page: &mut Page, part: &PartView<'_>) {
    page.subsection("Most Called Methods");
    let mut methods: Vec<&MethodView> = part.methods.iter().collect();
    sort::by_key(&mut methods, |method| std::cmp::Reverse(method.figures.calls));
    let heads = ["rank", "method", "calls", "total ms", "avg ms", "p50 ms", "p95 ms", "p99 ms"];
    let rows = methods.into_iter().take(CALLED).enumerate().map(|(index, method)| {
        let figures = &method.figures;
        let mut row = vec![rank(index), markdown(&figures.name), figures.calls.to_string()];
        let times = [figures.mean_ns, figures.p50_ns, figures.p95_ns, figures.p99_ns];
        row.push(ms(method.total.median));
        row.extend(times.map(|ns| ms(ns as f64)));
        row
    });
    page.table(&heads, &["method"], rows);
}

fn rated_ops(page: &mut Page, part: &PartView<'_>, machine: &Machine) {
    let ops = ops::of(part, machine);
    if ops.is_empty() {
        return;
    }
    page.subsection("Operations");
    page.line("Places that declared work, against what the machine allows: its arithmetic, or the level of the memory that holds what one call of the caller moves.\n");
    let heads = [
        "rank",
        "operation",
        "total ms",
        "calls",
        "GFLOP",
        "GFLOPS",
        "GB/s",
        "FLOP/byte",
        "limit",
        "% of limit",
    ];
    let rows = ops.iter().take(OPS).enumerate().map(|(index, op)| {
        let roof = op.roof.as_ref();
        vec![
            rank(index),
            markdown(&op.label),
            ms(op.node.total_ns as f64),
            op.node.calls.to_string(),
            rate(op.node.flops as f64 / 1e9),
            rate(op.node.gflops()),
            rate(op.node.gbps()),
            op.node.intensity().map_or(NOTHING.to_string(), short),
            roof.map_or(NOTHING.to_string(), |roof| markdown(&roof.name)),
            roof.map_or(NOTHING.to_string(), |roof| percent(roof.share)),
        ]
    });
    page.table(&heads, &["operation", "limit"], rows);
}

fn threads(page: &mut Page, part: &PartView<'_>) {
    thread_times(page, part);
    shared(page, part);
}

/// Each thread's time, where several worked.
fn thread_times(page: &mut Page, part: &PartView<'_>) {
    let threads = part.threads();
    if threads.len() < 2 {
        return;
    }
    page.subsection("Threads");
    page.line("Working in methods, waiting in them for other threads, and idle: parked, or in code that isn't measured.\n");
    let mut heads = vec!["thread", "working ms", "waiting ms", "idle ms", "% waiting"];
    let is_counted = threads.iter().any(|thread| thread.counters.is_some());
    if is_counted {
        heads.extend(counts::HEADS);
    }
    let rows = threads.iter().map(|thread| {
        let times = [thread.working_ns, thread.waiting_ns, thread.idle_ns];
        let mut row = vec![thread.thread.to_string()];
        row.extend(times.map(|ns| ms(ns as f64)));
        let busy = thread.working_ns.saturating_add(thread.waiting_ns);
        row.push(percent(ratio(thread.waiting_ns as f64, busy as f64)));
        if is_counted {
            row.extend(counts::cells(&thread.counters.clone().unwrap_or_default()));
        }
        row
    });
    page.table(&heads, &[], rows);
}

/// Counters of the part and of its methods.
fn counted(page: &mut Page, report: &Report, part: &PartView<'_>) {
    let all = part.middle.counters.as_ref().map(|counters| ("**all**".to_owned(), counters));
    let methods = part.counted().map(|(method, counters)| (markdown(&method.name), counters));
    let rows: Vec<_> = all.into_iter().chain(methods.take(HOT)).collect();
    if rows.is_empty() {
        return;
    }
    page.subsection("Counters");
    page.line("Of all threads, what was called included; of the processor, what happened in user mode.\n");
    let heads: Vec<&str> = std::iter::once("method").chain(counts::HEADS).collect();
    let rows = rows
        .into_iter()
        .map(|(name, counters)| std::iter::once(name).chain(counts::cells(counters)).collect());
    page.table(&heads, &["method"], rows);
    let missing = counts::missing(report.counting.as_ref());
    missing.iter().for_each(|line| page.line(&format!("{}\n", markdown(line))));
}

/// Each thread's share in the methods that several shared.
fn shared(page: &mut Page, part: &PartView<'_>) {
    let lanes = part.middle.methods.iter().filter(|method| !method.lanes.is_empty());
    let rows: Vec<Vec<String>> = lanes
        .flat_map(|method| method.lanes.iter().map(move |lane| (method, lane)))
        .map(|(method, lane)| {
            let times = [lane.total_ns, lane.self_ns].map(|ns| ms(ns as f64));
            let mut row = vec![markdown(&method.name), lane.thread.to_string()];
            row.extend(times);
            row
        })
        .collect();
    if !rows.is_empty() {
        page.subsection("Shared Methods");
        page.table(&["method", "thread", "total ms", "self ms"], &["method"], rows);
    }
}

fn hierarchy(page: &mut Page, part: &PartView<'_>) {
    page.subsection("Call Hierarchy");
    page.line("```text");
    page.line(&format!("{:>12} {:>12} {:>7} {:>10}  method", "total ms", "self ms", "% wall", "calls"));
    let tree = &part.tree;
    for place in 0..tree.nodes.len().min(TREE_LINES) {
        let node = &tree.nodes[place];
        page.line(&format!(
            "{:>12} {:>12} {:>7} {:>10}  {}{}",
            ms(node.total_ns as f64),
            ms(node.self_ns as f64),
            percent(ratio(node.total_ns as f64, part.middle.wall_ns as f64)),
            node.calls,
            "  ".repeat(tree.depths[place]),
            text::one_line(&node.name),
        ));
    }
    if tree.nodes.len() > TREE_LINES {
        page.line(&format!("… and {} places more", tree.nodes.len() - TREE_LINES));
    }
    page.line("```\n");
}

fn all_methods(page: &mut Page, part: &PartView<'_>) {
    page.subsection("All Methods");
    let heads = [
        "rank",
        "method",
        "calls",
        "total ms",
        "self ms",
        "CPU ms",
        "% of wall",
        "avg ms",
        "min ms",
        "max ms",
        "std ms",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "low ms",
        "high ms",
        "threads",
        "GFLOPS",
        "GB/s",
        "MB",
        "allocations",
        "peak MB",
    ];
    let rows = part.methods.iter().enumerate().map(|(index, method)| {
        let figures = &method.figures;
        let [low, high] = [method.total.low, method.total.high].map(ms);
        let mut row = vec![rank(index), markdown(&figures.name), figures.calls.to_string()];
        row.push(ms(method.total.median));
        row.extend([figures.self_ns, figures.cpu_ns].map(|ns| ms(ns as f64)));
        row.push(percent(part.share(method.total.median)));
        let calls = [
            figures.mean_ns,
            figures.min_ns,
            figures.max_ns,
            figures.std_ns,
            figures.p50_ns,
            figures.p95_ns,
            figures.p99_ns,
        ];
        row.extend(calls.map(|ns| ms(ns as f64)));
        row.extend([low, high, figures.threads.to_string(), rate(figures.gflops()), rate(figures.gbps())]);
        row.extend([mb(figures.alloc_bytes as f64), figures.alloc_count.to_string()]);
        row.push(mb(figures.peak_bytes as f64));
        row
    });
    page.table(&heads, &["method"], rows);
}

fn sentence(pieces: &[Piece]) -> String {
    let show = |piece: &Piece| match piece {
        Piece::Words(words) => words.clone(),
        Piece::Name(name) => format!("**{}**", markdown(name)),
    };
    pieces.iter().map(show).collect()
}
