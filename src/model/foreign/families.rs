//! The families that are read from folders: under which names their classes keep tensors and numbers, and what these are
//! called in GGUF. A family is a table of names and a function.

use super::config::Settings;
use crate::error::{Error, Result, quoted};
use crate::format::gguf::{Metadata, Value};

/// What is done with a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is as in GGUF.
    Plain,
    /// The rows of query heads, whose rotated pairs stand half a head apart.
    Queries,
    /// The same of key heads.
    Keys,
    /// Inputs are rows, outputs are columns (`Conv1D`).
    Transposed,
    /// It is of no use here.
    Idle,
}

use Kind::{Idle, Keys, Plain, Queries, Transposed};

/// A tensor's name in the folder and in GGUF, without `.weight` and `.bias`; `{}` is the block.
type Name = (&'static str, &'static str, Kind);

/// A family as folders have it.
pub(super) struct Family {
    /// Names in `architectures`.
    pub classes: &'static [&'static str],
    /// `general.architecture` in GGUF.
    pub architecture: &'static str,
    /// Beginnings that names of tensors may have; models within models have them.
    prefixes: &'static [&'static str],
    names: &'static [Name],
    pub read: fn(&Settings, &mut Description) -> Result<()>,
}

/// A family's configuration in GGUF's terms.
#[derive(Default)]
pub(super) struct Description {
    pub metadata: Metadata,
    pub architecture: &'static str,
    /// Elements of a head.
    pub head_dim: u32,
    /// Whether the head is the embedding, so that a stored head is of no use.
    pub tied: bool,
    /// Divisors of the rotary frequencies, which GGUF keeps in a tensor.
    pub rope_divisors: Vec<f32>,
}

impl Description {
    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        self.metadata.insert(format!("{}.{key}", self.architecture), value)
    }

    fn count(&mut self, key: &str, value: u32) -> Result<()> {
        self.set(key, Value::U32(value))
    }

    fn number(&mut self, key: &str, value: f32) -> Result<()> {
        self.set(key, Value::F32(value))
    }
}

