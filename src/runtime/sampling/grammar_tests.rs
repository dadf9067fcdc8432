//! Texts under grammars, with random logits in the place of a model: every one matches, and every refusal is an error.
//! The public suite of JSON schemas is fetched by `tests/fetch-json-schemas.sh`; without it, its test says that it is skipped.

use super::{
    ChainParts, Grammar, GrammarKind, Grammars, MAX_GRAMMAR_BYTES, Mask, Sampler, SamplerParams, StageKind,
    TokenSet,
};
use crate::model::{LoadParams, Model};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, LazyLock};

static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf/untied-mixed.gguf");
    Model::open(&path, &LoadParams::default()).unwrap()
});

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| Grammars::new(MODEL.clone()).unwrap());

fn compile(kind: GrammarKind, text: &str) -> Grammar {
    GRAMMARS.compile(kind, text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(kind: GrammarKind, text: &str) -> String {
    GRAMMARS.compile(kind, text).err().map(|error| error.to_string()).unwrap_or_default()
}

fn n_vocab() -> usize {
    MODEL.tokenizer().unwrap().vocab_size()
}

fn sampler(grammar: Grammar, seed: u64) -> Sampler {
    let params = SamplerParams::default().with_seed(seed).with_top_k(0).with_temperature(1.5);
    let parts = ChainParts::default().with_mask(Box::new(grammar));
    Sampler::from_stages(params.chain(&StageKind::ORDER, parts).unwrap(), n_vocab()).unwrap()
}

/// Logits of a step: any numbers, but tokens that close something are likelier, so that texts end.
fn logits(seed: u64, step: usize) -> Vec<f32> {
    let tokenizer = MODEL.tokenizer().unwrap();
    let ends = |token| {
        let bytes = tokenizer.token_bytes(token).unwrap();
        tokenizer.is_end_of_generation(token) || bytes.iter().any(|byte| b"\"]}".contains(byte))
    };
    let spread = |token: u32| {
        let mixed = (u64::from(token) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (seed << 20) ^ step as u64;
        (mixed.wrapping_mul(0xd134_2543_de82_ef95) >> 40) as f32 / (1 << 22) as f32
    };
    (0..n_vocab() as u32)
        .map(|token| spread(token) + if ends(token) { 1.0 + step as f32 / 20.0 } else { 0.0 })
        .collect()
}

/// A text under a grammar; with `jump`, forced tokens are accepted without sampling. `None` where it doesn't end.
fn write(grammar: Grammar, seed: u64, jump: bool) -> Option<(String, usize)> {
    let tokenizer = MODEL.tokenizer().unwrap();
    let mut sampler = sampler(grammar, seed);
    let (mut tokens, mut forced, mut sampled) = (Vec::new(), Vec::new(), 0);
    while tokens.len() < 400 {
        let token = sampler.sample(&logits(seed, tokens.len())).unwrap();
        sampled += 1;
        sampler.accept(token).unwrap();
        if tokenizer.is_end_of_generation(token) {
            return Some((tokenizer.decode(&tokens, false).unwrap(), sampled));
        }
        tokens.push(token);
        if jump {
            forced.clear();
            sampler.forced(&mut forced).unwrap();
            forced.iter().for_each(|&token| sampler.accept(token).unwrap());
            tokens.extend(&forced);
        }
    }
    None
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "first_name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "role": {"enum": ["author", "editor", "administrator"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}
        },
        "required": ["first_name", "age", "role", "tags"],
        "additionalProperties": false
    })
}

#[test]
fn json_holds_for_its_schema() {
    let mut lengths = Vec::new();
    for seed in 0..30 {
        let grammar = compile(GrammarKind::JsonSchema, &person().to_string());
        let (text, _) = write(grammar, seed, false).expect("it ends");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let object = value.as_object().unwrap();
        assert_eq!(object.len(), 4, "{text}");
        assert!(object["first_name"].as_str().unwrap().chars().count() <= 8, "{text}");
        assert!((0..=120).contains(&object["age"].as_i64().unwrap()), "{text}");
        assert!(["author", "editor", "administrator"].contains(&object["role"].as_str().unwrap()), "{text}");
        let tags = object["tags"].as_array().unwrap();
        assert!((1..=3).contains(&tags.len()) && tags.iter().all(Value::is_boolean), "{text}");
        lengths.push(text.len());
    }
    lengths.dedup();
    assert!(lengths.len() > 5, "the texts differ: {lengths:?}");
}

