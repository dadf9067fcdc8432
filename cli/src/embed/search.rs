//! `smallmind search`: the texts of a stored set whose vectors are nearest to a query's, compared one by one.

use smallmind::Error;
use smallmind::embed::Embedder;
use smallmind::ops::dot;
use smallmind::text::escaped_path;

use super::args::Search;
use super::engine::{self, Choice};
use super::ranking::{Ranking, Scored};
use super::settings::{self, Settings};
use super::stored;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};

/// Cosine from which two vectors of a text are those of one model: other kinds of activations move it less.
const SAME: f32 = 0.99;

pub fn run(args: &Search) -> Result<()> {
    interrupt::install();
    let settings = Settings::read(&args.set)?;
    let mut embedder =
        engine::open(&args.embedding, Some(&args.prompting), Choice { normalize: true, prompt: "query" })?;
    if let Some(settings) = &settings {
        check(args, settings, &mut embedder)?;
    }
    let query = embedder.embed_one(&args.query)?;
    let stoppable = Stoppable::begin();
    let mut ranking = Ranking::new(args.top);
    stored::read(&args.set, |record, vector| {
        if stoppable.requested() {
            return Err(Failure::Interrupted);
        }
        if vector.len() > query.len() {
            return Err(other_width(args, vector.len(), query.len()));
        }
        // A set of fewer dimensions holds the first ones.
        let score = cosine(&query[..vector.len()], vector)?;
        if ranking.wants(score) {
            ranking.add(Scored { score, id: record.id, text: record.text });
        }
        Ok(())
    })?;
    ranking.print(args.json)
}

/// Refuses a set whose settings say that another model made it.
fn check(args: &Search, settings: &Settings, embedder: &mut Embedder) -> Result<()> {
    let prompt = embedder.prompt().clone();
    embedder.set_prompt(smallmind::embed::Prompt::text(settings.prompt.as_str()));
    let probe = settings::probe(embedder)?;
    embedder.set_prompt(prompt);
    if settings.width > probe.len() {
        return Err(other_width(args, settings.width, probe.len()));
    }
    match cosine(&probe[..settings.width], &settings.probe)? >= SAME {
        true => Ok(()),
        false => {
            let set = escaped_path(&args.set);
            Err(Error::invalid(format!("{set} was made with another model or pooling ({})", settings.model))
                .into())
        }
    }
}

fn other_width(args: &Search, set: usize, model: usize) -> Failure {
    let path = escaped_path(&args.set);
    Error::invalid(format!(
        "{path} has vectors of {set} numbers, and the model's have {model}: it is another model's"
    ))
    .into()
}

/// The cosine of two vectors; 0 where one is zeros.
pub fn cosine(a: &[f32], b: &[f32]) -> smallmind::Result<f32> {
    let (product, lengths) = (dot(a, b)?, dot(a, a)?.sqrt() * dot(b, b)?.sqrt());
    Ok(if lengths > 0.0 { product / lengths } else { 0.0 })
}
