//! A context: one sequence on one model, an [`Engine`] with a single sequence.
//! All memory is reserved when the context is made; a decode step allocates nothing.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::cancel::{Canceller, Running};
use super::engine::{Batch, Engine, EngineParams, MemoryEstimate};
use super::pass::Span;
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::kv::{CacheType, SequenceId, Sink};
use crate::memory::reserve::with_room;
use crate::model::{Model, RopeOverrides};
use crate::profile::{self, Zone};
use crate::text::escaped;
use crate::threads::{self, MAX_WORKERS, Team};

/// The size of a context, and its threads.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContextParams {
    /// Most positions; 0 = as many as the model was trained on.
    pub n_ctx: usize,
    /// Most tokens in one pass; 0 = a sensible default.
    pub n_batch: usize,
    /// Most rows of logits that one decode returns ([`Logits::All`]).
    pub n_output: usize,
    /// Worker threads, the calling one included. Ignored where a `team` is given.
    pub threads: usize,
    /// A team to share with other contexts, which then wait for each other; `None` makes a team of its own.
    pub team: Option<Arc<Team>>,
    /// The element type of cached keys and values.
    pub kv: CacheType,
    /// Changes in the rotary embedding, for contexts longer than the model was trained on.
    pub rope: RopeOverrides,
}

impl Default for ContextParams {
    fn default() -> Self {
        ContextParams {
            n_ctx: 0,
            n_batch: 0,
            n_output: 1,
            threads: threads::available(),
            team: None,
            kv: CacheType::default(),
            rope: RopeOverrides::default(),
        }
    }
}

impl ContextParams {
    /// Sets [`ContextParams::n_ctx`].
    pub fn with_n_ctx(self, n_ctx: usize) -> Self {
        Self { n_ctx, ..self }
    }

    /// Sets [`ContextParams::n_batch`].
    pub fn with_n_batch(self, n_batch: usize) -> Self {
        Self { n_batch, ..self }
    }

    /// Sets [`ContextParams::n_output`].
    pub fn with_n_output(self, n_output: usize) -> Self {
        Self { n_output, ..self }
    }

    /// Sets [`ContextParams::threads`].
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Sets [`ContextParams::team`].
    pub fn with_team(self, team: impl Into<Option<Arc<Team>>>) -> Self {
        Self { team: team.into(), ..self }
    }

    /// Sets [`ContextParams::kv`].
    pub fn with_kv(self, kv: CacheType) -> Self {
        Self { kv, ..self }
    }

    /// Sets [`ContextParams::rope`].
    pub fn with_rope(self, rope: RopeOverrides) -> Self {
        Self { rope, ..self }
    }

    fn engine(&self) -> EngineParams {
        let ContextParams { n_ctx, n_batch, n_output, kv, rope, .. } = *self;
        EngineParams { n_ctx, n_batch, n_output, kv, rope, ..EngineParams::default() }
    }

    fn count(&self) -> usize {
        self.team.as_ref().map_or(self.threads, |team| team.count())
    }
}

/// The logits that a decode computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// No logits: only the cache is filled.
    None,
    /// The logits after the last token.
    Last,
    /// The logits after every token; at most [`ContextParams::n_output`] tokens.
    All,
}

