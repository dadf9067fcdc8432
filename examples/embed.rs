//! Texts in, vectors out: for each line of a file its token ids and its embedding, pooled as the model's file says and
//! of length 1. All lines are spans of one batch.
//! usage: cargo run --release --example embed -- MODEL.gguf TEXTS

use std::path::Path;
use std::sync::Arc;

use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Batch, Engine, EngineParams, Output, Span};
use smallmind::threads::Team;

/// The numbers, with a space between two.
fn line<T: ToString>(numbers: impl Iterator<Item = T>) -> String {
    numbers.map(|x| x.to_string()).collect::<Vec<_>>().join(" ")
}

fn main() -> smallmind::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, texts] = args.as_slice() else {
        return Err(smallmind::Error::invalid("usage: embed MODEL.gguf TEXTS"));
    };
    let read = |source| smallmind::Error::Io { path: texts.into(), source };
    let texts = std::fs::read_to_string(texts).map_err(read)?;
    let model = Model::open(Path::new(file), &LoadParams::default())?;
    let encode = |text| model.tokenizer()?.encode(text, false, true);
    let ids = texts.lines().map(encode).collect::<smallmind::Result<Vec<_>>>()?;
    let tokens = ids.concat();
    let Output::Pooled(pooling) = Output::embedding(&model) else {
        return Err(smallmind::Error::invalid("the model's file states no pooling"));
    };
    let params = EngineParams::default()
        .with_n_sequences(ids.len())
        .with_n_batch(tokens.len())
        .with_n_output(tokens.len())
        .with_output(Output::Pooled(pooling));
    let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(1)?))?;
    let span = |ids: &Vec<u32>| Ok(Span::new(engine.create()?, 0, ids.len()));
    let spans = ids.iter().map(span).collect::<smallmind::Result<Vec<_>>>()?;
    let outputs: Vec<u32> = (0..tokens.len() as u32).collect();
    engine.run(&Batch::new(&tokens, &spans, &outputs))?;
    let width = engine.output().len() / ids.len();
    for (ids, row) in ids.iter().zip(engine.output().chunks(width)) {
        let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        println!("{}\t{}", line(ids.iter()), line(row.iter().map(|x| f64::from(*x) / norm)));
    }
    Ok(())
}
