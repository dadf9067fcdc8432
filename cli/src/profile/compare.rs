//! `smallmind profile compare` and `smallmind profile models`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use smallmind::report::baseline::Store;
use smallmind::report::{self, Comparison, Read};
use smallmind::text::escaped_path;
use smallmind::{Error, Result, files};

use super::args::{Compare, Models};
use crate::baseline;
use crate::output::{json_fit_for_terminals, print, remark};
use crate::predecessor;

/// The exit code where something is slower by more than was allowed.
const REGRESSED: u8 = 3;

pub fn run(args: &Compare) -> Result<ExitCode> {
    let store = Store::open(args.dir.clone());
    let (before, after) = (side(&args.before, &store)?, side(&args.after, &store)?);
    let comparison = report::compare(&before, &after)?;
    if let Some(file) = &args.html {
        let history = store.as_ref().map_or(Ok(Vec::new()), baseline::kept)?;
        let page = report::comparison_page(&comparison, [&before.report, &after.report], &history)?;
        put(&Some(file.clone()), &page)?;
    }
    let text = if args.json {
        let text =
            serde_json::to_string_pretty(&comparison).map_err(|error| Error::Internal(error.to_string()))?;
        json_fit_for_terminals(&text)
    } else {
        report::render_comparison(&comparison)
    };
    put(&args.out, &text)?;
    Ok(args.fail_on_regression.map_or(ExitCode::SUCCESS, |percent| judge(&comparison, percent)))
}

pub fn models(args: &Models) -> Result<()> {
    let read = predecessor::read(&args.report)?;
    let named = |error: Error| match error {
        Error::InvalidArgument(text) => Error::InvalidArgument(format!("{}: {text}", read.source)),
        other => other,
    };
    put(&args.out, &report::render_models(&report::compare_models(&read.report).map_err(named)?))
}

/// A path or, where there is none, the name of a baseline.
fn side(name: &str, store: &Result<Store>) -> Result<Read> {
    if Path::new(name).exists() {
        return predecessor::read(name);
    }
    match store {
        Ok(store) if store.contains(name) => store.load(name),
        Ok(store) => {
            let dir = escaped_path(store.dir());
            Err(Error::invalid(format!("{name}: no such file or folder, and no such baseline in {dir}")))
        }
        Err(why) => Err(Error::invalid(format!("{name}: no such file or folder ({why})"))),
    }
}

/// Names the methods that are slower by more than `percent`, and returns the exit code.
fn judge(comparison: &Comparison, percent: f64) -> ExitCode {
    if !comparison.can_tell() {
        remark("[one run a side can't show a regression: nothing was held against the limit]\n");
        return ExitCode::SUCCESS;
    }
    let found = comparison.regressions(percent);
    let one = |regression: &report::compare::Regression| {
        let [ratio, low] = [regression.ratio, regression.interval[0]].map(|ratio| 100.0 * (ratio - 1.0));
        format!("{} ({}) by {ratio:.1} %, at least {low:.1} %", regression.what, regression.part)
    };
    match found.first() {
        None => ExitCode::SUCCESS,
        Some(first) => {
            let others =
                if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
            remark(&format!("smallmind: slower by more than {percent} %: {}{others}\n", one(first)));
            ExitCode::from(REGRESSED)
        }
    }
}

/// Writes to the file, or to standard output where there is none.
fn put(file: &Option<PathBuf>, text: &str) -> Result<()> {
    match file {
        Some(path) => files::write(path, text.as_bytes()),
        None => print(text),
    }
}
