//! The classes that are read from folders. A class is a line of tables: names of tensors, hyperparameters, the rotated part
//! of a head, activations; and a function for the few things that no table says.

use serde_json::Value as Json;

use super::config::Settings;
use super::keys::{self, CONTEXT, Key};
use super::names::{self, Kind, Name, Renamed};
use super::rope;
use crate::error::{Error, Result, quoted};
use crate::format::gguf::{Array, Strings, Value};
use crate::memory::reserve::reserve;

/// A class, or several that are stored alike.
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// Names in `architectures`.
    classes: &'static [&'static str],
    /// `general.architecture` in GGUF.
    pub architecture: &'static str,
    /// Beginnings that names of tensors may have; models within models have them.
    prefixes: &'static [&'static str],
    names: &'static [&'static [Name]],
    keys: &'static [&'static [Key]],
    /// The part of a head that is rotated, and the base, where the configuration states none; `None` without rotation.
    rotary: Option<(f32, f32)>,
    /// Activations that the family computes with.
    activations: &'static [&'static str],
    /// GGUF has the rotated pairs of a head one after the other.
    adjacent: bool,
    /// Norms are kept without the 1 that is added to their gains.
    shifted: bool,
    /// The head is the embedding, whatever the folder has.
    tied: bool,
    more: fn(&Settings, &mut Description) -> Result<()>,
}

