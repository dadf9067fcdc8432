//! `smallmind baseline`: keeps profiles under names, lists and deletes them.

use smallmind::report::baseline::{Entry, Store};
use smallmind::report::{self, Kept, Read};
use smallmind::text::{escaped, escaped_path};
use smallmind::{Result, files};

use crate::failure::{self, Failure};
use crate::output::{print, remark};
use crate::predecessor;
use crate::profile::args::{Baseline, BaselineCommand};
use crate::profile::modes;

pub fn run(args: &Baseline) -> failure::Result<()> {
    let store = Store::open(args.dir.clone())?;
    if let BaselineCommand::Save { name, .. } | BaselineCommand::Delete { name } = &args.what {
        // A name that can't be one; whether it is taken is another question.
        store.check_free(name, true).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    match &args.what {
        BaselineCommand::Save { name, mode, runs, threads, force, from } => {
            // Before the work, so that it isn't done in vain.
            store.check_free(name, *force)?;
            let report = match from {
                Some(path) => predecessor::read(path).and_then(Read::into_full)?,
                None => modes::measure(mode, *runs, *threads)?,
            };
            let path = store.save(name, &report, *force)?;
            remark(&format!("[kept as {name} in {}]\n", escaped_path(&path)));
            Ok(())
        }
        BaselineCommand::List => Ok(print(&table(&store.list()?))?),
        BaselineCommand::History { out } => {
            let page = report::history_page(&kept(&store)?)?;
            Ok(files::write(out, page.as_bytes())?)
        }
        BaselineCommand::Delete { name } => Ok(store.delete(name)?),
    }
}

/// All baselines that can be read.
pub fn kept(store: &Store) -> Result<Vec<Kept>> {
    let names = store.list()?.into_iter().filter(|entry| entry.about.is_ok()).map(|entry| entry.name);
    names.map(|name| Ok(Kept { report: store.load(&name)?.into_full()?, name })).collect()
}

/// One line each, in columns as wide as they must be.
fn table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no baselines\n".into();
    }
    let heads = ["name", "made", "mode", "CPU", "commit", "runs", "median wall ms"].map(str::to_owned);
    let mut rows = vec![heads.to_vec()];
    for entry in entries {
        rows.push(match &entry.about {
            Ok(about) => vec![
                entry.name.clone(),
                line(&about.created),
                line(&about.mode),
                line(&about.cpu),
                line(&about.commit),
                about.runs.to_string(),
                format!("{:.3}", about.median_wall_ns / 1e6),
            ],
            Err(why) => vec![entry.name.clone(), line(why)],
        });
    }
    let width = |column: usize| {
        // A reason is as long as it is; the columns don't follow it.
        let full = rows.iter().filter(|row| row.len() == heads.len() || column == 0);
        full.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Text from a file on one line; a dash where there is none.
fn line(text: &str) -> String {
    if text.is_empty() { "–".into() } else { escaped(text).to_string() }
}
