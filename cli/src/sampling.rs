//! Options of the chain of stages that picks tokens, and samplers as they ask for.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgAction, Args as Group};
use smallmind::model::Model;
use smallmind::runtime::sampling::{Breakers, ChainParts, Mask, Sampler, SamplerParams, StageKind};
#[cfg(feature = "grammar")]
use smallmind::runtime::sampling::{GrammarKind, Grammars};

use crate::args::SamplingArgs;
use crate::failure::{Failure, Result};
use crate::small_file;
use crate::values::{
    count, dry_base, dry_multiplier, dynatemp_exp, dynatemp_range, frequency_penalty, logit_bias, mirostat,
    mirostat_eta, mirostat_tau, presence_penalty, repeat_last_n, stage, top_n_sigma, typical,
    xtc_probability, xtc_threshold,
};

/// Longest file of a grammar, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The chain of stages that picks tokens.
#[derive(Group)]
pub struct ChainArgs {
    #[command(flatten)]
    pub common: SamplingArgs,
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

/// Everything that a sampler is made of, to make several.
pub struct Sampling {
    params: SamplerParams,
    order: Vec<StageKind>,
    logit_bias: Vec<(u32, f32)>,
    breaker_texts: Vec<String>,
    /// Its kind and text.
    grammar: Option<(Kind, String)>,
    /// Made with the first sampler.
    #[cfg(feature = "grammar")]
    grammars: std::sync::OnceLock<Grammars>,
}

/// The language of a grammar.
#[derive(Clone, Copy)]
enum Kind {
    JsonSchema,
    Regex,
    Lark,
}

impl Sampling {
    /// # Errors
    /// Wrong usage: values that can't stand together.
    pub fn new(args: &ChainArgs, seed: u64) -> Result<Sampling> {
        let common = args.common.params();
        let params = common
            .with_temperature_range(args.dynatemp_range)
            .with_temperature_exponent(args.dynatemp_exp)
            .with_top_n_sigma(args.top_n_sigma)
            .with_typical_p(args.typical)
            .with_xtc_probability(args.xtc_probability)
            .with_xtc_threshold(args.xtc_threshold)
            .with_penalty_last_n(args.repeat_last_n)
            .with_presence_penalty(args.presence_penalty)
            .with_frequency_penalty(args.frequency_penalty)
            .with_dry_multiplier(args.dry_multiplier)
            .with_dry_base(args.dry_base)
            .with_dry_allowed_length(args.dry_allowed_length)
            .with_dry_last_n(args.dry_penalty_last_n)
            .with_mirostat(args.mirostat)
            .with_mirostat_tau(args.mirostat_ent)
            .with_mirostat_eta(args.mirostat_lr)
            .with_seed(seed);
        let sampling = Sampling {
            params,
            order: args.samplers.clone().unwrap_or_else(|| StageKind::ORDER.to_vec()),
            logit_bias: args.logit_bias.clone(),
            breaker_texts: args.dry_sequence_breaker.clone(),
            grammar: grammar(args)?,
            #[cfg(feature = "grammar")]
            grammars: std::sync::OnceLock::new(),
        };
        if sampling.grammar.is_some() && !sampling.order.contains(&StageKind::Mask) {
            return Err(Failure::Usage("'--samplers <STAGES>' has no place for mask".into()));
        }
        // Report a wrong value before a long load.
        let parts = ChainParts::default().with_logit_bias(sampling.logit_bias.clone());
        sampling.params.chain(&sampling.order, parts).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(sampling)
    }

    /// The seed of the random draws.
    pub fn seed(&self) -> u64 {
        self.params.seed
    }

    /// A sampler whose seed is `later` above the first one's.
    pub fn sampler(&self, model: &Arc<Model>, later: u64) -> Result<Sampler> {
        let params = self.params.with_seed(self.params.seed.wrapping_add(later));
        let mut parts = ChainParts::default().with_logit_bias(self.logit_bias.clone());
        if params.dry_multiplier != 0.0 {
            parts = parts.with_breakers(self.breakers(model)?);
        }
        if let Some(mask) = self.mask(model)? {
            parts = parts.with_mask(mask);
        }
        Ok(Sampler::from_stages(params.chain(&self.order, parts)?, model.config().n_vocab)?)
    }

    #[cfg(feature = "grammar")]
    fn mask(&self, model: &Arc<Model>) -> Result<Option<Box<dyn Mask>>> {
        let Some((kind, text)) = &self.grammar else { return Ok(None) };
        let kind = match kind {
            Kind::JsonSchema => GrammarKind::JsonSchema,
            Kind::Regex => GrammarKind::Regex,
            Kind::Lark => GrammarKind::Lark,
        };
        let grammars = match self.grammars.get() {
            Some(grammars) => grammars,
            None => {
                let made = Grammars::new(model.clone())?;
                self.grammars.get_or_init(|| made)
            }
        };
        Ok(Some(Box::new(grammars.compile(kind, text)?)))
    }

    #[cfg(not(feature = "grammar"))]
    fn mask(&self, _: &Arc<Model>) -> Result<Option<Box<dyn Mask>>> {
        match self.grammar {
            None => Ok(None),
            Some(_) => Err(Failure::Usage("this build has no grammars".into())),
        }
    }

    fn breakers(&self, model: &Model) -> Result<Breakers> {
        let given: Vec<&str> = self.breaker_texts.iter().map(String::as_str).collect();
        let texts: &[&str] = match &given[..] {
            [] => &Breakers::TEXTS,
            ["none"] => return Ok(Breakers::default()),
            given => given,
        };
        Ok(Breakers::from_texts(model.tokenizer()?, texts)?)
    }
}

/// The grammar that the command line gives.
fn grammar(args: &ChainArgs) -> Result<Option<(Kind, String)>> {
    Ok(match (&args.json_schema, &args.regex, &args.grammar) {
        (Some(path), _, _) => Some((Kind::JsonSchema, small_file::read_text(path, MAX_BYTES)?)),
        (_, Some(text), _) => Some((Kind::Regex, text.clone())),
        (_, _, Some(path)) => Some((Kind::Lark, small_file::read_text(path, MAX_BYTES)?)),
        _ => None,
    })
}