/// A configuration in GGUF's terms.
#[derive(Default)]
pub(super) struct Description {
    /// Keys without the architecture, and their values.
    pub pairs: Vec<(&'static str, Value)>,
    /// Elements of a head.
    pub head_dim: u32,
    /// Elements of a head that are rotated.
    pub rotated: u32,
    /// Heads of queries for each head of keys, in matrices of groups.
    pub queries: u32,
    /// Rows in front of a table of positions that belong to no position.
    pub skipped: u32,
    /// Whether the head is the embedding, so that a stored head is of no use.
    pub tied: bool,
    /// Vectors that GGUF keeps as tensors, and folders in their configuration.
    pub extra: Vec<(&'static str, Vec<f32>)>,
}

impl Description {
    fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A count that was put there.
    pub fn stated(&self, key: &str) -> Option<u32> {
        match self.get(key) {
            Some(Value::U32(count)) => Some(*count),
            _ => None,
        }
    }

    /// Puts a value there, in place of a former one.
    pub fn set(&mut self, key: &'static str, value: Value) -> Result<()> {
        reserve(&mut self.pairs, 1, "metadata")?;
        self.pairs.retain(|(name, _)| *name != key);
        self.pairs.push((key, value));
        Ok(())
    }

    pub fn count(&mut self, key: &'static str, value: u32) -> Result<()> {
        self.set(key, Value::U32(value))
    }

    pub fn number(&mut self, key: &'static str, value: f32) -> Result<()> {
        self.set(key, Value::F32(value))
    }
}

fn nothing(_: &Settings, _: &mut Description) -> Result<()> {
    Ok(())
}

const SILU: &[&str] = &["silu", "swish"];
const GELU: &[&str] = &["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast"];

const LLAMA: Family = Family {
    classes: &["LlamaForCausalLM", "LlamaModel"],
    architecture: "llama",
    prefixes: &["model."],
    names: &[names::LLAMA],
    keys: &[keys::LLAMA],
    rotary: Some((1.0, 10_000.0)),
    activations: SILU,
    adjacent: true,
    shifted: false,
    tied: false,
    more: nothing,
};

/// Llama's names, with pairs of rotated elements half a head apart.
const HALVES: Family = Family { adjacent: false, ..LLAMA };

const GEMMA: Family = Family {
    classes: &["GemmaForCausalLM"],
    architecture: "gemma",
    prefixes: &["model.language_model.", "language_model.model.", "model."],
    keys: &[keys::GEMMA],
    activations: GELU,
    shifted: true,
    tied: true,
    ..HALVES
};

const GEMMA3: Family = Family {
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    architecture: "gemma3",
    names: &[names::GEMMA2, names::LLAMA],
    keys: &[keys::GEMMA3, keys::GEMMA],
    rotary: Some((1.0, 1_000_000.0)),
    more: gemma3,
    ..GEMMA
};

const QWEN3: Family = Family {
    classes: &["Qwen3ForCausalLM", "Qwen3Model"],
    architecture: "qwen3",
    keys: &[keys::QWEN3, keys::LLAMA],
    more: full_windows,
    ..HALVES
};

const MINISTRAL3: Family = Family {
    classes: &["Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"],
    architecture: "mistral3",
    prefixes: &["model.language_model.", "language_model.model.", "language_model.", "model."],
    more: ministral3,
    ..LLAMA
};

const COHERE: Family = Family {
    classes: &["CohereForCausalLM"],
    architecture: "command-r",
    keys: &[keys::COHERE],
    tied: true,
    more: |_, d| d.set("rope.scaling.type", Value::Str("none".into())),
    ..HALVES
};

const BERT: Family = Family {
    classes: &["BertModel", "BertForMaskedLM"],
    architecture: "bert",
    prefixes: &["bert."],
    names: &[names::BERT],
    keys: &[keys::ENCODER],
    rotary: None,
    activations: GELU,
    tied: true,
    more: absolute,
    ..HALVES
};

const XLM_ROBERTA: Family = Family {
    classes: &["XLMRobertaModel", "XLMRobertaForMaskedLM", "RobertaModel"],
    prefixes: &["roberta."],
    more: |settings, d| {
        roberta(settings, d)?;
        absolute(settings, d)
    },
    ..BERT
};

static FAMILIES: &[Family] = &[
    LLAMA,
    Family { classes: &["MistralForCausalLM"], more: within_window, ..LLAMA },
    Family {
        classes: &["MixtralForCausalLM"],
        names: &[names::MIXTRAL, names::LLAMA],
        more: within_window,
        ..LLAMA
    },
    MINISTRAL3,
    Family { classes: &["SmolLM3ForCausalLM"], architecture: "smollm3", more: smollm3, ..LLAMA },
    Family {
        classes: &["GraniteForCausalLM"],
        architecture: "granite",
        keys: &[keys::GRANITE, keys::LLAMA],
        ..LLAMA
    },
    Family { classes: &["OlmoForCausalLM"], architecture: "olmo", keys: &[keys::OLMO], ..LLAMA },
    Family {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        architecture: "qwen2",
        more: full_windows,
        ..HALVES
    },
    QWEN3,
    Family {
        classes: &["Qwen2MoeForCausalLM"],
        architecture: "qwen2moe",
        names: &[names::EXPERTS, names::LLAMA],
        keys: &[keys::QWEN2_MOE, keys::LLAMA],
        more: |settings, d| {
            full_windows(settings, d)?;
            scaled_scores(settings, false)
        },
        ..HALVES
    },
    Family {
        classes: &["Qwen3MoeForCausalLM"],
        architecture: "qwen3moe",
        names: &[names::EXPERTS, names::LLAMA],
        more: |settings, d| {
            full_windows(settings, d)?;
            scaled_scores(settings, true)
        },
        ..QWEN3
    },
    Family {
        classes: &["OlmoeForCausalLM"],
        architecture: "olmoe",
        names: &[names::EXPERTS, names::LLAMA],
        keys: &[keys::OLMOE],
        more: |settings, _| scaled_scores(settings, false),
        ..HALVES
    },
    Family {
        classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"],
        architecture: "olmo2",
        names: &[names::GEMMA2, names::LLAMA],
        more: olmo3,
        ..HALVES
    },
    Family {
        classes: &["Phi3ForCausalLM"],
        architecture: "phi3",
        names: &[names::FUSED, names::LLAMA],
        keys: &[keys::PHI3, keys::LLAMA],
        ..HALVES
    },
    GEMMA,
    Family {
        classes: &["Gemma2ForCausalLM"],
        architecture: "gemma2",
        names: &[names::GEMMA2, names::LLAMA],
        keys: &[keys::GEMMA2, keys::GEMMA],
        more: gemma2,
        ..GEMMA
    },
    GEMMA3,
    Family { classes: &["Gemma3TextModel"], architecture: "gemma-embedding", ..GEMMA3 },
    Family {
        classes: &["Starcoder2ForCausalLM"],
        architecture: "starcoder2",
        names: &[names::STARCODER2, names::LLAMA],
        keys: &[keys::STARCODER2],
        activations: GELU,
        more: within_window,
        ..HALVES
    },
    Family {
        classes: &["StableLmForCausalLM"],
        architecture: "stablelm",
        names: &[names::STABLELM, names::LLAMA],
        keys: &[keys::STABLELM],
        rotary: Some((0.25, 10_000.0)),
        ..HALVES
    },
    Family {
        classes: &["GPTNeoXForCausalLM"],
        architecture: "gptneox",
        prefixes: &[],
        names: &[names::GPTNEOX],
        keys: &[keys::GPTNEOX],
        rotary: Some((0.25, 10_000.0)),
        activations: GELU,
        more: |_, d| {
            d.queries = 1;
            Ok(())
        },
        ..HALVES
    },
    Family {
        classes: &["FalconForCausalLM"],
        architecture: "falcon",
        prefixes: &["transformer."],
        names: &[names::FALCON],
        keys: &[keys::FALCON],
        activations: GELU,
        more: falcon,
        ..HALVES
    },
    COHERE,
    Family {
        classes: &["Cohere2ForCausalLM"],
        architecture: "cohere2",
        keys: &[keys::COHERE2, keys::COHERE],
        more: |settings, d| {
            every_nth_sees_all(settings, d, 4)?;
            d.set("rope.scaling.type", Value::Str("none".into()))
        },
        ..COHERE
    },
    Family {
        classes: &["Glm4ForCausalLM"],
        architecture: "glm4",
        names: &[names::GLM4, names::FUSED, names::LLAMA],
        rotary: Some((0.5, 10_000.0)),
        ..HALVES
    },
    Family {
        classes: &["NemotronForCausalLM"],
        architecture: "nemotron",
        keys: &[keys::NEMOTRON],
        rotary: Some((0.5, 10_000.0)),
        activations: &["relu2"],
        shifted: true,
        more: |_, d| d.set("rope.scaling.type", Value::Str("none".into())),
        ..HALVES
    },
    Family {
        classes: &["GPT2LMHeadModel", "GPT2Model"],
        architecture: "gpt2",
        prefixes: &["transformer."],
        names: &[names::GPT2],
        keys: &[keys::GPT2],
        rotary: None,
        activations: &["gelu_new", "gelu_pytorch_tanh"],
        more: |settings, d| {
            // The class ties the head unless told otherwise.
            d.tied = settings.get("tie_word_embeddings").is_none() || settings.flag("tie_word_embeddings")?;
            Ok(())
        },
        ..HALVES
    },
    BERT,
    Family {
        classes: &["BertForSequenceClassification"],
        names: &[names::BERT_CLASSIFIER, names::BERT],
        more: |settings, d| {
            labels(settings, d)?;
            absolute(settings, d)
        },
        ..BERT
    },
    XLM_ROBERTA,
    Family {
        classes: &["XLMRobertaForSequenceClassification", "RobertaForSequenceClassification"],
        names: &[names::ROBERTA_CLASSIFIER, names::BERT],
        more: |settings, d| {
            labels(settings, d)?;
            (XLM_ROBERTA.more)(settings, d)
        },
        ..XLM_ROBERTA
    },
    Family {
        classes: &["NomicBertModel"],
        architecture: "nomic-bert",
        names: &[names::NOMIC],
        rotary: Some((1.0, 10_000.0)),
        activations: &["swiglu"],
        more: nomic,
        ..BERT
    },
    Family {
        classes: &["ModernBertModel", "ModernBertForMaskedLM"],
        architecture: "modern-bert",
        prefixes: &["model."],
        names: &[names::MODERN_BERT],
        keys: &[keys::MODERN_BERT, keys::ENCODER],
        rotary: Some((1.0, 160_000.0)),
        activations: &["gelu", "silu"],
        more: modern_bert,
        ..BERT
    },
    Family {
        classes: &["JinaBertModel", "JinaBertForMaskedLM"],
        architecture: "jina-bert-v2",
        names: &[names::JINA2, names::BERT],
        more: |settings, _| settings.expect("position_embedding_type", &["alibi"]),
        ..BERT
    },
];

/// The family of a class.
///
/// # Errors
/// [`Error::Unsupported`], with the classes that are known.
pub(super) fn find(class: &str) -> Result<&'static Family> {
    FAMILIES.iter().find(|family| family.classes.contains(&class)).ok_or_else(|| {
        let classes = FAMILIES.iter().flat_map(|family| family.classes);
        let mut known: Vec<_> = classes.map(|class| stem(class)).collect();
        known.sort_unstable();
        known.dedup();
        Error::Unsupported(format!(
            "the class {}; folders are read of {}; other models as GGUF files",
            quoted(class),
            known.join(", ")
        ))
    })
}

/// A class without its purpose: `Llama` of `LlamaForCausalLM`.
fn stem(class: &str) -> &str {
    let end = ["For", "LMHead", "TextModel", "Model"].into_iter().find_map(|purpose| class.find(purpose));
    &class[..end.unwrap_or(class.len())]
}

impl Family {
    /// The name in GGUF, and the treatment of the tensor. `None` for a name that the family doesn't have.
    pub fn rename(&self, name: &str) -> Option<Renamed> {
        if names::PICTURES.iter().any(|prefix| name.starts_with(prefix)) && self.prefixes.len() > 1 {
            return Some(Renamed { name: String::new(), kind: Kind::Idle, part: None });
        }
        let prefix = self.prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
        names::rename(self.names, prefix.unwrap_or(name))
    }

