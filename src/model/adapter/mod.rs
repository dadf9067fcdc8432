//! Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685): a matrix W of a model becomes W + scale · B·A, with B and A
//! from a GGUF file as llama.cpp reads and writes them. Here are a file's checks; `apply` puts adapters into graphs,
//! `change` into the matrices of other files, and `fresh` makes new ones.

mod apply;
mod change;
mod fresh;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub(super) use apply::{Adapters, Target};
pub(super) use change::{Change, LowRank, changes};
pub(crate) use fresh::{FreshTarget, fresh};

use crate::error::{Error, Result, at, quoted};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::format::{ByteSource, FileSource};
use crate::memory::reserve::{copied_text, reserve};
use crate::text::escaped;

/// Endings of the names of a pair's tensors.
const ENDINGS: [&str; 2] = [".lora_a", ".lora_b"];
/// The table of embeddings, the only table that an adapter may change: its A has a row for each token.
const EMBEDDING: &str = "token_embd.weight";
/// The keys of a file.
const KIND: [&str; 2] = ["general.type", "adapter"];
const TYPE: [&str; 2] = ["adapter.type", "lora"];
const ALPHA: &str = "adapter.lora.alpha";
/// Tokens from which on an activated adapter (aLoRA) takes effect.
const INVOCATION: &str = "adapter.alora.invocation_tokens";
const ARCHITECTURE: &str = "general.architecture";
/// The purpose of the memory, in errors.
const WHAT: &str = "a list of adapters";

/// A low-rank adapter from a GGUF file, and the scale that it is applied with.
///
/// Its header is read and checked when it is opened, its tensors when a model is loaded with it
/// ([`LoadParams::adapters`](super::LoadParams::adapters)) or merged with it
/// ([`QuantizePlan`](super::quantize::QuantizePlan)).
#[derive(Clone)]
pub struct Adapter {
    gguf: Arc<Gguf>,
    alpha: f32,
    scale: f32,
    /// Sorted by target.
    pairs: Arc<[Pair]>,
}

/// The two tensors that change a tensor of the model.
struct Pair {
    /// The model's tensor.
    target: String,
    /// Places of A and B among the adapter's tensors.
    tensors: [usize; 2],
    rank: usize,
}

impl Adapter {
    /// Opens a GGUF file, whose header is read.
    ///
    /// # Errors
    /// As [`Adapter::from_source`]; [`Error::Io`].
    pub fn open(path: &Path) -> Result<Adapter> {
        Adapter::from_source(Arc::new(FileSource::open(path)?))
    }

    /// Opens the contents of a GGUF file.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that is no adapter, is cut off, or has a tensor without its partner or of another rank;
    /// [`Error::Unsupported`] for adapters of another kind than LoRA and for tensors that no adapter can change here. The
    /// message names file and tensor.
    pub fn from_source(source: Arc<dyn ByteSource>) -> Result<Adapter> {
        let gguf = Gguf::open(source)?;
        let place = escaped(gguf.source().name()).to_string();
        Adapter::read(gguf).map_err(at(|| place))
    }

    fn read(gguf: Gguf) -> Result<Adapter> {
        let metadata = gguf.metadata();
        for [key, wanted] in [KIND, TYPE] {
            let found = metadata.get_str(key)?.unwrap_or_default();
            if found != wanted {
                let found = quoted(found);
                return Err(Error::format(format!("{key} is {found}; an adapter's is {wanted:?}")));
            }
        }
        if metadata.get(INVOCATION).is_some() {
            return Err(Error::Unsupported("an adapter that only some tokens activate (aLoRA)".into()));
        }
        let alpha = metadata.require_f32(ALPHA)?;
        if !alpha.is_finite() {
            return Err(Error::format(format!("{ALPHA} is {alpha}; expected a finite number")));
        }
        metadata.require_str(ARCHITECTURE)?;
        let pairs = pairs(&gguf)?;
        Ok(Adapter { gguf: Arc::new(gguf), alpha, scale: 1.0, pairs: pairs.into() })
    }

    /// Sets the scale; 1 without this.
    pub fn with_scale(self, scale: f32) -> Adapter {
        Adapter { scale, ..self }
    }

    /// The scale that it is applied with.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The file's factor: products are multiplied by `scale · alpha / rank`, or by `scale` where alpha is 0.
    pub fn alpha(&self) -> f32 {
        self.alpha
    }

    /// The names of the model's tensors that it changes, sorted, and the ranks of the changes.
    pub fn targets(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        self.pairs.iter().map(|pair| (pair.target.as_str(), pair.rank))
    }

    /// Its file.
    pub(crate) fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Its file, for whoever keeps it.
    pub(crate) fn shared_gguf(&self) -> Arc<Gguf> {
        self.gguf.clone()
    }

