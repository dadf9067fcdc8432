//! The server: its scheduler behind a lock that steps hold, and a board behind another one, for all other calls.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use super::board::Board;
use super::event::{Event, Progress, Stats, Status};
use super::params::ServerParams;
use super::request::{Prompt, Request, RequestId};
use super::scheduler::Scheduler;
use super::task::{self, Task};
use crate::error::{Error, Result};
use crate::memory::reserve::{reserve, reserve_text, with_room};
use crate::model::Model;
use crate::runtime::generation::{Generation, GenerationParams};
use crate::runtime::sampling::{Sampler, TokenLogprob};
use crate::runtime::{Engine, MemoryEstimate};
use crate::threads::Team;

/// Runs many requests on one model; see the [module](super).
///
/// Every method may be called on any thread at any moment. [`Server::step`] runs on the calling thread and the team; all
/// other methods return at once, also while a step runs.
pub struct Server {
    model: Arc<Model>,
    team: Arc<Team>,
    n_ctx: usize,
    n_sequences: usize,
    scheduler: Mutex<Scheduler>,
    board: Mutex<Board>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("model", &self.model)
            .field("n_sequences", &self.n_sequences)
            .field("n_ctx", &self.n_ctx)
            .field("threads", &self.team.count())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// The memory that [`Server::new`] would reserve for these parameters, apart from the lists of requests and events.
    ///
    /// # Errors
    /// As [`Server::new`], except for memory and threads that can't be had.
    pub fn memory(model: &Model, params: &ServerParams) -> Result<MemoryEstimate> {
        Engine::memory(model, &params.engine(model)?, params.workers())
    }

    /// Reserves all memory of passes, and starts the threads.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the parameter; [`Error::Unsupported`] for a model that writes no text, or whose
    /// tokens see what stands behind them; [`Error::OutOfMemory`]; [`Error::NoThreads`].
    pub fn new(model: Arc<Model>, params: &ServerParams) -> Result<Server> {
        let engine_params = params.engine(&model)?;
        let team = match &params.team {
            Some(team) => team.clone(),
            None => Arc::new(Team::new(params.workers())?),
        };
        let engine = Engine::new(model.clone(), &engine_params, team.clone())?;
        if !engine.is_causal() {
            return Err(Error::Unsupported("a server of a model whose attention isn't causal".into()));
        }
        let n_sequences = params.n_sequences;
        let most_events = params.n_events.max(4 * n_sequences);
        Ok(Server {
            model,
            team,
            n_ctx: engine.n_ctx(),
            n_sequences,
            scheduler: Mutex::new(Scheduler::new(engine, params)?),
            board: Mutex::new(Board::new(params.n_requests, most_events)?),
        })
    }

    /// The model it runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The team it runs on.
    pub fn team(&self) -> &Arc<Team> {
        &self.team
    }

    /// Most positions of a request: prompt and text.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Most requests that run at the same time.
    pub fn n_sequences(&self) -> usize {
        self.n_sequences
    }

    /// Takes a request, which the next step sees. Its memory is reserved here.
    ///
    /// # Errors
    /// [`Error::ContextFull`] for a prompt with more tokens than a sequence has positions; [`Error::InvalidArgument`] for
    /// an empty prompt, a token outside the vocabulary, stop strings as
    /// [`GenerationParams::validate`](crate::runtime::generation::GenerationParams::validate) says, and where
    /// [`ServerParams::n_requests`] requests wait or run already; those of
    /// [`Model::tokenizer`] and its encoding, if they are needed; [`Error::OutOfMemory`].
    pub fn submit(&self, request: Request<'_>) -> Result<RequestId> {
        let Request { prompt, sampler, params, priority } = request;
        self.submit_with(prompt, &params, priority, || sampler)
    }

    /// [`Server::submit`] of a request's parts. The sampler is taken once nothing can fail any more.
    pub(crate) fn submit_with(
        &self,
        prompt: Prompt<'_>,
        params: &GenerationParams<'_>,
        priority: i32,
        sampler: impl FnOnce() -> Sampler,
    ) -> Result<RequestId> {
        let (generation, tokens) = self.generation(prompt, params)?;
        let (n_prompt, pages) = (tokens.len(), task::pages(&tokens)?);
        self.board().submit(|id| Task {
            id,
            priority,
            generation,
            sampler: sampler(),
            tokens,
            n_prompt,
            logprobs: params.logprobs,
            pages,
            sequence: None,
            lacks: 0,
            takes: 0,
            follows: false,
            outcome: None,
            n_preempted: 0,
            submitted: Instant::now(),
            started: None,
            prefilled: None,
        })
    }

