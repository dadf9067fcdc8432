//! Options for the chat template: its variables, tools, and the beginning of answers.

use smallmind::Error;
use smallmind::chat::Arguments;
use smallmind::text::escaped_path;

use crate::args::TemplateArgs;
use crate::failure::{Failure, Result};
use crate::small_file;

/// The longest file of tools.
const MAX_BYTES: u64 = 16 << 20;

/// The options, read.
#[derive(Default)]
pub struct Given {
    pub arguments: Arguments,
    pub prefix: String,
}

impl Given {
    pub fn read(args: &TemplateArgs) -> Result<Given> {
        let mut arguments = Arguments::default();
        if let Some(path) = &args.tools {
            let text = small_file::read_text(path, MAX_BYTES)?;
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
    pub fn refuse(args: &TemplateArgs) -> Result<()> {
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
