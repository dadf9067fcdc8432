//! Sampler
//! =======
//! Picks the next token from logits. The same seed and logits give the same tokens.
//! After creation nothing is allocated.

use std::mem::size_of;

use super::boundary;
use super::buffers;
use super::handle::{Entered, Exclusive, borrow, clear_out, free_exclusive, give};
use super::model::sm_model;
use super::params::{self, Params, Versioned};
use super::status::{Failure, sm_status};
use crate::runtime::sampling::{Sampler, SamplerParams};

/// A sampler. For one call at a time.
pub struct sm_sampler {
    sampler: Exclusive<Sampler>,
}

/// How to pick. Fill it with `sm_sampler_params_init`; set `temperature` to 0 for the likeliest token.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_sampler_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Where the draws begin.
    pub seed: u64,
    /// Keeps the `top_k` likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// How many of the last tokens the penalties look at; 0 turns them off.
    pub penalty_last_n: usize,
    /// Divides the logits before the draw; 0 takes the likeliest token, whatever the seed.
    pub temperature: f32,
    /// Keeps the fewest likeliest tokens whose probability together reaches this; in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this many times as likely as the likeliest; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// Positive logits of recent tokens are divided by it, others multiplied; above 0, 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from a logit for each time that its token is among the recent ones; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each recent token; 0 is off.
    pub presence_penalty: f32,
}

// SAFETY: repr(C); integers and floats.
unsafe impl Versioned for sm_sampler_params {
    const NAME: &'static str = "sm_sampler_params";
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
        }
    }
}

impl From<sm_sampler_params> for SamplerParams {
    fn from(params: sm_sampler_params) -> Self {
        Self {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            penalty_last_n: params.penalty_last_n,
            seed: params.seed,
        }
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

/// Makes a sampler for the model's vocabulary in `*sampler`, which you free with `sm_sampler_free`. `params`
/// may be NULL. The model may be freed before it.
///
/// `SM_STATUS_INVALID_ARGUMENT` where a parameter is outside its range, or NaN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_create(
    model: *const sm_model,
    params: *const sm_sampler_params,
    sampler: *mut *mut sm_sampler,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        clear_out(sampler, "sampler")?;
        let n_vocab = borrow(model, "model")?.model.config().n_vocab;
        let made = Sampler::new(params::read(params)?.into(), n_vocab)?;
        give(sampler, sm_sampler { sampler: Exclusive::new("the sampler", made) });
        Ok(())
    })
}

/// Frees a sampler; NULL is fine. `SM_STATUS_BUSY` while a call is inside; it is not freed then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_free(sampler: *mut sm_sampler) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { free_exclusive(sampler, |sampler| &sampler.sampler) })
}

/// Forgets the recent tokens and begins the draws anew from the seed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_reset(sampler: *mut sm_sampler) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        unsafe { enter(sampler) }?.reset();
        Ok(())
    })
}

/// Picks a token from one row of logits, one for each token of the vocabulary, and stores it in `*token`.
/// Call `sm_sampler_accept` with it if the penalties are to see it.
///
/// `SM_STATUS_INVALID_ARGUMENT`: a wrong `n_logits`, or a logit that is NaN or +infinity.
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
            // Before the draw, which a failure must not use up.
            return Err(Failure::null("token"));
        }
        let mut sampler = enter(sampler)?;
        let picked = sampler.sample(buffers::array(logits, n_logits, "logits")?)?;
        buffers::give_value(picked, token, "token")
    })
}

/// Makes a token the most recent one for the penalties: what was sampled, and the prompt if you like.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_accept(sampler: *mut sm_sampler, token: u32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| Ok(unsafe { enter(sampler) }?.accept(token)?))
}

/// The sampler, for this call.
///
/// # Safety
/// `sampler` is NULL or alive during `'a`.
pub(super) unsafe fn enter<'a>(sampler: *const sm_sampler) -> Result<Entered<'a, Sampler>, Failure> {
    // SAFETY: the function's contract.
    unsafe { borrow(sampler, "sampler") }?.sampler.enter()
}
