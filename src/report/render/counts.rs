//! Counters as columns and sentences that every rendering shares.

use super::text::{NOTHING, percent, ratio, short};
use crate::profile::Counter;
use crate::report::data::{Counters, Counting};

/// The heads of [`cells`].
pub(super) const HEADS: [&str; 9] = [
    "minor faults",
    "major faults",
    "switches",
    "migrations",
    "cycles",
    "instructions",
    "instr/cycle",
    "cache miss %",
    "branch miss %",
];

/// Each figure, or a dash.
pub(super) fn cells(counters: &Counters) -> [String; 9] {
    let count = |counter| counters.get(counter).map_or(NOTHING.to_owned(), |count| count.to_string());
    let share = |part, whole| {
        let shares = counters.get(part).zip(counters.get(whole));
        shares.map_or(NOTHING.to_owned(), |(part, whole)| percent(ratio(part as f64, whole as f64)))
    };
    [
        count(Counter::MinorFaults),
        count(Counter::MajorFaults),
        count(Counter::ContextSwitches),
        count(Counter::Migrations),
        count(Counter::Cycles),
        count(Counter::Instructions),
        counters.instructions_per_cycle().map_or(NOTHING.to_owned(), short),
        share(Counter::CacheMisses, Counter::CacheReferences),
        share(Counter::BranchMisses, Counter::Branches),
    ]
}

/// A line for each reason why counters are missing.
pub(super) fn missing(counting: Option<&Counting>) -> Vec<String> {
    let missing = counting.map_or(&[][..], |counting| &counting.missing);
    let line = |counters: &[String]| counters.join(", ").replace('_', " ");
    missing
        .iter()
        .map(|missing| format!("Not counted: {} ({}).", line(&missing.counters), missing.reason))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn figures_are_shown_and_unknown_ones_are_dashes() {
        let report = sample::report();
        let run = &report.parts[0].runs[0];
        let found = cells(run.counters.as_ref().unwrap());
        assert_eq!((found[5].parse::<u64>().unwrap(), &*found[6]), (12 * run.wall_ns, "2.00"));
        assert_eq!([&*found[7], &*found[8]], ["10.0", NOTHING]);
        assert_eq!(cells(&Counters::default()), [NOTHING; 9].map(str::to_owned));
        let lines = missing(report.counting.as_ref());
        assert_eq!(
            lines,
            ["Not counted: branches, branch misses (the processor has too few counters for it)."]
        );
        assert!(missing(None).is_empty());
    }
}
