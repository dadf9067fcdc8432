//! A line of the input: a prompt or a conversation, and options that stand in place of the command line's.

use serde::Deserialize;
use serde_json::Value as Json;
use smallmind::Error;
use smallmind::chat::{Message, Prompt};
use smallmind::model::Model;
use smallmind::runtime::sampling::SamplerParams;

use crate::args::TextArgs;
use crate::session::conversation_tokens;

/// A line as it is written. A field with another name is refused: it may be a misspelled option.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub id: Option<Json>,
    prompt: Option<String>,
    messages: Option<Vec<Turn>>,
    max_tokens: Option<usize>,
    stop: Option<Stops>,
    priority: Option<i32>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    penalty_last_n: Option<usize>,
    seed: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: String,
    content: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Several(Vec<String>),
}

/// What a line asks for.
#[derive(Debug)]
pub struct Wanted {
    pub tokens: Vec<u32>,
    pub max_tokens: usize,
    pub stops: Vec<String>,
    pub sampling: SamplerParams,
    pub priority: i32,
}

impl Line {
    /// The line's id, if it has one that is a text or a number.
    pub fn id(&self) -> Option<String> {
        match &self.id {
            Some(Json::String(id)) => Some(id.clone()),
            Some(Json::Number(id)) => Some(id.to_string()),
            _ => None,
        }
    }

    /// What the line asks for; `defaults` is what it doesn't say.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for neither or both of prompt and messages, and for an empty prompt; those of the chat
    /// template and the tokenizer.
    pub fn wanted(
        self,
        model: &Model,
        text: &TextArgs,
        max_tokens: usize,
        sampling: SamplerParams,
    ) -> smallmind::Result<Wanted> {
        let tokens = match (&self.prompt, &self.messages) {
            (Some(prompt), None) => model.tokenizer()?.encode(prompt, text.parse_special, !text.no_bos)?,
            (None, Some(turns)) => {
                let messages: Vec<_> =
                    turns.iter().map(|turn| Message::new(&turn.role, &turn.content)).collect();
                conversation_tokens(model, &messages, &Prompt::default(), text.parse_special, !text.no_bos)?
            }
            _ => return Err(Error::invalid("a line has either \"prompt\" or \"messages\"")),
        };
        let stops = match self.stop {
            None => text.stop.clone(),
            Some(Stops::One(stop)) => vec![stop],
            Some(Stops::Several(stops)) => stops,
        };
        let given = sampling;
        let sampling = given
            .with_temperature(self.temperature.unwrap_or(given.temperature))
            .with_top_k(self.top_k.unwrap_or(given.top_k))
            .with_top_p(self.top_p.unwrap_or(given.top_p))
            .with_min_p(self.min_p.unwrap_or(given.min_p))
            .with_repetition_penalty(self.repetition_penalty.unwrap_or(given.repetition_penalty))
            .with_frequency_penalty(self.frequency_penalty.unwrap_or(given.frequency_penalty))
            .with_presence_penalty(self.presence_penalty.unwrap_or(given.presence_penalty))
            .with_penalty_last_n(self.penalty_last_n.unwrap_or(given.penalty_last_n))
            .with_seed(self.seed.unwrap_or(given.seed));
        Ok(Wanted {
            tokens,
            max_tokens: self.max_tokens.unwrap_or(max_tokens),
            stops,
            sampling,
            priority: self.priority.unwrap_or(0),
        })
    }
}
