//! The command line: generate text, chat, look into a model file, measure speed.
//! It only parses, prints and calls the library; every failure is one line on stderr and exit code 1
//! (2 for a wrong command line).

mod args;
mod bench;
mod chat;
mod generate;
mod info;
mod interrupt;
mod session;

use std::process::ExitCode;

use clap::Parser;
use smallmind::profile::CountingAllocator;

use args::{Args, Command};

// The feature installs the same allocator inside the library.
#[cfg(not(feature = "counting-alloc"))]
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            // clap's text has the fault first, then usage: the fault is enough.
            let text = error.to_string();
            let line = text.lines().next().unwrap_or("error: wrong arguments");
            eprintln!("smallmind: {} (see --help)", line.trim_start_matches("error: "));
            return ExitCode::from(2);
        }
        Err(help) => {
            print!("{help}");
            return ExitCode::SUCCESS;
        }
    };
    let result = match &args.command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Info(args) => info::file(args),
        Command::Kernels => info::kernels(),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smallmind: {error}");
            ExitCode::FAILURE
        }
    }
}
