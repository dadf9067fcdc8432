//! Context
//! =======
//! One sequence of tokens that a model reads or writes: its cache of keys and values, its memory, and its threads or its
//! share in a team. `sm_context_create` reserves everything; decoding allocates nothing.

use std::mem::size_of;
use std::ptr;

use super::boundary;
use super::buffers;
use super::handle::{Entered, Exclusive, borrow, clear_out, free_exclusive, give};
use super::log::{SM_LOG_INFO, SM_LOG_WARNING, log};
use super::model::sm_model;
use super::params::{self, Params, Versioned, fields};
use super::status::{Failure, sm_status};
use super::team::{self, sm_team};
use crate::kv::CacheType;
use crate::model::RopeOverrides;
use crate::profile::{self, Zone};
use crate::runtime::{Canceller, Context, ContextParams, Logits, MemoryEstimate};

/// A context. It takes one call at a time.
pub struct sm_context {
    context: Exclusive<Context>,
    cancel: Canceller,
}

/// `sm_decode` computes no logits: it only fills the cache.
pub const SM_LOGITS_NONE: i32 = 0;
/// `sm_decode` computes the logits after the last token.
pub const SM_LOGITS_LAST: i32 = 1;
/// `sm_decode` computes the logits after every token; at most `n_output` tokens a call.
pub const SM_LOGITS_ALL: i32 = 2;

/// Keys and values are stored exactly: 4 bytes an element.
pub const SM_CACHE_F32: i32 = 0;
/// Keys and values are rounded to half floats: 2 bytes an element.
pub const SM_CACHE_F16: i32 = 1;
/// Keys and values are rounded to bytes, with one factor for each 64 of them: 8.5 bits an element.
pub const SM_CACHE_Q8_0: i32 = 2;

/// The size and the options of a context. Fill it with `sm_context_params_init`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_context_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Positions, prompt and answer together; 0, the default, for as many as the model was trained on. A model with learned
    /// positions refuses more than these.
    pub n_ctx: usize,
    /// Tokens of a prompt that go through the model at once. 0, the default, lets the library choose. Up to a few hundred,
    /// more tokens are faster; they take more memory.
    pub n_batch: usize,
    /// The most rows of logits that one `sm_decode` may compute. Default 1.
    pub n_output: usize,
    /// Threads, the calling one included; 0 is refused. Default: the CPUs that the process may use. Results are the same
    /// for any number. Ignored if there is a `team`.
    pub n_threads: usize,
    /// Element type of the stored keys and values: one of `SM_CACHE_*`. Default `SM_CACHE_F16`. With fewer bytes, steps
    /// late in a long text are faster.
    pub cache_type: i32,
    /// Factor by which positions are stretched, for contexts longer than the model was trained on (the log gets a warning
    /// for such a context). 0, the default, for the file's value; a model with learned positions allows nothing else.
    pub rope_scale: f32,
    /// Base of the rotary frequencies; 0, the default, for the file's value.
    pub rope_base: f32,
    /// A team whose threads the context uses; other contexts may use the same team. NULL, the default, for `n_threads`
    /// threads of the context's own.
    ///
    /// The context holds the team until `sm_context_free`; until then, `sm_team_free` returns `SM_STATUS_BUSY`. Contexts
    /// that share a team may be used on many threads at once: a pass waits until earlier passes have ended, and no call
    /// gets `SM_STATUS_BUSY` for that reason. A callback may use the team's other contexts, but not its own.
    pub team: *mut sm_team,
}

// SAFETY: repr(C); integers, floats and a raw pointer.
unsafe impl Versioned for sm_context_params {
    const NAME: &'static str = "sm_context_params";

