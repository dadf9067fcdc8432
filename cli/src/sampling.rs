//! Makes samplers as the command line asks for them.

use std::sync::Arc;

use smallmind::model::Model;
use smallmind::runtime::sampling::{Breakers, ChainParts, Mask, Sampler, SamplerParams, StageKind};
#[cfg(feature = "grammar")]
use smallmind::runtime::sampling::{GrammarKind, Grammars};

use crate::args::SamplingArgs;
use crate::failure::{Failure, Result};
use crate::small_file;

/// Longest file of a grammar, in bytes.
const MAX_BYTES: u64 = 1 << 20;

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
    pub fn new(args: &SamplingArgs, seed: u64) -> Result<Sampling> {
        let params = SamplerParams::default()
            .with_temperature(args.temp)
            .with_temperature_range(args.dynatemp_range)
            .with_temperature_exponent(args.dynatemp_exp)
            .with_top_k(args.top_k)
            .with_top_p(args.top_p)
            .with_min_p(args.min_p)
            .with_top_n_sigma(args.top_n_sigma)
            .with_typical_p(args.typical)
            .with_xtc_probability(args.xtc_probability)
            .with_xtc_threshold(args.xtc_threshold)
            .with_repetition_penalty(args.repeat_penalty)
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
fn grammar(args: &SamplingArgs) -> Result<Option<(Kind, String)>> {
    Ok(match (&args.json_schema, &args.regex, &args.grammar) {
        (Some(path), _, _) => Some((Kind::JsonSchema, small_file::read_text(path, MAX_BYTES)?)),
        (_, Some(text), _) => Some((Kind::Regex, text.clone())),
        (_, _, Some(path)) => Some((Kind::Lark, small_file::read_text(path, MAX_BYTES)?)),
        _ => None,
    })
}
