//! Loading: file → checked configuration → plan → weights, read in parallel straight into repacking.
//! Peak memory is the packed weights, the vocabulary, and one chunk of about a megabyte for each loading thread.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rayon::ThreadPool;
use rayon::prelude::*;

use super::config::Config;
use super::plan::Plan;
use super::weights::{Usage, Weight, WeightSpec, Weights};
use super::{gpt, llama};
use crate::chat::Template;
use crate::error::{Error, Result, quoted};
use crate::format::gguf::{Gguf, Metadata, TensorInfo};
use crate::format::{ByteSource, FileSource};
use crate::isa::IsaId;
use crate::kernels::KernelSet;
use crate::kernels::qmatmul::Activations;
use crate::memory::{self, AlignedBuf, checked_bytes};
use crate::ops::linear::{PackedWeight, Packer};
use crate::profile::{self, Zone};
use crate::quant;
use crate::threads;
use crate::tokenizer::Tokenizer;

/// Bytes of a tensor that one loading job reads at a time.
const CHUNK_BYTES: usize = 1 << 20;

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

/// Everything a file holds, ready to run; immutable, shared by contexts and threads.
pub struct Model {
    config: Config,
    plan: Plan,
    weights: Weights,
    rope_factors: Option<Vec<f32>>,
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
        let _zone = profile::scope(Zone::Load);
        let mut kernels = match params.isa {
            Some(isa) => KernelSet::select(isa)?,
            None => *KernelSet::default_set()?,
        };
        kernels.qmatmul = kernels.qmatmul.with_activations(params.activations);
        let gguf = {
            let _zone = profile::scope(Zone::LoadOpen);
            Gguf::open(source)?
        };
        let metadata = gguf.metadata();
        let n_vocab = vocabulary_size(&gguf)?;
        let (config, (plan, specs)) = family(&gguf, n_vocab, &kernels)?;
        let rope_factors = rope_factors(&gguf, &config)?;
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
            let weights = load_weights(&gguf, &specs, &kernels, &pool, params.progress);
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
        Ok(Arc::new(Model {
            config,
            plan,
            weights,
            rope_factors,
            kernels,
            tokenizer,
            template,
            n_parameters,
        }))
    }

    /// Hyperparameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The forward pass.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The loaded weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Divisors of the rotary frequencies, one a pair, where the file gives them (Llama 3).
    pub fn rope_factors(&self) -> Option<&[f32]> {
        self.rope_factors.as_deref()
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

/// The configuration and the forward pass, with the weights it reads, as the file's family has them.
fn family(gguf: &Gguf, n_vocab: usize, kernels: &KernelSet) -> Result<(Config, (Plan, Vec<WeightSpec>))> {
    let metadata = gguf.metadata();
    let architecture = metadata.get_str("general.architecture")?.unwrap_or("");
    let (config, build): (_, fn(&Gguf, &Config, &KernelSet) -> _) = match architecture {
        "llama" => (Config::llama(metadata, n_vocab)?, llama::build),
        "gpt2" => (Config::gpt(metadata, n_vocab)?, gpt::build),
        _ => {
            let architecture = quoted(architecture);
            return Err(Error::Unsupported(format!("architecture {architecture} (known: gpt2, llama)")));
        }
    };
    let parts = build(gguf, &config, kernels)?;
    Ok((config, parts))
}

/// Rows of the embedding, which every family has and which bounds every token id.
fn vocabulary_size(gguf: &Gguf) -> Result<usize> {
    let tensor = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| Error::format("tensor token_embd.weight is missing"))?;
    let rows = tensor.shape().get(1).copied().unwrap_or(0);
    match u32::try_from(rows) {
        Ok(rows) if rows > 0 => Ok(rows as usize),
        _ => Err(Error::format(format!("token_embd.weight has {rows} rows"))),
    }
}

