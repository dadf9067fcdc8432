//! Tests of settings, helpers and limits. Parity with jinja2 is in `tests/suite/chat.rs`.

use super::{MAX_RENDERED_BYTES, MAX_TEMPLATE_BYTES, Message, Template};
use crate::Error;

const HELLO: [Message<'static>; 1] = [Message { role: "user", content: "Hello" }];

fn render(source: &str) -> Result<String, Error> {
    Template::new(source, "<s>", "</s>")?.render(&HELLO, true)
}

#[test]
fn messages_tokens_and_prompt_are_seen() {
    let source = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }}{{ eos_token }}\
                  {% endfor %}{% if add_generation_prompt %}>{% endif %}";
    assert_eq!(render(source).unwrap(), "<s>user:Hello</s>>");
    let template = Template::new(source, "<s>", "</s>").unwrap();
    assert_eq!(template.render(&HELLO, false).unwrap(), "<s>user:Hello</s>");
    assert_eq!(template.render(&[], true).unwrap(), "<s>>");
}

#[test]
fn blocks_are_trimmed_and_nothing_is_escaped() {
    assert_eq!(render("a\n  {% if true %}\n  b & <c>\n  {% endif %}\nd\n").unwrap(), "a\n  b & <c>\nd");
}

#[test]
fn python_methods_and_loop_controls_work() {
    assert_eq!(render("{{ ' x '.strip() ~ 'a,b'.split(',')[1] ~ 'Ab'.upper() }}").unwrap(), "xbAB");
    assert_eq!(
        render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}").unwrap(),
        "01"
    );
}

#[test]
fn tojson_is_pythons() {
    assert_eq!(
        render(r#"{{ {"a": [1, 2.5, none, true], "b": "<é'\"\n&>"} | tojson }}"#).unwrap(),
        r#"{"a": [1, 2.5, null, true], "b": "<é'\"\n&>"}"#
    );
    assert_eq!(render("{{ [1, {}] | tojson(indent=2) }}").unwrap(), "[\n  1,\n  {}\n]");
    assert_eq!(render("{{ [] | tojson }}{{ {} | tojson }}").unwrap(), "[]{}");
    assert!(render("{{ 1 | tojson(width=2) }}").is_err());
}

#[test]
fn dates_come_from_the_clock() {
    let year: u32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
    assert!(year >= 2024);
}

#[test]
fn a_template_that_rejects_says_so_in_its_own_words() {
    let error = render("\n{{ raise_exception('Roles must alternate!') }}").unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)));
    assert_eq!(error.to_string(), "chat template (line 2): Roles must alternate!");
}

#[test]
fn a_template_that_does_not_compile_is_a_bad_file() {
    for source in ["", "  \n", "{% for %}", "{{ 'a", "{% if x %}", "{{ }}"] {
        let error = Template::new(source, "", "").unwrap_err();
        assert!(matches!(error, Error::Format(_)), "{source:?}: {error}");
        assert!(!error.to_string().contains('\n'));
    }
    assert!(matches!(Template::new(&" x".repeat(MAX_TEMPLATE_BYTES), "", ""), Err(Error::Format(_))));
}

#[test]
fn unknown_names_are_errors() {
    for source in ["{{ 'a'.b() }}", "{{ f() }}", "{{ 1 | f }}", "{{ nothing.more }}", "{% include 'x' %}"] {
        let error = render(source).unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn runaway_templates_are_stopped() {
    let loops = "{% for i in range(100000) %}".repeat(3) + "{% set x = i %}" + &"{% endfor %}".repeat(3);
    let error = render(&loops).unwrap_err();
    assert!(error.to_string().contains("fuel"), "{error}");
    assert!(render("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}").is_err());
    assert!(render("{{ 'x' * 10000000000 }}").is_err());
    let error = render("{% set x = 'x' * 90000000 %}{{ x }}").unwrap_err();
    assert!(error.to_string().contains(&MAX_RENDERED_BYTES.to_string()), "{error}");
    // An expression nested beyond any sense must not use up the stack.
    let nested = "(".repeat(100_000) + "1" + &")".repeat(100_000);
    assert!(Template::new(&format!("{{{{ {nested} }}}}"), "", "").is_err());
    let blocks = "{% if true %}".repeat(50_000) + &"{% endif %}".repeat(50_000);
    assert!(Template::new(&blocks, "", "").is_err());
}
