//! `smallmind chat`: several turns on one cache. Each turn renders the whole conversation; the part that the cache
//! already has is not computed again.

use std::io::{BufRead, IsTerminal, Read};

use smallmind::chat::Message;
use smallmind::runtime::generation::GenerationParams;
use smallmind::tokenizer::MAX_TEXT_BYTES;
use smallmind::{Error, Result};

use crate::args::Chat;
use crate::generate::conversation;
use crate::interrupt;
use crate::output::remark;
use crate::session::{Session, checked_prompt};

/// A message of the conversation, kept for later turns.
struct Turn {
    role: &'static str,
    content: String,
}

pub fn run(args: &Chat) -> Result<()> {
    interrupt::install();
    let stops: Vec<_> = args.stop.iter().map(String::as_str).collect();
    let length = GenerationParams::default().with_max_tokens(args.max_tokens).with_stops(&stops);
    let mut session = Session::open(&args.model, &args.sampling, &length)?;
    let system = args.system.iter().map(|text| Turn { role: "system", content: text.clone() });
    let mut turns: Vec<Turn> = system.collect();
    let begin = turns.len();
    let prompting = std::io::stdin().is_terminal() && !args.model.quiet;
    if prompting {
        remark("[type a message; /clear starts over, /quit or Ctrl-D ends, Ctrl-C stops a reply]\n");
    }
    while let Some(line) = read_line(prompting)? {
        match line.trim() {
            "" => continue,
            "/quit" => break,
            "/clear" => {
                turns.truncate(begin);
                session.context.clear();
                session.sampler.reset();
                continue;
            }
            text => turns.push(Turn { role: "user", content: text.to_owned() }),
        }
        match reply(&mut session, &turns, &length) {
            // Stopped before its first word: forget the message.
            Ok(content) if content.is_empty() => drop(turns.pop()),
            Ok(content) => turns.push(Turn { role: "assistant", content }),
            Err(error @ Error::ContextFull { .. }) => {
                turns.pop();
                remark(&format!("smallmind: {error}: /clear starts over, --ctx gives more room\n"));
            }
            Err(error) => return Err(error),
        }
    }
    session.report_profile();
    Ok(())
}

fn reply(session: &mut Session, turns: &[Turn], length: &GenerationParams<'_>) -> Result<String> {
    let messages: Vec<_> = turns.iter().map(|t| Message::new(t.role, &t.content)).collect();
    let tokens = checked_prompt(conversation(session, &messages)?, session.context.n_ctx())?;
    let held = session.context.tokens().iter().zip(&tokens).take_while(|(a, b)| a == b).count();
    // Decode at least one token, for the logits after it.
    let held = held.min(tokens.len() - 1);
    session.context.rewind(held)?;
    let written = session.write(&tokens[held..], length)?;
    session.report_speed(&written.summary);
    Ok(written.text)
}

/// The next line, or `None` at the end of the input.
fn read_line(prompting: bool) -> Result<Option<String>> {
    if prompting {
        remark("> ");
    }
    let mut line = String::new();
    // One byte more than the tokenizer takes, so that it reports a longer text.
    let read = std::io::stdin().lock().take(MAX_TEXT_BYTES as u64 + 1).read_line(&mut line);
    match read.map_err(|source| Error::Io { path: "standard input".into(), source })? {
        0 => Ok(None),
        _ => Ok(Some(line)),
    }
}
