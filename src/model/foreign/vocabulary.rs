//! The vocabulary of a folder (`tokenizer.json`, `tokenizer_config.json`) as GGUF's keys: byte-level BPE, BPE of
//! SentencePiece's vocabularies, and WordPiece.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::config::Settings;
use super::folder::Folder;
use crate::error::{Error, Result, at, quoted, shortened};
use crate::format::gguf::{Array, Metadata, Strings, Value};
use crate::memory::reserve::filled;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const WHAT: &str = "the vocabulary";

/// GGUF's types of tokens.
mod kind {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// Most tokens of a vocabulary: the largest have some hundred thousand.
const MAX_TOKENS: u64 = 1 << 24;
/// Most characters of a pattern that an error shows.
const SHOWN: usize = 60;

/// Patterns by which words are cut, and GGUF's names for them.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Adds the vocabulary's keys to those of a model whose embedding has `rows` rows. A folder without `tokenizer.json` has
/// none.
pub(super) fn insert(
    metadata: &mut Metadata,
    folder: &Folder<'_>,
    config: &Settings,
    rows: u64,
) -> Result<()> {
    if let Some(types) = config.count("type_vocab_size")? {
        metadata.insert("tokenizer.ggml.token_type_count".into(), Value::U32(types))?;
    }
    let Some(tokenizer) = folder.json(TOKENIZER)? else {
        return metadata.insert("tokenizer.ggml.model".into(), Value::Str("no_vocab".into()));
    };
    let vocabulary = Vocabulary::read(&tokenizer, rows).map_err(at(|| folder.name(TOKENIZER)))?;
    let settings = folder.settings(CONFIG)?;
    let settings = settings.as_ref();
    vocabulary.insert_special(metadata, config, settings, &tokenizer)?;
    vocabulary.insert(metadata)?;
    insert_template(metadata, folder, settings)?;
    Ok(())
}

/// Tokens by id.
struct Vocabulary {
    /// GGUF's name of the kind of tokenizer.
    model: &'static str,
    /// GGUF's name of the rules by which words are cut.
    pre: Option<String>,
    tokens: Vec<Option<String>>,
    types: Vec<i32>,
    merges: Option<Strings>,
    scores: Option<Vec<f32>>,
}

fn object<'a>(json: &'a Json, key: &str) -> Result<&'a Map<String, Json>> {
    let found = json.get(key).and_then(Json::as_object);
    found.ok_or_else(|| Error::format(format!("no object {}", quoted(key))))
}

/// The value of `type` in an object.
fn kind_of(json: &Json) -> &str {
    json.get("type").and_then(Json::as_str).unwrap_or_default()
}

impl Vocabulary {
    fn read(tokenizer: &Json, rows: u64) -> Result<Self> {
        let model = tokenizer.get("model").ok_or_else(|| Error::format("no object \"model\""))?;
        // Older files don't state the type of BPE.
        let kind = if model.get("merges").is_some() { "BPE" } else { kind_of(model) };
        let steps = steps(tokenizer.get("pre_tokenizer"));
        let by_bytes = steps.iter().any(|step| kind_of(step) == "ByteLevel");
        let mut vocabulary = Self::tokens(tokenizer, model, rows)?;
        match kind {
            "BPE" if by_bytes => {
                vocabulary.model = "gpt2";
                vocabulary.pre = Some(rules(&steps));
                vocabulary.merges = Some(merges(model)?);
            }
            "BPE" => vocabulary.become_sentence_piece(model)?,
            "WordPiece" => vocabulary.become_word_piece(),
            other => return Err(Error::Unsupported(format!("a vocabulary of the kind {}", quoted(other)))),
        }
        Ok(vocabulary)
    }

