//! Trainer
//! =======
//! Training of models of the GPT-2, Llama and Qwen families, in f32, or of low-rank adapters (LoRA) of them: batches of
//! tokens and targets in, losses and files out.
//! The same batches give the same bits on any number of threads.

use std::ffi::c_char;
use std::mem::size_of;
use std::ptr;
use std::sync::Arc;

use super::boundary;
use super::buffers;
use super::handle::{Entered, Exclusive, borrow, clear_out, free_exclusive, give};
use super::log::{SM_LOG_INFO, log};
use super::params::{self, Params, Versioned, fields};
use super::random::sm_gpt_params;
use super::status::{Failure, sm_status};
use super::team::{self, sm_team};
use crate::format::ByteSource;
use crate::model::foreign::open_source;
use crate::model::{GptConfig, RandomGpt};
use crate::runtime::ContextParams;
use crate::threads::Team;
use crate::train::{AdamW, LoraParams, Optimizer, Schedule, Sgd, StepReport, TrainParams, Trainer};

/// A trainer. It takes one call at a time.
pub struct sm_trainer {
    inner: Exclusive<Trainer>,
}

/// Longest list of names of matrices that is read.
const MAX_TARGETS_BYTES: usize = 4096;

/// AdamW.
pub const SM_OPTIMIZER_ADAMW: i32 = 0;
/// Stochastic gradient descent with momentum.
pub const SM_OPTIMIZER_SGD: i32 = 1;

/// A target that doesn't count, such as that of padding.
pub const SM_NO_TARGET: u32 = 4_294_967_295;

const _: () = assert!(SM_NO_TARGET == crate::train::NO_TARGET);

/// The size of a micro-batch, and how gradients change weights. Fill it with `sm_trainer_params_init`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_trainer_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Sequences of a micro-batch. Default 1.
    pub n_sequences: usize,
    /// Tokens of a sequence. 0, the default, for as many as the model was made for.
    pub n_ctx: usize,
    /// Threads, the calling one included; 0 is refused. Default: the CPUs that the process may use. Ignored if there is a
    /// `team`.
    pub n_threads: usize,
    /// The learning rate until `sm_trainer_set_learning_rate` changes it. Default 3e-4.
    pub learning_rate: f64,
    /// Share of a weight that a learning rate of 1 would take away in a step; gains and biases don't decay. Default 0.1.
    pub weight_decay: f64,
    /// AdamW: share of the mean of gradients that stays. Default 0.9.
    pub beta1: f64,
    /// AdamW: share of the mean of their squares that stays. Default 0.95.
    pub beta2: f64,
    /// AdamW: added to the root of that mean. Default 1e-8.
    pub eps: f64,
    /// SGD: share of the last step's direction that stays. Default 0.
    pub momentum: f64,
    /// Longest gradient, all parameters taken together; a longer one is scaled down. 0 for no limit. Default 1.
    pub clip: f64,
    /// Share of elements of embeddings and of what is added to the residual stream that is dropped. Default 0.
    pub dropout: f64,
    /// Seed of dropout. Default 0.
    pub seed: u64,
    /// One of `SM_OPTIMIZER_*`. Default `SM_OPTIMIZER_ADAMW`.
    pub optimizer: i32,
    /// 0.
    pub reserved: i32,
    /// A team whose threads the trainer uses. NULL, the default, for `n_threads` threads of the trainer's own. It holds the
    /// team as a context does.
    pub team: *mut sm_team,
    /// Rank of a low-rank adapter (LoRA) that is trained in place of the model, which stays as it is; it may be quantised.
    /// 0, the default, trains the model.
    pub lora_rank: usize,
    /// Factor of the adapter's change, which is divided by the rank. 0, the default, for twice the rank.
    pub lora_alpha: f64,
    /// The matrices of each layer that the adapter changes, separated by commas, such as "attn_q,attn_v". NULL, the default,
    /// for all of attention and MLP.
    pub lora_targets: *const c_char,
    /// 1 to compute a layer's activations again when its backward pass comes, instead of keeping them: much less memory, at
    /// most a third more work, the same bits. Default 0.
    pub recompute: i32,
    /// 0.
    pub reserved2: i32,
}

// SAFETY: repr(C); integers, floats and a raw pointer.
unsafe impl Versioned for sm_trainer_params {
    const NAME: &'static str = "sm_trainer_params";

