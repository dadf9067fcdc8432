//! All that only the predecessor explains, in one place: the workloads of its profiler, in its shapes and under its
//! names, and the Markdown pages that it wrote. Its figures and ours stand in docs/predecessor.md.

mod alloc;
mod deep;
mod enhanced;
mod kernels;
mod memory;
mod models;
pub mod pages;
mod sampling;
mod standard;
#[cfg(test)]
mod tests;

use std::path::Path;

use smallmind::Result;
use smallmind::report::{self, Read, Report};

use crate::profile::modes::plan::Plan;

/// A workload of its profiler.
pub struct Mode {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it runs, on so many threads.
    pub plan: fn(usize) -> Result<Plan>,
    /// What stands below the report.
    pub summary: fn(&Report) -> String,
}

/// Its profiler's workloads.
pub const MODES: [Mode; 5] = [
    Mode { name: "standard", plan: standard::plan, summary: no_summary },
    Mode { name: "deep", plan: deep::plan, summary: no_summary },
    Mode { name: "enhanced", plan: enhanced::plan, summary: no_summary },
    Mode { name: "alloc", plan: alloc::plan, summary: alloc::summary },
    Mode { name: "memory", plan: memory::plan, summary: memory::summary },
];

/// Names of the parts of modes with models.
const SAME_WORK: &str = "same work";
const WITH_CACHE: &str = "with cache";

/// Reads a profile of ours, or one of its pages.
///
/// # Errors
/// Those of [`report::read`].
pub fn read(path: impl AsRef<Path>) -> Result<Read> {
    report::read_with(path, &[&pages::Pages])
}

fn no_summary(_report: &Report) -> String {
    String::new()
}
