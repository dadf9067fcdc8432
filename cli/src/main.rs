//! The command line: generate text, chat, look into a model file or make a random one, measure speed.
//! It only parses, prints and calls the library; every failure is one line on stderr and exit code 1
//! (2 for a wrong command line, 130 after Ctrl-C).

mod adapters;
mod args;
mod baseline;
mod batch;
mod bench;
mod chat;
mod conditions;
mod convert;
mod create;
mod embed;
mod estimate;
mod failure;
mod generate;
mod info;
mod interrupt;
mod kept_settings;
mod kernels;
mod logprobs;
mod machine;
mod merge;
mod output;
mod perplexity;
mod predecessor;
mod profile;
mod quantize;
mod sampling;
mod session;
mod small_file;
mod template;
mod train;
mod values;
mod writing;

use std::process::ExitCode;

use clap::error::ErrorKind;
use smallmind::profile::CountingAllocator;

use args::{Args, Command};
use failure::Failure;
use output::complain;

// The feature installs the same allocator inside the library.
#[cfg(not(feature = "counting-alloc"))]
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    interrupt::survive_full_files();
    let args = match Args::read() {
        Ok(args) => args,
        Err(error) => return not_parsed(&error),
    };
    let done = |()| ExitCode::SUCCESS;
    let result = match &args.command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Info(args) => info::file(args).map(done),
        Command::Kernels(args) => kernels::run(args).map(done).map_err(Failure::from),
        Command::Bench(args) => bench::run(args).map(done),
        Command::Create(args) => create::run(args).map(done),
        Command::Convert(args) => convert::run(args).map(done),
        Command::Quantize(args) => quantize::run(args).map(done),
        Command::Merge(args) => merge::run(args).map(done),
        Command::Perplexity(args) => perplexity::run(args).map(done),
        Command::Train(args) => train::run(args).map(done),
        Command::Batch(args) => batch::run(args).map(done),
        Command::Embed(args) => embed::run(args).map(done),
        Command::Search(args) => embed::search::run(args).map(done),
        Command::Rerank(args) => embed::rerank::run(args).map(done),
        Command::Eval(args) => match &args.what {
            embed::args::What::Similarity(args) => embed::similarity::run(args).map(done),
        },
        Command::Profile(args) => profile::run(args),
        Command::Baseline(args) => baseline::run(args).map(done),
    };
    result.unwrap_or_else(Failure::report)
}

/// Prints help on request, or the fault of the command line.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // A pipe may be closed: `smallmind --help | head`.
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    // clap's text has the fault first (a missing argument's name is on a line of its own), then tips and usage behind
    // empty lines. A tip on how to pass an option as a value is no help here: no command takes values without options.
    // It is whole only with its control characters, which are escaped below; clap adds none of its own to it.
    let text = error.render().ansi().to_string();
    let fault: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let tips = text.lines().filter_map(|line| line.trim_start().strip_prefix("tip: "));
    let tips: Vec<_> = tips.filter(|tip| !tip.contains("as a value")).collect();
    let fault = fault.join(" ");
    let said = [&[fault.trim_start_matches("error: ")], &tips[..]].concat();
    complain(&format!("{} (see --help)", said.join("; ")));
    ExitCode::from(2)
}