/// A sequence of tokens on a model, with its cache of keys and values.
pub struct Context {
    engine: Engine,
    sequence: SequenceId,
    rope: RopeOverrides,
    /// The tokens of the filled positions, with room for all positions.
    tokens: Vec<u32>,
    /// 0, 1, 2 …: the output rows of a batch are a run of these.
    rows: Vec<u32>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("engine", &self.engine)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Context {
    /// The memory that [`Context::new`] would reserve for these parameters.
    ///
    /// # Errors
    /// As [`Context::new`], except for memory and threads that can't be had.
    pub fn memory(model: &Model, params: &ContextParams) -> Result<MemoryEstimate> {
        Engine::memory(model, &params.engine(), params.count())
    }

    /// Reserves all memory of decoding, and starts the threads.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the parameter, [`Error::OutOfMemory`], [`Error::NoThreads`].
    pub fn new(model: Arc<Model>, params: &ContextParams) -> Result<Context> {
        let count = params.count();
        if !(1..=MAX_WORKERS).contains(&count) {
            return Err(Error::invalid(format!("threads is {count}; expected 1 to {MAX_WORKERS}")));
        }
        let mut engine = Engine::with(model, &params.engine(), count, || match &params.team {
            Some(team) => Ok(team.clone()),
            None => Ok(Arc::new(Team::new(count)?)),
        })?;
        let sequence = engine.create()?;
        let (n_ctx, n_batch) = (engine.n_ctx(), engine.n_batch());
        let tokens = with_room(n_ctx, "the tokens")?;
        let mut rows = with_room(n_batch, "the tokens")?;
        rows.extend(0..n_batch as u32);
        Ok(Context { engine, sequence, rope: params.rope, tokens, rows })
    }

    /// The model it runs.
    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    /// The plan of its passes.
    pub fn plan(&self) -> &Plan {
        self.engine.plan()
    }

    /// Number of filled positions.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens of the filled positions, in order.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether no position is filled.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Most tokens whose logits one decode computes: [`ContextParams::n_output`].
    pub fn n_output(&self) -> usize {
        self.engine.n_output()
    }

    /// Most positions.
    pub fn n_ctx(&self) -> usize {
        self.engine.n_ctx()
    }

    /// A warning for the user where the context has more positions than the model was trained on, its scaling of
    /// positions considered.
    pub fn warning(&self) -> Option<String> {
        let (config, n_ctx) = (self.model().config(), self.n_ctx());
        let file = config.ropes.first()?;
        let rope = file.with(&self.rope);
        let stretch = f64::from(rope.factor) / f64::from(file.factor);
        let trained = config.n_ctx_train as f64 * stretch;
        (n_ctx as f64 > trained).then(|| {
            let needed = f64::from(rope.factor) * n_ctx as f64 / trained;
            format!(
                "the context has {n_ctx} positions, the model was trained on {trained:.0}: text beyond them may be \
                 worthless (a rope scale of {needed:.2} would cover them)"
            )
        })
    }

    /// Workers, the calling thread included.
    pub fn threads(&self) -> usize {
        self.engine.team().count()
    }

    /// The team it runs on.
    pub fn team(&self) -> &Arc<Team> {
        self.engine.team()
    }

    /// The process that has its threads.
    #[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "the C ABI keeps a fork out by it"))]
    pub(crate) fn home(&self) -> &Arc<threads::Home> {
        self.engine.team().home()
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        // Going back to position 0 never fails.
        let _ = self.engine.rewind(self.sequence, 0);
        self.tokens.clear();
    }

    /// Copies the state of recurrent layers, so that the context can be rewound to its current position; the copy replaces
    /// an earlier one. [`Context::decode`] does so before it appends more than one token. It does nothing for a model
    /// without recurrent layers.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn keep(&mut self) -> Result<()> {
        self.engine.keep(self.sequence)
    }

    /// Keeps the first `n` positions, or fewer where these can't be kept alone, and forgets the others. Returns how many
    /// are kept: those up to the last copy of recurrent layers' state ([`Context::keep`]), or none.
    pub fn rewind_at_most(&mut self, n: usize) -> usize {
        let n = n.min(self.len());
        let kept = self.engine.kept(self.sequence).ok().flatten().filter(|&kept| kept <= n);
        for n in [Some(n), kept].into_iter().flatten() {
            if self.rewind(n).is_ok() {
                return n;
            }
        }
        self.clear();
        0
    }

    /// Keeps the first `n` positions and forgets the others.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where fewer than `n` positions are filled, where a layer with a window has released
    /// positions that the next token would see, or where the model has recurrent layers and no copy of their state at
    /// this position was made ([`Context::keep`]).
    pub fn rewind(&mut self, n: usize) -> Result<()> {
        self.engine.rewind(self.sequence, n)?;
        self.tokens.truncate(n);
        Ok(())
    }

