//! `smallmind info` and `smallmind kernels`: what a file holds, what this build and CPU can run.

use std::io::Write;
use std::sync::Arc;

use smallmind::format::gguf::Gguf;
use smallmind::format::{Description, FileSource, describe};
use smallmind::kernels::{self, KernelSet};
use smallmind::{Error, Result};

use crate::args::Info;

pub fn file(args: &Info) -> Result<()> {
    let gguf = Gguf::open(Arc::new(FileSource::open(&args.file)?))?;
    let mut text = summary(&describe(&gguf));
    if args.metadata {
        text.push_str("\nmetadata\n");
        for (key, value) in gguf.metadata().iter() {
            text.push_str(&format!("  {key} = {}\n", value));
        }
    }
    if args.tensors {
        text.push_str("\ntensors\n");
        for tensor in gguf.tensors() {
            let shape = tensor.shape().iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
            text.push_str(&format!("  {:<32} {:>6}  {shape}\n", tensor.name, tensor.ty.to_string()));
        }
    }
    print(&text)
}

fn summary(d: &Description) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("{key:<16} {value}\n"));
        }
    };
    line("file", Some(format!("{} ({:.1} MB, GGUF v{})", d.source, d.file_bytes as f64 / 1e6, d.version)));
    line("name", d.name.clone());
    line("architecture", d.architecture.clone());
    line("license", d.license.clone());
    line("parameters", Some(format!("{:.1} M in {} tensors", d.parameters as f64 / 1e6, d.tensors)));
    line("layers", d.block_count.map(|n| n.to_string()));
    line("width", d.embedding_length.map(|n| n.to_string()));
    line("context", d.context_length.map(|n| format!("{n} positions")));
    line("tokenizer", d.tokenizer.clone());
    line("vocabulary", d.vocabulary.map(|n| format!("{n} tokens")));
    line("chat template", Some(if d.chat_template { "yes" } else { "no" }.into()));
    for share in &d.types {
        let (ty, megabytes) = (share.ty.to_string(), share.bytes as f64 / 1e6);
        text.push_str(&format!("{:<16} {ty:<6} {:>4} tensors {megabytes:>9.1} MB\n", "", share.tensors));
    }
    text
}

pub fn kernels() -> Result<()> {
    let chosen = KernelSet::default_set()?;
    let mut text = format!("level in use: {} (SMALLMIND_ISA chooses another)\n\n", chosen.isa.name());
    text.push_str(&format!("{:<16} {:<6} {:<14} {:>7}  runs here\n", "op", "type", "level", "tile"));
    for info in kernels::enumerate() {
        let tile = format!("{}x{}", info.mr, info.nr);
        let runs = if info.isa.is_available() { "yes" } else { "no" };
        text.push_str(&format!(
            "{:<16} {:<6} {:<14} {tile:>7}  {runs}\n",
            info.op,
            info.dtype,
            info.isa.name()
        ));
    }
    print(&text)
}

/// Prints, minding a closed pipe (`smallmind info … | head`).
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Io { path: "standard output".into(), source })
        }
        _ => Ok(()),
    }
}
