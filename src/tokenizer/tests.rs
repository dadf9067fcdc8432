//! Tests on a small hand-made vocabulary: all bytes, a few merges, a few special tokens.
//! Parity with llama.cpp on a real one is in `tests/suite/tokenizer.rs`.

use super::{MAX_TEXT_BYTES, Tokenizer, TokenizerSource, bytes};
use crate::Error;
use crate::testing::growth::assert_linear;
use proptest::prelude::*;
use std::sync::LazyLock;

const MERGES: [&str; 6] = ["l l", "h e", "he ll", "hell o", "Ġ hello", "Ġ Ġ"];
const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";

/// Ids: bytes 0–255, merged tokens 256–261, then `<s>`, START, END, `<tool>` (user-defined), and one
/// without text.
fn source() -> TokenizerSource {
    let mut tokens: Vec<String> = bytes::CHARS.iter().map(char::to_string).collect();
    tokens.extend(MERGES.map(|merge| merge.replace(' ', "")));
    let mut token_types = vec![1; tokens.len()];
    for (text, kind) in [("<s>", 3), (START, 3), (END, 3), ("<tool>", 4), ("", 5)] {
        tokens.push(text.into());
        token_types.push(kind);
    }
    TokenizerSource {
        model: "gpt2".into(),
        pre: "gpt-2".into(),
        tokens,
        token_types,
        merges: MERGES.map(String::from).into(),
        bos: Some(262),
        eos: Some(264),
        ..TokenizerSource::default()
    }
}

const HELLO: u32 = 259;
const SPACE_HELLO: u32 = 260;
const BOS: u32 = 262;
const START_ID: u32 = 263;
const END_ID: u32 = 264;
const TOOL: u32 = 265;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::new(source()).unwrap());

fn refused(change: impl FnOnce(&mut TokenizerSource)) -> String {
    let mut source = source();
    change(&mut source);
    Tokenizer::new(source).unwrap_err().to_string()
}

#[test]
fn merges_by_rank_within_words() {
    let ids = TOKENIZER.encode("hello hello  hell", false, false).unwrap();
    assert_eq!(ids, [HELLO, SPACE_HELLO, b' '.into(), b' '.into(), 258]);
}

#[test]
fn control_tokens_come_from_text_only_when_asked_for() {
    let tokenizer = &*TOKENIZER;
    let text = format!("{START}hello{END}");
    assert_eq!(tokenizer.encode(&text, true, false).unwrap(), [START_ID, HELLO, END_ID]);
    let plain = tokenizer.encode(&text, false, false).unwrap();
    assert!(plain.iter().all(|&id| !tokenizer.is_control(id)));
    assert_eq!(tokenizer.decode(&plain, true).unwrap(), text);
}

#[test]
fn a_control_token_never_comes_out_of_a_whole_word() {
    // Llama 3's rules turn a word that is a token into this token, but not if it is a control token.
    let with = |pre: &str| {
        let mut source = source();
        source.pre = pre.into();
        source.tokens.push("secret".into());
        source.token_types.push(3);
        Tokenizer::new(source).unwrap()
    };
    let llama3 = with("llama-bpe");
    assert_eq!(llama3.encode("secret", true, false).unwrap(), [267]);
    assert_eq!(llama3.encode("secret", false, false).unwrap().len(), 6);
}

#[test]
fn user_defined_tokens_are_text_and_always_found() {
    let tokenizer = &*TOKENIZER;
    for parse_special in [false, true] {
        assert_eq!(tokenizer.encode("hello<tool>", parse_special, false).unwrap(), [HELLO, TOOL]);
    }
    assert_eq!(tokenizer.decode(&[HELLO, TOOL, END_ID], true).unwrap(), "hello<tool>");
    assert_eq!(tokenizer.decode(&[HELLO, TOOL, END_ID], false).unwrap(), format!("hello<tool>{END}"));
}

#[test]
fn the_longest_of_special_tokens_that_begin_together_is_taken() {
    let mut source = source();
    source.tokens.push("<tool><s>".into());
    source.token_types.push(3);
    let tokenizer = Tokenizer::new(source).unwrap();
    assert_eq!(tokenizer.encode("<tool><s><tool>", true, false).unwrap(), [267, TOOL]);
}

