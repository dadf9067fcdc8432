//! Chat templates of files: those that fell short once, and the real model's own.

use crate::common::{golden_path, model};
use smallmind::Error;
use smallmind::chat::{Message, Template};
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
