//! Token ids in, logits out: writes the logits of a model file after each of a fixed list of tokens, as f32.
//! The file needs no vocabulary. benches/peers/llama_cpp_archs compares its output with llama.cpp's.
//! usage: cargo run --release --example logits -- MODEL.gguf OUT [TOKENS]

use std::path::Path;

use smallmind::kv::CacheType;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};

/// Token i of n from a vocabulary of n_vocab: the same rule as in benches/peers/llama_cpp_archs/logits.cpp.
fn tokens(n: usize, n_vocab: usize) -> Vec<u32> {
    (0..n).map(|i| ((37 * i + 11 * i * i + 5) % n_vocab) as u32).collect()
}

fn main() -> smallmind::Result<()> {
    let usage = || smallmind::Error::invalid("usage: logits MODEL.gguf OUT [TOKENS]");
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(out)) = (args.next(), args.next()) else {
        return Err(usage());
    };
    let n = match args.next() {
        Some(n) => n.parse().map_err(|_| usage())?,
        None => 40,
    };
    let model = Model::open(Path::new(&file), &LoadParams::default())?;
    let tokens = tokens(n, model.config().n_vocab);
    let params = ContextParams::default()
        .with_n_ctx(n)
        .with_n_batch(n)
        .with_n_output(n)
        .with_threads(1)
        .with_kv(CacheType::F32);
    let mut context = Context::new(model, &params)?;
    context.decode(&tokens, Logits::All)?;
    let bytes: Vec<u8> = context.logits().iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(&out, bytes).map_err(|source| smallmind::Error::Io { path: out.into(), source })
}
