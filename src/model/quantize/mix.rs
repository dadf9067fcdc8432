//! Which type each tensor of a quantised file gets. A mix is a type for most matrices, and rules that give those more
//! bits where errors cost more: the head, values, the MLP's way down, the first and last layers. The mixes are those of
//! llama.cpp, by name, number and rules, so that a name means the same size and quality in both.

use crate::error::{Error, Result};
use crate::quant::DType;

/// A named choice of types for the tensors of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix(&'static Entry);

/// The name, number and main type of a mix.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: &'static str,
    /// `general.file_type` in files.
    file_type: u32,
    dtype: DType,
}

const fn entry(name: &'static str, file_type: u32, dtype: DType) -> Entry {
    Entry { name, file_type, dtype }
}

static MIXES: [Entry; 22] = [
    entry("F32", 0, DType::F32),
    entry("F16", 1, DType::F16),
    entry("BF16", 32, DType::BF16),
    entry("Q8_0", 7, DType::Q8_0),
    entry("Q6_K", 18, DType::Q6_K),
    entry("Q5_K_M", 17, DType::Q5_K),
    entry("Q5_K_S", 16, DType::Q5_K),
    entry("Q5_1", 9, DType::Q5_1),
    entry("Q5_0", 8, DType::Q5_0),
    entry("Q4_K_M", 15, DType::Q4_K),
    entry("Q4_K_S", 14, DType::Q4_K),
    entry("Q4_1", 3, DType::Q4_1),
    entry("Q4_0", 2, DType::Q4_0),
    entry("IQ4_NL", 25, DType::IQ4_NL),
    entry("IQ4_XS", 30, DType::IQ4_XS),
    entry("Q3_K_L", 13, DType::Q3_K),
    entry("Q3_K_M", 12, DType::Q3_K),
    entry("Q3_K_S", 11, DType::Q3_K),
    entry("Q2_K", 10, DType::Q2_K),
    entry("Q2_K_S", 21, DType::Q2_K),
    entry("TQ1_0", 36, DType::TQ1_0),
    entry("TQ2_0", 37, DType::TQ2_0),
];

impl Mix {
    /// All mixes, from many bits to few.
    pub fn all() -> impl ExactSizeIterator<Item = Mix> {
        MIXES.iter().map(Mix)
    }

    /// The mix with this name, in upper or lower case. `Q3_K`, `Q4_K` and `Q5_K` are the M ones.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], with all names.
    pub fn named(name: &str) -> Result<Mix> {
        let full = match ["Q3_K", "Q4_K", "Q5_K"].iter().find(|short| short.eq_ignore_ascii_case(name)) {
            Some(short) => &format!("{short}_M"),
            None => name,
        };
        Mix::all().find(|mix| mix.name().eq_ignore_ascii_case(full)).ok_or_else(|| {
            let names: Vec<_> = Mix::all().map(Mix::name).collect();
            Error::invalid(format!("it must be one of {}", names.join(", ")))
        })
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// Its number in files (`general.file_type`).
    pub const fn file_type(self) -> u32 {
        self.0.file_type
    }

    /// The type of most matrices.
    pub const fn dtype(self) -> DType {
        self.0.dtype
    }
}

/// A tensor's part in a model, as far as mixes tell parts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The output matrix, or the embedding where that is both.
    Head,
    Embedding,
    /// Values, or what they are computed from: fused q, k and v, and the latent of keys and values.
    Value,
    Key,
    AttentionOutput,
    Down,
    Other,
}

impl Part {
    fn of(tensor: &str, tied: bool) -> Part {
        let has = |part: &str| tensor.contains(part);
        match tensor {
            "output.weight" => Part::Head,
            "token_embd.weight" | "per_layer_token_embd.weight" if tied => Part::Head,
            "token_embd.weight" | "per_layer_token_embd.weight" => Part::Embedding,
            _ if has("attn_qkv.weight") || has("attn_kv_b.weight") || has("attn_v.weight") => Part::Value,
            _ if has("attn_k.weight") => Part::Key,
            _ if has("attn_output.weight") => Part::AttentionOutput,
            _ if has("ffn_down") => Part::Down,
            _ => Part::Other,
        }
    }
}

/// A layer's place among those that have the same part.
#[derive(Clone, Copy, Debug)]
struct Layer {
    index: usize,
    count: usize,
}

impl Layer {
    /// Whether it is one of the first 1/n of them.
    fn in_first(self, n: usize) -> bool {
        self.index < self.count / n
    }

