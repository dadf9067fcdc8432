//! An engine: many sequences on one model, with their cache, an arena and a team of workers. It runs a batch at a time.
//! All memory is reserved when the engine is made; a pass allocates nothing.

mod sequences;
#[cfg(test)]
mod share_tests;
mod shift;
#[cfg(test)]
mod shift_tests;
mod snapshot;
#[cfg(test)]
mod snapshot_tests;

use std::fmt;
use std::sync::Arc;

pub use super::cancel::Canceller;
use super::cancel::Running;
use super::lower::lower;
use super::pass::{Limits, Pass, Span};
use super::plan::{MostRows, Plan};
use crate::error::{Error, Result};
use crate::kv::{self, Cache, CacheType};
use crate::memory::reserve::collected;
use crate::model::graph::{KeyValues, Node, Op};
use crate::model::{Model, Pooling, RopeOverrides};
use crate::profile::{self, Zone};
use crate::threads::Team;

/// Tokens of a prompt in one pass by default: enough rows to use each loaded weight many times, few enough that
/// activations stay in a core's own cache.
const DEFAULT_BATCH: usize = 256;
/// Largest batch accepted.
const MAX_BATCH: usize = 1 << 16;

/// The results that passes compute for the rows of [`Batch::outputs`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Logits: for each row a score for each token of the vocabulary.
    #[default]
    Logits,
    /// For each row the last hidden row, normalised as the head reads it.
    Hidden,
    /// For each span one row made of its hidden rows, behind the products that the file has for it: dense layers, or the
    /// classifier of [`Pooling::Rank`]. A span without output rows counts as one of zeros.
    Pooled(Pooling),
}

impl Output {
    /// The output that a model's file states for embeddings: pooled, or hidden rows where it states no pooling.
    pub fn embedding(model: &Model) -> Output {
        model.config().pooling.map_or(Output::Hidden, Output::Pooled)
    }
}

/// The size of an engine, and its results.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineParams {
    /// Most sequences that live at the same time.
    pub n_sequences: usize,
    /// Most positions of a sequence; 0 = as many as the model was trained on.
    pub n_ctx: usize,
    /// Most positions of all sequences together; 0 = `n_sequences · n_ctx`.
    pub n_positions: usize,
    /// Most tokens in one pass; 0 = a sensible default.
    pub n_batch: usize,
    /// Most output rows of one batch.
    pub n_output: usize,
    /// The kind of output.
    pub output: Output,
    /// The element type of cached keys and values.
    pub kv: CacheType,
    /// Changes in the rotary embedding, for contexts longer than the model was trained on.
    pub rope: RopeOverrides,
    /// Whether each sequence is one span, from position 0 on, and is rewound to 0 before its next one, as texts are whose
    /// vectors are wanted. Then layers use the same memory for keys and values, one after the other.
    pub one_span: bool,
    /// Whether the engine keeps an index of prefixes: [`Engine::create_with_prefix`], [`Engine::index_prefix`].
    pub prefix_index: bool,
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
            one_span: false,
            prefix_index: false,
        }
    }
}

impl EngineParams {
    /// Sets [`EngineParams::n_sequences`].
    pub fn with_n_sequences(self, n_sequences: usize) -> Self {
        Self { n_sequences, ..self }
    }

    /// Sets [`EngineParams::n_ctx`].
    pub fn with_n_ctx(self, n_ctx: usize) -> Self {
        Self { n_ctx, ..self }
    }

    /// Sets [`EngineParams::n_positions`].
    pub fn with_n_positions(self, n_positions: usize) -> Self {
        Self { n_positions, ..self }
    }

    /// Sets [`EngineParams::n_batch`].
    pub fn with_n_batch(self, n_batch: usize) -> Self {
        Self { n_batch, ..self }
    }

    /// Sets [`EngineParams::n_output`].
    pub fn with_n_output(self, n_output: usize) -> Self {
        Self { n_output, ..self }
    }

