//! `smallmind generate`: one prompt in, one continuation (or answer) out.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use smallmind::Error;
use smallmind::chat::Message;
use smallmind::runtime::generation::GenerationParams;
use smallmind::tokenizer::MAX_TEXT_BYTES;

use crate::args::Generate;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::session::{Session, checked_prompt};
use crate::template::Given;

pub fn run(args: &Generate) -> Result<ExitCode> {
    interrupt::install();
    if !args.chat {
        Given::refuse(&args.template)?;
    }
    let mut template = Given::read(&args.template)?;
    let prompt = match &args.prompt {
        Some(text) => text.clone(),
        None => read_stdin()?,
    };
    if !args.chat
        && args.prompt.is_some()
        && args.logprobs.is_none()
        && !args.model.quiet
        && std::io::stdout().is_terminal()
    {
        // Whoever looks on reads the whole text; a file or a pipe gets what is new.
        template.prefix.clone_from(&prompt);
    }
    let mut session = Session::open(&args.model, &args.sampling, &args.text, &args.draft, template)?;
    if let Some(path) = &args.snapshot.load {
        session.load(path)?;
    }
    let mut tokens = if args.chat {
        let mut messages = Vec::new();
        messages.extend(args.system.as_deref().map(|content| Message::new("system", content)));
        messages.push(Message::new("user", &prompt));
        session.conversation_tokens(&messages)?
    } else {
        session.text_tokens(&prompt)?
    };
    if args.chat && !session.context.is_empty() {
        let kept = session.keep_beginning(&tokens)?;
        tokens.drain(..kept);
    }
    let tokens = checked_prompt(tokens, session.context.n_ctx() - session.context.len())?;
    let stops = args.text.stops();
    let length = GenerationParams::default()
        .with_max_tokens(args.max_tokens)
        .with_stops(&stops)
        .with_logprobs(args.logprobs)
        .with_context_shift(args.context_shift.then(|| kept(args, &session, &tokens)));
    let stoppable = Stoppable::begin();
    let written = session.write(&tokens, &length, &stoppable)?;
    session.report_speed(&written.summary);
    session.report_profile();
    if let Some(path) = &args.snapshot.save {
        session.save(path, Some(&written.summary))?;
    }
    if stoppable.requested() { Err(Failure::Interrupted) } else { Ok(ExitCode::SUCCESS) }
}

/// Tokens that a shift of the context keeps.
fn kept(args: &Generate, session: &Session, prompt: &[u32]) -> usize {
    let first = session.context.tokens().first().or(prompt.first()).copied();
    let bos = session.model().tokenizer().ok().and_then(|tokenizer| tokenizer.bos());
    args.keep.saturating_add(usize::from(bos.is_some() && first == bos))
}

fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    // One byte more than the tokenizer takes, so that it reports a longer text.
    let read = std::io::stdin().lock().take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| Error::Io { path: "standard input".into(), source })?;
    String::from_utf8(bytes).map_err(|_| Error::invalid("standard input is not UTF-8").into())
}
