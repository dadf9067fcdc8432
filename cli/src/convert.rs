//! `smallmind convert`: a folder of Hugging Face or a file of llama2.c becomes a GGUF file.

use std::path::PathBuf;
use std::sync::Arc;

use smallmind::Error;
use smallmind::format::ByteSource;
use smallmind::format::gguf::Gguf;
use smallmind::model::foreign::{llama2c, open_source};
use smallmind::model::quantize::{QuantizeParams, QuantizePlan};
use smallmind::text::escaped_path;

use crate::args::Convert;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::machine::explain;
use crate::quantize;
use crate::writing::NewFile;

pub fn run(args: &Convert) -> Result<()> {
    interrupt::install();
    let stoppable = Stoppable::begin();
    let source = source(args)?;
    // What is written can be read.
    let gguf = Gguf::open(source.clone())?;
    let mut file = NewFile::begin(&args.output, args.force)?;
    let bytes = match args.mix {
        None => {
            file.copy(&*source, &stoppable)?;
            source.len()
        }
        Some(mix) => {
            let plan = QuantizePlan::new(&gguf, &QuantizeParams::new(mix))?;
            quantize::write(&plan, &mut file, args.quiet, &stoppable)?;
            plan.file_len()
        }
    };
    let (tensors, parameters) = (gguf.tensors().len(), gguf.parameters());
    file.publish(&format!("{tensors} tensors, {parameters} parameters, {:.1} MB", bytes as f64 / 1e6))
}

/// The model as the GGUF file that it will be.
fn source(args: &Convert) -> Result<Arc<dyn ByteSource>> {
    let input = &args.input;
    if input.is_dir() {
        return Ok(open_source(input)?);
    }
    let file = open_source(input).map_err(explain(input))?;
    let mut magic = [0; 4];
    if file.len() >= 4 {
        file.read_at(0, &mut magic)?;
    }
    if &magic == b"GGUF" {
        let text = format!("{} is a GGUF file already", escaped_path(input));
        return Err(Failure::Hinted(Error::invalid(text), "smallmind quantize changes its types".into()));
    }
    let beside = || input.with_file_name("tokenizer.bin");
    let tokenizer: PathBuf = args.tokenizer.clone().unwrap_or_else(beside);
    Ok(Arc::new(llama2c(input, &tokenizer)?))
}