#[test]
fn texts_match_their_expression() {
    let pattern = "(yes|no|maybe [a-c]{2,4})(, [0-9]+)?!";
    let regex = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
    for seed in 0..40 {
        let (text, _) = write(compile(GrammarKind::Regex, pattern), seed, false).expect("it ends");
        assert!(regex.is_match(&text), "{text}");
    }
}

#[test]
fn texts_follow_their_grammar() {
    let lark = "start: sum\nsum: term (\"+\" term)*\nterm: NUMBER | \"(\" sum \")\"\nNUMBER: /[0-9]{1,3}/\n";
    for seed in 0..20 {
        let Some((text, _)) = write(compile(GrammarKind::Lark, lark), seed, false) else { continue };
        let mut depth = 0;
        for byte in text.bytes() {
            depth += i32::from(byte == b'(') - i32::from(byte == b')');
            assert!(depth >= 0 && b"0123456789+()".contains(&byte), "{text}");
        }
        assert!(depth == 0 && !text.is_empty() && !text.ends_with('+'), "{text}");
    }
}

/// Tokens that are forced and not sampled make the same text.
#[test]
fn a_jump_changes_no_text() {
    let mut saved = 0;
    for seed in 0..20 {
        let text = |jump| write(compile(GrammarKind::JsonSchema, &person().to_string()), seed, jump).unwrap();
        let ((plain, all), (jumped, fewer)) = (text(false), text(true));
        assert_eq!(plain, jumped);
        saved += all - fewer;
    }
    assert!(saved > 20 * 10, "only {saved} tokens were forced");
}

/// Whatever is accepted and taken back, the masks are those of a text that never had it.
#[test]
fn rollback_leaves_no_trace() {
    let schema = person().to_string();
    for seed in 0..6 {
        let fresh = || compile(GrammarKind::JsonSchema, &schema);
        let (text, _) = write(fresh(), seed, false).unwrap();
        let mut tokens = Vec::new();
        let mut mask = fresh();
        let mut masks = Vec::new();
        let mut sets = sampler(fresh(), seed);
        loop {
            masks.push(allowed(&mut mask));
            let token = sets.sample(&logits(seed, tokens.len())).unwrap();
            sets.accept(token).unwrap();
            mask.accept(token).unwrap();
            tokens.push(token);
            if MODEL.tokenizer().unwrap().is_end_of_generation(token) {
                break;
            }
        }
        assert!(mask.is_complete().unwrap(), "{text}");
        for back in (1..=tokens.len()).rev() {
            mask.rollback(back);
            let at = tokens.len() - back;
            assert_eq!(allowed(&mut mask), masks[at], "{back} back of {text}");
            tokens[at..].iter().for_each(|&token| mask.accept(token).unwrap());
        }
        mask.reset();
        assert_eq!(allowed(&mut mask), masks[0]);
    }
}

fn allowed(mask: &mut Grammar) -> Vec<u32> {
    let mut set = TokenSet::new(n_vocab()).unwrap();
    mask.allow(&mut set).unwrap();
    (0..n_vocab() as u32).filter(|&token| set.contains(token)).collect()
}

#[test]
fn a_refused_token_changes_nothing() {
    let mut mask = compile(GrammarKind::Regex, "[0-9]{2}");
    let before = allowed(&mut mask);
    let wrong = (0..n_vocab() as u32).find(|token| !before.contains(token)).unwrap();
    for _ in 0..2 {
        assert!(mask.accept(wrong).unwrap_err().to_string().contains("doesn't allow"));
        assert_eq!(allowed(&mut mask), before);
    }
    assert!(mask.accept(u32::MAX).is_err());
    assert_eq!(allowed(&mut mask), before);
    assert!(!mask.is_complete().unwrap());
}

#[test]
fn what_is_no_grammar_is_refused() {
    use GrammarKind::{JsonSchema, Lark, Regex};
    assert!(refused(JsonSchema, "{").starts_with("the JSON schema: "));
    assert!(refused(JsonSchema, "{\"type\": \"no such type\"}").starts_with("the JSON schema: "));
    assert!(!refused(JsonSchema, "{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 2}").is_empty());
    assert!(!refused(JsonSchema, "false").is_empty());
    assert!(refused(Regex, "(").starts_with("the regular expression: "));
    assert!(!refused(Regex, "a(?=b)").is_empty());
    assert!(refused(Lark, "start: thing").starts_with("the grammar: "));
    assert!(!refused(Lark, "").is_empty());
    assert!(!refused(Lark, "start: \"a").is_empty());
}

