//! Models that write tokens, with seeded random weights: the whole text through the model again for each token, as
//! the predecessor does it, or with a cache of keys and values.

use std::sync::Arc;

use smallmind::kernels::KernelSet;
use smallmind::kv::CacheType;
use smallmind::model::{GptConfig, LoadParams, Model};
use smallmind::profile::{self, Zone};
use smallmind::report::data::ModelSpec;
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::{Error, Result};

use super::sampling::Picker;
use crate::profile::modes::plan::{Workload, model_spec};

/// Where weights and draws begin.
pub const SEED: u64 = 42;

/// The text that a model writes.
#[derive(Clone, Copy)]
pub struct Text {
    /// "Small" or "Medium".
    pub name: &'static str,
    pub config: GptConfig,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens written after it.
    pub tokens: usize,
    /// Times that this is done with the model.
    pub inferences: usize,
}

/// Names of the pieces.
#[derive(Clone, Copy)]
pub struct Methods {
    pub creation: Zone,
    /// The context and the picker, where that isn't a piece of the creation.
    pub setup: Option<Zone>,
    pub inference: Zone,
    /// The prompt is put in place.
    pub prepare: Option<Zone>,
    pub token: Zone,
    pub forward: Zone,
}

/// How a token comes about.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// All positions again for each token, with logits at all of them.
    SameWork,
    /// The prompt at once, then one position for each token.
    WithCache,
}

/// Makes the picker of a run.
pub type MakePicker = fn(&KernelSet, usize) -> Result<Picker>;

/// A model writing.
pub struct Generation {
    text: Text,
    methods: Methods,
    way: Way,
    threads: usize,
    picker: MakePicker,
    /// The context and text that the last run left.
    session: Option<Session>,
}

/// A model's context and the text so far.
struct Session {
    context: Context,
    picker: Picker,
    tokens: Vec<u32>,
}

impl Generation {
    pub fn new(text: Text, methods: Methods, way: Way, threads: usize, picker: MakePicker) -> Self {
        Generation { text, methods, way, threads, picker, session: None }
    }

    fn session(&self, model: Arc<Model>) -> Result<Session> {
        let config = model.config();
        let (n_ctx, n_vocab) = (config.n_ctx_train, config.n_vocab);
        let picker = (self.picker)(model.kernels(), n_vocab)?;
        let n_output = if self.way == Way::SameWork { n_ctx } else { 1 };
        // The predecessor holds floats throughout.
        let params = ContextParams::default()
            .with_n_ctx(n_ctx)
            .with_n_output(n_output)
            .with_threads(self.threads)
            .with_kv(CacheType::F32);
        Ok(Session { context: Context::new(model, &params)?, picker, tokens: Vec::with_capacity(n_ctx + 1) })
    }
}

/// Tensors of a model: twelve a layer, both embeddings, the last norm's two and the head.
fn tensors(config: &GptConfig) -> usize {
    12 * config.layers + 5
}

impl Workload for Generation {
    fn name(&self) -> &str {
        self.text.name
    }

    fn prepare(&mut self) -> Result<()> {
        self.session = None;
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let Methods { creation, setup, inference, prepare, .. } = self.methods;
        let mut session = {
            let creation = profile::scope(creation);
            let model = Model::random(&self.text.config, SEED, &LoadParams::default())?;
            // Where setting up has a name of its own, creating ends before it.
            let creation = Some(creation).filter(|_| setup.is_none());
            let _setup = setup.map(profile::scope);
            let session = self.session(model)?;
            drop(creation);
            session
        };
        for _ in 0..self.text.inferences {
            let _inference = profile::scope(inference);
            {
                let _prepare = prepare.map(profile::scope);
                session.begin(self.text.prompt);
            }
            for _ in 0..self.text.tokens {
                session.token(&self.methods, self.way)?;
            }
        }
        self.session = Some(session);
        Ok(())
    }

    fn token(&mut self) -> Option<Result<()>> {
        Some(self.session.as_mut()?.token(&self.methods, self.way))
    }

    fn model(&self) -> Option<(ModelSpec, u64)> {
        let model = self.session.as_ref()?.context.model();
        let tokens = self.text.tokens * self.text.inferences;
        Some((model_spec(self.text.name, model, tensors(&self.text.config)), tokens as u64))
    }
}

impl Session {
    /// Puts a prompt in place of the text so far: any tokens do, since the weights are random.
    fn begin(&mut self, prompt: usize) {
        self.context.clear();
        self.tokens.clear();
        let n_vocab = self.context.model().config().n_vocab;
        self.tokens.extend((0..prompt).map(|i| (i * 7919 % n_vocab) as u32));
    }

    /// Writes one more token.
    fn token(&mut self, methods: &Methods, way: Way) -> Result<()> {
        let _token = profile::scope(methods.token);
        {
            let _forward = profile::scope(methods.forward);
            match way {
                Way::SameWork => {
                    self.context.clear();
                    self.context.decode(&self.tokens, Logits::All)?;
                }
                Way::WithCache => {
                    let filled = self.context.len();
                    self.context.decode(&self.tokens[filled..], Logits::Last)?;
                }
            }
        }
        let n_vocab = self.context.model().config().n_vocab;
        let logits = self.context.logits().rchunks_exact(n_vocab).next();
        let last = logits.ok_or_else(|| Error::Internal("a forward pass without logits".into()))?;
        self.tokens.push(self.picker.pick(last)?);
        Ok(())
    }
}
