//! The modes of `smallmind profile`: what each runs, and the report that comes of it.

use smallmind::{Error, Result};

use super::args::{ModelFile, RunArgs};

fn absent() -> Result<()> {
    Err(Error::Unsupported("this mode".into()))
}

pub fn file(_args: &ModelFile) -> Result<()> {
    absent()
}

pub fn standard(_args: &RunArgs) -> Result<()> {
    absent()
}

pub fn deep(_args: &RunArgs) -> Result<()> {
    absent()
}

pub fn enhanced(_args: &RunArgs) -> Result<()> {
    absent()
}

pub fn alloc(_args: &RunArgs) -> Result<()> {
    absent()
}

pub fn memory(_args: &RunArgs) -> Result<()> {
    absent()
}
