//! Where results go: rows of the caller's matrix and a status a text, written under one lock by whoever made them; and
//! the sums of a call.

use std::fmt;
use std::ops::ControlFlow;

use super::window::{Item, Window};
use crate::error::{Error, Result};

/// What calls have done, and what it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// Texts that were given.
    pub texts: usize,
    /// Texts that have a vector.
    pub with_vector: usize,
    /// Tokens that went through passes, those of parts and special tokens included.
    pub tokens: u64,
    /// Passes.
    pub passes: u64,
    /// Windows whose passes ran one on each thread, and windows whose passes ran on all threads.
    pub coarse_windows: u64,
    /// See [`Summary::coarse_windows`].
    pub fine_windows: u64,
    /// Seconds of all threads together in which texts were tokenized and cut.
    pub tokenize_seconds: f64,
    /// Seconds of all threads together in passes.
    pub pass_seconds: f64,
    /// Seconds of the call.
    pub seconds: f64,
}

impl Summary {
    /// The share of tokenizing in the threads' work.
    pub fn tokenize_share(&self) -> f64 {
        let all = self.tokenize_seconds + self.pass_seconds;
        if all > 0.0 { self.tokenize_seconds / all } else { 0.0 }
    }
}

/// What became of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TextStatus {
    /// Nothing: the call ended before. Its row is as it was.
    #[default]
    NotDone,
    /// Its row has the vector.
    Done,
    /// Its row has the vector of its beginning.
    Truncated,
    /// Its row has the mean of its parts' vectors.
    Split,
    /// It has no tokens. The row is zeros, as in all cases that follow.
    Empty,
    /// It has more tokens than the embedder takes, or more bytes than the tokenizer takes.
    TooLong,
    /// It has a token outside the vocabulary.
    BadToken,
    /// It is no UTF-8.
    NotUtf8,
    /// There was no memory for it.
    NoMemory,
    /// Its pass failed by a defect of the library.
    Failed,
}

impl TextStatus {
    /// Whether the row has a vector.
    pub fn has_vector(self) -> bool {
        matches!(self, TextStatus::Done | TextStatus::Truncated | TextStatus::Split)
    }

    /// The reason why there is no vector, as an error.
    ///
    /// # Errors
    /// Where the row has none.
    pub fn check(self) -> Result<()> {
        match self {
            TextStatus::Done | TextStatus::Truncated | TextStatus::Split => Ok(()),
            TextStatus::NoMemory => Err(Error::OutOfMemory { bytes: 0, what: "a text" }),
            TextStatus::Failed => Err(Error::Internal("the pass of a text failed".into())),
            other => Err(Error::invalid(other.to_string())),
        }
    }
}

impl fmt::Display for TextStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TextStatus::NotDone => "the text was not reached",
            TextStatus::Done => "done",
            TextStatus::Truncated => "the text was truncated",
            TextStatus::Split => "the text was split",
            TextStatus::Empty => "the text has no tokens",
            TextStatus::TooLong => "the text is too long",
            TextStatus::BadToken => "the text has a token outside the vocabulary",
            TextStatus::NotUtf8 => "the text is no UTF-8",
            TextStatus::NoMemory => "there was no memory for the text",
            TextStatus::Failed => "the pass of the text failed",
        })
    }
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Texts that have a status.
    pub texts: usize,
    /// All texts.
    pub of: usize,
    /// Tokens that went through passes.
    pub tokens: u64,
}

/// Called on the calling thread, between passes; `Break` cancels the call. It can't use a team of several threads.
pub(super) type OnProgress<'a> = &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + Send);

/// The places for a call's results.
pub struct Results<'a> {
    pub(super) rows: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) statuses: &'a mut [TextStatus],
    pub(super) progress: Option<OnProgress<'a>>,
}

impl<'a> Results<'a> {
    /// A row and a status for each text. Row i begins at `i * stride` and has [`Embedder::width`](super::Embedder::width)
    /// floats; what stands between rows is left alone.
    pub fn new(rows: &'a mut [f32], stride: usize, statuses: &'a mut [TextStatus]) -> Results<'a> {
        Results { rows, stride, statuses, progress: None }
    }

    /// Calls `progress` between passes, on the calling thread, with how far the call has come; `Break` cancels the call.
    /// Until it returns, the calling thread can't use a team of several threads.
    pub fn with_progress(self, progress: &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + Send)) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Checks that there is room for `n` rows of `width` floats.
    pub(super) fn check(&self, n: usize, width: usize) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        if self.stride < width && n > 1 {
            return Err(Error::invalid(format!("rows {} floats apart; a vector has {width}", self.stride)));
        }
        let needed = (n - 1).checked_mul(self.stride).and_then(|floats| floats.checked_add(width));
        if needed.is_none_or(|needed| needed > self.rows.len()) {
            let (stride, has) = (self.stride, self.rows.len());
            return Err(Error::invalid(format!(
                "{n} rows of {width} floats, {stride} apart, don't fit into {has} floats"
            )));
        }
        if self.statuses.len() < n {
            return Err(Error::invalid(format!("{} statuses for {n} texts", self.statuses.len())));
        }
        Ok(())
    }
}

