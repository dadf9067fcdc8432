//! Chat templates held to jinja2's answers (`tests/goldens/chat*.json` of the workspace).
//! A case has the expected text, or the words with which the template rejects the messages.

use std::path::{Path, PathBuf};

use serde_json::Value;
use smallmind_templates::{Error, Message, Template, can_allocate};

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens").join(name)
}

fn compiled(source: &str, bos: &str, eos: &str) -> Result<Template, Error> {
    Template::new(source, bos, eos, can_allocate)
}

fn goldens(name: &str) -> Value {
    let path = golden_path(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn messages(list: &Value) -> Vec<Message<'_>> {
    let list = list.as_array().unwrap().iter();
    list.map(|message| Message::new(text(&message["role"]), text(&message["content"]))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn conversations_render_as_by_jinja2() {
    let goldens = goldens("chat.json");
    let (bos, eos) = (text(&goldens["bos_token"]), text(&goldens["eos_token"]));
    let (mut rendered, mut rejected) = (0, 0);
    for case in goldens["cases"].as_array().unwrap() {
        let template = compiled(text(&goldens["templates"][text(&case["template"])]), bos, eos).unwrap();
        let messages = messages(&case["messages"]);
        let result = template.render(&messages, case["add_generation_prompt"].as_bool().unwrap());
        match case.get("expected") {
            Some(expected) => {
                assert_eq!(result.unwrap(), text(expected), "{case}");
                rendered += 1;
            }
            None => {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::Rendering(_)), "{case}: {error}");
                assert!(error.to_string().contains(text(&case["error"])), "{case}: {error}");
                rejected += 1;
            }
        }
    }
    assert!(rendered >= 30 && rejected >= 1, "{rendered} rendered, {rejected} rejected");
}

/// Lines of `chat-lines.json` and `cases/jinja-lines.json` that can't render as by jinja2, and why.
const DIFFERENT: [(&str, &str); 9] = [
    ("\n", "a file with an empty template has none; saying so is of more use than an empty prompt"),
    (
        "{% macro m(a='d') %}{{ a }}{% endmacro %}{{ m(undef) }}|{{ m(none) }}",
        "minijinja doesn't tell an undefined argument from one that isn't given",
    ),
    ("{{ '&hellip;&notit;'|striptags }}", "of the 2,125 names of characters, those of Latin-1 are known"),
    (
        "{% for x in [1, 2] %}{% with y = x %}{% if y == 2 %}{% break %}{% endif %}{{ y }}{% endwith %}{% endfor %}",
        "minijinja panics when a loop is left from within a scope, so this is refused",
    ),
    (
        "{% set ns = namespace(inner=namespace(a=1)) %}{{ ns.inner.a }}",
        "dropping namespaces in namespaces is recursive and can't be bounded, so they are refused",
    ),
    (
        "{% macro m() %}x{% endmacro %}{% set d = {'m': m} %}{{ d.m() }}",
        "macros hold variables, so that the size of a map of macros isn't known",
    ),
    (
        "{{ '\\ud83d\\ude00'|length }}|{{ '\\ud83d'|length }}",
        "Rust's strings can't hold halves of a surrogate pair",
    ),
    ("{{ 2 ** 200 }}", "minijinja's integers have 128 bits"),
    ("{{ '一'.isnumeric() }}", "Rust's table of numerals has no ideographs"),
];

fn is_known_difference(template: &str) -> bool {
    DIFFERENT.iter().any(|(known, _)| *known == template)
}

/// The faults of `lines`, which are templates with what jinja2 renders or raises.
fn check_lines(lines: &Value, given: &Value) -> (usize, Vec<String>) {
    let (bos, eos) = (text(&given["bos_token"]), text(&given["eos_token"]));
    let messages = messages(&given["messages"]);
    let mut faults = Vec::new();
    let lines = lines.as_array().unwrap();
    for line in lines {
        let source = text(&line["template"]);
        let result = compiled(source, bos, eos).and_then(|template| template.render(&messages, true));
        let fits = match (&result, line.get("ok")) {
            (Ok(rendered), Some(expected)) => rendered == text(expected),
            (Err(Error::Internal(_)), _) => false,
            (Err(error), None) => !error.to_string().contains('\n'),
            _ => false,
        };
        if fits == is_known_difference(source) {
            faults.push(format!(
                "{source}\n  jinja2: {:?}\n  ours:   {result:?}",
                line.get("ok").or(line.get("error"))
            ));
        }
    }
    (lines.len(), faults)
}

#[test]
fn lines_render_as_by_jinja2() {
    let (own, given) = (goldens("chat-lines.json"), goldens("cases/jinja-lines.json"));
    let (count, mut faults) = check_lines(&own["lines"], &own);
    let (more, more_faults) = check_lines(&given["lines"], &given["given"]);
    faults.extend(more_faults);
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), count + more, faults.join("\n"));
    assert!(count >= 300 && more == 69);
}