    fields!(
        struct_size,
        n_sequences,
        n_ctx,
        n_threads,
        learning_rate,
        weight_decay,
        beta1,
        beta2,
        eps,
        momentum,
        clip,
        dropout,
        seed,
        optimizer,
        reserved,
        team,
        lora_rank,
        lora_alpha,
        lora_targets,
        recompute,
        reserved2
    );
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_trainer_params {
    fn defaults() -> Self {
        let TrainParams { sequences, context, clip, dropout, seed, .. } = TrainParams::default();
        let AdamW { beta1, beta2, eps, weight_decay, .. } = AdamW::default();
        Self {
            struct_size: size_of::<Self>(),
            n_sequences: sequences,
            n_ctx: context,
            n_threads: ContextParams::default().threads,
            learning_rate: 3e-4,
            weight_decay,
            beta1,
            beta2,
            eps,
            momentum: Sgd::default().momentum,
            clip: clip.unwrap_or(0.0),
            dropout,
            seed,
            optimizer: SM_OPTIMIZER_ADAMW,
            reserved: 0,
            team: ptr::null_mut(),
            lora_rank: 0,
            lora_alpha: 0.0,
            lora_targets: ptr::null(),
            recompute: 0,
            reserved2: 0,
        }
    }

    fn reserved(&self) -> i32 {
        self.reserved | self.reserved2
    }
}

/// What the parameters of a call say: how to train, the adapter if one is trained, and the team, the host's or a new one.
struct Wanted {
    params: TrainParams,
    lora: Option<LoraParams>,
    team: Arc<Team>,
}

/// The adapter that is to be trained, if one is.
///
/// # Safety
/// As the header says of `lora_targets`.
unsafe fn read_lora(read: &sm_trainer_params) -> Result<Option<LoraParams>, Failure> {
    if read.lora_rank == 0 {
        return Ok(None);
    }
    let mut lora = LoraParams::new(read.lora_rank);
    if read.lora_alpha != 0.0 {
        lora = lora.with_alpha(read.lora_alpha as f32);
    }
    if !read.lora_targets.is_null() {
        // SAFETY: the function's contract.
        let names = unsafe { buffers::string(read.lora_targets, MAX_TARGETS_BYTES, "lora_targets") }?;
        lora = lora.with_targets(names.split(',').map(|name| name.trim().to_owned()).collect());
    }
    Ok(Some(lora))
}

/// The parameters of a call, the defaults for NULL.
///
/// # Safety
/// As [`params::read`] and [`read_lora`]; the team is NULL or alive.
unsafe fn read_params(params: *const sm_trainer_params) -> Result<Wanted, Failure> {
    // SAFETY: the function's contract.
    let read = unsafe { params::read(params) }?;
    let optimizer = match read.optimizer {
        SM_OPTIMIZER_ADAMW => Optimizer::AdamW(
            AdamW::default()
                .with_betas(read.beta1, read.beta2)
                .with_eps(read.eps)
                .with_weight_decay(read.weight_decay),
        ),
        SM_OPTIMIZER_SGD => {
            Optimizer::Sgd(Sgd::default().with_momentum(read.momentum).with_weight_decay(read.weight_decay))
        }
        other => {
            return Err(Failure::invalid(format!("optimizer is {other}, which is none of SM_OPTIMIZER_*")));
        }
    };
    let params = TrainParams::default()
        .with_sequences(read.n_sequences)
        .with_context(read.n_ctx)
        .with_optimizer(optimizer)
        .with_schedule(Schedule::constant(read.learning_rate))
        .with_clip((read.clip != 0.0).then_some(read.clip))
        .with_dropout(read.dropout)
        .with_seed(read.seed)
        .with_recompute(params::boolean(read.recompute, "recompute")?);
    // SAFETY: the function's contract.
    let team = match unsafe { team::share(read.team) }? {
        Some(team) => team,
        None => Arc::new(Team::new(read.n_threads)?),
    };
    // SAFETY: the function's contract.
    let lora = unsafe { read_lora(&read) }?;
    Ok(Wanted { params, lora, team })
}

/// A new trainer, of the model or of an adapter.
fn make_new(source: Arc<dyn ByteSource>, wanted: Wanted) -> Result<Trainer, Failure> {
    let Wanted { params, lora, team } = wanted;
    Ok(match lora {
        Some(lora) => Trainer::new_adapter(source, &lora, &params, team)?,
        None => Trainer::new(source, &params, team)?,
    })
}

/// What a step did.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_train_report {
    /// The step's number, counted from 1.
    pub step: u64,
    /// Mean loss of all targets, in nats, before the update.
    pub loss: f64,
    /// Length of the gradient before it was clipped.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
}