fn rope_factors(gguf: &Gguf, config: &Config) -> Result<Option<Vec<f32>>> {
    let rope = config.rope.as_ref().zip(gguf.tensor("rope_freqs.weight"));
    let Some((rope, tensor)) = rope else { return Ok(None) };
    let pairs = rope.dim / 2;
    if tensor.shape() != [pairs as u64] {
        return Err(Error::format(format!(
            "rope_freqs.weight has shape {:?}; expected [{pairs}]",
            tensor.shape()
        )));
    }
    let mut factors = vec![0.0f32; pairs];
    let mut bytes = vec![0; tensor.bytes as usize];
    gguf.read_tensor(tensor, 0, &mut bytes)?;
    quant::decode_row(tensor.dtype()?, &bytes, &mut factors)?;
    if factors.iter().any(|f| !(f.is_finite() && *f > 0.0)) {
        return Err(Error::format("rope_freqs.weight holds a factor that is not a finite number above 0"));
    }
    Ok(Some(factors))
}

/// A run of a tensor's rows and the bytes they end up in.
struct Job<'a> {
    tensor: &'a TensorInfo,
    spec: &'a WeightSpec,
    row_begin: usize,
    row_end: usize,
    target: Target<'a>,
}

enum Target<'a> {
    Floats(&'a mut [f32]),
    Raw(&'a mut [u8]),
    Panels { packer: Packer, out: &'a mut [u8] },
}

/// Reads and packs all weights, on the threads of the pool.
fn load_weights(
    gguf: &Gguf,
    specs: &[WeightSpec],
    kernels: &KernelSet,
    pool: &ThreadPool,
    progress: Option<Progress<'_>>,
) -> Result<Weights> {
    let path = profile::current_path();
    let _zone = profile::scope(Zone::LoadRepack);
    let mut weights = reserve(specs, kernels)?;
    let mut jobs = Vec::new();
    for (weight, spec) in weights.iter_mut().zip(specs) {
        let tensor = gguf
            .tensor(&spec.name)
            .ok_or_else(|| Error::format(format!("tensor {} is missing", spec.name)))?;
        split(weight, spec, tensor, &mut jobs)?;
    }
    let total: u64 = specs.iter().map(|spec| spec.n as u64 * spec.k as u64).sum();
    let meter = Meter::new(total, progress);
    pool.install(|| {
        jobs.par_iter_mut().try_for_each_init(Vec::new, |scratch, job| {
            let _adopted = profile::adopt(path.as_ref());
            let _help = profile::assist(Zone::LoadRepack);
            run_job(gguf, job, scratch)?;
            meter.advance((job.row_end - job.row_begin) as u64 * job.spec.k as u64)
        })
    })?;
    Ok(Weights(weights))
}

/// Room for all weights, in one piece of memory.
fn reserve(specs: &[WeightSpec], kernels: &KernelSet) -> Result<Vec<Weight>> {
    let forms = specs.iter().map(|spec| Form::of(spec, kernels)).collect::<Result<Vec<_>>>()?;
    let sizes = forms.iter().zip(specs).map(|(form, spec)| form.bytes(spec)).collect::<Result<Vec<_>>>()?;
    let buffers = AlignedBuf::zeroed_together(&sizes, "weights")?;
    let weights = forms.into_iter().zip(specs).zip(buffers).map(|((form, spec), buffer)| match form {
        Form::Floats => Weight::Floats(buffer),
        Form::Table => Weight::Table { dtype: spec.dtype, k: spec.k, rows: buffer },
        Form::Linear(packer) => Weight::Linear(PackedWeight::new(packer, spec.n, buffer)),
    });
    Ok(weights.collect())
}

/// In which form a tensor is kept.
enum Form {
    Floats,
    Table,
    Linear(Packer),
}

impl Form {
    fn of(spec: &WeightSpec, kernels: &KernelSet) -> Result<Form> {
        if spec.usage.includes(Usage::LINEAR) {
            Packer::new(kernels, spec.dtype, spec.k).map(Form::Linear)
        } else if spec.usage.includes(Usage::TABLE) {
            Ok(Form::Table)
        } else {
            Ok(Form::Floats)
        }
    }

    fn bytes(&self, spec: &WeightSpec) -> Result<usize> {
        match self {
            Form::Linear(packer) => packer.bytes(spec.n),
            Form::Floats => {
                checked_bytes(spec.n, checked_bytes(spec.k, size_of::<f32>(), "weights")?, "weights")
            }
            Form::Table => {
                let row = spec.dtype.row_bytes(spec.k).ok_or_else(|| {
                    Error::format(format!("tensor {}: rows of {} are no whole blocks", spec.name, spec.k))
                })?;
                checked_bytes(row, spec.n, "weights")
            }
        }
    }
}

fn split<'a>(
    weight: &'a mut Weight,
    spec: &'a WeightSpec,
    tensor: &'a TensorInfo,
    jobs: &mut Vec<Job<'a>>,
) -> Result<()> {
    let row_bytes = (tensor.bytes / spec.n as u64).max(1) as usize;
    let mut push = |row_begin: usize, rows: usize, target| {
        jobs.push(Job { tensor, spec, row_begin, row_end: (row_begin + rows).min(spec.n), target });
    };
    match weight {
        Weight::Floats(buf) => {
            let rows = (CHUNK_BYTES / row_bytes).max(1);
            for (i, chunk) in buf.as_mut_slice::<f32>().chunks_mut(rows * spec.k).enumerate() {
                push(i * rows, rows, Target::Floats(chunk));
            }
        }
        Weight::Table { rows: buf, .. } => {
            let rows = (CHUNK_BYTES / row_bytes).max(1);
            for (i, chunk) in buf.as_mut_slice::<u8>().chunks_mut(rows * row_bytes).enumerate() {
                push(i * rows, rows, Target::Raw(chunk));
            }
        }
        Weight::Linear(packed) => {
            let packer = packed.packer();
            let panels = (CHUNK_BYTES / (row_bytes * packer.panel_rows())).max(1);
            let rows = panels * packer.panel_rows();
            for (i, out) in packed.panels_mut().chunks_mut(panels * packer.panel_bytes()).enumerate() {
                push(i * rows, rows, Target::Panels { packer, out });
            }
        }
    }
    Ok(())
}

fn run_job(gguf: &Gguf, job: &mut Job<'_>, scratch: &mut Vec<u8>) -> Result<()> {
    let row_bytes = job.tensor.bytes / job.spec.n as u64;
    let offset = row_bytes * job.row_begin as u64;
    let bytes = row_bytes as usize * (job.row_end - job.row_begin);
    if let Target::Raw(out) = &mut job.target {
        let _zone = profile::assist(Zone::LoadRead).work(0, bytes as u64);
        return gguf.read_tensor(job.tensor, offset, out);
    }
    if scratch.len() < bytes {
        scratch
            .try_reserve(bytes - scratch.len())
            .map_err(|_| Error::OutOfMemory { bytes, what: "a loading buffer" })?;
        scratch.resize(bytes, 0);
    }
    let raw = &mut scratch[..bytes];
    gguf.read_tensor(job.tensor, offset, raw)?;
    match &mut job.target {
        Target::Floats(out) => quant::decode_row(job.spec.dtype, raw, out),
        Target::Panels { packer, out } => packer.pack(raw, out),
        Target::Raw(_) => Ok(()),
    }
}

/// Adds up finished work and tells the caller; remembers a cancellation.
struct Meter<'a> {
    total: u64,
    done: Mutex<u64>,
    cancelled: AtomicBool,
    progress: Option<Progress<'a>>,
}

impl<'a> Meter<'a> {
    fn new(total: u64, progress: Option<Progress<'a>>) -> Self {
        Meter { total, done: Mutex::new(0), cancelled: AtomicBool::new(false), progress }
    }

    fn advance(&self, elements: u64) -> Result<()> {
        let Some(progress) = self.progress else { return Ok(()) };
        // The callback runs under the lock: one thread at a time, never backwards.
        let mut done = self.done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *done += elements;
        if self.cancelled.load(Ordering::Relaxed) || progress(*done as f32 / self.total as f32).is_break() {
            self.cancelled.store(true, Ordering::Relaxed);
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}
