//! The embedder: engines, threads and memory for batches of texts, and the way of a call through its windows.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::lane::Lane;
use super::make::{Cut, Maker, make_all};
use super::params::{EmbedderParams, LongTexts, Strategy};
use super::prompt::Prompt;
use super::results::{Finish, Results, Sink, Summary, TextStatus};
use super::schedule::{Limits, Queue, coarse_is_faster};
use super::source::{List, Pairs, Source, Spans, Texts};
use super::window::{Window, unlocked};
use crate::error::{Error, Result};
use crate::memory::reserve::{collected, filled};
use crate::model::{Model, Pooling};
use crate::runtime::{Canceller, Engine, EngineParams, MemoryEstimate, Output};
use crate::threads::{MAX_WORKERS, Team};

/// The purpose of the memory, in errors.
const WHAT: &str = "an embedder";

/// Most tokens of several texts in one pass by default: enough for each loaded weight to be used many times, few enough
/// for activations to stay in a core's own cache.
const DEFAULT_BATCH: usize = 512;

/// Most texts in one pass.
const MAX_SPANS: usize = 64;

/// Texts of a window end at so many, or so many bytes. A window of a shared team is shorter, since others wait for it.
const WINDOW: [usize; 2] = [4096, 1 << 20];
const SHARED_WINDOW: [usize; 2] = [64, 1 << 14];

/// Ends an embedder's running call, from any thread.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Stopped>);

#[derive(Debug)]
struct Stopped {
    flag: AtomicBool,
    engines: Vec<Canceller>,
}

impl Stop {
    /// Ends the call that runs now with [`Error::Cancelled`], within a step of the passes that run, or, where these are
    /// about to begin, after them. Rows that are done stay. Without a running call this does nothing.
    pub fn cancel(&self) {
        self.0.flag.store(true, Relaxed);
        self.0.engines.iter().for_each(Canceller::cancel);
    }

    fn is_set(&self) -> bool {
        self.0.flag.load(Relaxed)
    }

    fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Makes vectors of texts with one model; see the [module](super).
pub struct Embedder {
    model: Arc<Model>,
    team: Arc<Team>,
    pooling: Pooling,
    prompt: Prompt,
    long_texts: LongTexts,
    strategy: Strategy,
    finish: Finish,
    n_ctx: usize,
    limits: Limits,
    window_size: [usize; 2],
    fine: Option<Lane>,
    /// One for each worker; none where no pass is coarse.
    coarse: Vec<Mutex<Lane>>,
    makers: Vec<Mutex<Maker>>,
    window: Window,
    parts: Vec<f32>,
    /// The tokens of an empty text: of long spans, those at both ends are kept where they have them.
    frame: Vec<u32>,
    /// The scratch memory of the estimate: a number a worker.
    busy: Vec<f64>,
    stop: Stop,
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedder")
            .field("model", &self.model)
            .field("pooling", &self.pooling)
            .field("width", &self.width())
            .field("strategy", &self.strategy)
            .field("threads", &self.team.count())
            .finish_non_exhaustive()
    }
}

/// An embedder's parameters with defaults filled in, checked against the model.
struct Resolved {
    pooling: Pooling,
    /// The row that pooling reads.
    row: Pooling,
    finish: Finish,
    strategy: Strategy,
    limits: Limits,
    engine: EngineParams,
}

