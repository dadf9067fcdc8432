//! `config.json` of a folder: typed look-ups, with the file and the key in every error.

use serde_json::{Map, Value as Json};

use crate::error::{Error, Result, quoted, shortened};

/// Most characters of a value that a message shows.
const SHOWN: usize = 60;

/// The keys of a configuration.
pub(super) struct Settings {
    keys: Map<String, Json>,
    /// The file, in messages.
    file: String,
}

impl Settings {
    /// Reads a JSON text that must be an object.
    pub fn read(file: String, text: &[u8]) -> Result<Self> {
        match serde_json::from_slice(text) {
            Ok(Json::Object(keys)) => Ok(Self { keys, file }),
            Ok(_) => Err(Error::format(format!("{file}: not a JSON object"))),
            Err(error) => Err(Error::format(format!("{file}: {error}"))),
        }
    }

    /// The keys, and those of the decoder of text, which models with pictures have a level deeper.
    pub fn with_text(mut self) -> Self {
        if let Some(Json::Object(text)) = self.keys.remove("text_config") {
            self.keys.extend(text);
        }
        self
    }

    /// The file, in messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// A value; `None` where it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// An object within, whose keys are read alike.
    pub fn inner(&self, key: &str) -> Result<Option<Settings>> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Object(keys)) => {
                Ok(Some(Settings { keys: keys.clone(), file: format!("{}: {key}", self.file) }))
            }
            Some(_) => Err(self.wrong(key, "an object")),
        }
    }

    fn wrong(&self, key: &str, needed: &str) -> Error {
        let value = self.keys.get(key).map(Json::to_string).unwrap_or_default();
        let value = quoted(shortened(&value, SHOWN));
        Error::format(format!("{}: {} is {value}; {needed} is needed", self.file, quoted(key)))
    }

    /// A count that fits u32.
    pub fn count(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count.map(Some).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    /// [`Settings::count`] of a key that must exist.
    pub fn required(&self, key: &str) -> Result<u32> {
        self.count(key)?.ok_or_else(|| Error::format(format!("{}: {} is missing", self.file, quoted(key))))
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(|number| Some(number as f32)).ok_or_else(|| self.wrong(key, "a number"))
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a text"))
    }

    /// A truth value; false where it is absent.
    pub fn flag(&self, key: &str) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// Checks that a key is absent or has one of these texts.
    pub fn expect(&self, key: &str, texts: &[&str]) -> Result<()> {
        match self.text(key)? {
            Some(text) if !texts.contains(&text) => Err(Error::Unsupported(format!(
                "{}: {} is {}; it must be {}",
                self.file,
                quoted(key),
                quoted(text),
                texts.join(" or ")
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_the_type_that_is_needed() {
        let text =
            br#"{"n": 7, "x": 1e-5, "t": "silu", "b": true, "null": null, "big": 1e12, "o": {"n": 8}}"#;
        let settings = Settings::read("config.json".into(), text).unwrap();
        assert_eq!(settings.count("n").unwrap(), Some(7));
        assert_eq!(settings.number("x").unwrap(), Some(1e-5));
        assert_eq!(settings.number("n").unwrap(), Some(7.0));
        assert_eq!(settings.text("t").unwrap(), Some("silu"));
        assert!(settings.flag("b").unwrap() && !settings.flag("null").unwrap());
        assert_eq!(settings.inner("o").unwrap().unwrap().required("n").unwrap(), 8);
        assert!(settings.expect("t", &["silu"]).is_ok());
        let named = |result: Result<()>, what: &str| {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("config.json") && message.contains(what), "{message}");
        };
        named(settings.count("t").map(drop), "\"t\"");
        named(settings.count("big").map(drop), "a whole number");
        named(settings.required("absent").map(drop), "\"absent\" is missing");
        named(settings.required("null").map(drop), "\"null\" is missing");
        named(settings.expect("t", &["gelu"]), "it must be gelu");
        named(Settings::read("config.json".into(), b"[1]").map(drop), "object");
        named(Settings::read("config.json".into(), b"{").map(drop), "EOF");
    }
}
