//! Hyperparameters of a model, read from GGUF metadata and checked before anything is sized by them.
//! Key names follow the GGUF specification (`{architecture}.attention.head_count` and so on).

use super::rope::RopeConfig;
use crate::error::{Error, Result};
use crate::format::gguf::Metadata;

/// Largest value of any dimension taken from a file: keeps every product of two of them within `usize`
/// and far above any real model.
pub(super) const MAX_DIM: usize = 1 << 24;
/// Most layers taken from a file.
pub(super) const MAX_LAYERS: usize = 4096;
/// Most dimensions of a head.
pub(super) const MAX_HEAD_DIM: usize = 1024;
/// Longest context taken from a file or a caller.
pub(super) const MAX_CONTEXT: usize = 1 << 24;

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
    /// Rotary embedding; absent where positions are learned, which is as far as the model goes then.
    pub rope: Option<RopeConfig>,
}

/// Typed look-ups under one architecture's prefix.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    fn new(metadata: &'a Metadata) -> Result<Self> {
        let architecture = metadata
            .get_str("general.architecture")?
            .ok_or_else(|| Error::format("metadata key general.architecture is missing"))?;
        Ok(Keys { metadata, architecture })
    }

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
        let keys = Keys::new(metadata)?;
        let mut config = Self::read(&keys, n_vocab, "attention.layer_norm_rms_epsilon")?;
        config.rope = Some(RopeConfig::read(&keys, config.head_dim, config.n_ctx_train)?);
        Ok(config)
    }

    /// The same of a GPT-2-shaped file.
    pub fn gpt(metadata: &Metadata, n_vocab: usize) -> Result<Config> {
        Self::read(&Keys::new(metadata)?, n_vocab, "attention.layer_norm_epsilon")
    }

    /// What all families have; positions are learned.
    fn read(keys: &Keys<'_>, n_vocab: usize, eps: &str) -> Result<Config> {
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
        if head_dim > MAX_HEAD_DIM {
            return Err(Error::Unsupported(format!(
                "heads of {head_dim} dimensions (at most {MAX_HEAD_DIM})"
            )));
        }
        Ok(Config {
            architecture: keys.architecture.to_owned(),
            name: keys.text("general.name")?.unwrap_or("").to_owned(),
            n_layer: keys.required("block_count", MAX_LAYERS)?,
            n_embd,
            n_head,
            n_head_kv,
            head_dim,
            n_ff: keys.required("feed_forward_length", MAX_DIM)?,
            n_vocab,
            n_ctx_train: keys.required("context_length", MAX_CONTEXT)?,
            norm_eps: keys.positive(eps, 1e-5)?,
            rope: None,
        })
    }

    /// Most positions that a context can have: a learned table has no more rows.
    pub fn n_ctx_most(&self) -> usize {
        if self.rope.is_some() { MAX_CONTEXT } else { self.n_ctx_train }
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