impl fmt::Debug for Results<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Results { rows, stride, statuses, .. } = self;
        let (floats, texts) = (rows.len(), statuses.len());
        write!(f, "Results of {floats} floats, {stride} a row, for {texts} texts")
    }
}

/// What becomes of a pooled row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    /// Floats of a pooled row.
    pub pooled: usize,
    /// Floats of a vector: the first ones.
    pub width: usize,
    pub normalize: bool,
}

impl Finish {
    /// Scales a vector to length 1; one of zeros, or with an infinite or undefined length, stays as it is.
    fn scale(self, row: &mut [f32]) {
        let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        if self.normalize && squares > 0.0 && squares.is_finite() {
            let factor = 1.0 / squares.sqrt();
            row.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
        }
    }
}

/// The results of one call as they come.
pub(super) struct Sink<'a, 'r> {
    results: &'r mut Results<'a>,
    finish: Finish,
    n_texts: usize,
    /// Pooled rows of the window's parts of split texts.
    parts: Vec<f32>,
    /// Texts with a status, and those of them with a vector.
    pub done: usize,
    pub with_vector: usize,
    /// Tokens of passes.
    pub tokens: u64,
    pub passes: u64,
}

impl<'a, 'r> Sink<'a, 'r> {
    pub fn new(results: &'r mut Results<'a>, finish: Finish, n_texts: usize, parts: Vec<f32>) -> Self {
        results.statuses[..n_texts].fill(TextStatus::NotDone);
        Sink { results, finish, n_texts, parts, done: 0, with_vector: 0, tokens: 0, passes: 0 }
    }

    /// Makes room for the parts of a window's split texts.
    pub fn begin(&mut self, window: &Window) -> Result<()> {
        let floats =
            crate::memory::checked_bytes(window.weights.len(), self.finish.pooled, "parts of texts")?;
        self.parts.clear();
        crate::memory::reserve::reserve(&mut self.parts, floats, "parts of texts")?;
        self.parts.resize(floats, 0.0);
        Ok(())
    }

    /// Takes a pass's rows, in the order of its items.
    pub fn take<'w>(&mut self, items: impl Iterator<Item = &'w Item>, rows: &[f32]) {
        let Finish { pooled, width, .. } = self.finish;
        self.passes += 1;
        for (item, row) in items.zip(rows.chunks_exact(pooled)) {
            self.tokens += item.len as u64;
            if let Some(slot) = item.slot {
                self.parts[slot as usize * pooled..][..pooled].copy_from_slice(row);
                continue;
            }
            let begin = item.text * self.results.stride;
            let out = &mut self.results.rows[begin..begin + width];
            out.copy_from_slice(&row[..width]);
            self.finish.scale(out);
            self.note(item.text, item.status);
        }
    }

    /// Notes that items have no row.
    pub fn fail<'w>(&mut self, items: impl Iterator<Item = &'w Item>) {
        for item in items {
            if self.results.statuses[item.text] == TextStatus::NotDone {
                self.refuse(item.text, TextStatus::Failed);
            }
        }
    }

    /// Notes that a text has no vector.
    pub fn refuse(&mut self, text: usize, status: TextStatus) {
        let begin = text * self.results.stride;
        self.results.rows[begin..begin + self.finish.width].fill(0.0);
        self.note(text, status);
    }

    fn note(&mut self, text: usize, status: TextStatus) {
        self.results.statuses[text] = status;
        self.done += 1;
        self.with_vector += usize::from(status.has_vector());
    }

    /// Joins the parts of split texts: their mean, weighted by their tokens, summed in their order in f64.
    pub fn join(&mut self, window: &Window) {
        let Finish { pooled, width, .. } = self.finish;
        for split in &window.splits {
            if self.results.statuses[split.text] != TextStatus::NotDone {
                continue;
            }
            let slots = split.slot..split.slot + split.parts;
            let all: f64 = slots.clone().map(|slot| f64::from(window.weights[slot])).sum();
            let begin = split.text * self.results.stride;
            let out = &mut self.results.rows[begin..begin + width];
            for (column, out) in out.iter_mut().enumerate() {
                let weighted =
                    |slot| f64::from(window.weights[slot]) * f64::from(self.parts[slot * pooled + column]);
                *out = (slots.clone().map(weighted).sum::<f64>() / all) as f32;
            }
            self.finish.scale(out);
            self.note(split.text, TextStatus::Split);
        }
    }

    /// Reports the progress; `Break` where the callback wants the call to end.
    pub fn report(&mut self) -> ControlFlow<()> {
        let progress = Progress { texts: self.done, of: self.n_texts, tokens: self.tokens };
        match &mut self.results.progress {
            Some(report) => {
                let _zone = crate::profile::scope(crate::profile::Zone::Callback);
                report(progress)
            }
            None => ControlFlow::Continue(()),
        }
    }

    /// The memory of parts, for the next call.
    pub fn into_parts(self) -> Vec<f32> {
        self.parts
    }
}
