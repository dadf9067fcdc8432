//! Options of the chain of stages that picks tokens, and samplers as they ask for.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgAction, Args as Group};
#[cfg(not(feature = "grammar"))]
use smallmind::Error;
use smallmind::model::Model;
use smallmind::runtime::sampling::{Breakers, ChainParts, Mask, Sampler, SamplerParams, StageKind};
#[cfg(feature = "grammar")]
use smallmind::runtime::sampling::{GrammarKind, Grammars};

use crate::failure::{Failure, Result};
use crate::small_file;
use crate::values::{
    count, dry_base, dry_multiplier, dynatemp_exp, dynatemp_range, frequency_penalty, logit_bias, min_p,
    mirostat, mirostat_eta, mirostat_tau, presence_penalty, repeat_last_n, repeat_penalty, seed, stage,
    temperature, top_n_sigma, top_p, typical, xtc_probability, xtc_threshold,
};

/// Longest file of a grammar, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The chain of stages that picks tokens.
#[derive(Group)]
pub struct ChainArgs {
    /// 0 always takes the likeliest token; higher values are more varied
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = temperature)]
    pub temp: f32,
    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 40, value_parser = count())]
    pub top_k: usize,
    /// Keep the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = top_p)]
    pub top_p: f32,
    /// Keep tokens at least this many times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = min_p)]
    pub min_p: f32,
    /// Make tokens of the recent text less likely; 1 is off
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = repeat_penalty)]
    pub repeat_penalty: f32,
    /// Seed of the random draws; the same seed gives the same text [default: from the clock]
    #[arg(long, value_name = "N", value_parser = seed)]
    pub seed: Option<u64>,
    /// Keep tokens whose logit is at most N standard deviations below the best one; 0 and below keep all
    #[arg(long, value_name = "N", default_value_t = 0.0, hide_default_value = true, value_parser = top_n_sigma)]
    pub top_n_sigma: f32,
    /// Keep the tokens that are as surprising as the mean, until they exceed this probability; 1 keeps all
    #[arg(long, value_name = "P", default_value_t = 1.0, hide_default_value = true, value_parser = typical)]
    pub typical: f32,
    /// How often top choices are excluded (XTC); 0 is off
    #[arg(long, value_name = "P", default_value_t = 0.0, hide_default_value = true, value_parser = xtc_probability)]
    pub xtc_probability: f32,
    /// The probability of a top choice; above 0.5 is off
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = xtc_threshold)]
    pub xtc_threshold: f32,
    /// Let the temperature follow the entropy, this far below and above --temp; 0 keeps it fixed
    #[arg(long, value_name = "T", default_value_t = 0.0, hide_default_value = true, value_parser = dynatemp_range)]
    pub dynatemp_range: f32,
    /// Power of the entropy's share, for the temperature that follows it
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = dynatemp_exp)]
    pub dynatemp_exp: f32,
    /// Tokens of the recent text that penalties look at
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = repeat_last_n())]
    pub repeat_last_n: usize,
    /// Subtract this from the logit of each token of the recent text
    #[arg(long, value_name = "X", default_value_t = 0.0, hide_default_value = true, value_parser = presence_penalty)]
    pub presence_penalty: f32,
    /// Subtract this from a logit for each time that its token is in the recent text
    #[arg(long, value_name = "X", default_value_t = 0.0, hide_default_value = true, value_parser = frequency_penalty)]
    pub frequency_penalty: f32,
    /// Scale of the penalty for tokens that continue a repetition (DRY); 0 is off, 0.8 is customary
    #[arg(long, value_name = "X", default_value_t = 0.0, hide_default_value = true, value_parser = dry_multiplier)]
    pub dry_multiplier: f32,
    /// Growth of that penalty with each token of the repetition
    #[arg(long, value_name = "X", default_value_t = 1.75, value_parser = dry_base)]
    pub dry_base: f32,
    /// Tokens that may be repeated without that penalty
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = count())]
    pub dry_allowed_length: usize,
    /// Tokens of the recent text in which repetitions count
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = repeat_last_n())]
    pub dry_penalty_last_n: usize,
    /// End repetitions at this text, or at none; may be given several times [default: a line end, a colon, a quotation mark,
    /// an asterisk]
    #[arg(long, value_name = "TEXT|none", allow_hyphen_values = true)]
    pub dry_sequence_breaker: Vec<String>,
    /// Aim at a constant surprise: 2 for Mirostat 2.0, in the place of all cuts; 0 is off
    #[arg(long, value_name = "0|2", default_value = "0", value_parser = mirostat, action = ArgAction::Set)]
    pub mirostat: bool,
    /// Surprise in bits that Mirostat aims at
    #[arg(long, value_name = "X", default_value_t = 5.0, value_parser = mirostat_tau)]
    pub mirostat_ent: f32,
    /// How fast Mirostat follows
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = mirostat_eta)]
    pub mirostat_lr: f32,
    /// Add to the logit of a token: 15043+1, 15043-1 or 15043-inf; may be given several times
    #[arg(short = 'l', long, value_name = "TOKEN(+|-)BIAS", value_parser = logit_bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// The stages to use, in this order [default: logit_bias;mask;penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature]
    #[arg(long, value_name = "STAGES", value_delimiter = ';', value_parser = stage)]
    pub samplers: Option<Vec<StageKind>>,
    /// Write a JSON value for which this JSON schema holds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["regex", "grammar"])]
    pub json_schema: Option<PathBuf>,
    /// Write a text that matches this regular expression, all of it
    #[arg(long, value_name = "RE", allow_hyphen_values = true, conflicts_with = "grammar")]
    pub regex: Option<String>,
    /// Write a text that follows this grammar, in llguidance's variant of Lark's syntax
    #[arg(long, value_name = "FILE")]
    pub grammar: Option<PathBuf>,
}

