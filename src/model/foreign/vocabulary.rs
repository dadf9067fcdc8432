//! The vocabulary of a folder (`tokenizer.json`, `tokenizer_config.json`) as GGUF's keys: byte-level BPE, BPE of
//! SentencePiece's vocabularies, Unigram, and WordPiece.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::config::Settings;
use super::folder::Folder;
use super::pieces;
use super::rules::{kind_of, rules, steps};
use crate::error::{Error, Result, at, quoted};
use crate::format::gguf::{Array, Metadata, Strings, Value};
use crate::memory::reserve::filled;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";
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
    let (settings, generation) = (folder.settings(CONFIG)?, folder.settings(GENERATION)?);
    let (settings, generation) = (settings.as_ref(), generation.as_ref());
    vocabulary.insert_special(metadata, &Stated { config, settings, generation, json: &tokenizer })?;
    vocabulary.insert(metadata)?;
    insert_template(metadata, folder, settings)
}

/// The files that tell of tokens with a purpose.
struct Stated<'a> {
    config: &'a Settings,
    settings: Option<&'a Settings>,
    generation: Option<&'a Settings>,
    /// `tokenizer.json`.
    json: &'a Json,
}

impl Stated<'_> {
    /// A token that `tokenizer_config.json` names.
    fn named(&self, name: &str) -> Option<&Json> {
        self.settings?.get(name)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.settings?.get(key)?.as_bool()
    }
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
    /// Whether a space goes in front of a text.
    spaces: Option<bool>,
    /// Compiled rules of normalisation.
    rules: Vec<u8>,
    /// Whether letters become small, and lose their accents.
    letters: [Option<bool>; 2],
}

