//! An engine: many sequences on one model, with their cache, one arena and a team of workers, a batch at a time.
//! Everything is reserved when it is made; a pass allocates nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::lower::lower;
use super::pass::{Limits, Pass, Span};
use super::plan::{MostRows, Plan};
use crate::error::{Error, Result};
use crate::kv::{self, Cache, CacheType, SequenceId};
use crate::model::{Model, RopeOverrides};
use crate::profile::{self, Zone};
use crate::threads::Team;

/// Tokens of a prompt that go through the model at once when the caller doesn't say: enough rows to
/// use each weight many times, few enough that the activations stay in a core's own cache.
const DEFAULT_BATCH: usize = 256;
/// Largest batch accepted.
const MAX_BATCH: usize = 1 << 16;

/// What passes yield for the rows of [`Batch::outputs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Scores of the vocabulary, a row each.
    #[default]
    Logits,
    /// The last hidden row, normalised as the head reads it.
    Hidden,
    /// One row a span: the mean of the hidden rows.
    Mean,
}

/// How large an engine is.
#[derive(Clone, Debug)]
pub struct EngineParams {
    /// Sequences at once.
    pub n_sequences: usize,
    /// Positions of a sequence; 0 = what the model was trained on.
    pub n_ctx: usize,
    /// Positions of all sequences together; 0 = as many as all can have.
    pub n_positions: usize,
    /// Tokens that go through the model at once; 0 = a sensible default.
    pub n_batch: usize,
    /// Most rows of output that one batch may ask for.
    pub n_output: usize,
    /// What the output is.
    pub output: Output,
    /// What keys and values are stored as.
    pub kv: CacheType,
    /// Changes in how positions turn into rotations, for contexts longer than the model was trained on.
    pub rope: RopeOverrides,
}

impl Default for EngineParams {
    fn default() -> Self {
        EngineParams {
            n_sequences: 1,
            n_ctx: 0,
            n_positions: 0,
            n_batch: 0,
            n_output: 1,
            output: Output::default(),
            kv: CacheType::default(),
            rope: RopeOverrides::default(),
        }
    }
}

/// Tokens for one pass.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The tokens, span after span.
    pub tokens: &'a [u32],
    /// Whose they are: each of another sequence, one token at least.
    pub spans: &'a [Span],
    /// Rows whose output is wanted, in rising order.
    pub outputs: &'a [u32],
}

/// What an engine would take, before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Keys and values.
    pub cache_bytes: usize,
    /// Activations, scratch and tables.
    pub arena_bytes: usize,
    /// Both.
    pub total_bytes: usize,
}

/// Ends what an engine or context is doing, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// The decode or generation that runs now ends with [`Error::Cancelled`], after the step it is
    /// at: within milliseconds; one that waits for a shared team, when its turn comes. Where none runs, nothing
    /// happens.
    pub fn cancel(&self) {
        self.0.store(true, Relaxed);
    }
}

/// Parameters with the defaults filled in and checked against the model.
struct Shape {
    plan: Plan,
    limits: Limits,
    cache: kv::Shape,
}

impl Shape {
    fn new(model: &Model, params: &EngineParams, threads: usize) -> Result<Shape> {
        params.rope.check()?;
        let config = model.config();
        let n_ctx = if params.n_ctx == 0 { config.n_ctx_train } else { params.n_ctx };
        let (most, learned) = (config.n_ctx_most(), config.ropes.is_empty());
        if n_ctx > most {
            let why = if learned { ", the positions that the model has learned" } else { "" };
            return Err(Error::invalid(format!("n_ctx is {n_ctx}; at most {most}{why}")));
        }
        if learned && params.rope != RopeOverrides::default() {
            return Err(Error::invalid("the model's positions are learned: it has no rope to change"));
        }
        let n_batch = if params.n_batch == 0 { DEFAULT_BATCH } else { params.n_batch };
        if n_batch > MAX_BATCH || params.n_output > MAX_BATCH {
            return Err(Error::invalid(format!("n_batch and n_output are at most {MAX_BATCH}")));
        }
        let all = n_ctx.saturating_mul(params.n_sequences);
        let n_output = params.n_output.max(1).min(all);
        // A decode that returns every row's output is one batch.
        let n_batch = n_batch.min(all).max(n_output);
        let n_positions = if params.n_positions == 0 { all } else { params.n_positions.min(all) };
        let plan = plan(model, params.output)?;
        let kernel = model.kernels().attention.of(params.kv);
        let groups = plan.groups.iter().map(|group| kv::Group {
            layers: group.layers,
            n_head_kv: group.n_head_kv,
            layout: kernel.layout(group.head_dim),
            reach: group.reach,
        });
        let cache = kv::Shape {
            groups: groups.collect(),
            state_bytes: 0,
            n_sequences: params.n_sequences,
            n_ctx,
            n_positions,
            n_batch,
        };
        // Refuses absurd sizes before anything is made for them.
        cache.bytes()?;
        let most = MostRows { batch: n_batch, output: n_output, spans: params.n_sequences.min(n_batch) };
        Ok(Shape { plan, limits: Limits { most, n_ctx, threads, kv: params.kv }, cache })
    }
}