/// The language of a grammar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    JsonSchema,
    Regex,
    Lark,
}

/// What a sampler is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    pub params: SamplerParams,
    pub order: Vec<StageKind>,
    pub logit_bias: Vec<(u32, f32)>,
    /// The texts that end repetitions; `None` for the customary ones.
    pub breakers: Option<Vec<String>>,
    /// Its kind and text.
    pub grammar: Option<(Kind, String)>,
}

impl Chain {
    /// The chain of the command line.
    ///
    /// # Errors
    /// Wrong usage: values that can't stand together.
    pub fn new(args: &ChainArgs, seed: u64) -> Result<Chain> {
        let breakers = match &args.dry_sequence_breaker[..] {
            [] => None,
            [none] if none == "none" => Some(Vec::new()),
            texts => Some(texts.to_vec()),
        };
        let chain = Chain {
            params: args.params().with_seed(seed),
            order: args.samplers.clone().unwrap_or_else(|| StageKind::ORDER.to_vec()),
            logit_bias: args.logit_bias.clone(),
            breakers,
            grammar: args.grammar()?,
        };
        if chain.grammar.is_some() && !chain.order.contains(&StageKind::Mask) {
            return Err(Failure::Usage("'--samplers <STAGES>' has no place for mask".into()));
        }
        // Report a wrong value before a long load.
        let parts = ChainParts::default().with_logit_bias(chain.logit_bias.clone());
        chain.params.chain(&chain.order, parts).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(chain)
    }

    /// The same chain with a seed that is `later` above its own.
    pub fn later(&self, later: u64) -> Chain {
        let seed = self.params.seed.wrapping_add(later);
        Chain { params: self.params.with_seed(seed), ..self.clone() }
    }
}

