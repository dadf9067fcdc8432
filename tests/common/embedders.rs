//! Small embedders and rerankers with a vocabulary: models of `tests/goldens/families` whose 128 tokens are WordPieces.

use std::sync::Arc;

use super::families::Family;
use super::gguf_writer::strings;
use smallmind::format::BytesSource;
use smallmind::format::gguf::{Array, Value};
use smallmind::model::{LoadParams, Model};

/// Ids of special tokens.
pub const CLS: u32 = 2;
pub const SEP: u32 = 3;

/// Loads a model's file.
pub fn load(family: &Family) -> smallmind::Result<Arc<Model>> {
    Model::from_source(Arc::new(BytesSource::new("embedder", family.file())), &LoadParams::default())
}

/// The model of that name as it is, without a vocabulary.
pub fn bare(name: &str) -> Arc<Model> {
    load(&Family::read(name)).expect("a model")
}

/// The family of that name with a vocabulary of letters.
pub fn family(name: &str) -> Family {
    let mut family = Family::read(name);
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(str::to_owned);
    let letters = ('a'..='z').flat_map(|letter| [format!("\u{2581}{letter}"), letter.to_string()]);
    let mut tokens: Vec<String> = special.into_iter().chain(letters).collect();
    tokens.extend([":", "_", "|", "."].map(|sign| format!("\u{2581}{sign}")));
    tokens.extend((tokens.len()..128).map(|i| format!("\u{2581}<{i}>")));
    let types = (0..tokens.len()).map(|i| if i < 4 { 3 } else { 1 }).collect();
    let pairs = [
        ("tokenizer.ggml.model", Value::Str("bert".into())),
        ("tokenizer.ggml.pre", Value::Str("jina-v2-en".into())),
        ("tokenizer.ggml.tokens", strings(tokens.iter().map(String::as_str))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.unknown_token_id", Value::U32(1)),
        ("tokenizer.ggml.seperator_token_id", Value::U32(SEP)),
        ("tokenizer.ggml.padding_token_id", Value::U32(0)),
        ("tokenizer.ggml.cls_token_id", Value::U32(CLS)),
    ];
    family.pairs.extend(pairs.map(|(key, value)| (key.to_owned(), value)));
    family
}

/// [`family`], loaded.
pub fn with_vocabulary(name: &str) -> Arc<Model> {
    load(&family(name)).expect("a model")
}
