//! A loaded model: configuration, graph, weights and vocabulary of a file.
//! All that can be wrong with the graph is said before weights are read.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::config::Config;
use super::families;
use super::graph::Graph;
use super::pack::load_weights;
use super::weights::Weights;
use crate::chat::Template;
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, Metadata};
use crate::format::{ByteSource, FileSource};
use crate::isa::IsaId;
use crate::kernels::KernelSet;
use crate::kernels::qmatmul::Activations;
use crate::memory;
use crate::profile::{self, Zone};
use crate::threads;
use crate::tokenizer::Tokenizer;

/// Called with the share done (0..=1), by one thread at a time; `Break` cancels the load.
pub type Progress<'a> = &'a (dyn Fn(f32) -> ControlFlow<()> + Sync);

/// How to load a model.
#[derive(Clone, Copy, Default)]
pub struct LoadParams<'a> {
    /// Instruction set; `None` takes the process's default (`SMALLMIND_ISA`, else the best).
    pub isa: Option<IsaId>,
    /// How finely activations are rounded where weights are quantised.
    pub activations: Activations,
    /// Told how far the load is.
    pub progress: Option<Progress<'a>>,
}

impl LoadParams<'_> {
    /// The kernels that these parameters ask for.
    ///
    /// # Errors
    /// As [`KernelSet::select`] and [`KernelSet::default_set`].
    pub fn kernels(&self) -> Result<KernelSet> {
        let mut kernels = match self.isa {
            Some(isa) => KernelSet::select(isa)?,
            None => *KernelSet::default_set()?,
        };
        kernels.qmatmul = kernels.qmatmul.with_activations(self.activations);
        Ok(kernels)
    }
}

/// Everything a file holds, ready to run; immutable, shared by contexts and threads.
pub struct Model {
    config: Config,
    graph: Graph,
    weights: Weights,
    kernels: KernelSet,
    tokenizer: std::result::Result<Tokenizer, String>,
    template: std::result::Result<Template, String>,
    n_parameters: u64,
}

impl Model {
    /// Loads a GGUF file by positioned reads.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] where the file contradicts itself, [`Error::Unsupported`],
    /// [`Error::OutOfMemory`], [`Error::Cancelled`].
    pub fn open(path: &Path, params: &LoadParams<'_>) -> Result<Arc<Model>> {
        Self::from_source(Arc::new(FileSource::open(path)?), params)
    }

    /// Loads GGUF contents from anywhere (a memory map: [`MapSource`](crate::format::MapSource)).
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_source(source: Arc<dyn ByteSource>, params: &LoadParams<'_>) -> Result<Arc<Model>> {
        Self::load(source, params, families::read)
    }

    /// [`Model::from_source`] with whatever makes a configuration and a graph of a file.
    pub(crate) fn load(
        source: Arc<dyn ByteSource>,
        params: &LoadParams<'_>,
        read: impl FnOnce(&Gguf) -> Result<(Config, Graph)>,
    ) -> Result<Arc<Model>> {
        let _zone = profile::scope(Zone::Load);
        let kernels = params.kernels()?;
        let gguf = {
            let _zone = profile::scope(Zone::LoadOpen);
            Gguf::open(source)?
        };
        let metadata = gguf.metadata();
        let (config, graph) = read(&gguf)?;
        let n_vocab = config.n_vocab;
        // A pool for this load alone. The threads of a global one would stay, and a managed runtime that the
        // progress callback has met on them (Mono) waits for them when the process ends.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads::available()).build();
        let pool = pool.map_err(|error| Error::Internal(format!("no threads to load with: {error}")))?;
        let path = profile::current_path();
        let mut vocabulary = None;
        // This thread keeps the clock while it waits: what the pool's do is help, or times would count twice.
        let (weights, waiting) = pool.in_place_scope(|scope| {
            scope.spawn(|_| {
                let _adopted = profile::adopt(path.as_ref());
                let _help = profile::assist(Zone::LoadTokenizer);
                vocabulary = Some(tokenizer(metadata).map_err(reason));
            });
            let weights = load_weights(&gguf, &graph.weights, &kernels, &pool, params.progress);
            (weights, profile::scope(Zone::LoadTokenizer))
        });
        drop(waiting);
        let tokenizer = vocabulary.ok_or_else(|| Error::Internal("nobody built the tokenizer".into()))?;
        let weights = weights?;
        if let Ok(tokenizer) = &tokenizer
            && tokenizer.vocab_size() != n_vocab
        {
            return Err(Error::format(format!(
                "the vocabulary has {} tokens, the embedding {n_vocab} rows",
                tokenizer.vocab_size()
            )));
        }
        let template = template(metadata, tokenizer.as_ref().ok()).map_err(reason);
        let n_parameters = gguf.parameters();
        // The metadata, the pool and what built the tokenizer were several times what stays of them.
        drop((gguf, pool));
        memory::give_back_freed();
        Ok(Arc::new(Model { config, graph, weights, kernels, tokenizer, template, n_parameters }))
    }

    /// Hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it computes.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The loaded weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The kernels that the weights were packed for.
    pub fn kernels(&self) -> &KernelSet {
        &self.kernels
    }

    /// The vocabulary, or why there is none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().map_err(|why| Error::Unsupported(format!("no tokenizer: {why}")))
    }

    /// The chat template, or why there is none.
    pub fn chat_template(&self) -> Result<&Template> {
        self.template.as_ref().map_err(|why| Error::Unsupported(format!("no chat template: {why}")))
    }

    /// Elements of all tensors in the file.
    pub fn n_parameters(&self) -> u64 {
        self.n_parameters
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }
}

/// An error's text, to be put into another of its kind.
fn reason(error: Error) -> String {
    match error {
        Error::Unsupported(text) => text,
        other => other.to_string(),
    }
}

fn tokenizer(metadata: &Metadata) -> Result<Tokenizer> {
    // What files without a vocabulary are given by those who write them.
    if metadata.get_str("tokenizer.ggml.model")?.is_some_and(|model| model == "no_vocab") {
        return Err(Error::Unsupported("the file has no vocabulary".into()));
    }
    Tokenizer::from_metadata(metadata)
}

fn template(metadata: &Metadata, tokenizer: Option<&Tokenizer>) -> Result<Template> {
    let source = metadata.get_str("tokenizer.chat_template")?;
    let source = source.ok_or_else(|| Error::Unsupported("the file has none".into()))?;
    let (bos, eos) = tokenizer.map_or(("", ""), |t| (t.bos_text(), t.eos_text()));
    Template::new(source, bos, eos)
}
