//! The vocabulary of a model file as plain data, from which a tokenizer is built. It separates the tokenizer from file
//! metadata: [`TokenizerSource::from_metadata`] reads it from a file, and tests write it by hand.
//! [`super::Tokenizer::new`] checks it.

use super::VOCABULARY;
use crate::error::{Error, Result, quoted};
use crate::format::gguf::{Array, Metadata, Strings, Value};
use crate::memory::reserve::{collected, copied, copied_text};

/// A vocabulary and its settings, unchecked.
#[derive(Clone, Default, PartialEq)]
pub struct TokenizerSource {
    /// Kind of tokenizer (`tokenizer.ggml.model`): `"gpt2"` and `"gemma4"` are BPE by merges, `"llama"` is SentencePiece
    /// BPE, `"t5"` Unigram, `"bert"` WordPiece.
    pub model: String,
    /// The rules by which BPE cuts text into words before merging (`tokenizer.ggml.pre`); empty means `"default"`.
    pub pre: String,
    /// Whether an unknown `pre` means `"default"` too, instead of being an error.
    pub default_pre: bool,
    /// Text of each token, by id; in `"gpt2"`, ordinary tokens have a character for each byte, in the others U+2581 for
    /// spaces.
    pub tokens: Vec<String>,
    /// Score of each token, for `"llama"` and `"t5"`.
    pub scores: Vec<f32>,
    /// GGUF's type of each token, or empty: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// Pairs `"left right"`, the best one first.
    pub merges: Vec<String>,
    /// The token at the beginning of a sequence.
    pub bos: Option<u32>,
    /// The token at the end of a sequence.
    pub eos: Option<u32>,
    /// The token at the end of a turn.
    pub eot: Option<u32>,
    /// The token at the end of a message (of a tool call).
    pub eom: Option<u32>,
    /// The token of text that no other token stands for.
    pub unknown: Option<u32>,
    /// The token between two texts, which `"bert"` also appends to one.
    pub sep: Option<u32>,
    /// Whether `add_special` puts `bos` in front; `None` means the default of the kind and the pre-tokenizer.
    pub add_bos: Option<bool>,
    /// Whether `add_special` appends `eos`; `None` means the default of the kind.
    pub add_eos: Option<bool>,
    /// Whether text begins with a space, for `"llama"` and `"t5"`; `None` means the default of the kind.
    pub add_space_prefix: Option<bool>,
    /// Whether several spaces are one, for `"t5"`.
    pub remove_extra_whitespaces: bool,
    /// SentencePiece's compiled rules of normalisation, for `"t5"`; empty means none.
    pub precompiled_charsmap: Vec<u8>,
    /// Whether `"bert"` lowers the case of text; `None` means yes.
    pub lowercase: Option<bool>,
    /// Whether `"bert"` removes accents; `None` means where it lowers the case.
    pub strip_accents: Option<bool>,
    /// Special tokens to which spaces before them belong.
    pub strips_left: Vec<u32>,
    /// Special tokens to which spaces behind them belong.
    pub strips_right: Vec<u32>,
}

impl std::fmt::Debug for TokenizerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenizerSource")
            .field("model", &format_args!("{}", quoted(&self.model)))
            .field("pre", &format_args!("{}", quoted(&self.pre)))
            .field("tokens", &self.tokens.len())
            .field("merges", &self.merges.len())
            .finish_non_exhaustive()
    }
}

