//! `smallmind generate`: one prompt in, one continuation (or answer) out.

use std::io::Read;
use std::process::ExitCode;

use smallmind::chat::Message;
use smallmind::profile::{self, Zone};
use smallmind::runtime::generation::GenerationParams;
use smallmind::tokenizer::MAX_TEXT_BYTES;
use smallmind::{Error, Result};

use crate::args::Generate;
use crate::interrupt::{self, EXIT_CODE};
use crate::session::{Session, checked_prompt};

pub fn run(args: &Generate) -> Result<ExitCode> {
    interrupt::install();
    let prompt = match &args.prompt {
        Some(text) => text.clone(),
        None => read_stdin()?,
    };
    let stops: Vec<_> = args.stop.iter().map(String::as_str).collect();
    let length = GenerationParams::default().with_max_tokens(args.max_tokens).with_stops(&stops);
    let mut session = Session::open(&args.model, &args.sampling, &length)?;
    let tokens = if args.chat {
        let mut messages = Vec::new();
        messages.extend(args.system.as_deref().map(|content| Message::new("system", content)));
        messages.push(Message::new("user", &prompt));
        conversation(&session, &messages)?
    } else {
        let _zone = profile::scope(Zone::Tokenize);
        session.model().tokenizer()?.encode(&prompt, false, true)?
    };
    let tokens = checked_prompt(tokens, session.context.n_ctx())?;
    let written = session.write(&tokens, &length)?;
    session.report_speed(&written.summary);
    session.report_profile();
    Ok(if written.interrupted { ExitCode::from(EXIT_CODE) } else { ExitCode::SUCCESS })
}

/// Tokens of a conversation, ending where the model's next reply begins.
pub fn conversation(session: &Session, messages: &[Message<'_>]) -> Result<Vec<u32>> {
    let model = session.model();
    let text = {
        let _zone = profile::scope(Zone::ChatTemplate);
        model.chat_template()?.render(messages, true)?
    };
    let _zone = profile::scope(Zone::Tokenize);
    // The template writes the special tokens, the first one included.
    model.tokenizer()?.encode(&text, true, false)
}

fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    // One byte more than the tokenizer takes, so that it reports a longer text.
    let read = std::io::stdin().lock().take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| Error::Io { path: "standard input".into(), source })?;
    String::from_utf8(bytes).map_err(|_| Error::invalid("standard input is not UTF-8"))
}