impl Resolved {
    fn new(model: &Model, params: &EmbedderParams) -> Result<Resolved> {
        let workers = params.workers();
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(Error::invalid(format!("threads is {workers}; expected 1 to {MAX_WORKERS}")));
        }
        let pooling = params.pooling_of(model)?;
        let (graph, row) = model.graph().pooled(pooling)?;
        let pooled = graph.shape(row).width;
        let ranks = pooling == Pooling::Rank;
        if ranks && (params.dimensions != 0 || params.long_texts == LongTexts::Split) {
            return Err(Error::invalid(
                "the model gives scores: they have no dimensions to choose, and those of a text's parts have no mean",
            ));
        }
        if params.dimensions > pooled {
            let wanted = params.dimensions;
            return Err(Error::invalid(format!("dimensions is {wanted}; the model's vectors have {pooled}")));
        }
        let width = match params.dimensions {
            _ if ranks => 1,
            0 => pooled,
            dimensions => dimensions,
        };
        let trained = model.config().n_ctx_train.min(EmbedderParams::MAX_DEFAULT_CTX);
        let n_ctx = if params.n_ctx == 0 { trained } else { params.n_ctx };
        let budget = if params.n_batch == 0 { DEFAULT_BATCH } else { params.n_batch };
        let n_batch = budget.max(n_ctx);
        let n_spans = MAX_SPANS.min(budget);
        let engine = EngineParams::default()
            .with_n_sequences(n_spans)
            .with_n_ctx(n_ctx)
            .with_n_positions(n_batch)
            .with_n_batch(n_batch)
            .with_n_output(n_batch)
            .with_output(Output::Pooled(pooling))
            .with_one_span(true)
            .with_kv(params.kv);
        Ok(Resolved {
            pooling,
            row: if ranks { model.config().classifier.pooling } else { pooling },
            finish: Finish { pooled, width, normalize: params.normalize && !ranks },
            strategy: if workers == 1 { Strategy::Fine } else { params.strategy },
            limits: Limits { n_batch: budget, n_spans, workers },
            engine,
        })
    }

    /// Engines on all threads, and engines on one.
    fn lanes(&self) -> [usize; 2] {
        let workers = self.limits.workers;
        match self.strategy {
            Strategy::Fine => [1, 0],
            Strategy::Coarse => [0, workers],
            Strategy::Auto => [1, workers],
        }
    }
}

impl Embedder {
    /// The memory that [`Embedder::new`] would reserve for these parameters: that of its engines. Calls add the tokens of
    /// a window and, where texts are split, a row for each part of a window's texts.
    ///
    /// # Errors
    /// As [`Embedder::new`], except for memory and threads that can't be had.
    pub fn memory(model: &Model, params: &EmbedderParams) -> Result<MemoryEstimate> {
        let resolved = Resolved::new(model, params)?;
        let mut sum = MemoryEstimate { cache_bytes: 0, arena_bytes: 0, total_bytes: 0 };
        let too_large = Error::OutOfMemory { bytes: usize::MAX, what: WHAT };
        for (lanes, threads) in resolved.lanes().into_iter().zip([resolved.limits.workers, 1]) {
            let each = Engine::memory(model, &resolved.engine, threads)?;
            let add = |sum: usize, each: usize| each.checked_mul(lanes).and_then(|all| all.checked_add(sum));
            let sums = add(sum.cache_bytes, each.cache_bytes)
                .zip(add(sum.arena_bytes, each.arena_bytes))
                .zip(add(sum.total_bytes, each.total_bytes));
            let Some(((cache_bytes, arena_bytes), total_bytes)) = sums else { return Err(too_large) };
            sum = MemoryEstimate { cache_bytes, arena_bytes, total_bytes };
        }
        Ok(sum)
    }