/// As llama.cpp: the BOS that the vocabulary wants is there once, whoever writes it; nothing else is added.
#[test]
fn a_conversation_gets_one_bos_where_the_vocabulary_wants_it() {
    for (pre, add_bos, wanted) in [
        ("llama-bpe", None, true),
        ("llama-bpe", Some(false), false),
        ("gpt-2", None, false),
        ("gpt-2", Some(true), true),
    ] {
        let source = TokenizerSource { pre: pre.into(), add_bos, add_eos: Some(true), ..source() };
        let tokenizer = Tokenizer::new(source).unwrap();
        assert_eq!(tokenizer.added_bos(), Some(BOS).filter(|_| wanted));
        for (text, plain) in [
            (format!("{START}hello"), vec![START_ID, HELLO]),
            (format!("<s>{START}hello"), vec![BOS, START_ID, HELLO]),
            (format!("{START}hello<s>"), vec![START_ID, HELLO, BOS]),
            ("<s>".into(), vec![BOS]),
            (String::new(), vec![]),
        ] {
            assert_eq!(tokenizer.encode_chat(&text, false).unwrap(), plain);
            let begins = plain.first() == Some(&BOS);
            let added = if wanted && !begins { vec![BOS] } else { vec![] };
            assert_eq!(tokenizer.encode_chat(&text, true).unwrap(), [added, plain].concat(), "{pre} {text}");
        }
    }
}

#[test]
fn bos_and_eos_are_added_as_the_file_says() {
    let encode = |pre: &str, add_bos, add_eos, add_special| {
        let source = TokenizerSource { pre: pre.into(), add_bos, add_eos, ..source() };
        Tokenizer::new(source).unwrap().encode("hello", false, add_special).unwrap()
    };
    assert_eq!(encode("gpt-2", None, None, true), [HELLO]);
    assert_eq!(encode("gpt-2", Some(true), None, true), [BOS, HELLO]);
    assert_eq!(encode("gpt-2", Some(true), Some(true), true), [BOS, HELLO, END_ID]);
    assert_eq!(encode("gpt-2", Some(true), Some(true), false), [HELLO]);
    assert_eq!(encode("llama-bpe", None, None, true), [BOS, HELLO]);
    assert_eq!(encode("llama-bpe", Some(false), None, true), [HELLO]);
}

#[test]
fn ends_of_generation_are_found_by_name_and_by_text() {
    let mut source = source();
    source.eos = Some(7);
    source.eot = Some(8);
    source.eom = Some(9);
    let tokenizer = Tokenizer::new(source).unwrap();
    let ends: Vec<u32> = (0..300).filter(|&id| tokenizer.is_end_of_generation(id)).collect();
    assert_eq!(ends, [7, 8, 9, END_ID]);
}

#[test]
fn a_token_has_a_name_and_bytes() {
    let tokenizer = &*TOKENIZER;
    assert_eq!(tokenizer.vocab_size(), 267);
    assert_eq!(tokenizer.id("Ġhello"), Some(SPACE_HELLO));
    assert_eq!(tokenizer.id(START), Some(START_ID));
    assert_eq!(tokenizer.id("<tool>"), Some(TOOL));
    assert_eq!(tokenizer.id("Ġ nothing"), None);
    assert_eq!(tokenizer.token_bytes(SPACE_HELLO).unwrap(), b" hello");
    assert_eq!(tokenizer.token_bytes(0xe2).unwrap(), [0xe2]);
    assert_eq!(tokenizer.token_bytes(266).unwrap(), b"");
    assert_eq!((tokenizer.bos_text(), tokenizer.eos_text()), ("<s>", END));
    for id in [267, u32::MAX] {
        let error = tokenizer.token_bytes(id).unwrap_err();
        assert_eq!(error.to_string(), format!("token {id} of a vocabulary of 267"));
        assert!(tokenizer.decode(&[HELLO, id], false).is_err());
        assert!(!tokenizer.is_control(id) && !tokenizer.is_end_of_generation(id));
    }
}

#[test]
fn an_ordinary_token_that_is_no_byte_level_text_stands_for_itself() {
    let mut source = source();
    source.tokens[266] = "漢Ġ".into();
    assert_eq!(Tokenizer::new(source).unwrap().token_bytes(266).unwrap(), "漢Ġ".as_bytes());
}

#[test]
fn bytes_without_a_token_are_dropped_and_nothing_merges_across_them() {
    let mut source = source();
    source.tokens[usize::from(b'z')] = "ẓ".into();
    let tokenizer = Tokenizer::new(source).unwrap();
    let l = u32::from(b'l');
    assert_eq!(tokenizer.encode("zlzlzz", false, false).unwrap(), [l, l]);
    assert!(tokenizer.encode("zzz", false, false).unwrap().is_empty());
}

#[test]
fn a_well_known_end_that_merging_makes_is_text() {
    // In Qwen's vocabulary `</s>` is a tag of HTML.
    let mut source = source();
    let n_tokens = source.tokens.len() as u32;
    for merge in ["< /", "s >", "</ s>"] {
        source.tokens.push(merge.replace(' ', ""));
        source.token_types.push(1);
        source.merges.push(merge.into());
    }
    let tokenizer = Tokenizer::new(source.clone()).unwrap();
    let id = n_tokens + 2;
    assert!(!tokenizer.is_end_of_generation(id) && !tokenizer.is_control(id));
    // The file names it as an end of text, and it is text all the same.
    source.eot = Some(id);
    let tokenizer = Tokenizer::new(source).unwrap();
    assert!(tokenizer.is_end_of_generation(id) && !tokenizer.is_control(id));
}