/// Llama's names, which Qwen shares. GGUF moves rows of queries and keys in Llama only.
const LLAMA: &[Name] = &[
    ("embed_tokens", "token_embd", Plain),
    ("norm", "output_norm", Plain),
    ("lm_head", "output", Plain),
    ("layers.{}.input_layernorm", "blk.{}.attn_norm", Plain),
    ("layers.{}.self_attn.q_proj", "blk.{}.attn_q", Queries),
    ("layers.{}.self_attn.k_proj", "blk.{}.attn_k", Keys),
    ("layers.{}.self_attn.v_proj", "blk.{}.attn_v", Plain),
    ("layers.{}.self_attn.o_proj", "blk.{}.attn_output", Plain),
    ("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Plain),
    ("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Plain),
    ("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", Plain),
    ("layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", Plain),
    ("layers.{}.mlp.up_proj", "blk.{}.ffn_up", Plain),
    ("layers.{}.mlp.down_proj", "blk.{}.ffn_down", Plain),
    ("layers.{}.self_attn.rotary_emb.inv_freq", "", Idle),
    ("rotary_emb.inv_freq", "", Idle),
];

const GPT2: &[Name] = &[
    ("wte", "token_embd", Plain),
    ("wpe", "position_embd", Plain),
    ("ln_f", "output_norm", Plain),
    ("lm_head", "output", Plain),
    ("h.{}.ln_1", "blk.{}.attn_norm", Plain),
    ("h.{}.attn.c_attn", "blk.{}.attn_qkv", Transposed),
    ("h.{}.attn.c_proj", "blk.{}.attn_output", Transposed),
    ("h.{}.ln_2", "blk.{}.ffn_norm", Plain),
    ("h.{}.mlp.c_fc", "blk.{}.ffn_up", Transposed),
    ("h.{}.mlp.c_proj", "blk.{}.ffn_down", Transposed),
    // The causal mask.
    ("h.{}.attn.bias", "", Idle),
    ("h.{}.attn.masked_bias", "", Idle),
];

const BERT: &[Name] = &[
    ("embeddings.word_embeddings", "token_embd", Plain),
    ("embeddings.position_embeddings", "position_embd", Plain),
    ("embeddings.token_type_embeddings", "token_types", Plain),
    ("embeddings.LayerNorm", "token_embd_norm", Plain),
    ("encoder.layer.{}.attention.self.query", "blk.{}.attn_q", Plain),
    ("encoder.layer.{}.attention.self.key", "blk.{}.attn_k", Plain),
    ("encoder.layer.{}.attention.self.value", "blk.{}.attn_v", Plain),
    ("encoder.layer.{}.attention.output.dense", "blk.{}.attn_output", Plain),
    ("encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm", Plain),
    ("encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up", Plain),
    ("encoder.layer.{}.output.dense", "blk.{}.ffn_down", Plain),
    ("encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm", Plain),
    ("embeddings.position_ids", "", Idle),
    // What classifiers of whole texts were trained with; embeddings don't read it.
    ("pooler.dense", "", Idle),
];

static FAMILIES: [Family; 5] = [
    Family {
        classes: &["LlamaForCausalLM", "LlamaModel"],
        architecture: "llama",
        prefixes: &["model."],
        names: LLAMA,
        read: |settings, d| decoder(settings, d, false),
    },
    Family {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        architecture: "qwen2",
        prefixes: &["model."],
        names: LLAMA,
        read: |settings, d| decoder(settings, d, false),
    },
    Family {
        classes: &["Qwen3ForCausalLM", "Qwen3Model"],
        architecture: "qwen3",
        prefixes: &["model."],
        names: LLAMA,
        read: |settings, d| decoder(settings, d, true),
    },
    Family {
        classes: &["GPT2LMHeadModel", "GPT2Model"],
        architecture: "gpt2",
        prefixes: &["transformer."],
        names: GPT2,
        read: gpt2,
    },
    Family { classes: &["BertModel"], architecture: "bert", prefixes: &["bert."], names: BERT, read: bert },
];

/// The family of a class.
///
/// # Errors
/// [`Error::Unsupported`], with the classes that are known.
pub(super) fn find(class: &str) -> Result<&'static Family> {
    let mut families = FAMILIES.iter();
    families.find(|family| family.classes.contains(&class)).ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|family| family.classes[0]).collect();
        Error::Unsupported(format!(
            "the class {}; folders are read of {}, other models as GGUF files",
            quoted(class),
            known.join(", ")
        ))
    })
}

impl Family {
    /// The name in GGUF, and what is done with the tensor. `None` for a name that the family doesn't have.
    pub fn rename(&self, name: &str) -> Option<(String, Kind)> {
        let prefix = self.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
        let name = prefix.unwrap_or(name);
        let (stem, suffix) = match name.rsplit_once('.') {
            Some((stem, suffix @ ("weight" | "bias"))) => (stem, suffix),
            _ => (name, ""),
        };
        // Some names end in what is a suffix of others.
        let idle = |(theirs, _, kind): &&Name| *kind == Idle && block(theirs, name).is_some();
        if let Some((_, _, kind)) = self.names.iter().find(idle) {
            return Some((String::new(), *kind));
        }
        self.names.iter().find_map(|(theirs, ours, kind)| {
            let block = block(theirs, stem)?;
            let ours =
                if *kind == Idle { String::new() } else { format!("{}.{suffix}", ours.replace("{}", block)) };
            (*kind == Idle || !suffix.is_empty()).then_some((ours, *kind))
        })
    }
}

/// The text at `{}` where a name fits a pattern; empty for a pattern without.
fn block<'a>(pattern: &str, name: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once("{}") else { return (pattern == name).then_some("") };
    let block = name.strip_prefix(before)?.strip_suffix(after)?;
    let number = block.parse::<u32>().ok()?;
    (number.to_string() == block).then_some(block)
}

