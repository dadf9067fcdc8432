//! A model file: a prompt at once, tokens one by one after it, and a batch with logits at all its positions.

use std::sync::Arc;
use std::{cell::RefCell, rc::Rc};

use smallmind::Result;
use smallmind::format::gguf::Gguf;
use smallmind::model::Model;
use smallmind::profile::{self, Zone, zone};
use smallmind::report::data::ModelSpec;
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::text::escaped;

use super::super::args::ModelFile;
use super::plan::{PartPlan, Plan, Workload, model_spec};
use crate::failure::{self, Failure};
use crate::machine::explain;

/// Tokens of the batch.
const BATCH: usize = 32;

pub fn plan(args: &ModelFile) -> failure::Result<Plan> {
    let path = args.model.as_ref().ok_or_else(|| Failure::Usage("no model file was named".into()))?;
    let tensors = Gguf::open_path(path).map_err(explain(path))?.tensors().len();
    let arithmetic = &args.conditions.arithmetic;
    let model = Model::open(path, &arithmetic.load_params(&arithmetic.adapters.open()?))?;
    let (kernels, threads) = (*model.kernels(), args.run.threads);
    let context = context(&model, args)?;
    let name = match model.config().name.as_str() {
        "" => path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        name => name.to_owned(),
    };
    // Reports show it in pages and tables, on one line.
    let spec = model_spec(&escaped(&name).to_string(), &model, tensors);
    let context = Rc::new(RefCell::new(context));
    let part = |kind: Kind, count: usize, depth: usize| -> smallmind::Result<PartPlan> {
        let before = depth + if kind == Kind::Decode { args.prompt } else { 0 };
        let passes = Passes::new(kind, count, before, &spec, &context)?;
        let at = if depth > 0 { format!("@d{depth}") } else { String::new() };
        Ok(PartPlan {
            name: format!("{}{at}", kind.name()),
            about: kind.about(count, before),
            workloads: vec![Box::new(passes)],
        })
    };
    let counts = [(Kind::Prefill, args.prompt), (Kind::Decode, args.decode), (Kind::Batch, BATCH)];
    let mut parts = Vec::new();
    let depths = &args.conditions.depth;
    let new = depths.iter().enumerate().filter(|&(i, depth)| !depths[..i].contains(depth));
    for (_, &depth) in new {
        let room = model.config().n_ctx_train - depth;
        let wanted = counts.into_iter().filter(|&(_, count)| count > 0);
        for (kind, count) in wanted.map(|(kind, count)| (kind, count.min(room))) {
            parts.push(part(kind, count, depth)?);
        }
    }
    Ok(Plan { mode: "model", kernels, threads, parts })
}

/// A context for all parts, at the greatest depth.
fn context(model: &Arc<Model>, args: &ModelFile) -> failure::Result<Context> {
    let depth = args.conditions.depth.iter().copied().max().unwrap_or(0);
    let trained = model.config().n_ctx_train;
    let wanted = args.prompt.saturating_add(args.decode).max(1).saturating_add(depth);
    if wanted > trained {
        return Err(Failure::Usage(format!(
            "--depth {depth}, --prompt-tokens {} and --decode-tokens {} are more than the model's context of {trained}",
            args.prompt, args.decode
        )));
    }
    let n_ctx = wanted.max(depth + BATCH).min(trained);
    let params = ContextParams::default()
        .with_n_ctx(n_ctx)
        .with_n_output(BATCH)
        .with_threads(args.run.threads)
        .with_kv(args.conditions.arithmetic.kv);
    Ok(Context::new(model.clone(), &params)?)
}

/// A kind of work with the model.
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

    /// The work in a sentence, behind so many positions.
    fn about(self, count: usize, before: usize) -> String {
        let what = match self {
            Kind::Prefill => format!("A prompt of {count} tokens, logits at the last"),
            Kind::Decode => format!("{count} tokens one by one"),
            Kind::Batch => format!("{count} tokens in one pass, logits at all of them"),
        };
        match before {
            0 => format!("{what}."),
            before => format!("{what}, behind {before} positions that aren't measured."),
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
    /// The prompt and the tokens after it. Which tokens they are doesn't change the work; a spread of them visits the
    /// embedding table fairly.
    tokens: Vec<u32>,
    /// Tokens that come before the measured ones.
    before: usize,
    spec: ModelSpec,
    context: Rc<RefCell<Context>>,
}

impl Passes {
    fn new(
        kind: Kind,
        count: usize,
        before: usize,
        spec: &ModelSpec,
        context: &Rc<RefCell<Context>>,
    ) -> Result<Self> {
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

    /// Takes the context back to its first `again` tokens. Where a recurrent layer's state is not there any more, it is
    /// computed once and kept.
    fn return_to(&self, again: usize) -> Result<()> {
        let mut context = self.context.borrow_mut();
        let kept = context.rewind_at_most(again);
        if kept < again {
            context.decode(&self.tokens[kept..again], Logits::None)?;
            context.keep()?;
        }
        Ok(())
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
            Kind::Prefill => (self.before, Logits::Last),
            Kind::Decode => (filled.checked_sub(1)?, Logits::Last),
            Kind::Batch => (self.before, Logits::All),
        };
        let returned = self.return_to(again);
        Some(returned.and_then(|()| self.pass(&self.tokens[again..], logits)))
    }

    fn model(&self) -> Option<(ModelSpec, u64)> {
        Some((self.spec.clone(), self.count as u64))
    }
}