// SAFETY: repr(C); an integer and floats.
unsafe impl Versioned for sm_train_report {
    const NAME: &'static str = "sm_train_report";

    fields!(step, loss, gradient_norm, learning_rate);
}

impl From<StepReport> for sm_train_report {
    fn from(report: StepReport) -> Self {
        let StepReport { step, loss, gradient_norm, rate } = report;
        Self { step, loss, gradient_norm, learning_rate: rate }
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_trainer_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_params_init(
    params: *mut sm_trainer_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Makes a trainer in `*trainer`, which you free with `sm_trainer_free`, of the model at `path`: as that of
/// `sm_model_load`. Weights of any type become f32. `params` may be NULL. All memory for steps is reserved here.
///
/// `SM_STATUS_UNSUPPORTED`: the model has an operation that can't be trained; the message names it. Otherwise as
/// `sm_model_load`; `SM_STATUS_INVALID_ARGUMENT`: a parameter is outside its range.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_create(
    path: *const c_char,
    params: *const sm_trainer_params,
    trainer: *mut *mut sm_trainer,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        create(params, trainer, make_new, || Ok(open_source(&buffers::path(path)?)?))
    })
}

/// Makes a trainer of a GPT with random weights: see `sm_model_create_random`. `gpt` and `params` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_create_random(
    gpt: *const sm_gpt_params,
    params: *const sm_trainer_params,
    trainer: *mut *mut sm_trainer,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        create(params, trainer, make_new, || {
            let sm_gpt_params { vocab, context, dim, layers, heads, seed, .. } = params::read(gpt)?;
            let config = GptConfig { vocab, context, dim, layers, heads };
            Ok(Arc::new(RandomGpt::new(&config, seed)?))
        })
    })
}

/// Makes a trainer that goes on from a state that `sm_trainer_save_state` wrote: with the same parameters and batches, its
/// steps have the bits that they would have had without the interruption.
///
/// `SM_STATUS_FORMAT`: the file is no such state, or is cut off. `SM_STATUS_INVALID_ARGUMENT`: also for a state of another
/// optimizer. Otherwise as `sm_trainer_create`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_resume(
    path: *const c_char,
    params: *const sm_trainer_params,
    trainer: *mut *mut sm_trainer,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let make = |source, wanted: Wanted| {
            if wanted.lora.is_some() {
                return Err(Failure::invalid("lora_rank: sm_trainer_resume_adapter goes on with an adapter"));
            }
            Ok(Trainer::resume(source, &wanted.params, wanted.team)?)
        };
        create(params, trainer, make, || Ok(open_source(&buffers::path(path)?)?))
    })
}

/// Makes a trainer that goes on from the state of an adapter's training: `model_path` is the model that it changes, as for
/// `sm_trainer_create`, and `path` the state. The adapter's rank, factor and matrices are those of the state; `lora_rank`,
/// `lora_alpha` and `lora_targets` mean nothing here. Otherwise as `sm_trainer_resume`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_resume_adapter(
    model_path: *const c_char,
    path: *const c_char,
    params: *const sm_trainer_params,
    trainer: *mut *mut sm_trainer,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let make = |state, wanted: Wanted| {
            let model = open_source(&buffers::path(model_path)?)?;
            Ok(Trainer::resume_adapter(model, state, &wanted.params, wanted.team)?)
        };
        create(params, trainer, make, || Ok(open_source(&buffers::path(path)?)?))
    })
}

/// Makes a trainer of a source, and gives it to the host.
///
/// # Safety
/// As [`read_params`]; `trainer` is NULL or writable.
unsafe fn create(
    params: *const sm_trainer_params,
    trainer: *mut *mut sm_trainer,
    make: impl FnOnce(Arc<dyn ByteSource>, Wanted) -> Result<Trainer, Failure>,
    source: impl FnOnce() -> Result<Arc<dyn ByteSource>, Failure>,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    unsafe {
        clear_out(trainer, "trainer")?;
        let source = source()?;
        let wanted = read_params(params)?;
        let home = wanted.team.home().clone();
        let made = make(source, wanted)?;
        log(SM_LOG_INFO, &format!("trainer of batches of {} tokens", made.batch_tokens()));
        give(trainer, sm_trainer { inner: Exclusive::at_home("the trainer", made, &home) });
    }
    Ok(())
}

