//! The measurements of `smallmind profile`: a model file, or a mode with a workload of its own; and the report's way
//! to its files and to standard output.

mod embed;
mod file;
pub mod plan;
mod sentences;
mod strategies;
mod threads_seen;
mod train;

use std::path::Path;

use smallmind::profile::{Counting, set_counting};
use smallmind::report::{self, Format, Report};
use smallmind::text::escaped_path;
use smallmind::{Error, files, threads};

use super::args::{Embed, ModelFile, Results, RunArgs, Train};
use crate::failure::Result;
use crate::interrupt;
use crate::machine::warn_of_threads;
use crate::output::{print, print_json, progress, remark};
use crate::predecessor::{MODES, Mode};

/// What a mode says beyond its report.
#[derive(Default)]
struct Addition {
    /// Stands below the report as Markdown.
    text: String,
    /// Names and contents of files for the report's folder.
    files: Vec<(&'static str, String)>,
}

/// Profiles a model file.
pub fn file(args: &ModelFile) -> Result<()> {
    let RunArgs { results, threads } = &args.run;
    let measure = || Ok(file::plan(args)?.measure(results.runs, &progress(results.quiet))?);
    deliver(results, *threads, measure, |_| Ok(Addition::default()))
}

/// Profiles batches of texts.
pub fn embed(args: &Embed) -> Result<()> {
    let (results, threads) = (&args.results, args.threads.unwrap_or_else(threads::available));
    let noted = embed::Noted::default();
    let measure = || {
        let plan = embed::plan(args, threads, &noted)?;
        Ok(plan.measure_in_turns(results.runs, &progress(results.quiet))?)
    };
    deliver(results, threads, measure, |report| strategies::addition(report, args, &noted))
}

/// Profiles steps of training.
pub fn train(args: &Train) -> Result<()> {
    let (results, threads) = (&args.results, args.threads.unwrap_or_else(threads::available));
    let noted = train::Noted::default();
    let measure = || Ok(train::plan(args, threads, &noted)?.measure(results.runs, &progress(results.quiet))?);
    deliver(results, threads, measure, |report| train::addition(report, &noted))
}

/// Runs a mode by name.
pub fn mode(name: &str, args: &RunArgs) -> Result<()> {
    let Mode { plan, summary, .. } = named(name)?;
    let RunArgs { results, threads } = args;
    let measure = || Ok(plan(*threads)?.measure(results.runs, &progress(results.quiet))?);
    deliver(results, *threads, measure, |report| Ok(Addition { text: summary(report), files: Vec::new() }))
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
    args: &Results,
    threads: usize,
    measure: impl FnOnce() -> Result<Report>,
    add: impl FnOnce(&Report) -> Result<Addition>,
) -> Result<()> {
    interrupt::install();
    warn_of_threads(threads, args.quiet);
    if let Some(folder) = &args.out {
        // Before the work, so that it isn't done in vain.
        files::check_folder(folder)?;
    }
    if args.counters {
        set_counting(Counting::Everything);
    }
    let report = measure()?;
    let addition = add(&report)?;
    if let Some(folder) = &args.out {
        write(&report, &addition, folder, args.quiet)?;
    }
    let format = if args.json { Format::Json } else { Format::Markdown };
    let bytes = report::render(&report, format)?;
    let mut text = String::from_utf8(bytes).map_err(|error| Error::Internal(error.to_string()))?;
    if args.json {
        return Ok(print_json(&text)?);
    }
    text.push_str(&addition.text);
    Ok(print(&text)?)
}

fn write(report: &Report, addition: &Addition, folder: &Path, quiet: bool) -> Result<()> {
    let mut written = report::write_folder(report, folder)?;
    for (name, text) in &addition.files {
        let path = folder.join(name);
        files::write(&path, text.as_bytes())?;
        written.push(path);
    }
    if !quiet {
        let names: Vec<_> = written.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        remark(&format!("[wrote {} to {}]\n", names.join(", "), escaped_path(folder)));
    }
    Ok(())
}