impl ChainArgs {
    fn params(&self) -> SamplerParams {
        SamplerParams::default()
            .with_temperature(self.temp)
            .with_top_k(self.top_k)
            .with_top_p(self.top_p)
            .with_min_p(self.min_p)
            .with_repetition_penalty(self.repeat_penalty)
            .with_temperature_range(self.dynatemp_range)
            .with_temperature_exponent(self.dynatemp_exp)
            .with_top_n_sigma(self.top_n_sigma)
            .with_typical_p(self.typical)
            .with_xtc_probability(self.xtc_probability)
            .with_xtc_threshold(self.xtc_threshold)
            .with_penalty_last_n(self.repeat_last_n)
            .with_presence_penalty(self.presence_penalty)
            .with_frequency_penalty(self.frequency_penalty)
            .with_dry_multiplier(self.dry_multiplier)
            .with_dry_base(self.dry_base)
            .with_dry_allowed_length(self.dry_allowed_length)
            .with_dry_last_n(self.dry_penalty_last_n)
            .with_mirostat(self.mirostat)
            .with_mirostat_tau(self.mirostat_ent)
            .with_mirostat_eta(self.mirostat_lr)
    }

    /// The grammar that the command line gives.
    fn grammar(&self) -> Result<Option<(Kind, String)>> {
        Ok(match (&self.json_schema, &self.regex, &self.grammar) {
            (Some(path), _, _) => Some((Kind::JsonSchema, small_file::read_text(path, MAX_BYTES)?)),
            (_, Some(text), _) => Some((Kind::Regex, text.clone())),
            (_, _, Some(path)) => Some((Kind::Lark, small_file::read_text(path, MAX_BYTES)?)),
            _ => None,
        })
    }
}

/// Makes samplers for a model, and keeps what several of them have in common.
pub struct Samplers {
    model: Arc<Model>,
    /// The last texts that end repetitions, and what they are in the model's tokens.
    breakers: Option<(Option<Vec<String>>, Breakers)>,
    /// Made for the first sampler that needs them.
    #[cfg(feature = "grammar")]
    grammars: Option<Grammars>,
}

impl Samplers {
    pub fn new(model: Arc<Model>) -> Samplers {
        Samplers {
            model,
            breakers: None,
            #[cfg(feature = "grammar")]
            grammars: None,
        }
    }

    /// # Errors
    /// Those of the library for the chain's values, its texts and its grammar.
    pub fn sampler(&mut self, chain: &Chain) -> smallmind::Result<Sampler> {
        chain.params.validate()?;
        let mut parts = ChainParts::default().with_logit_bias(chain.logit_bias.clone());
        if chain.params.dry_multiplier != 0.0 {
            parts = parts.with_breakers(self.breakers(&chain.breakers)?);
        }
        if let Some((kind, text)) = &chain.grammar {
            parts = parts.with_mask(self.mask(*kind, text)?);
        }
        Sampler::from_stages(chain.params.chain(&chain.order, parts)?, self.model.config().n_vocab)
    }

    #[cfg(feature = "grammar")]
    fn mask(&mut self, kind: Kind, text: &str) -> smallmind::Result<Box<dyn Mask>> {
        let kind = match kind {
            Kind::JsonSchema => GrammarKind::JsonSchema,
            Kind::Regex => GrammarKind::Regex,
            Kind::Lark => GrammarKind::Lark,
        };
        let grammars = match &mut self.grammars {
            Some(grammars) => grammars,
            none => none.insert(Grammars::new(self.model.clone())?),
        };
        Ok(Box::new(grammars.compile(kind, text)?))
    }

    #[cfg(not(feature = "grammar"))]
    fn mask(&mut self, _: Kind, _: &str) -> smallmind::Result<Box<dyn Mask>> {
        Err(Error::Unsupported("grammars, in this build".into()))
    }

    /// What these texts are in the model's tokens. That takes a look at the whole vocabulary, so the last ones are kept.
    fn breakers(&mut self, texts: &Option<Vec<String>>) -> smallmind::Result<Breakers> {
        if let Some((known, breakers)) = &self.breakers
            && known == texts
        {
            return Ok(breakers.clone());
        }
        let given: Option<Vec<&str>> = texts.as_ref().map(|texts| texts.iter().map(String::as_str).collect());
        let breakers =
            Breakers::from_texts(self.model.tokenizer()?, given.as_deref().unwrap_or(&Breakers::TEXTS))?;
        self.breakers = Some((texts.clone(), breakers.clone()));
        Ok(breakers)
    }
}