    /// Texts and types by id, of the model's tokens and of those that were added.
    fn tokens(tokenizer: &Json, model: &Json, rows: u64) -> Result<Self> {
        if rows > MAX_TOKENS {
            return Err(Error::format(format!(
                "an embedding of {rows} rows; at most {MAX_TOKENS} are taken"
            )));
        }
        let mut tokens = filled(None, rows as usize, WHAT)?;
        let mut types = filled(kind::UNUSED, rows as usize, WHAT)?;
        let mut put = |text: &str, id: Option<u64>, ty: i32, again: bool| {
            let wrong = |what: String| Error::format(format!("token {}: {what}", quoted(text)));
            let id = id.ok_or_else(|| wrong("its id is no number".into()))?;
            let Some(place) = usize::try_from(id).ok().filter(|&id| id < tokens.len()) else {
                return Err(wrong(format!("its id is {id}, but the embedding has {rows} rows")));
            };
            if let Some(other) =
                tokens[place].replace(text.to_owned()).filter(|other| other != text && !again)
            {
                return Err(wrong(format!("{} has the same id, {id}", quoted(&other))));
            }
            types[place] = ty;
            Ok(())
        };
        for (text, id) in object(model, "vocab")? {
            put(text, id.as_u64(), kind::NORMAL, false)?;
        }
        for added in tokenizer.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
            let text = added.get("content").and_then(Json::as_str).unwrap_or_default();
            let special = added.get("special").and_then(Json::as_bool).unwrap_or(false);
            let ty = if special { kind::CONTROL } else { kind::USER_DEFINED };
            put(text, added.get("id").and_then(Json::as_u64), ty, true)?;
        }
        Ok(Self { model: "", pre: None, tokens, types, merges: None, scores: None })
    }

    /// SentencePiece merges the pair whose token has the highest score: the earlier its merge, the higher.
    fn become_sentence_piece(&mut self, model: &Json) -> Result<()> {
        self.model = "llama";
        let mut scores = filled(0.0f32, self.tokens.len(), WHAT)?;
        let mut ranks = HashMap::new();
        for (rank, merge) in merges(model)?.iter().enumerate() {
            let merged = merge.split_once(' ').map(|(left, right)| format!("{left}{right}"));
            ranks.entry(merged.unwrap_or_default()).or_insert(rank);
        }
        for ((token, score), ty) in self.tokens.iter().zip(&mut scores).zip(&mut self.types) {
            let Some(token) = token else { continue };
            if *ty == kind::NORMAL && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>') {
                *ty = kind::BYTE;
            } else if token == "<unk>" {
                *ty = kind::UNKNOWN;
            }
            *score = ranks.get(token).map_or(-1e6, |&rank| -(rank as f32));
        }
        self.scores = Some(scores);
        Ok(())
    }

    /// GGUF marks the beginnings of words, where WordPiece marks what continues one.
    fn become_word_piece(&mut self) {
        self.model = "bert";
        for (token, ty) in self.tokens.iter_mut().zip(&mut self.types) {
            if let Some(token) = token.as_mut().filter(|_| *ty == kind::NORMAL) {
                *token = match token.strip_prefix("##") {
                    Some(rest) => rest.to_owned(),
                    None => format!("\u{2581}{token}"),
                };
            }
        }
    }

    /// The id of a token as `tokenizer_config.json` names it: a text, or an object with one.
    fn id(&self, token: &Json) -> Option<u32> {
        let text = token.as_str().or(token.get("content").and_then(Json::as_str))?;
        self.tokens.iter().position(|token| token.as_deref() == Some(text)).map(|id| id as u32)
    }

    /// The tokens with a purpose, and whether one goes in front.
    fn insert_special(
        &self,
        metadata: &mut Metadata,
        config: &Settings,
        settings: Option<&Settings>,
        tokenizer: &Json,
    ) -> Result<()> {
        for (name, key) in [
            ("bos_token", "bos_token_id"),
            ("eos_token", "eos_token_id"),
            ("unk_token", "unknown_token_id"),
            ("sep_token", "seperator_token_id"),
            ("pad_token", "padding_token_id"),
            ("cls_token", "cls_token_id"),
            ("mask_token", "mask_token_id"),
        ] {
            let named = settings.and_then(|settings| settings.get(name)).and_then(|token| self.id(token));
            // The model's own configuration has ids, of which the first counts.
            let own = config.get(key).map(|id| id.get(0).unwrap_or(id)).and_then(Json::as_u64);
            let own = own.filter(|&id| id < self.tokens.len() as u64).map(|id| id as u32);
            if let Some(id) = named.or(own) {
                metadata.insert(format!("tokenizer.ggml.{key}"), Value::U32(id))?;
            }
        }
        let stated =
            settings.map(|settings| settings.get("add_bos_token").and_then(Json::as_bool)).unwrap_or(None);
        let bos = settings.and_then(|settings| settings.get("bos_token"));
        if let Some(adds) = stated.or_else(|| bos.and_then(|bos| begins_with(tokenizer, bos))) {
            metadata.insert("tokenizer.ggml.add_bos_token".into(), Value::Bool(adds))?;
        }
        Ok(())
    }

    fn insert(self, metadata: &mut Metadata) -> Result<()> {
        let mut tokens = Strings::default();
        for (id, token) in self.tokens.iter().enumerate() {
            match token {
                Some(token) => tokens.push(token)?,
                None => tokens.push(&format!("[PAD{id}]"))?,
            }
        }
        metadata.insert("tokenizer.ggml.model".into(), Value::Str(self.model.into()))?;
        if let Some(pre) = self.pre {
            metadata.insert("tokenizer.ggml.pre".into(), Value::Str(pre))?;
        }
        metadata.insert("tokenizer.ggml.tokens".into(), Value::Array(Array::Str(tokens)))?;
        metadata.insert("tokenizer.ggml.token_type".into(), Value::Array(Array::I32(self.types)))?;
        if let Some(merges) = self.merges {
            metadata.insert("tokenizer.ggml.merges".into(), Value::Array(Array::Str(merges)))?;
        }
        if let Some(scores) = self.scores {
            metadata.insert("tokenizer.ggml.scores".into(), Value::Array(Array::F32(scores)))?;
        }
        Ok(())
    }
}

