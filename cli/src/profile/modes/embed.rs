//! Batches of texts to vectors: a part for each strategy, whose batches are a method of its name, so that reports and
//! comparisons tell the strategies apart.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use smallmind::embed::{Embedder, EmbedderParams, Results, Strategy, TextStatus};
use smallmind::format::gguf::Gguf;
use smallmind::model::Model;
use smallmind::model::foreign::open_source;
use smallmind::profile::{self, Zone, zone};
use smallmind::report::data::ModelSpec;
use smallmind::text::{escaped, escaped_path};
use smallmind::{Error, Result};

use super::super::args::{Compared, Embed};
use super::plan::{PartPlan, Plan, Workload, model_spec};
use super::sentences::sentences;
use super::threads_seen::ThreadsSeen;
use crate::failure::{self, Failure};
use crate::machine::explain;
use crate::session::{loaded, with_load_bar};
use crate::small_file;

/// Most bytes of a file of texts.
const MAX_BYTES: u64 = 64 << 20;

/// A strategy that is profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The name of its part.
    pub name: &'static str,
    /// The method that a batch is.
    pub method: &'static str,
    strategy: Strategy,
}

const FINE: Way = Way { name: "fine", method: "Embed_Fine", strategy: Strategy::Fine };
const COARSE: Way = Way { name: "coarse", method: "Embed_Coarse", strategy: Strategy::Coarse };
const AUTO: Way = Way { name: "auto", method: "Embed_Auto", strategy: Strategy::Auto };

/// What a strategy's batches were, beyond what the report holds.
#[derive(Clone, Debug)]
pub struct Facts {
    pub way: Way,
    /// Bytes of the embedder's engines, by its own estimate.
    pub engine_bytes: usize,
    /// Threads that were started with the embedder; none where the system doesn't tell.
    pub started: Option<usize>,
    /// Threads that were started from the first batch to the beginning of the last run.
    pub started_later: Option<usize>,
    /// Tokens of a run.
    pub tokens: u64,
    /// Windows of a run, by whether their passes ran one on each thread.
    pub coarse_windows: u64,
    pub fine_windows: u64,
}

#[cfg(test)]
impl Facts {
    /// Facts of no run.
    pub fn of_test() -> Facts {
        Facts {
            way: FINE,
            engine_bytes: 0,
            started: None,
            started_later: None,
            tokens: 0,
            coarse_windows: 0,
            fine_windows: 0,
        }
    }
}

/// The facts of all strategies, in the order of their parts.
pub type Noted = Rc<RefCell<Vec<Facts>>>;

pub fn plan(args: &Embed, threads: usize, noted: &Noted) -> failure::Result<Plan> {
    let ways = ways(args.strategy, threads)?;
    let texts = texts(args)?;
    let adapters = args.arithmetic.adapters.open()?;
    let model = with_load_bar(args.results.quiet, |progress| {
        loaded(&args.model, false, &args.arithmetic.load_params(&adapters).with_progress(progress))
    })?;
    let spec = spec(&args.model, &model)?;
    let mut parts = Vec::new();
    for way in ways {
        let source = match &args.texts {
            Some(_) => "of the file",
            None => "built in",
        };
        let about =
            format!("{} batches of {} texts {source}, {threads} threads.", args.iterations, args.batch);
        let batches = Batches::new(way, args, threads, &model, &spec, &texts, noted)?;
        parts.push(PartPlan { name: way.name.into(), about, workloads: vec![Box::new(batches)] });
    }
    Ok(Plan { mode: "embed", kernels: *model.kernels(), threads, parts })
}

/// The strategies to run. On one thread there is only one.
fn ways(compared: Compared, threads: usize) -> failure::Result<Vec<Way>> {
    match (compared, threads) {
        (Compared::Coarse | Compared::Auto, 1) => Err(Failure::Usage(
            "invalid value for '--strategy': on one thread all strategies are the same (--threads 2 or more)"
                .into(),
        )),
        (Compared::Fine, _) | (Compared::Both, 1) => Ok(vec![FINE]),
        (Compared::Coarse, _) => Ok(vec![COARSE]),
        (Compared::Auto, _) => Ok(vec![AUTO]),
        (Compared::Both, _) => Ok(vec![FINE, COARSE]),
    }
}