    /// Sets [`EngineParams::output`].
    pub fn with_output(self, output: Output) -> Self {
        Self { output, ..self }
    }

    /// Sets [`EngineParams::kv`].
    pub fn with_kv(self, kv: CacheType) -> Self {
        Self { kv, ..self }
    }

    /// Sets [`EngineParams::rope`].
    pub fn with_rope(self, rope: RopeOverrides) -> Self {
        Self { rope, ..self }
    }

    /// Sets [`EngineParams::one_span`].
    pub fn with_one_span(self, one_span: bool) -> Self {
        Self { one_span, ..self }
    }

    /// Sets [`EngineParams::prefix_index`].
    pub fn with_prefix_index(self, prefix_index: bool) -> Self {
        Self { prefix_index, ..self }
    }
}

/// Tokens for one pass.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Batch<'a> {
    /// The tokens, span after span: one row each.
    pub tokens: &'a [u32],
    /// The division of `tokens` into spans. Each span has at least one token, and no two continue the same sequence.
    pub spans: &'a [Span],
    /// Indices of the output rows among `tokens`, in ascending order.
    pub outputs: &'a [u32],
}

impl<'a> Batch<'a> {
    /// A batch of these tokens, spans and output rows.
    pub fn new(tokens: &'a [u32], spans: &'a [Span], outputs: &'a [u32]) -> Self {
        Batch { tokens, spans, outputs }
    }
}

/// The memory that an engine or a context takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// Bytes of keys and values.
    pub cache_bytes: usize,
    /// Bytes of activations, scratch memory and tables.
    pub arena_bytes: usize,
    /// Bytes of both.
    pub total_bytes: usize,
}

/// Parameters with defaults filled in, checked against the model.
struct Resolved {
    plan: Plan,
    limits: Limits,
    cache: kv::Shape,
}

impl Resolved {
    fn new(model: &Model, params: &EngineParams, threads: usize) -> Result<Resolved> {
        params.rope.check()?;
        let config = model.config();
        let n_ctx = if params.n_ctx == 0 { config.n_ctx_train } else { params.n_ctx };
        let (most, unrotated) = (config.n_ctx_most(), config.ropes.is_empty());
        if n_ctx > most {
            let learned = unrotated && !config.is_recurrent();
            let why = if learned { ", the number of positions that the model has learned" } else { "" };
            return Err(Error::invalid(format!("n_ctx is {n_ctx}; at most {most}{why}")));
        }
        if unrotated && params.rope != RopeOverrides::default() {
            let why =
                if config.is_recurrent() { "the model" } else { "the model's positions are learned: it" };
            return Err(Error::invalid(format!("{why} has no rotary embedding to change")));
        }
        let n_batch = if params.n_batch == 0 { DEFAULT_BATCH } else { params.n_batch };
        if n_batch > MAX_BATCH || params.n_output > MAX_BATCH {
            return Err(Error::invalid(format!("n_batch and n_output are at most {MAX_BATCH}")));
        }
        let all = n_ctx.saturating_mul(params.n_sequences);
        let n_output = params.n_output.max(1).min(all);
        // All output rows of a decode come from one batch.
        let n_batch = n_batch.min(all).max(n_output);
        let n_positions = if params.n_positions == 0 { all } else { params.n_positions.min(all) };
        let plan = plan(model, params.output)?;
        let kernel = model.kernels().attention.of(params.kv);
        let reads_earlier =
            |node: &Node| matches!(node.op, Op::Attention(a) if matches!(a.kv, KeyValues::Of(_)));
        let shares_layers =
            params.one_span && plan.layers_take_turns() && !model.graph().nodes.iter().any(reads_earlier);
        let groups = plan.groups.iter().map(|group| kv::Group {
            layers: if shares_layers { 1 } else { group.layers },
            n_head_kv: group.n_head_kv,
            layout: kernel.layout(group.head_dim),
            reach: if params.one_span { None } else { group.reach },
        });
        let cache = kv::Shape {
            groups: collected(groups.map(Ok), "the groups of the cache")?,
            state_bytes: plan.state_bytes,
            n_sequences: params.n_sequences,
            n_ctx,
            n_positions,
            n_batch,
            prefix_index: params.prefix_index,
        };
        // Refuses absurd sizes before memory is reserved for them.
        cache.bytes()?;
        let most = MostRows { batch: n_batch, output: n_output, spans: params.n_sequences.min(n_batch) };
        Ok(Resolved { plan, limits: Limits { most, n_ctx, threads, kv: params.kv }, cache })
    }
}

