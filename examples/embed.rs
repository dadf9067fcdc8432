//! Texts in, vectors out: for each line of a file its token ids and its embedding, pooled as the model's file says and
//! of length 1.
//! usage: cargo run --release --example embed -- MODEL TEXTS

use std::path::Path;

use smallmind::embed::{Embedder, EmbedderParams, Results, TextStatus};
use smallmind::model::{LoadParams, Model};

/// The numbers, with a space between two.
fn line<T: ToString>(numbers: impl Iterator<Item = T>) -> String {
    numbers.map(|x| x.to_string()).collect::<Vec<_>>().join(" ")
}

fn main() -> smallmind::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, texts] = args.as_slice() else {
        return Err(smallmind::Error::invalid("usage: embed MODEL TEXTS"));
    };
    let read = |source| smallmind::Error::Io { path: texts.into(), source };
    let texts = std::fs::read_to_string(texts).map_err(read)?;
    let texts: Vec<&str> = texts.lines().collect();
    let model = Model::open(Path::new(file), &LoadParams::default())?;
    let mut embedder = Embedder::new(model.clone(), &EmbedderParams::default())?;
    let width = embedder.width();
    let (mut rows, mut statuses) = (vec![0.0; width * texts.len()], vec![TextStatus::NotDone; texts.len()]);
    embedder.embed(&texts, &mut Results::new(&mut rows, width, &mut statuses))?;
    for ((text, row), status) in texts.iter().zip(rows.chunks(width)).zip(&statuses) {
        status.check()?;
        let ids = model.tokenizer()?.encode(text, false, true)?;
        println!("{}\t{}", line(ids.iter()), line(row.iter()));
    }
    Ok(())
}
