//! A line of the input: a prompt or a conversation, and options that stand in place of the command line's.

use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use smallmind::Error;
use smallmind::chat::{Message, Prompt};
use smallmind::model::Model;
use smallmind::runtime::sampling::StageKind;

use super::args::Batch;
use crate::sampling::{Chain, Kind};
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
    logprobs: Option<usize>,
    temperature: Option<f32>,
    temperature_range: Option<f32>,
    temperature_exponent: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    top_n_sigma: Option<f32>,
    xtc_probability: Option<f32>,
    xtc_threshold: Option<f32>,
    repetition_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    penalty_last_n: Option<usize>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    dry_allowed_length: Option<usize>,
    dry_last_n: Option<usize>,
    dry_breakers: Option<Vec<String>>,
    mirostat: Option<u8>,
    mirostat_tau: Option<f32>,
    mirostat_eta: Option<f32>,
    logit_bias: Option<Vec<(u32, Bias)>>,
    samplers: Option<Vec<String>>,
    /// As it is written: the order of a schema's properties counts.
    json_schema: Option<Box<RawValue>>,
    regex: Option<String>,
    grammar: Option<String>,
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

/// What is added to a token's logit; `false` for a token that can't come.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Bias {
    Number(f32),
    Allowed(bool),
}

impl Bias {
    fn number(self) -> smallmind::Result<f32> {
        match self {
            Bias::Number(bias) => Ok(bias),
            Bias::Allowed(false) => Ok(f32::NEG_INFINITY),
            Bias::Allowed(true) => Err(Error::invalid("a logit bias is a number, or false")),
        }
    }
}

/// What a line asks for.
#[derive(Debug)]
pub struct Wanted {
    pub tokens: Vec<u32>,
    pub max_tokens: usize,
    pub stops: Vec<String>,
    pub logprobs: Option<usize>,
    pub chain: Chain,
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

    /// What the line asks for; the command line and `chain` have what it doesn't say.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for neither or both of prompt and messages, for an empty prompt, and for options that no
    /// sampler has; those of the chat template and the tokenizer.
    pub fn wanted(self, model: &Model, args: &Batch, chain: Chain) -> smallmind::Result<Wanted> {
        let text = &args.text;
        let chain = self.chain(chain)?;
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
        Ok(Wanted {
            tokens,
            max_tokens: self.max_tokens.unwrap_or(args.max_tokens),
            stops,
            logprobs: self.logprobs.or(args.logprobs),
            chain,
            priority: self.priority.unwrap_or(0),
        })
    }

    /// The chain of stages that the line asks for.
    fn chain(&self, given: Chain) -> smallmind::Result<Chain> {
        let mut chain = given;
        let params = &mut chain.params;
        let numbers = [
            (self.temperature, &mut params.temperature),
            (self.temperature_range, &mut params.temperature_range),
            (self.temperature_exponent, &mut params.temperature_exponent),
            (self.top_p, &mut params.top_p),
            (self.min_p, &mut params.min_p),
            (self.typical_p, &mut params.typical_p),
            (self.top_n_sigma, &mut params.top_n_sigma),
            (self.xtc_probability, &mut params.xtc_probability),
            (self.xtc_threshold, &mut params.xtc_threshold),
            (self.repetition_penalty, &mut params.repetition_penalty),
            (self.frequency_penalty, &mut params.frequency_penalty),
            (self.presence_penalty, &mut params.presence_penalty),
            (self.dry_multiplier, &mut params.dry_multiplier),
            (self.dry_base, &mut params.dry_base),
            (self.mirostat_tau, &mut params.mirostat_tau),
            (self.mirostat_eta, &mut params.mirostat_eta),
        ];
        numbers.into_iter().for_each(|(said, place)| *place = said.unwrap_or(*place));
        let counts = [
            (self.top_k, &mut params.top_k),
            (self.penalty_last_n, &mut params.penalty_last_n),
            (self.dry_allowed_length, &mut params.dry_allowed_length),
            (self.dry_last_n, &mut params.dry_last_n),
        ];
        counts.into_iter().for_each(|(said, place)| *place = said.unwrap_or(*place));
        params.seed = self.seed.unwrap_or(params.seed);
        params.mirostat = match self.mirostat {
            None => params.mirostat,
            Some(version @ (0 | 2)) => version == 2,
            Some(other) => return Err(Error::invalid(format!("mirostat is {other}; it must be 0 or 2"))),
        };
        if let Some(biases) = &self.logit_bias {
            let biases = biases.iter().map(|(token, bias)| Ok((*token, bias.number()?)));
            chain.logit_bias = biases.collect::<smallmind::Result<_>>()?;
        }
        if let Some(names) = &self.samplers {
            chain.order =
                names.iter().map(|name| StageKind::named(name)).collect::<smallmind::Result<_>>()?;
        }
        chain.breakers = self.dry_breakers.clone().or(chain.breakers);
        chain.grammar = self.grammar()?.or(chain.grammar);
        Ok(chain)
    }

    fn grammar(&self) -> smallmind::Result<Option<(Kind, String)>> {
        let schema = self.json_schema.as_ref().map(|schema| (Kind::JsonSchema, schema.get().to_owned()));
        let regex = self.regex.clone().map(|text| (Kind::Regex, text));
        let lark = self.grammar.clone().map(|text| (Kind::Lark, text));
        let mut given = [schema, regex, lark].into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(_), Some(_)) => Err(Error::invalid("a line has one of json_schema, regex and grammar")),
            (first, _) => Ok(first),
        }
    }
}
