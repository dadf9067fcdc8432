//! Hyperparameters of a model, read from GGUF metadata and checked before any size is computed from them.
//! Key names follow the GGUF specification (`{architecture}.attention.head_count` and so on). Each layer has a
//! [`LayerConfig`] of its own, since layers may differ.

use super::experts::ExpertsConfig;
use super::graph::Activation;
use super::keys::Keys;
use super::pooling::{ClassifierConfig, Pooling};
use super::recurrence::Recurrence;
use super::rope::RopeConfig;
use crate::error::{Error, Result};
use crate::kernels::rope::Pairing;
use crate::memory::reserve::{collected, copied, copied_text};

/// Largest dimension taken from a file. It is far above any real model's, and the product of two such dimensions still
/// fits `usize`.
pub(super) const MAX_DIM: usize = 1 << 24;
/// Most layers taken from a file.
pub(super) const MAX_LAYERS: usize = 4096;
/// The purpose of copies of a file's texts, in errors.
const NAMES: &str = "the model's name";
/// The purpose of lists with an entry for each layer, in errors.
const LAYERS: &str = "the configuration of layers";
/// Most dimensions of a head.
pub(super) const MAX_HEAD_DIM: usize = 1024;
/// Longest context taken from a file or a caller.
pub(super) const MAX_CONTEXT: usize = 1 << 24;

/// Hyperparameters of a model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`, or empty.
    pub name: String,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Positions that the model was trained on.
    pub n_ctx_train: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Transformer blocks; at least one.
    pub layers: Vec<LayerConfig>,
    /// Blocks of the file behind these that predict further tokens; they are not computed.
    pub n_predicting: usize,
    /// Factors, caps and limits of the whole model.
    pub scales: Scales,
    /// The activation in MLPs, where the file states it.
    pub activation: Option<Activation>,
    /// The pooling that the file states; `None` where it has none.
    pub pooling: Option<Pooling>,
    /// Parameters of the file's classifier, if it has one.
    pub classifier: ClassifierConfig,
    /// Last blocks that read the keys and values of earlier ones.
    pub n_shared_kv: usize,
    /// Width of what every layer mixes in of a second embedding; 0 for a model without one.
    pub n_embd_per_layer: usize,
    /// Rotary tables, by number. Empty for a model with learned positions, whose context is at most `n_ctx_train`.
    pub ropes: Vec<RopeConfig>,
    /// What the file states and this version ignores, a sentence each.
    pub warnings: Vec<String>,
}

/// Factors, caps and limits that some families apply; the default changes nothing.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Scales {
    /// Multiplies embeddings.
    pub embedding: f32,
    /// Multiplies the results of attention and MLP before they are added to the residual stream.
    pub residual: f32,
    /// Multiplies logits.
    pub logits: f32,
    /// `cap · tanh(x / cap)` of logits.
    pub logit_cap: Option<f32>,
    /// `cap · tanh(x / cap)` of the scores of attention.
    pub score_cap: Option<f32>,
    /// The largest slope of attention's bias by distance (ALiBi).
    pub alibi: Option<f32>,
    /// Queries, keys and values are clamped to plus and minus this.
    pub qkv_limit: Option<f32>,
    /// A factor on queries that grows with their position.
    pub temperature: Option<Temperature>,
    /// Attention and MLP read the same residual stream, and their results are added to it together.
    pub parallel: bool,
}

/// A factor on the queries at a position: `1 + scale · ln(1 + ⌊(position + offset) / positions⌋)`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Temperature {
    /// See above.
    pub scale: f32,
    /// Positions after which the factor first rises; at least one.
    pub positions: usize,
    /// See above.
    pub offset: f32,
}

impl Temperature {
    /// The factor at a position.
    pub fn at(&self, position: usize) -> f32 {
        let steps = ((position as f32 + self.offset) / self.positions as f32).floor();
        (steps + 1.0).ln() * self.scale + 1.0
    }
}

impl Default for Scales {
    fn default() -> Self {
        Scales {
            embedding: 1.0,
            residual: 1.0,
            logits: 1.0,
            logit_cap: None,
            score_cap: None,
            alibi: None,
            qkv_limit: None,
            temperature: None,
            parallel: false,
        }
    }
}

