//! The embedder that a command asks for, and chunks of texts that go through it, with progress, until Ctrl-C.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use smallmind::embed::{Embedder, EmbedderParams, LongTexts, Prompt, Results, Strategy, Summary, TextStatus};
use smallmind::model::{Model, Pooling};
use smallmind::{Error, threads};

use super::args::{Embedding, Long, Prompting, Row, Way};
use super::inputs::{Inputs, Text};
use crate::failure::{Failure, Result};
use crate::interrupt::Stoppable;
use crate::machine::warn_of_threads;
use crate::output::{PATIENCE, bar, progress, remark};
use crate::session::{loaded, with_load_bar};

/// A chunk ends at so many texts, or so many bytes of them, times a factor that begins with 1.
const TEXTS: usize = 64;
const BYTES: usize = 1 << 16;
/// The largest factor.
const LARGEST: usize = 64;
/// Most floats of a chunk's vectors.
const FLOATS: usize = 4 << 20;
/// A chunk that took less is followed by one twice as large, and one that took more by a smaller one: a chunk is what is
/// lost when the program is stopped.
const USUAL: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];

/// What is chosen for vectors beside what all commands have.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    pub normalize: bool,
    /// The prompt where none is given, if the model has it.
    pub prompt: &'a str,
}

/// Loads the model and makes its embedder.
pub fn open(args: &Embedding, prompting: Option<&Prompting>, choice: Choice<'_>) -> Result<Embedder> {
    let threads = args.threads.unwrap_or_else(threads::available);
    warn_of_threads(threads, args.quiet);
    let adapters = args.arithmetic.adapters.open()?;
    let model = with_load_bar(args.quiet, |progress| {
        loaded(&args.model, false, &args.arithmetic.load_params(&adapters).with_progress(progress))
    })?;
    let params = EmbedderParams::default()
        .with_pooling(args.pooling.map(pooling))
        .with_prompt(prompt(&model, prompting, choice.prompt)?)
        .with_long_texts(long(args.long))
        .with_dimensions(args.dimensions.unwrap_or(0))
        .with_normalize(choice.normalize)
        .with_strategy(strategy(args.strategy))
        .with_threads(threads)
        .with_kv(args.arithmetic.kv);
    Embedder::new(model, &params).map_err(|error| match (error, args.dimensions) {
        (Error::InvalidArgument(why), Some(n)) => {
            Failure::Usage(format!("invalid value '{n}' for '--dimensions <N>': {why}"))
        }
        (error @ Error::Unsupported(_), _) if args.pooling.is_none() => {
            Failure::Hinted(error, "--pooling chooses one".into())
        }
        (error, _) => Failure::Failed(error),
    })
}

fn pooling(row: Row) -> Pooling {
    match row {
        Row::Mean => Pooling::Mean,
        Row::Cls => Pooling::Cls,
        Row::Last => Pooling::Last,
    }
}

fn long(long: Long) -> LongTexts {
    match long {
        Long::Truncate => LongTexts::Truncate,
        Long::Split => LongTexts::Split,
        Long::Error => LongTexts::Refuse,
    }
}

fn strategy(way: Way) -> Strategy {
    match way {
        Way::Auto => Strategy::Auto,
        Way::Fine => Strategy::Fine,
        Way::Coarse => Strategy::Coarse,
    }
}

/// The prompt that is asked for, or the model's own of that name.
fn prompt(model: &Model, prompting: Option<&Prompting>, usual: &str) -> Result<Prompt> {
    match prompting {
        Some(Prompting { prompt_text: Some(text), .. }) => Ok(Prompt::text(text)),
        Some(Prompting { prompt: Some(name), .. }) => Prompt::named(model, name).map_err(|error| {
            let why = match error {
                Error::InvalidArgument(why) => why,
                other => other.to_string(),
            };
            Failure::Usage(format!("invalid value for '--prompt <NAME>': {why}"))
        }),
        _ => Ok(Prompt::named(model, usual).unwrap_or_default()),
    }
}

/// The word for a text's status in records.
pub fn status_name(status: TextStatus) -> &'static str {
    match status {
        TextStatus::Done => "done",
        TextStatus::Truncated => "truncated",
        TextStatus::Split => "split",
        TextStatus::Empty => "empty",
        TextStatus::TooLong => "too-long",
        TextStatus::BadToken => "bad-token",
        TextStatus::NotUtf8 => "not-utf8",
        TextStatus::NoMemory => "no-memory",
        TextStatus::NotDone => "not-done",
        _ => "failed",
    }
}

/// Texts with their vectors or scores.
pub struct Chunk {
    pub texts: Vec<Text>,
    /// `width` floats a text that could be read, in their order.
    pub rows: Vec<f32>,
    pub statuses: Vec<TextStatus>,
    width: usize,
}

