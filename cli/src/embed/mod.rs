//! `smallmind embed`: vectors of the lines or files of any number of inputs, as JSON lines, CSV or a matrix for NumPy.

pub mod args;
mod engine;
mod inputs;
mod npy;
pub mod output;
mod ranking;
pub mod rerank;
mod scan;
pub mod search;
pub mod settings;
pub mod similarity;
pub mod stored;

use std::sync::Arc;

use smallmind::Error;
use smallmind::embed::Embedder;
use smallmind::text::{escaped, escaped_path};
use smallmind::threads::Team;

use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::output::remark;
use args::{Embed, Long};
use engine::{Choice, Run};
use inputs::{Inputs, Reading};
use output::{Format, Record, Records, Store, There};
use settings::Settings;

pub fn run(args: &Embed) -> Result<()> {
    interrupt::install();
    let reading = Reading { whole_files: args.whole_files, field: args.field.clone() };
    let own = args.out.as_deref().map_or(Vec::new(), output::files_of);
    let mut inputs = Inputs::open(&args.inputs, reading, &own)?;
    let format = Format::of(args.format, args.out.as_deref());
    let there = match (args.resume, args.force) {
        (true, _) => There::Resume,
        (_, true) => There::Replace,
        _ => There::Refuse,
    };
    output::check(args.out.as_deref(), format, there)?;
    let choice = Choice { normalize: !args.no_normalize, prompt: "document" };
    let mut embedder = engine::open(&args.embedding, Some(&args.prompting), choice)?;
    let settings = settings(args, format, &mut embedder)?;
    let mut run = Run::new(&inputs, args.embedding.quiet);
    let mut store = begin(args, format, there, &settings, &mut inputs, &mut run, embedder.team())?;
    while let Some(chunk) =
        run.next(&mut inputs, &mut embedder, |embedder, texts, out| embedder.embed(texts, out))?
    {
        // Ctrl-C ends the program only between pieces of the file.
        let stoppable = Stoppable::begin();
        let records: Vec<_> =
            chunk.results().map(|(text, status, vector)| Record { text, status, vector }).collect();
        store.append(&records)?;
        if stoppable.requested() {
            return Err(Failure::Interrupted);
        }
    }
    store.finish()?;
    run.report(args.embedding.quiet);
    Ok(())
}

/// Begins the output, or goes on with it and reads over the texts that it has.
fn begin(
    args: &Embed,
    format: Format,
    there: There,
    settings: &Settings,
    inputs: &mut Inputs,
    run: &mut Run,
    team: &Arc<Team>,
) -> Result<Box<dyn Records>> {
    let path = args.out.as_deref();
    let (store, last) = Store::open(path, format, there, settings, team)?;
    if store.count() > 0 {
        skip(args, inputs, store.count(), last)?;
        run.skip_to(inputs);
    }
    Ok(Box::new(store))
}

/// What the vectors depend on.
fn settings(args: &Embed, format: Format, embedder: &mut Embedder) -> Result<Settings> {
    let long = match args.embedding.long {
        Long::Truncate => "truncate",
        Long::Split => "split",
        Long::Error => "error",
    };
    Ok(Settings {
        model: args.embedding.model.display().to_string(),
        width: embedder.width(),
        prompt: embedder.prompt().before().to_owned(),
        long: long.to_owned(),
        n_ctx: embedder.n_ctx(),
        format: format.name().to_owned(),
        with_text: !args.no_text,
        inputs: args.inputs.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        whole_files: args.whole_files,
        field: args.field.clone(),
        probe: settings::probe(embedder)?,
    })
}

/// Reads over the texts that an earlier run has done, at least one.
fn skip(args: &Embed, inputs: &mut Inputs, count: u64, last: Option<String>) -> Result<()> {
    let mut id = None;
    for _ in 0..count {
        id = inputs.next().map(|text| text.id);
    }
    if id != last {
        let path = args.out.as_deref().map(escaped_path).map(|path| path.to_string()).unwrap_or_default();
        let last = last.unwrap_or_default();
        let text = format!(
            "{path} can't be resumed: its last text, \"{}\", has moved in the inputs",
            escaped(&last)
        );
        return Err(Error::invalid(text).into());
    }
    if !args.embedding.quiet {
        remark(&format!("[{count} texts are there already]\n"));
    }
    Ok(())
}
