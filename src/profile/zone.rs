//! The zones: every part of the library's work that the profile can name, and those that a host names itself.
//! A new one of the library's is one line of the list below; its number is its place there.

use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// A part of someone's work, known to the profile by a number and a name: the library's own are constants, others
/// come from [`zone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(u16);

/// Numbers that there are: a table has room for a child of each below every node.
pub(super) const LIMIT: usize = 256;

/// Where the numbers of named zones begin.
const NAMED: usize = 64;

/// Where the numbers begin that stand for owners of scopes ([`super::Owner`]), not for zones.
const OWNERS: usize = 224;

/// Named zones that there can be.
pub const MAX_NAMED: usize = OWNERS - NAMED;

/// Owners that there can be at once.
pub(super) const MAX_OWNERS: usize = LIMIT - OWNERS;

/// Bytes of the longest name.
pub const MAX_NAME_BYTES: usize = 120;

macro_rules! zones {
    ($($zone:ident = $name:literal: $meaning:literal,)*) => {
        /// Gives the library's zones their numbers.
        enum Number { $($zone,)* }

        #[allow(non_upper_case_globals)]
        impl Zone {
            $(#[doc = $meaning] pub const $zone: Zone = Zone(Number::$zone as u16);)*

            /// The library's own zones, in the order of their numbers.
            pub const ALL: &[Zone] = &[$(Zone::$zone,)*];
        }

        const NAMES: &[&str] = &[$($name,)*];
    };
}

zones! {
    Load = "load": "Loading a model, from opening its file to the last repacked weight.",
    LoadOpen = "load.open": "Opening a model file and reading its header.",
    LoadRead = "load.read": "Reading tensor data.",
    LoadRepack = "load.repack": "Repacking weights into panels.",
    LoadTokenizer = "load.tokenizer": "Building the tokenizer.",
    ContextCreate = "context.create": "Planning and reserving a context.",
    Tokenize = "tokenize": "Text to tokens.",
    Detokenize = "detokenize": "Tokens to text.",
    ChatTemplate = "chat_template": "Rendering a conversation into a prompt.",
    Generate = "generate": "A whole generation: prefill, then decode and sample in turns.",
    Prefill = "prefill": "A forward pass over several positions.",
    Decode = "decode": "A forward pass over one position.",
    Embed = "embed": "Looking up token embeddings.",
    RmsNorm = "rms_norm": "Root-mean-square normalisation of rows.",
    LayerNorm = "layer_norm": "Layer normalisation of rows.",
    Quantize = "quantize": "Quantising activations.",
    Linear = "linear": "A linear layer with no name of its own.",
    LinearQkv = "linear.qkv": "Projections to queries, keys and values.",
    LinearAttnOut = "linear.attn_out": "Projection of the attention's output.",
    LinearGateUp = "linear.gate_up": "The MLP's gate and up projections.",
    LinearUp = "linear.up": "The up projection of an MLP without a gate.",
    LinearDown = "linear.down": "The MLP's down projection.",
    LinearHead = "linear.head": "Projection to the vocabulary.",
    LinearRouter = "linear.router": "Scores of experts.",
    Route = "route": "Choosing experts by their scores.",
    ExpertsGateUp = "experts.gate_up": "The gate and up projections of experts.",
    ExpertsDown = "experts.down": "The down projection of experts, and the sum over them.",
    Rope = "rope": "Rotary position embedding.",
    KvStore = "kv.store": "Writing keys and values into the cache.",
    Attention = "attention": "Scores, softmax and weighted sum over the cache.",
    Conv = "conv": "A short convolution over the tokens of a sequence.",
    Scan = "scan": "A selective scan over the tokens of a sequence.",
    DeltaRule = "delta": "The gated delta rule over the tokens of a sequence.",
    Gate = "gate": "A gate of rows, with the norm next to it.",
    SwiGlu = "swiglu": "SiLU of the gate times up.",
    Gelu = "gelu": "GELU.",
    Silu = "silu": "SiLU.",
    TrainStep = "train.step": "A training step: forward, backward, update.",
    TrainEvaluate = "train.evaluate": "A forward pass with losses alone.",
    TrainClear = "train.clear": "Clearing gradients.",
    TrainNorm = "train.norm": "The length of the gradient.",
    TrainUpdate = "train.update": "The optimizer's update of the weights.",
    Loss = "loss": "Cross-entropy, and its gradient by the logits.",
    LinearInputGradient = "linear.input_gradient": "The gradient of a linear layer's input.",
    LinearWeightGradient = "linear.weight_gradient": "The gradients of a linear layer's matrix and bias.",
    AttentionGradient = "attention.gradient": "The gradients of queries, keys and values.",
    NormGradient = "norm.gradient": "The gradients of a norm's input, gain and bias.",
    EmbedGradient = "embed.gradient": "The gradient of a table of embeddings or positions.",
    ElementwiseGradient = "elementwise.gradient": "The gradient of an activation or a gate.",
    Softmax = "softmax": "Softmax of rows.",
    MatMul = "matmul": "A matrix product called by itself.",
    Add = "add": "Elementwise addition, such as a residual.",
    Mul = "mul": "Elementwise product.",
    Elementwise = "elementwise": "An elementwise function with no name of its own.",
    Reduce = "reduce": "A sum, dot product or largest element called by itself.",
    Transpose = "transpose": "Transposing a matrix.",
    Convert = "convert": "Converting from or to 16-bit floats.",
    Barrier = "barrier": "Waiting for the other workers of a team.",
    Draft = "draft": "Guessing the next tokens.",
    Sample = "sample": "Choosing a token from logits.",
    Callback = "callback": "Code of the host, called from a long run.",
    Other = "other": "What a host or test measures for itself.",
}

const _: () = assert!(NAMES.len() <= NAMED);

/// The hosts' names by number; leaked, since they live as long as the process may record.
static NAMED_ZONES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// The zone of this name: the library's own, one that was named before, or a new one. Takes a lock and may
/// allocate, so do it once, not for each scope.
///
/// # Errors
/// [`Error::InvalidArgument`] for a name that is empty, longer than [`MAX_NAME_BYTES`] or has control characters;
/// [`Error::Unsupported`] where [`MAX_NAMED`] other names are known.
pub fn zone(name: &str) -> Result<Zone> {
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Ok(Zone(index as u16));
    }
    let mut named = NAMED_ZONES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(index) = named.iter().position(|known| *known == name) {
        return Ok(Zone((NAMED + index) as u16));
    }
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "a zone's name has 1 to {MAX_NAME_BYTES} bytes without control characters, not {} bytes",
            name.len()
        )));
    }
    if named.len() == MAX_NAMED {
        return Err(Error::Unsupported(format!("{MAX_NAMED} zones are named already: no room for another")));
    }
    named.push(Box::leak(name.into()));
    Ok(Zone((NAMED + named.len() - 1) as u16))
}