impl Chunk {
    /// Each text with its status and, where it has one, its vector.
    pub fn results(&self) -> impl Iterator<Item = (&Text, &'static str, Option<&[f32]>)> {
        let mut made = self.statuses.iter().zip(self.rows.chunks_exact(self.width));
        self.texts.iter().map(move |text| {
            if let Err(fault) = text.text {
                return (text, fault.name(), None);
            }
            match made.next() {
                Some((status, row)) if status.has_vector() && row.iter().all(|x| x.is_finite()) => {
                    (text, status_name(*status), Some(row))
                }
                Some((status, _)) if !status.has_vector() => (text, status_name(*status), None),
                _ => (text, "failed", None),
            }
        })
    }
}

/// A run through texts.
pub struct Run {
    factor: usize,
    line: ProgressBar,
    /// Bytes of all inputs, where that is known.
    total: Option<u64>,
    start: Instant,
    texts: u64,
    without_vector: u64,
    tokens: u64,
    seconds: f64,
}

impl Run {
    pub fn new(inputs: &Inputs, quiet: bool) -> Run {
        let total = inputs.total_bytes();
        let line = match total {
            Some(bytes) => bar(quiet, bytes, "{bar:40} {percent:>3} %, {eta} left, {msg}"),
            None => progress(quiet),
        };
        Run {
            factor: 1,
            line,
            total,
            start: Instant::now(),
            texts: 0,
            without_vector: 0,
            tokens: 0,
            seconds: 0.0,
        }
    }

    /// Begins behind texts that an earlier run has done.
    pub fn skip_to(&mut self, inputs: &Inputs) {
        self.line.set_position(inputs.read_bytes());
        self.line.reset_eta();
        self.start = Instant::now();
    }

    /// The next texts with what `work` makes of them; `None` at the end.
    pub fn next(
        &mut self,
        inputs: &mut Inputs,
        embedder: &mut Embedder,
        mut work: impl FnMut(&mut Embedder, &[&str], &mut Results<'_>) -> smallmind::Result<Summary>,
    ) -> Result<Option<Chunk>> {
        let before = inputs.read_bytes();
        let width = embedder.width();
        let texts = self.read(inputs, width);
        if texts.is_empty() {
            self.line.finish_and_clear();
            return Ok(None);
        }
        let (begin, stoppable) = (Instant::now(), Stoppable::begin());
        let good: Vec<&str> = texts.iter().filter_map(|text| text.text.as_deref().ok()).collect();
        let (mut rows, mut statuses) = (vec![0.0; good.len() * width], vec![TextStatus::NotDone; good.len()]);
        let (bytes, line, count) = (inputs.read_bytes() - before, &self.line, self.texts);
        let (total, start) = (self.total, self.start);
        let mut report = |progress: smallmind::embed::Progress| {
            if start.elapsed() > PATIENCE {
                let done = count + progress.texts as u64;
                let rate = done as f64 / start.elapsed().as_secs_f64();
                line.set_message(format!("{done} texts, {rate:.0} texts/s"));
                match total {
                    Some(_) => {
                        line.set_position(before + bytes * progress.texts as u64 / progress.of.max(1) as u64)
                    }
                    None => line.tick(),
                }
            }
            if stoppable.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut results = Results::new(&mut rows, width, &mut statuses).with_progress(&mut report);
        let summary = work(embedder, &good, &mut results).map_err(|error| match error {
            Error::Cancelled => Failure::Interrupted,
            other => Failure::Failed(other),
        })?;
        self.note(&texts, summary, begin.elapsed());
        Ok(Some(Chunk { texts, rows, statuses, width }))
    }

    /// Texts of a chunk.
    fn read(&self, inputs: &mut Inputs, width: usize) -> Vec<Text> {
        let most = (self.factor * TEXTS).min(FLOATS / width).max(1);
        let (mut texts, mut bytes) = (Vec::new(), 0);
        while texts.len() < most && bytes < self.factor * BYTES {
            let Some(text) = inputs.next() else { break };
            bytes += text.text.as_ref().map_or(0, String::len);
            texts.push(text);
        }
        texts
    }

    fn note(&mut self, texts: &[Text], summary: Summary, took: Duration) {
        self.texts += texts.len() as u64;
        self.without_vector += (texts.len() - summary.with_vector) as u64;
        self.tokens += summary.tokens;
        self.seconds += summary.seconds;
        self.factor = match took {
            took if took < USUAL[0] => (self.factor * 2).min(LARGEST),
            took if took > USUAL[1] => (self.factor / 2).max(1),
            _ => self.factor,
        };
    }

    /// Texts a second of the embedder.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.texts as f64 / self.seconds } else { 0.0 }
    }

    /// Says how many texts there were, and how fast.
    pub fn report(&self, quiet: bool) {
        if quiet {
            return;
        }
        let (texts, tokens, rate) = (self.texts, self.tokens, self.rate());
        let without = match self.without_vector {
            0 => String::new(),
            count => format!(", {count} of them without a vector"),
        };
        let seconds = self.start.elapsed().as_secs_f64();
        let digits = if rate < 10.0 { 1 } else { 0 };
        remark(&format!(
            "[{texts} texts{without} · {tokens} tokens · {rate:.digits$} texts/s · {seconds:.1} s]\n"
        ));
    }
}
