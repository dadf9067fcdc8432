//! `smallmind merge`: a model file into whose matrices low-rank adapters (LoRA) are merged.

use std::path::PathBuf;

use clap::Args as Group;
use smallmind::Error;
use smallmind::format::gguf::Gguf;
use smallmind::model::foreign::open_source;
use smallmind::model::quantize::{Mix, QuantizeParams, QuantizePlan};

use crate::adapters::AdapterArgs;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::machine::explain;
use crate::quantize;
use crate::values::mix;
use crate::writing::NewFile;

#[derive(Group)]
pub struct Merge {
    /// Model file (GGUF) or folder
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    #[command(flatten)]
    pub adapters: AdapterArgs,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Types other than those of the model: a mix by its name, as for quantize
    #[arg(short = 't', long = "type", value_name = "NAME", value_parser = mix)]
    pub mix: Option<Mix>,
    /// Also change tensors that are quantised, and quantise them again, which adds to their errors
    #[arg(long)]
    pub requantize: bool,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
    /// Print no progress
    #[arg(short, long)]
    pub quiet: bool,
}

pub fn run(args: &Merge) -> Result<()> {
    interrupt::install();
    let stoppable = Stoppable::begin();
    if args.adapters.lora.is_empty() {
        return Err(Failure::Usage("'--lora <FILE[=SCALE]>' is needed: what is to be merged".into()));
    }
    let gguf = Gguf::open(open_source(&args.model).map_err(explain(&args.model))?)?;
    let adapters = args.adapters.open()?;
    let plan = match args.mix {
        None => QuantizePlan::merge(&gguf, &adapters, args.requantize),
        Some(mix) => {
            let params = QuantizeParams::new(mix).with_adapters(&adapters).with_requantize(args.requantize);
            QuantizePlan::new(&gguf, &params)
        }
    };
    let plan = plan.map_err(|error| match error {
        Error::Unsupported(ref why) if why.contains("already") && !args.requantize => {
            Failure::Hinted(error, "--requantize does it all the same".into())
        }
        other => Failure::Failed(other),
    })?;
    let mut file = NewFile::begin(&args.output, args.force)?;
    quantize::write(&plan, &mut file, args.quiet, &stoppable)?;
    let changed: usize = adapters.iter().map(|adapter| adapter.targets().len()).sum();
    file.publish(&format!(
        "{} tensors, {changed} changes merged, {:.1} MB",
        plan.tensors(),
        plan.file_len() as f64 / 1e6
    ))
}
