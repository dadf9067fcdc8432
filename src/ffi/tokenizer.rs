//! Tokens
//! ======
//! Text to tokens and back, with the model's own vocabulary. If the model's file has no vocabulary, or one of an unknown
//! kind, the status is `SM_STATUS_UNSUPPORTED`.

use std::ffi::c_char;

use super::boundary;
use super::buffers;
use super::handle::borrow;
use super::model::sm_model;
use super::params::{self, Versioned, boolean, fields};
use super::status::{Failure, sm_status};
use crate::profile::{self, Zone};
use crate::tokenizer::{MAX_TEXT_BYTES, Tokenizer};

/// Most tokens of a text.
const MAX_TOKENS: usize = MAX_TEXT_BYTES;

/// Stands for a token that doesn't exist.
pub const SM_TOKEN_NONE: u32 = 0xffff_ffff;

/// The token controls the model and isn't text.
pub const SM_TOKEN_CONTROL: u32 = 1;
/// The token ends a text: `sm_generate` stops at it.
pub const SM_TOKEN_END: u32 = 2;

/// Tokens with a role. A token that the vocabulary doesn't have is `SM_TOKEN_NONE`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_special_tokens {
    /// Begin of sequence.
    pub bos: u32,
    /// End of sequence.
    pub eos: u32,
}

// SAFETY: repr(C); integers.
unsafe impl Versioned for sm_special_tokens {
    const NAME: &'static str = "sm_special_tokens";

    fields!(bos, eos);
}

/// Tokens of `text_bytes` bytes of UTF-8 at `text`, which may contain NUL.
///
/// `SM_STATUS_INVALID_ARGUMENT` for more than 16,777,216 bytes, before they are read.
///
/// `add_special` 1 adds the tokens that the model expects around a text, such as begin of sequence. `parse_special` 1
/// reads a control token's name in the text as that token; pass 0 for text that you don't trust.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_tokenize(
    model: *const sm_model,
    text: *const c_char,
    text_bytes: usize,
    add_special: i32,
    parse_special: i32,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let tokenizer = tokenizer(model)?;
        let text = buffers::text(text, buffers::at_most(text_bytes, MAX_TEXT_BYTES, "text_bytes")?, "text")?;
        let parse_special = boolean(parse_special, "parse_special")?;
        let add_special = boolean(add_special, "add_special")?;
        let _zone = profile::scope(Zone::Tokenize);
        let encoded = tokenizer.encode(text, parse_special, add_special)?;
        buffers::give_array(&encoded, tokens, capacity, count, "tokens")
    })
}

/// The text of `n_tokens` tokens, at most 16,777,216. Bytes that aren't UTF-8 become U+FFFD. `skip_special` 1 leaves control tokens out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_detokenize(
    model: *const sm_model,
    tokens: *const u32,
    n_tokens: usize,
    skip_special: i32,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let tokenizer = tokenizer(model)?;
        let tokens = buffers::array(tokens, buffers::at_most(n_tokens, MAX_TOKENS, "n_tokens")?, "tokens")?;
        let skip_special = boolean(skip_special, "skip_special")?;
        let _zone = profile::scope(Zone::Detokenize);
        let decoded = tokenizer.decode(tokens, skip_special)?;
        buffers::give_text(decoded.as_bytes(), text, capacity, length, "text")
    })
}

/// The bytes of one token, which may be part of a character. For a control token, the bytes of its name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_token_piece(
    model: *const sm_model,
    token: u32,
    piece: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let bytes = tokenizer(model)?.token_bytes(token)?;
        buffers::give_text(bytes, piece, capacity, length, "piece")
    })
}

/// Stores the kind of a token in `*kind`: a sum of `SM_TOKEN_CONTROL` and `SM_TOKEN_END`, 0 for ordinary text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_token_kind(model: *const sm_model, token: u32, kind: *mut u32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let tokenizer = tokenizer(model)?;
        tokenizer.token_bytes(token)?;
        let control = if tokenizer.is_control(token) { SM_TOKEN_CONTROL } else { 0 };
        let end = if tokenizer.is_end_of_generation(token) { SM_TOKEN_END } else { 0 };
        buffers::give_value(control | end, kind, "kind")
    })
}

/// Writes the tokens with a role into `*special`. `struct_size` is `sizeof(sm_special_tokens)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_model_special_tokens(
    model: *const sm_model,
    special: *mut sm_special_tokens,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let tokenizer = tokenizer(model)?;
        let bos = tokenizer.bos().unwrap_or(SM_TOKEN_NONE);
        let eos = tokenizer.eos().unwrap_or(SM_TOKEN_NONE);
        params::write(special, &sm_special_tokens { bos, eos }, struct_size)
    })
}

/// The model's tokenizer.
///
/// # Safety
/// `model` is NULL or alive during `'a`.
unsafe fn tokenizer<'a>(model: *const sm_model) -> Result<&'a Tokenizer, Failure> {
    // SAFETY: the function's contract.
    Ok(unsafe { borrow(model, "model") }?.model.tokenizer()?)
}
