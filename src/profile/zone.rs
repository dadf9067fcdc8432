//! The zones: every part of the library's work that the profile can name.
//! A new one is one line of the list below; its number is its place there.

macro_rules! zones {
    ($($zone:ident = $name:literal: $meaning:literal,)*) => {
        /// A part of the library's work, known to the profile by a fixed number and name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Zone {
            $(#[doc = $meaning] $zone,)*
        }

        impl Zone {
            /// Every zone, in the order of their numbers.
            pub const ALL: &[Zone] = &[$(Zone::$zone,)*];

            /// The name in reports: lower case, a dot between a family and its member.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Zone::$zone => $name,)*
                }
            }
        }
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
    Rope = "rope": "Rotary position embedding.",
    KvStore = "kv.store": "Writing keys and values into the cache.",
    Attention = "attention": "Scores, softmax and weighted sum over the cache.",
    SwiGlu = "swiglu": "SiLU of the gate times up.",
    Gelu = "gelu": "GELU.",
    Silu = "silu": "SiLU.",
    Softmax = "softmax": "Softmax of rows.",
    MatMul = "matmul": "A matrix product called by itself.",
    Add = "add": "Elementwise addition, such as a residual.",
    Mul = "mul": "Elementwise product.",
    Elementwise = "elementwise": "An elementwise function with no name of its own.",
    Reduce = "reduce": "A sum, dot product or largest element called by itself.",
    Transpose = "transpose": "Transposing a matrix.",
    Convert = "convert": "Converting from or to 16-bit floats.",
    Barrier = "barrier": "Waiting for the other workers of a team.",
    Sample = "sample": "Choosing a token from logits.",
    Callback = "callback": "Code of the host, called from a long run.",
    Other = "other": "What a host or test measures for itself.",
}

impl Zone {
    /// How many zones there are.
    pub const COUNT: usize = Zone::ALL.len();

    /// The zone with this number.
    pub(super) fn from_index(index: u16) -> Option<Zone> {
        Zone::ALL.get(index as usize).copied()
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
            assert_eq!(zone as usize, index);
            assert_eq!(Zone::from_index(index as u16), Some(zone));
            assert!(names.insert(zone.name()), "{} twice", zone.name());
            assert!(zone.name().len() <= 24 && !zone.name().is_empty());
        }
        assert_eq!(Zone::from_index(Zone::COUNT as u16), None);
    }
}
