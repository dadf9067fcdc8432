//! `smallmind create`: a model file with random weights, for measurements and tests elsewhere.

use std::io::ErrorKind;

use smallmind::Error;
use smallmind::files::{Draft, Existing};
use smallmind::format::ByteSource;
use smallmind::model::RandomGpt;
use smallmind::text::escaped_path;

use crate::args::Create;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::output::{print, remark};

/// Bytes computed and written at a time.
const CHUNK: usize = 1 << 20;

pub fn run(args: &Create) -> Result<()> {
    interrupt::install();
    let stoppable = Stoppable::begin();
    let model = RandomGpt::new(&args.random, args.seed)?;
    let path = escaped_path(&args.output);
    let existing = if args.force { Existing::Replace } else { Existing::Refuse };
    let taken = |error| match &error {
        Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
            Error::invalid(format!("{path} is there already (--force overwrites it)"))
        }
        _ => error,
    };
    let mut draft = Draft::new(&args.output, existing).map_err(taken)?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < model.len() {
        if stoppable.requested() {
            return Err(Failure::Interrupted);
        }
        let count = (model.len() - at).min(CHUNK as u64) as usize;
        model.read_at(at, &mut chunk[..count])?;
        draft.write(&chunk[..count])?;
        at += count as u64;
    }
    let streams = draft.is_stream();
    draft.publish().map_err(taken)?;
    let (parameters, megabytes) = (args.random.parameters(), model.len() as f64 / 1e6);
    let done = format!("{path}: {parameters} parameters, {megabytes:.1} MB\n");
    match streams {
        // The file itself may go to standard output.
        true => remark(&done),
        false => print(&done)?,
    }
    Ok(())
}
