//! `smallmind rerank`: documents in the order of their scores as answers to a query.

use super::args::Rerank;
use super::engine::{self, Choice, Run};
use super::inputs::{Inputs, Reading};
use super::ranking::{Ranking, Scored};
use crate::failure::Result;
use crate::interrupt;
use crate::output::remark;

pub fn run(args: &Rerank) -> Result<()> {
    interrupt::install();
    let reading = Reading { whole_files: args.whole_files, field: args.field.clone() };
    let mut inputs = Inputs::open(&args.inputs, reading, &[])?;
    let mut embedder = engine::open(&args.embedding, None, Choice { normalize: false, prompt: "" })?;
    // A wrong model is told before documents are read.
    embedder.rerank(&args.query, &[], &mut smallmind::embed::Results::new(&mut [], 1, &mut []))?;
    let mut run = Run::new(&inputs, args.embedding.quiet);
    let mut ranking = Ranking::new(if args.top == 0 { usize::MAX } else { args.top });
    let (query, mut place) = (args.query.as_str(), 0);
    while let Some(chunk) =
        run.next(&mut inputs, &mut embedder, |embedder, texts, out| embedder.rerank(query, texts, out))?
    {
        for (text, status, score) in chunk.results() {
            place += 1;
            match score {
                Some(score) => ranking.add(Scored {
                    score: score[0],
                    place,
                    id: text.id.clone(),
                    text: text.text.as_ref().ok().cloned(),
                }),
                None if !args.embedding.quiet => remark(&format!("[no score of {}: {status}]\n", text.id)),
                None => {}
            }
        }
    }
    ranking.print(args.json)?;
    run.report(args.embedding.quiet);
    Ok(())
}
