//! The classes that are read from folders. A class is a line of tables: names of tensors, hyperparameters, the rotated part
//! of a head, activations; and a function for the few things that no table says.

use super::config::Settings;
use super::keys::{self, Key};
use super::names::{self, Kind, Name, Renamed};
use super::{rope, special};
use crate::error::{Error, Result, quoted};
use crate::format::gguf::Value;
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
    /// Whether it has layers with experts, where classes of one name differ in that.
    mixture: Option<bool>,
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
    mixture: None,
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
    more: special::gemma3,
    ..GEMMA
};

const QWEN3: Family = Family {
    classes: &["Qwen3ForCausalLM", "Qwen3Model"],
    architecture: "qwen3",
    keys: &[keys::QWEN3, keys::LLAMA],
    more: special::full_windows,
    ..HALVES
};

const MINISTRAL3: Family = Family {
    classes: &["Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"],
    architecture: "mistral3",
    prefixes: &["model.language_model.", "language_model.model.", "language_model.", "model."],
    more: special::ministral3,
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
    more: special::absolute,
    ..HALVES
};

const XLM_ROBERTA: Family = Family {
    classes: &["XLMRobertaModel", "XLMRobertaForMaskedLM", "RobertaModel"],
    prefixes: &["roberta."],
    more: |settings, d| {
        special::roberta(settings, d)?;
        special::absolute(settings, d)
    },
    ..BERT
};

const NOMIC: Family = Family {
    classes: &["NomicBertModel"],
    architecture: "nomic-bert",
    names: &[names::NOMIC],
    rotary: Some((1.0, 10_000.0)),
    activations: &["swiglu"],
    mixture: Some(false),
    more: special::nomic,
    ..BERT
};

static FAMILIES: &[Family] = &[
    LLAMA,
    Family { classes: &["MistralForCausalLM"], more: special::within_window, ..LLAMA },
    Family {
        classes: &["MixtralForCausalLM"],
        names: &[names::MIXTRAL, names::STACKED_EXPERTS, names::LLAMA],
        more: special::within_window,
        ..LLAMA
    },
    MINISTRAL3,
    Family { classes: &["SmolLM3ForCausalLM"], architecture: "smollm3", more: special::smollm3, ..LLAMA },
    Family {
        classes: &["GraniteForCausalLM"],
        architecture: "granite",
        keys: &[keys::GRANITE, keys::LLAMA],
        ..LLAMA
    },
    Family {
        classes: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
        architecture: "granitemoe",
        names: &[names::GRANITE_MOE, names::LLAMA],
        keys: &[keys::GRANITE_MOE, keys::GRANITE, keys::LLAMA],
        more: special::granite_moe,
        ..LLAMA
    },
    Family { classes: &["OlmoForCausalLM"], architecture: "olmo", keys: &[keys::OLMO], ..LLAMA },
    Family {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        architecture: "qwen2",
        more: special::full_windows,
        ..HALVES
    },
    QWEN3,
    Family {
        classes: &["Qwen2MoeForCausalLM"],
        architecture: "qwen2moe",
        names: &[names::EXPERTS, names::STACKED_EXPERTS, names::LLAMA],
        keys: &[keys::QWEN2_MOE, keys::LLAMA],
        more: |settings, d| {
            special::full_windows(settings, d)?;
            special::scaled_scores(settings, false)
        },
        ..HALVES
    },
    Family {
        classes: &["Qwen3MoeForCausalLM"],
        architecture: "qwen3moe",
        names: &[names::EXPERTS, names::STACKED_EXPERTS, names::LLAMA],
        more: |settings, d| {
            special::full_windows(settings, d)?;
            special::scaled_scores(settings, true)
        },
        ..QWEN3
    },
    Family {
        classes: &["OlmoeForCausalLM"],
        architecture: "olmoe",
        names: &[names::EXPERTS, names::STACKED_EXPERTS, names::LLAMA],
        keys: &[keys::OLMOE],
        more: |settings, _| special::scaled_scores(settings, false),
        ..HALVES
    },
    Family {
        classes: &["Olmo2ForCausalLM", "Olmo3ForCausalLM"],
        architecture: "olmo2",
        names: &[names::GEMMA2, names::LLAMA],
        more: special::olmo3,
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
        more: special::gemma2,
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
        more: special::within_window,
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
        more: special::falcon,
        ..HALVES
    },
    COHERE,
    Family {
        classes: &["Cohere2ForCausalLM"],
        architecture: "cohere2",
        keys: &[keys::COHERE2, keys::COHERE],
        more: |settings, d| {
            special::every_nth_sees_all(settings, d, 4)?;
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
            special::labels(settings, d)?;
            special::absolute(settings, d)
        },
        ..BERT
    },
    XLM_ROBERTA,
    Family {
        classes: &["XLMRobertaForSequenceClassification", "RobertaForSequenceClassification"],
        names: &[names::ROBERTA_CLASSIFIER, names::BERT],
        more: |settings, d| {
            special::labels(settings, d)?;
            (XLM_ROBERTA.more)(settings, d)
        },
        ..XLM_ROBERTA
    },
    NOMIC,
    Family {
        architecture: "nomic-bert-moe",
        names: &[names::NOMIC_MOE, names::NOMIC],
        keys: &[keys::NOMIC_MOE, keys::ENCODER],
        activations: &["gelu"],
        mixture: Some(true),
        more: special::nomic_moe,
        ..NOMIC
    },
    Family {
        classes: &["ModernBertModel", "ModernBertForMaskedLM"],
        architecture: "modern-bert",
        prefixes: &["model."],
        names: &[names::MODERN_BERT],
        keys: &[keys::MODERN_BERT, keys::ENCODER],
        rotary: Some((1.0, 160_000.0)),
        activations: &["gelu", "silu"],
        more: special::modern_bert,
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

/// The family of a class, with layers of experts or without.
///
/// # Errors
/// [`Error::Unsupported`], with the classes that are known.
pub(super) fn find(class: &str, mixture: bool) -> Result<&'static Family> {
    let fits = |family: &&Family| {
        family.classes.contains(&class) && family.mixture.is_none_or(|needed| needed == mixture)
    };
    FAMILIES.iter().find(fits).ok_or_else(|| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_classes_are_told_of_with_those_that_are_known() {
        let error = find("MambaForCausalLM", false).err().unwrap().to_string();
        assert!(
            error.contains("\"MambaForCausalLM\"") && error.contains(", JinaBert, Llama, Ministral3, "),
            "{error}"
        );
    }

    #[test]
    fn no_class_is_listed_twice() {
        let classes = |family: &'static Family| family.classes.iter().map(|class| (class, family.mixture));
        let mut all: Vec<_> = FAMILIES.iter().flat_map(classes).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn prefixes_are_left_out_and_pictures_are_idle() {
        let name =
            |class: &str, name: &str| find(class, false).unwrap().rename(name).map(|renamed| renamed.name);
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
