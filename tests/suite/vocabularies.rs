//! Tokens of every kind of vocabulary and every family of pre-tokenizers, held to llama.cpp's
//! (`tests/goldens/vocabularies/`). With the folder of its vocabularies (`models/` in its source) in
//! `SMALLMIND_VOCABULARIES`, also its own pairs of texts and tokens.

use crate::common::golden_path;
use crate::common::growth::assert_linear;
use serde_json::Value;
use smallmind::format::gguf::Gguf;
use smallmind::tokenizer::{Tokenizer, TokenizerSource};
use std::path::Path;

fn source(path: &Path) -> TokenizerSource {
    let gguf = Gguf::open_path(path).unwrap();
    TokenizerSource::from_metadata(gguf.metadata()).unwrap()
}

/// A small vocabulary, with another pre-tokenizer if one is named.
fn small(file: &str, pre: Option<&str>) -> Tokenizer {
    let mut source = source(&golden_path(&format!("vocabularies/{file}.gguf")));
    if let Some(pre) = pre {
        source.pre = pre.into();
    }
    Tokenizer::new(source).unwrap()
}

fn lists(value: &Value) -> impl Iterator<Item = Vec<u32>> + '_ {
    let ids = |list: &Value| list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    value.as_array().unwrap().iter().map(ids)
}

/// Texts in which plain text has a control token's or a byte's name: llama.cpp makes that token of them, if merging
/// leads there, which plain text must not do.
fn names_a_token(tokenizer: &Tokenizer, ids: &[u32]) -> bool {
    ids.iter().any(|&id| tokenizer.is_control(id))
}

#[test]
fn every_kind_gives_llama_cpps_tokens() {
    let goldens: Value =
        serde_json::from_slice(&std::fs::read(golden_path("vocabularies/ids.json")).unwrap()).unwrap();
    let texts: Vec<&str> =
        goldens["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let mut compared = 0;
    for case in goldens["cases"].as_array().unwrap() {
        let (file, pre) = (case["file"].as_str().unwrap(), case["pre"].as_str());
        let tokenizer = small(file, pre);
        for (key, special) in [("plain", false), ("special", true)] {
            let Some(expected) = case.get(key) else { continue };
            for (text, expected) in texts.iter().zip(lists(expected)) {
                let encoded = tokenizer.encode(text, special, special).unwrap();
                if special || !names_a_token(&tokenizer, &expected) {
                    assert_eq!(encoded, expected, "{file} {pre:?} {key} {text:?}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 2200, "{compared} texts");
}

#[test]
fn a_megabyte_of_anything_takes_linear_time() {
    let prose = "The quick brown fox jumps over 13 lazy dogs; naïve café, 漢字 and 😀. It's\n\n";
    for file in ["bpe", "gemma4", "sentencepiece", "unigram", "wordpiece"] {
        let tokenizer = small(file, None);
        for unit in [prose, "a", " ", "\n", "漢", "\u{301}"] {
            assert_linear(&format!("{file} {unit:?}"), 1 << 14, |size| {
                let ids = tokenizer.encode(&unit.repeat(size / unit.len()), true, true).unwrap();
                tokenizer.decode(&ids, false).unwrap();
            });
        }
    }
}

#[test]
fn llama_cpps_own_pairs() {
    let Some(folder) = std::env::var_os("SMALLMIND_VOCABULARIES") else { return };
    let (mut vocabularies, mut pairs) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with("ggml-vocab-") || !name.ends_with(".gguf") {
            continue;
        }
        vocabularies += 1;
        let tokenizer = Tokenizer::new(source(&path)).unwrap();
        let beside = |ending| std::fs::read_to_string(format!("{}.{ending}", path.display()));
        let Ok(texts) = beside("inp") else { continue };
        let expected = beside("out").unwrap();
        for (text, line) in texts.split("\n__ggml_vocab_test__\n").zip(expected.lines()) {
            let expected: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(tokenizer.encode(text, false, false).unwrap(), expected, "{name} {text:?}");
            pairs += 1;
        }
    }
    assert!(vocabularies >= 19 && pairs >= 690, "{vocabularies} vocabularies, {pairs} pairs");
}
