//! Tests of the kinds of vocabularies other than byte-level BPE, on small hand-made ones.
//! What llama.cpp makes of real ones is in `tests/suite/vocabularies.rs`.

use super::{Tokenizer, TokenizerSource};
use crate::testing::growth::assert_linear;

/// A vocabulary of tokens with their types and scores.
fn source(model: &str, tokens: &[(&str, i32, f32)]) -> TokenizerSource {
    TokenizerSource {
        model: model.into(),
        tokens: tokens.iter().map(|(text, ..)| (*text).into()).collect(),
        token_types: tokens.iter().map(|&(_, kind, _)| kind).collect(),
        scores: tokens.iter().map(|&(.., score)| score).collect(),
        ..TokenizerSource::default()
    }
}

fn refused(source: TokenizerSource) -> String {
    Tokenizer::new(source).unwrap_err().to_string()
}

fn sentencepiece() -> TokenizerSource {
    let mut tokens = vec![("<unk>", 2, 0.0), ("<s>", 3, 0.0), ("</s>", 3, 0.0)];
    tokens.extend([("\u{2581}", 1, -9.0), ("a", 1, -9.0), ("b", 1, -9.0), ("c", 1, -9.0)]);
    tokens.extend([
        ("ab", 1, -1.0),
        ("bc", 1, -1.0),
        ("\u{2581}a", 1, -2.0),
        ("abc", 1, -3.0),
        ("<x>", 4, 0.0),
    ]);
    let mut source = source("llama", &tokens);
    for byte in 0..=255_u8 {
        source.tokens.push(format!("<0x{byte:02X}>"));
        source.token_types.push(6);
        source.scores.push(0.0);
    }
    source
}

/// The id of the first byte.
const BYTES: u32 = 12;

#[test]
fn sentencepiece_merges_by_score_and_the_leftmost_of_equals() {
    let tokenizer = Tokenizer::new(sentencepiece()).unwrap();
    let encode = |text: &str| tokenizer.encode(text, false, false).unwrap();
    // "ab" and "bc" have one score: "ab" is first, and then "abc" is there; behind the space, "▁a" is worse.
    assert_eq!(encode("abc"), [3, 10]);
    assert_eq!(encode("bcc"), [3, 8, 6]);
    assert_eq!(encode("a a"), [9, 9]);
    // A character without a token becomes its bytes.
    assert_eq!(encode("é"), [3, BYTES + 0xc3, BYTES + 0xa9]);
    assert_eq!(encode("\n"), [3, BYTES + 10]);
    assert!(encode("").is_empty());
}

#[test]
fn sentencepiece_puts_a_space_in_front_and_takes_it_away() {
    let tokenizer = Tokenizer::new(sentencepiece()).unwrap();
    // BOS is added by default, and behind a special token the text begins again.
    assert_eq!(tokenizer.encode("a<s>a", true, true).unwrap(), [1, 9, 1, 9]);
    assert_eq!(tokenizer.encode("a<x>a", false, false).unwrap(), [9, 11, 9]);
    for text in ["a", " a", "abc é", "  "] {
        let ids = tokenizer.encode(text, false, true).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        assert_eq!(tokenizer.decode(&ids[1..], false).unwrap(), text);
    }
    assert_eq!(tokenizer.token_bytes(9).unwrap(), b" a");
    let plain = Tokenizer::new(TokenizerSource { add_space_prefix: Some(false), ..sentencepiece() }).unwrap();
    assert_eq!(plain.encode("a", false, false).unwrap(), [4]);
    assert_eq!(plain.decode(&[9], false).unwrap(), " a");
}