impl Zone {
    /// The name in reports; the library's own are lower case, a dot between a family and its member.
    pub fn name(self) -> &'static str {
        if let Some(name) = NAMES.get(self.index()) {
            return name;
        }
        let named = NAMED_ZONES.lock().unwrap_or_else(PoisonError::into_inner);
        self.index().checked_sub(NAMED).and_then(|index| named.get(index).copied()).unwrap_or("?")
    }

    /// The zone's number.
    #[inline(always)]
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// The zone that stands for the owner of a number.
    pub(super) fn of_owner(owner: usize) -> Zone {
        debug_assert!(owner < MAX_OWNERS);
        Zone((OWNERS + owner) as u16)
    }

    /// The owner that this stands for.
    pub(super) fn owner(self) -> Option<usize> {
        self.index().checked_sub(OWNERS)
    }

    /// The zone with this number.
    pub(super) fn from_index(index: u16) -> Option<Zone> {
        ((index as usize) < LIMIT).then_some(Zone(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_are_places_and_names_are_unique() {
        let mut names = HashSet::new();
        for (index, &zone) in Zone::ALL.iter().enumerate() {
            assert_eq!(zone.index(), index);
            assert_eq!(Zone::from_index(index as u16), Some(zone));
            assert!(names.insert(zone.name()), "{} twice", zone.name());
            assert!(zone.name().len() <= 24 && !zone.name().is_empty());
            assert_eq!(super::zone(zone.name()).unwrap(), zone);
            assert_eq!(zone.owner(), None);
        }
        assert_eq!(Zone::from_index(LIMIT as u16), None);
        assert_eq!(Zone::of_owner(MAX_OWNERS - 1).owner(), Some(MAX_OWNERS - 1));
    }

    #[test]
    fn a_name_has_one_zone_and_bad_names_have_none() {
        let first = zone("a test's own").unwrap();
        assert_eq!(zone("a test's own").unwrap(), first);
        assert_eq!(first.name(), "a test's own");
        assert_ne!(zone("another test's own").unwrap(), first);
        for bad in ["", "two\nlines", &"x".repeat(MAX_NAME_BYTES + 1)] {
            assert!(matches!(zone(bad), Err(Error::InvalidArgument(_))), "{bad:?}");
        }
        assert_eq!(zone(&"x".repeat(MAX_NAME_BYTES)).unwrap().name().len(), MAX_NAME_BYTES);
    }
}
