//! A loaded model: configuration, graph, weights and vocabulary of a file.
//! Every fault of the configuration and the graph is reported before weights are read.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::adapter::Adapter;
use super::config::Config;
use super::families;
use super::foreign::open_source;
use super::graph::Graph;
use super::pack::load_weights;
use super::pooling::Pooling;
use super::prompt;
use super::weights::Weights;
use crate::chat::Template;
use crate::error::{Error, Result, at, quoted};
use crate::format::ByteSource;
#[cfg(feature = "builtin")]
use crate::format::BytesSource;
use crate::format::gguf::{Gguf, Metadata};
use crate::isa::IsaId;
use crate::kernels::KernelSet;
use crate::kernels::qmatmul::Activations;
use crate::memory;
use crate::memory::reserve::{collected, copied_text};
use crate::profile::{self, Zone};
use crate::text::escaped;
use crate::threads;
use crate::tokenizer::{Tokenizer, TokenizerSource};

/// A callback for the progress of a load: the finished share (0 to 1). One thread at a time calls it; `Break` cancels
/// the load.
pub type Progress<'a> = &'a (dyn Fn(f32) -> ControlFlow<()> + Sync);

/// How to load a model.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct LoadParams<'a> {
    /// Instruction set; `None` takes the process's default (`SMALLMIND_ISA`, else the best).
    pub isa: Option<IsaId>,
    /// How finely activations are rounded before they are multiplied with quantised weights. `None` takes
    /// [`Activations::Adaptive`] for an encoder that gives vectors, whose cosine with unrounded activations' vectors stays
    /// above 0.999, and [`Activations::Bits16`] for any other model.
    pub activations: Option<Activations>,
    /// Whether a pre-tokenizer of an unknown name is taken for the default one, instead of leaving the model without a
    /// tokenizer; words are then cut differently than in training.
    pub default_pre_tokenizer: bool,
    /// Low-rank adapters (LoRA) that change the model's matrices, each with its own scale.
    pub adapters: &'a [Adapter],
    /// Called as the load proceeds.
    pub progress: Option<Progress<'a>>,
}

impl fmt::Debug for LoadParams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadParams")
            .field("isa", &self.isa)
            .field("activations", &self.activations)
            .field("default_pre_tokenizer", &self.default_pre_tokenizer)
            .field("adapters", &self.adapters)
            .field("progress", &self.progress.map(|_| "a callback"))
            .finish()
    }
}

impl<'a> LoadParams<'a> {
    /// Sets [`LoadParams::isa`].
    pub fn with_isa(self, isa: impl Into<Option<IsaId>>) -> Self {
        Self { isa: isa.into(), ..self }
    }

    /// Sets [`LoadParams::activations`].
    pub fn with_activations(self, activations: impl Into<Option<Activations>>) -> Self {
        Self { activations: activations.into(), ..self }
    }

    /// Sets [`LoadParams::default_pre_tokenizer`].
    pub fn with_default_pre_tokenizer(self, default_pre_tokenizer: bool) -> Self {
        Self { default_pre_tokenizer, ..self }
    }

    /// Sets [`LoadParams::adapters`].
    pub fn with_adapters(self, adapters: &'a [Adapter]) -> Self {
        Self { adapters, ..self }
    }

    /// Sets [`LoadParams::progress`].
    pub fn with_progress(self, progress: Progress<'a>) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// The kernels that these parameters choose; with activations of 16 bits where none are chosen.
    ///
    /// # Errors
    /// As [`KernelSet::select`] and [`KernelSet::default_set`].
    pub fn kernels(&self) -> Result<KernelSet> {
        let mut kernels = match self.isa {
            Some(isa) => KernelSet::select(isa)?,
            None => *KernelSet::default_set()?,
        };
        kernels.qmatmul = kernels.qmatmul.with_activations(self.activations.unwrap_or_default());
        Ok(kernels)
    }
}

/// A model, ready to run; immutable, shared by contexts and threads.
///
/// A model can do without a tokenizer and a chat template: tokens go in and logits come out. So a file whose
/// vocabulary or template is missing, malformed or of an unknown kind loads, and [`Model::tokenizer`] or
/// [`Model::chat_template`] returns the error. Any other error, such as a lack of memory, fails the load.
pub struct Model {
    config: Config,
    graph: Graph,
    weights: Weights,
    kernels: KernelSet,
    tokenizer: Optional<Tokenizer>,
    template: Optional<Template>,
    rerank_template: Option<String>,
    n_parameters: u64,
}

/// A part that a model can do without, or the error about the file's contents for which it is missing.
type Optional<T> = std::result::Result<T, Error>;

impl Model {
    /// Loads a GGUF file, or a folder of Hugging Face, by positioned reads: see [`open_source`].
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] where the file contradicts itself, [`Error::Unsupported`],
    /// [`Error::OutOfMemory`], [`Error::Cancelled`] by [`LoadParams::progress`]; for adapters as
    /// [`read_adapted_graph`](super::read_adapted_graph), before memory for weights is reserved.
    pub fn open(path: &Path, params: &LoadParams<'_>) -> Result<Arc<Model>> {
        Self::from_source(open_source(path)?, params)
    }