proptest! {
    #[test]
    fn any_text_comes_back(text in any::<String>(), parse_special in any::<bool>()) {
        let tokenizer = &*TOKENIZER;
        let ids = tokenizer.encode(&text, parse_special, true).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }

    #[test]
    fn any_tokens_decode_to_their_bytes(ids in prop::collection::vec(0u32..267, 0..50)) {
        let tokenizer = &*TOKENIZER;
        let mut bytes = b"kept".to_vec();
        tokenizer.decode_bytes(&ids, false, &mut bytes).unwrap();
        let each: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap()).copied().collect();
        prop_assert_eq!(&bytes[4..], &each);
        prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), String::from_utf8_lossy(&each));
    }
}

#[test]
fn contradictions_are_refused_by_name() {
    assert_eq!(
        refused(|source| source.model = "rwkv".into()),
        "not supported: tokenizer \"rwkv\" (tokenizer.ggml.model), so that only token ids can be given; \"gpt2\", \
         \"gemma4\", \"llama\", \"t5\" and \"bert\" are the known kinds"
    );
    assert!(refused(|source| source.pre = "martian".into()).contains("martian"));
    assert_eq!(
        refused(|source| (source.tokens, source.token_types, source.bos) = Default::default()),
        "bad file: the vocabulary is empty (tokenizer.ggml.tokens)"
    );
    assert!(refused(|source| source.token_types.truncate(9)).contains("9 token types for 267 tokens"));
    assert_eq!(refused(|source| source.bos = Some(267)), "bad file: bos token 267 of a vocabulary of 267");
    for change in [
        |source: &mut TokenizerSource| source.eos = Some(u32::MAX),
        |source: &mut TokenizerSource| source.eot = Some(u32::MAX),
        |source: &mut TokenizerSource| source.eom = Some(u32::MAX),
    ] {
        assert!(refused(change).contains("token 4294967295 of a vocabulary"));
    }
    assert!(refused(|source| (source.bos, source.add_bos) = (None, Some(true))).contains("add_bos_token"));
    assert!(refused(|source| (source.eos, source.add_eos) = (None, Some(true))).contains("add_eos_token"));
}

#[test]
fn tokens_that_are_there_twice_are_refused() {
    for (id, text) in [(260, "he"), (260, START), (264, START), (263, "hell"), (264, "<tool>")] {
        let message = refused(|source| source.tokens[id] = text.into());
        assert!(message.contains("are both") && message.contains(text), "{message}");
    }
}

#[test]
fn merges_that_make_no_sense_are_refused() {
    for merge in ["", "ab", " ab", "ab ", " "] {
        assert!(refused(|source| source.merges[2] = merge.into()).contains("merge 2 is no pair"));
    }
    assert!(refused(|source| source.merges[3] = "l l".into()).contains("merge 3 occurs twice"));
    // The left part, the right part or the result is no token.
    for merge in ["ab c", "a bc", "a b", "a b c"] {
        let message = refused(|source| source.merges[3] = merge.into());
        assert!(message.starts_with("bad file: tokenizer.ggml.merges: "), "{message}");
    }
    // A merge must not make a control token out of plain text.
    assert!(refused(|source| source.token_types[259] = 3).contains("hello"));
}

#[test]
fn a_vocabulary_without_specials_or_merges_works() {
    let tokens = bytes::CHARS.iter().map(char::to_string).collect();
    let source = TokenizerSource { model: "gpt2".into(), tokens, ..TokenizerSource::default() };
    let tokenizer = Tokenizer::new(source).unwrap();
    assert_eq!(tokenizer.encode("<é", true, true).unwrap(), [b'<'.into(), 0xc3, 0xa9]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.bos_text()), (None, None, ""));
}

#[test]
fn texts_beyond_the_limit_are_refused() {
    let error = TOKENIZER.encode(&"a".repeat(MAX_TEXT_BYTES + 1), false, false).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
}

#[test]
fn too_many_special_bytes_are_unsupported() {
    let message = refused(|source| source.tokens[263] = "x".repeat(super::MAX_SPECIAL_BYTES + 1));
    assert!(message.starts_with("not supported: special tokens"), "{message}");
}

#[test]
fn a_long_word_takes_no_quadratic_time() {
    // Naive merging walks the whole word for each merge.
    assert_linear("one word", 1 << 12, |size| {
        let ids = TOKENIZER.encode(&"hello".repeat(size), false, false).unwrap();
        assert_eq!(ids, vec![HELLO; size]);
    });
}

#[test]
#[should_panic(expected = "grew to")]
fn quadratic_time_would_be_noticed() {
    assert_linear("naive", 1 << 10, |size| {
        for from in 0..size {
            for at in from..size {
                std::hint::black_box(at);
            }
        }
    });
}
