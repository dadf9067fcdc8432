//! What a person types in a chat: a message, or a command that begins with a slash.

/// The commands, as `/help` lists them.
pub const HELP: &str = "\
/help           list the commands
/clear          start over; how the model should behave stays
/system [TEXT]  show how the model should behave, or say it; \"\" takes it back
/retry          answer the last message again
/save FILE      write the conversation as JSON: a list of {role, content}
/load FILE      go on with a conversation that was saved
/quit           end the chat, as Ctrl-D does
//…             a message that begins with a slash
Alt-Enter, or a backslash before Enter, begins a new line; Ctrl-C stops an answer
";

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed<'a> {
    Nothing,
    Message(&'a str),
    Command(Command<'a>),
    /// No command, and why.
    Wrong(String),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Help,
    Clear,
    /// `None` shows it, an empty text takes it back.
    System(Option<&'a str>),
    Retry,
    Save(&'a str),
    Load(&'a str),
    Quit,
}

/// Reads a line.
pub fn parse(line: &str) -> Typed<'_> {
    if line.trim().is_empty() {
        return Typed::Nothing;
    }
    let Some(command) = line.strip_prefix('/') else { return Typed::Message(line) };
    if command.starts_with('/') {
        return Typed::Message(command);
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    let alone = |command| match rest {
        "" => Typed::Command(command),
        _ => Typed::Wrong(format!("/{name} takes nothing behind it")),
    };
    match name {
        "help" => alone(Command::Help),
        "clear" => alone(Command::Clear),
        "retry" => alone(Command::Retry),
        "quit" | "exit" => alone(Command::Quit),
        "save" | "load" if rest.is_empty() => Typed::Wrong(format!("/{name} needs the name of a file")),
        "save" => Typed::Command(Command::Save(rest)),
        "load" => Typed::Command(Command::Load(rest)),
        "system" => Typed::Command(Command::System(match rest {
            "" => None,
            "\"\"" => Some(""),
            text => Some(text),
        })),
        _ => Typed::Wrong(format!(
            "there is no command /{name}: /help lists them, and // begins a message with a slash"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        let command = Typed::Command;
        for (line, typed) in [
            ("", Typed::Nothing),
            (" \t ", Typed::Nothing),
            ("  indented", Typed::Message("  indented")),
            ("two\n/lines", Typed::Message("two\n/lines")),
            ("//usr/bin", Typed::Message("/usr/bin")),
            ("/help", command(Command::Help)),
            ("/quit ", command(Command::Quit)),
            ("/save  my talk.json ", command(Command::Save("my talk.json"))),
            ("/system", command(Command::System(None))),
            ("/system \"\"", command(Command::System(Some("")))),
            ("/system Be brief.\nVery.", command(Command::System(Some("Be brief.\nVery.")))),
        ] {
            assert_eq!(parse(line), typed, "{line:?}");
        }
        for (line, why) in [
            ("/", "no command /:"),
            ("/usr/bin/x", "no command /usr/bin/x:"),
            ("/Help", "no command /Help:"),
            ("/load", "needs the name of a file"),
            ("/clear now", "/clear takes nothing"),
        ] {
            match parse(line) {
                Typed::Wrong(text) => assert!(text.contains(why), "{text}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