/// The plan of what a model computes.
///
/// # Errors
/// As [`lower`].
pub(super) fn plan(model: &Model, output: Output) -> Result<Plan> {
    let (graph, activations) = (model.graph(), model.kernels().qmatmul.activations());
    match output {
        Output::Logits => lower(graph, activations, graph.logits),
        Output::Hidden => lower(graph, activations, graph.hidden),
        Output::Mean => {
            let (pooled, mean) = graph.pooled();
            lower(&pooled, activations, mean)
        }
    }
}

/// Many sequences on one model.
pub struct Engine {
    model: Arc<Model>,
    team: Arc<Team>,
    cache: Cache,
    pass: Pass,
    limits: Limits,
    output: Output,
    /// Rows of output that the last pass left.
    n_rows: usize,
    cancel: Canceller,
    /// Whose the scopes of its passes are.
    owner: profile::Owner,
}

impl Engine {
    /// Bytes that [`Engine::new`] would take for these parameters and so many threads.
    ///
    /// # Errors
    /// As [`Engine::new`], but for memory that can't be had.
    pub fn memory(model: &Model, params: &EngineParams, threads: usize) -> Result<MemoryEstimate> {
        let shape = Shape::new(model, params, threads)?;
        let cache_bytes = shape.cache.bytes()?;
        let arena_bytes = Pass::bytes(model, &shape.plan, &shape.limits)?;
        let total_bytes = cache_bytes
            .checked_add(arena_bytes)
            .ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "a context" })?;
        Ok(MemoryEstimate { cache_bytes, arena_bytes, total_bytes })
    }

    /// Reserves everything that passes need. Engines that share a team wait for each other's passes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the parameter, [`Error::OutOfMemory`].
    pub fn new(model: Arc<Model>, params: &EngineParams, team: Arc<Team>) -> Result<Engine> {
        Self::with(model, params, team.count(), || Ok(team))
    }

    /// [`Engine::new`] with a team of `threads` that is made last: what the parameters ask for may be absurd.
    pub(super) fn with(
        model: Arc<Model>,
        params: &EngineParams,
        threads: usize,
        team: impl FnOnce() -> Result<Arc<Team>>,
    ) -> Result<Engine> {
        let Shape { plan, limits, cache } = Shape::new(&model, params, threads)?;
        let cache = Cache::new(cache)?;
        let pass = Pass::new(&model, plan, &params.rope, &limits)?;
        Ok(Engine {
            model,
            team: team()?,
            cache,
            pass,
            limits,
            output: params.output,
            n_rows: 0,
            cancel: Canceller::default(),
            owner: profile::Owner::new(),
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

    /// The plan that its passes walk.
    pub fn plan(&self) -> &Plan {
        self.pass.plan()
    }

    /// Positions of a sequence, at most.
    pub fn n_ctx(&self) -> usize {
        self.limits.n_ctx
    }

    /// Tokens of a batch, at most.
    pub fn n_batch(&self) -> usize {
        self.limits.most.batch
    }

    /// Rows of output, at most.
    pub fn n_output(&self) -> usize {
        self.limits.most.output
    }

    /// Whether every token sees only what stands before it, so that a sequence can come piece by piece.
    pub fn is_causal(&self) -> bool {
        self.plan().masks.iter().all(|mask| mask.is_causal())
    }

    /// A new, empty sequence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there are as many as the engine was made for.
    pub fn create(&mut self) -> Result<SequenceId> {
        self.cache.create()
    }

    /// Ends a sequence; its pages are free for others.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for one that isn't there.
    pub fn remove(&mut self, sequence: SequenceId) -> Result<()> {
        self.cache.remove(sequence)
    }

    /// Keeps the first `n` positions of a sequence; the last output is gone.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as [`Cache::rewind`]; nothing is changed then.
    pub fn rewind(&mut self, sequence: SequenceId, n: usize) -> Result<()> {
        self.cache.rewind(sequence, n)?;
        self.n_rows = 0;
        Ok(())
    }

    /// Positions that a sequence has.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for one that isn't there.
    pub fn len(&self, sequence: SequenceId) -> Result<usize> {
        self.cache.len(sequence)
    }

    /// Under which its passes are profiled apart from others': see [`profile::snapshot_of`].
    pub fn owner(&self) -> &profile::Owner {
        &self.owner
    }

    /// What ends a pass from another thread.
    pub fn canceller(&self) -> Canceller {
        self.cancel.clone()
    }

    /// What was cancelled before is over.
    pub(super) fn begin_call(&self) {
        self.cancel.0.store(false, Relaxed);
    }

    /// Lets something go wrong in the passes to come.
    #[cfg(test)]
    pub(super) fn set_fault(&mut self, fault: Option<super::pass_tests::Fault>) {
        self.pass.fault = fault;
    }

    /// Appends tokens to sequences in one pass. Each sequence gets the bits that it would get alone. With an error
    /// nothing is appended.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a batch that contradicts itself, the limits or the sequences;
    /// [`Error::ContextFull`] where positions or pages run out; [`Error::Cancelled`] by [`Engine::canceller`];
    /// [`Error::Internal`] where a worker panicked. The engine is usable after any of them.
    pub fn run(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.begin_call();
        let zone = if batch.tokens.len() == batch.spans.len() { Zone::Decode } else { Zone::Prefill };
        let _owned = self.owner.enter();
        let _zone = profile::scope(zone);
        self.check(batch)?;
        self.run_checked(batch)
    }

    /// [`Engine::run`] of a batch that only the sequences can contradict, within a call that may have been cancelled.
    pub(super) fn run_checked(&mut self, batch: &Batch<'_>) -> Result<()> {
        let Batch { tokens, spans, outputs } = *batch;
        let mut reserved = 0;
        let mut outcome = spans.iter().try_for_each(|span| {
            self.cache.reserve(span.sequence, span.first, span.rows)?;
            reserved += 1;
            Ok(())
        });
        if outcome.is_ok() {
            self.n_rows = 0;
            let (kv, cancel, view) = (self.limits.kv, &*self.cancel.0, self.cache.view());
            outcome = self.pass.run(&self.team, &self.model, kv, view, (tokens, spans, outputs), cancel);
        }
        for span in &spans[..reserved] {
            match outcome {
                Ok(()) => self.cache.advance(span.sequence),
                Err(_) => self.cache.release(span.sequence),
            }
        }
        outcome?;
        self.n_rows = if self.output == Output::Mean { spans.len() } else { outputs.len() };
        Ok(())
    }

    fn check(&self, batch: &Batch<'_>) -> Result<()> {
        let Batch { tokens, spans, outputs } = *batch;
        let MostRows { batch: n_batch, output, spans: n_spans } = self.limits.most;
        let counted = spans.iter().try_fold(0, |sum: usize, span| sum.checked_add(span.rows));
        if tokens.is_empty() || spans.iter().any(|span| span.rows == 0) {
            return Err(Error::invalid("no tokens to decode"));
        }
        if counted != Some(tokens.len()) {
            return Err(Error::invalid(format!("the spans don't add up to {} tokens", tokens.len())));
        }
        for (what, count, most) in [
            ("tokens", tokens.len(), n_batch),
            ("spans", spans.len(), n_spans),
            ("outputs", outputs.len(), output),
        ] {
            if count > most {
                return Err(Error::invalid(format!(
                    "{count} {what} in a batch; the engine was made for {most}"
                )));
            }
        }
        let rising = outputs.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || outputs.last().is_some_and(|&last| last as usize >= tokens.len()) {
            return Err(Error::invalid("outputs are not rising numbers of rows"));
        }
        self.check_tokens(tokens)?;
        if let (false, Some(span)) = (self.is_causal(), spans.iter().find(|span| span.first > 0)) {
            let first = span.first;
            return Err(Error::invalid(format!(
                "tokens of this model see those behind them: a sequence comes as a whole, not from {first} on"
            )));
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::InvalidArgument`] naming the first token that is outside of the vocabulary.
    pub(super) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let n_vocab = self.model.config().n_vocab;
        match tokens.iter().enumerate().find(|&(_, &token)| token as usize >= n_vocab) {
            Some((i, &token)) => {
                Err(Error::invalid(format!("token {i} is {token}; the vocabulary has {n_vocab}")))
            }
            None => Ok(()),
        }
    }

    /// What the last pass yielded, row after row; empty if it yielded nothing.
    pub fn output(&self) -> &[f32] {
        self.pass.output(self.n_rows)
    }
}
