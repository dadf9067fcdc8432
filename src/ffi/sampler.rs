//! Sampler
//! =======
//! Picks the next token from logits. The same seed and logits give the same tokens. `sm_sampler_create` reserves all
//! memory; sampling allocates nothing.

use std::ffi::{c_char, c_void};
use std::mem::size_of;
use std::ptr;

use super::boundary;
use super::buffers;
use super::handle::{Entered, Exclusive, borrow, clear_out, free_exclusive, give, take};
use super::model::sm_model;
use super::params::{self, Params, Versioned, fields};
#[cfg(not(feature = "grammar"))]
use super::status::SM_STATUS_UNSUPPORTED;
use super::status::{Failure, sm_status};
use crate::model::Model;
use crate::runtime::sampling::{
    Breakers, ChainParts, CustomStage, Logprobs, MAX_BREAKER_BYTES, MAX_LOGIT_BIASES, Mask, Sampler,
    SamplerParams, StageKind, TokenLogit, TokenLogprob,
};
#[cfg(feature = "grammar")]
use crate::runtime::sampling::{GrammarKind, MAX_GRAMMAR_BYTES};
use crate::{Error, Result as Outcome};

/// A sampler. It takes one call at a time.
pub struct sm_sampler {
    sampler: Exclusive<Sampler>,
    /// Made by the first call that needs it.
    logprobs: Exclusive<Option<Logprobs>>,
    n_vocab: usize,
}

/// `sm_sampler_params.logit_bias`.
pub const SM_STAGE_LOGIT_BIAS: i32 = 0;
/// A constraint of the text.
pub const SM_STAGE_MASK: i32 = 1;
/// The repetition, frequency and presence penalties.
pub const SM_STAGE_PENALTIES: i32 = 2;
/// The penalty for tokens that continue a repetition.
pub const SM_STAGE_DRY: i32 = 3;
/// `sm_sampler_params.top_n_sigma`.
pub const SM_STAGE_TOP_N_SIGMA: i32 = 4;
/// `sm_sampler_params.top_k`.
pub const SM_STAGE_TOP_K: i32 = 5;
/// `sm_sampler_params.typical_p`.
pub const SM_STAGE_TYPICAL: i32 = 6;
/// `sm_sampler_params.top_p`.
pub const SM_STAGE_TOP_P: i32 = 7;
/// `sm_sampler_params.min_p`.
pub const SM_STAGE_MIN_P: i32 = 8;
/// `sm_sampler_params.xtc_probability`.
pub const SM_STAGE_XTC: i32 = 9;
/// `sm_sampler_params.on_candidates`.
pub const SM_STAGE_CUSTOM: i32 = 10;
/// The temperature, fixed or dynamic.
pub const SM_STAGE_TEMPERATURE: i32 = 11;

/// No constraint.
pub const SM_GRAMMAR_NONE: i32 = 0;
/// The text is a JSON value that a JSON schema holds for.
pub const SM_GRAMMAR_JSON_SCHEMA: i32 = 1;
/// The whole text matches a regular expression.
pub const SM_GRAMMAR_REGEX: i32 = 2;
/// The text follows a context-free grammar in llguidance's variant of Lark's syntax.
pub const SM_GRAMMAR_LARK: i32 = 3;

/// A token and the number that is added to its logit: finite, or -infinity, which rules the token out.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_logit_bias {
    /// The token.
    pub token: u32,
    /// Added to its logit.
    pub bias: f32,
}

/// A token that is left to pick from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_token_logit {
    /// The token.
    pub token: u32,
    /// Its logit.
    pub logit: f32,
}

/// A token and the natural logarithm of its probability.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_token_logprob {
    /// The token.
    pub token: u32,
    /// The logarithm; -infinity where the token can't come.
    pub logprob: f32,
}

// Lists of the library's are copied to the host as they stand.
const _: () = assert!(size_of::<sm_token_logprob>() == size_of::<TokenLogprob>());

impl From<TokenLogprob> for sm_token_logprob {
    fn from(one: TokenLogprob) -> Self {
        Self { token: one.token, logprob: one.logprob }
    }
}

/// Changes the `*n_candidates` tokens that are left to pick from: it may change their logits, move them, and lower
/// `*n_candidates` to remove the last ones. They come in any order. Any result but 0 makes sampling fail.
///
/// The callback is called on the thread that samples. It must return normally: no `longjmp`, no C++ exception. Calls with the
/// same sampler get `SM_STATUS_BUSY`.
pub type sm_candidates_callback = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        candidates: *mut sm_token_logit,
        n_candidates: *mut usize,
    ) -> i32,
>;