    /// Loads GGUF contents from anywhere (a memory map: [`MapSource`](crate::format::MapSource)).
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_source(source: Arc<dyn ByteSource>, params: &LoadParams<'_>) -> Result<Arc<Model>> {
        Self::load(source, params, |gguf| families::read(gguf, params.adapters))
    }

    /// Loads the model that is built into the library: it writes short stories for children.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Cancelled`] by [`LoadParams::progress`].
    #[cfg(feature = "builtin")]
    pub fn builtin(params: &LoadParams<'_>) -> Result<Arc<Model>> {
        Self::from_source(
            Arc::new(BytesSource::of_program("the built-in model", smallmind_builtin::MODEL)),
            params,
        )
    }

    /// [`Model::from_source`] with the function that makes a configuration and a graph from a file.
    pub(crate) fn load(
        source: Arc<dyn ByteSource>,
        params: &LoadParams<'_>,
        read: impl FnOnce(&Gguf) -> Result<(Config, Graph)>,
    ) -> Result<Arc<Model>> {
        let _zone = profile::scope(Zone::Load);
        let mut kernels = params.kernels()?;
        let gguf = {
            let _zone = profile::scope(Zone::LoadOpen);
            Gguf::open(source)?
        };
        let metadata = gguf.metadata();
        let file = || escaped(gguf.source().name()).to_string();
        let (config, graph) = read(&gguf)?;
        if params.activations.is_none() {
            kernels.qmatmul = kernels.qmatmul.with_activations(default_activations(&config, &graph));
        }
        let n_vocab = config.n_vocab;
        let adapters = params.adapters.iter().map(Adapter::gguf);
        let files = collected([&gguf].into_iter().chain(adapters).map(Ok), "a list of files")?;
        // A pool for this load alone. The threads of a global pool would stay; if the progress callback belongs to a
        // managed runtime (Mono), that runtime would wait for them when the process ends.
        let pool = threads::pool(threads::available())?;
        let path = profile::current_path();
        let mut vocabulary = None;
        // Only this thread's time counts as the load's, also while it waits; the pool's threads assist. Otherwise the
        // same second would count several times.
        let (weights, waiting) = pool.in_place_scope(|scope| {
            scope.spawn(|_| {
                let _adopted = profile::adopt(path.as_ref());
                let _help = profile::assist(Zone::LoadTokenizer);
                vocabulary =
                    Some(optional(tokenizer(metadata, params), || format!("{}: no tokenizer", file())));
            });
            let weights = load_weights(&files, &graph.weights, &kernels, &pool, params.progress);
            (weights, profile::scope(Zone::LoadTokenizer))
        });
        drop(waiting);
        let weights = weights?;
        let not_run = || Error::Internal("the tokenizer was not built".into());
        let mut tokenizer = vocabulary.ok_or_else(not_run)??;
        if let Ok(tokenizer) = &tokenizer
            && tokenizer.vocab_size() != n_vocab
        {
            return Err(Error::format(format!(
                "{}: the vocabulary has {} tokens, the embedding {n_vocab} rows",
                file(),
                tokenizer.vocab_size()
            )));
        }
        let template = template(metadata, tokenizer.as_ref().ok());
        let template = optional(template, file)?;
        if let (Ok(template), Ok(tokenizer)) = (&template, &mut tokenizer)
            && let Some(end) = prompt::turn_end(template, tokenizer)
        {
            tokenizer.add_end(end)?;
        }
        let rerank_template = metadata.get_str("tokenizer.chat_template.rerank").ok().flatten();
        let rerank_template = rerank_template.map(|text| copied_text(text, "a template")).transpose()?;
        let n_parameters = gguf.parameters();
        // The metadata, the pool and the tokenizer's temporary tables took several times the memory that stays in use.
        drop((gguf, pool));
        memory::give_back_freed();
        Ok(Arc::new(Model {
            config,
            graph,
            weights,
            kernels,
            tokenizer,
            template,
            rerank_template,
            n_parameters,
        }))
    }