    /// Checks that it is made for a model of this architecture, and that its factors are finite.
    ///
    /// # Errors
    /// [`Error::Format`] for an adapter of another architecture; [`Error::InvalidArgument`] for a scale that isn't finite,
    /// or makes a factor that isn't.
    fn check(&self, architecture: &str) -> Result<()> {
        let own = self.gguf.metadata().require_str(ARCHITECTURE)?;
        if own != architecture {
            let (own, architecture) = (quoted(own), quoted(architecture));
            return Err(Error::format(format!("an adapter of {own}; the model is {architecture}")));
        }
        if !self.scale.is_finite() || self.pairs.iter().any(|pair| !self.factor(pair).is_finite()) {
            let (scale, alpha, file) = (self.scale, self.alpha, escaped(self.gguf.source().name()));
            let text = format!("{file}: an adapter with a scale of {scale} and an alpha of {alpha}");
            return Err(Error::invalid(text));
        }
        Ok(())
    }

    /// Position of the pair that changes a tensor.
    fn position(&self, target: &str) -> Option<usize> {
        self.pairs.binary_search_by(|pair| pair.target.as_str().cmp(target)).ok()
    }

    /// The factor on a pair's product.
    fn factor(&self, pair: &Pair) -> f32 {
        match self.alpha {
            0.0 => self.scale,
            alpha => self.scale * alpha / pair.rank as f32,
        }
    }

    fn tensors(&self, pair: &Pair) -> [&TensorInfo; 2] {
        pair.tensors.map(|i| &self.gguf.tensors()[i])
    }

    /// A pair's tensors, for a change of a matrix of `n` rows of `k`.
    ///
    /// # Errors
    /// [`Error::Format`], naming the tensor, where its shape is that of another model.
    fn fitting(&self, pair: &Pair, n: usize, k: usize) -> Result<[&TensorInfo; 2]> {
        let tensors = self.tensors(pair);
        let rank = pair.rank;
        let wanted = if pair.target == EMBEDDING { [[rank, n], [rank, k]] } else { [[k, rank], [rank, n]] };
        for (tensor, wanted) in tensors.iter().zip(wanted) {
            if tensor.dims[..2] != wanted.map(|dim| dim as u64) {
                let (name, dims) = (quoted(&tensor.name), tensor.shape());
                return Err(self.placed(Error::format(format!(
                    "tensor {name} has shape {dims:?}; the model wants {wanted:?}"
                ))));
            }
        }
        Ok(tensors)
    }

    /// Names the file in an error.
    fn placed(&self, error: Error) -> Error {
        at(|| escaped(self.gguf.source().name()).to_string())(error)
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter")
            .field("source", &self.gguf.source().name())
            .field("scale", &self.scale)
            .field("alpha", &self.alpha)
            .field("targets", &self.pairs.len())
            .finish()
    }
}

/// The pairs of a file, sorted by target.
fn pairs(gguf: &Gguf) -> Result<Vec<Pair>> {
    let mut halves: Vec<(&str, usize, usize)> = Vec::new();
    for (i, tensor) in gguf.tensors().iter().enumerate() {
        let name = &tensor.name;
        let half = ENDINGS.iter().enumerate().find_map(|(half, end)| Some((name.strip_suffix(end)?, half)));
        let Some((target, half)) = half else {
            let other = if name.contains("norm") { " (of a norm, which llama.cpp ignores)" } else { "" };
            return Err(Error::Unsupported(format!(
                "tensor {}{other}: adapters here have names that end in .lora_a and .lora_b only",
                quoted(name)
            )));
        };
        if tensor.dims[2..] != [1, 1] {
            let dims = tensor.shape();
            return Err(Error::Unsupported(format!(
                "tensor {} has shape {dims:?}: adapters of experts",
                quoted(name)
            )));
        }
        tensor.dtype()?;
        reserve(&mut halves, 1, WHAT)?;
        halves.push((target, half, i));
    }
    halves.sort_unstable();
    let mut pairs = Vec::new();
    let mut rest = &halves[..];
    while let [first, others @ ..] = rest {
        let (target, half, a) = *first;
        let partner = others.first().filter(|other| other.0 == target && half == 0);
        let Some(&(_, _, b)) = partner else {
            let (name, wanted) =
                (quoted(&gguf.tensors()[a].name), quoted(&format!("{target}{}", ENDINGS[1 - half])));
            return Err(Error::format(format!("tensor {name} has no {wanted} with it")));
        };
        reserve(&mut pairs, 1, WHAT)?;
        pairs.push(pair(gguf, copied_text(target, WHAT)?, [a, b])?);
        rest = &others[1..];
    }
    match pairs.is_empty() {
        true => Err(Error::format("an adapter without tensors")),
        false => Ok(pairs),
    }
}

/// The two tensors of a target, of one rank.
fn pair(gguf: &Gguf, target: String, tensors: [usize; 2]) -> Result<Pair> {
    let [a, b] = tensors.map(|i| &gguf.tensors()[i]);
    let rank = if target == EMBEDDING { a.dims[0] } else { a.dims[1] };
    if b.dims[0] != rank {
        let (a, b, dims) = (quoted(&a.name), quoted(&b.name), b.shape());
        return Err(Error::format(format!("tensor {b} has shape {dims:?}, but {a} is of rank {rank}")));
    }
    let rank = usize::try_from(rank).map_err(|_| Error::format("a rank that is too large"))?;
    Ok(Pair { target, tensors, rank })
}