    /// Reserves the memory of passes, and starts the threads.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model whose file states no pooling, where none is chosen, and for scores of a model
    /// without a classifier; [`Error::InvalidArgument`] naming the parameter; [`Error::OutOfMemory`];
    /// [`Error::NoThreads`].
    pub fn new(model: Arc<Model>, params: &EmbedderParams) -> Result<Embedder> {
        let resolved = Resolved::new(&model, params)?;
        let Resolved { pooling, row, finish, strategy, limits, engine } = &resolved;
        // Refuses wrong parameters before threads are started.
        Engine::memory(&model, engine, limits.workers)?;
        let team = match &params.team {
            Some(team) => team.clone(),
            None => Arc::new(Team::new(limits.workers)?),
        };
        let [fine, coarse] = resolved.lanes();
        let fine = match fine {
            0 => None,
            _ => Some(Lane::new(model.clone(), engine, *row, team.clone())?),
        };
        let lane = |_| Lane::new(model.clone(), engine, *row, Arc::new(Team::new(1)?)).map(Mutex::new);
        let mut coarse = collected((0..coarse).map(lane), WHAT)?;
        let lanes = coarse.iter_mut().map(|lane| unlocked(lane).engine.canceller());
        let engines = fine.iter().map(|lane| lane.engine.canceller()).chain(lanes);
        let engines = collected(engines.map(Ok), WHAT)?;
        Ok(Embedder {
            pooling: *pooling,
            prompt: params.prompt.clone(),
            long_texts: params.long_texts,
            strategy: *strategy,
            finish: *finish,
            n_ctx: engine.n_ctx,
            limits: *limits,
            window_size: if params.team.is_some() { SHARED_WINDOW } else { WINDOW },
            fine,
            coarse,
            makers: collected((0..limits.workers).map(|_| Ok(Mutex::default())), WHAT)?,
            window: Window::default(),
            parts: Vec::new(),
            frame: match model.tokenizer() {
                Ok(tokenizer) => tokenizer.encode("", false, true)?,
                Err(_) => Vec::new(),
            },
            busy: filled(0.0, limits.workers, WHAT)?,
            stop: Stop(Arc::new(Stopped { flag: AtomicBool::new(false), engines })),
            team,
            model,
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The team it runs on.
    pub fn team(&self) -> &Arc<Team> {
        &self.team
    }

    /// The row that stands for a text.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Floats of a vector; 1 for a reranker, whose texts have scores.
    pub fn width(&self) -> usize {
        self.finish.width
    }

    /// Most tokens of a text.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// The text in front of each text.
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// Puts another text in front of each text from now on: queries and documents may have different ones.
    pub fn set_prompt(&mut self, prompt: Prompt) {
        self.prompt = prompt;
    }

    /// How passes use the threads. One thread runs them one after the other.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// A handle that ends a call from another thread, or from its own callback.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// The vector of each text, behind the [prompt](Embedder::prompt). Text is text: no control token can be written in
    /// it. A text that can't be embedded has a [status](TextStatus) that says why, and a row of zeros, and changes
    /// nothing for the others. An empty text has the vector of the special tokens that the model expects around a text;
    /// where there are none, and no prompt, it is [`TextStatus::Empty`].
    ///
    /// # Errors
    /// Those of [`Model::tokenizer`]; [`Error::InvalidArgument`] for a reranker, and for results without room;
    /// [`Error::Cancelled`] by [`Embedder::stop`] or the progress callback, and [`Error::OutOfMemory`], after which
    /// texts without results are [`TextStatus::NotDone`]; [`Error::Busy`] within a callback that runs on a team.
    pub fn embed(&mut self, texts: &[&str], results: &mut Results<'_>) -> Result<Summary> {
        self.embed_list(&texts, results)
    }

    /// [`Embedder::embed`] of a list whose texts may be broken.
    pub(crate) fn embed_list(&mut self, texts: &dyn List<str>, results: &mut Results<'_>) -> Result<Summary> {
        self.check_embeds()?;
        let model = self.model.clone();
        let prompt = std::mem::take(&mut self.prompt);
        let source =
            model.tokenizer().map(|tokenizer| Texts { list: texts, tokenizer, prompt: prompt.before() });
        let outcome = source.and_then(|source| self.run(&source, &source.frame()?, results));
        self.prompt = prompt;
        outcome
    }

    /// The vector of one text.
    ///
    /// # Errors
    /// Those of [`Embedder::embed`], and of [`TextStatus::check`].
    pub fn embed_one(&mut self, text: &str) -> Result<Vec<f32>> {
        let mut row = filled(0.0, self.width(), "a vector")?;
        let (mut statuses, stride) = ([TextStatus::NotDone], row.len());
        self.embed(&[text], &mut Results::new(&mut row, stride, &mut statuses))?;
        statuses[0].check()?;
        Ok(row)
    }

    /// The vector of each span of tokens as it is: the prompt is not used, and special tokens are the caller's. The model
    /// needs no tokenizer. This allocates nothing once a call has had as many tokens.
    ///
    /// # Errors
    /// Those of [`Embedder::embed`], except for a tokenizer.
    pub fn embed_tokens(&mut self, spans: &[&[u32]], results: &mut Results<'_>) -> Result<Summary> {
        self.embed_spans(&spans, results)
    }

    /// [`Embedder::embed_tokens`] of a list.
    pub(crate) fn embed_spans(
        &mut self,
        spans: &dyn List<[u32]>,
        results: &mut Results<'_>,
    ) -> Result<Summary> {
        self.check_embeds()?;
        let frame = std::mem::take(&mut self.frame);
        let outcome = self.run(&Spans(spans), &frame, results);
        self.frame = frame;
        outcome
    }

    /// The score of each document as an answer to the query, by the file's classifier: the first of its results, as
    /// llama.cpp has it. The two are put together as the file's template says, or, without one, one behind the other with
    /// the special tokens of two texts. Of a pair that is too long, the document's end is left out. Results are as those
    /// of [`Embedder::embed`], with one float a document.
    ///
    /// # Errors
    /// As [`Embedder::embed`]; [`Error::Unsupported`] for a model that is no reranker.
    pub fn rerank(&mut self, query: &str, documents: &[&str], results: &mut Results<'_>) -> Result<Summary> {
        self.rerank_list(query, &documents, results)
    }

    /// [`Embedder::rerank`] of a list whose texts may be broken.
    pub(crate) fn rerank_list(
        &mut self,
        query: &str,
        documents: &dyn List<str>,
        results: &mut Results<'_>,
    ) -> Result<Summary> {
        if self.pooling != Pooling::Rank {
            return Err(Error::Unsupported(format!(
                "{} is no reranker: the file states no classifier's scores as its pooling",
                self.model.config().architecture
            )));
        }
        let model = self.model.clone();
        let pairs = Pairs::new(documents, model.tokenizer()?, model.rerank_template(), query)?;
        let frame = pairs.frame()?;
        self.run(&pairs, &frame, results)
    }

    fn check_embeds(&self) -> Result<()> {
        if self.pooling == Pooling::Rank {
            return Err(Error::invalid(
                "the model is a reranker: it scores documents and has no vectors of texts",
            ));
        }
        Ok(())
    }

    /// Goes through a call's texts.
    fn run(&mut self, source: &dyn Source, frame: &[u32], results: &mut Results<'_>) -> Result<Summary> {
        let start = Instant::now();
        let n_texts = source.len();
        results.check(n_texts, self.finish.width)?;
        self.stop.0.flag.store(false, Relaxed);
        let cut = Cut {
            n_ctx: self.n_ctx,
            long_texts: self.long_texts,
            n_vocab: self.model.config().n_vocab,
            frame,
        };
        let mut sink = Sink::new(results, self.finish, n_texts, std::mem::take(&mut self.parts));
        let mut summary = Summary { texts: n_texts, ..Summary::default() };
        let outcome = self.windows(source, &cut, &mut sink, &mut summary);
        summary.with_vector = sink.with_vector;
        (summary.tokens, summary.passes) = (sink.tokens, sink.passes);
        self.parts = sink.into_parts();
        summary.seconds = start.elapsed().as_secs_f64();
        outcome.map(|()| summary)
    }

    fn windows(
        &mut self,
        source: &dyn Source,
        cut: &Cut<'_>,
        sink: &mut Sink<'_, '_>,
        summary: &mut Summary,
    ) -> Result<()> {
        self.makers.iter_mut().for_each(|maker| unlocked(maker).clear());
        let mut ahead = self.texts_from(source, 0);
        summary.tokenize_seconds += self.tokenize(source, cut, ahead.clone())?;
        while !ahead.is_empty() {
            self.window.gather(&mut self.makers)?;
            sink.begin(&self.window)?;
            for &(text, status) in &self.window.refused {
                sink.refuse(text, status);
            }
            ahead = self.texts_from(source, ahead.end);
            if self.is_coarse() {
                summary.coarse_windows += 1;
                self.run_coarse(source, cut, ahead.clone(), sink, summary)?;
            } else {
                summary.fine_windows += 1;
                self.run_fine(sink, summary)?;
                self.stop.check()?;
                summary.tokenize_seconds += self.tokenize(source, cut, ahead.clone())?;
            }
            sink.join(&self.window);
            self.stop.check()?;
            if sink.report().is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// The texts of the window that begins with this one.
    fn texts_from(&self, source: &dyn Source, begin: usize) -> Range<usize> {
        let [most, most_bytes] = self.window_size;
        let (mut end, mut bytes) = (begin, 0usize);
        while end < source.len() && end - begin < most && bytes < most_bytes {
            bytes = bytes.saturating_add(source.bytes(end));
            end += 1;
        }
        begin..end
    }

    fn is_coarse(&mut self) -> bool {
        match self.strategy {
            Strategy::Fine => false,
            Strategy::Coarse => true,
            Strategy::Auto => coarse_is_faster(&self.window, self.limits, &mut self.busy),
        }
    }

    /// Tokenizes texts on all threads; returns the seconds of all together.
    fn tokenize(&self, source: &dyn Source, cut: &Cut<'_>, texts: Range<usize>) -> Result<f64> {
        let next = TextCounter::new(texts, &self.stop);
        if next.left() <= 1 {
            // Waking a team takes longer.
            let nanoseconds = make_all(&mut lock(&self.makers[0]), true, source, cut, || next.take());
            return Ok(seconds(nanoseconds));
        }
        let nanoseconds = AtomicU64::new(0);
        self.team.run(|worker| {
            let mut maker = lock(&self.makers[worker.index()]);
            let took = make_all(&mut maker, worker.index() == 0, source, cut, || next.take());
            nanoseconds.fetch_add(took, Relaxed);
        })?;
        Ok(seconds(nanoseconds.into_inner()))
    }

    /// Runs the window's passes on all threads.
    fn run_fine(&mut self, sink: &mut Sink<'_, '_>, summary: &mut Summary) -> Result<()> {
        let Some(lane) = &mut self.fine else {
            return Err(Error::Internal("no engine for passes on all threads".into()));
        };
        let queue = Queue::new(&self.window, self.limits, false);
        while let Some(places) = queue.take() {
            self.stop.check()?;
            let start = Instant::now();
            let outcome = lane.run(&self.window, places.clone());
            summary.pass_seconds += start.elapsed().as_secs_f64() * self.limits.workers as f64;
            deliver(sink, &self.window, places, outcome)?;
            if sink.report().is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Runs the window's passes, one on each thread; threads that are done tokenize the texts to come.
    fn run_coarse(
        &self,
        source: &dyn Source,
        cut: &Cut<'_>,
        ahead: Range<usize>,
        sink: &mut Sink<'_, '_>,
        summary: &mut Summary,
    ) -> Result<()> {
        let queue = Queue::new(&self.window, self.limits, true);
        let next = TextCounter::new(ahead, &self.stop);
        let [passing, tokenizing] = [AtomicU64::new(0), AtomicU64::new(0)];
        let (sink, failed) = (Mutex::new(sink), Mutex::new(None));
        self.team.run(|worker| {
            let leads = worker.index() == 0;
            let start = Instant::now();
            let mut lane = lock(&self.coarse[worker.index()]);
            while let Some(places) = queue.take().filter(|_| !self.stop.is_set()) {
                let outcome = lane.run(&self.window, places.clone());
                let mut sink = lock(&sink);
                let delivered = deliver(&mut sink, &self.window, places, outcome);
                if let Err(error) = delivered {
                    lock(&failed).get_or_insert(error);
                    self.stop.cancel();
                } else if leads && sink.report().is_break() {
                    self.stop.cancel();
                }
            }
            passing.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
            let took = make_all(&mut lock(&self.makers[worker.index()]), leads, source, cut, || next.take());
            tokenizing.fetch_add(took, Relaxed);
        })?;
        summary.pass_seconds += seconds(passing.into_inner());
        summary.tokenize_seconds += seconds(tokenizing.into_inner());
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Hands a pass's rows on. A pass that failed costs its texts alone; a cancelled one ends the call.
fn deliver(
    sink: &mut Sink<'_, '_>,
    window: &Window,
    places: Range<usize>,
    outcome: Result<&[f32]>,
) -> Result<()> {
    match outcome {
        Ok(rows) => sink.take(window.items(places), rows),
        Err(Error::Internal(_)) => sink.fail(window.items(places)),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Hands out texts one by one, until the call is cancelled.
struct TextCounter<'a> {
    next: AtomicUsize,
    end: usize,
    stop: &'a Stop,
}

impl<'a> TextCounter<'a> {
    fn new(texts: Range<usize>, stop: &'a Stop) -> Self {
        TextCounter { next: AtomicUsize::new(texts.start), end: texts.end, stop }
    }

    fn left(&self) -> usize {
        self.end - self.next.load(Relaxed).min(self.end)
    }

    fn take(&self) -> Option<usize> {
        let text = self.next.fetch_add(1, Relaxed);
        (text < self.end && !self.stop.is_set()).then_some(text)
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 * 1e-9
}

/// The value behind a lock; a panic while it was held leaves nothing half done that the next use would see.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
