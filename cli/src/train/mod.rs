//! `smallmind train`: goes on training a model on texts, with progress, validation, checkpoints and a curve of losses.
//! A state and the command line determine all that follows, so that a broken run goes on to the same bits.

pub mod args;
pub mod config;
mod curve;
mod data;
mod files;
mod fingerprint;
mod fresh;
mod losses;
mod run;
mod settings;

use std::sync::Arc;

use smallmind::Error;
use smallmind::format::gguf::Gguf;
use smallmind::format::{ByteSource, FileSource, describe};
use smallmind::memory::total_memory;
use smallmind::model::foreign::open_source;
use smallmind::text::escaped_path;
use smallmind::threads::{self, Team};
use smallmind::tokenizer::Tokenizer;
use smallmind::train::{AdamW, Decay, LoraParams, Optimizer, Schedule, TrainMemory, TrainParams, Trainer};

use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::machine::{explain, warn_of_threads};
use crate::output::{remark, while_waiting};
use args::{LoraArgs, ScheduleName, StepArgs, Train};
use data::Data;
use files::Files;
use losses::Losses;
use run::Run;
use settings::Settings;

/// Tokens of a sequence, unless the command line names another number.
const CONTEXT: u64 = 256;
/// Most tokens of a step: their list is held in memory.
const MAX_STEP: usize = 1 << 26;
/// Most steps of the warm-up, unless the command line names more.
const WARM_UP: u64 = 100;

pub fn run(args: &Train) -> Result<()> {
    interrupt::install();
    let stoppable = Stoppable::begin();
    let files = Files::begin(args)?;
    let texts = data::read(&args.texts, &args.data.field)?;
    let source = source(args, &texts)?;
    let gguf = Gguf::open(source.clone())?;
    let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
    let tokens = while_waiting(args.quiet, "tokenizing", || data::tokens(&texts, &tokenizer))?;
    drop(texts);
    let positions = describe(&gguf).context_length.unwrap_or(CONTEXT);
    let context = args.data.context.unwrap_or(positions.clamp(1, CONTEXT) as usize);
    let data = Data::new(tokens, context, &args.data)?;
    let total = total_steps(&args.steps, &data);
    let params = params(args, context, total)?;
    let threads = args.threads.unwrap_or_else(threads::available);
    warn_of_threads(threads, args.quiet);
    let lora = lora(&args.lora);
    if lora.is_some() && params.dropout > 0.0 {
        return Err(Failure::Usage("'--dropout <X>' isn't for adapters ('--lora-rank <N>')".into()));
    }
    let memory = match &lora {
        Some(lora) => Trainer::estimate_adapter(source.clone(), lora, &params, threads)?,
        None => Trainer::estimate(source.clone(), &params, threads)?,
    };
    check_memory(&memory)?;
    if !args.quiet {
        remark(&plan(args, &gguf, &data, total, &memory));
    }
    let settings = Settings::new(args, lora.as_ref(), &gguf, &data)?;
    let mut trainer = trainer(args, &files, source, (lora.as_ref(), &params), threads, &settings)?;
    check_tokens(&data, &trainer)?;
    trainer.set_note(settings.note()?);
    let losses = if args.resume { Losses::read(&files.losses, trainer.steps())? } else { Losses::default() };
    Run::new(args, &files, data, trainer, losses, total, &stoppable).finish()
}

/// The contents of the model to begin with.
fn source(args: &Train, texts: &[String]) -> Result<Arc<dyn ByteSource>> {
    match (&args.model, args.new.new) {
        (Some(path), _) => open_source(path).map_err(explain(path)),
        (None, Some(family)) => {
            let context = args.data.context.unwrap_or(CONTEXT as usize);
            let make = || fresh::source(family, &args.new, context, texts, args.data.seed);
            Ok(while_waiting(args.quiet, "making a vocabulary and weights", make)?)
        }
        (None, None) => Err(Failure::Usage("'--model <FILE>' or '--new <FAMILY>' is needed".into())),
    }
}

/// The adapter that is to be trained, if one is.
fn lora(args: &LoraArgs) -> Option<LoraParams> {
    let lora = LoraParams::new(args.lora_rank?).with_targets(args.lora_targets.clone());
    Some(match args.lora_alpha {
        Some(alpha) => lora.with_alpha(alpha),
        None => lora,
    })
}

/// The number of the last step.
fn total_steps(args: &StepArgs, data: &Data) -> u64 {
    let (training, _) = data.counts();
    let sequences = args.batch as f64 * args.accumulate as f64;
    let of_epochs = (args.epochs * training as f64 / sequences).ceil().max(1.0) as u64;
    args.steps.map_or(of_epochs, |steps| steps as u64)
}

