//! The measurements of `smallmind profile`: a model file, or a mode with a workload of its own; and the report's way
//! to its files and to standard output.

mod file;
pub mod plan;

use std::path::Path;

use smallmind::profile::{Counting, set_counting};
use smallmind::report::{self, Format, Report};
use smallmind::text::escaped_path;
use smallmind::{Error, files};

use super::args::{ModelFile, RunArgs};
use crate::failure::Result;
use crate::interrupt;
use crate::machine::warn_of_threads;
use crate::output::{print, print_json, progress, remark};
use crate::predecessor::{MODES, Mode};

/// Profiles a model file.
pub fn file(args: &ModelFile) -> Result<()> {
    let measure = || Ok(file::plan(args)?.measure(args.run.runs, &progress(args.run.quiet))?);
    deliver(&args.run, measure, |_| String::new())
}

/// Runs a mode by name.
pub fn mode(name: &str, args: &RunArgs) -> Result<()> {
    let Mode { plan, summary, .. } = named(name)?;
    let measure = || Ok(plan(args.threads)?.measure(args.runs, &progress(args.quiet))?);
    deliver(args, measure, *summary)
}

/// Measures a mode `runs` times on so many threads, with a line of progress.
///
/// # Errors
/// [`Error::InvalidArgument`] where there is no mode of this name; those of the mode.
pub fn measure(mode: &str, runs: usize, threads: usize) -> smallmind::Result<Report> {
    (named(mode)?.plan)(threads)?.measure(runs, &progress(false))
}

fn named(name: &str) -> smallmind::Result<&'static Mode> {
    MODES.iter().find(|mode| mode.name == name).ok_or_else(|| {
        let names = MODES.map(|mode| mode.name);
        let (last, others) = names.split_last().unwrap_or((&"", &[]));
        Error::invalid(format!("no mode {name:?}: there are {} and {last}", others.join(", ")))
    })
}

/// Measures, writes the report to the folder, if one was given, and prints it.
fn deliver(
    args: &RunArgs,
    measure: impl FnOnce() -> Result<Report>,
    summary: fn(&Report) -> String,
) -> Result<()> {
    interrupt::install();
    warn_of_threads(args.threads, args.quiet);
    if let Some(folder) = &args.out {
        // Before the work, so that it isn't done in vain.
        files::check_folder(folder)?;
    }
    if args.counters {
        set_counting(Counting::Everything);
    }
    let report = measure()?;
    if let Some(folder) = &args.out {
        write(&report, folder, args.quiet)?;
    }
    let format = if args.json { Format::Json } else { Format::Markdown };
    let bytes = report::render(&report, format)?;
    let mut text = String::from_utf8(bytes).map_err(|error| Error::Internal(error.to_string()))?;
    if args.json {
        return Ok(print_json(&text)?);
    }
    text.push_str(&summary(&report));
    Ok(print(&text)?)
}

fn write(report: &Report, folder: &Path, quiet: bool) -> Result<()> {
    let written = report::write_folder(report, folder)?;
    if !quiet {
        let names: Vec<_> = written.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        remark(&format!("[wrote {} to {}]\n", names.join(", "), escaped_path(folder)));
    }
    Ok(())
}
