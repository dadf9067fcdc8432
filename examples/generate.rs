//! Text from a model in a few lines: load, tokenise, generate with a callback that streams.
//! usage: cargo run --release --example generate -- "$(examples/fetch-model.sh)" "Once upon a time"

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use smallmind::model::{LoadParams, Model};
use smallmind::runtime::generate::generate;
use smallmind::runtime::sampling::{Sampler, SamplerParams};
use smallmind::runtime::{Context, ContextParams};

fn main() -> smallmind::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(text)) = (args.next(), args.next()) else {
        return Err(smallmind::Error::invalid("usage: generate MODEL.gguf TEXT"));
    };
    let model = Model::open(Path::new(&file), &LoadParams::default())?;
    let prompt = model.tokenizer()?.encode(&text, false, true)?;
    let n_vocab = model.config().n_vocab;
    let mut sampler = Sampler::new(SamplerParams::default().with_seed(1), n_vocab)?;
    let mut context = Context::new(model, &ContextParams::default().with_n_ctx(1024))?;
    let summary = generate(&mut context, &mut sampler, &prompt, 64, &mut |_token, piece| {
        print!("{piece}");
        let _ = std::io::stdout().flush();
        ControlFlow::Continue(())
    })?;
    println!("\n{:.1} tokens/s", summary.decode_rate());
    Ok(())
}
