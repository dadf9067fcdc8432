//! One step: which requests have sequences, which tokens the pass computes, what becomes of the results.
//!
//! Running requests stand in the order of their ranks. Where pages run out, requests are put back from the last one on:
//! one that reads its prompt waits first, with its pages; then it is preempted, as one that writes is at once. The first
//! request always goes on, since one sequence fits alone, so all end.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use super::board::Board;
use super::event::{Event, Progress, Stats, Status};
use super::params::ServerParams;
use super::request::RequestId;
use super::server::lock;
use super::task::Task;
use crate::error::{Error, Result};
use crate::memory::reserve::with_room;
use crate::profile::{self, Zone};
use crate::runtime::generation::{MAX_LOGPROBS, StopReason};
use crate::runtime::sampling::{Logprobs, TokenLogprob};
use crate::runtime::{Batch, Engine, Span};
use crate::tokenizer::Tokenizer;

/// The purpose of the memory, in errors.
const WHAT: &str = "a server's lists";

/// Fewest tokens of a prompt that are worth a place in a pass, unless fewer are left.
const PIECE: usize = 32;

pub(super) struct Scheduler {
    engine: Engine,
    n_sequences: usize,
    /// Whether requests share the pages of their prompts.
    shares: bool,
    /// By rank, the first to be served first. Each has a sequence.
    running: Vec<Task>,
    /// By rank. None has a sequence.
    waiting: VecDeque<Task>,
    /// Requests on their way out.
    ended: Vec<Task>,
    /// Pages have run out, and none was freed by a request that ended since then.
    short: bool,
    tokens: Vec<u32>,
    spans: Vec<Span>,
    outputs: Vec<u32>,
    /// For each output row the place of its request in `running`.
    rows: Vec<usize>,
    /// For the requests that ask for log-probabilities; made for the first of them.
    logprobs: Option<Logprobs>,
    /// The counts of steps; the board has those of requests.
    stats: Stats,
}

impl Scheduler {
    pub fn new(engine: Engine, params: &ServerParams) -> Result<Self> {
        let ServerParams { n_sequences, n_requests, prefix_index, .. } = *params;
        let n_batch = engine.n_batch();
        Ok(Scheduler {
            shares: prefix_index && !engine.has_state(),
            engine,
            n_sequences,
            running: with_room(n_sequences, WHAT)?,
            waiting: VecDeque::from(with_room(n_requests, WHAT)?),
            ended: with_room(n_requests, WHAT)?,
            short: false,
            tokens: with_room(n_batch, WHAT)?,
            spans: with_room(n_sequences, WHAT)?,
            outputs: with_room(n_sequences, WHAT)?,
            rows: with_room(n_sequences, WHAT)?,
            logprobs: None,
            stats: Stats::default(),
        })
    }

    /// One step.
    ///
    /// # Errors
    /// Those of the engine that are no request's fault.
    pub fn step(&mut self, board: &Mutex<Board>) -> Result<Progress> {
        let _owned = self.engine.owner().enter();
        let _zone = profile::scope(Zone::Generate);
        if !self.take_news(board) {
            return Ok(Progress { must_poll: true, ..self.progress(0) });
        }
        self.retire(board);
        self.admit(board)?;
        self.note_lacks()?;
        self.share_out();
        let computed = self.stats.computed;
        let outcome = self.run(board);
        self.retire(board);
        outcome?;
        Ok(self.progress((self.stats.computed - computed) as usize))
    }

    fn progress(&self, n_tokens: usize) -> Progress {
        let (n_running, n_waiting) = (self.running.len(), self.waiting.len());
        Progress { n_tokens, n_running, n_waiting, must_poll: false }
    }

    /// Takes new requests and cancellations from the board; false where events have to be polled first.
    fn take_news(&mut self, board: &Mutex<Board>) -> bool {
        let mut board = lock(board);
        // A token and the text that was held back, of each.
        if board.is_full(2 * self.n_sequences) {
            return false;
        }
        for task in board.take_new() {
            wait(&mut self.waiting, task);
        }
        board.take_cancelled(|id| self.cancel(id));
        true
    }

