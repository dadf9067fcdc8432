//! Any bytes as a kept profile: read, rendered and compared with itself without a panic, or refused.
//! From the top folder: `mkdir -p fuzz/corpus/reports && cargo +nightly fuzz run reports fuzz/corpus/reports`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smallmind::report;

/// The command line's dialect, which needs nothing but the library.
#[path = "../../cli/src/predecessor/pages.rs"]
mod pages;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = report::read::parse_with("fuzz", bytes, &[&pages::Pages]) else { return };
    report::read::check(&read.report).expect("a report that was accepted is sound");
    let comparison = report::compare(&read, &read).expect("a report has all parts of itself");
    assert!(comparison.added_parts.is_empty() && comparison.removed_parts.is_empty());
    for part in &comparison.parts {
        assert!(part.added.is_empty() && part.removed.is_empty());
        assert!(part.methods.iter().all(|method| method.time_ns.ratio.is_none_or(|ratio| (ratio - 1.0).abs() < 1e-9)));
    }
    assert!(comparison.regressions(0.0).is_empty());
    assert!(!report::render_comparison(&comparison).is_empty());
    if let Ok(models) = report::compare_models(&read.report) {
        assert!(!report::render_models(&models).is_empty());
    }
});
