//! A run through the lines: they go to the server as it has room, and their results to the output in the order of the
//! lines.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use smallmind::Error;
use smallmind::runtime::generation::{GenerationParams, StopReason};
use smallmind::runtime::sampling::TokenLogprob;
use smallmind::serve::{Event, Request, RequestId, Server, Summary};

use super::args::Batch;
use super::input::{Input, Numbered};
use super::line::Wanted;
use crate::embed::output::Appended;
use crate::failure::{Failure, Result};
use crate::interrupt::Stoppable;
use crate::logprobs::Picked;
use crate::output::{PATIENCE, bar, json_fit_for_terminals, progress, remark};
use crate::sampling::{Chain, Samplers};

/// Lines that are read ahead, times those that run at the same time: one that takes long keeps so many waiting.
pub const WINDOW: usize = 8;

/// Lines that are read before they are taken.
const AHEAD: usize = 16;

/// Results are written at least so often, and when the program ends.
const OFTEN: Duration = Duration::from_millis(200);

/// A line on its way.
struct Entry {
    id: String,
    /// Bytes of the input up to its end.
    end: u64,
    request: Option<RequestId>,
    text: String,
    /// Those of its tokens, where they are asked for.
    logprobs: Option<Vec<Picked>>,
    /// The line of the output, once it is known.
    record: Option<String>,
}

/// A line of the output.
#[derive(Serialize)]
struct Record<'a> {
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [Picked]>,
}

pub struct Run<'a> {
    args: &'a Batch,
    server: &'a Server,
    lines_read: Receiver<Result<Option<Numbered>>>,
    out: Appended,
    chain: Chain,
    samplers: Samplers,
    /// In the order of the input, which is that of their requests' numbers.
    entries: VecDeque<Entry>,
    at_end: bool,
    line: ProgressBar,
    start: Instant,
    /// Of lines that were written.
    lines: u64,
    failed: u64,
    prompt_tokens: u64,
    tokens: u64,
}

