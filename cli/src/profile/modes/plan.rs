//! The parts that a mode runs, each with a clock of its own, and how they are measured: all of a part once without
//! being counted, so that the first run is like the others, then the given number of runs, at last one token with a
//! timeline.

use indicatif::ProgressBar;
use smallmind::kernels::KernelSet;
use smallmind::model::{Config, Model};
use smallmind::report::data::{Machine, ModelSpec, Part, Run};
use smallmind::report::{self, Report};
use smallmind::{Result, profile};

/// Scopes of a thread that a timeline keeps: a token of some hundred layers.
const EVENTS: usize = 1 << 14;

/// A piece of a part.
pub trait Workload {
    /// Its name in a progress line.
    fn name(&self) -> &str;

    /// Done before each run, unrecorded.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Runs right before the work, with recording off, and brings back into the caches the data that the workload
    /// before has driven out.
    fn warm(&mut self) -> Result<()> {
        Ok(())
    }

    /// The work. All of it stands in scopes, so that their times add up to the part's.
    fn run(&mut self) -> Result<()>;

    /// One more token after a run, for the timeline; none where the work makes no tokens.
    fn token(&mut self) -> Option<Result<()>> {
        None
    }

    /// The model that ran, and the tokens that a run made with it.
    fn model(&self) -> Option<(ModelSpec, u64)> {
        None
    }
}

/// A part to measure.
pub struct PartPlan {
    /// Such as "same work".
    pub name: String,
    /// The work, in a sentence.
    pub about: String,
    /// The workloads, which run one after the other.
    pub workloads: Vec<Box<dyn Workload>>,
}

/// A mode to measure.
pub struct Plan {
    /// Such as "enhanced".
    pub mode: &'static str,
    /// The kernels that its workloads run.
    pub kernels: KernelSet,
    /// Workers of its contexts and products.
    pub threads: usize,
    /// Its parts.
    pub parts: Vec<PartPlan>,
}

impl Plan {
    /// Measures everything `runs` times, part after part.
    pub fn measure(self, runs: usize, progress: &ProgressBar) -> Result<Report> {
        let order = (0..self.parts.len()).flat_map(|part| (1..=runs).map(move |run| Turn { part, run }));
        self.measure_in(order, runs, progress)
    }

    /// Measures everything `runs` times, a run of each part in turn, so that whatever changes on the machine meanwhile
    /// falls on all of them: for parts that are to be compared.
    pub fn measure_in_turns(self, runs: usize, progress: &ProgressBar) -> Result<Report> {
        let count = self.parts.len();
        let order = (1..=runs).flat_map(|run| (0..count).map(move |part| Turn { part, run }));
        self.measure_in(order, runs, progress)
    }

    fn measure_in(
        mut self,
        order: impl Iterator<Item = Turn>,
        runs: usize,
        progress: &ProgressBar,
    ) -> Result<Report> {
        profile::prepare_thread();
        let count = self.parts.len();
        let (mut models, mut measured) = (Vec::new(), vec![Vec::new(); count]);
        let mut report = Report::new(self.mode, Machine::default());
        for Turn { part, run } in order {
            measured[part].push(self.parts[part].run(run, runs, progress)?);
            if run == runs {
                let measured = std::mem::take(&mut measured[part]);
                report.add_part(self.parts[part].finish(measured)?);
            }
        }
        for (index, part) in self.parts.iter().enumerate() {
            for (model, tokens) in part.workloads.iter().filter_map(|workload| workload.model()) {
                note_tokens(&mut models, model, tokens, index, count);
            }
        }
        progress.set_message("measuring what the machine can do");
        let machine = Machine::detect(&self.kernels, self.threads, true);
        progress.finish_and_clear();
        Ok(Report { models, machine, ..report })
    }
}

/// A run of a part.
struct Turn {
    part: usize,
    run: usize,
}

/// Adds the tokens that a part made with a model to the models so far.
fn note_tokens(models: &mut Vec<ModelSpec>, model: ModelSpec, tokens: u64, part: usize, parts: usize) {
    let known = models.iter().position(|known| known.name == model.name);
    let index = known.unwrap_or_else(|| {
        models.push(ModelSpec { tokens: vec![0; parts], ..model });
        models.len() - 1
    });
    models[index].tokens[part] += tokens;
}

impl PartPlan {
    /// Measures a run, before the first of which all work is done once without being counted.
    fn run(&mut self, run: usize, runs: usize, progress: &ProgressBar) -> Result<Run> {
        if run == 1 {
            self.warm_up(progress)?;
        }
        progress.set_message(format!("{}: run {run} of {runs}", self.name));
        self.workloads.iter_mut().try_for_each(|workload| workload.prepare())?;
        let (result, run) = report::record(|| {
            self.workloads.iter_mut().try_for_each(|workload| {
                profile::set_enabled(false);
                let warmed = workload.warm();
                profile::set_enabled(true);
                warmed.and_then(|()| workload.run())
            })
        });
        result.map(|()| run)
    }

    fn warm_up(&mut self, progress: &ProgressBar) -> Result<()> {
        for workload in &mut self.workloads {
            progress.set_message(format!("{}: {}, uncounted", self.name, workload.name()));
            workload.prepare()?;
            // Recorded too: the recorder has tables to fill for the first time as well.
            report::record(|| workload.run()).0?;
        }
        Ok(())
    }

    /// The part of these runs, with the timeline of one token.
    fn finish(&mut self, mut runs: Vec<Run>) -> Result<Part> {
        if let (Some(timeline), Some(first)) = (self.timeline()?, runs.first_mut()) {
            first.timeline = timeline;
        }
        Ok(Part { name: self.name.clone(), about: self.about.clone(), runs })
    }

    /// One token of the last workload that makes some.
    fn timeline(&mut self) -> Result<Option<Vec<report::data::Event>>> {
        let mut traced = None;
        for workload in self.workloads.iter_mut().rev() {
            let (result, run) = report::record_traced(EVENTS, || workload.token())?;
            if let Some(result) = result {
                result?;
                traced = Some(run.timeline);
                break;
            }
        }
        Ok(traced)
    }
}

/// The description of a model in a report, without its tokens.
pub fn model_spec(name: &str, model: &Model, tensors: usize) -> ModelSpec {
    spec(name, model.config(), (model.n_parameters(), tensors), model.weight_bytes())
}

/// The description of a configuration with so many parameters and tensors, in so many bytes.
pub fn spec(name: &str, config: &Config, (parameters, tensors): (u64, usize), bytes: usize) -> ModelSpec {
    ModelSpec {
        name: name.to_owned(),
        parameters,
        tensors: tensors as u64,
        vocab: config.n_vocab as u64,
        context: config.n_ctx_train as u64,
        dim: config.n_embd as u64,
        layers: config.n_layer() as u64,
        heads: config.first().n_head as u64,
        weight_bytes: bytes as u64,
        tokens: Vec::new(),
    }
}
