//! `smallmind profile`: runs workloads under the profile and writes reports; compares reports.

pub mod args;
mod compare;
pub mod modes;

use std::process::ExitCode;

use crate::failure::{Failure, Result};
use args::{Profile, What};

pub fn run(args: &Profile) -> Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match &args.what {
        None => modes::file(&args.file).map(done),
        Some(What::Standard(args)) => modes::mode("standard", args).map(done),
        Some(What::Deep(args)) => modes::mode("deep", args).map(done),
        Some(What::Enhanced(args)) => modes::mode("enhanced", args).map(done),
        Some(What::Alloc(args)) => modes::mode("alloc", args).map(done),
        Some(What::Memory(args)) => modes::mode("memory", args).map(done),
        Some(What::Embed(args)) => modes::embed(args).map(done),
        Some(What::Train(args)) => modes::train(args).map(done),
        Some(What::Compare(args)) => compare::run(args).map_err(Failure::from),
        Some(What::Models(args)) => compare::models(args).map(done).map_err(Failure::from),
    }
}
