//! A context: one sequence on one model, with its cache, its arena and its team of workers.
//! Everything is reserved when it is made; a decode step allocates nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::exec::{self, Pass};
use crate::error::{Error, Result};
use crate::kv::{self, Cache, CacheType};
use crate::model::{Model, RopeConfig, RopeOverrides};
use crate::profile::{self, Zone};
use crate::threads::{self, MAX_WORKERS, Team};

/// Tokens of a prompt that go through the model at once when the caller doesn't say: enough rows to
/// use each weight many times, few enough that the activations stay in a core's own cache.
const DEFAULT_BATCH: usize = 256;
/// Largest batch accepted.
const MAX_BATCH: usize = 1 << 16;

/// How large a context is and how many workers it has.
#[derive(Clone, Debug)]
pub struct ContextParams {
    /// Positions; 0 = what the model was trained on.
    pub n_ctx: usize,
    /// Tokens that go through the model at once; 0 = a sensible default.
    pub n_batch: usize,
    /// Most rows of logits that one decode may ask for.
    pub n_output: usize,
    /// Worker threads, the calling one included.
    pub threads: usize,
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
            kv: CacheType::default(),
            rope: RopeOverrides::default(),
        }
    }
}

/// What a context would take, before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Keys and values.
    pub cache_bytes: usize,
    /// Activations, scratch and tables.
    pub arena_bytes: usize,
    /// Both.
    pub total_bytes: usize,
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

/// Parameters with the defaults filled in and checked against the model.
struct Shape {
    n_ctx: usize,
    n_batch: usize,
    n_output: usize,
    cache: kv::Shape,
}

impl Shape {
    fn new(model: &Model, params: &ContextParams) -> Result<Shape> {
        params.rope.check()?;
        let config = model.config();
        let n_ctx = if params.n_ctx == 0 { config.n_ctx_train } else { params.n_ctx };
        let most = config.n_ctx_most();
        if n_ctx > most {
            let why = if config.rope.is_some() { "" } else { ", the positions that the model has learned" };
            return Err(Error::invalid(format!("n_ctx is {n_ctx}; at most {most}{why}")));
        }
        if config.rope.is_none() && params.rope != RopeOverrides::default() {
            return Err(Error::invalid("the model's positions are learned: it has no rope to change"));
        }
        let n_batch = if params.n_batch == 0 { DEFAULT_BATCH } else { params.n_batch };
        if n_batch > MAX_BATCH || params.n_output > MAX_BATCH {
            return Err(Error::invalid(format!("n_batch and n_output are at most {MAX_BATCH}")));
        }
        let n_output = params.n_output.max(1);
        // A decode that returns every row's logits is one batch.
        let n_batch = n_batch.min(n_ctx).max(n_output.min(n_ctx));
        let layout = model.kernels().attention.of(params.kv).layout(config.head_dim);
        let (n_layer, n_head_kv) = (config.n_layer, config.n_head_kv);
        let cache = kv::Shape { n_layer, n_head_kv, n_ctx, layout };
        Ok(Shape { n_ctx, n_batch, n_output: n_output.min(n_ctx), cache })
    }
}

/// One sequence being read or written.
pub struct Context {
    model: Arc<Model>,
    team: Team,
    cache: Cache,
    pass: Pass,
    /// Absent where positions are learned.
    rope: Option<RopeConfig>,
    n_ctx: usize,
    n_batch: usize,
    n_output: usize,
    /// What fills the positions so far; reserved for all of them.
    tokens: Vec<u32>,
    /// Rows of logits that the last decode left.
    n_logits: usize,
    cancel: Canceller,
    /// Whose the scopes of its passes are.
    owner: profile::Owner,
}

