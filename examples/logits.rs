//! Token ids in, logits out: writes the logits of a model file after each of a fixed list of tokens, as f32; with
//! `--embeddings` the last hidden rows, and with `--pooled` the row that the file's pooling makes of them.
//! The file needs no vocabulary. benches/peers/llama_cpp_archs compares its output with llama.cpp's.
//! usage: cargo run --release --example logits -- MODEL.gguf OUT [TOKENS] [--embeddings | --pooled]

use std::path::Path;
use std::sync::Arc;

use smallmind::kv::CacheType;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Batch, Engine, EngineParams, Output, Span};
use smallmind::threads::Team;

/// Token i of n from a vocabulary of n_vocab: the same rule as in benches/peers/llama_cpp_archs/logits.cpp.
fn tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    (0..n).map(|i| ((37 * i + 11 * i * i + 5) % n_vocab) as u32).collect()
}

fn main() -> smallmind::Result<()> {
    let usage =
        || smallmind::Error::invalid("usage: logits MODEL.gguf OUT [TOKENS] [--embeddings | --pooled]");
    let (options, words): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let output = match options.as_slice() {
        [] => Some(Output::Logits),
        [option] if option == "--embeddings" => Some(Output::Hidden),
        [option] if option == "--pooled" => None,
        _ => return Err(usage()),
    };
    let (file, out, n) = match words.as_slice() {
        [file, out] => (file, out, 40),
        [file, out, n] => (file, out, n.parse().map_err(|_| usage())?),
        _ => return Err(usage()),
    };
    let model = Model::open(Path::new(file), &LoadParams::default())?;
    let output = output.unwrap_or_else(|| Output::embedding(&model));
    let tokens = tokens(n, model.config().n_vocab);
    let params = EngineParams::default()
        .with_n_ctx(n)
        .with_n_batch(n)
        .with_n_output(n)
        .with_output(output)
        .with_kv(CacheType::F32);
    let mut engine = Engine::new(model, &params, Arc::new(Team::new(1)?))?;
    let span = Span::new(engine.create()?, 0, n);
    let outputs: Vec<u32> = (0..n as u32).collect();
    engine.run(&Batch::new(&tokens, &[span], &outputs))?;
    let bytes: Vec<u8> = engine.output().iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(out, bytes).map_err(|source| smallmind::Error::Io { path: out.into(), source })
}
