//! A snapshot as tables for the terminal, within 100 columns: the call tree, counters, each thread's time.
//! Reports for people and tools are made by `report`.

use super::counters::{self, Counter, Counts};
use super::{MethodStats, Snapshot, alloc};

const HEAD: [&str; 11] =
    ["method", "calls", "total ms", "self ms", "% wall", "min", "mean", "max", "alloc", "GFLOPS", "GB/s"];
const WIDTHS: [usize; 11] = [24, 7, 9, 9, 6, 6, 6, 6, 6, 6, 5];

/// The call tree as an aligned table of 100 columns.
pub fn render_table(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    push_line(&mut text, &HEAD.map(String::from));
    text.push_str(&"─".repeat(WIDTHS.iter().sum::<usize>() + WIDTHS.len() - 1));
    text.push('\n');
    for stats in &snapshot.nodes {
        push_line(&mut text, &cells(snapshot, stats));
    }
    for note in notes(snapshot) {
        text.push_str(&note);
        text.push('\n');
    }
    push_counts(&mut text, snapshot);
    push_threads(&mut text, snapshot);
    text
}

/// Counters of the scopes whose counters were read, and the reasons why others are missing.
fn push_counts(text: &mut String, snapshot: &Snapshot) {
    const HEAD: [&str; 8] = [
        "minor faults",
        "major",
        "switches",
        "migrations",
        "cycles",
        "instructions",
        "cache miss",
        "mispred",
    ];
    let counted: Vec<_> = snapshot.nodes.iter().filter_map(|node| Some((node, node.counts?))).collect();
    if counted.is_empty() {
        return;
    }
    text.push_str(&format!("\n{:<24}", "counted"));
    HEAD.iter().for_each(|head| text.push_str(&format!(" {head:>w$}", w = head.len())));
    text.push('\n');
    for (node, counts) in counted {
        let name = format!("{}{}", "  ".repeat(node.depth), node.name);
        text.push_str(&format!("{name:<24.24}"));
        for (cell, head) in count_cells(&counts).iter().zip(HEAD) {
            text.push_str(&format!(" {cell:>w$}", w = head.len()));
        }
        text.push('\n');
    }
    for missing in counters::missing() {
        text.push_str(&format!("{missing}\n"));
    }
}

fn count_cells(counts: &Counts) -> [String; 8] {
    [
        Counter::MinorFaults,
        Counter::MajorFaults,
        Counter::ContextSwitches,
        Counter::Migrations,
        Counter::Cycles,
        Counter::Instructions,
        Counter::CacheMisses,
        Counter::BranchMisses,
    ]
    .map(|counter| counts.get(counter).map_or("–".to_owned(), thousands))
}

/// Each thread's time, where several worked.
fn push_threads(text: &mut String, snapshot: &Snapshot) {
    if snapshot.threads.len() < 2 {
        return;
    }
    text.push_str(&format!(
        "\n{:<10} {:>11} {:>11} {:>11} {:>6} {:>13} {:>9}\n",
        "thread", "working ms", "waiting ms", "idle ms", "wait %", "minor faults", "switches"
    ));
    for thread in &snapshot.threads {
        let busy = (thread.working_ns + thread.waiting_ns).max(1) as f64;
        let [faults, switches] = [Counter::MinorFaults, Counter::ContextSwitches].map(|counter| {
            thread.counts.and_then(|counts| counts.get(counter)).map_or("–".to_owned(), thousands)
        });
        text.push_str(&format!(
            "{:<10} {:>11} {:>11} {:>11} {:>6.1} {faults:>13} {switches:>9}\n",
            thread.thread,
            milliseconds(thread.working_ns),
            milliseconds(thread.waiting_ns),
            milliseconds(thread.idle_ns),
            100.0 * thread.waiting_ns as f64 / busy,
        ));
    }
}

/// Three digits and a unit of a thousand.
fn thousands(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["", "K", "M", "G"] {
        if value < 999.5 {
            return if unit.is_empty() { count.to_string() } else { format!("{}{unit}", short(value)) };
        }
        value /= 1000.0;
    }
    format!("{}T", short(value))
}