/// One transformer block.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerConfig {
    /// Query heads; 0 for a layer without attention.
    pub n_head: usize,
    /// Key/value heads; divides `n_head`, or is 0 like it.
    pub n_head_kv: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Width inside the MLP.
    pub n_ff: usize,
    /// The positions that a token sees.
    pub mask: Mask,
    /// Number of its rotary table; `None` for a layer without rotary embedding.
    pub rope: Option<usize>,
    /// Multiplies the scores of attention.
    pub score_scale: f32,
    /// The experts of its MLP; `None` for a layer without a mixture.
    pub experts: Option<ExpertsConfig>,
    /// Its recurrence over tokens, in place of attention or beside it.
    pub recurrence: Option<Recurrence>,
}

/// The positions of its own sequence that a token sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mask {
    /// All positions up to the token's own.
    #[default]
    Causal,
    /// All positions.
    Full,
    /// A window of this many positions that ends with the token's own.
    Window(usize),
    /// A window of this width around the token: positions at a distance of at most half the width, on both sides.
    SymmetricWindow(usize),
}

impl Mask {
    /// Whether a token sees no position after its own, so that a sequence can be decoded in pieces.
    pub fn is_causal(self) -> bool {
        matches!(self, Mask::Causal | Mask::Window(_))
    }

    /// Whether a token sees a window.
    pub fn is_window(self) -> bool {
        matches!(self, Mask::Window(_) | Mask::SymmetricWindow(_))
    }

    /// Length of the window that ends with a token's own position; `None` where a token sees every position before it.
    pub fn reach(self) -> Option<usize> {
        match self {
            Mask::Window(n) => Some(n),
            _ => None,
        }
    }

    /// The positions that the token at `position` sees in a sequence of `end` positions.
    pub fn sight(self, position: usize, end: usize) -> std::ops::Range<usize> {
        match self {
            Mask::Causal => 0..position + 1,
            Mask::Full => 0..end,
            Mask::Window(n) => (position + 1).saturating_sub(n)..position + 1,
            Mask::SymmetricWindow(n) => position.saturating_sub(n / 2)..end.min(position + n / 2 + 1),
        }
    }
}

impl LayerConfig {
    /// Width of all query heads together.
    pub fn q_width(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.n_head_kv * self.head_dim
    }
}

/// The key of the epsilon of RMSNorm.
pub(super) const RMS_EPS: &str = "attention.layer_norm_rms_epsilon";
/// The key of the epsilon of LayerNorm.
pub(super) const LAYER_EPS: &str = "attention.layer_norm_epsilon";

impl Config {
    /// Reads and checks the keys that all families have, and leaves out rotary tables. `eps` is the key of the norms'
    /// epsilon.
    ///
    /// `n_vocab` comes from the embedding tensor: real files may lack the metadata key.
    pub(super) fn read(keys: &Keys<'_>, n_vocab: usize, eps: &str) -> Result<Config> {
        Self::read_layers(keys, n_vocab, eps, false)
    }

    /// [`Config::read`] for a decoder with RMSNorm whose layers may lack attention, or an MLP.
    pub(super) fn read_hybrid(keys: &Keys<'_>, n_vocab: usize) -> Result<Config> {
        Self::read_layers(keys, n_vocab, RMS_EPS, true)
    }

