//! `smallmind quantize`: a model file with fewer bits a weight, and a table of what that cost.

use std::ops::ControlFlow;
use std::time::Instant;

use serde_json::{Value as Json, json};
use smallmind::Error;
use smallmind::format::gguf::Gguf;
use smallmind::model::foreign::open_source;
use smallmind::model::quantize::{Importance, QuantizeParams, QuantizePlan, QuantizedTensor};
use smallmind::quant::DType;

use crate::args::Quantize;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::machine::explain;
use crate::output::{PATIENCE, bar, print, print_json};
use crate::writing::NewFile;

/// Steps of the bar.
const STEPS: u64 = 1000;

pub fn run(args: &Quantize) -> Result<()> {
    interrupt::install();
    let stoppable = Stoppable::begin();
    let gguf = Gguf::open(open_source(&args.input).map_err(explain(&args.input))?)?;
    let importance = match &args.imatrix {
        Some(path) => Some(Importance::read(&Gguf::open_path(path).map_err(explain(path))?)?),
        None => None,
    };
    let params = QuantizeParams::new(args.mix)
        .with_pure(args.pure)
        .with_importance(importance.as_ref())
        .with_requantize(args.requantize);
    let quantized = gguf.tensors().iter().any(|tensor| tensor.ty.dtype().is_some_and(DType::is_quantized));
    let plan = QuantizePlan::new(&gguf, &params).map_err(|error| match error {
        Error::Unsupported(_) if quantized && !args.requantize => {
            Failure::Hinted(error, "--requantize does it all the same".into())
        }
        other => Failure::Failed(other),
    })?;
    let mut file = NewFile::begin(&args.output, args.force)?;
    let tensors = write(&plan, &mut file, args.quiet, &stoppable)?;
    let total = Total::of(&gguf, &plan);
    if args.json {
        file.publish_silently()?;
        let text = serde_json::to_string_pretty(&as_json(args, &tensors, &total));
        return Ok(print_json(&text.map_err(|error| Error::Internal(error.to_string()))?)?);
    }
    if !args.quiet {
        print(&table(&tensors))?;
    }
    file.publish(&format!(
        "{}, {:.1} MB of {:.1} MB, {:.2} bits a parameter",
        args.mix.name(),
        total.bytes_to as f64 / 1e6,
        total.bytes_from as f64 / 1e6,
        total.bits()
    ))
}

/// Writes the planned file, with a bar where that takes long. Returns a line for each tensor.
pub fn write(
    plan: &QuantizePlan<'_>,
    file: &mut NewFile<'_>,
    quiet: bool,
    stoppable: &Stoppable,
) -> Result<Vec<QuantizedTensor>> {
    let progress = bar(quiet, STEPS, "quantizing {bar:40} {percent:>3} %, {eta} left");
    let start = Instant::now();
    let tensors = plan.run(
        |bytes| file.write(bytes),
        |done| {
            if start.elapsed() > PATIENCE {
                progress.set_position((done * STEPS as f64) as u64);
            }
            if stoppable.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    progress.finish_and_clear();
    tensors.map_err(|error| match error {
        Error::Cancelled => Failure::Interrupted,
        other => Failure::Failed(other),
    })
}

/// The sizes of both files.
struct Total {
    bytes_from: u64,
    bytes_to: u64,
    parameters: u64,
}

impl Total {
    fn of(gguf: &Gguf, plan: &QuantizePlan<'_>) -> Total {
        Total { bytes_from: gguf.source().len(), bytes_to: plan.file_len(), parameters: gguf.parameters() }
    }

    fn bits(&self) -> f64 {
        8.0 * self.bytes_to as f64 / self.parameters.max(1) as f64
    }
}

/// A line a tensor that was converted; those that were copied are one line.
fn table(tensors: &[QuantizedTensor]) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let (converted, copied): (Vec<_>, Vec<_>) = tensors.iter().partition(|tensor| tensor.from != tensor.to);
    let mut text =
        format!("{:<36} {:>7} {:>7} {:>10} {:>10} {:>8}\n", "tensor", "from", "to", "MB", "MB", "error");
    for tensor in converted {
        let QuantizedTensor { name, from, to, bytes_from, bytes_to, error, .. } = tensor;
        let (before, after) = (megabytes(*bytes_from), megabytes(*bytes_to));
        let weighted = if tensor.weighted { "  weighted" } else { "" };
        text.push_str(&format!(
            "{name:<36} {from:>7} {to:>7} {before:>10.3} {after:>10.3} {error:>8.5}{weighted}\n"
        ));
    }
    if !copied.is_empty() {
        let bytes = megabytes(copied.iter().map(|tensor| tensor.bytes_to).sum());
        text.push_str(&format!("{:<52} {:>21.3}\n", format!("{} others, as they are", copied.len()), bytes));
    }
    text.push_str("error: root mean square of the errors over that of the values\n\n");
    text
}

fn as_json(args: &Quantize, tensors: &[QuantizedTensor], total: &Total) -> Json {
    let line = |tensor: &QuantizedTensor| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "from": tensor.from.to_string(),
            "to": tensor.to.to_string(),
            "bytes_from": tensor.bytes_from,
            "bytes_to": tensor.bytes_to,
            "error": tensor.error,
            "weighted": tensor.weighted,
        })
    };
    json!({
        "file": args.output.display().to_string(),
        "type": args.mix.name(),
        "bytes_from": total.bytes_from,
        "bytes_to": total.bytes_to,
        "bits_a_parameter": total.bits(),
        "tensors": tensors.iter().map(line).collect::<Vec<_>>(),
    })
}
