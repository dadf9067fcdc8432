//! `smallmind search`: the texts of a stored set whose vectors are nearest to a query's, compared one by one.

use smallmind::Error;
use smallmind::embed::Embedder;
use smallmind::ops::dot;
use smallmind::text::escaped_path;

use super::args::Search;
use super::engine::{self, Choice};
use super::ranking::{Ranking, Scored};
use super::scan::{Found, scan};
use super::settings::{self, Settings};
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
    let part = || Part { ranking: Ranking::new(args.top), width: 0, length: 0.0 };
    let parts = scan(&args.set, embedder.team(), part, |part, found| {
        if stoppable.requested() {
            return Err(Failure::Interrupted);
        }
        if found.vector.len() > query.len() {
            return Err(other_width(args, found.vector.len(), query.len()));
        }
        part.look_at(&query, found)
    })?;
    Ranking::of(args.top, parts.into_iter().map(|part| part.ranking)).print(args.json)
}

/// A worker's best results.
struct Part {
    ranking: Ranking,
    /// Floats of the last vector, and the length of that part of the query.
    width: usize,
    length: f32,
}

impl Part {
    /// A set of fewer dimensions than the query holds the first ones.
    fn look_at(&mut self, query: &[f32], found: Found<'_>) -> Result<()> {
        let (vector, width) = (found.vector, found.vector.len());
        if self.width != width {
            (self.width, self.length) = (width, length(&query[..width])?);
        }
        let score = quotient(dot(&query[..width], vector)?, self.length * length(vector)?);
        if self.ranking.wants(score) {
            let (id, text) = match found.record {
                Some(record) => (record.id, record.text),
                None => (found.place.to_string(), None),
            };
            self.ranking.add(Scored { score, place: found.place, id, text });
        }
        Ok(())
    }
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
    Ok(quotient(dot(a, b)?, length(a)? * length(b)?))
}

fn length(a: &[f32]) -> smallmind::Result<f32> {
    Ok(dot(a, a)?.sqrt())
}

fn quotient(product: f32, lengths: f32) -> f32 {
    if lengths > 0.0 { product / lengths } else { 0.0 }
}