impl<'a> Run<'a> {
    pub fn new(
        args: &'a Batch,
        server: &'a Server,
        input: Input,
        out: Appended,
        chain: Chain,
    ) -> Result<Run<'a>> {
        let line = match input.total {
            Some(bytes) => bar(args.model.quiet, bytes, "{bar:40} {percent:>3} %, {eta} left, {msg}"),
            None => progress(args.model.quiet),
        };
        Ok(Run {
            args,
            server,
            lines_read: read_ahead(input)?,
            out,
            chain,
            samplers: Samplers::new(server.model().clone()),
            entries: VecDeque::new(),
            at_end: false,
            line,
            start: Instant::now(),
            lines: 0,
            failed: 0,
            prompt_tokens: 0,
            tokens: 0,
        })
    }

    /// Runs all lines. Ctrl-C ends it between two passes; what is complete up to there has been written.
    pub fn all(&mut self) -> Result<()> {
        let (mut text, mut logprobs, mut written) = (String::new(), Vec::new(), Instant::now());
        let stoppable = Stoppable::begin();
        let mut idle = true;
        loop {
            self.fill(idle)?;
            let progress = self.server.step()?;
            idle = progress.is_idle();
            while let Some(event) = self.server.poll_logprobs(&mut text, &mut logprobs)? {
                self.hear(event, &text, &logprobs)?;
            }
            let done = self.at_end && idle;
            if idle || stoppable.requested() || written.elapsed() >= OFTEN || self.is_behind() {
                self.write()?;
                self.show();
                written = Instant::now();
            }
            if done {
                break;
            }
            if stoppable.requested() {
                return Err(Failure::Interrupted);
            }
        }
        self.line.finish_and_clear();
        Ok(self.out.sync()?)
    }

    fn most(&self) -> usize {
        WINDOW * self.args.parallel
    }

    /// Whether no line can be read before some are written.
    fn is_behind(&self) -> bool {
        self.entries.len() >= self.most()
    }

    /// Takes the lines that have been read, up to so many ahead. Without other work it waits a moment for one.
    fn fill(&mut self, mut waits: bool) -> Result<()> {
        while !self.at_end && !self.is_behind() {
            let received = if waits {
                self.lines_read.recv_timeout(OFTEN).ok()
            } else {
                self.lines_read.try_recv().ok()
            };
            match received {
                None => break,
                Some(Ok(None)) => self.at_end = true,
                Some(Ok(Some(line))) => self.submit(line)?,
                Some(Err(failure)) => return Err(failure),
            }
            waits = false;
        }
        Ok(())
    }

    fn submit(&mut self, numbered: Numbered) -> Result<()> {
        let Numbered { id, number, end, line } = numbered;
        let mut entry = Entry { id, end, request: None, text: String::new(), logprobs: None, record: None };
        let chain = self.chain.later(number);
        let (server, args, samplers) = (self.server, self.args, &mut self.samplers);
        let submitted = line.map_err(Error::InvalidArgument).and_then(|line| {
            let Wanted { tokens, max_tokens, stops, logprobs, chain, priority } =
                line.wanted(server.model(), args, chain)?;
            let stops: Vec<_> = stops.iter().map(String::as_str).collect();
            let params = GenerationParams::default()
                .with_max_tokens(max_tokens)
                .with_stops(&stops)
                .with_logprobs(logprobs);
            params.validate()?;
            entry.logprobs = logprobs.map(|_| Vec::new());
            let sampler = samplers.sampler(&chain)?;
            server.submit(Request::new(&tokens, sampler).with_params(params).with_priority(priority))
        });
        match submitted {
            Ok(request) => entry.request = Some(request),
            Err(error @ Error::OutOfMemory { .. }) => return Err(error.into()),
            Err(error) => self.fail(&mut entry, &error)?,
        }
        self.entries.push_back(entry);
        Ok(())
    }

    fn fail(&mut self, entry: &mut Entry, error: &Error) -> Result<()> {
        self.failed += 1;
        entry.record = Some(json(&Record {
            id: &entry.id,
            status: "failed",
            error: Some(error.to_string()),
            text: None,
            reason: None,
            prompt_tokens: None,
            tokens: None,
            logprobs: None,
        })?);
        Ok(())
    }

    fn hear(&mut self, event: Event, text: &str, logprobs: &[TokenLogprob]) -> Result<()> {
        let request = Some(event.request());
        // Lines without a request stand among the others, so it is no binary search.
        let Some(place) = self.entries.iter().position(|entry| entry.request == request) else {
            return Err(Error::Internal("an event of an unknown request".into()).into());
        };
        match event {
            Event::Output { is_new, .. } => {
                self.tokens += u64::from(is_new);
                let entry = &mut self.entries[place];
                entry.text.push_str(text);
                if let (Some(tokens), Some((&token, best))) = (&mut entry.logprobs, logprobs.split_first()) {
                    tokens.push(Picked::new(self.server.model().tokenizer()?, token, best)?);
                }
            }
            Event::Finished { summary, .. } => self.finish(place, &summary)?,
            Event::Failed { error, .. } => {
                let Some(mut entry) = self.entries.remove(place) else { return Ok(()) };
                self.fail(&mut entry, &error)?;
                self.entries.insert(place, entry);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, place: usize, summary: &Summary) -> Result<()> {
        self.prompt_tokens += summary.n_prompt as u64;
        let entry = &mut self.entries[place];
        entry.record = Some(json(&Record {
            id: &entry.id,
            status: "done",
            error: None,
            text: Some(&entry.text),
            reason: Some(match summary.reason {
                StopReason::EndOfText => "end-of-text",
                StopReason::Length => "length",
                StopReason::StopString => "stop-string",
                StopReason::ContextFull => "context-full",
                _ => "stopped",
            }),
            prompt_tokens: Some(summary.n_prompt),
            tokens: Some(summary.n_generated),
            logprobs: entry.logprobs.as_deref(),
        })?);
        (entry.text, entry.logprobs) = (String::new(), None);
        Ok(())
    }

    /// Writes the results up to the first line that has none.
    fn write(&mut self) -> Result<()> {
        let mut whole = String::new();
        while let Some(entry) = self.entries.front()
            && let Some(record) = &entry.record
        {
            whole.push_str(record);
            self.lines += 1;
            self.line.set_position(entry.end);
            self.entries.pop_front();
        }
        Ok(self.out.append(whole.as_bytes())?)
    }

    fn rate(&self) -> f64 {
        self.tokens as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    fn show(&self) {
        if self.start.elapsed() > PATIENCE {
            self.line.set_message(format!("{} lines, {:.0} tokens/s", self.lines, self.rate()));
        }
    }

    /// Says how many lines there were, and how fast.
    pub fn report(&self) {
        if self.args.model.quiet {
            return;
        }
        let (lines, seconds) = (self.lines, self.start.elapsed().as_secs_f64());
        let failed = match self.failed {
            0 => String::new(),
            count => format!(", {count} of them failed"),
        };
        remark(&format!(
            "[{lines} lines{failed} · {} tokens of prompts · {} tokens · {:.1} tokens/s · {seconds:.1} s · seed {}]\n",
            self.prompt_tokens,
            self.tokens,
            self.rate(),
            self.chain.params.seed,
        ));
    }
}

/// Reads the input on a thread of its own, since the next line may take its time to come.
fn read_ahead(mut input: Input) -> Result<Receiver<Result<Option<Numbered>>>> {
    let (sender, receiver) = mpsc::sync_channel(AHEAD);
    let read = move || {
        loop {
            let line = input.next();
            let ends = !matches!(line, Ok(Some(_)));
            if sender.send(line).is_err() || ends {
                return;
            }
        }
    };
    let spawned = std::thread::Builder::new().name("batch input".into()).spawn(read);
    spawned.map_err(|source| Error::NoThreads { wanted: 2, started: 1, source })?;
    Ok(receiver)
}

/// A record as a line without control characters.
fn json(record: &Record<'_>) -> Result<String> {
    let text = serde_json::to_string(record).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(json_fit_for_terminals(&text))
}