fn object<'a>(json: &'a Json, key: &str) -> Result<&'a Map<String, Json>> {
    let found = json.get(key).and_then(Json::as_object);
    found.ok_or_else(|| Error::format(format!("no object {}", quoted(key))))
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
                let whole_words = model.get("ignore_merges").and_then(Json::as_bool).unwrap_or(false);
                vocabulary.pre = Some(rules(&steps, whole_words));
                vocabulary.merges = Some(merges(model)?);
            }
            "BPE" => {
                vocabulary.become_sentence_piece(model)?;
                vocabulary.spaces = Some(pieces::begins_with_space(tokenizer));
            }
            "Unigram" => {
                vocabulary.become_unigram(model)?;
                vocabulary.spaces = Some(pieces::begins_with_space(tokenizer));
                vocabulary.rules = pieces::normalisation(tokenizer)?;
            }
            "WordPiece" => {
                vocabulary.become_word_piece();
                vocabulary.letters = pieces::letters(tokenizer);
            }
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
        match model.get("vocab") {
            // Unigram's tokens stand at their ids, with scores.
            Some(Json::Array(list)) => {
                for (id, token) in (0..).zip(list) {
                    let text = token.get(0).and_then(Json::as_str).unwrap_or_default();
                    put(text, Some(id), kind::NORMAL, false)?;
                }
            }
            _ => {
                for (text, id) in object(model, "vocab")? {
                    put(text, id.as_u64(), kind::NORMAL, false)?;
                }
            }
        }
        for added in tokenizer.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
            let text = added.get("content").and_then(Json::as_str).unwrap_or_default();
            let special = added.get("special").and_then(Json::as_bool).unwrap_or(false);
            let id = added.get("id").and_then(Json::as_u64);
            match special || pieces::looks_special(text) {
                true => put(text, id, kind::CONTROL, true)?,
                // These are found in the text as it is, before spaces are marked.
                false => put(&text.replace('\u{2581}', " "), id, kind::USER_DEFINED, true)?,
            }
        }
        let (merges, scores, spaces, rules) = (None, None, None, Vec::new());
        Ok(Self { model: "", pre: None, tokens, types, merges, scores, spaces, rules, letters: [None; 2] })
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

    /// Unigram's scores, and which token is unknown.
    fn become_unigram(&mut self, model: &Json) -> Result<()> {
        self.model = "t5";
        let mut scores = filled(-10_000.0f32, self.tokens.len(), WHAT)?;
        let list = model.get("vocab").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        for (id, (token, score)) in list.iter().zip(&mut scores).enumerate() {
            let number = token.get(1).and_then(Json::as_f64);
            *score = number.ok_or_else(|| Error::format(format!("token {id} has no score")))? as f32;
        }
        let unknown = model.get("unk_id").and_then(Json::as_u64).unwrap_or(u64::MAX);
        if let Some(ty) = usize::try_from(unknown).ok().and_then(|id| self.types.get_mut(id)) {
            *ty = kind::UNKNOWN;
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

    /// The tokens with a purpose, and whether one goes in front of a text or behind it.
    fn insert_special(&self, metadata: &mut Metadata, stated: &Stated<'_>) -> Result<()> {
        let named = |name: &str| stated.named(name).and_then(|token| self.id(token));
        let own = |key: &str| self.listed(stated.config, key).first().copied();
        // Where a text begins and ends with tokens of BERT's names, those are the beginning and the end.
        let bos = named("bos_token").or(named("cls_token")).or(own("bos_token_id"));
        let turn = named("eos_token").or(named("sep_token")).or(own("eos_token_id"));
        let around = pieces::ends(stated.json);
        let around = around.map(|ends| ends.map(|end| end.and_then(|text| self.id(&Json::String(text)))));
        // A text's last token may be another one than that which ends a turn.
        let eos = around.and_then(|[_, last]| last).or(turn);
        let listed = [stated.generation, Some(stated.config)].into_iter().flatten();
        let mut others = Vec::new();
        for id in turn.into_iter().chain(listed.flat_map(|from| self.listed(from, "eos_token_id"))) {
            if Some(id) != eos && !others.contains(&id) {
                others.push(id);
            }
        }
        let unknown = self.types.iter().position(|&ty| ty == kind::UNKNOWN).map(|id| id as u32);
        for (key, id) in [
            ("bos_token_id", bos),
            ("eos_token_id", eos),
            ("eot_token_id", others.first().copied()),
            ("eom_token_id", others.get(1).copied()),
            ("unknown_token_id", named("unk_token").or(own("unk_token_id")).or(unknown)),
            ("seperator_token_id", named("sep_token").or(own("sep_token_id"))),
            ("padding_token_id", named("pad_token").or(own("pad_token_id"))),
            ("cls_token_id", named("cls_token").or(own("cls_token_id"))),
            ("mask_token_id", named("mask_token").or(own("mask_token_id"))),
        ] {
            if let Some(id) = id {
                metadata.insert(format!("tokenizer.ggml.{key}"), Value::U32(id))?;
            }
        }
        let first = around.map(|[first, _]| first.is_some() && first == bos);
        let adds_bos = stated.flag("add_bos_token").or(first).map(|adds| adds && bos.is_some());
        let last = around.map(|[_, last]| last.is_some());
        let adds_eos =
            stated.flag("add_eos_token").filter(|&adds| adds).or(last).map(|adds| adds && eos.is_some());
        for (key, adds) in [("add_bos_token", adds_bos), ("add_eos_token", adds_eos)] {
            if let Some(adds) = adds {
                metadata.insert(format!("tokenizer.ggml.{key}"), Value::Bool(adds))?;
            }
        }
        Ok(())
    }

    /// The ids of a key that has one or a list of them; those that are in the vocabulary.
    fn listed(&self, settings: &Settings, key: &str) -> Vec<u32> {
        let Some(value) = settings.get(key) else { return Vec::new() };
        let ids = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let ids = ids.iter().filter_map(Json::as_u64).filter(|&id| id < self.tokens.len() as u64);
        ids.map(|id| id as u32).collect()
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
        let [small, plain] = self.letters;
        for (key, flag) in [
            ("add_space_prefix", self.spaces),
            // Unigram's writers have runs of spaces become one.
            ("remove_extra_whitespaces", (self.model == "t5").then_some(true)),
            ("normalizer.lowercase", small),
            ("normalizer.strip_accents", plain),
        ] {
            if let Some(flag) = flag {
                metadata.insert(format!("tokenizer.ggml.{key}"), Value::Bool(flag))?;
            }
        }
        if !self.rules.is_empty() {
            let rules = Value::Array(Array::U8(self.rules));
            metadata.insert("tokenizer.ggml.precompiled_charsmap".into(), rules)?;
        }
        Ok(())
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
        let mut metadata = Metadata::new();
        let config = Settings::read("config.json".into(), br#"{"eos_token_id": [2, 1]}"#).unwrap();
        let stated = Stated { config: &config, settings: None, generation: None, json: &tokenizer };
        vocabulary.insert_special(&mut metadata, &stated).unwrap();
        // The template around a text has only one token, in front of it.
        for (key, id) in [("eos_token_id", Some(2)), ("eot_token_id", Some(1)), ("eom_token_id", None)] {
            assert_eq!(metadata.get_u32(&format!("tokenizer.ggml.{key}")).unwrap(), id, "{key}");
        }
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
        assert!(refused(json!({"model": {"type": "Words", "vocab": {}}}), 6).contains("\"Words\""));
        let unscored = json!({"model": {"type": "Unigram", "vocab": [["a", 0.5], ["b"]]}});
        assert!(refused(unscored, 6).contains("token 1 has no score"));
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