/// The options of a sampler. Fill it with `sm_sampler_params_init`; set `temperature` to 0 for the likeliest token.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_sampler_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Keeps the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// The number of recent tokens that the penalties look at; 0 turns the penalties off.
    pub penalty_last_n: usize,
    /// The logits are divided by it before a token is drawn at random; 0 takes the likeliest token, whatever the seed.
    pub temperature: f32,
    /// Keeps the smallest number of likeliest tokens whose probabilities add up to this; in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this many times as likely as the likeliest; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// Positive logits of recent tokens are divided by it, other logits of recent tokens multiplied; above 0, 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time that the token is among the recent ones; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each recent token; 0 is off.
    pub presence_penalty: f32,
    /// The temperature follows the entropy, from `temperature` minus this (at least 0) to `temperature` plus this; 0, the
    /// default, keeps it fixed. Off at temperature 0.
    pub temperature_range: f32,
    /// Power of the entropy's share of the greatest possible one, for the temperature that follows it. Default 1.
    pub temperature_exponent: f32,
    /// Keeps tokens whose logit is at most this many standard deviations of all logits below the best one; 0, the default,
    /// and below keep all.
    pub top_n_sigma: f32,
    /// Keeps the tokens whose information content is nearest to the entropy, until their probability exceeds this; in (0, 1],
    /// 1, the default, keeps all.
    pub typical_p: f32,
    /// How often all tokens that have at least `xtc_threshold` are removed, except the least likely of them; in [0, 1], 0, the
    /// default, is off.
    pub xtc_probability: f32,
    /// The probability of such a token; in [0, 1], above 0.5 is off. Default 0.1.
    pub xtc_threshold: f32,
    /// A token that continues a repetition of n tokens loses this times `dry_base` to the power of n - `dry_allowed_length`, if
    /// n is at least that; 0, the default, is off.
    pub dry_multiplier: f32,
    /// At least 1. Default 1.75.
    pub dry_base: f32,
    /// Tokens that may be repeated. Default 2.
    pub dry_allowed_length: usize,
    /// The number of recent tokens in which repetitions count; 0 is off. Default 4096.
    pub dry_last_n: usize,
    /// `n_dry_breakers` texts that end a repetition, NUL-terminated UTF-8 of 1 to 40 bytes, which live until
    /// `sm_sampler_create` returns. NULL, the default, stands for a line end, a colon, a quotation mark and an asterisk.
    pub dry_breakers: *const *const c_char,
    /// The number of these texts; at most 64.
    pub n_dry_breakers: usize,
    /// `n_logit_bias` tokens with what is added to their logits; they live until `sm_sampler_create` returns.
    pub logit_bias: *const sm_logit_bias,
    /// The number of these tokens; at most 65536. Default 0.
    pub n_logit_bias: usize,
    /// `n_order` stages, each once, from first to last: `SM_STAGE_*`. A stage that isn't in it isn't used. NULL, the default,
    /// stands for the order of their numbers. A draw, or Mirostat, always comes last.
    pub order: *const i32,
    /// The number of stages in `order`.
    pub n_order: usize,
    /// The stage `SM_STAGE_CUSTOM`; NULL, the default, for none. It may be called until the sampler is freed.
    pub on_candidates: sm_candidates_callback,
    /// Passed to `on_candidates`.
    pub user_data: *mut c_void,
    /// Surprise in bits that Mirostat aims at; at least 0. Default 5.
    pub mirostat_tau: f32,
    /// How fast Mirostat follows; at least 0. Default 0.1.
    pub mirostat_eta: f32,
    /// 1 puts Mirostat 2.0 in the place of all cuts, XTC and the draw. Default 0.
    pub mirostat: i32,
    /// The language of `grammar`: one of `SM_GRAMMAR_*`. Default `SM_GRAMMAR_NONE`.
    pub grammar_kind: i32,
    /// What the text matches, NUL-terminated UTF-8 of at most 1 MiB, which lives until `sm_sampler_create` returns.
    pub grammar: *const c_char,
}

// SAFETY: repr(C); integers, floats, raw pointers and an optional function pointer.
unsafe impl Versioned for sm_sampler_params {
    const NAME: &'static str = "sm_sampler_params";

