//! Hyperparameters of a model, read from GGUF metadata and checked before anything is sized by them.
//! Key names follow the GGUF specification (`{architecture}.attention.head_count` and so on).

use super::rope::RopeConfig;
use crate::error::{Error, Result};
use crate::format::gguf::Metadata;

/// Largest value of any dimension taken from a file: keeps every product of two of them within `usize`
/// and far above any real model.
pub(super) const MAX_DIM: usize = 1 << 24;
/// Most layers taken from a file.
const MAX_LAYERS: usize = 4096;
/// Longest context taken from a file or a caller.
pub(crate) const MAX_CONTEXT: usize = 1 << 24;

/// Hyperparameters that every decoder family here has.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`, or empty.
    pub name: String,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key/value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Width inside the MLP.
    pub n_ff: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Positions it was trained on.
    pub n_ctx_train: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rope: RopeConfig,
}

/// Typed look-ups under one architecture's prefix.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub fn optional(&self, name: &str, max: usize) -> Result<Option<usize>> {
        let key = self.key(name);
        let Some(value) = self.metadata.get_u32(&key)? else { return Ok(None) };
        let value = value as usize;
        if value == 0 || value > max {
            return Err(Error::format(format!("{key} is {value}; expected 1..={max}")));
        }
        Ok(Some(value))
    }

    fn required(&self, name: &str, max: usize) -> Result<usize> {
        self.optional(name, max)?
            .ok_or_else(|| Error::format(format!("metadata key {} is missing", self.key(name))))
    }

    /// The text under a whole key.
    pub fn text(&self, key: &str) -> Result<Option<&'_ str>> {
        self.metadata.get_str(key)
    }

    /// A finite float above zero, or the default where the key is absent.
    pub fn positive(&self, name: &str, default: f32) -> Result<f32> {
        let key = self.key(name);
        let value = self.metadata.get_f32(&key)?.unwrap_or(default);
        if !(value.is_finite() && value > 0.0) {
            return Err(Error::format(format!("{key} is {value}; expected a finite number above 0")));
        }
        Ok(value)
    }
}

impl Config {
    /// Reads and checks the hyperparameters of a Llama-shaped file.
    ///
    /// `n_vocab` comes from the embedding tensor, which the caller has looked up: the metadata key is
    /// optional in real files.
    pub fn llama(metadata: &Metadata, n_vocab: usize) -> Result<Config> {
        let architecture = metadata
            .get_str("general.architecture")?
            .ok_or_else(|| Error::format("metadata key general.architecture is missing"))?;
        let keys = Keys { metadata, architecture };
        let n_embd = keys.required("embedding_length", MAX_DIM)?;
        let n_head = keys.required("attention.head_count", MAX_DIM)?;
        let n_head_kv = keys.optional("attention.head_count_kv", MAX_DIM)?.unwrap_or(n_head);
        if n_head % n_head_kv != 0 {
            return Err(Error::format(format!(
                "{n_head} query heads can't be grouped over {n_head_kv} key/value heads"
            )));
        }
        let head_dim = match keys.optional("attention.key_length", MAX_DIM)? {
            Some(dim) => dim,
            None if n_embd % n_head == 0 => n_embd / n_head,
            None => {
                return Err(Error::format(format!("width {n_embd} is no multiple of {n_head} heads")));
            }
        };
        if keys.optional("attention.value_length", MAX_DIM)?.is_some_and(|v| v != head_dim) {
            return Err(Error::Unsupported("heads whose values are not as long as their keys".into()));
        }
        if head_dim > 1024 {
            return Err(Error::Unsupported(format!("heads of {head_dim} dimensions (at most 1024)")));
        }
        let n_ctx_train = keys.required("context_length", MAX_CONTEXT)?;
        let config = Config {
            name: metadata.get_str("general.name")?.unwrap_or("").to_owned(),
            n_layer: keys.required("block_count", MAX_LAYERS)?,
            n_embd,
            n_head,
            n_head_kv,
            head_dim,
            n_ff: keys.required("feed_forward_length", MAX_DIM)?,
            n_vocab,
            n_ctx_train,
            norm_eps: keys.positive("attention.layer_norm_rms_epsilon", 1e-5)?,
            rope: RopeConfig::read(&keys, head_dim, n_ctx_train)?,
            architecture: architecture.to_owned(),
        };
        Ok(config)
    }

    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.n_head_kv * self.head_dim
    }
}
