//! `smallmind create`: a model file with random weights, for measurements and tests elsewhere.

use smallmind::format::ByteSource;
use smallmind::model::RandomGpt;

use crate::args::Create;
use crate::failure::Result;
use crate::interrupt::{self, Stoppable};
use crate::writing::NewFile;

pub fn run(args: &Create) -> Result<()> {
    interrupt::install();
    let stoppable = Stoppable::begin();
    let model = RandomGpt::new(&args.random, args.seed)?;
    let mut file = NewFile::begin(&args.output, args.force)?;
    file.copy(&model, &stoppable)?;
    let (parameters, megabytes) = (args.random.parameters(), model.len() as f64 / 1e6);
    file.publish(&format!("{parameters} parameters, {megabytes:.1} MB"))
}
