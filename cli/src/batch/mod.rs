//! `smallmind batch`: texts for the lines of a file, many at once on one model, in the order of the lines, so that a run
//! that was stopped can go on.

pub mod args;
mod input;
mod line;
mod run;
mod settings;

use std::path::Path;
use std::sync::Arc;

use smallmind::model::Model;
use smallmind::profile;
use smallmind::serve::{Server, ServerParams};
use smallmind::text::escaped;
use smallmind::{Error, threads};

use crate::embed::output::{Appended, Format, There, check};
use crate::embed::stored;
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::kept_settings;
use crate::machine::warn_of_threads;
use crate::output::remark;
use crate::sampling::Chain;
use crate::session::{clock_seed, default_context, load};
use args::Batch;
use input::Input;
use run::Run;
use settings::Settings;

pub fn run(args: &Batch) -> Result<()> {
    interrupt::install();
    profile::set_enabled(args.model.profile);
    let there = match (args.resume, args.force) {
        (true, _) => There::Resume,
        (_, true) => There::Replace,
        _ => There::Refuse,
    };
    check(args.out.as_deref(), Format::Jsonl, there)?;
    let mut input = Input::open(&args.input)?;
    // Report a wrong value before a long load.
    let chain = Chain::new(&args.sampling, 0)?;
    let threads = args.model.threads.unwrap_or_else(threads::available);
    warn_of_threads(threads, args.model.quiet);
    let model = load(&args.model)?;
    let server = server(args, &model, threads)?;
    let (out, seed) = begin(args, there, &server, &chain, &mut input)?;
    let mut run = Run::new(args, &server, input, out, chain.later(seed))?;
    run.all()?;
    run.report();
    if args.model.profile {
        remark(&format!("\n{}", profile::render_table(&profile::snapshot())));
    }
    Ok(())
}

fn server(args: &Batch, model: &Arc<Model>, threads: usize) -> Result<Server> {
    let n_ctx = default_context(model, args.model.ctx);
    let params = ServerParams::default()
        .with_n_sequences(args.parallel)
        .with_n_ctx(n_ctx)
        .with_n_positions(args.positions.unwrap_or(0))
        .with_n_batch(args.batch)
        .with_n_requests(run::WINDOW * args.parallel)
        .with_threads(threads)
        .with_kv(args.model.kv)
        .with_rope(args.model.rope());
    Server::new(model.clone(), &params).map_err(|error| match error {
        Error::OutOfMemory { .. } => {
            let parallel = args.parallel;
            let hint = format!(
                "{parallel} requests of {n_ctx} positions; --positions, --parallel, --ctx or --kv q8_0 takes less"
            );
            Failure::Hinted(error, hint)
        }
        other => Failure::Failed(other),
    })
}

/// Begins the output, or goes on with it and reads over the lines that it has. Returns also the seed of its texts.
fn begin(
    args: &Batch,
    there: There,
    server: &Server,
    chain: &Chain,
    input: &mut Input,
) -> Result<(Appended, u64)> {
    let chosen = args.sampling.seed;
    let Some(path) = args.out.as_deref() else {
        return Ok((Appended::stdout(), chosen.unwrap_or_else(clock_seed)));
    };
    let has_bytes = std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() > 0);
    let mut kept = stored::Kept::default();
    let settings;
    if there == There::Resume && has_bytes {
        let then = Settings::read(path)?;
        settings = self::settings(args, server, chain, chosen.unwrap_or(then.seed));
        settings.check_against(path, &then)?;
        kept = stored::kept(path, Format::Jsonl, 1)?;
        skip(path, input, &kept, args.model.quiet)?;
    } else {
        settings = self::settings(args, server, chain, chosen.unwrap_or_else(clock_seed));
    }
    let out = Appended::open(path, kept.bytes)?;
    if std::fs::metadata(path).is_ok_and(|about| about.is_file()) {
        settings.write(path)?;
    }
    Ok((out, settings.seed))
}

/// Reads over the lines that an earlier run has done.
fn skip(path: &Path, input: &mut Input, kept: &stored::Kept, quiet: bool) -> Result<()> {
    let mut id = None;
    for _ in 0..kept.count {
        id = input.next()?.map(|line| line.id);
    }
    if id != kept.last {
        let last = kept.last.as_deref().unwrap_or_default();
        return Err(kept_settings::refused(
            path,
            &format!("its last line, \"{}\", has moved", escaped(last)),
        ));
    }
    if !quiet {
        remark(&format!("[{} lines are there already]\n", kept.count));
    }
    Ok(())
}

/// What the texts depend on.
fn settings(args: &Batch, server: &Server, chain: &Chain, seed: u64) -> Settings {
    Settings {
        model: args.model.model.as_ref().map_or_else(|| "built-in".into(), |path| path.display().to_string()),
        adapters: args.model.adapters.names(),
        weight_bytes: server.model().weight_bytes() as u64,
        activations: args.model.activations.bytes() as u64,
        kv: args.model.kv.name().to_owned(),
        rope: [args.model.rope_scale, args.model.rope_base],
        n_ctx: server.n_ctx(),
        input: args.input.to_string_lossy().into_owned(),
        max_tokens: args.max_tokens,
        logprobs: args.logprobs,
        sampling: format!("{chain:?}"),
        stop: args.text.stop.clone(),
        parse_special: args.text.parse_special,
        adds_bos: !args.text.no_bos,
        seed,
    }
}