    /// Whether GGUF has rotated pairs one after the other, and the folder hasn't.
    pub fn moves(&self, kind: Kind) -> bool {
        self.adjacent && kind == Kind::Rotated
    }

    /// The constant that is added to a tensor, by its name in GGUF.
    pub fn added(&self, name: &str) -> f32 {
        if self.shifted && name.ends_with("norm.weight") { 1.0 } else { 0.0 }
    }

    /// Reads the configuration.
    pub fn describe(&self, settings: &Settings) -> Result<Description> {
        let mut d = Description::default();
        for key in ["hidden_act", "hidden_activation", "activation_function"] {
            settings.expect(key, self.activations)?;
        }
        keys::insert(self.keys, settings, &mut d)?;
        let needed = |key: &str| d.stated(key).unwrap_or_default();
        let heads = needed("attention.head_count").max(1);
        d.head_dim = d.stated("attention.key_length").unwrap_or(needed("embedding_length") / heads);
        d.tied = self.tied || settings.flag("tie_word_embeddings")?;
        if let Some((part, base)) = self.rotary {
            rope::insert(settings, &mut d, part, base)?;
        }
        (self.more)(settings, &mut d)?;
        Ok(d)
    }
}

fn unsupported(settings: &Settings, what: &str) -> Error {
    Error::Unsupported(format!("{}: {what}", settings.file()))
}

/// Qwen's windows, which its files rarely use.
fn full_windows(settings: &Settings, _: &mut Description) -> Result<()> {
    match settings.flag("use_sliding_window")? {
        true => Err(unsupported(settings, "sliding windows")),
        false => Ok(()),
    }
}

/// A window in all layers, which GGUF's family hasn't: within it, there is no difference.
fn within_window(settings: &Settings, d: &mut Description) -> Result<()> {
    match (settings.count("sliding_window")?, d.stated(CONTEXT)) {
        (Some(window), Some(context)) if window < context => d.count(CONTEXT, window),
        _ => Ok(()),
    }
}

/// Whether the weights of the chosen experts sum to 1.
fn scaled_scores(settings: &Settings, wanted: bool) -> Result<()> {
    match settings.get("norm_topk_prob") {
        Some(_) if settings.flag("norm_topk_prob")? != wanted => {
            Err(unsupported(settings, &format!("\"norm_topk_prob\" that isn't {wanted}")))
        }
        _ => Ok(()),
    }
}

/// The layers with a window by `layer_types`, where it is there.
fn windows(settings: &Settings) -> Option<Vec<bool>> {
    let list = settings.get("layer_types")?.as_array()?;
    Some(list.iter().map(|kind| kind.as_str() == Some("sliding_attention")).collect())
}

/// Checks that each `n`th layer sees all, and that the others have the window.
fn every_nth_sees_all(settings: &Settings, _: &mut Description, n: usize) -> Result<()> {
    let period = match settings.count("sliding_window_pattern")? {
        None => settings.count("_sliding_window_pattern")?,
        period => period,
    };
    let listed = windows(settings).unwrap_or_default();
    let differs = listed.iter().enumerate().any(|(i, &windowed)| windowed == ((i + 1) % n == 0));
    match differs || period.is_some_and(|period| period as usize != n) {
        true => Err(unsupported(settings, &format!("layers other than each {n}th that see all positions"))),
        false => Ok(()),
    }
}

fn gemma2(settings: &Settings, d: &mut Description) -> Result<()> {
    every_nth_sees_all(settings, d, 2)?;
    scale_of_gemma(settings, d, 46)
}

fn gemma3(settings: &Settings, d: &mut Description) -> Result<()> {
    every_nth_sees_all(settings, d, 6)?;
    if settings.get("attn_logit_softcapping").is_some() {
        return Err(unsupported(settings, "a soft cap of the scores of attention"));
    }
    scale_of_gemma(settings, d, 62)
}

/// GGUF's family divides scores by the root of a head's elements, in the model of so many layers by that of the width's
/// share of a head.
fn scale_of_gemma(settings: &Settings, d: &Description, large: u32) -> Result<()> {
    let share =
        d.stated("embedding_length").unwrap_or(0) / d.stated("attention.head_count").unwrap_or(1).max(1);
    let wanted = if d.stated("block_count") == Some(large) { share } else { d.head_dim };
    match settings.number("query_pre_attn_scalar")? {
        Some(scalar) if scalar != wanted as f32 => {
            let what = format!("\"query_pre_attn_scalar\" {scalar}, where the family has {wanted}");
            Err(unsupported(settings, &what))
        }
        _ => Ok(()),
    }
}

fn ministral3(settings: &Settings, d: &mut Description) -> Result<()> {
    let Some(rope) = settings.inner("rope_parameters")? else { return Ok(()) };
    if let Some(scale) = rope.number("mscale_all_dim")? {
        d.number("rope.scaling.yarn_log_multiplier", scale)?;
    }
    match rope.number("llama_4_scaling_beta")? {
        Some(beta) => d.number("attention.temperature_scale", beta),
        None => Ok(()),
    }
}

/// GGUF's family rotates all layers but each fourth.
fn smollm3(settings: &Settings, _: &mut Description) -> Result<()> {
    let list = settings.get("no_rope_layers").and_then(Json::as_array).cloned().unwrap_or_default();
    // 1 says that the layer is rotated.
    let differs =
        |(i, rotated): (usize, &Json)| rotated.as_u64() != Some(u64::from(!(i + 1).is_multiple_of(4)));
    match list.iter().enumerate().any(differs) || settings.flag("use_sliding_window")? {
        true => Err(unsupported(settings, "layers other than each fourth without rotation, or windows")),
        false => Ok(()),
    }
}

/// OLMo 3's windows, which OLMo 2 hasn't.
fn olmo3(settings: &Settings, d: &mut Description) -> Result<()> {
    let Some(window) = settings.count("sliding_window")? else { return Ok(()) };
    d.count("attention.sliding_window", window)?;
    let layers = d.stated("block_count").unwrap_or(0).min(1 << 16) as usize;
    let pattern = windows(settings).unwrap_or_else(|| (1..=layers).map(|i| !i.is_multiple_of(4)).collect());
    d.set("attention.sliding_window_pattern", Value::Array(Array::Bool(pattern)))
}

/// Falcon's groups: each head alone, one head of keys for all, or as many as are stated.
fn falcon(settings: &Settings, d: &mut Description) -> Result<()> {
    if settings.flag("alibi")? {
        return Err(unsupported(settings, "a bias by distance (ALiBi)"));
    }
    let heads = d.stated("attention.head_count").unwrap_or(1).max(1);
    let grouped = settings.flag("new_decoder_architecture")?;
    let single = settings.get("multi_query").is_none() || settings.flag("multi_query")?;
    let groups = match (grouped, single) {
        (true, _) => settings.count("num_kv_heads")?.or(settings.count("n_head_kv")?).unwrap_or(heads),
        (false, true) => 1,
        (false, false) => heads,
    };
    if settings.get("parallel_attn").is_some() && !settings.flag("parallel_attn")? {
        return Err(unsupported(settings, "attention before the MLP"));
    }
    d.queries = heads / groups.max(1);
    d.set("tensor_data_layout", Value::Str("jploski".into()))?;
    d.count("attention.head_count_kv", groups)
}

fn absolute(settings: &Settings, _: &mut Description) -> Result<()> {
    settings.expect("position_embedding_type", &["absolute"])
}

/// Positions are counted from behind the padding token's number.
fn roberta(settings: &Settings, d: &mut Description) -> Result<()> {
    let Some(padding) = settings.count("pad_token_id")? else { return Ok(()) };
    d.skipped = padding.saturating_add(1);
    let positions = d.stated(CONTEXT).unwrap_or(0);
    let positions = positions.checked_sub(d.skipped).filter(|&left| left > 0);
    let positions = positions.ok_or_else(|| {
        Error::format(format!("{}: fewer positions than \"pad_token_id\" {padding}", settings.file()))
    })?;
    d.count(CONTEXT, positions)
}

/// The classes of a classifier.
fn labels(settings: &Settings, d: &mut Description) -> Result<()> {
    let Some(Json::Object(map)) = settings.get("id2label") else { return Ok(()) };
    let mut numbered: Vec<_> = map
        .iter()
        .filter_map(|(number, label)| Some((number.parse::<u64>().ok()?, label.as_str()?)))
        .collect();
    numbered.sort_unstable();
    // Two classes without names of their own are what a configuration that states none becomes.
    if numbered.len() == 2 && numbered[0].1 == "LABEL_0" {
        return Ok(());
    }
    let mut texts = Strings::default();
    numbered.iter().try_for_each(|(_, label)| texts.push(label))?;
    d.set("classifier.output_labels", Value::Array(Array::Str(texts)))
}

fn nomic(settings: &Settings, d: &mut Description) -> Result<()> {
    if settings.get("moe_every_n_layers").is_some_and(|n| n != 0) {
        return Err(unsupported(settings, "experts; nomic-bert-moe is read as a GGUF file"));
    }
    for key in
        ["prenorm", "rotary_emb_interleaved", "qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias", "causal"]
    {
        if settings.flag(key)? {
            return Err(unsupported(settings, &format!("{} that is true", quoted(key))));
        }
    }
    // Trained on fewer positions than are stated.
    let trained = settings.count("max_trained_positions")?.unwrap_or(2048);
    match d.stated(CONTEXT) {
        Some(positions) if positions > trained => d.count(CONTEXT, trained),
        _ => Ok(()),
    }
}

fn modern_bert(settings: &Settings, d: &mut Description) -> Result<()> {
    d.set("rope.scaling.type", Value::Str("none".into()))?;
    match settings.text("classifier_pooling")? {
        None => {}
        Some("mean") => d.count("classifier.pooling_type", 1)?,
        Some("cls") => d.count("classifier.pooling_type", 2)?,
        Some(other) => {
            return Err(unsupported(settings, &format!("\"classifier_pooling\" {}", quoted(other))));
        }
    }
    match settings.text("hidden_activation")? {
        Some(activation) => d.set("hidden_activation", Value::Str(activation.into())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_classes_are_told_of_with_those_that_are_known() {
        let error = find("MambaForCausalLM").err().unwrap().to_string();
        assert!(
            error.contains("\"MambaForCausalLM\"") && error.contains(", JinaBert, Llama, Ministral3, "),
            "{error}"
        );
    }

    #[test]
    fn no_class_is_listed_twice() {
        let mut all: Vec<_> = FAMILIES.iter().flat_map(|family| family.classes).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn prefixes_are_left_out_and_pictures_are_idle() {
        let name = |class: &str, name: &str| find(class).unwrap().rename(name).map(|renamed| renamed.name);
        for theirs in ["model.language_model.norm.weight", "language_model.model.norm.weight", "norm.weight"]
        {
            let class = "Gemma3ForConditionalGeneration";
            assert_eq!(name(class, theirs).as_deref(), Some("output_norm.weight"), "{theirs}");
        }
        let tower = "vision_tower.encoder.layers.0.norm.weight";
        assert_eq!(name("Gemma3ForConditionalGeneration", tower).as_deref(), Some(""));
        assert_eq!(name("LlamaForCausalLM", tower), None);
    }
}