impl TokenizerSource {
    /// Reads the `tokenizer.ggml.*` keys. Absent keys leave a field empty; the vocabulary must not be absent.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the file says that it has no vocabulary;
    /// [`Error::Format`] where the vocabulary is absent or a key has a value of another type;
    /// [`Error::OutOfMemory`].
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let text = |key| copied_text(metadata.get_str(key)?.unwrap_or_default(), VOCABULARY);
        let id = |key| metadata.get_u32(key);
        let flag = |key| metadata.get_bool(key);
        let model = text("tokenizer.ggml.model")?;
        if matches!(model.as_str(), "none" | "no_vocab") {
            return Err(Error::Unsupported("the file has no vocabulary".into()));
        }
        // BERT's first token has a key of its own.
        let cls = if model == "bert" { id("tokenizer.ggml.cls_token_id")? } else { None };
        let merges = metadata.get_str_array("tokenizer.ggml.merges")?;
        let mut source = Self {
            pre: text("tokenizer.ggml.pre")?,
            default_pre: false,
            tokens: texts(metadata.require_str_array("tokenizer.ggml.tokens")?)?,
            scores: copied(metadata.get_f32_array("tokenizer.ggml.scores")?.unwrap_or_default(), VOCABULARY)?,
            token_types: copied(
                metadata.get_i32_array("tokenizer.ggml.token_type")?.unwrap_or_default(),
                VOCABULARY,
            )?,
            merges: merges.map(texts).transpose()?.unwrap_or_default(),
            bos: id("tokenizer.ggml.bos_token_id")?.or(cls),
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            unknown: id("tokenizer.ggml.unknown_token_id")?,
            // The key is misspelled in all files.
            sep: id("tokenizer.ggml.seperator_token_id")?,
            add_bos: flag("tokenizer.ggml.add_bos_token")?,
            add_eos: flag("tokenizer.ggml.add_eos_token")?,
            add_space_prefix: flag("tokenizer.ggml.add_space_prefix")?,
            remove_extra_whitespaces: flag("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
            precompiled_charsmap: charsmap(metadata)?,
            lowercase: flag("tokenizer.ggml.normalizer.lowercase")?,
            strip_accents: flag("tokenizer.ggml.normalizer.strip_accents")?,
            strips_left: Vec::new(),
            strips_right: Vec::new(),
            model,
        };
        source.read_strips(metadata)?;
        Ok(source)
    }

    /// Files don't say to which special tokens the spaces around them belong: it follows from names, as in llama.cpp.
    fn read_strips(&mut self, metadata: &Metadata) -> Result<()> {
        let name = metadata.get_str("general.name")?.unwrap_or_default().to_ascii_lowercase();
        let architecture = metadata.get_str("general.architecture")?.unwrap_or_default();
        let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let with_mask = any(&self.pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
            || any(architecture, &["nomic-bert-moe", "jina-bert-v3"]);
        let mask = if with_mask { "<mask>" } else { "[MASK]" };
        let phi3 = any(&name, &["phi-3", "phi3"]);
        if with_mask || (!phi3 && name.contains("modern-bert")) {
            let id = self.tokens.iter().position(|text| text == mask);
            self.strips_left = collected(id.map(|id| Ok(id as u32)), VOCABULARY)?;
        } else if phi3 {
            let special = |(id, text): (usize, &String)| {
                let special = matches!(self.token_types.get(id), Some(2..=4)) || text == "</s>";
                let kept = matches!(text.as_str(), "<unk>" | "<s>" | "<|endoftext|>");
                (special && !kept).then_some(Ok(id as u32))
            };
            self.strips_right = collected(self.tokens.iter().enumerate().filter_map(special), VOCABULARY)?;
        }
        Ok(())
    }

    /// The ids with a role, and its name.
    pub(super) fn roles(&self) -> [(&'static str, Option<u32>); 6] {
        [
            ("bos", self.bos),
            ("eos", self.eos),
            ("eot", self.eot),
            ("eom", self.eom),
            ("unknown", self.unknown),
            ("sep", self.sep),
        ]
    }
}

/// The compiled rules of normalisation; empty where the key is absent.
fn charsmap(metadata: &Metadata) -> Result<Vec<u8>> {
    const KEY: &str = "tokenizer.ggml.precompiled_charsmap";
    match metadata.get(KEY) {
        None => Ok(Vec::new()),
        Some(Value::Array(Array::U8(bytes))) => copied(bytes, VOCABULARY),
        Some(Value::Array(Array::I8(bytes))) => {
            collected(bytes.iter().map(|&byte| Ok(byte as u8)), VOCABULARY)
        }
        Some(_) => Err(Error::format(format!("metadata key {KEY} is no array of bytes"))),
    }
}

fn texts(strings: &Strings) -> Result<Vec<String>> {
    collected(strings.iter().map(|text| copied_text(text, VOCABULARY)), VOCABULARY)
}
