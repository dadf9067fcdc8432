//! The parts of `tokenizer.json` around a vocabulary: normalisation, the space in front of a text, the tokens around it.

use serde_json::Value as Json;

use super::rules::{kind_of, steps};
use crate::error::{Error, Result};
use crate::memory::reserve::with_room;

/// Whether an added token is one that only templates write, though the file doesn't say so.
pub(super) fn looks_special(text: &str) -> bool {
    let between = |begin, end| text.starts_with(begin) && text.ends_with(end);
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}

/// Whether a space goes in front of a text.
pub(super) fn begins_with_space(tokenizer: &Json) -> bool {
    let prepends = steps(tokenizer.get("normalizer")).iter().any(|step| kind_of(step) == "Prepend");
    let before = steps(tokenizer.get("pre_tokenizer"));
    prepends
        || before.iter().any(|step| {
            let scheme = step.get("prepend_scheme").and_then(Json::as_str);
            let flag = step.get("add_prefix_space").and_then(Json::as_bool).unwrap_or(true);
            kind_of(step) == "Metaspace" && scheme.map_or(flag, |scheme| scheme != "never")
        })
}

/// Whether BERT's normalisation makes letters small, and takes their accents.
pub(super) fn letters(tokenizer: &Json) -> [Option<bool>; 2] {
    let mut letters = [None, None];
    for step in steps(tokenizer.get("normalizer")) {
        let flag = |key: &str| step.get(key).and_then(Json::as_bool);
        match kind_of(step) {
            "Lowercase" => letters[0] = Some(true),
            "StripAccents" => letters[1] = Some(true),
            "BertNormalizer" => letters = [flag("lowercase"), flag("strip_accents")],
            _ => {}
        }
    }
    letters
}

/// SentencePiece's compiled rules of normalisation; empty without any.
pub(super) fn normalisation(tokenizer: &Json) -> Result<Vec<u8>> {
    let rules = steps(tokenizer.get("normalizer"))
        .into_iter()
        .find_map(|step| step.get("precompiled_charsmap").and_then(Json::as_str));
    rules.map_or(Ok(Vec::new()), of_base64)
}

/// The bytes of a text in base 64 (RFC 4648).
fn of_base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = with_room(text.len() / 4 * 3 + 3, "rules of normalisation")?;
    let (mut held, mut count) = (0u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let digit = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(Error::format("\"precompiled_charsmap\" is no text in base 64")),
        };
        held = held << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((held >> count) as u8);
        }
    }
    Ok(bytes)
}

/// The tokens that the template around a text puts in front of it and behind it; `None` without such a template.
pub(super) fn ends(tokenizer: &Json) -> Option<[Option<String>; 2]> {
    let processors = steps(tokenizer.get("post_processor"));
    let processor = processors.iter().find_map(|step| match kind_of(step) {
        "TemplateProcessing" => {
            let template = step.get("single")?.as_array()?;
            let token =
                |part: Option<&'_ Json>| part?.get("SpecialToken")?.get("id")?.as_str().map(str::to_owned);
            // A template of one part has no end of its own.
            let last = template.last().filter(|_| template.len() > 1);
            Some([token(template.first()), token(last)])
        }
        "RobertaProcessing" | "BertProcessing" => {
            let token = |key: &str| step.get(key)?.get(0)?.as_str().map(str::to_owned);
            Some([token("cls"), token("sep")])
        }
        _ => None,
    });
    match processor {
        None if processors.is_empty() => None,
        // Byte-level processing puts nothing around a text.
        other => Some(other.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn base_64_becomes_bytes() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg==", b"f"), ("Zm9v", b"foo"), ("Zm9vYg==", b"foob"), ("+/8=", &[251, 255])]
        {
            assert_eq!(of_base64(text).unwrap(), bytes, "{text}");
        }
        assert!(of_base64("Zm 9v").unwrap_err().to_string().contains("base 64"));
    }

    #[test]
    fn tokens_around_a_text_are_those_of_its_template() {
        let around = |processor: Json| ends(&json!({"post_processor": processor}));
        let special = |text: &str| json!({"SpecialToken": {"id": text}});
        let text = json!({"Sequence": {"id": "A"}});
        let both = json!({"type": "TemplateProcessing", "single": [special("<s>"), text, special("</s>")]});
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(around(both.clone()), Some([owned("<s>"), owned("</s>")]));
        let sequence = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, both]});
        assert_eq!(around(sequence), Some([owned("<s>"), owned("</s>")]));
        let last = json!({"type": "TemplateProcessing", "single": [text, special("</s>")]});
        assert_eq!(around(last), Some([None, owned("</s>")]));
        assert_eq!(around(json!({"type": "ByteLevel"})), Some([None, None]));
        assert_eq!(
            around(json!({"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 2]})),
            Some([owned("<s>"), owned("</s>")])
        );
        assert_eq!(around(Json::Null), None);
    }

    #[test]
    fn spaces_in_front_follow_from_the_steps() {
        let spaced = |tokenizer: Json| begins_with_space(&tokenizer);
        assert!(spaced(json!({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend"}]}})));
        assert!(spaced(json!({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "always"}})));
        assert!(spaced(json!({"pre_tokenizer": {"type": "Metaspace", "add_prefix_space": true}})));
        assert!(!spaced(json!({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"}})));
        assert!(!spaced(json!({"normalizer": {"type": "Replace"}, "pre_tokenizer": null})));
    }
}
