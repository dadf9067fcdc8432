//! Sampler
//! =======
//! Picks the next token from logits. The same seed and logits give the same tokens. `sm_sampler_create` reserves all
//! memory; sampling allocates nothing.

use std::mem::size_of;

use super::boundary;
use super::buffers;
use super::handle::{Entered, Exclusive, borrow, clear_out, free_exclusive, give, take};
use super::model::sm_model;
use super::params::{self, Params, Versioned, fields};
use super::status::{Failure, sm_status};
use crate::runtime::sampling::{Sampler, SamplerParams};

/// A sampler. It takes one call at a time.
pub struct sm_sampler {
    sampler: Exclusive<Sampler>,
}

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
}

// SAFETY: repr(C); integers and floats.
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
        presence_penalty
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

/// Makes a sampler for the model's vocabulary in `*sampler`, which you free with `sm_sampler_free`. `params` may be NULL.
/// The model may be freed before the sampler.
///
/// `SM_STATUS_INVALID_ARGUMENT` if a parameter is outside its range, or NaN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sampler_create(
    model: *const sm_model,
    params: *const sm_sampler_params,
    sampler: *mut *mut sm_sampler,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(sampler, "sampler")?;
        let n_vocab = borrow(model, "model")?.model.config().n_vocab;
        let made = Sampler::new(params::read(params)?.into(), n_vocab)?;
        give(sampler, sm_sampler { sampler: Exclusive::new("the sampler", made) });
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
