//! `smallmind chat`: several turns on one cache. Each turn renders the whole conversation; the part that the cache
//! already has is not computed again. An error is said, its message is taken back, and the conversation goes on.

mod commands;
mod conversation;
mod history;
mod input;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use smallmind::Error;
use smallmind::runtime::generation::{GenerationParams, StopReason};
use smallmind::text::{escaped_lines, escaped_path};

use crate::args;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::output::{complain, remark};
use crate::session::{Session, checked_prompt};
use crate::template::Given;
use commands::{Command, Typed, parse};
use conversation::Conversation;
use input::{Input, Next};

/// What helps where the context is full.
const FULL: &str = "/clear starts over, --ctx gives more room";

pub fn run(args: &args::Chat) -> Result<ExitCode> {
    interrupt::install();
    if args.model.model.is_none() {
        return Err(Failure::Usage(
            "'--model <FILE>' is needed: the built-in model only continues texts".into(),
        ));
    }
    let mut session =
        Session::open(&args.model, &args.sampling, &args.text, &args.draft, Given::read(&args.template)?)?;
    // Without these no message gets an answer.
    session.model().tokenizer()?;
    session.model().chat_template()?;
    if let Some(path) = &args.snapshot.load {
        session.load(path)?;
    }
    let mut input = Input::open(!args.no_history, args.model.quiet)?;
    // Only while the editor reads a line is Ctrl-C a key; after that, it never ends the program.
    let _editing = input.is_editor().then(Stoppable::only);
    let mut chat = Chat::new(session, args);
    if input.is_editor() {
        chat.note("/help lists the commands; Ctrl-C stops an answer, Ctrl-D ends the chat");
    }
    loop {
        let went_on = match input.next()? {
            Next::Line(line) => chat.line(&line),
            Next::Bad(error) => {
                chat.failed(&error.into());
                ControlFlow::Continue(())
            }
            Next::Interrupted => {
                remark("[Ctrl-D or /quit ends the chat]\n");
                ControlFlow::Continue(())
            }
            Next::End => break,
        };
        if went_on.is_break() {
            break;
        }
    }
    chat.session.report_profile();
    if let Some(path) = &args.snapshot.save {
        chat.session.save(path, None)?;
    }
    // A person has read what went wrong; a script sees it by the code.
    Ok(if chat.has_failed && !input.is_person() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A chat between two lines.
struct Chat<'a> {
    session: Session,
    conversation: Conversation,
    args: &'a args::Chat,
    /// A message that got no answer and was taken back.
    unanswered: Option<String>,
    has_failed: bool,
}

/// The end of an attempt to answer.
enum Answer {
    Text(String),
    /// Ctrl-C came before the first word.
    Stopped,
    /// Nobody reads any more.
    Closed,
}

impl<'a> Chat<'a> {
    fn new(session: Session, args: &'a args::Chat) -> Chat<'a> {
        let mut conversation = Conversation::default();
        conversation.set_system(args.system.as_deref());
        Chat { session, conversation, args, unanswered: None, has_failed: false }
    }

    /// Does what a line asks for; breaks at the end.
    fn line(&mut self, line: &str) -> ControlFlow<()> {
        match parse(line) {
            Typed::Nothing => ControlFlow::Continue(()),
            Typed::Message(text) => self.ask(text),
            Typed::Command(command) => self.command(command),
            Typed::Wrong(why) => {
                self.failed(&Error::invalid(why).into());
                ControlFlow::Continue(())
            }
        }
    }

    fn command(&mut self, command: Command<'_>) -> ControlFlow<()> {
        match command {
            Command::Quit => return ControlFlow::Break(()),
            Command::Retry => return self.retry(),
            Command::Help => remark(commands::HELP),
            Command::Clear => {
                self.conversation.clear();
                self.session.clear();
                self.unanswered = None;
            }
            Command::System(None) => {
                let text =
                    self.conversation.system().unwrap_or("[nothing was said on how the model should behave]");
                remark(&format!("{}\n", escaped_lines(text)));
            }
            Command::System(Some(text)) => {
                self.conversation.set_system(Some(text).filter(|text| !text.is_empty()))
            }
            Command::Save(file) => {
                let path = at_home(file);
                match self.conversation.save(&path) {
                    Ok(()) => {
                        self.note(&format!("{} messages in {}", self.conversation.len(), escaped_path(&path)))
                    }
                    Err(error) => self.failed(&error.into()),
                }
            }
            Command::Load(file) => match Conversation::load(&at_home(file)) {
                Ok(conversation) => {
                    self.conversation = conversation;
                    self.unanswered = None;
                    self.note(&format!("{} messages", self.conversation.len()));
                }
                Err(error) => self.failed(&error.into()),
            },
        }
        ControlFlow::Continue(())
    }

    /// Adds a message and its answer to the conversation, or neither.
    fn ask(&mut self, question: &str) -> ControlFlow<()> {
        self.conversation.push_question(question);
        self.unanswered = None;
        match self.answer() {
            Ok(Answer::Text(text)) => {
                self.conversation.push_answer(text);
                return ControlFlow::Continue(());
            }
            Ok(Answer::Stopped) => self.note("the message is taken back"),
            Ok(Answer::Closed) => return ControlFlow::Break(()),
            Err(failure) => self.failed(&failure),
        }
        self.unanswered = self.conversation.pop_question();
        ControlFlow::Continue(())
    }

    /// Answers the last message again, or for the first time if it was taken back. The former answer stays where there is no
    /// new one.
    fn retry(&mut self) -> ControlFlow<()> {
        if let Some(question) = self.unanswered.take() {
            return self.ask(&question);
        }
        let former = self.conversation.pop_answer();
        let Some(question) = self.conversation.pop_question() else {
            if let Some(former) = former {
                self.conversation.push_answer(former);
            }
            self.failed(&Error::invalid("there is no message to answer").into());
            return ControlFlow::Continue(());
        };
        let went_on = self.ask(&question);
        if let (Some(former), true) = (former, self.unanswered.is_some()) {
            self.unanswered = None;
            self.conversation.push_question(&question);
            self.conversation.push_answer(former);
        }
        went_on
    }

    /// Generates what follows the last message.
    fn answer(&mut self) -> Result<Answer> {
        let stoppable = Stoppable::during_chat();
        let tokens = self.session.conversation_tokens(&self.conversation.messages())?;
        let tokens = checked_prompt(tokens, self.session.context.n_ctx())?;
        if stoppable.requested() {
            return Ok(Answer::Stopped);
        }
        let kept = self.session.keep_beginning(&tokens)?;
        let stops = self.args.text.stops();
        let length = GenerationParams::default().with_max_tokens(self.args.max_tokens).with_stops(&stops);
        let written = self.session.write(&tokens[kept..], &length, &stoppable)?;
        if written.closed {
            return Ok(Answer::Closed);
        }
        self.session.report_speed(&written.summary);
        if written.summary.reason == StopReason::ContextFull {
            self.note(FULL);
        }
        match written.text.is_empty() && stoppable.requested() {
            true => Ok(Answer::Stopped),
            false => Ok(Answer::Text(written.text)),
        }
    }

    /// Says what went wrong.
    fn failed(&mut self, failure: &Failure) {
        self.has_failed = true;
        match failure {
            Failure::Failed(error @ Error::ContextFull { .. }) => complain(&format!("{error}: {FULL}")),
            other => complain(&other.to_string()),
        }
    }

    fn note(&self, text: &str) {
        if !self.args.model.quiet {
            remark(&format!("[{text}]\n"));
        }
    }
}

/// The file that a person means: no shell replaces `~` here.
fn at_home(file: &str) -> PathBuf {
    match (file.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(file),
    }
}