#[test]
fn sentencepiece_makes_no_control_token_nor_byte_of_text() {
    let mut source = sentencepiece();
    for text in ["<", "s", ">", "<s", "0", "x", "A", "<0", "<0x", "<0x0", "<0x0A"] {
        source.tokens.push(text.into());
        source.token_types.push(1);
        source.scores.push(-1.0);
    }
    let tokenizer = Tokenizer::new(source).unwrap();
    for text in ["<s>", "<0x0A>"] {
        let ids = tokenizer.encode(text, false, false).unwrap();
        assert!(ids.len() > 2 && ids.iter().all(|&id| id != 1 && id != BYTES + 10), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }
    assert_eq!(tokenizer.encode("<s>", true, false).unwrap(), [1]);
    assert_eq!(tokenizer.id("<0x0A>"), Some(BYTES + 10));
}

fn unigram() -> TokenizerSource {
    let tokens = [
        ("<pad>", 3, 0.0),
        ("</s>", 3, 0.0),
        ("<unk>", 2, 0.0),
        ("\u{2581}", 1, -4.0),
        ("a", 1, -4.0),
        ("b", 1, -4.0),
        ("ab", 1, -5.0),
        ("\u{2581}a", 1, -2.0),
        ("bb", 1, -9.0),
        ("<x>", 4, -50.0),
    ];
    let mut source = source("t5", &tokens);
    source.add_space_prefix = Some(true);
    source.remove_extra_whitespaces = true;
    source
}

#[test]
fn unigram_takes_the_best_sum_of_scores() {
    let tokenizer = Tokenizer::new(unigram()).unwrap();
    let encode = |text: &str| tokenizer.encode(text, false, false).unwrap();
    // "▁a" + "b" is -6, "▁" + "ab" -9.
    assert_eq!(encode("ab"), [7, 5]);
    assert_eq!(encode("bb"), [3, 5, 5]);
    // Unknown characters side by side are one token; spaces are one, and at the end none.
    assert_eq!(encode("  xyz   a<x> "), [3, 2, 7, 9]);
    assert!(encode("").is_empty() && encode(" ").is_empty());
    assert_eq!(tokenizer.encode("a", false, true).unwrap(), [7, 1]);
    assert_eq!(tokenizer.decode(&[7, 5, 7, 1], true).unwrap(), "ab a");
}

fn wordpiece() -> TokenizerSource {
    let tokens =
        ["[CLS]", "[SEP]", "[UNK]", "\u{2581}un", "\u{2581}a", "able", "b", "\u{2581}!", "\u{2581}中"];
    let tokens = tokens.map(|text| (text, if text.starts_with('[') { 3 } else { 1 }, 0.0));
    let mut source = source("bert", &tokens);
    (source.bos, source.sep, source.unknown) = (Some(0), Some(1), Some(2));
    source
}

#[test]
fn wordpiece_takes_the_longest_pieces_of_simplified_words() {
    let tokenizer = Tokenizer::new(wordpiece()).unwrap();
    let encode = |text: &str| tokenizer.encode(text, false, false).unwrap();
    assert_eq!(encode("UNáble a!\u{0}b"), [3, 5, 4, 7, 2]);
    // A word of which a part has no token is unknown as a whole.
    assert_eq!(encode("unx ab\u{ad}b 中a"), [2, 4, 6, 6, 8, 4]);
    assert!(encode(" \n").is_empty());
    assert_eq!(tokenizer.encode("a", false, true).unwrap(), [0, 4, 1]);
    assert_eq!(tokenizer.decode(&[0, 3, 5, 4, 1], true).unwrap(), "unable a");
    let cased = Tokenizer::new(TokenizerSource { lowercase: Some(false), ..wordpiece() }).unwrap();
    assert_eq!(cased.encode("UN un á", false, false).unwrap(), [2, 3, 2]);
}

#[test]
fn gemma_keeps_lines_and_spells_spaces() {
    let mut tokens: Vec<_> = ["<bos>", "<eos>"].map(|text| (text, 3, 0.0)).into();
    tokens.extend(["\u{2581}", "a", "b", "ab", "\u{2581}ab", "\n", "\n\n"].map(|text| (text, 1, 0.0)));
    let mut source = source("gemma4", &tokens);
    source.merges = ["a b", "\u{2581} ab"].map(String::from).into();
    (source.bos, source.eos) = (Some(0), Some(1));
    for byte in 0..=255_u8 {
        source.tokens.push(format!("<0x{byte:02X}>"));
        source.token_types.push(6);
        source.scores.push(0.0);
    }
    let tokenizer = Tokenizer::new(source).unwrap();
    let text = "ab ab\n\na\n\n\né";
    let ids = tokenizer.encode(text, false, true).unwrap();
    assert_eq!(ids, [0, 5, 6, 8, 3, 7, 7, 7, 9 + 0xc3, 9 + 0xa9]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
}

#[test]
fn contradictions_of_the_other_kinds_are_refused() {
    let scores = |mut source: TokenizerSource, scores: &[f32]| {
        source.scores = scores.into();
        refused(source)
    };
    for source in [sentencepiece(), unigram()] {
        assert!(scores(source.clone(), &[0.0]).contains("1 scores for"));
        assert!(scores(source.clone(), &[]).contains("has no scores"));
        let bad = vec![f32::NAN; source.tokens.len()];
        assert!(scores(source, &bad).contains("the score of token 0 is no number"));
    }
    for mut source in [sentencepiece(), unigram(), wordpiece()] {
        source.tokens[5] = source.tokens[4].clone();
        let message = refused(source.clone());
        assert!(message.contains("tokens 4 and 5 are both"), "{message}");
        source.tokens[5] = source.tokens[2].clone();
        assert!(refused(source.clone()).contains("are both"));
        source.unknown = Some(9999);
        assert!(refused(source).contains("unknown token 9999 of a vocabulary of"));
    }
    assert!(refused(TokenizerSource { sep: Some(9999), ..wordpiece() }).contains("sep token 9999"));
    // Too few tokens for the default ids.
    assert!(refused(TokenizerSource { unknown: None, ..wordpiece() }).contains("no unknown token"));
    assert!(refused(TokenizerSource { sep: None, ..wordpiece() }).contains("asks for a token"));
    let rules = TokenizerSource { precompiled_charsmap: vec![1, 2, 3], ..unigram() };
    assert_eq!(refused(rules), "bad file: tokenizer.ggml.precompiled_charsmap is broken");
}

#[test]
fn spaces_around_special_tokens_belong_to_them_where_the_source_says() {
    let source = TokenizerSource { strips_left: vec![11], strips_right: vec![1], ..sentencepiece() };
    let tokenizer = Tokenizer::new(source).unwrap();
    assert_eq!(tokenizer.encode("<s> \n a  <x> a", true, false).unwrap(), [1, 9, 11, 3, 9]);
}

#[test]
fn long_texts_take_linear_time() {
    for (kind, source) in [("llama", sentencepiece()), ("t5", unigram()), ("bert", wordpiece())] {
        let tokenizer = Tokenizer::new(source).unwrap();
        for unit in ["ab", "abc ", " ", "é", "中", "b", "!"] {
            assert_linear(&format!("{kind} {unit}"), 1 << 12, |size| {
                tokenizer.encode(&unit.repeat(size / unit.len()), false, false).unwrap();
            });
        }
    }
}

#[test]
fn some_ends_of_other_models_are_none() {
    let with = |texts: &[&str]| {
        let mut source = sentencepiece();
        for (text, kind) in texts.iter().zip([3, 3, 1]) {
            source.tokens.push((*text).into());
            source.token_types.push(kind);
            source.scores.push(0.0);
        }
        let tokenizer = Tokenizer::new(source.clone()).unwrap();
        let ends = (0..).zip(&source.tokens).filter(|&(id, _)| tokenizer.is_end_of_generation(id));
        ends.map(|(_, text)| text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(with(&["<|return|>", "<|call|>", "<|end|>"]), ["</s>", "<|return|>", "<|call|>"]);
    assert_eq!(with(&["<|return|>", "<x1>", "<|end|>"]), ["</s>", "<|return|>", "<|end|>"]);
    // The default end of the kind, which the file doesn't name.
    assert_eq!(with(&["<|tool_response>"]), ["</s>", "<|tool_response>"]);
}