/// Ends what a context is doing, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// The decode or generation that runs on the context now ends with [`Error::Cancelled`], after the step it is
    /// at: within milliseconds. Where none runs, nothing happens.
    pub fn cancel(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Context {
    /// Bytes that [`Context::new`] would take for these parameters.
    pub fn memory(model: &Model, params: &ContextParams) -> Result<MemoryEstimate> {
        let shape = Shape::new(model, params)?;
        let cache_bytes = shape.cache.bytes()?;
        let arena_bytes = Pass::bytes(model, &shape.cache, shape.n_batch, shape.n_output, params.threads)?;
        let total_bytes = cache_bytes
            .checked_add(arena_bytes)
            .ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "a context" })?;
        Ok(MemoryEstimate { cache_bytes, arena_bytes, total_bytes })
    }

    /// Reserves everything that decoding needs.
    pub fn new(model: Arc<Model>, params: &ContextParams) -> Result<Context> {
        if !(1..=MAX_WORKERS).contains(&params.threads) {
            return Err(Error::invalid(format!(
                "threads is {}; expected 1 to {MAX_WORKERS}",
                params.threads
            )));
        }
        let shape = Shape::new(&model, params)?;
        let cache = Cache::new(shape.cache)?;
        let rope = model.config().rope.as_ref().map(|rope| rope.with(&params.rope));
        let pass =
            Pass::new(&model, rope.as_ref(), &shape.cache, shape.n_batch, shape.n_output, params.threads)?;
        let team = Team::new(params.threads)?;
        let Shape { n_ctx, n_batch, n_output, .. } = shape;
        let mut tokens = Vec::new();
        let bytes = n_ctx * size_of::<u32>();
        tokens.try_reserve_exact(n_ctx).map_err(|_| Error::OutOfMemory { bytes, what: "the tokens" })?;
        Ok(Context {
            model,
            team,
            cache,
            pass,
            rope,
            n_ctx,
            n_batch,
            n_output,
            tokens,
            n_logits: 0,
            cancel: Canceller::default(),
            owner: profile::Owner::new(),
        })
    }

    /// The model it runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
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
        self.n_ctx
    }

    /// What to warn of: that there are more positions than the model was trained on, stretched as they are.
    pub fn warning(&self) -> Option<String> {
        let config = self.model.config();
        let (rope, trained) = self.rope.as_ref().zip(config.rope.as_ref())?;
        let stretch = f64::from(rope.factor) / f64::from(trained.factor);
        let trained = config.n_ctx_train as f64 * stretch;
        (self.n_ctx as f64 > trained).then(|| {
            let needed = f64::from(rope.factor) * self.n_ctx as f64 / trained;
            format!(
                "the context has {} positions, the model was trained on {trained:.0}: what it writes beyond them \
                 may be worthless (a rope scale of {needed:.2} would stretch them)",
                self.n_ctx
            )
        })
    }

    /// Workers, the calling thread included.
    pub fn threads(&self) -> usize {
        self.team.count()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.n_logits = 0;
    }

    /// Keeps the first `n` positions and forgets the rest.
    pub fn rewind(&mut self, n: usize) -> Result<()> {
        if n > self.len() {
            return Err(Error::invalid(format!(
                "can't rewind to {n}: only {} positions are filled",
                self.len()
            )));
        }
        self.tokens.truncate(n);
        self.n_logits = 0;
        Ok(())
    }

    /// Under which its passes are profiled apart from other contexts': see [`profile::snapshot_of`].
    pub fn owner(&self) -> &profile::Owner {
        &self.owner
    }

    /// What ends a decode from another thread.
    pub fn canceller(&self) -> Canceller {
        self.cancel.clone()
    }

    /// Appends tokens to the sequence; with an error nothing is appended.
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
    pub(super) fn set_fault(&mut self, fault: Option<super::exec_tests::Fault>) {
        self.pass.fault = fault;
    }

    /// What was cancelled before is over.
    pub(super) fn begin_call(&self) {
        self.cancel.0.store(false, Relaxed);
    }

    /// [`Context::decode`] within a call that may have been cancelled already.
    pub(super) fn decode_further(&mut self, tokens: &[u32], logits: Logits) -> Result<()> {
        self.check(tokens, logits)?;
        let _owned = self.owner.enter();
        let _zone = profile::scope(if tokens.len() == 1 { Zone::Decode } else { Zone::Prefill });
        self.n_logits = 0;
        let begin = self.len();
        let last = (tokens.len() - 1) / self.n_batch;
        for (i, chunk) in tokens.chunks(self.n_batch).enumerate() {
            let outputs = match logits {
                Logits::All => chunk.len(),
                Logits::Last if i == last => 1,
                _ => 0,
            };
            let (position, cancel) = (self.len(), &*self.cancel.0);
            let batch = exec::Batch { tokens: chunk, position, n_output: outputs, cancel };
            if let Err(error) = self.pass.run(&self.team, &self.model, self.cache.view(), &batch) {
                self.tokens.truncate(begin);
                return Err(error);
            }
            self.tokens.extend_from_slice(chunk);
            self.n_logits = outputs;
        }
        Ok(())
    }

    fn check(&self, tokens: &[u32], logits: Logits) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::invalid("no tokens to decode"));
        }
        let n_vocab = self.model.config().n_vocab;
        if let Some((i, &token)) = tokens.iter().enumerate().find(|&(_, &t)| t as usize >= n_vocab) {
            return Err(Error::invalid(format!("token {i} is {token}; the vocabulary has {n_vocab}")));
        }
        if tokens.len() > self.n_ctx - self.len() {
            return Err(Error::ContextFull {
                n_ctx: self.n_ctx,
                needed: self.len().saturating_add(tokens.len()),
            });
        }
        if logits == Logits::All && tokens.len() > self.n_output {
            return Err(Error::invalid(format!(
                "logits of {} tokens were asked for; the context was made for {}",
                tokens.len(),
                self.n_output
            )));
        }
        Ok(())
    }

    /// Logits that the last decode computed, `n_vocab` for each row, oldest first; empty if it computed none.
    pub fn logits(&self) -> &[f32] {
        self.pass.logits(self.n_logits)
    }
}
