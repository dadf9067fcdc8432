//! The tokenizer of the real model, held to llama.cpp's answers (`tests/goldens/tokenizer.json`).
//! Also: its special tokens, and that time grows with any kind of text no more than it must.

use crate::common::growth::assert_linear;
use crate::common::{golden_path, model};
use serde_json::Value;
use smallmind::format::gguf::Gguf;
use smallmind::tokenizer::Tokenizer;
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let gguf = Gguf::open_path(model::smollm2()).unwrap();
    Tokenizer::from_metadata(gguf.metadata()).unwrap()
});

fn goldens() -> Value {
    let path = golden_path("tokenizer.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn awkward_strings_are_llama_cpps() {
    let goldens = goldens();
    let cases = goldens["cases"].as_array().unwrap();
    assert!(cases.len() >= 50);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        for (parse_special, key) in [(false, "plain"), (true, "special")] {
            let encoded = TOKENIZER.encode(text, parse_special, true).unwrap();
            assert_eq!(encoded, ids(&case[key]), "{key} of {text:?}");
        }
        let special = ids(&case["special"]);
        assert_eq!(TOKENIZER.decode(&ids(&case["plain"]), false).unwrap(), case["plain_text"], "{text:?}");
        assert_eq!(TOKENIZER.decode(&special, false).unwrap(), case["special_text"], "{text:?}");
        assert_eq!(TOKENIZER.decode(&special, true).unwrap(), case["hidden_text"], "{text:?}");
    }
}

#[test]
fn special_tokens_have_their_roles() {
    assert_eq!(TOKENIZER.vocab_size(), 49_152);
    assert_eq!((TOKENIZER.bos(), TOKENIZER.eos()), (Some(1), Some(2)));
    assert_eq!((TOKENIZER.bos_text(), TOKENIZER.eos_text()), ("<|im_start|>", "<|im_end|>"));
    assert_eq!(TOKENIZER.id("<|endoftext|>"), Some(0));
    // <|endoftext|>, <|im_end|> and <reponame>, as llama.cpp's log prints them on loading this model.
    let ends: Vec<u32> = (0..49_152).filter(|&id| TOKENIZER.is_end_of_generation(id)).collect();
    assert_eq!(ends, [0, 2, 4]);
    let control: Vec<u32> = (0..49_152).filter(|&id| TOKENIZER.is_control(id)).collect();
    assert_eq!(control, (0..17).collect::<Vec<_>>());
}

#[test]
fn every_token_but_the_controls_encodes_to_its_own_bytes() {
    for id in 17..49_152 {
        let bytes = TOKENIZER.token_bytes(id).unwrap();
        if let Ok(text) = std::str::from_utf8(bytes) {
            let encoded = TOKENIZER.encode(text, false, false).unwrap();
            assert_eq!(TOKENIZER.decode(&encoded, false).unwrap(), text);
        }
    }
}

#[test]
fn a_megabyte_of_anything_takes_linear_time() {
    let prose = "The quick brown fox jumps over 13 lazy dogs; naïve café, 漢字 and 😀. It's\n\n";
    for unit in [prose, "a", " ", "\n", "7", "<|", "<|im_end|>", "漢"] {
        assert_linear(unit, 1 << 14, |size| {
            let text = unit.repeat(size / unit.len());
            let ids = TOKENIZER.encode(&text, true, true).unwrap();
            assert!(TOKENIZER.decode(&ids, false).unwrap() == text, "{unit}");
        });
    }
}