/// The parameters that the command line names.
fn params(args: &Train, context: usize, total: u64) -> Result<TrainParams> {
    let steps = &args.steps;
    let rows = steps.batch.checked_mul(context).and_then(|rows| rows.checked_mul(steps.accumulate));
    if rows.is_none_or(|rows| rows > MAX_STEP) {
        let (batch, accumulate) = (steps.batch, steps.accumulate);
        return Err(Failure::Usage(format!(
            "'--batch {batch}' times '--accumulate {accumulate}' sequences of {context} tokens; a step takes at most \
             {MAX_STEP} tokens"
        )));
    }
    let adamw = AdamW::default().with_weight_decay(steps.weight_decay);
    Ok(TrainParams::default()
        .with_sequences(steps.batch)
        .with_context(context)
        .with_optimizer(Optimizer::AdamW(adamw))
        .with_schedule(schedule(steps, total))
        .with_clip((steps.clip > 0.0).then_some(steps.clip))
        .with_dropout(steps.dropout)
        .with_recompute(steps.recompute)
        .with_seed(args.data.seed))
}

/// The learning rates of `total` steps.
fn schedule(args: &StepArgs, total: u64) -> Schedule {
    let warm_up = args.warm_up.map_or((total / 10).min(WARM_UP), |steps| steps as u64);
    let left = total.saturating_sub(warm_up);
    let decay = match args.schedule {
        ScheduleName::Constant => Decay::Constant,
        ScheduleName::Cosine => Decay::Cosine { steps: left, least: 0.1 },
        ScheduleName::Linear => Decay::Linear { steps: left, least: 0.0 },
        ScheduleName::Step => Decay::Step { every: left.div_ceil(3), factor: 0.1 },
        ScheduleName::OneCycle => Decay::OneCycle { steps: left },
    };
    Schedule::constant(args.lr).with_warmup(warm_up).with_decay(decay)
}

/// Refuses a training that this machine's memory can't hold.
fn check_memory(memory: &TrainMemory) -> Result<()> {
    let needed = memory.total;
    match total_memory() {
        Some(total) if needed as u64 > total => {
            let hint = format!(
                "this machine has {:.1} GB; a smaller --batch or --context takes less, and --accumulate makes up for it",
                total as f64 / 1e9
            );
            Err(Failure::Hinted(Error::OutOfMemory { bytes: needed, what: "training" }, hint))
        }
        _ => Ok(()),
    }
}

/// What will be done, in remarks.
fn plan(args: &Train, gguf: &Gguf, data: &Data, total: u64, memory: &TrainMemory) -> String {
    let (training, validation) = data.counts();
    let sequences = args.steps.batch * args.steps.accumulate;
    let epochs = total as f64 * sequences as f64 / training as f64;
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    let [all, weights, gradients, moments, arena, scratch] =
        [memory.total, memory.weights, memory.gradients, memory.moments, memory.arena, memory.scratch]
            .map(megabytes);
    let trained = match args.lora.lora_rank {
        Some(rank) => {
            format!("an adapter of rank {rank} with {} parameters, of ", memory.gradients / size_of::<f32>())
        }
        None => String::new(),
    };
    format!(
        "[{trained}{} parameters; {} tokens: {training} sequences of {} to train on, {validation} to validate]\n\
         [{total} steps of {sequences} sequences, {epochs:.1} epochs]\n\
         [{all:.1} MB of memory: weights {weights:.1}, gradients {gradients:.1}, moments {moments:.1}, \
         activations {arena:.1}, scratch {scratch:.1}]\n",
        gguf.parameters(),
        data.tokens().len(),
        data.context(),
    )
}

/// A trainer at its first step, or at that of the state.
fn trainer(
    args: &Train,
    files: &Files,
    source: Arc<dyn ByteSource>,
    (lora, params): (Option<&LoraParams>, &TrainParams),
    threads: usize,
    settings: &Settings,
) -> Result<Trainer> {
    let team = Arc::new(Team::new(threads)?);
    if !args.resume {
        return Ok(match lora {
            Some(lora) => Trainer::new_adapter(source, lora, params, team)?,
            None => Trainer::new(source, params, team)?,
        });
    }
    let state = Arc::new(FileSource::open(&files.state)?);
    let trainer = match lora {
        Some(_) => Trainer::resume_adapter(source, state, params, team)?,
        None => Trainer::resume(state, params, team)?,
    };
    settings.check(trainer.note(), &escaped_path(&files.state).to_string())?;
    Ok(trainer)
}

/// Refuses tokens that the model has no embedding of.
fn check_tokens(data: &Data, trainer: &Trainer) -> Result<()> {
    let vocabulary = trainer.config().n_vocab;
    match data.tokens().iter().find(|&&token| token as usize >= vocabulary) {
        Some(token) => Err(Error::format(format!(
            "the tokenizer gave token {token}, but the model has embeddings of {vocabulary}"
        ))
        .into()),
        None => Ok(()),
    }
}
