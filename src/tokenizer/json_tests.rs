//! Tests of `tokenizer.json` on small hand-made ones.

use super::{JsonConfig, Tokenizer};
use crate::Error;
use crate::testing::growth::assert_linear;
use serde_json::{Value, json};

fn added(id: u32, text: &str, special: bool) -> Value {
    json!({
        "id": id, "content": text, "special": special,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    })
}

/// Byte-level BPE that puts `<s>` in front, and would cut a text to two tokens.
fn byte_level() -> Value {
    json!({
        "version": "1.0",
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": null,
        "added_tokens": [added(8, "<s>", true), added(9, "<tool>", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4, "<": 5, "s": 6, ">": 7},
            "merges": ["a b", "Ġ ab"],
        },
    })
}

fn read(json: &Value, config: &JsonConfig<'_>) -> Tokenizer {
    Tokenizer::from_json(json.to_string().as_bytes(), config).unwrap()
}

fn refused(json: &Value, config: &JsonConfig<'_>) -> String {
    Tokenizer::from_json(json.to_string().as_bytes(), config).unwrap_err().to_string()
}

#[test]
fn byte_level_bpe_with_its_special_tokens() {
    let config = JsonConfig {
        tokenizer_config: Some(br#"{"bos_token": {"content": "<s>"}, "eos_token": "<tool>"}"#),
        generation_config: Some(br#"{"bos_token_id": 0, "eos_token_id": [9, 2]}"#),
        n_vocab: Some(12),
    };
    let tokenizer = read(&byte_level(), &config);
    assert_eq!(tokenizer.encode("ab ab<s>a", true, true).unwrap(), [8, 2, 4, 8, 0]);
    assert_eq!(tokenizer.encode("ab<s><tool>", false, false).unwrap(), [2, 5, 6, 7, 9]);
    assert_eq!(tokenizer.encode_chat("<s>ab", true).unwrap(), [8, 2]);
    assert_eq!(tokenizer.encode_marked("<s>a<\u{1}s>b", '\u{1}', true).unwrap(), [8, 0, 5, 6, 7, 1]);
    assert_eq!((tokenizer.bos(), tokenizer.added_bos(), tokenizer.eos()), (Some(8), Some(8), Some(9)));
    assert_eq!(tokenizer.decode(&[8, 2, 4, 9], true).unwrap(), "ab ab<tool>");
    assert_eq!((tokenizer.id("Ġab"), tokenizer.id("<tool>"), tokenizer.id("x")), (Some(4), Some(9), None));
    assert!(tokenizer.is_control(8) && !tokenizer.is_control(9) && !tokenizer.is_control(2));
    let ends: Vec<u32> = (0..12).filter(|&id| tokenizer.is_end_of_generation(id)).collect();
    assert_eq!(ends, [2, 9]);
    // Rows of the embedding without a token.
    assert_eq!((tokenizer.vocab_size(), tokenizer.token_bytes(11).unwrap()), (12, &b""[..]));
    let bare = read(&byte_level(), &JsonConfig::default());
    assert_eq!((bare.vocab_size(), bare.bos(), bare.added_bos()), (10, None, None));
}

#[test]
fn sentencepiece_like_bpe_gives_bytes_and_takes_its_space_away() {
    let mut json = byte_level();
    json["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first"});
    json["post_processor"] = Value::Null;
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    json["model"]["vocab"] =
        json!({"\u{2581}": 0, "a": 1, "\u{2581}a": 2, "<0xC3>": 3, "<0xA9>": 4, "<s>": 5});
    json["model"]["merges"] = json!(["\u{2581} a"]);
    json["model"]["byte_fallback"] = true.into();
    let tokenizer = read(&json, &JsonConfig::default());
    let ids = tokenizer.encode("a aé", false, true).unwrap();
    assert_eq!(ids, [2, 2, 3, 4]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a aé");
    assert_eq!(tokenizer.token_bytes(4).unwrap(), [0xa9]);
    assert_eq!(tokenizer.token_bytes(2).unwrap(), b" a");
}

#[test]
fn wordpiece_joins_what_continues_a_word() {
    let mut json = byte_level();
    json["added_tokens"] = json!([added(0, "[UNK]", true)]);
    json["pre_tokenizer"] = json!({"type": "BertPreTokenizer"});
    json["post_processor"] = Value::Null;
    json["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    json["model"] = json!({
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "un": 1, "##able": 2},
    });
    let tokenizer = read(&json, &JsonConfig::default());
    let ids = tokenizer.encode("unable un x", false, true).unwrap();
    assert_eq!(ids, [1, 2, 1, 0]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "unable un");
}

#[test]
fn files_that_are_no_tokenizers_are_refused() {
    let none = JsonConfig::default();
    for bad in [&b""[..], b"{}", b"[1]", b"\xff", b"{\"model\": {\"type\": \"BPE\"}}"] {
        assert!(matches!(Tokenizer::from_json(bad, &none), Err(Error::Format(_))));
    }
    let rows = |n_vocab| refused(&byte_level(), &JsonConfig { n_vocab: Some(n_vocab), ..none });
    assert_eq!(rows(9), "bad file: token 9 in tokenizer.json; ids must be below 9");
    let mut json = byte_level();
    json["model"]["vocab"]["a"] = 2.into();
    assert!(refused(&json, &none).contains("token 2 occurs twice"));
    json["model"]["vocab"]["a"] = u32::MAX.into();
    assert!(refused(&json, &none).contains("token 4294967295"));
    json = byte_level();
    json["model"]["merges"] = json!(["a z"]);
    assert!(refused(&json, &none).starts_with("bad file: tokenizer.json: "));
    json = byte_level();
    json["decoder"] = json!({"type": "BPEDecoder", "suffix": "</w>"});
    assert_eq!(refused(&json, &none), "not supported: the decoder in tokenizer.json");
    let config = JsonConfig { tokenizer_config: Some(b"{"), ..none };
    assert!(refused(&byte_level(), &config).starts_with("bad file: tokenizer_config.json: "));
}

#[test]
fn long_texts_take_linear_time() {
    let mut json = byte_level();
    let pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    let tokenizer = read(&json, &JsonConfig::default());
    for unit in ["ab", " ", "\n ", "ab ", "<s>"] {
        assert_linear(unit, 1 << 10, |size| {
            let text = unit.repeat(size / unit.len()) + "a";
            tokenizer.encode(&text, true, false).unwrap();
        });
    }
}
