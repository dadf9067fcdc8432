//! Prompts: the text in front of each text with which a model was trained to embed it, by name.

use std::borrow::Cow;

use crate::error::{Error, Result, quoted};
use crate::model::Model;

/// A text that stands in front of each text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    before: Cow<'static, str>,
}

/// The prompts of a kind of models.
struct Style {
    name: &'static str,
    /// Name and text of each.
    prompts: &'static [(&'static str, &'static str)],
}

/// The instruction of Qwen's own examples.
const QWEN_QUERY: &str =
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:";
/// As e5's examples have it, with a space at the end.
const INSTRUCT_QUERY: &str =
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ";

const STYLES: &[Style] = &[
    Style {
        name: "gemma",
        prompts: &[
            ("query", "task: search result | query: "),
            ("document", "title: none | text: "),
            ("search result", "task: search result | query: "),
            ("question answering", "task: question answering | query: "),
            ("fact checking", "task: fact checking | query: "),
            ("classification", "task: classification | query: "),
            ("clustering", "task: clustering | query: "),
            ("sentence similarity", "task: sentence similarity | query: "),
            ("code retrieval", "task: code retrieval | query: "),
        ],
    },
    Style {
        name: "nomic",
        prompts: &[
            ("query", "search_query: "),
            ("document", "search_document: "),
            ("classification", "classification: "),
            ("clustering", "clustering: "),
        ],
    },
    Style {
        name: "e5",
        prompts: &[("query", "query: "), ("document", "passage: "), ("passage", "passage: ")],
    },
    Style { name: "e5-instruct", prompts: &[("query", INSTRUCT_QUERY), ("document", "")] },
    Style { name: "qwen3", prompts: &[("query", QWEN_QUERY), ("document", "")] },
    Style {
        name: "bge",
        prompts: &[("query", "Represent this sentence for searching relevant passages: "), ("document", "")],
    },
];

impl Style {
    /// The style of a model's training, by its family and the name in its file.
    fn of(model: &Model) -> Option<&'static Style> {
        let config = model.config();
        let name = config.name.to_lowercase();
        let has = |word: &str| name.split(|c: char| !c.is_alphanumeric()).any(|part| part == word);
        let style = match config.architecture.as_str() {
            "gemma-embedding" => "gemma",
            "nomic-bert" | "nomic-bert-moe" => "nomic",
            "qwen3" => "qwen3",
            "bert" if has("e5") && has("instruct") => "e5-instruct",
            "bert" if has("e5") => "e5",
            "bert" if has("bge") && has("en") => "bge",
            _ => return None,
        };
        Style::named(style)
    }

    fn named(name: &str) -> Option<&'static Style> {
        STYLES.iter().find(|style| style.name == name)
    }

    fn prompt(&self, name: &str) -> Option<Prompt> {
        let found = self.prompts.iter().find(|prompt| prompt.0 == name)?;
        Some(Prompt { before: Cow::Borrowed(found.1) })
    }
}

impl Prompt {
    /// This text.
    pub fn text(before: impl Into<String>) -> Prompt {
        Prompt { before: Cow::Owned(before.into()) }
    }

    /// The prompt of this name in the style of the model's training, which follows from its family and the name in its
    /// file (`query`), or in a style by name (`nomic:query`). [`Prompt::names`] lists both.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the names that there are.
    pub fn named(model: &Model, name: &str) -> Result<Prompt> {
        let found = match name.split_once(':') {
            Some((style, name)) => Style::named(style).and_then(|style| style.prompt(name)),
            None => Style::of(model).and_then(|style| style.prompt(name)),
        };
        found.ok_or_else(|| {
            let names: Vec<_> = Self::names(model).collect();
            Error::invalid(format!("no prompt {}; there are {}", quoted(name), names.join(", ")))
        })
    }

    /// The names of prompts: those of the model's own style, then all with their styles.
    pub fn names(model: &Model) -> impl Iterator<Item = String> {
        let own = Style::of(model).into_iter().flat_map(|style| style.prompts.iter());
        let all = STYLES.iter().flat_map(|style| style.prompts.iter().map(|prompt| (style.name, prompt.0)));
        own.map(|prompt| prompt.0.to_owned()).chain(all.map(|(style, name)| format!("{style}:{name}")))
    }

    /// The text.
    pub fn before(&self) -> &str {
        &self.before
    }
}
