//! Chat templates held to jinja2's answers (`tests/goldens/chat.json`), and the real model's own.
//! A case has the expected text, or the words with which the template rejects the messages.

use crate::common::{golden_path, model};
use serde_json::Value;
use smallmind::Error;
use smallmind::chat::{Message, Template};
use smallmind::format::gguf::{Gguf, Metadata};
use smallmind::tokenizer::Tokenizer;

fn goldens() -> Value {
    let path = golden_path("chat.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn conversations_render_as_by_jinja2() {
    let goldens = goldens();
    let (bos, eos) = (text(&goldens["bos_token"]), text(&goldens["eos_token"]));
    let (mut rendered, mut rejected) = (0, 0);
    for case in goldens["cases"].as_array().unwrap() {
        let template = Template::new(text(&goldens["templates"][text(&case["template"])]), bos, eos).unwrap();
        let messages: Vec<Message<'_>> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|message| Message::new(text(&message["role"]), text(&message["content"])))
            .collect();
        let result = template.render(&messages, case["add_generation_prompt"].as_bool().unwrap());
        match case.get("expected") {
            Some(expected) => {
                assert_eq!(result.unwrap(), text(expected), "{case}");
                rendered += 1;
            }
            None => {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::InvalidArgument(_)), "{case}: {error}");
                assert!(error.to_string().contains(text(&case["error"])), "{case}: {error}");
                rejected += 1;
            }
        }
    }
    assert!(rendered >= 30 && rejected >= 1, "{rendered} rendered, {rejected} rejected");
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
