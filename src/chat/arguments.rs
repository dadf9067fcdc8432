//! Variables that a chat template sees in addition to the messages, from JSON: tools, and switches such as
//! `enable_thinking`. Maps keep the order of the text, which templates print.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use smallmind_templates::Argument;

use crate::error::{Error, Result, quoted};
use crate::memory::reserve::{held, reserve, reserve_text};

/// The purpose of the memory, in errors.
const WHAT: &str = "an argument of a chat template";
/// Longest JSON text.
const MAX_JSON_BYTES: usize = 16 << 20;
/// Most memory that a parsed text takes, in bytes for each of its bytes: a digit and a comma become a value of a list that
/// doubles.
const MEMORY_PER_BYTE: usize = 64;

/// Variables by their names; the last of a name counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments(Vec<(String, Argument)>);

impl Arguments {
    /// Sets a variable to a JSON value. `name` is as the template spells it: `tools`, `enable_thinking`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a name that no template can spell, a text that is no JSON value, is longer than
    /// 16 MiB or nested too deep; [`Error::OutOfMemory`].
    pub fn set(&mut self, name: &str, json: &str) -> Result<()> {
        let value = parsed(json).map_err(|error| match error {
            Error::InvalidArgument(why) => Error::InvalidArgument(format!("{}: {why}", quoted(name))),
            other => other,
        })?;
        self.push(name, value)
    }

    /// Sets a variable for each key of a JSON object.
    ///
    /// # Errors
    /// Those of [`Arguments::set`]; [`Error::InvalidArgument`] for another JSON value.
    pub fn extend(&mut self, json: &str) -> Result<()> {
        match parsed(json)? {
            Argument::Map(pairs) => pairs.into_iter().try_for_each(|(name, value)| self.push(&name, value)),
            _ => Err(Error::invalid("no JSON object")),
        }
    }

    fn push(&mut self, name: &str, value: Argument) -> Result<()> {
        let spelled = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let begins = |first: char| first.is_ascii_digit();
        if name.is_empty() || name.starts_with(begins) || !name.chars().all(spelled) {
            return Err(Error::invalid(format!("{} is no name of a template's variable", quoted(name))));
        }
        let mut copied = String::new();
        reserve_text(&mut copied, name.len(), WHAT)?;
        copied.push_str(name);
        reserve(&mut self.0, 1, WHAT)?;
        self.0.push((copied, value));
        Ok(())
    }

    pub(super) const fn none() -> Self {
        Arguments(Vec::new())
    }

    /// The variables.
    pub(super) fn pairs(&self) -> &[(String, Argument)] {
        &self.0
    }

    /// The same with other texts.
    pub(super) fn with_texts(&self, change: &impl Fn(&str) -> Result<String>) -> Result<Arguments> {
        let pairs = self.0.iter().map(|(name, value)| Ok((name.clone(), changed(value, change)?)));
        Ok(Arguments(pairs.collect::<Result<_>>()?))
    }

    /// Shows every text, keys of maps too.
    pub(super) fn each_text(&self, show: &mut impl FnMut(&str)) {
        self.0.iter().for_each(|(_, value)| each_text(value, show));
    }

    /// Bytes of all values.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.bytes()).fold(0, usize::saturating_add)
    }
}

/// The value of a JSON text.
fn parsed(json: &str) -> Result<Argument> {
    if json.len() > MAX_JSON_BYTES {
        return Err(Error::invalid(format!("{} bytes; at most {MAX_JSON_BYTES} are taken", json.len())));
    }
    let _held = held(json.len().saturating_mul(MEMORY_PER_BYTE), WHAT)?;
    let wrong = |error: serde_json::Error| Error::invalid(format!("no JSON value: {error}"));
    let mut parser = serde_json::Deserializer::from_str(json);
    let value = Any.deserialize(&mut parser).map_err(wrong)?;
    parser.end().map_err(wrong)?;
    Ok(value)
}