    /// Checks that [`Context::remove_range`] and [`Context::shift`] can take positions out of the middle.
    ///
    /// # Errors
    /// As [`Engine::check_removal`].
    pub fn check_removal(&self) -> Result<()> {
        self.engine.check_removal()
    }

    /// Takes the positions of `range` out of the context. Those behind it move up, with their keys turned to their new
    /// positions. The output of the last decode is lost.
    ///
    /// # Errors
    /// As [`Engine::remove_range`]: nothing has changed then.
    pub fn remove_range(&mut self, range: Range<usize>) -> Result<()> {
        self.engine.remove_range(self.sequence, range.clone())?;
        self.tokens.drain(range);
        Ok(())
    }

    /// Makes room in a full context: it keeps the first `n_keep` tokens, drops the older half of the others, and moves the
    /// newer half up, as [`Context::remove_range`] does. Returns how many tokens it has dropped.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where fewer than two tokens stand behind the kept ones; those of
    /// [`Context::remove_range`].
    pub fn shift(&mut self, n_keep: usize) -> Result<usize> {
        let dropped = self.len().saturating_sub(n_keep) / 2;
        if dropped == 0 {
            let len = self.len();
            return Err(Error::invalid(format!("a shift that keeps {n_keep} of {len} tokens drops none")));
        }
        self.remove_range(n_keep..n_keep + dropped)?;
        Ok(dropped)
    }

    /// Hands out the bytes of a snapshot of the context: its tokens, keys and values, and the state of recurrent layers.
    /// [`Context::load`] goes on from it bit for bit.
    ///
    /// # Errors
    /// As [`Engine::save`].
    pub fn save(&self, write: Sink<'_>) -> Result<()> {
        self.engine.save(self.sequence, &self.tokens, write)
    }

    /// Bytes of [`Context::save`].
    pub fn snapshot_bytes(&self) -> u64 {
        self.engine.snapshot_bytes(self.sequence, true).unwrap_or(0)
    }

    /// [`Context::save`] to a file, which appears whole or not at all.
    ///
    /// # Errors
    /// As [`Engine::save_file`].
    #[cfg(feature = "report")]
    pub fn save_file(&self, path: &std::path::Path) -> Result<()> {
        self.engine.save_file(self.sequence, &self.tokens, path)
    }

    /// Replaces the context's tokens, keys and values by those of a snapshot, and discards the output of the last decode.
    /// The whole snapshot is checked before anything is replaced. It may come from a context of another size, another
    /// batch and other threads.
    ///
    /// # Errors
    /// As [`Engine::restore`], and [`Error::InvalidArgument`] for a snapshot without tokens: the context is as before then.
    /// Only where the source has changed since it was checked, can't be read any more, or has tokens that are not in the
    /// vocabulary, the context is empty.
    pub fn load(&mut self, source: &dyn ByteSource) -> Result<()> {
        if !self.engine.check_snapshot(source)? {
            return Err(Error::invalid(format!("{}: a snapshot without tokens", escaped(source.name()))));
        }
        self.clear();
        self.engine.remove(self.sequence)?;
        let mut tokens = Vec::new();
        match self.engine.restore(source, &mut tokens) {
            Ok(sequence) => {
                self.sequence = sequence;
                // The context's own list has room for all positions.
                self.tokens.extend_from_slice(&tokens);
                Ok(())
            }
            Err(error) => {
                self.sequence = self.engine.create()?;
                Err(error)
            }
        }
    }

    /// The owner of its passes' scopes, by which [`profile::snapshot_of`] selects them.
    pub fn owner(&self) -> &profile::Owner {
        self.engine.owner()
    }

    /// A handle that cancels a decode from another thread.
    pub fn canceller(&self) -> Canceller {
        self.engine.canceller()
    }

    /// Appends tokens to the sequence. After an error the sequence is as before, with two exceptions: if the tokens took
    /// several passes, and a layer with a window has released positions before them, the whole sequence is forgotten; and
    /// if a pass of one token through recurrent layers failed on its way, the sequence ends where their state was copied
    /// ([`Context::keep`]). [`Context::tokens`] has the tokens that are left.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::ContextFull`]; [`Error::Cancelled`] by [`Context::canceller`];
    /// [`Error::Internal`] where a worker panicked. The context stays usable after any of them.
    pub fn decode(&mut self, tokens: &[u32], logits: Logits) -> Result<()> {
        self.begin_call();
        self.decode_further(tokens, logits)
    }