    fields!(struct_size, n_ctx, n_batch, n_output, n_threads, cache_type, rope_scale, rope_base, team);
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_context_params {
    fn defaults() -> Self {
        let ContextParams { n_ctx, n_batch, n_output, threads, kv, rope, .. } = ContextParams::default();
        let cache_type = match kv {
            CacheType::F32 => SM_CACHE_F32,
            CacheType::F16 => SM_CACHE_F16,
            CacheType::Q8_0 => SM_CACHE_Q8_0,
        };
        Self {
            struct_size: size_of::<Self>(),
            n_ctx,
            n_batch,
            n_output,
            n_threads: threads,
            cache_type,
            rope_scale: rope.factor,
            rope_base: rope.base,
            team: ptr::null_mut(),
        }
    }
}

/// The parameters of a call; the defaults for NULL.
///
/// # Safety
/// As [`params::read`]; the team is NULL or alive.
unsafe fn read_params(params: *const sm_context_params) -> Result<ContextParams, Failure> {
    // SAFETY: the function's contract.
    let read = unsafe { params::read(params) }?;
    let sm_context_params { n_ctx, n_batch, n_output, n_threads, cache_type, .. } = read;
    let rope = RopeOverrides { base: read.rope_base, factor: read.rope_scale };
    let kv = self::cache_type(cache_type)?;
    // SAFETY: the function's contract.
    let team = unsafe { team::share(read.team) }?;
    Ok(ContextParams { n_ctx, n_batch, n_output, threads: n_threads, team, kv, rope })
}

/// The element type of keys and values of one of `SM_CACHE_*`.
pub(super) fn cache_type(number: i32) -> Result<CacheType, Failure> {
    match number {
        SM_CACHE_F32 => Ok(CacheType::F32),
        SM_CACHE_F16 => Ok(CacheType::F16),
        SM_CACHE_Q8_0 => Ok(CacheType::Q8_0),
        _ => Err(Failure::invalid(format!("cache_type is {number}, which is none of SM_CACHE_*"))),
    }
}

/// The memory of a context or an embedder, in bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_memory_estimate {
    /// Keys and values.
    pub cache_bytes: u64,
    /// Activations, logits, scratch.
    pub arena_bytes: u64,
    /// Both.
    pub total_bytes: u64,
}

// SAFETY: repr(C); integers.
unsafe impl Versioned for sm_memory_estimate {
    const NAME: &'static str = "sm_memory_estimate";

    fields!(cache_bytes, arena_bytes, total_bytes);
}

impl From<MemoryEstimate> for sm_memory_estimate {
    fn from(memory: MemoryEstimate) -> Self {
        Self {
            cache_bytes: memory.cache_bytes as u64,
            arena_bytes: memory.arena_bytes as u64,
            total_bytes: memory.total_bytes as u64,
        }
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_context_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_params_init(
    params: *mut sm_context_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Writes the memory that `sm_context_create` would reserve for these parameters into `*estimate`. `params` may be NULL.
/// `struct_size` is `sizeof(sm_memory_estimate)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_memory(
    model: *const sm_model,
    params: *const sm_context_params,
    estimate: *mut sm_memory_estimate,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let model = borrow(model, "model")?;
        let memory = Context::memory(&model.model, &read_params(params)?)?;
        params::write(estimate, &memory.into(), struct_size)
    })
}

/// Makes an empty context for the model in `*context`, which you free with `sm_context_free`. `params` may be NULL. The
/// model may be freed before the context.
///
/// `SM_STATUS_OUT_OF_MEMORY` if the system refuses the memory that `sm_context_memory` tells, `SM_STATUS_NO_THREADS` if it
/// refuses a thread.
///
/// A context and its team belong to the process that made them. In a fork of it, every call with them returns
/// `SM_STATUS_WRONG_PROCESS`, and freeing them does nothing. The model may be used there, to make another context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_create(
    model: *const sm_model,
    params: *const sm_context_params,
    context: *mut *mut sm_context,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(context, "context")?;
        let model = borrow(model, "model")?;
        let _zone = profile::scope(Zone::ContextCreate);
        let made = Context::new(model.model.clone(), &read_params(params)?)?;
        log(SM_LOG_INFO, &format!("context of {} positions on {} threads", made.n_ctx(), made.threads()));
        if let Some(warning) = made.warning() {
            log(SM_LOG_WARNING, &warning);
        }
        let cancel = made.canceller();
        let home = made.home().clone();
        give(context, sm_context { context: Exclusive::at_home("the context", made, &home), cancel });
        Ok(())
    })
}

/// Frees a context; NULL is fine. In a fork of the process that made it, nothing is done. While a call is using it, the status is `SM_STATUS_BUSY` and it is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_free(context: *mut sm_context) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { free_exclusive(context, |context| &context.context) })
}

/// Forgets all tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_clear(context: *mut sm_context) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        unsafe { enter(context) }?.clear();
        Ok(())
    })
}

/// Keeps the first `n_past` tokens and forgets the others. The logits of the last decode are lost.
/// `SM_STATUS_INVALID_ARGUMENT` if the context holds fewer tokens, if a layer with a window has released positions that the
/// next token would see, or if the model has recurrent layers: their state can only return to the beginning of the last
/// call that appended more than one token, to where `sm_context_keep` was called after it, or to 0. The context is unchanged
/// then; `sm_context_clear` always works.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_rewind(context: *mut sm_context, n_past: usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| Ok(unsafe { enter(context) }?.rewind(n_past)?))
}