    /// Whether it is in the first or the last eighth, or every third one between them.
    fn is_sensitive(self) -> bool {
        let eighth = self.count / 8;
        self.index < eighth || self.index >= 7 * self.count / 8 || (self.index - eighth) % 3 == 2
    }
}

/// What mixes look at in a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Traits {
    pub architecture: String,
    /// Layers.
    pub layers: usize,
    /// Query heads for each head of keys and values.
    pub group: usize,
    pub experts: usize,
    /// Whether the embedding is the output matrix too.
    pub tied: bool,
    /// Whether there is an importance matrix.
    pub weighted: bool,
}

/// Chooses the types of a model's tensors, which are asked for in the order of layers and names: layers of a part are
/// counted as they come.
pub(super) struct Chooser<'a> {
    mix: Mix,
    traits: &'a Traits,
    /// Tensors of [`Part::Value`] in the model.
    values: usize,
    /// Tensors of these parts that were asked for.
    seen_values: usize,
    seen_down: usize,
}

impl<'a> Chooser<'a> {
    /// Begins with a model whose tensors have these names.
    pub fn new<'n>(mix: Mix, traits: &'a Traits, names: impl Iterator<Item = &'n str>) -> Self {
        let values = names.filter(|name| Part::of(name, traits.tied) == Part::Value).count();
        Self { mix, traits, values, seen_values: 0, seen_down: 0 }
    }

    /// The type of the next matrix, whose rows have `row_len` elements.
    pub fn next(&mut self, tensor: &str, row_len: u64) -> DType {
        let mix = self.mix.dtype();
        let chosen = match Part::of(tensor, self.traits.tied) {
            _ if !mix.is_quantized() => mix,
            Part::Head => self.head(row_len),
            part => self.by_part(part, tensor).unwrap_or(mix),
        };
        fitting(chosen, row_len)
    }

    /// The head has six bits or more.
    fn head(&self, row_len: u64) -> DType {
        let mix = self.mix.dtype();
        let whole = row_len.is_multiple_of(mix.block_len() as u64);
        match mix == DType::Q8_0 || self.traits.architecture == "falcon" || !whole {
            true => DType::Q8_0,
            false => DType::Q6_K,
        }
    }

    /// The type of a part that has another one than most of the mix, if it has.
    fn by_part(&mut self, part: Part, tensor: &str) -> Option<DType> {
        match part {
            Part::Value => {
                let layer = Layer { index: self.seen_values, count: self.values };
                self.seen_values += 1;
                self.value(layer)
            }
            Part::Down => {
                let index = match self.traits.experts > 1 {
                    // The tensors of experts may come in any order.
                    true => super::block(tensor).unwrap_or(0),
                    false => self.seen_down,
                };
                self.seen_down += 1;
                self.down(Layer { index, count: self.traits.layers })
            }
            Part::Key if self.traits.experts == 8 => Some(DType::Q8_0),
            Part::AttentionOutput => self.attention_output(),
            Part::Embedding if matches!(self.mix.name(), "TQ1_0" | "TQ2_0") => Some(DType::Q4_K),
            _ => None,
        }
    }

    fn value(&self, layer: Layer) -> Option<DType> {
        use DType::{Q3_K, Q4_K, Q5_K, Q6_K, Q8_0};
        let grouped = self.traits.group >= 4;
        let chosen = match self.mix.name() {
            // With eight experts, values are a small part of the model.
            _ if self.traits.experts == 8 => Some(Q8_0),
            "Q2_K" | "Q2_K_S" if grouped => Some(Q4_K),
            "Q2_K" => Some(Q3_K),
            "Q3_K_M" if layer.index < 2 => Some(Q5_K),
            "Q3_K_M" => Some(Q4_K),
            "Q3_K_L" => Some(Q5_K),
            "IQ4_NL" | "IQ4_XS" if grouped => Some(Q5_K),
            "Q4_K_M" | "Q5_K_M" if layer.is_sensitive() => Some(Q6_K),
            "Q4_K_S" if layer.index < 4 => Some(Q5_K),
            _ => None,
        };
        // In these models of 80 layers, values are an eighth of what queries are.
        let large = self.traits.layers == 80
            && (self.traits.architecture == "qwen2"
                || self.traits.architecture == "llama" && self.traits.group > 1);
        match chosen.unwrap_or(self.mix.dtype()) {
            Q3_K | Q4_K if large => Some(Q5_K),
            _ => chosen,
        }
    }

    fn down(&self, layer: Layer) -> Option<DType> {
        use DType::{Q3_K, Q4_1, Q4_K, Q5_1, Q5_K, Q6_K};
        let falcon = self.traits.architecture == "falcon";
        let weighted = self.traits.weighted;
        match self.mix.name() {
            "Q2_K" => Some(Q3_K),
            "Q2_K_S" if layer.in_first(8) => Some(Q4_K),
            "Q3_K_M" if layer.in_first(16) => Some(Q5_K),
            "Q3_K_M" if !falcon || layer.is_sensitive() => Some(Q4_K),
            "Q3_K_L" => Some(if falcon { Q4_K } else { Q5_K }),
            "Q4_K_M" if falcon && layer.in_first(16) => Some(Q6_K),
            "Q4_K_M" if layer.is_sensitive() => Some(if falcon { Q5_K } else { Q6_K }),
            "Q5_K_M" if layer.is_sensitive() => Some(Q6_K),
            "IQ4_NL" | "IQ4_XS" if !weighted && layer.in_first(8) => Some(Q5_K),
            "Q4_K_S" if !falcon && layer.in_first(8) => Some(Q5_K),
            "Q4_0" if weighted && layer.in_first(8) => Some(Q4_1),
            "Q5_0" if weighted && layer.in_first(8) => Some(Q5_1),
            _ => None,
        }
    }

    fn attention_output(&self) -> Option<DType> {
        use DType::{Q3_K, Q4_K, Q5_K};
        let name = self.mix.name();
        if self.traits.architecture == "falcon" {
            return (name == "Q3_K_L").then_some(Q4_K);
        }
        match name {
            "Q2_K" | "Q3_K_S" | "Q3_K_M" | "Q4_K_S" | "Q4_K_M" | "IQ4_NL" | "IQ4_XS"
                if self.traits.experts == 8 =>
            {
                Some(Q5_K)
            }
            _ if self.traits.experts == 8 => None,
            "Q2_K" => Some(Q3_K),
            "Q3_K_M" => Some(Q4_K),
            "Q3_K_L" => Some(Q5_K),
            _ => None,
        }
    }
}

