//! Chat templates of files: those that fell short once, and the real model's own.

use crate::common::{golden_path, model};
use smallmind::Error;
use smallmind::chat::{Arguments, Message, Prompt, Template};
use smallmind::format::gguf::{Gguf, Metadata};
use smallmind::tokenizer::Tokenizer;

/// The template of a file of `cases`, with `replaced` put in the place of a part of it.
fn case(name: &str, replaced: Option<(&str, &str)>) -> Result<String, Error> {
    let gguf = Gguf::open_path(golden_path(&format!("cases/{name}"))).unwrap();
    let mut source = gguf.metadata().get_str("tokenizer.chat_template").unwrap().unwrap().to_owned();
    if let Some((part, by)) = replaced {
        assert!(source.contains(part), "{source:?}");
        source = source.replace(part, by);
    }
    let messages = [Message::new("user", "Hi"), Message::new("assistant", "Ho")];
    Template::new(&source, "<s>", "</s>")?.render(&messages, true)
}

#[test]
fn templates_of_files_that_fell_short() {
    // Each file as it is, and another case of its kind; the expected texts are jinja2's.
    for (name, replaced, expected) in [
        ("generation_tag", None, "HiHo"),
        ("generation_tag", Some(("{% generation %}", "{%- generation -%} \n ")), "HiHo"),
        (
            "generation_tag",
            Some(("{% generation %}", "{% raw %}{% generation %}{% endraw %}{% generation %}")),
            "Hi{% generation %}Ho",
        ),
        ("tools_iterable", None, "Hi"),
        ("tools_iterable", Some(("tools is iterable and tools", "documents or nothing_such")), "Hi"),
        ("map_order", None, "userassistant {\"type\": \"function\", \"name\": \"f\", \"args\": {}}"),
        (
            "map_order",
            Some(("{'user': 'U', 'assistant': 'A'}", "dict(z=1, y=2, a=3)")),
            "zya {\"type\": \"function\", \"name\": \"f\", \"args\": {}}",
        ),
        ("crlf_template", None, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"),
        (
            "crlf_template",
            Some(("\r\n", "\r")),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n",
        ),
    ] {
        assert_eq!(case(&format!("{name}.gguf"), replaced).unwrap(), expected, "{name} {replaced:?}");
    }
}

#[test]
fn the_models_own_template_and_tokens() {
    let gguf = Gguf::open_path(model::smollm2()).unwrap();
    let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
    let template =
        Template::from_metadata(gguf.metadata(), tokenizer.bos_text(), tokenizer.eos_text()).unwrap();
    let messages = [Message::new("system", "Be brief."), Message::new("user", "Hi")];
    let rendered = template.render(&messages, true).unwrap();
    assert_eq!(
        rendered,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let ids = tokenizer.encode(&rendered, true, true).unwrap();
    assert_eq!(ids.iter().filter(|&&id| tokenizer.is_control(id)).count(), 5);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), rendered);
}

#[test]
fn a_file_without_a_template_says_so() {
    let error = Template::from_metadata(&Metadata::new(), "", "").unwrap_err();
    assert!(error.to_string().contains("no chat template"), "{error}");
}

#[test]
fn public_templates_see_arguments_as_by_jinja2() {
    let golden = std::fs::read(golden_path("chat-arguments.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let text = |json: &serde_json::Value| json.as_str().unwrap().to_owned();
    let turns = golden["messages"].as_array().unwrap();
    let turns: Vec<_> = turns.iter().map(|turn| (text(&turn["role"]), text(&turn["content"]))).collect();
    let messages: Vec<_> = turns.iter().map(|(role, content)| Message::new(role, content)).collect();
    let sets = golden["arguments"].as_array().unwrap();
    // Maps are printed in the order of the text, which the parsed golden may have lost.
    let source = std::fs::read_to_string(golden_path("chat-arguments.json")).unwrap();
    let tools = tools_of(&source);
    let mut faults = Vec::new();
    for (name, hashes) in golden["texts"].as_object().unwrap() {
        let template = std::fs::read_to_string(golden_path(&format!("templates/{name}"))).unwrap();
        let template = Template::new(&template, "<s>", "</s>").unwrap();
        for (set, wanted) in sets.iter().zip(hashes.as_array().unwrap()) {
            let mut arguments = Arguments::default();
            for (key, value) in set.as_object().unwrap() {
                let json = if key == "tools" { tools.clone() } else { value.to_string() };
                arguments.set(key, &json).unwrap();
            }
            let rendered = template.render_with(&messages, &Prompt::default().with_arguments(&arguments));
            let found = rendered.as_ref().ok().map(|text| hashed(text));
            if found.as_deref() != wanted.as_str() {
                faults.push(format!("{name} {set}: {rendered:?}, not {wanted}"));
            }
        }
    }
    let count = golden["texts"].as_object().unwrap().len();
    assert!(count >= 50, "{count}");
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), 5 * count, faults.join("\n"));
}

/// The first list of tools in the golden's text.
fn tools_of(golden: &str) -> String {
    let (_, rest) = golden.split_once("\"tools\": ").unwrap();
    let mut depth = 0;
    let end = rest.bytes().position(|byte| {
        depth += i32::from(byte == b'[') - i32::from(byte == b']');
        depth == 0
    });
    rest[..=end.unwrap()].to_owned()
}

/// FNV-1a of the bytes.
fn hashed(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

#[test]
fn texts_of_arguments_and_prefixes_are_inert() {
    let source = "{{ tools[0].name }}|{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";
    let template = Template::new(source, "", "").unwrap();
    let mut arguments = Arguments::default();
    arguments.set("tools", r#"[{"name": "a<|im_end|>b"}]"#).unwrap();
    let prompt = Prompt::default().with_arguments(&arguments).with_prefix("x<|im_end|>");
    let special = ["<|im_end|>"].into_iter();
    let marked = template.render_inert_with(&[Message::new("user", "Hi")], &prompt, special).unwrap();
    assert_eq!(marked.text.matches("<|im_end|>").count(), 1, "{marked:?}");
    assert_eq!(marked.text.replace(marked.mark, ""), "a<|im_end|>b|Hi<|im_end|>x<|im_end|>");
}
