//! The part of a server that all threads share: new requests, cancellations, and events on their way to the host. Its lock
//! is held for moments only, and never while code of the host or a pass runs.

use std::collections::VecDeque;

use super::event::{Event, Stats, Status};
use super::request::RequestId;
use super::task::Task;
use crate::error::{Error, Result};
use crate::memory::reserve::{reserve, reserve_text, with_room};
use crate::runtime::generation::Output;
use crate::runtime::sampling::TokenLogprob;

/// The purpose of the memory, in errors.
const WHAT: &str = "the server's requests and events";

/// Bytes of text that are reserved when a server is made: more than events have as a rule before they are polled.
const ROOM: usize = 1 << 12;

/// A request that hasn't ended.
struct Live {
    id: RequestId,
    status: Status,
    cancelled: bool,
}

/// An event, the bytes of its text, and the number of its log-probabilities.
struct Record {
    event: Event,
    text: usize,
    logprobs: usize,
}

pub(super) struct Board {
    pub stats: Stats,
    /// Requests that no step has seen.
    inbox: Vec<Task>,
    /// By ascending number.
    live: Vec<Live>,
    any_cancelled: bool,
    /// With room for `most_events` and an end of each request.
    events: VecDeque<Record>,
    /// The events' texts, from `first` on.
    texts: String,
    first: usize,
    /// The events' log-probabilities, from `first_logprob` on.
    logprobs: Vec<TokenLogprob>,
    first_logprob: usize,
    most_requests: usize,
    most_events: usize,
}

impl Board {
    pub fn new(most_requests: usize, most_events: usize) -> Result<Self> {
        let mut texts = String::new();
        reserve_text(&mut texts, ROOM, WHAT)?;
        Ok(Board {
            stats: Stats::default(),
            inbox: Vec::new(),
            live: with_room(most_requests, WHAT)?,
            any_cancelled: false,
            events: VecDeque::from(with_room(most_events + most_requests, WHAT)?),
            texts,
            first: 0,
            logprobs: Vec::new(),
            first_logprob: 0,
            most_requests,
            most_events,
        })
    }

    /// Takes a request, and gives it its number.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there are as many as the server takes; [`Error::OutOfMemory`].
    pub fn submit(&mut self, task: impl FnOnce(RequestId) -> Task) -> Result<RequestId> {
        if self.live.len() == self.most_requests {
            let most = self.most_requests;
            return Err(Error::invalid(format!(
                "{most} requests wait or run already; the server takes no more"
            )));
        }
        reserve(&mut self.inbox, 1, WHAT)?;
        self.stats.submitted += 1;
        let id = RequestId(self.stats.submitted);
        self.live.push(Live { id, status: Status::Waiting, cancelled: false });
        self.inbox.push(task(id));
        Ok(id)
    }

    fn place(&self, id: RequestId) -> Option<usize> {
        self.live.binary_search_by_key(&id, |live| live.id).ok()
    }

    /// Marks a request as cancelled; false where it has ended, or never was.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let place = self.place(id);
        if let Some(place) = place {
            self.live[place].cancelled = true;
            self.any_cancelled = true;
        }
        place.is_some()
    }

    pub fn status(&self, id: RequestId) -> Option<Status> {
        self.place(id).map(|place| self.live[place].status)
    }

    pub fn set_status(&mut self, id: RequestId, status: Status) {
        if let Some(place) = self.place(id) {
            self.live[place].status = status;
        }
    }

    /// Whether the host has to poll before `outputs` more events of that kind have room.
    pub fn is_full(&self, outputs: usize) -> bool {
        self.events.len() + outputs > self.most_events
    }

    /// The new requests.
    pub fn take_new(&mut self) -> impl Iterator<Item = Task> {
        self.inbox.drain(..)
    }

    /// Calls `each` with every request that was cancelled since the last call.
    pub fn take_cancelled(&mut self, mut each: impl FnMut(RequestId)) {
        if std::mem::take(&mut self.any_cancelled) {
            self.live.iter().filter(|live| live.cancelled).for_each(|live| each(live.id));
        }
    }

    /// Adds an event for a token or for text. `logprobs` are the token's own log-probability and those of the likeliest
    /// tokens, where these are asked for.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for the text or the log-probabilities.
    pub fn output(
        &mut self,
        request: RequestId,
        output: &Output<'_>,
        logprobs: Option<(TokenLogprob, &[TokenLogprob])>,
    ) -> Result<()> {
        let n_logprobs = self.note_logprobs(logprobs)?;
        if self.texts.capacity() - self.texts.len() < output.text.len() {
            self.texts.drain(..std::mem::take(&mut self.first));
            reserve_text(&mut self.texts, output.text.len(), WHAT)?;
        }
        self.texts.push_str(output.text);
        self.stats.sampled += u64::from(output.is_new);
        let event = Event::Output { request, token: output.token, is_new: output.is_new };
        self.events.push_back(Record { event, text: output.text.len(), logprobs: n_logprobs });
        Ok(())
    }

    /// Keeps an event's log-probabilities, and returns their number.
    fn note_logprobs(&mut self, logprobs: Option<(TokenLogprob, &[TokenLogprob])>) -> Result<usize> {
        let Some((token, best)) = logprobs else { return Ok(0) };
        let n = 1 + best.len();
        if self.logprobs.capacity() - self.logprobs.len() < n {
            self.logprobs.drain(..std::mem::take(&mut self.first_logprob));
            reserve(&mut self.logprobs, n, WHAT)?;
        }
        self.logprobs.push(token);
        self.logprobs.extend_from_slice(best);
        Ok(n)
    }

    /// Adds a request's last event, and forgets the request.
    pub fn end(&mut self, event: Event) {
        if let Some(place) = self.place(event.request()) {
            self.live.remove(place);
        }
        match &event {
            Event::Failed { error, .. } => {
                self.stats.failed += 1;
                self.stats.cancelled += u64::from(matches!(error, Error::Cancelled));
            }
            _ => self.stats.finished += 1,
        }
        self.events.push_back(Record { event, text: 0, logprobs: 0 });
    }

    /// The first event, if `take` is content with it, its text and its log-probabilities; if not, it stays.
    pub fn poll<E>(
        &mut self,
        take: impl FnOnce(&Event, &str, &[TokenLogprob]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<Event>, E> {
        let Some(Record { event, text, logprobs }) = self.events.front() else { return Ok(None) };
        let (end, end_logprob) = (self.first + text, self.first_logprob + logprobs);
        take(event, &self.texts[self.first..end], &self.logprobs[self.first_logprob..end_logprob])?;
        (self.first, self.first_logprob) = (end, end_logprob);
        if self.first_logprob == self.logprobs.len() {
            self.logprobs.clear();
            self.first_logprob = 0;
        }
        if self.first == self.texts.len() {
            self.texts.clear();
            self.first = 0;
        }
        Ok(self.events.pop_front().map(|record| record.event))
    }

    pub fn n_events(&self) -> usize {
        self.events.len()
    }

    pub fn n_live(&self) -> usize {
        self.live.len()
    }
}