    fn cancel(&mut self, id: RequestId) {
        let cancelled = Some(Err(Error::Cancelled));
        if let Some(task) = self.running.iter_mut().find(|task| task.id == id) {
            task.outcome = cancelled;
        } else if let Some(place) = self.waiting.iter().position(|task| task.id == id)
            && let Some(task) = self.waiting.remove(place)
        {
            self.ended.push(Task { outcome: cancelled, ..task });
        }
    }

    /// Gives sequences to requests that wait, as far as there are places, and pages are thought to be free. A request of a
    /// higher priority takes the place of the last one that runs.
    fn admit(&mut self, board: &Mutex<Board>) -> Result<()> {
        while let Some(first) = self.waiting.front() {
            if let Some(last) = self.running.last() {
                let outranks = first.priority > last.priority;
                let full = self.running.len() == self.n_sequences;
                if (full || self.short) && !outranks {
                    break;
                }
                if full {
                    self.preempt(self.running.len() - 1, board)?;
                    continue;
                }
            }
            let (sequence, known) = self.engine.create_with_prefix(&first.tokens)?;
            self.stats.shared += known as u64;
            let Some(mut task) = self.waiting.pop_front() else { break };
            task.sequence = Some(sequence);
            task.started.get_or_insert_with(Instant::now);
            lock(board).set_status(task.id, Status::Running);
            let place = self.running.partition_point(|running| running.rank() < task.rank());
            self.running.insert(place, task);
        }
        Ok(())
    }

    /// Takes a request's sequence and frees its pages. Its tokens stay, and are computed again later.
    fn preempt(&mut self, place: usize, board: &Mutex<Board>) -> Result<()> {
        let mut task = self.running.remove(place);
        if let Some(sequence) = task.sequence.take() {
            self.stats.lost += self.engine.len(sequence)? as u64;
            self.engine.release_to_index(sequence, &task.tokens)?;
        }
        task.n_preempted += 1;
        self.stats.preempted += 1;
        lock(board).set_status(task.id, Status::Waiting);
        wait(&mut self.waiting, task);
        Ok(())
    }

    /// Notes how many tokens each sequence lacks. One that reads takes over pages of its prompt that have been computed for
    /// another one, and waits for those that are being computed.
    fn note_lacks(&mut self) -> Result<()> {
        for place in 0..self.running.len() {
            let (earlier, rest) = self.running.split_at_mut(place);
            let task = &mut rest[0];
            let Some(sequence) = task.sequence else { continue };
            let mut len = self.engine.len(sequence)?;
            task.lacks = task.tokens.len() - len;
            task.follows = false;
            if !self.shares || !task.reads() {
                continue;
            }
            if self.engine.known_prefix(&task.tokens) > len {
                self.engine.remove(sequence)?;
                task.sequence = None;
                let (sequence, known) = self.engine.create_with_prefix(&task.tokens)?;
                task.sequence = Some(sequence);
                self.stats.shared += known.saturating_sub(len) as u64;
                len = known;
                task.lacks = task.tokens.len() - len;
            }
            task.follows = earlier.iter().any(|earlier| task.follows(len, earlier));
        }
        Ok(())
    }

    /// Shares a pass's tokens out: one for each request that writes, the rest for prompts, those of the highest priority
    /// first.
    fn share_out(&mut self) {
        let mut left = self.engine.n_batch();
        for task in &mut self.running {
            task.takes = usize::from(!task.reads());
            left -= task.takes;
        }
        for tasks in self.running.chunk_by_mut(|a, b| a.priority == b.priority) {
            left = share_evenly(tasks, left);
        }
    }

    /// Makes the batch of the running requests at these places.
    fn assemble(&mut self, places: Range<usize>) -> Result<()> {
        self.tokens.clear();
        self.spans.clear();
        self.outputs.clear();
        self.rows.clear();
        for place in places {
            let task = &self.running[place];
            let Some(sequence) = task.sequence.filter(|_| task.takes > 0) else { continue };
            // A pass that failed may have taken positions away, so it may be less than before.
            let first = self.engine.len(sequence)?;
            let end = task.tokens.len().min(first + task.takes);
            self.tokens.extend_from_slice(&task.tokens[first..end]);
            self.spans.push(Span::new(sequence, first, end - first));
            if end == task.tokens.len() {
                self.outputs.push(self.tokens.len() as u32 - 1);
                self.rows.push(place);
            }
        }
        Ok(())
    }

