//! `smallmind baseline`: named profiles to compare later ones with.

use smallmind::{Error, Result};

use crate::profile::args::Baseline;

pub fn run(_args: &Baseline) -> Result<()> {
    Err(Error::Unsupported("baselines".into()))
}