/// Frees a trainer; NULL is fine. In a fork of the process that made it, nothing is done. While a call is using it, the
/// status is `SM_STATUS_BUSY` and it is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_free(trainer: *mut sm_trainer) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { free_exclusive(trainer, |trainer| &trainer.inner) })
}

/// Stores the tokens of a micro-batch in `*n_tokens`: `n_sequences` times `n_ctx`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_batch_tokens(
    trainer: *const sm_trainer,
    n_tokens: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { buffers::give_value(enter(trainer)?.batch_tokens(), n_tokens, "n_tokens") })
}

/// Stores the bytes that the trainer has reserved in `*bytes`: weights, gradients, moments, activations, scratch memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_memory(trainer: *const sm_trainer, bytes: *mut usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { buffers::give_value(enter(trainer)?.memory().total, bytes, "bytes") })
}

/// Sets the learning rate of the steps from now on: a finite number from 0 on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_set_learning_rate(
    trainer: *mut sm_trainer,
    learning_rate: f64,
) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        let mut trainer = unsafe { enter(trainer) }?;
        let params = trainer.params().with_schedule(Schedule::constant(learning_rate));
        Ok(trainer.set_params(&params)?)
    })
}

/// Makes one step on `n_tokens` tokens, one micro-batch or several, sequence after sequence: the mean loss of all targets
/// and its gradient, then one update of the weights. `targets` has the token that should follow each token, or
/// `SM_NO_TARGET` where none counts. `report` may be NULL; otherwise `report_size` is `sizeof(sm_train_report)`. A step
/// takes no memory.
///
/// `SM_STATUS_INVALID_ARGUMENT`: the tokens are no whole number of micro-batches, one is outside the vocabulary, or no target
/// counts. `SM_STATUS_NOT_FINITE`: loss or gradient is infinite or undefined; the message names the first tensor at fault.
/// The weights are as they were in both cases.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_step(
    trainer: *mut sm_trainer,
    tokens: *const u32,
    targets: *const u32,
    n_tokens: usize,
    report: *mut sm_train_report,
    report_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let mut trainer = enter(trainer)?;
        if !report.is_null() {
            params::check_size::<sm_train_report>(report_size)?;
        }
        let (tokens, targets) = batch(tokens, targets, n_tokens)?;
        let made = trainer.step(tokens, targets)?;
        if report.is_null() { Ok(()) } else { params::write(report, &made.into(), report_size) }
    })
}

/// Stores the mean loss of all targets, in nats, in `*loss`, and changes nothing. Otherwise as `sm_trainer_step`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_evaluate(
    trainer: *mut sm_trainer,
    tokens: *const u32,
    targets: *const u32,
    n_tokens: usize,
    loss: *mut f64,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let mut trainer = enter(trainer)?;
        let (tokens, targets) = batch(tokens, targets, n_tokens)?;
        buffers::give_value(trainer.evaluate(tokens, targets)?, loss, "loss")
    })
}

/// Writes the weights, in f32, to a GGUF file at `path`, which `sm_model_load` and llama.cpp load; of an adapter, its
/// weights, for `adapters` of `sm_model_params`. The file appears whole or not at all; one that stood there is replaced.
/// `SM_STATUS_IO`: it can't be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_save_model(trainer: *mut sm_trainer, path: *const c_char) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe { Ok(enter(trainer)?.save_model(&buffers::path(path)?)?) })
}

/// Writes all that the next step depends on to a file at `path`, from which `sm_trainer_resume` goes on. Otherwise as
/// `sm_trainer_save_model`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_trainer_save_state(trainer: *mut sm_trainer, path: *const c_char) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe { Ok(enter(trainer)?.save_state(&buffers::path(path)?)?) })
}

/// The trainer for the length of a call.
///
/// # Safety
/// `trainer` is NULL or alive.
unsafe fn enter<'a>(trainer: *const sm_trainer) -> Result<Entered<'a, Trainer>, Failure> {
    // SAFETY: the function's contract.
    unsafe { borrow(trainer, "trainer") }?.inner.enter()
}

/// The host's tokens and targets.
///
/// # Safety
/// As [`buffers::array`], for both.
unsafe fn batch<'a>(
    tokens: *const u32,
    targets: *const u32,
    n_tokens: usize,
) -> Result<(&'a [u32], &'a [u32]), Failure> {
    // SAFETY: the function's contract.
    unsafe {
        Ok((buffers::array(tokens, n_tokens, "tokens")?, buffers::array(targets, n_tokens, "targets")?))
    }
}