/// Whether the template that is put around a text begins with a token; `None` without such a template.
fn begins_with(tokenizer: &Json, token: &Json) -> Option<bool> {
    let text = token.as_str().or(token.get("content").and_then(Json::as_str))?;
    let processors = steps(tokenizer.get("post_processor"));
    let template = processors.into_iter().find(|step| kind_of(step) == "TemplateProcessing")?;
    let first = template.get("single")?.as_array()?.first()?;
    Some(first.get("SpecialToken").and_then(|token| token.get("id")).and_then(Json::as_str) == Some(text))
}

/// The steps of a sequence, or the one that stands alone.
fn steps(json: Option<&Json>) -> Vec<&Json> {
    let Some(json) = json.filter(|json| !json.is_null()) else { return Vec::new() };
    let within = ["pretokenizers", "processors"].into_iter().find_map(|key| json.get(key)?.as_array());
    within.map_or_else(|| vec![json], |steps| steps.iter().collect())
}

/// GGUF's name for the rules by which words are cut. Rules without one keep their pattern as a name, which is told when
/// the vocabulary is read.
fn rules(steps: &[&Json]) -> String {
    let flag = |step: &Json, key: &str| step.get(key).and_then(Json::as_bool).unwrap_or(false);
    let pattern = steps.iter().filter(|step| kind_of(step) == "Split").find_map(|step| {
        let pattern = step.get("pattern")?;
        pattern.get("Regex").or(pattern.get("String"))?.as_str()
    });
    // Absent, the pattern of GPT-2 is applied.
    let gpt2 = |step: &Json| {
        kind_of(step) == "ByteLevel" && step.get("use_regex").is_none_or(|regex| regex != false)
    };
    match pattern {
        Some(LLAMA3) => return "llama-bpe".into(),
        Some(QWEN2) => return "qwen2".into(),
        Some(other) => return shortened(other, SHOWN).to_owned(),
        None => {}
    }
    match steps {
        [bytes] if gpt2(bytes) => "gpt-2".into(),
        [digits, bytes]
            if kind_of(digits) == "Digits" && flag(digits, "individual_digits") && gpt2(bytes) =>
        {
            "smollm".into()
        }
        _ => {
            let kinds: Vec<_> = steps.iter().map(|step| kind_of(step)).collect();
            shortened(&kinds.join(", "), SHOWN).to_owned()
        }
    }
}

/// The merges as GGUF has them: `"left right"`.
fn merges(model: &Json) -> Result<Strings> {
    let list = model.get("merges").and_then(Json::as_array);
    let list = list.ok_or_else(|| Error::format("no list \"merges\""))?;
    let mut merges = Strings::default();
    for (i, merge) in list.iter().enumerate() {
        let pair = merge.as_array().map(Vec::as_slice).unwrap_or_default();
        match (merge, pair) {
            (Json::String(text), _) => merges.push(text)?,
            (_, [Json::String(left), Json::String(right)]) => merges.push(&format!("{left} {right}"))?,
            _ => return Err(Error::format(format!("merge {i} is no pair of texts"))),
        }
    }
    Ok(merges)
}