    /// Runs the pass, with fewer requests where pages run out, and picks tokens.
    fn run(&mut self, board: &Mutex<Board>) -> Result<()> {
        loop {
            self.assemble(0..self.running.len())?;
            if self.spans.is_empty() {
                return Ok(());
            }
            match self.pass() {
                Ok(()) => {
                    self.sample(board);
                    return Ok(());
                }
                Err(Error::ContextFull { .. }) => self.make_room(board)?,
                Err(Error::Internal(_)) => return self.run_apart(board),
                Err(error) => return Err(error),
            }
        }
    }

    fn pass(&mut self) -> Result<()> {
        self.engine.run(&Batch::new(&self.tokens, &self.spans, &self.outputs))?;
        self.stats.passes += 1;
        self.stats.computed += self.tokens.len() as u64;
        if self.shares {
            for task in self.running.iter().filter(|task| task.takes > 0) {
                if let Some(sequence) = task.sequence {
                    self.engine.index_prefix(sequence, &task.tokens)?;
                }
            }
        }
        Ok(())
    }

    /// Runs a pass for each request, after one for all of them has failed, so that only those fail that are at fault.
    fn run_apart(&mut self, board: &Mutex<Board>) -> Result<()> {
        for place in 0..self.running.len() {
            self.assemble(place..place + 1)?;
            if self.spans.is_empty() {
                continue;
            }
            match self.pass() {
                Ok(()) => self.sample(board),
                Err(error @ Error::Internal(_)) => self.running[place].outcome = Some(Err(error)),
                // The next step makes room.
                Err(Error::ContextFull { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts the last request back, since pages have run out.
    fn make_room(&mut self, board: &Mutex<Board>) -> Result<()> {
        self.short = true;
        let last = self.running.len() - 1;
        let task = &mut self.running[last];
        if last == 0 {
            let (n_ctx, needed) = (self.engine.n_ctx(), task.tokens.len());
            task.outcome = Some(Err(Error::ContextFull { n_ctx, needed }));
            task.takes = 0;
        } else if task.reads() && task.takes > 0 && self.spans.len() > 1 {
            task.takes = 0;
        } else {
            self.preempt(last, board)?;
        }
        Ok(())
    }

    /// Picks the next token of each request whose logits the pass has computed.
    fn sample(&mut self, board: &Mutex<Board>) {
        let Scheduler { engine, running, rows, logprobs, .. } = self;
        let model = engine.model();
        let (n_vocab, tokenizer) = (model.config().n_vocab, model.tokenizer().ok());
        for (logits, &place) in engine.output().chunks_exact(n_vocab).zip(rows.iter()) {
            let task = &mut running[place];
            task.prefilled.get_or_insert_with(Instant::now);
            let len = task.sequence.and_then(|sequence| engine.len(sequence).ok());
            let is_full = len == Some(engine.n_ctx());
            // Stages may be the host's. A task in which one has panicked is only dropped.
            let picked = catch_unwind(AssertUnwindSafe(|| {
                pick(task, &mut Row { logits, logprobs }, tokenizer, is_full, board)
            }));
            let panicked = |_| Err(Error::Internal("a stage of the request's sampler panicked".into()));
            if let Err(error) = picked.unwrap_or_else(panicked) {
                task.outcome = Some(Err(error));
            }
        }
    }

    /// Removes the requests that have ended, frees their pages and adds their last events.
    fn retire(&mut self, board: &Mutex<Board>) {
        let mut place = 0;
        while place < self.running.len() {
            if self.running[place].outcome.is_none() {
                place += 1;
                continue;
            }
            let task = self.running.remove(place);
            if let Some(sequence) = task.sequence {
                // It exists.
                let _ = self.engine.release_to_index(sequence, &task.tokens);
            }
            self.short = false;
            self.ended.push(task);
        }
        let mut board = lock(board);
        for task in &mut self.ended {
            let request = task.id;
            let outcome = task.outcome.take().unwrap_or(Ok(()));
            board.end(match outcome.and_then(|()| task.summary()) {
                Ok(summary) => Event::Finished { request, summary },
                Err(error) => Event::Failed { request, error },
            });
        }
        let Stats { passes, computed, preempted, lost, shared, .. } = self.stats;
        board.stats = Stats { passes, computed, preempted, lost, shared, ..board.stats };
        board.stats.n_running = self.running.len();
        drop(board);
        // Without the lock: a stage of a sampler may be the host's.
        self.ended.clear();
    }

    /// Takes the sequence of a running request out as bytes, and back in from them; false without one. Where there is no
    /// room for it, since it shared pages that are its own now, it begins again.
    #[cfg(test)]
    pub fn save_and_restore(&mut self, place: usize) -> Result<bool> {
        let Some(task) = self.running.get_mut(place) else { return Ok(false) };
        let Some(sequence) = task.sequence.take() else { return Ok(false) };
        let tokens = &task.tokens[..self.engine.len(sequence)?];
        let mut bytes = Vec::new();
        self.engine.save(sequence, tokens, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        self.engine.remove(sequence)?;
        let mut read = Vec::new();
        let source = crate::format::BytesSource::new("a sequence", bytes);
        let (sequence, restored) = match self.engine.restore(&source, &mut read) {
            Ok(sequence) => (sequence, true),
            Err(Error::ContextFull { .. }) => (self.engine.create()?, false),
            Err(error) => return Err(error),
        };
        assert!(!restored || read == tokens);
        task.sequence = Some(sequence);
        Ok(restored)
    }

    #[cfg(test)]
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

/// Puts a request among those that wait.
fn wait(waiting: &mut VecDeque<Task>, task: Task) {
    let place = waiting.partition_point(|other| other.rank() < task.rank());
    waiting.insert(place, task);
}

/// Gives each request that reads an even share, of at least [`PIECE`] tokens, in the order of their ranks; what some don't
/// need goes to the first. Returns what is left.
fn share_evenly(tasks: &mut [Task], mut left: usize) -> usize {
    let reads = |task: &Task| task.reads() && !task.follows;
    let count = tasks.iter().filter(|task| reads(task)).count().max(1);
    for most in [(left / count).max(PIECE), left] {
        for task in tasks.iter_mut().filter(|task| reads(task)) {
            let more = (task.lacks - task.takes).min(most).min(left);
            task.takes += more;
            left -= more;
        }
    }
    left
}

/// The logits of a request's next token, and what computes their log-probabilities.
struct Row<'a> {
    logits: &'a [f32],
    logprobs: &'a mut Option<Logprobs>,
}

impl Row<'_> {
    /// The log-probabilities of a token and of the `n_best` likeliest ones.
    fn logprobs(&mut self, token: u32, n_best: usize) -> Result<(TokenLogprob, &[TokenLogprob])> {
        let logprobs = match self.logprobs {
            Some(made) => made,
            None => self.logprobs.insert(Logprobs::new(self.logits.len(), MAX_LOGPROBS)?),
        };
        let logprob = logprobs.compute(self.logits, token)?;
        let best = logprobs.best();
        Ok((TokenLogprob { token, logprob }, &best[..n_best.min(best.len())]))
    }
}

/// Picks a request's next token, and tells the host.
fn pick(
    task: &mut Task,
    row: &mut Row<'_>,
    tokenizer: Option<&Tokenizer>,
    is_full: bool,
    board: &Mutex<Board>,
) -> Result<()> {
    let id = task.id;
    if let Some(output) = task.generation.fed(row.logits, &mut task.sampler, tokenizer)? {
        let logprobs = task.logprobs.map(|n_best| row.logprobs(output.token, n_best)).transpose()?;
        lock(board).output(id, &output, logprobs)?;
        if is_full {
            task.generation.stop(StopReason::ContextFull);
        }
    }
    task.go_on();
    if task.outcome.is_some()
        && let Some(rest) = task.generation.finish()
    {
        lock(board).output(id, &rest, None)?;
    }
    Ok(())
}
