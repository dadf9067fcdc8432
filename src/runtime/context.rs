//! A context: one sequence on one model, an [`Engine`] that has no other.
//! Everything is reserved when it is made; a decode step allocates nothing.

use std::sync::Arc;

use super::engine::{Batch, Canceller, Engine, EngineParams, MemoryEstimate};
use super::pass::Span;
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::kv::{CacheType, SequenceId};
use crate::model::{Model, RopeOverrides};
use crate::profile::{self, Zone};
use crate::threads::{self, MAX_WORKERS, Team};

/// How large a context is and how many workers it has.
#[derive(Clone, Debug)]
pub struct ContextParams {
    /// Positions; 0 = what the model was trained on.
    pub n_ctx: usize,
    /// Tokens that go through the model at once; 0 = a sensible default.
    pub n_batch: usize,
    /// Most rows of logits that one decode may ask for.
    pub n_output: usize,
    /// Worker threads, the calling one included; what [`ContextParams::team`] has counts where there is one.
    pub threads: usize,
    /// A team that other contexts may share, each in its turn; none for one of its own.
    pub team: Option<Arc<Team>>,
    /// What keys and values are stored as.
    pub kv: CacheType,
    /// Changes in how positions turn into rotations, for contexts longer than the model was trained on.
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
    fn engine(&self) -> EngineParams {
        let ContextParams { n_ctx, n_batch, n_output, kv, rope, .. } = *self;
        EngineParams { n_ctx, n_batch, n_output, kv, rope, ..EngineParams::default() }
    }

    fn count(&self) -> usize {
        self.team.as_ref().map_or(self.threads, |team| team.count())
    }
}

/// Which logits a decode computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: only the cache is filled.
    None,
    /// Those after the last token.
    Last,
    /// Those after every token; at most [`ContextParams::n_output`] tokens.
    All,
}

/// One sequence being read or written.
pub struct Context {
    engine: Engine,
    sequence: SequenceId,
    rope: RopeOverrides,
    /// What fills the positions so far; reserved for all of them.
    tokens: Vec<u32>,
    /// The numbers of a batch's rows: what a decode asks the output of is a run of these.
    rows: Vec<u32>,
}

impl Context {
    /// Bytes that [`Context::new`] would take for these parameters.
    pub fn memory(model: &Model, params: &ContextParams) -> Result<MemoryEstimate> {
        Engine::memory(model, &params.engine(), params.count())
    }

    /// Reserves everything that decoding needs.
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
        let mut tokens = Vec::new();
        let mut rows = Vec::new();
        let room = tokens.try_reserve_exact(n_ctx).and(rows.try_reserve_exact(n_batch));
        let bytes = (n_ctx + n_batch) * size_of::<u32>();
        room.map_err(|_| Error::OutOfMemory { bytes, what: "the tokens" })?;
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

    /// Positions filled so far.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens that fill them.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether no position is filled.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Positions there are.
    pub fn n_ctx(&self) -> usize {
        self.engine.n_ctx()
    }

    /// What to warn of: that there are more positions than the model was trained on, stretched as they are.
    pub fn warning(&self) -> Option<String> {
        let (config, n_ctx) = (self.model().config(), self.n_ctx());
        let file = config.ropes.first()?;
        let rope = file.with(&self.rope);
        let stretch = f64::from(rope.factor) / f64::from(file.factor);
        let trained = config.n_ctx_train as f64 * stretch;
        (n_ctx as f64 > trained).then(|| {
            let needed = f64::from(rope.factor) * n_ctx as f64 / trained;
            format!(
                "the context has {n_ctx} positions, the model was trained on {trained:.0}: what it writes beyond them \
                 may be worthless (a rope scale of {needed:.2} would stretch them)"
            )
        })
    }

    /// Workers, the calling thread included.
    pub fn threads(&self) -> usize {
        self.engine.team().count()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        // A sequence can always be forgotten as a whole.
        let _ = self.engine.rewind(self.sequence, 0);
        self.tokens.clear();
    }

    /// Keeps the first `n` positions and forgets the rest.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there are fewer, or where a layer's window has let go of what the next token
    /// would see.
    pub fn rewind(&mut self, n: usize) -> Result<()> {
        self.engine.rewind(self.sequence, n)?;
        self.tokens.truncate(n);
        Ok(())
    }

    /// Under which its passes are profiled apart from other contexts': see [`profile::snapshot_of`].
    pub fn owner(&self) -> &profile::Owner {
        self.engine.owner()
    }

    /// What ends a decode from another thread.
    pub fn canceller(&self) -> Canceller {
        self.engine.canceller()
    }

    /// Appends tokens to the sequence; with an error nothing is appended. Only where tokens of several passes are
    /// taken back, and a layer's window has let go of what stood before them, the whole sequence is forgotten.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::ContextFull`]; [`Error::Cancelled`] by [`Context::canceller`];
    /// [`Error::Internal`] where a worker panicked. The context is usable after any of them.
    pub fn decode(&mut self, tokens: &[u32], logits: Logits) -> Result<()> {
        self.begin_call();
        self.decode_further(tokens, logits)
    }

    /// Lets something go wrong in the passes to come.
    #[cfg(test)]
    pub(super) fn set_fault(&mut self, fault: Option<super::pass_tests::Fault>) {
        self.engine.set_fault(fault);
    }

    /// What was cancelled before is over.
    pub(super) fn begin_call(&self) {
        self.engine.begin_call();
    }

    /// [`Context::decode`] within a call that may have been cancelled already.
    pub(super) fn decode_further(&mut self, tokens: &[u32], logits: Logits) -> Result<()> {
        self.check(tokens, logits)?;
        let _owned = self.engine.owner().enter();
        let _zone = profile::scope(if tokens.len() == 1 { Zone::Decode } else { Zone::Prefill });
        let (begin, n_batch) = (self.len(), self.engine.n_batch());
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

    /// Takes back what a call had appended before it failed.
    fn forget_from(&mut self, begin: usize) {
        let now = self.tokens.len();
        // What a window has let go of can't be had back: then all is forgotten.
        if now > begin && self.rewind(begin).is_err() {
            self.clear();
        }
    }

    fn check(&self, tokens: &[u32], logits: Logits) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::invalid("no tokens to decode"));
        }
        self.engine.check_tokens(tokens)?;
        if tokens.len() > self.n_ctx() - self.len() {
            return Err(Error::ContextFull {
                n_ctx: self.n_ctx(),
                needed: self.len().saturating_add(tokens.len()),
            });
        }
        if logits == Logits::All && tokens.len() > self.engine.n_output() {
            return Err(Error::invalid(format!(
                "logits of {} tokens were asked for; the context was made for {}",
                tokens.len(),
                self.engine.n_output()
            )));
        }
        if !self.engine.is_causal() && (!self.is_empty() || tokens.len() > self.engine.n_batch()) {
            return Err(Error::invalid(format!(
                "tokens of this model see those behind them: a sequence comes as a whole, of at most {} tokens",
                self.engine.n_batch()
            )));
        }
        Ok(())
    }

    /// Logits that the last decode computed, `n_vocab` for each row, oldest first; empty if it computed none.
    pub fn logits(&self) -> &[f32] {
        self.engine.output()
    }
}