    /// A request's generation, and its prompt's tokens with room for all others.
    fn generation(
        &self,
        prompt: Prompt<'_>,
        params: &GenerationParams<'_>,
    ) -> Result<(Generation, Vec<u32>)> {
        if params.needs_text || !params.stops.is_empty() {
            self.model.tokenizer()?;
        }
        let encoded;
        let prompt = match prompt {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text(text) => {
                encoded = self.model.tokenizer()?.encode(text, false, true)?;
                &encoded
            }
        };
        if prompt.len() > self.n_ctx {
            return Err(Error::ContextFull { n_ctx: self.n_ctx, needed: prompt.len() });
        }
        let n_vocab = self.model.config().n_vocab;
        if let Some((i, token)) = prompt.iter().enumerate().find(|&(_, &token)| token as usize >= n_vocab) {
            return Err(Error::invalid(format!("token {i} is {token}; the vocabulary has {n_vocab}")));
        }
        if params.context_shift.is_some() {
            return Err(Error::Unsupported("context shift in a server".into()));
        }
        // Pieces are the scheduler's business.
        let generation = Generation::new(prompt, &GenerationParams { prompt_piece: 0, ..*params })?;
        let most = prompt.len().saturating_add(params.max_tokens).min(self.n_ctx);
        let mut tokens = with_room(most, "the tokens of a request")?;
        tokens.extend_from_slice(prompt);
        Ok((generation, tokens))
    }

    /// Cancels a request: the next step ends it, with [`Error::Cancelled`] as its last event. False where it has ended
    /// already, or never was.
    pub fn cancel(&self, request: RequestId) -> bool {
        self.board().cancel(request)
    }

    /// The status of a request; `None` where it has ended, or never was.
    pub fn status(&self, request: RequestId) -> Option<Status> {
        self.board().status(request)
    }

    /// Counts, as of the last step.
    pub fn stats(&self) -> Stats {
        let board = self.board();
        let n_waiting = board.n_live().saturating_sub(board.stats.n_running);
        Stats { n_waiting, n_events: board.n_events(), ..board.stats }
    }

    /// Runs one pass: it takes new requests in, ends cancelled ones, computes the next tokens, and adds events. Without
    /// work, and while too many events wait to be polled, it does nothing. In steady state it allocates nothing.
    ///
    /// An error of one request is an [`Event::Failed`] of it, and the others go on: also a panic of a stage of its sampler,
    /// and a fault of a pass, which is run again for each sequence alone.
    ///
    /// # Errors
    /// [`Error::Busy`] while another step runs, on another thread or around the calling one's sampler;
    /// [`Error::WrongProcess`] behind a fork. No request has changed then.
    pub fn step(&self) -> Result<Progress> {
        let mut scheduler = match self.scheduler.try_lock() {
            Ok(scheduler) => scheduler,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Error::Busy("the server")),
        };
        scheduler.step(&self.board)
    }

    /// The next event, if there is one; `text` gets its text, in place of what it held. Whoever passes the same text
    /// again allocates nothing in steady state.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for the text; the event stays.
    pub fn poll(&self, text: &mut String) -> Result<Option<Event>> {
        text.clear();
        self.poll_with(|_, piece, _| {
            reserve_text(text, piece.len(), "an event's text")?;
            text.push_str(piece);
            Ok(())
        })
    }

    /// [`Server::poll`] that also gives the event's log-probabilities, in place of what `logprobs` held: of a new token of a
    /// request that [asks](GenerationParams::logprobs) for them the token's own, then those of the likeliest tokens,
    /// likeliest first; of other events none.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for the text or the log-probabilities; the event stays.
    pub fn poll_logprobs(
        &self,
        text: &mut String,
        logprobs: &mut Vec<TokenLogprob>,
    ) -> Result<Option<Event>> {
        text.clear();
        logprobs.clear();
        self.poll_with(|_, piece, of_token| {
            reserve_text(text, piece.len(), "an event's text")?;
            reserve(logprobs, of_token.len(), "an event's log-probabilities")?;
            text.push_str(piece);
            logprobs.extend_from_slice(of_token);
            Ok(())
        })
    }

    /// The next event, if `take` is content with it, its text and its log-probabilities. It runs under the board's lock.
    pub(crate) fn poll_with<E>(
        &self,
        take: impl FnOnce(&Event, &str, &[TokenLogprob]) -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<Event>, E> {
        self.board().poll(take)
    }

    /// Steps until no request is left, and hands each event with its text to `on_event`; a break cancels the event's
    /// request.
    ///
    /// # Errors
    /// Those of [`Server::step`] and [`Server::poll`].
    pub fn run(&self, on_event: &mut dyn FnMut(&Event, &str) -> ControlFlow<()>) -> Result<()> {
        let mut text = String::new();
        loop {
            let progress = self.step()?;
            while let Some(event) = self.poll(&mut text)? {
                if on_event(&event, &text).is_break() {
                    self.cancel(event.request());
                }
            }
            if progress.is_idle() {
                return Ok(());
            }
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    /// Takes a running request's sequence out as bytes, and back in from them.
    #[cfg(test)]
    pub(super) fn save_and_restore(&self, place: usize) -> Result<bool> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner).save_and_restore(place)
    }

    /// Plants a fault in the passes to come.
    #[cfg(test)]
    pub(super) fn with_engine(&self, change: impl FnOnce(&mut Engine)) {
        change(self.scheduler.lock().unwrap_or_else(PoisonError::into_inner).engine_mut());
    }
}

/// The value behind a lock under which nothing panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