/// Each of these would take long, or much memory, or the stack.
#[test]
fn hostile_grammars_are_refused() {
    use GrammarKind::{JsonSchema, Lark, Regex};
    assert!(refused(Regex, &"a".repeat(MAX_GRAMMAR_BYTES + 1)).contains("bytes; at most"));
    for deep in ["(".repeat(100_000), "[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        for kind in [JsonSchema, Lark, Regex] {
            assert!(refused(kind, &deep).contains("brackets within one another"), "{kind:?}");
        }
    }
    // Whether such a grammar is taken or not, it is decided soon.
    let many: Vec<Value> = (0..20_000).map(|i| json!({"const": format!("{i:x}")})).collect();
    let wide = json!({"anyOf": many}).to_string();
    let nested = json!({"type": "array", "maxItems": 4_000_000_000u64, "minItems": 4_000_000_000u64});
    let texts = [
        (Regex, "((a{1,1000}){1,1000}){1,1000}".to_owned()),
        (Regex, "(a|aa|aaa|b?a?b?a?)*[ab]{200}c".to_owned()),
        (Regex, format!(".*a.{{{}}}", 5000)),
        (JsonSchema, wide),
        (JsonSchema, nested.to_string()),
        (JsonSchema, json!({"$ref": "#"}).to_string()),
        (JsonSchema, json!({"type": "string", "pattern": "^(a+)+$", "minLength": 1_000_000}).to_string()),
        (Lark, "start: a\na: b b\nb: c c\nc: d d\nd: a | \"x\"\n".to_owned()),
        (Lark, "start: start start | start | \"\"\n".to_owned()),
        (Lark, "start: \"a\"{1,1000000000}\n".to_owned()),
    ];
    for (kind, text) in texts {
        let begin = std::time::Instant::now();
        let name: String = text.chars().take(60).collect();
        if let Ok(grammar) = GRAMMARS.compile(kind, &text) {
            let mut sampler = sampler(grammar, 1);
            for step in 0..20 {
                let Ok(token) = sampler.sample(&logits(1, step)) else { break };
                if sampler.accept(token).is_err() || MODEL.tokenizer().unwrap().is_end_of_generation(token) {
                    break;
                }
            }
        }
        // Unoptimised, on a busy machine.
        let seconds = begin.elapsed().as_secs_f64();
        assert!(seconds < 60.0, "{name}: {seconds} s");
    }
}

/// Schemas of the public suite: each gives texts, or is refused with a message. With `SMALLMIND_JSON_SCHEMAS_OUT`, schemas
/// and texts go to that file, a JSON object a line, for a validator.
#[test]
fn the_public_suite() {
    let Some(folder) = std::env::var_os("SMALLMIND_JSON_SCHEMAS") else {
        eprintln!("skipped: SMALLMIND_JSON_SCHEMAS is not set (tests/fetch-json-schemas.sh)");
        return;
    };
    let (mut met, mut refusals, mut endless, mut lines) = (0, Vec::new(), 0, String::new());
    for draft in ["draft2020-12", "draft7"] {
        let mut files: Vec<_> =
            std::fs::read_dir(Path::new(&folder).join(draft)).unwrap().collect::<Result<_, _>>().unwrap();
        files.sort_by_key(|file| file.file_name());
        for file in files.iter().filter(|file| file.path().extension().is_some_and(|ext| ext == "json")) {
            let groups: Value = serde_json::from_str(&std::fs::read_to_string(file.path()).unwrap()).unwrap();
            for group in groups.as_array().unwrap() {
                let schema = &group["schema"];
                let grammar = || GRAMMARS.compile(GrammarKind::JsonSchema, &schema.to_string());
                if let Err(error) = grammar() {
                    lines += &format!("{}\n", json!({"schema": schema, "refusal": error.to_string()}));
                    refusals.push(error.to_string());
                    continue;
                }
                let texts: Vec<_> =
                    (0..3).filter_map(|seed| write(grammar().unwrap(), seed, seed > 0)).collect();
                endless += usize::from(texts.is_empty());
                for (text, _) in &texts {
                    let parsed = serde_json::from_str::<Value>(text);
                    assert!(parsed.is_ok(), "{schema}: {text:?}: {parsed:?}");
                    // The text: large numbers lose digits when they are parsed here.
                    lines += &format!("{}\n", json!({"draft": draft, "schema": schema, "text": text}));
                }
                met += 1;
            }
        }
    }
    assert!(met + refusals.len() >= 500, "{met} met, {} refused", refusals.len());
    assert!(refusals.iter().all(|message| message.len() > "the JSON schema: ".len()));
    eprintln!("{met} schemas met, of which {endless} gave no text of 400 tokens; {} refused", refusals.len());
    if let Some(out) = std::env::var_os("SMALLMIND_JSON_SCHEMAS_OUT") {
        std::fs::write(out, lines).unwrap();
    }
}