    fields!(
        struct_size,
        seed,
        top_k,
        penalty_last_n,
        temperature,
        top_p,
        min_p,
        repetition_penalty,
        frequency_penalty,
        presence_penalty,
        temperature_range,
        temperature_exponent,
        top_n_sigma,
        typical_p,
        xtc_probability,
        xtc_threshold,
        dry_multiplier,
        dry_base,
        dry_allowed_length,
        dry_last_n,
        dry_breakers,
        n_dry_breakers,
        logit_bias,
        n_logit_bias,
        order,
        n_order,
        on_candidates,
        user_data,
        mirostat_tau,
        mirostat_eta,
        mirostat,
        grammar_kind,
        grammar
    );
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_sampler_params {
    fn defaults() -> Self {
        let params = SamplerParams::default();
        Self {
            struct_size: size_of::<Self>(),
            seed: params.seed,
            top_k: params.top_k,
            penalty_last_n: params.penalty_last_n,
            temperature: params.temperature,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            temperature_range: params.temperature_range,
            temperature_exponent: params.temperature_exponent,
            top_n_sigma: params.top_n_sigma,
            typical_p: params.typical_p,
            xtc_probability: params.xtc_probability,
            xtc_threshold: params.xtc_threshold,
            dry_multiplier: params.dry_multiplier,
            dry_base: params.dry_base,
            dry_allowed_length: params.dry_allowed_length,
            dry_last_n: params.dry_last_n,
            dry_breakers: ptr::null(),
            n_dry_breakers: 0,
            logit_bias: ptr::null(),
            n_logit_bias: 0,
            order: ptr::null(),
            n_order: 0,
            on_candidates: None,
            user_data: ptr::null_mut(),
            mirostat_tau: params.mirostat_tau,
            mirostat_eta: params.mirostat_eta,
            mirostat: params.mirostat.into(),
            grammar_kind: SM_GRAMMAR_NONE,
            grammar: ptr::null(),
        }
    }
}

impl sm_sampler_params {
    /// The numbers.
    fn values(&self) -> Result<SamplerParams, Failure> {
        Ok(SamplerParams {
            seed: self.seed,
            top_k: self.top_k,
            penalty_last_n: self.penalty_last_n,
            temperature: self.temperature,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            temperature_range: self.temperature_range,
            temperature_exponent: self.temperature_exponent,
            top_n_sigma: self.top_n_sigma,
            typical_p: self.typical_p,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_last_n: self.dry_last_n,
            mirostat_tau: self.mirostat_tau,
            mirostat_eta: self.mirostat_eta,
            mirostat: params::boolean(self.mirostat, "mirostat")?,
        })
    }

    /// The order of the stages.
    ///
    /// # Safety
    /// `order` is NULL or readable for `n_order` numbers.
    unsafe fn order(&self) -> Result<Vec<StageKind>, Failure> {
        let all = StageKind::ORDER;
        if self.order.is_null() && self.n_order == 0 {
            return Ok(all.to_vec());
        }
        let n_order = buffers::at_most(self.n_order, all.len(), "n_order")?;
        // SAFETY: the function's contract.
        let order = unsafe { buffers::array(self.order, n_order, "order") }?;
        let kind = |&stage: &i32| usize::try_from(stage).ok().and_then(|at| all.get(at)).copied();
        order
            .iter()
            .map(|stage| kind(stage).ok_or_else(|| Failure::invalid(format!("{stage} is no SM_STAGE_*"))))
            .collect()
    }

    /// Lists and the host's stage.
    ///
    /// # Safety
    /// Pointers are NULL or readable as the structure's fields say.
    unsafe fn parts(&self, owner: &sm_model) -> Result<ChainParts, Failure> {
        let model = &owner.model;
        let n_bias = buffers::at_most(self.n_logit_bias, MAX_LOGIT_BIASES, "n_logit_bias")?;
        // SAFETY: the function's contract.
        let biases = unsafe { buffers::array(self.logit_bias, n_bias, "logit_bias") }?;
        let mut parts = ChainParts::default()
            .with_logit_bias(biases.iter().map(|bias| (bias.token, bias.bias)).collect());
        if self.dry_multiplier != 0.0 {
            // SAFETY: the function's contract.
            parts = parts.with_breakers(unsafe { self.breakers(model) }?);
        }
        // SAFETY: the function's contract.
        if let Some(mask) = unsafe { self.mask(owner) }? {
            parts = parts.with_mask(mask);
        }
        if let Some(callback) = self.on_candidates {
            parts = parts.with_custom(Box::new(HostStage { callback, user_data: self.user_data }));
        }
        Ok(parts)
    }