/// Takes the tokens from position `begin` up to but without `end` out of the context. Those behind them move up: their keys
/// are turned to the new positions, values stay. The logits of the last decode are lost.
///
/// `SM_STATUS_INVALID_ARGUMENT`: the context doesn't hold these tokens. `SM_STATUS_UNSUPPORTED`, where tokens stand behind
/// them: the model has recurrent layers, learned positions or windows shorter than the context, or the cache is
/// `SM_CACHE_Q8_0`. The context is unchanged then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_remove_range(
    context: *mut sm_context,
    begin: usize,
    end: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| Ok(unsafe { enter(context) }?.remove_range(begin..end)?))
}

/// Makes room: keeps the first `n_keep` tokens, takes out the older half of the others as `sm_context_remove_range` does, and
/// writes to `*n_dropped`, unless that is NULL, how many these were. `SM_STATUS_INVALID_ARGUMENT`: fewer than two tokens
/// stand behind the kept ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_shift(
    context: *mut sm_context,
    n_keep: usize,
    n_dropped: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let dropped = enter(context)?.shift(n_keep)?;
        if !n_dropped.is_null() {
            n_dropped.write(dropped);
        }
        Ok(())
    })
}

/// Copies the state of the model's recurrent layers, so that `sm_context_rewind` can return to the tokens that the context
/// holds now. The copy replaces an earlier one. A call that appends more than one token makes such a copy when it begins.
/// Without recurrent layers nothing is done, since then any number of tokens can be kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_keep(context: *mut sm_context) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| Ok(unsafe { enter(context) }?.keep()?))
}

/// Stores the number of tokens that the context holds in `*n_past`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_n_past(context: *const sm_context, n_past: *mut usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { buffers::give_value(enter(context)?.len(), n_past, "n_past") })
}

/// Copies the tokens that the context holds, in order, into `tokens`: those of all `sm_decode` and `sm_generate` calls since
/// it was created or cleared, without those that were rewound.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_tokens(
    context: *const sm_context,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        buffers::give_array(enter(context)?.tokens(), tokens, capacity, count, "tokens")
    })
}

/// Stores the number of tokens that the context has room for in `*n_ctx`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_n_ctx(context: *const sm_context, n_ctx: *mut usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { buffers::give_value(enter(context)?.n_ctx(), n_ctx, "n_ctx") })
}

/// Appends tokens to the sequence and computes the logits that `logits` names, one of `SM_LOGITS_*`.
///
/// `SM_STATUS_CONTEXT_FULL`: the context has no room for so many tokens. `SM_STATUS_INVALID_ARGUMENT`: there are no tokens,
/// one is outside the vocabulary, or more rows of logits than `n_output` are wanted. `SM_STATUS_CANCELLED`: by
/// `sm_context_cancel`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_decode(
    context: *mut sm_context,
    tokens: *const u32,
    n_tokens: usize,
    logits: i32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let mut context = enter(context)?;
        // Before a token is read: so many may not be there.
        buffers::check(tokens, n_tokens, "tokens")?;
        context.check_room(n_tokens)?;
        let tokens = buffers::array(tokens, n_tokens, "tokens")?;
        Ok(context.decode(tokens, logits_mode(logits)?)?)
    })
}

/// Cancels the `sm_decode` or `sm_generate` that is using this context, between two steps of a pass: within milliseconds.
/// That call returns `SM_STATUS_CANCELLED`. A cancelled decode has appended nothing; a cancelled generation has appended
/// the tokens that it generated before. The context stays usable. A call that waits for a shared team is cancelled when it
/// gets the team. If no call is using the context, nothing happens: to cancel a generation that may not have begun yet,
/// call `sm_context_cancel_generation`.
///
/// These two are the only functions that you may call for a context that is in use: on any thread, also from a callback,
/// but never after `sm_context_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_cancel(context: *const sm_context) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        unsafe { canceller(context) }?.cancel();
        Ok(())
    })
}

/// Cancels the context's generations whose `sm_generate_params.generation_id` is `generation_id` or lower: one that is
/// running, as `sm_context_cancel` does, and those that haven't begun yet, which return `SM_STATUS_CANCELLED` at once and
/// change nothing. Generations with a higher number, or none, go on.
///
/// `SM_STATUS_INVALID_ARGUMENT`: `generation_id` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_cancel_generation(
    context: *const sm_context,
    generation_id: u64,
) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        let canceller = unsafe { canceller(context) }?;
        if generation_id == 0 {
            return Err(Failure::invalid("generation_id is 0, which is no generation's number"));
        }
        canceller.cancel_generation(generation_id);
        Ok(())
    })
}

