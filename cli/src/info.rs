//! `smallmind info`: the contents of a file.

use serde_json::{Map, Value as Json, json};
use smallmind::Error;
use smallmind::format::gguf::{Array, Gguf, TensorInfo, Value};
use smallmind::format::{Description, describe};
use smallmind::model::foreign::open_source;
use smallmind::model::read_graph;
use smallmind::runtime::lower;
use smallmind::text::{escaped, escaped_bytes};

use crate::args::Info;
use crate::estimate::Estimate;
use crate::failure::Result;
use crate::machine::explain;
use crate::output::{print, print_json};

pub fn file(args: &Info) -> Result<()> {
    let gguf = Gguf::open(open_source(&args.file).map_err(explain(&args.file))?)?;
    if args.json {
        let text = serde_json::to_string_pretty(&as_json(&gguf, args))
            .map_err(|error| Error::Internal(error.to_string()))?;
        return Ok(print_json(&text)?);
    }
    if args.graph || args.plan {
        return Ok(print(&computation(&gguf, args)?)?);
    }
    let description = describe(&gguf);
    let mut text = summary(&description);
    for (key, value) in Estimate::of(&gguf, &description).lines() {
        text.push_str(&format!("{key:<16} {value}\n"));
    }
    text.push_str(&remarks(&gguf));
    if args.metadata {
        text.push_str("\nmetadata\n");
        for (key, value) in gguf.metadata().iter() {
            text.push_str(&format!("  {} = {value}\n", escaped(key)));
        }
    }
    if args.tensors {
        text.push_str("\ntensors\n");
        for tensor in gguf.tensors() {
            let shape = tensor.shape().iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
            let (name, ty) = (escaped(&tensor.name).to_string(), tensor.ty.to_string());
            text.push_str(&format!("  {name:<32} {ty:>7}  {shape}\n"));
        }
    }
    Ok(print(&text)?)
}

/// What the file states and this version ignores, or the reason why it can't run the file.
fn remarks(gguf: &Gguf) -> String {
    let line = |key: &str, text: &str| format!("{key:<16} {}\n", escaped(text));
    match read_graph(gguf) {
        Ok((config, _)) => config.warnings.iter().map(|warning| line("warning", warning)).collect(),
        Err(error) => line("can't be run", &error.to_string()),
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
        texts.push(lower(&graph, args.activations, graph.logits.unwrap_or(graph.hidden))?.text(&graph));
    }
    Ok(texts.join("\n"))
}

fn summary(d: &Description) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("{key:<16} {}\n", escaped(&value)));
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

/// The same facts; a fact that the file doesn't state is null.
fn as_json(gguf: &Gguf, args: &Info) -> Json {
    let d = describe(gguf);
    let share = |share: &smallmind::format::TypeShare| {
        json!({
            "type": share.ty.to_string(),
            "tensors": share.tensors,
            "elements": share.elements,
            "bytes": share.bytes,
        })
    };
    let mut facts = json!({
        "file": d.source,
        "bytes": d.file_bytes,
        "gguf_version": d.version,
        "name": d.name,
        "architecture": d.architecture,
        "license": d.license,
        "parameters": d.parameters,
        "tensor_count": d.tensors,
        "layers": d.block_count,
        "width": d.embedding_length,
        "context": d.context_length,
        "tokenizer": d.tokenizer,
        "vocabulary": d.vocabulary,
        "chat_template": d.chat_template,
        "types": d.types.iter().map(share).collect::<Vec<_>>(),
    });
    facts["estimate"] = Estimate::of(gguf, &d).json();
    match read_graph(gguf) {
        Ok((config, _)) => facts["warnings"] = json!(config.warnings),
        Err(error) => facts["cannot_be_run"] = json!(error.to_string()),
    }
    if args.metadata {
        let values = gguf.metadata().iter().map(|(key, value)| (key.to_owned(), value_json(value)));
        facts["metadata"] = values.collect::<Map<_, _>>().into();
    }
    if args.tensors {
        let tensor = |tensor: &TensorInfo| json!({ "name": tensor.name, "type": tensor.ty.to_string(), "shape": tensor.shape() });
        facts["tensors"] = gguf.tensors().iter().map(tensor).collect();
    }
    facts
}

/// A value in full. Numbers that JSON doesn't have (NaN, infinities) are null; bytes that aren't UTF-8 are escaped.
fn value_json(value: &Value) -> Json {
    match value {
        Value::U8(x) => json!(x),
        Value::I8(x) => json!(x),
        Value::U16(x) => json!(x),
        Value::I16(x) => json!(x),
        Value::U32(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::U64(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Bool(x) => json!(x),
        Value::Str(text) => json!(text),
        Value::Bytes(bytes) => json!(escaped_bytes(bytes).to_string()),
        Value::Array(array) => array_json(array),
    }
}

fn array_json(array: &Array) -> Json {
    match array {
        Array::U8(a) => json!(a),
        Array::I8(a) => json!(a),
        Array::U16(a) => json!(a),
        Array::I16(a) => json!(a),
        Array::U32(a) => json!(a),
        Array::I32(a) => json!(a),
        Array::U64(a) => json!(a),
        Array::I64(a) => json!(a),
        Array::F32(a) => json!(a),
        Array::F64(a) => json!(a),
        Array::Bool(a) => json!(a),
        Array::Str(texts) => texts.iter().collect(),
        Array::Bytes(texts) => texts.iter().map(|bytes| escaped_bytes(bytes).to_string()).collect(),
        Array::Array(arrays) => arrays.iter().map(array_json).collect(),
    }
}