    fn read_layers(keys: &Keys<'_>, n_vocab: usize, eps: &str, hybrid: bool) -> Result<Config> {
        let n_embd = keys.required("embedding_length", MAX_DIM)?;
        let n_embd_out = keys.count_below("embedding_length_out", MAX_DIM)?;
        if n_embd_out != 0 && n_embd_out != n_embd {
            return Err(Error::Unsupported(format!(
                "embeddings of {n_embd_out}, where the model has {n_embd}"
            )));
        }
        // The tensors say the same.
        keys.void(&["dense_2_feat_in", "dense_2_feat_out", "dense_3_feat_in", "dense_3_feat_out"]);
        let n_block = keys.required("block_count", MAX_LAYERS)?;
        let n_predicting = keys.count_below("nextn_predict_layers", n_block)?;
        let n_layer = n_block - n_predicting;
        let per_layer = |name| {
            let numbers = match hybrid {
                true => keys.per_layer_or_zero(name, MAX_DIM, n_block)?,
                false => keys.per_layer(name, MAX_DIM, n_block)?,
            };
            Ok::<_, Error>(numbers.map(|mut numbers| {
                numbers.truncate(n_layer);
                numbers
            }))
        };
        let missing = |name| move || keys.missing(name);
        let n_head = per_layer("attention.head_count")?.ok_or_else(missing("attention.head_count"))?;
        let n_head_kv = match per_layer("attention.head_count_kv")? {
            Some(numbers) => numbers,
            None => copied(&n_head, LAYERS)?,
        };
        let n_ff = per_layer("feed_forward_length")?.ok_or_else(missing("feed_forward_length"))?;
        let key_length = keys.optional("attention.key_length", MAX_DIM)?;
        let value_length = keys.optional("attention.value_length", MAX_DIM)?;
        let layers = n_head.iter().zip(n_head_kv).zip(n_ff).map(|((&n_head, n_head_kv), n_ff)| {
            let (mask, rope, experts, recurrence) = (Mask::Causal, None, None, None);
            let (n_head, n_head_kv, head_dim) = match (n_head, n_head_kv) {
                (0, _) | (_, 0) => (0, 0, 0),
                heads => (heads.0, heads.1, head_dim(n_embd, heads, key_length, value_length)?),
            };
            let score_scale = 1.0 / (head_dim.max(1) as f32).sqrt();
            Ok(LayerConfig {
                n_head,
                n_head_kv,
                head_dim,
                n_ff,
                mask,
                rope,
                score_scale,
                experts,
                recurrence,
            })
        });
        Ok(Config {
            architecture: copied_text(keys.architecture(), NAMES)?,
            name: copied_text(keys.model_name(), NAMES)?,
            n_embd,
            n_vocab,
            n_ctx_train: keys.required("context_length", MAX_CONTEXT)?,
            norm_eps: keys.not_negative(eps, 1e-5)?,
            layers: collected(layers, LAYERS)?,
            n_predicting,
            scales: Scales::default(),
            activation: None,
            pooling: Pooling::read(keys)?,
            classifier: ClassifierConfig::read(keys)?,
            n_shared_kv: 0,
            n_embd_per_layer: 0,
            ropes: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// [`Config::read`] for a decoder with RMSNorm, and with one rotary table for all layers.
    pub(super) fn read_rotary(keys: &Keys<'_>, n_vocab: usize, pairing: Pairing) -> Result<Config> {
        Self::read(keys, n_vocab, RMS_EPS)?.with_rope(keys, pairing)
    }

    /// This configuration for a model whose tokens see each other, also those before them.
    pub(super) fn seeing_all(mut self, keys: &Keys<'_>) -> Result<Config> {
        keys.flag("attention.causal", false)?;
        self.layers.iter_mut().for_each(|layer| layer.mask = Mask::Full);
        Ok(self)
    }

    /// This configuration with one rotary table for all layers.
    pub(super) fn with_rope(mut self, keys: &Keys<'_>, pairing: Pairing) -> Result<Config> {
        let heads = self.layers.iter().filter(|layer| layer.attends());
        let Some(head_dim) = heads.map(|layer| layer.head_dim).min() else { return Ok(self) };
        self.ropes = vec![RopeConfig::read(keys, head_dim, self.n_ctx_train, pairing)?];
        self.layers.iter_mut().for_each(|layer| layer.rope = Some(0));
        Ok(self)
    }

    /// This configuration with windows in some layers, where the file states a window, or the family has one by default.
    /// The file's pattern says which layers: a list, or a period in which the last layer has no window; `period` is the
    /// family's.
    pub(super) fn with_windows(mut self, keys: &Keys<'_>, default: usize, period: usize) -> Result<Config> {
        let window = match keys.window()? {
            0 => default,
            window => window,
        };
        if window == 0 {
            keys.void(&["attention.sliding_window_pattern"]);
            return Ok(self);
        }
        let n_block = self.n_layer() + self.n_predicting;
        let windowed = keys.pattern("attention.sliding_window_pattern", period, n_block)?;
        for (layer, windowed) in self.layers.iter_mut().zip(windowed) {
            if windowed {
                layer.mask = Mask::Window(window);
            }
        }
        Ok(self)
    }

    /// This configuration with a rotary table of its own for layers with a window: without scaling of positions unless
    /// `scaled`, and with the file's base for windows, else `base`, else that of the other layers.
    pub(super) fn with_window_rope(
        mut self,
        keys: &Keys<'_>,
        base: Option<f32>,
        scaled: bool,
    ) -> Result<Config> {
        let Some(rope) = self.ropes.first() else { return Ok(self) };
        let base = keys.positive("rope.freq_base_swa", base.unwrap_or(rope.base))?;
        let mut rope = RopeConfig { base, ..rope.clone() };
        if !scaled {
            rope = rope.unscaled();
        }
        if self.ropes[0] == rope {
            return Ok(self);
        }
        self.ropes.push(rope);
        for layer in self.layers.iter_mut().filter(|layer| layer.mask.is_window()) {
            layer.rope = layer.rope.map(|_| 1);
        }
        Ok(self)
    }

    /// Gives the model two rotary tables: one for layers with a window, whose heads may have another length, with the
    /// file's base for windows, else `base`, and one for the others.
    pub(super) fn with_window_table(&mut self, keys: &Keys<'_>, pairing: Pairing, base: f32) -> Result<()> {
        let shortest = |config: &Config, windowed: bool| {
            let layers = config.layers.iter().filter(|layer| layer.mask.is_window() == windowed);
            layers.map(|layer| layer.head_dim).min()
        };
        let whole = shortest(self, false).unwrap_or(self.first().head_dim);
        let rope = RopeConfig::read(keys, whole, self.n_ctx_train, pairing)?;
        let windowed = shortest(self, true).unwrap_or(whole);
        let dim = keys.optional("rope.dimension_count_swa", windowed)?.unwrap_or(rope.dim);
        if dim > windowed || dim % 2 != 0 {
            return Err(Error::format(format!("{dim} rotated dimensions in heads of {windowed}")));
        }
        let base = keys.positive("rope.freq_base_swa", base)?;
        self.ropes = vec![rope.clone(), RopeConfig { dim, base, divided: false, ..rope.unscaled() }];
        self.layers.iter_mut().for_each(|layer| layer.rope = Some(usize::from(layer.mask.is_window())));
        Ok(())
    }

    /// Transformer blocks.
    pub fn n_layer(&self) -> usize {
        self.layers.len()
    }

    /// The first block with attention, or the first one: its numbers describe the model where only one set of numbers is
    /// shown.
    pub fn first(&self) -> &LayerConfig {
        self.layers.iter().find(|layer| layer.attends()).unwrap_or(&self.layers[0])
    }

    /// Most positions of a context: the rows of the table of learned positions, or a fixed limit where a model has
    /// rotary embeddings or recurrent layers.
    pub fn n_ctx_most(&self) -> usize {
        if self.ropes.is_empty() && !self.is_recurrent() { self.n_ctx_train } else { MAX_CONTEXT }
    }
}

/// Dimensions of a head, from the file's width, numbers of query and key/value heads, and lengths of keys and values.
fn head_dim(
    n_embd: usize,
    (n_head, n_head_kv): (usize, usize),
    key_length: Option<usize>,
    value_length: Option<usize>,
) -> Result<usize> {
    if !n_head.is_multiple_of(n_head_kv) {
        return Err(Error::format(format!(
            "{n_head} query heads can't be grouped over {n_head_kv} key/value heads"
        )));
    }
    let head_dim = match key_length {
        Some(dim) => dim,
        None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
        None => return Err(Error::format(format!("width {n_embd} is no multiple of {n_head} heads"))),
    };
    if value_length.is_some_and(|v| v != head_dim) {
        return Err(Error::Unsupported("heads whose values are not as long as their keys".into()));
    }
    if head_dim > MAX_HEAD_DIM {
        return Err(Error::Unsupported(format!("heads of {head_dim} dimensions (at most {MAX_HEAD_DIM})")));
    }
    Ok(head_dim)
}