fn push_line(text: &mut String, cells: &[String; 11]) {
    text.push_str(&format!("{:<1$.1$}", cells[0], WIDTHS[0]));
    for (cell, width) in cells.iter().zip(WIDTHS).skip(1) {
        text.push_str(&format!(" {cell:>width$}"));
    }
    text.push('\n');
}

fn cells(snapshot: &Snapshot, stats: &MethodStats) -> [String; 11] {
    let recorded = |text: String| if stats.calls == 0 { "–".to_string() } else { text };
    let declared = |amount: u64, text: String| if amount == 0 { "–".to_string() } else { text };
    let allocated =
        if alloc::total_counts().count == 0 { "–".to_string() } else { bytes(stats.alloc_bytes) };
    [
        format!("{}{}", "  ".repeat(stats.depth), stats.name),
        count(stats.calls),
        recorded(milliseconds(stats.total_ns)),
        recorded(milliseconds(stats.self_ns)),
        recorded(format!("{:.1}", 100.0 * snapshot.share(stats))),
        recorded(duration(stats.min_ns)),
        recorded(duration(stats.mean_ns)),
        recorded(duration(stats.max_ns)),
        allocated,
        declared(stats.flops, short(stats.gflops())),
        declared(stats.bytes, short(stats.gbps())),
    ]
}

fn notes(snapshot: &Snapshot) -> Vec<String> {
    let mut notes = vec![format!("wall {} ms recorded", milliseconds(snapshot.wall_ns))];
    let threads = snapshot.nodes.iter().map(|stats| stats.threads).max().unwrap_or(0);
    if threads > 1 {
        notes[0].push_str(&format!(
            "; up to {threads} threads worked: times are those of the thread that called"
        ));
    }
    if snapshot.dropped > 0 {
        notes.push(format!("{} scopes had no room and are missing", snapshot.dropped));
    }
    if snapshot.unbalanced > 0 {
        notes.push(format!("{} scopes ended after what was around them, or never", snapshot.unbalanced));
    }
    notes
}

fn count(calls: u64) -> String {
    match calls {
        0..10_000_000 => calls.to_string(),
        _ => format!("{}M", calls / 1_000_000),
    }
}

fn milliseconds(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    match ms {
        ..1e5 => format!("{ms:.2}"),
        _ => format!("{ms:.0}"),
    }
}

/// Three digits and a unit: at most six characters.
fn duration(ns: u64) -> String {
    let ns = ns as f64;
    let (value, unit) = match ns {
        ..999.5 => return format!("{ns:.0}ns"),
        ..999.5e3 => (ns / 1e3, "µs"),
        ..999.5e6 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{}{unit}", short(value))
}

/// Three digits and a unit of 1024: at most five characters.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "K", "M", "G", "T"] {
        if value < 999.5 {
            return if unit == "B" { format!("{value:.0}B") } else { format!("{}{unit}", short(value)) };
        }
        value /= 1024.0;
    }
    format!("{value:.0}P")
}

/// Three significant digits, never an exponent.
fn short(value: f64) -> String {
    match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_fit_their_columns() {
        for ns in [
            0,
            1,
            999,
            1000,
            9_994,
            9_996,
            99_960,
            999_499,
            999_500,
            999_499_999,
            999_500_000,
            999_000_000_000,
        ] {
            assert!(duration(ns).chars().count() <= 6, "{}", duration(ns));
        }
        assert_eq!(duration(999), "999ns");
        assert_eq!(duration(1234), "1.23µs");
        assert_eq!(duration(999_999), "1.00ms");
        assert_eq!(duration(25_400_000), "25.4ms");
        for amount in [0, 999, 1000, 1023, 1024, 1 << 20, 1_048_575, (1 << 30) - 1, 1 << 40, u64::MAX] {
            assert!(bytes(amount).len() <= 6, "{}", bytes(amount));
        }
        assert_eq!(bytes(999), "999B");
        assert_eq!(bytes(1536), "1.50K");
        assert_eq!(bytes(1000), "0.98K");
        assert_eq!(WIDTHS.iter().sum::<usize>() + WIDTHS.len() - 1, 100);
    }
}
