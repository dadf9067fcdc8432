//! The messages of a chat, and the file that they are kept in: a JSON list of `{"role": …, "content": …}`, as other
//! programs write and read it.

use std::path::Path;

use smallmind::chat::Message;
use smallmind::text::escaped_path;
use smallmind::{Error, Result, files};

use crate::small_file;

/// The longest file that is loaded.
const MAX_BYTES: u64 = 64 << 20;

const SYSTEM: &str = "system";
const USER: &str = "user";
const ASSISTANT: &str = "assistant";

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Turn {
    role: String,
    content: String,
}

/// The messages so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    turns: Vec<Turn>,
}

impl Conversation {
    /// How the model should behave, if it was said.
    pub fn system(&self) -> Option<&str> {
        self.turns.first().filter(|turn| turn.role == SYSTEM).map(|turn| turn.content.as_str())
    }

    /// Says how the model should behave, or takes it back.
    pub fn set_system(&mut self, text: Option<&str>) {
        if self.system().is_some() {
            self.turns.remove(0);
        }
        if let Some(text) = text {
            self.turns.insert(0, Turn { role: SYSTEM.into(), content: text.into() });
        }
    }

    /// Forgets all messages but how the model should behave.
    pub fn clear(&mut self) {
        self.turns.truncate(self.system().is_some().into());
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    pub fn push_question(&mut self, content: &str) {
        self.turns.push(Turn { role: USER.into(), content: content.into() });
    }

    pub fn push_answer(&mut self, content: String) {
        self.turns.push(Turn { role: ASSISTANT.into(), content });
    }

    /// Takes the last message back, if a person wrote it.
    pub fn pop_question(&mut self) -> Option<String> {
        self.pop(USER)
    }

    /// Takes the last message back, if the model wrote it.
    pub fn pop_answer(&mut self) -> Option<String> {
        self.pop(ASSISTANT)
    }

    fn pop(&mut self, role: &str) -> Option<String> {
        self.turns.pop_if(|turn| turn.role == role).map(|turn| turn.content)
    }

    /// The messages, for a template.
    pub fn messages(&self) -> Vec<Message<'_>> {
        self.turns.iter().map(|turn| Message::new(&turn.role, &turn.content)).collect()
    }

    /// Writes the messages to a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let turns: Vec<_> = self
            .turns
            .iter()
            .map(|turn| serde_json::json!({ "role": turn.role, "content": turn.content }))
            .collect();
        let text =
            serde_json::to_string_pretty(&turns).map_err(|error| Error::Internal(error.to_string()))?;
        files::write(path, (text + "\n").as_bytes())
    }

    /// Reads the messages of a file.
    pub fn load(path: &Path) -> Result<Conversation> {
        Conversation::parse(&small_file::read(path, MAX_BYTES)?)
            .map_err(|why| Error::format(format!("{}: no conversation: {why}", escaped_path(path))))
    }

    fn parse(bytes: &[u8]) -> Result<Conversation, String> {
        let parsed: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let list = parsed.as_array().ok_or("not a list of messages")?;
        let turn = |(index, message): (usize, &serde_json::Value)| {
            let text = |key: &str| {
                let text = message.get(key).and_then(|text| text.as_str()).map(str::to_owned);
                text.ok_or_else(|| format!("message {index} has no text as its {key:?}"))
            };
            Ok(Turn { role: text("role")?, content: text("content")? })
        };
        Ok(Conversation { turns: list.iter().enumerate().map(turn).collect::<Result<_, String>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Conversation {
        let mut conversation = Conversation::default();
        conversation.set_system(Some("Be brief."));
        conversation.push_question("\"Why?\"\n\u{1b}[1m");
        conversation.push_answer("Ĉar.".into());
        conversation
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        conversation().save(&path).unwrap();
        assert_eq!(Conversation::load(&path).unwrap(), conversation());
        let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept[1]["role"], "user");
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        for (text, why) in [
            ("", "EOF"),
            ("{\"role\": \"user\", \"content\": \"x\"}", "not a list"),
            ("[{\"role\": \"user\"}]", "message 0 has no text as its \"content\""),
            ("[{\"role\": 1, \"content\": \"x\"}]", "\"role\""),
            ("[1]", "\"role\""),
        ] {
            let error = Conversation::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_system_message_stays_first() {
        let mut conversation = conversation();
        conversation.set_system(Some("Be long."));
        assert_eq!((conversation.system(), conversation.len()), (Some("Be long."), 3));
        conversation.set_system(None);
        assert_eq!((conversation.system(), conversation.len()), (None, 2));
        assert_eq!(conversation.pop_question(), None);
        conversation.set_system(Some("Again."));
        conversation.clear();
        assert_eq!((conversation.system(), conversation.len()), (Some("Again."), 1));
    }
}
