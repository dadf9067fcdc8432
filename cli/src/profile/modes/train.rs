//! Steps of training: forward, backward, clipping and AdamW, each operation with its time, bytes and GFLOPS.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use smallmind::format::ByteSource;
use smallmind::format::gguf::Gguf;
use smallmind::kernels::KernelSet;
use smallmind::model::RandomGpt;
use smallmind::model::foreign::open_source;
use smallmind::report::Report;
use smallmind::report::data::ModelSpec;
use smallmind::text::escaped;
use smallmind::threads::Team;
use smallmind::train::{Schedule, TrainMemory, TrainParams, Trainer};
use smallmind::{Result, profile};

use super::super::args::Train;
use super::Addition;
use super::plan::{PartPlan, Plan, Workload, spec};
use crate::failure;
use crate::machine::explain;

/// Tokens of a sequence, unless the command line names another number.
const CONTEXT: usize = 256;
/// Small, so that weights stay of the size that they have in practice however many steps are run.
const RATE: f64 = 1e-5;
const SEED: u64 = 1;

/// What the steps were, beyond what the report holds.
#[derive(Clone, Copy)]
pub struct Facts {
    memory: TrainMemory,
    tokens: usize,
    flops: u64,
    steps: usize,
}

/// The facts, once the plan is made.
pub type Noted = Rc<Cell<Option<Facts>>>;

pub fn plan(args: &Train, threads: usize, noted: &Noted) -> failure::Result<Plan> {
    let source: Arc<dyn ByteSource> = match &args.model {
        Some(path) => open_source(path).map_err(explain(path))?,
        None => Arc::new(RandomGpt::new(&args.random, SEED)?),
    };
    let gguf = Gguf::open(source.clone())?;
    let params = TrainParams::default()
        .with_sequences(args.batch)
        .with_context(args.context.unwrap_or_else(|| positions(&gguf).clamp(1, CONTEXT)))
        .with_schedule(Schedule::constant(RATE))
        .with_recompute(args.recompute);
    let trainer = Trainer::new(source, &params, Arc::new(Team::new(threads)?))?;
    let (tokens, flops) = (trainer.batch_tokens(), trainer.batch_flops());
    noted.set(Some(Facts { memory: trainer.memory(), tokens, flops, steps: args.steps }));
    let again = if args.recompute { ", activations computed again" } else { "" };
    let about = format!(
        "{} steps of {} sequences of {} tokens: forward, backward{again}, clipping and AdamW in f32, {threads} threads.",
        args.steps,
        args.batch,
        tokens / args.batch
    );
    let steps = Steps::new(trainer, &gguf, args.steps);
    let part = PartPlan { name: "training".into(), about, workloads: vec![Box::new(steps)] };
    Ok(Plan { mode: "train", kernels: *KernelSet::default_set()?, threads, parts: vec![part] })
}

/// Positions of a file.
fn positions(gguf: &Gguf) -> usize {
    smallmind::format::describe(gguf).context_length.map_or(CONTEXT, |context| context as usize)
}

/// Steps on the same batch.
struct Steps {
    trainer: Trainer,
    tokens: Vec<u32>,
    targets: Vec<u32>,
    count: usize,
    spec: ModelSpec,
}

impl Steps {
    fn new(trainer: Trainer, gguf: &Gguf, count: usize) -> Steps {
        let config = trainer.config();
        let name = if config.name.is_empty() { &config.architecture } else { &config.name };
        // Reports show it in pages and tables, on one line.
        let (name, counts) = (escaped(name).to_string(), (gguf.parameters(), gguf.tensors().len()));
        let spec = spec(&name, config, counts, trainer.memory().weights);
        // Which they are doesn't change the work; a spread visits the embedding table fairly.
        let token = |i: usize| (i.wrapping_mul(7919) % config.n_vocab) as u32;
        let tokens = (0..trainer.batch_tokens()).map(token).collect();
        let targets = (1..=trainer.batch_tokens()).map(token).collect();
        Steps { trainer, tokens, targets, count, spec }
    }

    fn step(&mut self) -> Result<()> {
        self.trainer.step(&self.tokens, &self.targets).map(drop)
    }
}

impl Workload for Steps {
    fn name(&self) -> &str {
        "steps"
    }

    fn run(&mut self) -> Result<()> {
        (0..self.count).try_for_each(|_| self.step())
    }

    fn token(&mut self) -> Option<Result<()>> {
        Some(self.step())
    }

    fn model(&self) -> Option<(ModelSpec, u64)> {
        Some((self.spec.clone(), (self.count * self.tokens.len()) as u64))
    }
}

/// Speed, share of the machine's peak, and memory.
pub fn addition(report: &Report, noted: &Noted) -> failure::Result<Addition> {
    let Some(Facts { memory, tokens, flops, steps }) = noted.get() else { return Ok(Addition::default()) };
    let name = profile::Zone::TrainStep.name();
    let methods = report.parts.iter().flat_map(|part| &part.runs).flat_map(|run| &run.methods);
    let mut times: Vec<f64> = methods
        .filter(|method| method.name == name)
        .map(|method| method.total_ns as f64 / 1e9 / method.calls.max(1) as f64)
        .collect();
    times.sort_by(f64::total_cmp);
    let mut text = String::from("\n## Steps\n\n");
    if let Some(&seconds) = times.get(times.len() / 2) {
        text.push_str(&format!(
            "- {:.2} ms a step (median of {} runs of {steps}): {:.0} tokens/s, {:.1} GFLOP/s in products and attention\n",
            1e3 * seconds,
            times.len(),
            tokens as f64 / seconds,
            flops as f64 / seconds / 1e9
        ));
    }
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    text.push_str(&format!(
        "- {:.1} MB by the plan: weights {:.1}, gradients {:.1}, moments {:.1}, activations {:.1}, scratch {:.1}\n",
        megabytes(memory.total),
        megabytes(memory.weights),
        megabytes(memory.gradients),
        megabytes(memory.moments),
        megabytes(memory.arena),
        megabytes(memory.scratch)
    ));
    Ok(Addition { text, files: Vec::new() })
}