/// The texts that batches take, at least as many as a batch has.
fn texts(args: &Embed) -> Result<Rc<[String]>> {
    let Some(path) = &args.texts else { return Ok(sentences(args.batch).into()) };
    let file = small_file::read_text(path, MAX_BYTES)?;
    let lines: Vec<&str> = file.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Err(Error::invalid(format!("{}: there is no text in it", escaped_path(path))));
    }
    let count = lines.len().max(args.batch);
    Ok(lines.into_iter().cycle().take(count).map(str::to_owned).collect())
}

/// The model's description for the report.
fn spec(path: &Path, model: &Model) -> failure::Result<ModelSpec> {
    let source = open_source(path).map_err(explain(path))?;
    let tensors = Gguf::open(source)?.tensors().len();
    let name = match model.config().name.as_str() {
        "" => path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        name => name.to_owned(),
    };
    // Reports show it in pages and tables, on one line.
    Ok(model_spec(&escaped(&name).to_string(), model, tensors))
}

/// A strategy's batches.
struct Batches {
    way: Way,
    /// All batches of a run.
    inference: Zone,
    /// Each of them.
    method: Zone,
    batch: usize,
    iterations: usize,
    texts: Rc<[String]>,
    embedder: Embedder,
    rows: Vec<f32>,
    statuses: Vec<TextStatus>,
    spec: ModelSpec,
    /// The threads that there were before the first batch.
    threads: Option<ThreadsSeen>,
    /// Its place among the facts.
    place: usize,
    noted: Noted,
}

impl Batches {
    fn new(
        way: Way,
        args: &Embed,
        threads: usize,
        model: &Arc<Model>,
        spec: &ModelSpec,
        texts: &Rc<[String]>,
        noted: &Noted,
    ) -> Result<Batches> {
        let params = EmbedderParams::default()
            .with_strategy(way.strategy)
            .with_threads(threads)
            .with_kv(args.arithmetic.kv);
        let engine_bytes = Embedder::memory(model, &params)?.total_bytes;
        let before = ThreadsSeen::now();
        let embedder = Embedder::new(model.clone(), &params)?;
        let started = before.started_since(&ThreadsSeen::now());
        let mut facts = noted.borrow_mut();
        facts.push(Facts {
            way,
            engine_bytes,
            started,
            started_later: None,
            tokens: 0,
            coarse_windows: 0,
            fine_windows: 0,
        });
        Ok(Batches {
            way,
            inference: zone("Inference")?,
            method: zone(way.method)?,
            batch: args.batch,
            iterations: args.iterations,
            texts: texts.clone(),
            rows: vec![0.0; args.batch * embedder.width()],
            statuses: vec![TextStatus::NotDone; args.batch],
            embedder,
            spec: spec.clone(),
            threads: None,
            place: facts.len() - 1,
            noted: noted.clone(),
        })
    }

    /// Runs batches, each of the texts behind those of the one before, and starts over behind the last text.
    fn batches(&mut self, count: usize) -> Result<()> {
        // As long as the texts, and a batch that begins at the last one.
        let ring: Vec<&str> =
            self.texts.iter().cycle().take(self.texts.len() + self.batch).map(String::as_str).collect();
        let (mut tokens, mut windows, width) = (0, [0, 0], self.embedder.width());
        let inference = profile::scope(self.inference);
        for i in 0..count {
            let first = i * self.batch % self.texts.len();
            let mut results = Results::new(&mut self.rows, width, &mut self.statuses);
            let summary = {
                let _batch = profile::scope(self.method);
                self.embedder.embed(&ring[first..first + self.batch], &mut results)?
            };
            self.statuses.iter().try_for_each(|status| status.check())?;
            tokens += summary.tokens;
            windows[0] += summary.coarse_windows;
            windows[1] += summary.fine_windows;
        }
        drop(inference);
        if count == self.iterations {
            let facts = &mut self.noted.borrow_mut()[self.place];
            (facts.tokens, [facts.coarse_windows, facts.fine_windows]) = (tokens, windows);
        }
        Ok(())
    }
}

impl Workload for Batches {
    fn name(&self) -> &str {
        self.way.name
    }

    fn prepare(&mut self) -> Result<()> {
        let now = ThreadsSeen::now();
        match &self.threads {
            None => self.threads = Some(now),
            Some(first) => self.noted.borrow_mut()[self.place].started_later = first.started_since(&now),
        }
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        self.batches(self.iterations)
    }

    fn token(&mut self) -> Option<Result<()>> {
        Some(self.batches(1))
    }

    fn model(&self) -> Option<(ModelSpec, u64)> {
        Some((self.spec.clone(), self.noted.borrow()[self.place].tokens))
    }
}