    /// Hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the file states and this version ignores, a sentence each, fit to be shown: as a rule, factors that another
    /// program may compute with.
    pub fn warnings(&self) -> &[String] {
        &self.config.warnings
    }

    /// The computation, as a graph.
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

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the file has no vocabulary or one of an unknown kind; [`Error::Format`] where its
    /// vocabulary contradicts itself.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().map_err(copied)
    }

    /// The chat template.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the file has none; [`Error::Format`] where it doesn't compile.
    pub fn chat_template(&self) -> Result<&Template> {
        self.template.as_ref().map_err(copied)
    }

    /// The text that a reranker reads, with `{query}` and `{document}` in the places of these; `None` where the file states
    /// none, and the two follow each other.
    pub fn rerank_template(&self) -> Option<&str> {
        self.rerank_template.as_deref()
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

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("architecture", &self.config.architecture)
            .field("name", &format_args!("{}", quoted(&self.config.name)))
            .field("n_parameters", &self.n_parameters)
            .field("isa", &self.kernels.isa)
            .finish_non_exhaustive()
    }
}

/// Keeps an error about the file's contents, with the place in front, for the caller who asks for the part; any other
/// error stays one.
fn optional<T>(part: Result<T>, place: impl FnOnce() -> String) -> Result<Optional<T>> {
    match part.map_err(at(place)) {
        Ok(part) => Ok(Ok(part)),
        Err(error @ (Error::Format(_) | Error::Unsupported(_))) => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

/// A copy of an error that [`optional`] has kept, of the same kind.
fn copied(error: &Error) -> Error {
    match error {
        Error::Format(why) => Error::Format(why.clone()),
        Error::Unsupported(why) => Error::Unsupported(why.clone()),
        other => Error::Internal(other.to_string()),
    }
}

/// The mode of activations for a model whose caller chose none: see [`LoadParams::activations`].
fn default_activations(config: &Config, graph: &Graph) -> Activations {
    match graph.logits {
        None if config.pooling != Some(Pooling::Rank) => Activations::Adaptive,
        _ => Activations::Bits16,
    }
}

fn tokenizer(metadata: &Metadata, params: &LoadParams<'_>) -> Result<Tokenizer> {
    let mut source = TokenizerSource::from_metadata(metadata)?;
    source.default_pre = params.default_pre_tokenizer;
    Tokenizer::new(source)
}

fn template(metadata: &Metadata, tokenizer: Option<&Tokenizer>) -> Result<Template> {
    let source = metadata.get_str("tokenizer.chat_template")?;
    let source = source.ok_or_else(|| Error::Unsupported("the file has no chat template".into()))?;
    let (bos, eos) = tokenizer.map_or(("", ""), |t| (t.bos_text(), t.eos_text()));
    Template::new(source, bos, eos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_about_contents_wait() {
        let optional = |part| optional::<i32>(part, || "place".into());
        assert!(matches!(optional(Ok(7)), Ok(Ok(7))));
        let text = |error| optional(Err(error)).expect("it waits").expect_err("an error").to_string();
        assert_eq!(text(Error::format("a")), "bad file: place: a");
        assert_eq!(text(Error::Unsupported("a".into())), "not supported: place: a");
        let io = Error::Io { path: "a".into(), source: std::io::Error::other("gone") };
        let no_memory = Error::OutOfMemory { bytes: 1, what: "a test" };
        for error in [no_memory, io, Error::Internal("a".into()), Error::Cancelled] {
            let kind = std::mem::discriminant(&error);
            let kept = optional(Err(error)).expect_err("it fails the load");
            assert_eq!(std::mem::discriminant(&kept), kind);
        }
    }

    #[test]
    fn a_kept_error_stays_of_its_kind() {
        let format = copied(&Error::format("merge 3 is no pair"));
        assert_eq!(format.to_string(), "bad file: merge 3 is no pair");
        let unsupported = copied(&Error::Unsupported("the file has none".into()));
        assert_eq!(unsupported.to_string(), "not supported: the file has none");
    }
}
