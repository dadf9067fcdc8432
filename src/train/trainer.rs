//! The trainer: weights, gradients and moments of one model, and the plans that compute losses with and without
//! gradients.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::lora::LoraParams;
use super::lower::{Backward, Sizes as BatchSizes, lower};
use super::memory::{Memory, Sizes, TrainMemory};
use super::parameters::{Parameter, Parameters};
use super::params::TrainParams;
use super::plan::{Layout, Plan, WHAT};
use super::region::{Batches, Number, Region, Update};
use super::walk::{Rotation, Shared, Walk};
use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::format::gguf::Gguf;
use crate::kernels::KernelSet;
use crate::kernels::backward::NO_TARGET;
use crate::memory::reserve::collected;
use crate::model::graph::{Norm, Op, Value};
use crate::model::{Adapter, Config, Graph, LoadParams, random_bits, read_adapted_graph, read_graph};
use crate::profile::{self, Zone};
use crate::text::escaped;
use crate::threads::{Poisoned, Shares, Team, Worker};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepReport {
    /// The step's number, counted from 1.
    pub step: u64,
    /// Mean loss of all targets, in nats, before the update.
    pub loss: f64,
    /// Length of the gradient before it was clipped.
    pub gradient_norm: f64,
    /// The learning rate.
    pub rate: f64,
}

/// What is trained.
enum Trained<'a> {
    /// All tensors of the model.
    Model,
    /// A new adapter.
    New(&'a LoraParams),
    /// An adapter that has been trained before.
    Adapter(Adapter),
}

/// A model before its memory is reserved.
struct Prepared {
    gguf: Gguf,
    /// What is trained in place of the model.
    adapter: Option<Adapter>,
    config: Config,
    graph: Graph,
    params: TrainParams,
    sizes: BatchSizes,
    kernels: KernelSet,
    parameters: Parameters,
    /// Losses with gradients, and without.
    plans: [Plan; 2],
    memory: Sizes,
}

impl Prepared {
    fn new(
        source: Arc<dyn ByteSource>,
        trained: Trained<'_>,
        params: &TrainParams,
        workers: usize,
    ) -> Result<Prepared> {
        let gguf = Gguf::open(source)?;
        let adapter = match trained {
            Trained::Model => None,
            Trained::New(lora) => Some(lora.fresh(&gguf, &read_graph(&gguf)?.1, params.seed)?),
            Trained::Adapter(adapter) => Some(adapter),
        };
        if adapter.is_some() && params.dropout > 0.0 {
            return Err(Error::Unsupported("training of an adapter with dropout".into()));
        }
        let (config, graph) = read_adapted_graph(&gguf, adapter.as_slice())?;
        let context = if params.context == 0 { config.n_ctx_train } else { params.context };
        let params = params.with_context(context);
        params.check()?;
        let most = config.n_ctx_most();
        if context > most || context == 0 {
            return Err(Error::invalid(format!(
                "sequences of {context} tokens; the model takes 1 to {most}"
            )));
        }
        let kernels = LoadParams::default().with_isa(params.isa).kernels()?;
        let sizes = BatchSizes { sequences: params.sequences, context };
        let parameters = Parameters::new(&files(&gguf, &adapter)?, &graph)?;
        let backward = Backward { dropout: params.dropout, recompute: params.recompute };
        let plans = [Some(backward), None].map(|train| lower(&graph, &parameters, sizes, train));
        let [first, second] = plans;
        let plans = [first?, second?];
        let memory = Sizes::new([&plans[0], &plans[1]], &parameters, &kernels, workers)?;
        Ok(Prepared { gguf, adapter, config, graph, params, sizes, kernels, parameters, plans, memory })
    }

    fn bytes(&self, workers: usize) -> Result<TrainMemory> {
        let table = |dim: usize| dim.saturating_mul(self.sizes.context).saturating_mul(2 * size_of::<f32>());
        let ropes = self.graph.ropes.iter().map(|rope| table(rope.config.dim)).fold(0, usize::saturating_add);
        let (moments, rows) = (self.params.optimizer.moments(), self.sizes.rows());
        self.memory.bytes(&self.parameters, moments, (rows, ropes), workers)
    }
}