/// Llama and its kin.
fn decoder(settings: &Settings, d: &mut Description, states_heads: bool) -> Result<()> {
    settings.expect("hidden_act", &["silu"])?;
    if settings.flag("use_sliding_window")? {
        return Err(Error::Unsupported(format!("{}: sliding windows", settings.file())));
    }
    let (width, heads) = (settings.required("hidden_size")?, settings.required("num_attention_heads")?);
    let stated = settings.count("head_dim")?;
    d.head_dim = stated.unwrap_or(if states_heads { 128 } else { width / heads.max(1) });
    d.tied = settings.flag("tie_word_embeddings")?;
    d.count("context_length", settings.required("max_position_embeddings")?)?;
    d.count("embedding_length", width)?;
    d.count("block_count", settings.required("num_hidden_layers")?)?;
    d.count("feed_forward_length", settings.required("intermediate_size")?)?;
    d.count("attention.head_count", heads)?;
    d.count("attention.head_count_kv", settings.count("num_key_value_heads")?.unwrap_or(heads))?;
    d.number("attention.layer_norm_rms_epsilon", settings.number("rms_norm_eps")?.unwrap_or(1e-6))?;
    if stated.is_some() || states_heads {
        d.count("attention.key_length", d.head_dim)?;
        d.count("attention.value_length", d.head_dim)?;
    }
    d.count("rope.dimension_count", d.head_dim)?;
    rope(settings, d)
}

/// The rotary embedding: its base, and how it is stretched.
fn rope(settings: &Settings, d: &mut Description) -> Result<()> {
    let parameters = match settings.inner("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => settings.inner("rope_parameters")?,
    };
    let own = parameters.as_ref().map(|own| own.number("rope_theta")).transpose()?.flatten();
    let base = settings.number("rope_theta")?.or(own).unwrap_or(10_000.0);
    d.number("rope.freq_base", base)?;
    let Some(scaling) = parameters else { return Ok(()) };
    let kind = scaling.text("rope_type")?.or(scaling.text("type")?).unwrap_or("default");
    let factor = scaling.number("factor")?.unwrap_or(1.0);
    match kind {
        "default" => Ok(()),
        "linear" => {
            d.set("rope.scaling.type", Value::Str("linear".into()))?;
            d.number("rope.scaling.factor", factor)
        }
        "yarn" => {
            d.set("rope.scaling.type", Value::Str("yarn".into()))?;
            d.number("rope.scaling.factor", factor)?;
            let original = scaling.required("original_max_position_embeddings")?;
            d.count("rope.scaling.original_context_length", original)
        }
        "llama3" => {
            d.rope_divisors = llama3_divisors(&scaling, base, factor, d.head_dim)?;
            Ok(())
        }
        other => Err(Error::Unsupported(format!("{}: the kind {}", scaling.file(), quoted(other)))),
    }
}

/// Llama 3.1's stretching: waves that are short against the original context stay, long ones are divided by the factor,
/// those between by something between.
fn llama3_divisors(scaling: &Settings, base: f32, factor: f32, head_dim: u32) -> Result<Vec<f32>> {
    const MOST: u32 = 1 << 16;
    if head_dim > MOST {
        return Err(Error::format(format!("{}: heads of {head_dim} elements", scaling.file())));
    }
    let original = scaling.count("original_max_position_embeddings")?.unwrap_or(8192) as f32;
    let low = scaling.number("low_freq_factor")?.unwrap_or(1.0);
    let high = scaling.number("high_freq_factor")?.unwrap_or(4.0);
    let divisor = |i: u32| {
        let wave = std::f64::consts::TAU * f64::from(base).powf(f64::from(2 * i) / f64::from(head_dim));
        let wave = wave as f32;
        if wave < original / high {
            1.0
        } else if wave > original / low {
            factor
        } else {
            let share = (original / wave - low) / (high - low);
            1.0 / ((1.0 - share) / factor + share)
        }
    };
    Ok((0..head_dim / 2).map(divisor).collect())
}

