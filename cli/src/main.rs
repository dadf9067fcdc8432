//! The command line: generate text, chat, look into a model file or make a random one, measure speed.
//! It only parses, prints and calls the library; every failure is one line on stderr and exit code 1
//! (2 for a wrong command line, 130 after Ctrl-C).

mod args;
mod baseline;
mod bench;
mod chat;
mod conditions;
mod create;
mod generate;
mod info;
mod interrupt;
mod kernels;
mod output;
mod predecessor;
mod profile;
mod session;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use smallmind::profile::CountingAllocator;

use args::{Args, Command};
use output::remark;

// The feature installs the same allocator inside the library.
#[cfg(not(feature = "counting-alloc"))]
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return not_parsed(&error),
    };
    let done = |()| ExitCode::SUCCESS;
    let result = match &args.command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args).map(done),
        Command::Info(args) => info::file(args).map(done),
        Command::Kernels(args) => kernels::run(args).map(done),
        Command::Bench(args) => bench::run(args).map(done),
        Command::Create(args) => create::run(args).map(done),
        Command::Profile(args) => profile::run(args),
        Command::Baseline(args) => baseline::run(args).map(done),
    };
    result.unwrap_or_else(|error| {
        remark(&format!("smallmind: {error}\n"));
        ExitCode::FAILURE
    })
}

/// Prints help on request, or the fault of the command line.
fn not_parsed(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // A pipe may be closed: `smallmind --help | head`.
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    // clap's text has the fault first (a missing argument's name is on a line of its own), then an empty
    // line and usage: the fault is enough.
    let text = error.to_string();
    let fault: Vec<_> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    remark(&format!("smallmind: {} (see --help)\n", fault.join(" ").trim_start_matches("error: ")));
    ExitCode::from(2)
}
