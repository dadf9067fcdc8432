//! `smallmind create`: a model file with random weights, for measurements and tests elsewhere.

use smallmind::format::ByteSource;
use smallmind::model::RandomGpt;

use crate::args::Create;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::writing::NewFile;

/// Bytes computed and written at a time.
const CHUNK: usize = 1 << 20;

pub fn run(args: &Create) -> Result<()> {
    interrupt::install();
    let stoppable = Stoppable::begin();
    let model = RandomGpt::new(&args.random, args.seed)?;
    let mut file = NewFile::begin(&args.output, args.force)?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < model.len() {
        if stoppable.requested() {
            return Err(Failure::Interrupted);
        }
        let count = (model.len() - at).min(CHUNK as u64) as usize;
        model.read_at(at, &mut chunk[..count])?;
        file.write(&chunk[..count])?;
        at += count as u64;
    }
    let (parameters, megabytes) = (args.random.parameters(), model.len() as f64 / 1e6);
    file.publish(&format!("{parameters} parameters, {megabytes:.1} MB"))
}
