//! `smallmind info`: the contents of a file.

use std::sync::Arc;

use smallmind::Result;
use smallmind::format::gguf::Gguf;
use smallmind::format::{Description, FileSource, describe};
use smallmind::model::read_graph;
use smallmind::runtime::lower;

use crate::args::Info;
use crate::output::{print, printable};

pub fn file(args: &Info) -> Result<()> {
    let gguf = Gguf::open(Arc::new(FileSource::open(&args.file)?))?;
    if args.graph || args.plan {
        return print(&computation(&gguf, args)?);
    }
    let mut text = summary(&describe(&gguf));
    text.push_str(&remarks(&gguf));
    if args.metadata {
        text.push_str("\nmetadata\n");
        for (key, value) in gguf.metadata().iter() {
            text.push_str(&format!("  {} = {value}\n", printable(key)));
        }
    }
    if args.tensors {
        text.push_str("\ntensors\n");
        for tensor in gguf.tensors() {
            let shape = tensor.shape().iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
            let (name, ty) = (printable(&tensor.name), tensor.ty.to_string());
            text.push_str(&format!("  {name:<32} {ty:>7}  {shape}\n"));
        }
    }
    print(&text)
}

/// What the file states and this version ignores, or the reason why it can't run the file.
fn remarks(gguf: &Gguf) -> String {
    match read_graph(gguf) {
        Ok((config, _)) => {
            config.warnings.iter().map(|warning| format!("{:<16} {warning}\n", "warning")).collect()
        }
        Err(error) => format!("{:<16} {error}\n", "can't be run"),
    }
}

/// The graph and the plan. The file's header is enough for them.
fn computation(gguf: &Gguf, args: &Info) -> Result<String> {
    let (_, graph) = read_graph(gguf)?;
    let mut texts = Vec::new();
    if args.graph {
        texts.push(graph.to_string());
    }
    if args.plan {
        texts.push(lower(&graph, args.activations, graph.logits)?.text(&graph));
    }
    Ok(texts.join("\n"))
}

fn summary(d: &Description) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("{key:<16} {}\n", printable(&value)));
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
        text.push_str(&format!("{:<16} {ty:<7} {:>4} tensors {megabytes:>9.1} MB\n", "", share.tensors));
    }
    text
}
