//! `smallmind profile compare` and `smallmind profile models`.

use std::process::ExitCode;

use smallmind::{Error, Result};

use super::args::{Compare, Models};

pub fn run(_args: &Compare) -> Result<ExitCode> {
    Err(Error::Unsupported("comparing".into()))
}

pub fn models(_args: &Models) -> Result<()> {
    Err(Error::Unsupported("comparing".into()))
}