/// The chat template: a file of its own, or a text, or the one called `default` of several.
fn insert_template(metadata: &mut Metadata, folder: &Folder<'_>, settings: Option<&Settings>) -> Result<()> {
    let own = folder.read(TEMPLATE)?.map(|text| {
        String::from_utf8(text).map_err(|_| Error::format(format!("{}: not UTF-8", folder.name(TEMPLATE))))
    });
    let stated = settings.and_then(|settings| settings.get("chat_template"));
    let named = |templates: &Json| {
        let is_default = |template: &&Json| template.get("name").and_then(Json::as_str) == Some("default");
        templates.as_array()?.iter().find(is_default)?.get("template")?.as_str().map(str::to_owned)
    };
    let stated = stated.and_then(|stated| stated.as_str().map(str::to_owned).or_else(|| named(stated)));
    match own.transpose()?.or(stated) {
        Some(template) => metadata.insert("tokenizer.chat_template".into(), Value::Str(template)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pre(pre_tokenizer: Json) -> String {
        rules(&steps(Some(&pre_tokenizer)))
    }

    #[test]
    fn rules_have_the_names_of_gguf() {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "use_regex": regex});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}});
        let sequence = |steps: &[Json]| json!({"type": "Sequence", "pretokenizers": steps});
        assert_eq!(pre(json!({"type": "ByteLevel", "add_prefix_space": false})), "gpt-2");
        assert_eq!(
            pre(sequence(&[json!({"type": "Digits", "individual_digits": true}), bytes(true)])),
            "smollm"
        );
        assert_eq!(pre(sequence(&[split(LLAMA3), bytes(false)])), "llama-bpe");
        assert_eq!(pre(sequence(&[split(QWEN2), bytes(false)])), "qwen2");
        assert_eq!(pre(sequence(&[split("[abc]"), bytes(false)])), "[abc]");
        assert_eq!(pre(bytes(false)), "ByteLevel");
    }

    fn byte_level(vocab: Json, merges: Json) -> Json {
        json!({
            "added_tokens": [{"id": 3, "content": "<s>", "special": true}, {"id": 4, "content": "x", "special": false}],
            "pre_tokenizer": {"type": "ByteLevel"},
            "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]},
            "model": {"type": "BPE", "vocab": vocab, "merges": merges}
        })
    }

    #[test]
    fn tokens_stand_at_their_ids() {
        let tokenizer = byte_level(json!({"a": 0, "b": 1, "ab": 2}), json!([["a", "b"]]));
        let vocabulary = Vocabulary::read(&tokenizer, 6).unwrap();
        assert_eq!(vocabulary.types, [1, 1, 1, 3, 4, 5]);
        assert_eq!(begins_with(&tokenizer, &json!("<s>")), Some(true));
        assert_eq!(begins_with(&tokenizer, &json!({"content": "a"})), Some(false));
        let mut metadata = Metadata::new();
        let config = Settings::read("config.json".into(), br#"{"eos_token_id": [2, 1]}"#).unwrap();
        vocabulary.insert_special(&mut metadata, &config, None, &tokenizer).unwrap();
        assert_eq!(metadata.get_u32("tokenizer.ggml.eos_token_id").unwrap(), Some(2));
        vocabulary.insert(&mut metadata).unwrap();
        let texts: Vec<_> = metadata.require_str_array("tokenizer.ggml.tokens").unwrap().iter().collect();
        assert_eq!(texts, ["a", "b", "ab", "<s>", "x", "[PAD5]"]);
        let merges = metadata.require_str_array("tokenizer.ggml.merges").unwrap();
        assert_eq!(merges.iter().collect::<Vec<_>>(), ["a b"]);
    }

    #[test]
    fn contradictions_are_named() {
        let refused =
            |tokenizer: Json, rows: u64| Vocabulary::read(&tokenizer, rows).err().unwrap().to_string();
        let good = || byte_level(json!({"a": 0, "b": 1, "ab": 2}), json!(["a b"]));
        assert!(refused(good(), 4).contains("\"x\": its id is 4, but the embedding has 4 rows"));
        assert!(refused(good(), u64::MAX).contains("at most"));
        assert!(refused(byte_level(json!({"a": 0, "b": 0}), json!([])), 6).contains("has the same id, 0"));
        assert!(refused(byte_level(json!({"a": "0"}), json!([])), 6).contains("no number"));
        assert!(refused(byte_level(json!({"a": 0}), json!([7])), 6).contains("merge 0"));
        assert!(refused(json!({"model": {"type": "Unigram", "vocab": {}}}), 6).contains("\"Unigram\""));
        assert!(refused(json!({}), 6).contains("\"model\""));
    }

    #[test]
    fn word_pieces_mark_beginnings() {
        let tokenizer = json!({
            "added_tokens": [{"id": 0, "content": "[CLS]", "special": true}],
            "model": {"type": "WordPiece", "vocab": {"[CLS]": 0, "the": 1, "##s": 2}}
        });
        let vocabulary = Vocabulary::read(&tokenizer, 3).unwrap();
        let tokens: Vec<_> = vocabulary.tokens.iter().flatten().map(String::as_str).collect();
        assert_eq!((vocabulary.model, &tokens[..]), ("bert", &["[CLS]", "\u{2581}the", "s"][..]));
    }

    #[test]
    fn earlier_merges_score_higher() {
        let tokenizer = json!({
            "model": {"type": "BPE", "byte_fallback": true, "merges": ["a b", "ab c"],
                "vocab": {"<unk>": 0, "<0x0A>": 1, "a": 2, "ab": 3, "abc": 4}}
        });
        let vocabulary = Vocabulary::read(&tokenizer, 5).unwrap();
        assert_eq!(vocabulary.types, [2, 6, 1, 1, 1]);
        let scores = vocabulary.scores.unwrap();
        assert!(scores[3] > scores[4] && scores[4] > scores[2], "{scores:?}");
    }
}