/// The type itself, or one of about as many bits whose blocks fit into rows of `row_len`; F16 where none does.
pub(super) fn fitting(dtype: DType, row_len: u64) -> DType {
    let fits = |dtype: DType| row_len.is_multiple_of(dtype.block_len() as u64);
    let smaller = match dtype {
        DType::Q2_K | DType::Q3_K | DType::TQ1_0 | DType::TQ2_0 => DType::Q4_0,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        DType::IQ4_XS => DType::IQ4_NL,
        other => other,
    };
    [dtype, smaller].into_iter().find(|&dtype| fits(dtype)).unwrap_or(DType::F16)
}

/// Parts of the names of matrices that mixes leave as they are: they are small, and errors in them cost much.
const KEPT: [&str; 17] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "time_mix_first.weight",
    "time_mix_lerp_fused.weight",
    "attn_rel_b.weight",
    ".position_embd",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
];
/// Such names in full.
const KEPT_WHOLE: [&str; 2] = ["position_embd.weight", "token_types.weight"];

/// Whether mixes give a tensor with these lengths another type at all.
pub(super) fn is_quantizable(tensor: &str, shape: &[u64]) -> bool {
    let matrix = shape.iter().skip(1).any(|&len| len > 1);
    let small = |name: &str| {
        KEPT.iter().any(|kept| name.contains(kept))
            || KEPT_WHOLE.contains(&name)
            // The low ranks of RWKV's mixing.
            || name.split_once("time_mix_").is_some_and(|(_, rest)| {
                let (kind, _) = rest.split_once('.').unwrap_or((rest, ""));
                matches!(kind, "w0" | "w1" | "w2" | "v0" | "v1" | "v2" | "a0" | "a1" | "a2" | "g1" | "g2")
                    || matches!(kind, "decay_w1" | "decay_w2")
            })
    };
    matrix && tensor.ends_with("weight") && !small(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The types of a model's tensors of one part, layer by layer.
    fn types(mix: &str, part: &str, traits: &Traits) -> Vec<DType> {
        let names: Vec<_> = (0..traits.layers).map(|i| format!("blk.{i}.{part}.weight")).collect();
        let mut chooser = Chooser::new(Mix::named(mix).unwrap(), traits, names.iter().map(String::as_str));
        names.iter().map(|name| chooser.next(name, 1024)).collect()
    }

    fn traits(layers: usize) -> Traits {
        Traits { architecture: "llama".into(), layers, group: 4, tied: true, ..Traits::default() }
    }

    #[test]
    fn names_are_found_in_any_case() {
        for mix in Mix::all() {
            assert_eq!(Mix::named(&mix.name().to_lowercase()).unwrap(), mix);
            assert!(mix.dtype().is_encodable());
        }
        assert_eq!(Mix::named("q4_k").unwrap().name(), "Q4_K_M");
        let error = Mix::named("Q9").unwrap_err().to_string();
        assert!(error.contains("Q4_K_M") && error.contains("BF16"), "{error}");
        let mut numbers: Vec<_> = Mix::all().map(Mix::file_type).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Mix::all().len());
    }

    #[test]
    fn sensitive_layers_get_six_bits() {
        let six: Vec<_> = types("Q4_K_M", "ffn_down", &traits(24))
            .iter()
            .enumerate()
            .filter(|(_, dtype)| **dtype == DType::Q6_K)
            .map(|(i, _)| i)
            .collect();
        // Three of the first and the last eighth, and every third one of those between.
        assert_eq!(six, [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]);
        assert_eq!(types("Q4_K_M", "ffn_up", &traits(24)), [DType::Q4_K; 24]);
        assert_eq!(types("Q4_K_S", "attn_v", &traits(6))[3..5], [DType::Q5_K, DType::Q4_K]);
        assert_eq!(types("Q2_K", "attn_v", &Traits { group: 2, ..traits(2) }), [DType::Q3_K; 2]);
        assert_eq!(types("Q4_0", "ffn_down", &traits(8)), [DType::Q4_0; 8]);
        let weighted = Traits { weighted: true, ..traits(8) };
        assert_eq!(types("Q4_0", "ffn_down", &weighted)[..2], [DType::Q4_1, DType::Q4_0]);
        let eight = Traits { experts: 8, ..traits(2) };
        assert_eq!(types("Q4_K_M", "attn_k", &eight), [DType::Q8_0; 2]);
        assert_eq!(types("Q4_K_M", "attn_output", &eight), [DType::Q5_K; 2]);
        assert_eq!(types("Q3_K_M", "attn_v", &traits(80))[79], DType::Q5_K);
    }

    #[test]
    fn the_head_keeps_more_bits() {
        let head = |mix: &str, name: &str, tied: bool, row_len: u64| {
            let traits = Traits { tied, ..traits(1) };
            Chooser::new(Mix::named(mix).unwrap(), &traits, [name].into_iter()).next(name, row_len)
        };
        assert_eq!(head("Q4_0", "output.weight", false, 256), DType::Q6_K);
        assert_eq!(head("Q4_0", "token_embd.weight", true, 256), DType::Q6_K);
        assert_eq!(head("Q4_0", "token_embd.weight", false, 256), DType::Q4_0);
        assert_eq!(head("TQ1_0", "token_embd.weight", false, 256), DType::Q4_K);
        assert_eq!(head("Q4_0", "output.weight", false, 288), DType::Q8_0);
        assert_eq!(head("Q8_0", "output.weight", false, 256), DType::Q8_0);
        assert_eq!(head("F16", "output.weight", false, 256), DType::F16);
    }

    #[test]
    fn rows_of_other_lengths_get_other_types() {
        assert_eq!(fitting(DType::Q4_K, 512), DType::Q4_K);
        assert_eq!(fitting(DType::Q4_K, 288), DType::Q5_0);
        assert_eq!(fitting(DType::Q3_K, 288), DType::Q4_0);
        assert_eq!(fitting(DType::Q6_K, 100), DType::F16);
        assert_eq!(fitting(DType::Q8_0, 100), DType::F16);
    }

    #[test]
    fn small_tensors_are_left() {
        assert!(is_quantizable("blk.0.ffn_up.weight", &[64, 32]));
        assert!(is_quantizable("blk.0.ffn_up_exps.weight", &[64, 1, 8]));
        for (name, shape) in [
            ("blk.0.attn_norm.weight", &[64u64, 2][..]),
            ("blk.0.ffn_up.bias", &[64, 2]),
            ("blk.0.ffn_up.weight", &[64, 1, 1]),
            ("blk.0.ffn_up.weight", &[64]),
            ("position_embd.weight", &[64, 64]),
            ("blk.0.ffn_gate_inp.weight", &[64, 8]),
            ("blk.0.time_mix_w1.weight", &[64, 8]),
        ] {
            assert!(!is_quantizable(name, shape), "{name} {shape:?}");
        }
        assert!(is_quantizable("blk.0.time_mix_key.weight", &[64, 64]));
    }
}