    /// The grammar.
    ///
    /// # Safety
    /// `grammar` is NULL or NUL-terminated.
    #[cfg(feature = "grammar")]
    unsafe fn mask(&self, owner: &sm_model) -> Result<Option<Box<dyn Mask>>, Failure> {
        let kind = match self.grammar_kind {
            SM_GRAMMAR_NONE => return Ok(None),
            SM_GRAMMAR_JSON_SCHEMA => GrammarKind::JsonSchema,
            SM_GRAMMAR_REGEX => GrammarKind::Regex,
            SM_GRAMMAR_LARK => GrammarKind::Lark,
            other => {
                return Err(Failure::invalid(format!("grammar_kind is {other}, which is no SM_GRAMMAR_*")));
            }
        };
        // SAFETY: the function's contract.
        let text = unsafe { buffers::string(self.grammar, MAX_GRAMMAR_BYTES, "grammar") }?;
        Ok(Some(Box::new(owner.grammars()?.compile(kind, text)?)))
    }

    /// There are no grammars in this build.
    ///
    /// # Safety
    /// None.
    #[cfg(not(feature = "grammar"))]
    unsafe fn mask(&self, _: &sm_model) -> Result<Option<Box<dyn Mask>>, Failure> {
        match self.grammar_kind {
            SM_GRAMMAR_NONE => Ok(None),
            _ => Err(Failure::new(SM_STATUS_UNSUPPORTED, "this build of the library has no grammars")),
        }
    }

    /// What ends a repetition. A model without a tokenizer has only the breakers that the host asks for: none, or an error.
    ///
    /// # Safety
    /// `dry_breakers` is NULL or readable for `n_dry_breakers` pointers to NUL-terminated texts.
    unsafe fn breakers(&self, model: &Model) -> Result<Breakers, Failure> {
        let (is_default, tokenizer) = (self.dry_breakers.is_null(), model.tokenizer());
        let n = buffers::at_most(self.n_dry_breakers, MAX_BREAKERS, "n_dry_breakers")?;
        // SAFETY: the function's contract.
        let given = unsafe { buffers::array(self.dry_breakers, n, "dry_breakers") }?;
        if given.is_empty() && (!is_default || tokenizer.is_err()) {
            return Ok(Breakers::default());
        }
        let mut texts = [""; MAX_BREAKERS];
        for (text, &breaker) in texts.iter_mut().zip(given) {
            // SAFETY: the function's contract.
            *text = unsafe { buffers::string(breaker, MAX_BREAKER_BYTES, "a breaker") }?;
        }
        let texts = if is_default { &Breakers::TEXTS } else { &texts[..n] };
        Ok(Breakers::from_texts(tokenizer?, texts)?)
    }
}

/// Most breakers of a sampler.
const MAX_BREAKERS: usize = 64;

/// The host's stage.
struct HostStage {
    callback: unsafe extern "C" fn(*mut c_void, *mut sm_token_logit, *mut usize) -> i32,
    user_data: *mut c_void,
}

// SAFETY: the host promises that the callback may be called on the thread that samples, which may be any.
unsafe impl Send for HostStage {}

impl CustomStage for HostStage {
    fn apply(&mut self, candidates: &mut Vec<TokenLogit>) -> Outcome<()> {
        const {
            assert!(size_of::<sm_token_logit>() == size_of::<TokenLogit>());
        }
        let given = candidates.len();
        let mut left = given;
        // Both structures are repr(C) with the same fields.
        let data = candidates.as_mut_ptr().cast::<sm_token_logit>();
        // SAFETY: the host gave a function of this signature with its user_data for the sampler's life; `data` has `left`
        // candidates.
        let status = unsafe { (self.callback)(self.user_data, data, &mut left) };
        if status != 0 {
            return Err(Error::invalid(format!("on_candidates failed with {status}")));
        }
        if left > given {
            return Err(Error::invalid(format!("on_candidates has made {left} of {given} candidates")));
        }
        candidates.truncate(left);
        Ok(())
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_sampler_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_params_init(
    params: *mut sm_sampler_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Makes a sampler for the model's vocabulary in `*sampler`, which you free with `sm_sampler_free`. `params` may be NULL.
/// The model may be freed before the sampler.
///
/// `SM_STATUS_INVALID_ARGUMENT` if a parameter is outside its range, or NaN, or `order` has a stage twice, or has no place for
/// something that is given, or the grammar is wrong, too large, or needs what isn't supported: the message says what.
/// `SM_STATUS_UNSUPPORTED` for breakers and grammars if the model has no tokenizer, and for grammars in a build without them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_create(
    model: *const sm_model,
    params: *const sm_sampler_params,
    sampler: *mut *mut sm_sampler,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(sampler, "sampler")?;
        let owner = borrow(model, "model")?;
        let (n_vocab, params) = (owner.model.config().n_vocab, params::read(params)?);
        let values = params.values()?;
        values.validate()?;
        let stages = values.chain(&params.order()?, params.parts(owner)?)?;
        let made = Sampler::from_stages(stages, n_vocab)?;
        let logprobs = Exclusive::new("the sampler", None);
        give(sampler, sm_sampler { sampler: Exclusive::new("the sampler", made), logprobs, n_vocab });
        Ok(())
    })
}

/// Frees a sampler; NULL is fine. While a call is using it, the status is `SM_STATUS_BUSY` and it is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_free(sampler: *mut sm_sampler) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { free_exclusive(sampler, |sampler| &sampler.sampler) })
}