fn gpt2(settings: &Settings, d: &mut Description) -> Result<()> {
    settings.expect("activation_function", &["gelu_new", "gelu_pytorch_tanh"])?;
    let (width, heads) = (settings.required("n_embd")?, settings.required("n_head")?);
    d.head_dim = width / heads.max(1);
    // The classes tie the head unless told otherwise.
    d.tied = settings.get("tie_word_embeddings").is_none() || settings.flag("tie_word_embeddings")?;
    let positions = settings.count("n_positions")?.or(settings.count("n_ctx")?);
    let positions = positions.map_or_else(|| settings.required("n_positions"), Ok)?;
    d.count("context_length", positions)?;
    d.count("embedding_length", width)?;
    d.count("block_count", settings.required("n_layer")?)?;
    d.count("feed_forward_length", settings.count("n_inner")?.unwrap_or(width.saturating_mul(4)))?;
    d.count("attention.head_count", heads)?;
    d.number("attention.layer_norm_epsilon", settings.number("layer_norm_epsilon")?.unwrap_or(1e-5))
}

fn bert(settings: &Settings, d: &mut Description) -> Result<()> {
    settings.expect("hidden_act", &["gelu"])?;
    settings.expect("position_embedding_type", &["absolute"])?;
    let (width, heads) = (settings.required("hidden_size")?, settings.required("num_attention_heads")?);
    d.head_dim = width / heads.max(1);
    d.count("context_length", settings.required("max_position_embeddings")?)?;
    d.count("embedding_length", width)?;
    d.count("block_count", settings.required("num_hidden_layers")?)?;
    d.count("feed_forward_length", settings.required("intermediate_size")?)?;
    d.count("attention.head_count", heads)?;
    d.number("attention.layer_norm_epsilon", settings.number("layer_norm_eps")?.unwrap_or(1e-12))?;
    d.set("attention.causal", Value::Bool(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(class: &str, name: &str) -> Option<(String, Kind)> {
        find(class).unwrap().rename(name)
    }

    #[test]
    fn names_become_those_of_gguf() {
        for (class, theirs, ours, kind) in [
            ("LlamaForCausalLM", "model.layers.12.self_attn.q_proj.weight", "blk.12.attn_q.weight", Queries),
            ("LlamaForCausalLM", "layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", Plain),
            ("LlamaForCausalLM", "lm_head.weight", "output.weight", Plain),
            ("LlamaForCausalLM", "model.layers.0.self_attn.rotary_emb.inv_freq", "", Idle),
            ("Qwen2ForCausalLM", "model.layers.1.self_attn.k_proj.bias", "blk.1.attn_k.bias", Keys),
            ("GPT2LMHeadModel", "transformer.h.3.attn.c_attn.bias", "blk.3.attn_qkv.bias", Transposed),
            ("GPT2LMHeadModel", "h.3.attn.bias", "", Idle),
            ("BertModel", "embeddings.LayerNorm.bias", "token_embd_norm.bias", Plain),
            ("BertModel", "bert.encoder.layer.5.output.dense.weight", "blk.5.ffn_down.weight", Plain),
            ("BertModel", "pooler.dense.bias", "", Idle),
        ] {
            assert_eq!(renamed(class, theirs), Some((ours.to_owned(), kind)), "{theirs}");
        }
        for unknown in
            ["model.layers.x.self_attn.q_proj.weight", "model.layers.01.mlp.up_proj.weight", "a.weight", ""]
        {
            assert_eq!(renamed("LlamaForCausalLM", unknown), None, "{unknown}");
        }
        let error = find("MambaForCausalLM").err().unwrap().to_string();
        assert!(
            error.contains("\"MambaForCausalLM\"") && error.contains("LlamaForCausalLM, Qwen2"),
            "{error}"
        );
    }

    #[test]
    fn long_waves_are_stretched() {
        let text = br#"{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}"#;
        let scaling = Settings::read("config.json".into(), text).unwrap();
        let divisors = llama3_divisors(&scaling, 500_000.0, 8.0, 128).unwrap();
        assert_eq!((divisors.len(), divisors[0], divisors[63]), (64, 1.0, 8.0));
        assert!(divisors.is_sorted() && divisors.iter().any(|&x| x > 1.0 && x < 8.0));
    }
}