/// The handle that cancels a context's calls, while one is running or not.
///
/// # Safety
/// `context` is NULL or alive during `'a`.
unsafe fn canceller<'a>(context: *const sm_context) -> Result<&'a Canceller, Failure> {
    // SAFETY: the function's contract.
    let context = unsafe { borrow(context, "context") }?;
    context.context.check_home()?;
    Ok(&context.cancel)
}

/// Points `*logits` to the logits of the last decode: `*n_rows` rows of `*n_vocab` floats, one row after another. `n_rows`
/// and `n_vocab` may be NULL. If there are no rows, `*n_rows` is 0 and `*logits` is NULL.
///
/// The logits belong to the context. They stay until it decodes, generates, is cleared, rewound or freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_logits(
    context: *const sm_context,
    logits: *mut *const f32,
    n_rows: *mut usize,
    n_vocab: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let context = enter(context)?;
        let (all, row) = (context.logits(), context.model().config().n_vocab);
        let first = if all.is_empty() { ptr::null() } else { all.as_ptr() };
        buffers::give_value(first, logits, "logits")?;
        if !n_rows.is_null() {
            n_rows.write(all.len() / row);
        }
        if !n_vocab.is_null() {
            n_vocab.write(row);
        }
        Ok(())
    })
}

/// Copies the logits of the last decode, row after row, into `logits`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_logits_copy(
    context: *const sm_context,
    logits: *mut f32,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        buffers::give_array(enter(context)?.logits(), logits, capacity, count, "logits")
    })
}

fn logits_mode(mode: i32) -> Result<Logits, Failure> {
    match mode {
        SM_LOGITS_NONE => Ok(Logits::None),
        SM_LOGITS_LAST => Ok(Logits::Last),
        SM_LOGITS_ALL => Ok(Logits::All),
        _ => Err(Failure::invalid(format!("logits is {mode}, which is none of SM_LOGITS_*"))),
    }
}

/// The context, for this call.
///
/// # Safety
/// `context` is NULL or alive during `'a`.
pub(super) unsafe fn enter<'a>(context: *const sm_context) -> Result<Entered<'a, Context>, Failure> {
    // SAFETY: the function's contract.
    unsafe { borrow(context, "context") }?.context.enter()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ffi::model::{sm_model_free, sm_model_load};
    use crate::ffi::status::{SM_STATUS_INVALID_ARGUMENT, SM_STATUS_OK};
    use std::ffi::CString;

    pub fn decode(context: *mut sm_context, token: u32) {
        // SAFETY: a living context and one token.
        assert_eq!(unsafe { sm_decode(context, &token, 1, SM_LOGITS_LAST) }, SM_STATUS_OK);
    }

    pub fn logits(context: *const sm_context) -> Vec<u32> {
        // SAFETY: a living context, whose logits are copied at once.
        let context = unsafe { enter(context) }.ok().unwrap();
        context.logits().iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn a_recurrent_model_returns_to_where_its_state_was_kept() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/gguf/hybrid-quant.gguf");
        let file = CString::new(file).unwrap();
        let (mut model, mut context) = (ptr::null_mut(), ptr::null_mut());
        let mut params = std::mem::MaybeUninit::<sm_context_params>::uninit();
        // SAFETY: a path and the defaults, room for the structure, living handles that are freed once.
        unsafe {
            assert_eq!(sm_model_load(file.as_ptr(), ptr::null(), &mut model), SM_STATUS_OK);
            assert_eq!(sm_context_params_init(params.as_mut_ptr(), size_of_val(&params)), SM_STATUS_OK);
            let params = sm_context_params { n_ctx: 16, n_threads: 1, ..params.assume_init() };
            assert_eq!(sm_context_create(model, &params, &mut context), SM_STATUS_OK);
            (5..7).for_each(|token| decode(context, token));
            assert_eq!(sm_context_rewind(context, 2), SM_STATUS_OK, "it holds two tokens");
            (7..9).for_each(|token| decode(context, token));
            assert_eq!(sm_context_rewind(context, 2), SM_STATUS_INVALID_ARGUMENT, "no copy was made");
            assert_eq!(sm_context_keep(context), SM_STATUS_OK);
            decode(context, 9);
            let wanted = logits(context);
            decode(context, 10);
            assert_eq!(
                sm_context_rewind(context, 5),
                SM_STATUS_INVALID_ARGUMENT,
                "the copy is of four tokens"
            );
            assert_eq!(sm_context_rewind(context, 4), SM_STATUS_OK);
            decode(context, 9);
            assert!(logits(context) == wanted);
            assert_eq!(sm_context_free(context), SM_STATUS_OK);
            assert_eq!(sm_model_free(model), SM_STATUS_OK);
        }
    }
}