/// The plan that computes an output of a model.
///
/// # Errors
/// As [`lower`].
pub(super) fn plan(model: &Model, output: Output) -> Result<Plan> {
    let (graph, activations) = (model.graph(), model.kernels().qmatmul.activations());
    match output {
        Output::Logits => lower(graph, activations, graph.need_logits()?),
        Output::Hidden => lower(graph, activations, graph.hidden),
        Output::Pooled(pooling) => {
            let (graph, pooled) = graph.pooled(pooling)?;
            lower(&graph, activations, pooled)
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
    one_span: bool,
    rope: RopeOverrides,
    /// Angles by which keys are turned.
    turns: Vec<f32>,
    /// Output rows of the last pass.
    n_rows: usize,
    cancel: Canceller,
    /// The owner of its passes' scopes in the profile.
    owner: profile::Owner,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("model", &self.model)
            .field("n_ctx", &self.n_ctx())
            .field("n_batch", &self.n_batch())
            .field("threads", &self.team.count())
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// The memory that [`Engine::new`] would reserve for these parameters and a team of `threads`.
    ///
    /// # Errors
    /// As [`Engine::new`], except for memory that can't be had.
    pub fn memory(model: &Model, params: &EngineParams, threads: usize) -> Result<MemoryEstimate> {
        let shape = Resolved::new(model, params, threads)?;
        let cache_bytes = shape.cache.bytes()?;
        let arena_bytes = Pass::bytes(model, &shape.plan, &shape.limits)?;
        let total_bytes = cache_bytes
            .checked_add(arena_bytes)
            .ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "a context" })?;
        Ok(MemoryEstimate { cache_bytes, arena_bytes, total_bytes })
    }

    /// Reserves all memory of passes. Engines that share a team wait for each other's passes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the parameter, [`Error::OutOfMemory`].
    pub fn new(model: Arc<Model>, params: &EngineParams, team: Arc<Team>) -> Result<Engine> {
        Self::with(model, params, team.count(), || Ok(team))
    }

    /// [`Engine::new`] with a team of `threads` that is made last, after the parameters have been checked.
    pub(super) fn with(
        model: Arc<Model>,
        params: &EngineParams,
        threads: usize,
        team: impl FnOnce() -> Result<Arc<Team>>,
    ) -> Result<Engine> {
        let Resolved { plan, limits, cache } = Resolved::new(&model, params, threads)?;
        let cache = Cache::new(cache)?;
        let pass = Pass::new(&model, plan, &params.rope, &limits)?;
        Ok(Engine {
            model,
            team: team()?,
            cache,
            pass,
            limits,
            output: params.output,
            one_span: params.one_span,
            rope: params.rope,
            turns: Vec::new(),
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

    /// Most positions of a sequence.
    pub fn n_ctx(&self) -> usize {
        self.limits.n_ctx
    }

    /// Most tokens of a batch.
    pub fn n_batch(&self) -> usize {
        self.limits.most.batch
    }

    /// Most output rows of a batch.
    pub fn n_output(&self) -> usize {
        self.limits.most.output
    }

    /// Whether no token sees a position after its own, so that a sequence can be decoded in pieces.
    pub fn is_causal(&self) -> bool {
        self.plan().masks.iter().all(|mask| mask.is_causal())
    }

    /// The owner of its passes' scopes, by which [`profile::snapshot_of`] selects them.
    pub fn owner(&self) -> &profile::Owner {
        &self.owner
    }

    /// A handle that cancels a pass from another thread.
    pub fn canceller(&self) -> Canceller {
        self.cancel.clone()
    }

    /// Forgets a cancellation of an earlier call.
    pub(super) fn begin_call(&self) {
        self.cancel.begin();
    }

    /// Forgets a cancellation of an earlier call, and begins a generation.
    pub(super) fn begin_generation(&self, id: u64) -> Result<Running> {
        self.cancel.begin_generation(id)
    }

    /// Plants a fault in the passes to come.
    #[cfg(test)]
    pub(crate) fn set_fault(&mut self, fault: Option<super::pass_tests::Fault>) {
        self.pass.fault = fault;
    }

    /// Appends tokens to sequences in one pass. Each sequence gets the same bits that it would get alone. After an
    /// error no sequence has changed, with one exception: where a pass of a model with recurrent layers was cancelled or
    /// failed on its way, its sequences are back where their states were copied ([`Engine::keep`]), or empty.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a batch that contradicts itself, the engine's limits or the sequences;
    /// [`Error::ContextFull`] where positions or pages run out; [`Error::Cancelled`] by [`Engine::canceller`];
    /// [`Error::Internal`] where a worker panicked. The engine stays usable after any of them.
    pub fn run(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.begin_call();
        let zone = if batch.tokens.len() == batch.spans.len() { Zone::Decode } else { Zone::Prefill };
        let _owned = self.owner.enter();
        let _zone = profile::scope(zone);
        self.check(batch)?;
        self.run_checked(batch)
    }

    /// [`Engine::run`] of a batch that has been checked on its own, but not against the sequences, within a call that
    /// may have been cancelled already.
    pub(super) fn run_checked(&mut self, batch: &Batch<'_>) -> Result<()> {
        let Batch { tokens, spans, outputs } = *batch;
        self.cache.reserve(spans.iter().map(|span| (span.sequence, span.first, span.rows)))?;
        self.n_rows = 0;
        let (kv, cancel, view) = (self.limits.kv, self.cancel.flag(), self.cache.view());
        let outcome = self.pass.run(&self.team, &self.model, kv, view, (tokens, spans, outputs), cancel);
        for span in spans {
            match outcome {
                Ok(()) => self.cache.advance(span.sequence),
                Err(_) => self.cache.release(span.sequence),
            }
        }
        outcome?;
        self.n_rows = if let Output::Pooled(_) = self.output { spans.len() } else { outputs.len() };
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
            return Err(Error::invalid(format!("the spans' rows don't add up to {} tokens", tokens.len())));
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
            return Err(Error::invalid("outputs are not ascending indices of the batch's tokens"));
        }
        self.check_tokens(tokens)?;
        if let (true, Some(span)) = (self.needs_whole(), spans.iter().find(|span| span.first > 0)) {
            let why = if self.one_span {
                "the engine takes sequences of one span"
            } else {
                "this model's attention isn't causal"
            };
            let first = span.first;
            return Err(Error::invalid(format!(
                "{why}: a sequence is decoded as a whole, not from position {first} on"
            )));
        }
        Ok(())
    }

    /// Checks that tokens are within the vocabulary.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the first token that isn't.
    pub(super) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let n_vocab = self.model.config().n_vocab;
        match tokens.iter().enumerate().find(|&(_, &token)| token as usize >= n_vocab) {
            Some((i, &token)) => {
                Err(Error::invalid(format!("token {i} is {token}; the vocabulary has {n_vocab}")))
            }
            None => Ok(()),
        }
    }

    /// The output of the last pass, row after row; empty if it had no output rows.
    pub fn output(&self) -> &[f32] {
        self.pass.output(self.n_rows)
    }
}
