//! The rules by which words are cut, in `tokenizer.json` as steps with patterns, in GGUF as a name.

use serde_json::Value as Json;

use crate::error::shortened;

/// Most characters of a pattern that an error shows.
const SHOWN: usize = 60;

/// Patterns, without possessive quantifiers and line breaks, and GGUF's names for them: where a word that is a token becomes
/// this token regardless of merges, and where it doesn't.
const PATTERNS: &[(&str, [&str; 2])] = &[
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ["llama-bpe", "dbrx"],
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ["qwen2", "qwen2"],
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ["qwen35", "qwen35"],
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ["tekken", "tekken"],
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ["gpt-4o", "gpt-4o"],
    ),
    (
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ["deepseek-v3", "deepseek-v3"],
    ),
    ("[0-9][0-9][0-9]", ["falcon", "falcon"]),
];

/// The value of `type` in an object.
pub(super) fn kind_of(json: &Json) -> &str {
    json.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// The steps of a sequence, or the one that stands alone.
pub(super) fn steps(json: Option<&Json>) -> Vec<&Json> {
    let Some(json) = json.filter(|json| !json.is_null()) else { return Vec::new() };
    let within =
        ["pretokenizers", "processors", "normalizers"].into_iter().find_map(|key| json.get(key)?.as_array());
    within.map_or_else(|| vec![json], |steps| steps.iter().collect())
}

/// GGUF's name for the rules. Rules without one keep their pattern as a name, which is told when the vocabulary is read.
pub(super) fn rules(steps: &[&Json], whole_words: bool) -> String {
    let flag = |step: &Json, key: &str| step.get(key).and_then(Json::as_bool).unwrap_or(false);
    let mut patterns = steps.iter().filter(|step| kind_of(step) == "Split").filter_map(|step| {
        let pattern = step.get("pattern")?;
        pattern.get("Regex").or(pattern.get("String"))?.as_str()
    });
    // The last pattern tells the rules apart; some have others for digits in front.
    if let Some(last) = patterns.next_back() {
        let plain = last.replace("?+", "?").replace("++", "+").replace('\r', "\\r").replace('\n', "\\n");
        let known = PATTERNS.iter().find(|(pattern, _)| *pattern == plain);
        return match known {
            Some((_, [whole, merged])) => (if whole_words { *whole } else { *merged }).into(),
            None => shortened(last, SHOWN).to_owned(),
        };
    }
    // Absent, the pattern of GPT-2 is applied.
    let gpt2 = |step: &Json| {
        kind_of(step) == "ByteLevel" && step.get("use_regex").is_none_or(|regex| regex != false)
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_have_the_names_of_gguf() {
        let pre = |pre_tokenizer: Json, whole| rules(&steps(Some(&pre_tokenizer)), whole);
        let bytes = |regex: bool| json!({"type": "ByteLevel", "use_regex": regex});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}});
        let sequence = |steps: &[Json]| json!({"type": "Sequence", "pretokenizers": steps});
        assert_eq!(pre(json!({"type": "ByteLevel", "add_prefix_space": false}), false), "gpt-2");
        let digits = json!({"type": "Digits", "individual_digits": true});
        assert_eq!(pre(sequence(&[digits, bytes(true)]), false), "smollm");
        for (pattern, [whole, merged]) in PATTERNS {
            assert_eq!(pre(sequence(&[split(pattern), bytes(false)]), true), *whole);
            assert_eq!(pre(sequence(&[split(r"\p{N}{1,3}"), split(pattern), bytes(false)]), false), *merged);
        }
        // Possessive, and with line breaks instead of their escapes.
        let other = PATTERNS[0].0.replace(r"]+[\r\n]*", "]++[\r\n]*");
        assert_eq!(pre(sequence(&[split(&other), bytes(false)]), true), "llama-bpe");
        assert_eq!(pre(sequence(&[split("[abc]"), bytes(false)]), false), "[abc]");
        assert_eq!(pre(bytes(false), false), "ByteLevel");
    }
}