/// The formats with which the templates ask for the date.
const DATES: [&str; 3] = ["%Y-%m-%d", "%d %b %Y", "%B %d, %Y"];

/// Puts the mark that the goldens have in the place of today's date.
fn without_date(rendered: &str) -> String {
    let mut out = rendered.to_owned();
    for format in DATES {
        let template = compiled(&format!("{{{{ strftime_now('{format}') }}}}"), "", "").unwrap();
        out = out.replace(&template.render(&[], false).unwrap(), &format!("<now {format}>"));
    }
    out
}

fn hashed(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// The fault of one rendering, if it isn't jinja2's.
fn fault(result: Result<String, Error>, expected: &Value) -> Option<String> {
    match (result, expected.as_array()) {
        (Ok(rendered), Some(expected)) => {
            let rendered = without_date(&rendered);
            let fits = expected[0] == rendered.chars().count() && text(&expected[1]) == hashed(&rendered);
            (!fits).then(|| {
                format!("{} characters, not {}: {rendered:?}", rendered.chars().count(), expected[0])
            })
        }
        (Err(error), None) => {
            let error = error.to_string();
            let message = expected.get("message").map_or("", |message| text(message));
            let message = message.replace(['\n', '\r'], " ");
            (!error.contains(&message)).then(|| format!("{error:?} without {message:?}"))
        }
        (Ok(rendered), None) => Some(format!("rendered where jinja2 has {expected}: {rendered:?}")),
        (Err(error), Some(_)) => Some(format!("{error}")),
    }
}

#[test]
fn public_templates_render_as_by_jinja2() {
    let goldens = goldens("chat-templates.json");
    let (bos, eos) = (text(&goldens["bos_token"]), text(&goldens["eos_token"]));
    let conversations = goldens["conversations"].as_array().unwrap();
    let mut faults = Vec::new();
    let mut count = 0;
    for entry in goldens["templates"].as_array().unwrap() {
        let name = text(&entry["name"]);
        let source = std::fs::read_to_string(golden_path(&format!("templates/{name}"))).unwrap();
        let template = compiled(&source, bos, eos).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (i, expected) in entry["renders"].as_array().unwrap().iter().enumerate() {
            let (number, prompt) = (i / 2, i % 2 == 0);
            let result = template.render(&messages(&conversations[number]), prompt);
            if let Some(fault) = fault(result, expected) {
                faults.push(format!("{name}, conversation {number}, {prompt}: {fault}"));
            }
            count += 1;
        }
        if let Some(shown) = entry.get("text") {
            let number = goldens["shown"].as_u64().unwrap() as usize;
            let rendered = template.render(&messages(&conversations[number]), true).unwrap_or_default();
            if without_date(&rendered) != text(shown) {
                faults.push(format!("{name}: {rendered:?}\n  jinja2: {shown:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(count, 70 * 14 * 2);
}
