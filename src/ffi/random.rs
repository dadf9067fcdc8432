//! Random models
//! =============
//! GPTs with random weights, for measurements and tests that don't depend on a file. They have pre-norm, learned
//! positions, LayerNorm, an MLP four times as wide as the stream with the tanh form of GELU, and biases everywhere except
//! in the head.

use super::boundary;
use super::handle::clear_out;
use super::model::{load, sm_model, sm_model_params};
use super::params::{self, Params, Versioned, fields};
use super::status::sm_status;
use crate::model::{GptConfig, Model};
use std::mem::size_of;

/// The shape of a random GPT, and its seed. Fill it with `sm_gpt_params_init`. With the defaults, the model has 470,528
/// parameters.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_gpt_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Tokens in the vocabulary. Default 256.
    pub vocab: usize,
    /// Positions; no context can have more. Default 64.
    pub context: usize,
    /// Width of the residual stream, a multiple of `heads`. Default 128.
    pub dim: usize,
    /// Transformer blocks. Default 2.
    pub layers: usize,
    /// Attention heads. Default 4.
    pub heads: usize,
    /// Seed of the weights: the same seed and shape give the same model. Default 42.
    pub seed: u64,
}

// SAFETY: repr(C); integers.
unsafe impl Versioned for sm_gpt_params {
    const NAME: &'static str = "sm_gpt_params";

    fields!(struct_size, vocab, context, dim, layers, heads, seed);
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_gpt_params {
    fn defaults() -> Self {
        let GptConfig { vocab, context, dim, layers, heads } = GptConfig::SMALL;
        Self { struct_size: size_of::<Self>(), vocab, context, dim, layers, heads, seed: 42 }
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_gpt_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_gpt_params_init(params: *mut sm_gpt_params, struct_size: usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Makes a GPT with random weights in `*model`, which you free with `sm_model_free`. It has no tokenizer. Matrices are
/// Xavier-uniform (queries, keys and values as one matrix), embeddings uniform between -0.02 and 0.02, biases 0, gains 1;
/// all are f32. `gpt` and `params` may be NULL; `memory_map` has no effect. `sm_model_describe` tells the number of
/// parameters.
///
/// `SM_STATUS_INVALID_ARGUMENT`: a number is 0 or too large (a model has at most 2^31 parameters), `dim` is no multiple of
/// `heads`, or heads have more than 1024 dimensions. `SM_STATUS_CANCELLED`: by the progress callback.
/// `SM_STATUS_OUT_OF_MEMORY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_model_create_random(
    gpt: *const sm_gpt_params,
    params: *const sm_model_params,
    model: *mut *mut sm_model,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(model, "model")?;
        let sm_gpt_params { vocab, context, dim, layers, heads, seed, .. } = params::read(gpt)?;
        let config = GptConfig { vocab, context, dim, layers, heads };
        load(params::read(params)?, model, |params| Model::random(&config, seed, params))
    })
}