fn changed(value: &Argument, change: &impl Fn(&str) -> Result<String>) -> Result<Argument> {
    Ok(match value {
        Argument::Text(text) => Argument::Text(change(text)?),
        Argument::List(items) => {
            Argument::List(items.iter().map(|item| changed(item, change)).collect::<Result<_>>()?)
        }
        Argument::Map(pairs) => {
            let pair = |(key, value): &(String, Argument)| Ok((change(key)?, changed(value, change)?));
            Argument::Map(pairs.iter().map(pair).collect::<Result<_>>()?)
        }
        other => other.clone(),
    })
}

fn each_text(value: &Argument, show: &mut impl FnMut(&str)) {
    match value {
        Argument::Text(text) => show(text),
        Argument::List(items) => items.iter().for_each(|item| each_text(item, show)),
        Argument::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            show(key);
            each_text(value, show);
        }),
        _ => {}
    }
}

/// Any JSON value.
struct Any;

impl<'de> DeserializeSeed<'de> for Any {
    type Value = Argument;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Argument, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any {
    type Value = Argument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Argument, E> {
        Ok(Argument::None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Argument, E> {
        Ok(Argument::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Argument, E> {
        Ok(Argument::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Argument, E> {
        Ok(i64::try_from(value).map_or(Argument::Float(value as f64), Argument::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Argument, E> {
        Ok(Argument::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Argument, E> {
        Ok(Argument::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Argument, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Any)? {
            list.push(item);
        }
        Ok(Argument::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Argument, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = entries.next_key()? {
            pairs.push((key, entries.next_value_seed(Any)?));
        }
        Ok(Argument::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Prompt, Template};

    fn rendered(source: &str, arguments: &[(&str, &str)]) -> Result<String> {
        let mut set = Arguments::default();
        for (name, json) in arguments {
            set.set(name, json)?;
        }
        let prompt = Prompt::default().with_arguments(&set);
        Template::new(source, "", "")?.render_with(&[Message::new("user", "Hi")], &prompt)
    }

    #[test]
    fn values_are_those_of_json_in_its_order() {
        let json = r#"{"z": 1, "a": [true, null, 2.5, "\u00e9"], "z": {"b": -3}}"#;
        let text = rendered("{{ x | tojson }}", &[("x", json)]).unwrap();
        assert_eq!(text, r#"{"z": {"b": -3}, "a": [true, null, 2.5, "é"]}"#);
        let switch =
            "{% if enable_thinking is defined and enable_thinking is false %}no{% else %}yes{% endif %}";
        assert_eq!(rendered(switch, &[]).unwrap(), "yes");
        assert_eq!(rendered(switch, &[("enable_thinking", "false")]).unwrap(), "no");
        assert_eq!(
            rendered(switch, &[("enable_thinking", "false"), ("enable_thinking", "true")]).unwrap(),
            "yes"
        );
        assert_eq!(rendered("{{ tools is none }}", &[]).unwrap(), "True");
        let mut all = Arguments::default();
        all.extend(r#"{"a": 1, "b": [2]}"#).unwrap();
        let mut each = Arguments::default();
        each.set("a", "1").unwrap();
        each.set("b", "[2]").unwrap();
        assert_eq!(all, each);
        for wrong in ["[]", "{", "{\"a b\": 1}"] {
            assert!(matches!(all.extend(wrong), Err(Error::InvalidArgument(_))), "{wrong}");
        }
        assert_eq!(rendered("{{ tools[0].name }}", &[("tools", r#"[{"name": "f"}]"#)]).unwrap(), "f");
    }

    #[test]
    fn what_is_no_argument_is_refused() {
        for (name, json, why) in [
            ("messages", "[]", "messages is no argument"),
            ("bos_token", "\"x\"", "bos_token is no argument"),
            ("", "1", "no name"),
            ("a b", "1", "no name"),
            ("1a", "1", "no name"),
            ("a", "", "\"a\": no JSON value: EOF"),
            ("a", "{", "no JSON value"),
            ("a", "1 2", "trailing"),
            ("a", &"[".repeat(1000), "recursion"),
        ] {
            let error = rendered("x", &[(name, json)]).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
