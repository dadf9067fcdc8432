//! A model file: a prompt at once, tokens one by one after it, and a batch with logits at all its positions.

use std::sync::Arc;
use std::{cell::RefCell, rc::Rc};

use smallmind::format::gguf::Gguf;
use smallmind::model::{LoadParams, Model};
use smallmind::profile::{self, Zone, zone};
use smallmind::report::data::ModelSpec;
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::{Error, Result};

use super::super::args::ModelFile;
use super::plan::{PartPlan, Plan, Workload, model_spec};

/// Tokens of the batch.
const BATCH: usize = 32;

pub fn plan(args: &ModelFile) -> Result<Plan> {
    let path = args.model.as_ref().ok_or_else(|| Error::invalid("no model file was named"))?;
    let tensors = Gguf::open_path(path)?.tensors().len();
    let model = Model::open(path, &LoadParams::default())?;
    let (kernels, threads) = (*model.kernels(), args.run.threads);
    let context = context(&model, args)?;
    let name = match model.config().name.as_str() {
        "" => path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        name => name.to_owned(),
    };
    let spec = model_spec(&name, &model, tensors);
    let context = Rc::new(RefCell::new(context));
    let part = |kind: Kind, count: usize| -> Result<PartPlan> {
        let passes = Passes::new(kind, count, args.prompt, &spec, &context)?;
        Ok(PartPlan {
            name: kind.name(),
            about: kind.about(count, args.prompt),
            workloads: vec![Box::new(passes)],
        })
    };
    let counts = [
        (Kind::Prefill, args.prompt),
        (Kind::Decode, args.decode),
        (Kind::Batch, BATCH.min(model.config().n_ctx_train)),
    ];
    let wanted = counts.into_iter().filter(|&(_, count)| count > 0);
    let parts = wanted.map(|(kind, count)| part(kind, count)).collect::<Result<_>>()?;
    Ok(Plan { mode: "model", kernels, threads, parts })
}

/// A context for all three parts.
fn context(model: &Arc<Model>, args: &ModelFile) -> Result<Context> {
    let (wanted, trained) = (args.prompt.saturating_add(args.decode), model.config().n_ctx_train);
    if wanted > trained {
        return Err(Error::invalid(format!(
            "{} prompt tokens and {} to decode are more than the model's context of {trained}",
            args.prompt, args.decode
        )));
    }
    let n_ctx = wanted.max(BATCH).min(trained);
    let params =
        ContextParams::default().with_n_ctx(n_ctx).with_n_output(BATCH).with_threads(args.run.threads);
    Context::new(model.clone(), &params)
}

/// What is done with the model.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Prefill,
    Decode,
    Batch,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Prefill => "prefill",
            Kind::Decode => "decode",
            Kind::Batch => "batch",
        }
    }

    fn about(self, count: usize, prompt: usize) -> String {
        match self {
            Kind::Prefill => format!("A prompt of {count} tokens, logits at the last."),
            Kind::Decode => {
                format!("{count} tokens one by one, after a prompt of {prompt} that isn't counted.")
            }
            Kind::Batch => format!("{count} tokens in one pass, logits at all of them."),
        }
    }

    fn method(self, count: usize) -> String {
        match self {
            Kind::Prefill => format!("Prefill_{count}"),
            Kind::Decode => "Decode_Token".into(),
            Kind::Batch => format!("Batch_{count}"),
        }
    }
}

/// One kind of passes.
struct Passes {
    kind: Kind,
    count: usize,
    /// All passes of a run.
    inference: Zone,
    /// Each of them.
    method: Zone,
    /// The prompt, and what comes after it: which tokens they are doesn't change the work, and a spread visits the
    /// embedding table fairly.
    tokens: Vec<u32>,
    /// Tokens that come before what counts.
    before: usize,
    spec: ModelSpec,
    context: Rc<RefCell<Context>>,
}

impl Passes {
    fn new(
        kind: Kind,
        count: usize,
        prompt: usize,
        spec: &ModelSpec,
        context: &Rc<RefCell<Context>>,
    ) -> Result<Self> {
        let before = if kind == Kind::Decode { prompt } else { 0 };
        let n_vocab = spec.vocab as usize;
        let tokens = (0..before + count).map(|i| (i.wrapping_mul(7919) % n_vocab) as u32).collect();
        let (inference, method) = (zone("Inference")?, zone(&kind.method(count))?);
        Ok(Passes {
            kind,
            count,
            inference,
            method,
            tokens,
            before,
            spec: spec.clone(),
            context: context.clone(),
        })
    }

    fn pass(&self, tokens: &[u32], logits: Logits) -> Result<()> {
        let mut context = self.context.borrow_mut();
        let _method = profile::scope(self.method);
        context.decode(tokens, logits)
    }
}

impl Workload for Passes {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn prepare(&mut self) -> Result<()> {
        let mut context = self.context.borrow_mut();
        context.clear();
        match self.before {
            0 => Ok(()),
            before => context.decode(&self.tokens[..before], Logits::None),
        }
    }

    fn run(&mut self) -> Result<()> {
        let tokens = &self.tokens[self.before..];
        let _inference = profile::scope(self.inference);
        match self.kind {
            Kind::Prefill => self.pass(tokens, Logits::Last),
            Kind::Decode => tokens.chunks(1).try_for_each(|token| self.pass(token, Logits::Last)),
            Kind::Batch => self.pass(tokens, Logits::All),
        }
    }

    fn token(&mut self) -> Option<Result<()>> {
        let filled = self.context.borrow().len();
        let (again, logits) = match self.kind {
            Kind::Prefill => (0, Logits::Last),
            Kind::Decode => (filled.checked_sub(1)?, Logits::Last),
            Kind::Batch => (0, Logits::All),
        };
        let rewound = self.context.borrow_mut().rewind(again);
        Some(rewound.and_then(|()| self.pass(&self.tokens[again..], logits)))
    }

    fn model(&self) -> Option<(ModelSpec, u64)> {
        Some((self.spec.clone(), self.count as u64))
    }
}