/// The files of weights, as specifications of tensors count them.
fn files<'a>(gguf: &'a Gguf, adapter: &'a Option<Adapter>) -> Result<Vec<&'a Gguf>> {
    let adapter = adapter.iter().map(Adapter::gguf);
    collected([gguf].into_iter().chain(adapter).map(Ok), WHAT)
}

/// Trains one model, or an adapter of one.
///
/// ```
/// use std::sync::Arc;
///
/// use smallmind::model::{GptConfig, RandomGpt};
/// use smallmind::threads::Team;
/// use smallmind::train::{TrainParams, Trainer};
///
/// let shape = GptConfig { vocab: 16, context: 8, dim: 8, layers: 1, heads: 2 };
/// let model = Arc::new(RandomGpt::new(&shape, 1)?);
/// let params = TrainParams::default().with_sequences(2);
/// let mut trainer = Trainer::new(model, &params, Arc::new(Team::new(1)?))?;
/// let tokens: Vec<u32> = (0..16).collect();
/// let targets: Vec<u32> = (1..17).map(|next| next % 16).collect();
/// let first = trainer.step(&tokens, &targets)?;
/// let second = trainer.step(&tokens, &targets)?;
/// assert!(second.loss < first.loss);
/// # Ok::<(), smallmind::Error>(())
/// ```
pub struct Trainer {
    /// The file whose tensors are trained: the model's, or the adapter's.
    pub(super) gguf: Arc<Gguf>,
    config: Config,
    graph: Graph,
    params: TrainParams,
    sizes: BatchSizes,
    kernels: KernelSet,
    pub(super) parameters: Parameters,
    plans: [Plan; 2],
    layouts: [Layout; 2],
    scratch: usize,
    pub(super) memory: Memory,
    bytes: TrainMemory,
    schedules: [Shares; 2],
    team: Arc<Team>,
    pub(super) steps: u64,
    pub(super) note: String,
}

