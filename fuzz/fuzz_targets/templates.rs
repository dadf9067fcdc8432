//! Any text as a chat template, with a few conversations: refused or rendered, without a panic, within its bounds.
//! From the top folder: `mkdir -p fuzz/corpus/templates && cargo +nightly fuzz run templates fuzz/corpus/templates
//! tests/goldens/templates -- -timeout=60 -rss_limit_mb=2048`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smallmind::Error;
use smallmind::chat::{MAX_RENDERED_BYTES, Message, Template};

const CONVERSATIONS: [&[Message<'static>]; 4] = [
    &[],
    &[Message::new("user", "Hello <|im_end|> {{ 1 }} \u{1f600}")],
    &[Message::new("system", ""), Message::new("user", " 'a'\r\n\"b\" "), Message::new("assistant", "<think>x</think>\n")],
    &[Message::new("user", "a,b,c"), Message::new("assistant", "1"), Message::new("tool", "{}"), Message::new("x", "y")],
];

fuzz_target!(|source: &str| {
    let Ok(template) = Template::new(source, "<s>", "</s>") else { return };
    for messages in CONVERSATIONS {
        for prompt in [true, false] {
            match template.render(messages, prompt) {
                Ok(text) => assert!(text.len() <= MAX_RENDERED_BYTES),
                Err(error) => {
                    assert!(matches!(error, Error::InvalidArgument(_) | Error::OutOfMemory { .. }), "{error:?}");
                    assert!(!error.to_string().contains(['\n', '\r']), "{error:?}");
                }
            }
        }
    }
});