    /// Plants a fault in the passes to come.
    #[cfg(test)]
    pub(super) fn set_fault(&mut self, fault: Option<super::pass_tests::Fault>) {
        self.engine.set_fault(fault);
    }

    /// The engine and its sequence.
    #[cfg(test)]
    pub(super) fn engine_of_tests(&self) -> (&Engine, SequenceId) {
        (&self.engine, self.sequence)
    }

    /// Forgets a cancellation of an earlier call.
    pub(super) fn begin_call(&self) {
        self.engine.begin_call();
    }

    /// Begins a generation; see [`Canceller::begin_generation`].
    pub(super) fn begin_generation(&self, id: u64) -> Result<Running> {
        self.engine.begin_generation(id)
    }

    /// Checks that there is room for `n` more tokens.
    ///
    /// # Errors
    /// [`Error::ContextFull`].
    pub fn check_room(&self, n: usize) -> Result<()> {
        let n_ctx = self.n_ctx();
        if n > n_ctx - self.len() {
            return Err(Error::ContextFull { n_ctx, needed: self.len().saturating_add(n) });
        }
        Ok(())
    }

    /// [`Context::decode`] within a call that may have been cancelled already.
    pub(super) fn decode_further(&mut self, tokens: &[u32], logits: Logits) -> Result<()> {
        self.check(tokens, logits)?;
        let _owned = self.engine.owner().enter();
        let _zone = profile::scope(if tokens.len() == 1 { Zone::Decode } else { Zone::Prefill });
        let (begin, n_batch) = (self.len(), self.engine.n_batch());
        if tokens.len() > 1 && begin > 0 && self.engine.kept(self.sequence)? != Some(begin) {
            self.engine.keep(self.sequence)?;
        }
        let last = (tokens.len() - 1) / n_batch;
        for (i, chunk) in tokens.chunks(n_batch).enumerate() {
            let outputs = match logits {
                Logits::All => &self.rows[..chunk.len()],
                Logits::Last if i == last => &self.rows[chunk.len() - 1..chunk.len()],
                _ => &[],
            };
            let spans = [Span { sequence: self.sequence, rows: chunk.len(), first: self.tokens.len() }];
            if let Err(error) = self.engine.run_checked(&Batch { tokens: chunk, spans: &spans, outputs }) {
                self.forget_from(begin);
                return Err(error);
            }
            self.tokens.extend_from_slice(chunk);
        }
        Ok(())
    }

    /// Takes back the tokens that a call appended before it failed.
    fn forget_from(&mut self, begin: usize) {
        // A failed pass may have lost the state of recurrent layers, and tokens with it.
        self.tokens.truncate(self.engine.len(self.sequence).unwrap_or(0));
        if self.tokens.len() > begin {
            self.rewind_at_most(begin);
        }
    }

    fn check(&self, tokens: &[u32], logits: Logits) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::invalid("no tokens to decode"));
        }
        self.check_room(tokens.len())?;
        self.engine.check_tokens(tokens)?;
        if logits == Logits::All && tokens.len() > self.engine.n_output() {
            return Err(Error::invalid(format!(
                "logits of {} tokens in one decode; the context was made for {}",
                tokens.len(),
                self.engine.n_output()
            )));
        }
        if !self.engine.is_causal() && (!self.is_empty() || tokens.len() > self.engine.n_batch()) {
            return Err(Error::invalid(format!(
                "this model's attention isn't causal: a sequence is decoded as a whole, of at most {} tokens",
                self.engine.n_batch()
            )));
        }
        Ok(())
    }

    /// The logits of the last decode: rows of `n_vocab`, in the order of their tokens; empty if it computed none.
    pub fn logits(&self) -> &[f32] {
        self.engine.output()
    }
}
