//! `smallmind create`: a model file with random weights, for measurements and tests elsewhere.

use std::fs::OpenOptions;
use std::io::{self, Write};

use smallmind::format::ByteSource;
use smallmind::model::RandomGpt;
use smallmind::{Error, Result};

use crate::args::Create;
use crate::output::print;

/// Bytes computed and written at a time.
const CHUNK: usize = 1 << 20;

pub fn run(args: &Create) -> Result<()> {
    let model = RandomGpt::new(&args.random, args.seed)?;
    let path = &args.output;
    let io_error = |source| Error::Io { path: path.clone(), source };
    let mut options = OpenOptions::new();
    // `create_new` makes the system refuse an existing file, without a gap between the check and the creation.
    options.write(true).truncate(args.force).create(args.force).create_new(!args.force);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::InvalidArgument(format!("{} is there already (--force overwrites it)", path.display()))
        }
        _ => io_error(error),
    })?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < model.len() {
        let count = (model.len() - at).min(CHUNK as u64) as usize;
        model.read_at(at, &mut chunk[..count])?;
        file.write_all(&chunk[..count]).map_err(io_error)?;
        at += count as u64;
    }
    let (parameters, megabytes) = (args.random.parameters(), model.len() as f64 / 1e6);
    print(&format!("{}: {parameters} parameters, {megabytes:.1} MB\n", path.display()))
}
