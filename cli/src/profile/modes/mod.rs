//! The modes of `smallmind profile`: what each runs, and the report that comes of it.

mod alloc;
mod deep;
mod enhanced;
mod file;
mod kernels;
mod memory;
mod models;
mod plan;
mod sampling;
mod standard;

use std::path::Path;

use smallmind::report::{self, Format, Report};
use smallmind::{Error, Result};

use super::args::{ModelFile, RunArgs};
use crate::interrupt;
use crate::output::{print, progress, remark};
use plan::Plan;

/// Profiles a model file.
pub fn file(args: &ModelFile) -> Result<()> {
    let measure = || file::plan(args)?.measure(args.run.runs, &progress(args.run.quiet));
    deliver(&args.run, measure, |_| String::new())
}

/// Runs a mode by name.
pub fn mode(name: &str, args: &RunArgs) -> Result<()> {
    let summary = match name {
        "alloc" => alloc::summary,
        "memory" => memory::summary,
        _ => |_: &Report| String::new(),
    };
    deliver(args, || measure(name, args.runs, args.threads, args.quiet), summary)
}

/// Measures a mode `runs` times on so many threads, with a line of progress unless `quiet`.
///
/// # Errors
/// [`Error::InvalidArgument`] where there is no mode of this name; those of the mode.
pub fn measure(mode: &str, runs: usize, threads: usize, quiet: bool) -> Result<Report> {
    plan(mode, threads)?.measure(runs, &progress(quiet))
}

fn plan(mode: &str, threads: usize) -> Result<Plan> {
    match mode {
        "standard" => standard::plan(threads),
        "deep" => deep::plan(threads),
        "enhanced" => enhanced::plan(threads),
        "alloc" => alloc::plan(threads),
        "memory" => memory::plan(threads),
        other => {
            let known = "there are standard, deep, enhanced, alloc and memory";
            Err(Error::invalid(format!("no mode {other:?}: {known}")))
        }
    }
}

/// Writes what was measured to the folder that was asked for, and prints it.
fn deliver(
    args: &RunArgs,
    measure: impl FnOnce() -> Result<Report>,
    summary: fn(&Report) -> String,
) -> Result<()> {
    interrupt::install();
    if let Some(folder) = &args.out {
        // Before the work, so that it isn't done in vain.
        let failed = |source| Error::Io { path: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let report = measure()?;
    if let Some(folder) = &args.out {
        write(&report, folder, args.quiet)?;
    }
    let format = if args.json { Format::Json } else { Format::Markdown };
    let bytes = report::render(&report, format)?;
    let mut text = String::from_utf8(bytes).map_err(|error| Error::Internal(error.to_string()))?;
    if !args.json {
        text.push_str(&summary(&report));
    }
    print(&text)
}

fn write(report: &Report, folder: &Path, quiet: bool) -> Result<()> {
    let written = report::write_folder(report, folder)?;
    if !quiet {
        let names: Vec<_> = written.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        remark(&format!("[wrote {} to {}]\n", names.join(", "), folder.display()));
    }
    Ok(())
}