impl fmt::Debug for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("graph", &self.graph)
            .field("parameters", &self.parameters.elements())
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Trainer {
    /// Reads a model's weights from the contents of a GGUF file, and reserves all memory.
    ///
    /// # Errors
    /// As [`Model::open`](crate::model::Model::open); [`Error::Unsupported`], naming layer and operation, for a model that
    /// can't be trained; [`Error::InvalidArgument`] naming the parameter; [`Error::OutOfMemory`].
    pub fn new(source: Arc<dyn ByteSource>, params: &TrainParams, team: Arc<Team>) -> Result<Trainer> {
        Trainer::make(source, Trained::Model, params, team)
    }

    /// Reads a model's weights, of any type, and reserves all memory for training a new low-rank adapter of it, while the
    /// model stays as it is: it has neither gradients nor moments.
    ///
    /// # Errors
    /// As [`Trainer::new`]; [`Error::InvalidArgument`], naming rank, alpha or target, for an adapter that the model can't
    /// have; [`Error::Unsupported`] for dropout.
    pub fn new_adapter(
        source: Arc<dyn ByteSource>,
        lora: &LoraParams,
        params: &TrainParams,
        team: Arc<Team>,
    ) -> Result<Trainer> {
        Trainer::make(source, Trained::New(lora), params, team)
    }

    /// A trainer of an adapter that is in a file already.
    pub(super) fn of_adapter(
        source: Arc<dyn ByteSource>,
        adapter: Adapter,
        params: &TrainParams,
        team: Arc<Team>,
    ) -> Result<Trainer> {
        Trainer::make(source, Trained::Adapter(adapter), params, team)
    }

    fn make(
        source: Arc<dyn ByteSource>,
        trained: Trained<'_>,
        params: &TrainParams,
        team: Arc<Team>,
    ) -> Result<Trainer> {
        let workers = team.count();
        let prepared = Prepared::new(source, trained, params, workers)?;
        let bytes = prepared.bytes(workers)?;
        let Prepared { gguf, adapter, config, graph, params, sizes, kernels, mut parameters, plans, memory } =
            prepared;
        parameters.load(&files(&gguf, &adapter)?, &graph)?;
        let gguf = adapter.map_or_else(|| Arc::new(gguf), |adapter| adapter.shared_gguf());
        let rotations = graph.ropes.iter().map(|rope| Rotation::new(rope, sizes.context));
        let rotations = collected(rotations, WHAT)?;
        let (batch, moments) = ((sizes.rows(), sizes.context), params.optimizer.moments());
        Ok(Trainer {
            memory: Memory::new(&memory, &parameters, moments, batch, rotations, workers)?,
            gguf,
            config,
            graph,
            params,
            sizes,
            kernels,
            parameters,
            plans,
            layouts: memory.layouts,
            scratch: memory.scratch,
            bytes,
            schedules: [Shares::new(workers)?, Shares::new(workers)?],
            team,
            steps: 0,
            note: String::new(),
        })
    }

    /// The memory that [`Trainer::new`] would reserve for these parameters and a team of `threads`.
    ///
    /// # Errors
    /// As [`Trainer::new`], except for memory that can't be had.
    pub fn estimate(
        source: Arc<dyn ByteSource>,
        params: &TrainParams,
        threads: usize,
    ) -> Result<TrainMemory> {
        Prepared::new(source, Trained::Model, params, threads)?.bytes(threads)
    }

    /// The memory that [`Trainer::new_adapter`] would reserve.
    ///
    /// # Errors
    /// As [`Trainer::new_adapter`], except for memory that can't be had.
    pub fn estimate_adapter(
        source: Arc<dyn ByteSource>,
        lora: &LoraParams,
        params: &TrainParams,
        threads: usize,
    ) -> Result<TrainMemory> {
        Prepared::new(source, Trained::New(lora), params, threads)?.bytes(threads)
    }

    /// The memory that was reserved.
    pub fn memory(&self) -> TrainMemory {
        self.bytes
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How it trains.
    pub fn params(&self) -> &TrainParams {
        &self.params
    }

    /// Changes the optimizer's numbers, the schedule and the limit of gradients to those of `params`, and nothing else.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the parameter, or for an optimizer of another kind; nothing is changed then.
    pub fn set_params(&mut self, params: &TrainParams) -> Result<()> {
        let TrainParams { optimizer, schedule, clip, .. } = *params;
        let params = TrainParams { optimizer, schedule, clip, ..self.params };
        params.check()?;
        let kind = |params: &TrainParams| (params.optimizer.name(), params.optimizer.moments());
        if kind(&params) != kind(&self.params) {
            return Err(Error::invalid("an optimizer of another kind than the trainer was made for"));
        }
        self.params = params;
        Ok(())
    }

    /// Tokens of a micro-batch.
    pub fn batch_tokens(&self) -> usize {
        self.sizes.rows()
    }

    /// Steps that have been made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The host's text, which states keep: [`Trainer::set_note`].
    pub fn note(&self) -> &str {
        &self.note
    }

    /// Gives states a text for what the host needs to go on: where its batches come from, and in which order.
    pub fn set_note(&mut self, note: String) {
        self.note = note;
    }

    /// The trained tensors, in the order of their first use.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters.list
    }

    /// A trained tensor's elements, row by row.
    pub fn weights(&self, parameter: &Parameter) -> &[f32] {
        self.parameters.slice(parameter, &self.parameters.values)
    }

    /// The gradient of the last call's mean loss by a trained tensor's elements, before it was clipped.
    pub fn gradient(&self, parameter: &Parameter) -> &[f32] {
        self.parameters.slice(parameter, &self.memory.gradients)
    }

    /// Floating-point operations of the products of a micro-batch, forward and backward; a multiply-add is two.
    pub fn batch_flops(&self) -> u64 {
        self.plans[0].flops()
    }

    /// One step: the mean loss of all targets and its gradient, over as many micro-batches as `tokens` holds, then one
    /// update of the weights. A target that is [`NO_TARGET`] doesn't count.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `tokens` and `targets` are no whole number of micro-batches, one is out of range, or
    /// no target counts; [`Error::NotFinite`], naming the first bad tensor, where loss or gradient aren't finite; the errors
    /// of [`Team::run`]. Weights are as before then.
    pub fn step(&mut self, tokens: &[u32], targets: &[u32]) -> Result<StepReport> {
        let rate = self.params.schedule.rate(self.steps);
        let (loss, gradient_norm) = self.pass(tokens, targets, Some(rate))?;
        self.steps += 1;
        Ok(StepReport { step: self.steps, loss, gradient_norm, rate })
    }

    /// The mean loss of all targets and its gradient, without an update: see [`Trainer::gradient`].
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn compute_gradients(&mut self, tokens: &[u32], targets: &[u32]) -> Result<f64> {
        self.pass(tokens, targets, None).map(|(loss, _)| loss)
    }

    /// The mean loss of all targets.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn evaluate(&mut self, tokens: &[u32], targets: &[u32]) -> Result<f64> {
        let _zone = profile::scope(Zone::TrainEvaluate);
        let counted = self.check(tokens, targets)?;
        let (batches, sum) = (Batches { tokens, targets }, Number::default());
        let team = self.team.clone();
        let (walk, ..) = self.walk(1, 0.0);
        team.run(|worker| {
            // SAFETY: every worker makes the same call, and this function has all of the trainer's memory to itself.
            let region = unsafe { Region::new(&walk, worker) };
            let _ = region.batches(&batches, &sum);
        })?;
        let loss = sum.get() / counted as f64;
        match loss.is_finite() {
            true => Ok(loss),
            false => Err(self.fault(&batches, loss, "validation")?),
        }
    }

    /// Losses and gradients of all micro-batches, and an update if there is a rate.
    fn pass(&mut self, tokens: &[u32], targets: &[u32], rate: Option<f64>) -> Result<(f64, f64)> {
        let _zone = profile::scope(Zone::TrainStep);
        let counted = self.check(tokens, targets)?;
        let (batches, sum, length) = (Batches { tokens, targets }, Number::default(), Number::default());
        let team = self.team.clone();
        let (params, step) = (self.params, self.steps + 1);
        let (walk, parameters, moments, squares) = self.walk(0, 1.0 / counted as f32);
        let update = Update {
            optimizer: params.optimizer,
            rate: rate.unwrap_or(0.0),
            step,
            clip: params.clip,
            parameters: parameters.0,
            trained: parameters.1,
            moments,
        };
        let work = |worker: &Worker<'_>| -> Result<(), Poisoned> {
            // SAFETY: every worker makes the same calls with barriers between them, and this function has all of the
            // trainer's memory to itself.
            let region = unsafe { Region::new(&walk, worker) };
            region.clear(update.trained)?;
            region.batches(&batches, &sum)?;
            let norm = region.length(update.trained, &squares)?;
            if worker.index() == 0 {
                length.put(norm);
            }
            if rate.is_some() && norm.is_finite() && sum.get().is_finite() {
                region.update(&update, norm);
            }
            Ok(())
        };
        team.run(|worker| {
            // A poisoned barrier means that another worker ended the region; `Team::run` returns the cause.
            let _ = work(worker);
        })?;
        let (loss, norm) = (sum.get() / counted as f64, length.get());
        if loss.is_finite() && norm.is_finite() {
            return Ok((loss, norm));
        }
        let place = format!("step {step}");
        Err(self.fault(&batches, loss, &place)?)
    }

    /// A plan's memory, and what updates need besides.
    #[allow(clippy::type_complexity, reason = "the parts of one borrow")]
    fn walk(
        &mut self,
        plan: usize,
        scale: f32,
    ) -> (Walk<'_>, (&[Parameter], usize), [Shared<'_, f32>; 2], Shared<'_, f64>) {
        let workers = self.team.count();
        // An interrupted walk leaves schedules in an arbitrary state.
        for schedule in &self.schedules {
            (0..workers).for_each(|worker| schedule.reset(worker));
        }
        let Memory { gradients, moments, arena, scratch, losses, squares, positions, rotations } =
            &mut self.memory;
        let Parameters { list, trained, values, .. } = &mut self.parameters;
        let walk = Walk {
            kernels: &self.kernels,
            plan: &self.plans[plan],
            offsets: &self.layouts[plan].offsets,
            arena: Shared::new(arena.as_mut_slice()),
            weights: Shared::new(values.as_mut_slice()),
            gradients: Shared::new(gradients.as_mut_slice()),
            rotations,
            positions,
            tokens: &[],
            targets: &[],
            rows: self.sizes.rows(),
            context: self.sizes.context,
            scale,
            losses: Shared::new(losses),
            seed: random_bits(random_bits(self.params.seed).wrapping_add(self.steps)),
            scratch: Shared::new(scratch.as_mut_slice()),
            scratch_len: self.scratch,
            schedules: &self.schedules,
        };
        let [first, second] = moments;
        let moments = [Shared::new(first.as_mut_slice()), Shared::new(second.as_mut_slice())];
        (walk, (list, *trained), moments, Shared::new(squares))
    }

    /// Checks a batch; the number of targets that count.
    fn check(&self, tokens: &[u32], targets: &[u32]) -> Result<usize> {
        let (rows, vocab) = (self.sizes.rows(), self.config.n_vocab);
        if tokens.is_empty() || !tokens.len().is_multiple_of(rows) || targets.len() != tokens.len() {
            let (tokens, targets) = (tokens.len(), targets.len());
            return Err(Error::invalid(format!(
                "{tokens} tokens and {targets} targets; expected as many of each, a multiple of {rows}"
            )));
        }
        let wrong = |token: u32| token as usize >= vocab;
        if let Some(at) = tokens.iter().position(|&token| wrong(token)) {
            return Err(Error::invalid(format!("token {} at {at} of a vocabulary of {vocab}", tokens[at])));
        }
        if let Some(at) = targets.iter().position(|&target| target != NO_TARGET && wrong(target)) {
            return Err(Error::invalid(format!("target {} at {at} of a vocabulary of {vocab}", targets[at])));
        }
        match targets.iter().filter(|&&target| target != NO_TARGET).count() {
            0 => Err(Error::invalid("no target counts")),
            counted => Ok(counted),
        }
    }

    /// The error for a loss or a gradient that isn't finite: the first weight, value or gradient at fault.
    fn fault(&mut self, batches: &Batches<'_>, loss: f64, place: &str) -> Result<Error> {
        let what = if loss.is_finite() {
            "the gradient isn't finite".to_owned()
        } else {
            format!("the loss is {loss}")
        };
        let bad = |values: &[f32]| values.iter().any(|x| !x.is_finite());
        let named = |kind: &str, parameter: &Parameter| format!("{kind} {}", escaped(&parameter.name));
        let Parameters { list, frozen, .. } = &self.parameters;
        let weight = list.iter().chain(frozen).find(|p| bad(self.weights(p)));
        let tensor = match weight {
            Some(weight) => named("weight", weight),
            None => match self.bad_value(batches)? {
                Some(value) => value,
                None => {
                    let gradient = self.parameters.list.iter().find(|p| bad(self.gradient(p)));
                    gradient.map_or("the sum of losses".into(), |p| named("the gradient of", p))
                }
            },
        };
        Ok(Error::NotFinite(format!("{place}: {what}; the first tensor at fault is {tensor}")))
    }

    /// The first value of a forward pass that isn't finite.
    fn bad_value(&mut self, batches: &Batches<'_>) -> Result<Option<String>> {
        let (team, fault) = (self.team.clone(), AtomicU64::new(u64::MAX));
        let (walk, ..) = self.walk(1, 0.0);
        team.run(|worker| {
            // SAFETY: as for `evaluate`.
            let region = unsafe { Region::new(&walk, worker) };
            let _ = region.find_fault(batches, &fault);
        })?;
        let step = fault.load(Relaxed) as usize;
        Ok(self.plans[1].steps.get(step).map(|planned| self.name_of(planned.node)))
    }

    /// A value's name in errors: by its weights, or by its operation and layer.
    fn name_of(&self, value: Value) -> String {
        let (node, weights) = (self.graph.node(value), &self.graph.weights);
        let name = match node.op {
            Op::Linear(_, matrix, ..) => Some(&weights.matrix(matrix).name),
            Op::Embed(table) => Some(&weights.table(table).name),
            Op::Norm(_, Norm::Rms { gain, .. } | Norm::Layer { gain, .. })
            | Op::HeadNorm(_, _, Norm::Rms { gain, .. } | Norm::Layer { gain, .. }) => {
                Some(&weights.vector(gain).name)
            }
            _ => None,
        };
        match (name, node.layer) {
            (Some(name), _) => format!("the result of {}", escaped(name)),
            (None, Some(layer)) => format!("value {} of the graph, in layer {layer}", value.index()),
            (None, None) => format!("value {} of the graph", value.index()),
        }
    }
}