/// Forgets the recent tokens and restarts the random numbers from the seed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_reset(sampler: *mut sm_sampler) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        unsafe { enter(sampler) }?.reset();
        Ok(())
    })
}

/// Picks a token from one row of logits, which has one logit for each token of the vocabulary, and stores it in `*token`.
/// For the penalties to count the token, call `sm_sampler_accept` with it.
///
/// `SM_STATUS_INVALID_ARGUMENT`: `n_logits` is not the size of the vocabulary, or a logit is NaN or +infinity.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_sample(
    sampler: *mut sm_sampler,
    logits: *const f32,
    n_logits: usize,
    token: *mut u32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        if token.is_null() {
            // Before a random number is used up.
            return Err(Failure::null("token"));
        }
        let mut sampler = enter(sampler)?;
        let picked = sampler.sample(buffers::array(logits, n_logits, "logits")?)?;
        buffers::give_value(picked, token, "token")
    })
}

/// Makes a token the most recent one for the penalties: call it for each sampled token, and for those of the prompt if the
/// penalties shall count them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_accept(sampler: *mut sm_sampler, token: u32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| Ok(unsafe { enter(sampler) }?.accept(token)?))
}

/// The natural logarithm of a token's probability under the model, from one row of logits as they are: no stage of the sampler
/// changes them. `best`, with room for `n_best` tokens, gets the likeliest ones, likeliest first.
/// NULL and 0 for none.
///
/// The first call, and one with more tokens than any before, reserves memory.
///
/// `SM_STATUS_INVALID_ARGUMENT`: `n_logits` is not the size of the vocabulary, or the token is outside it, or a logit is NaN
/// or +infinity, or all are -infinity.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_logprobs(
    sampler: *mut sm_sampler,
    logits: *const f32,
    n_logits: usize,
    token: u32,
    logprob: *mut f32,
    best: *mut sm_token_logprob,
    n_best: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        // Nobody frees or keeps the sampler meanwhile.
        let _entered = enter(sampler)?;
        let sampler = borrow(sampler, "sampler")?;
        let n_best = buffers::at_most(n_best, sampler.n_vocab, "n_best")?;
        let best = buffers::array_mut(best, n_best, "best")?;
        let mut entered = sampler.logprobs.enter()?;
        let computed = match entered.take().filter(|made| made.n_best() >= n_best) {
            Some(made) => entered.insert(made),
            None => entered.insert(Logprobs::new(sampler.n_vocab, n_best)?),
        };
        let value = computed.compute(buffers::array(logits, n_logits, "logits")?, token)?;
        for (out, one) in best.iter_mut().zip(computed.best()) {
            *out = (*one).into();
        }
        buffers::give_value(value, logprob, "logprob")
    })
}

/// The sampler, for this call.
///
/// # Safety
/// `sampler` is NULL or alive during `'a`.
pub(super) unsafe fn enter<'a>(sampler: *const sm_sampler) -> Result<Entered<'a, Sampler>, Failure> {
    // SAFETY: the function's contract.
    unsafe { borrow(sampler, "sampler") }?.sampler.enter()
}

/// The sampler for a call that may keep it: [`Kept::take`].
///
/// # Safety
/// As [`enter`]; where the sampler is taken, nobody uses the pointer any more.
pub(super) unsafe fn keep<'a>(sampler: *mut sm_sampler) -> Result<Kept<'a>, Failure> {
    // SAFETY: the function's contract.
    let entered = unsafe { enter(sampler) }?;
    Ok(Kept { sampler, entered })
}

/// A sampler that stays its host's unless it is taken.
pub(super) struct Kept<'a> {
    sampler: *mut sm_sampler,
    entered: Entered<'a, Sampler>,
}

impl Kept<'_> {
    /// Takes the sampler away from its host.
    pub fn take(self) -> Sampler {
        // No other call may come in: the object is gone.
        std::mem::forget(self.entered);
        // SAFETY: `keep` found it alive, and no call is inside but this one, which has left its reference behind. By the
        // contract of `keep` nobody uses the pointer any more.
        unsafe { take(self.sampler) }.sampler.into_inner()
    }
}
