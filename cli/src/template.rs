//! Options for the chat template: its variables, tools, and the beginning of answers.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use smallmind::chat::Arguments;
use smallmind::text::escaped_path;
use smallmind::{Error, Result};

use crate::args::TemplateArgs;
use crate::failure::Failure;

/// The longest file of tools.
const MAX_BYTES: u64 = 16 << 20;

/// The options, read.
#[derive(Default)]
pub struct Given {
    pub arguments: Arguments,
    pub prefix: String,
}

impl Given {
    pub fn read(args: &TemplateArgs) -> Result<Given, Failure> {
        let mut arguments = Arguments::default();
        if let Some(path) = &args.tools {
            let text = text(path)?;
            let named = |error: Error| Error::format(format!("{}: {error}", escaped_path(path)));
            if !text.trim_start().starts_with('[') {
                return Err(named(Error::invalid("tools are a JSON list")).into());
            }
            arguments.set("tools", &text).map_err(named)?;
        }
        for argument in &args.arguments {
            let wrong = |what: String| Failure::Usage(format!("'--chat-arg <KEY=VALUE>': {what}"));
            let (name, value) = argument.split_once('=').ok_or_else(|| wrong("it has no '='".into()))?;
            let quotes = |error| wrong(format!("{error}; a text stands in double quotes"));
            arguments.set(name, value).map_err(quotes)?;
        }
        Ok(Given { arguments, prefix: args.prefix.clone().unwrap_or_default() })
    }

    /// Checks that no option is given to a text that isn't a message.
    pub fn refuse(args: &TemplateArgs) -> Result<(), Failure> {
        let given = [
            (!args.arguments.is_empty(), "--chat-arg <KEY=VALUE>"),
            (args.tools.is_some(), "--tools <FILE>"),
            (args.prefix.is_some(), "--prefix <TEXT>"),
        ];
        match given.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(Failure::Usage(format!("'{option}' needs --chat"))),
            None => Ok(()),
        }
    }
}

fn text(path: &Path) -> Result<String> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(failed)?;
    let named = |what: String| Error::format(format!("{}: {what}", escaped_path(path)));
    if bytes.len() as u64 > MAX_BYTES {
        return Err(named(format!("more than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| named("not UTF-8".into()))
}
