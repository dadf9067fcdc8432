//! Generation
//! ==========
//! Takes a prompt and hands out text while it is generated.

use std::ffi::{c_char, c_void};
use std::mem::size_of;
use std::ops::ControlFlow;
use std::ptr;

use super::boundary;
use super::buffers;
use super::context::{self, sm_context};
use super::params::{self, Params, Versioned, fields};
use super::sampler::{self, sm_sampler, sm_token_logprob};
use super::status::{Failure, SM_STATUS_OUT_OF_MEMORY, sm_status};
use super::tokenizer::SM_TOKEN_NONE;
use crate::memory::reserve::reserve;
use crate::profile::{self, Zone};
use crate::runtime::generation::draft::{DraftModel, Drafter, Drafting, PromptLookup};
use crate::runtime::generation::{
    Event, GenerationParams, MAX_STOP_BYTES, MAX_STOPS, Output, StopReason, Summary, drive_drafted,
};
use crate::runtime::sampling::TokenLogprob;

/// The model ended its text.
pub const SM_STOP_END_OF_TEXT: i32 = 0;
/// `max_tokens` tokens were generated.
pub const SM_STOP_LENGTH: i32 = 1;
/// The callback stopped it.
pub const SM_STOP_CALLBACK: i32 = 2;
/// The context is full.
pub const SM_STOP_CONTEXT_FULL: i32 = 3;
/// The text contained one of `sm_generate_params.stop`.
pub const SM_STOP_STRING: i32 = 4;

/// Takes the text of one generated token, for hosts that only show it: `text_bytes` bytes of UTF-8 with a NUL behind, which live until the callback
/// returns. Any result but 0 stops the generation.
///
/// The text has whole characters only. If a token ends within a character, the character comes with a later token, and this
/// token's text may be empty. If the generation ends within a character, a last call, with the last token again, has
/// U+FFFD. Text that may be the beginning of a stop string is held back in the same way until that is decided.
///
/// The callback is called on the thread that called `sm_generate`. It must return normally: no `longjmp`, no C++ exception.
/// Calls with the same context or sampler get `SM_STATUS_BUSY`.
pub type sm_text_callback = Option<
    unsafe extern "C" fn(user_data: *mut c_void, token: u32, text: *const c_char, text_bytes: usize) -> i32,
>;

/// A token that was generated, or text that was held back, as `sm_token_callback` gets it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_token_event {
    /// Size of this structure in the library: fields that this header has and an older library doesn't are not there.
    pub struct_size: usize,
    /// The text that is complete with this token, with a NUL behind. NULL if the model has no tokenizer.
    pub text: *const c_char,
    /// Bytes of the text.
    pub text_bytes: usize,
    /// Tokens so far, this one included, without one that ends the text.
    pub n_generated: u64,
    /// The token. If it isn't new, the last one again.
    pub token: u32,
    /// 1 if this brings a new token; 0 for a last call with text that was held back.
    pub is_new: i32,
    /// With `sm_generate_params.n_logprobs`, of a new token: its own log-probability, then the likeliest tokens, likeliest
    /// first. They are the model's: no stage of the sampler changes them. NULL otherwise.
    pub logprobs: *const sm_token_logprob,
    /// Number of elements of `logprobs`.
    pub n_logprobs: usize,
}

// SAFETY: repr(C); integers and raw pointers.
unsafe impl Versioned for sm_token_event {
    const NAME: &'static str = "sm_token_event";

    fields!(struct_size, text, text_bytes, n_generated, token, is_new, logprobs, n_logprobs);
}

/// Takes each generated token with its text; `event` and what it points to live until the callback returns. Any result but 0 stops
/// the generation. Otherwise as `sm_text_callback`.
pub type sm_token_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const sm_token_event) -> i32>;

/// The options of a generation. Fill it with `sm_generate_params_init`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_generate_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// The most tokens to generate. Default 256.
    pub max_tokens: usize,
    /// Gets the text; NULL, the default, for no callback.
    pub on_text: sm_text_callback,
    /// Passed to `on_text` and `on_token`.
    pub user_data: *mut c_void,
    /// `n_stop` stop strings, NUL-terminated UTF-8, which live until `sm_generate` returns. The generation ends when its text
    /// contains one of them, which may be spread over several tokens; of several that end at the same place, the longest
    /// counts. The stop string and the text behind it are not handed out. At most 64 strings, each of 1 to 1024 bytes.
    pub stop: *const *const c_char,
    /// The number of stop strings. Default 0.
    pub n_stop: usize,
    /// Gets the tokens, and tells new ones from text that was held back; NULL, the default, for no callback. At most one of
    /// `on_text` and `on_token` is set. With this one, the model needs no tokenizer.
    pub on_token: sm_token_callback,
    /// A number by which `sm_context_cancel_generation` cancels this generation, even before it begins: higher than those of
    /// the context's earlier generations. 0, the default, for none.
    pub generation_id: u64,
    /// A context of a smaller model with the same vocabulary, which guesses tokens; it is busy until `sm_generate` returns.
    /// NULL, the default, for none.
    pub draft: *mut sm_context,
    /// The most tokens that are guessed at a time, at most 64: by `draft`, or without one by looking for the last tokens
    /// earlier in the context. One pass computes the logits behind all guesses, and a right one saves a pass; tokens are
    /// those that come without guesses, to the bit. The context's `n_output` is to be one more. 0, the default, for none.
    pub n_draft: usize,
    /// 0 or above: a full context doesn't end the generation; each time it is full, it shifts as `sm_context_shift` does, and
    /// keeps so many tokens at its beginning. -1, the default, ends it with `SM_STOP_CONTEXT_FULL`.
    pub context_shift: i64,
    /// 0 or above: `on_token` gets each new token's log-probability and those of so many of the likeliest tokens, at most
    /// 100; tokens that a grammar forces take a pass each then. -1, the default, for none.
    pub n_logprobs: i64,
}

// SAFETY: repr(C); integers, raw pointers and an optional function pointer.
unsafe impl Versioned for sm_generate_params {
    const NAME: &'static str = "sm_generate_params";

    fields!(
        struct_size,
        max_tokens,
        on_text,
        user_data,
        stop,
        n_stop,
        on_token,
        generation_id,
        draft,
        n_draft,
        context_shift,
        n_logprobs
    );
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_generate_params {
    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            max_tokens: 256,
            on_text: None,
            user_data: ptr::null_mut(),
            stop: ptr::null(),
            n_stop: 0,
            on_token: None,
            generation_id: 0,
            draft: ptr::null_mut(),
            n_draft: 0,
            context_shift: -1,
            n_logprobs: -1,
        }
    }
}

/// A number of tokens that -1 stands for the lack of.
pub(super) fn optional(value: i64, name: &str) -> Result<Option<usize>, Failure> {
    match usize::try_from(value) {
        Ok(count) => Ok(Some(count)),
        Err(_) if value == -1 => Ok(None),
        Err(_) => Err(Failure::invalid(format!("{name} is {value}; it must be -1 or above"))),
    }
}

/// A summary of a generation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_generate_summary {
    /// Tokens of the prompt.
    pub n_prompt: u64,
    /// Tokens generated, the one that ended the text included.
    pub n_generated: u64,
    /// Seconds that reading the prompt took.
    pub prefill_seconds: f64,
    /// Seconds from then to the end, including the callback's.
    pub decode_seconds: f64,
    /// Tokens of the prompt read in a second.
    pub prefill_rate: f64,
    /// Tokens generated in a second.
    pub decode_rate: f64,
    /// Why it ended: one of `SM_STOP_*`.
    pub stop_reason: i32,
    /// The last generated token, also one that ended the text; `SM_TOKEN_NONE` if there is none. It is not in the context.
    pub last_token: u32,
    /// Tokens that were guessed (`sm_generate_params.n_draft`).
    pub n_drafted: u64,
    /// Of these, tokens that were right, each of which saved a pass.
    pub n_accepted: u64,
}

// SAFETY: repr(C); integers and floats.
unsafe impl Versioned for sm_generate_summary {
    const NAME: &'static str = "sm_generate_summary";

    fields!(
        n_prompt,
        n_generated,
        prefill_seconds,
        decode_seconds,
        prefill_rate,
        decode_rate,
        stop_reason,
        last_token,
        n_drafted,
        n_accepted
    );
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_generate_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_generate_params_init(
    params: *mut sm_generate_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Appends the prompt to the context's tokens, generates up to `max_tokens` tokens, and hands them to the callback. The
/// sampler's penalties count the prompt and the generated tokens. `params` may be NULL.
///
/// Afterwards, whatever ended the generation, the context holds its former tokens, the prompt, and the generated tokens
/// except the last one, `sm_generate_summary.last_token`: nothing was computed from it yet. So the next turn of a
/// conversation is exact, to the bit, if its prompt is that token and then the tokens of what follows; or compare the whole
/// conversation's tokens with `sm_context_tokens`, keep the beginning that they share with `sm_context_rewind`, and pass the
/// rest.
///
/// `summary` may be NULL; otherwise `summary_size` is `sizeof(sm_generate_summary)`. A stop by the callback, and a context
/// that fills up during the generation, are no failures. After a failure while the prompt is read, the context holds its
/// former tokens; after a later one also the prompt and the tokens generated before, except the last: `sm_context_tokens` has
/// them. (If a layer with a window has released positions that would have to come back, it holds none. If the model has
/// recurrent layers, it may hold only those before the last piece of the prompt.)
///
/// A model without a tokenizer generates, too: with `on_token`, or no callback, and without stop strings. No token ends its
/// text. Otherwise the status is `SM_STATUS_UNSUPPORTED`.
///
/// `SM_STATUS_INVALID_ARGUMENT`: the prompt is empty, a stop string is empty, too long or no UTF-8, both callbacks are set,
/// `n_draft` is above 64, `n_logprobs` above 100 or set without `on_token`, or the draft model has another vocabulary. `SM_STATUS_NULL_POINTER`: a stop string is NULL. `SM_STATUS_CONTEXT_FULL`: the prompt doesn't fit.
/// `SM_STATUS_CANCELLED`: by `sm_context_cancel` or `sm_context_cancel_generation`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_generate(
    context: *mut sm_context,
    sampler: *mut sm_sampler,
    prompt: *const u32,
    n_prompt: usize,
    params: *const sm_generate_params,
    summary: *mut sm_generate_summary,
    summary_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let mut context = context::enter(context)?;
        let mut sampler = sampler::enter(sampler)?;
        // Before a token is read: so many may not be there.
        buffers::check(prompt, n_prompt, "prompt")?;
        context.check_room(n_prompt)?;
        let prompt = buffers::array(prompt, n_prompt, "prompt")?;
        let params = params::read(params)?;
        if !summary.is_null() {
            // Before the work, so that a wrong size doesn't waste it.
            params::check_size::<sm_generate_summary>(summary_size)?;
        }
        let mut texts = [""; MAX_STOPS];
        let stops = stop_strings(params.stop, params.n_stop, &mut texts)?;
        let has_text = context.model().tokenizer().is_ok();
        let mut host = Host::new(&params, has_text)?;
        let mut on_event = |event: Event<'_>| match event {
            Event::Output(output) => host.deliver(&output),
            Event::Logprobs { token, best } => host.note(token, best),
            Event::Prompt { .. } => ControlFlow::Continue(()),
        };
        let mut draft = if params.draft.is_null() { None } else { Some(context::enter(params.draft)?) };
        let mut lookup = PromptLookup::default();
        let mut of_model = match &mut draft {
            Some(draft) => Some(DraftModel::new(&mut **draft, context.model())?),
            None => None,
        };
        let drafter: &mut dyn Drafter = match &mut of_model {
            Some(drafter) => drafter,
            None => &mut lookup,
        };
        let drafting = match params.n_draft {
            0 => None,
            most => Some(Drafting::new(drafter, most)?),
        };
        let params = GenerationParams {
            max_tokens: params.max_tokens,
            stops,
            prompt_piece: 0,
            needs_text: params.on_text.is_some(),
            logprobs: optional(params.n_logprobs, "n_logprobs")?,
            context_shift: optional(params.context_shift, "context_shift")?,
            id: params.generation_id,
        };
        let result = drive_drafted(&mut context, &mut sampler, prompt, &params, drafting, &mut on_event);
        host.check()?;
        let result = sm_generate_summary::from(result?);
        if summary.is_null() { Ok(()) } else { params::write(summary, &result, summary_size) }
    })
}

impl From<Summary> for sm_generate_summary {
    fn from(summary: Summary) -> Self {
        Self {
            n_prompt: summary.n_prompt as u64,
            n_generated: summary.n_generated as u64,
            prefill_seconds: summary.prefill_seconds,
            decode_seconds: summary.decode_seconds,
            prefill_rate: summary.prefill_rate(),
            decode_rate: summary.decode_rate(),
            stop_reason: stop_reason(summary.reason),
            last_token: summary.last_token.unwrap_or(SM_TOKEN_NONE),
            n_drafted: summary.n_drafted as u64,
            n_accepted: summary.n_accepted as u64,
        }
    }
}

/// One of `SM_STOP_*`.
pub(super) fn stop_reason(reason: StopReason) -> i32 {
    match reason {
        StopReason::EndOfText => SM_STOP_END_OF_TEXT,
        StopReason::Length => SM_STOP_LENGTH,
        StopReason::Callback => SM_STOP_CALLBACK,
        StopReason::ContextFull => SM_STOP_CONTEXT_FULL,
        StopReason::StopString => SM_STOP_STRING,
    }
}

/// The host's stop strings, in as much of `texts` as they take.
///
/// # Safety
/// `stop` is NULL or readable for `n_stop` pointers, each NULL or to a NUL-terminated text, all unchanged during `'a`.
pub(super) unsafe fn stop_strings<'t, 'a>(
    stop: *const *const c_char,
    n_stop: usize,
    texts: &'t mut [&'a str; MAX_STOPS],
) -> Result<&'t [&'a str], Failure> {
    let Some(texts) = texts.get_mut(..n_stop) else {
        // Before anything is read: so many pointers are hardly there.
        return Err(Failure::invalid(format!("n_stop is {n_stop}; at most {MAX_STOPS} are taken")));
    };
    // SAFETY: the function's contract.
    let stops = unsafe { buffers::array(stop, n_stop, "stop") }?;
    for (text, &stop) in texts.iter_mut().zip(stops) {
        // SAFETY: the function's contract.
        *text = unsafe { buffers::string(stop, MAX_STOP_BYTES, "a stop string") }?;
    }
    Ok(texts)
}

/// The host's callback, with room for a NUL behind the text.
struct Host {
    callback: Callback,
    user_data: *mut c_void,
    /// Whether the model has texts.
    has_text: bool,
    n_generated: u64,
    terminated: Vec<u8>,
    /// Those of the next new token.
    logprobs: Vec<sm_token_logprob>,
    out_of_memory: bool,
}

/// One of the callbacks of [`sm_generate_params`].
enum Callback {
    None,
    Text(unsafe extern "C" fn(*mut c_void, u32, *const c_char, usize) -> i32),
    Token(unsafe extern "C" fn(*mut c_void, *const sm_token_event) -> i32),
}

/// Longer than any ordinary token's text.
const ROOM: usize = 256;

impl Host {
    fn new(params: &sm_generate_params, has_text: bool) -> Result<Self, Failure> {
        let callback = match (params.on_text, params.on_token) {
            (None, None) => Callback::None,
            (Some(callback), None) => Callback::Text(callback),
            (None, Some(callback)) => Callback::Token(callback),
            (Some(_), Some(_)) => return Err(Failure::invalid("on_text and on_token are both set")),
        };
        if params.n_logprobs != -1 && !matches!(callback, Callback::Token(_)) {
            return Err(Failure::invalid("n_logprobs is set, and on_token isn't, which would get them"));
        }
        let mut host = Self {
            callback,
            user_data: params.user_data,
            has_text,
            n_generated: 0,
            terminated: Vec::new(),
            logprobs: Vec::new(),
            out_of_memory: false,
        };
        host.terminate("", ROOM).then_some(host).ok_or_else(no_memory)
    }

    /// Copies the text and puts a NUL behind; false without memory for it.
    fn terminate(&mut self, text: &str, room: usize) -> bool {
        self.terminated.clear();
        if reserve(&mut self.terminated, room.max(text.len() + 1), "a token's text").is_err() {
            return false;
        }
        self.terminated.extend_from_slice(text.as_bytes());
        self.terminated.push(0);
        true
    }

    /// Keeps the log-probabilities for the event of their token.
    fn note(&mut self, token: TokenLogprob, best: &[TokenLogprob]) -> ControlFlow<()> {
        self.logprobs.clear();
        if reserve(&mut self.logprobs, 1 + best.len(), "a token's log-probabilities").is_err() {
            self.out_of_memory = true;
            return ControlFlow::Break(());
        }
        self.logprobs.push(token.into());
        self.logprobs.extend(best.iter().copied().map(sm_token_logprob::from));
        ControlFlow::Continue(())
    }

    fn deliver(&mut self, output: &Output<'_>) -> ControlFlow<()> {
        self.n_generated += u64::from(output.is_new);
        if matches!(self.callback, Callback::None) {
            return ControlFlow::Continue(());
        }
        if !self.terminate(output.text, 0) {
            self.out_of_memory = true;
            return ControlFlow::Break(());
        }
        let _zone = profile::scope(Zone::Callback);
        if self.call(output) == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Calls the host with the terminated text.
    fn call(&self, output: &Output<'_>) -> i32 {
        let (text, text_bytes) = (self.terminated.as_ptr().cast(), output.text.len());
        // Text that was held back comes behind its token.
        let logprobs = if output.is_new { &self.logprobs[..] } else { &[] };
        match self.callback {
            Callback::None => 0,
            // SAFETY: the host gave a function of this signature with its user_data for the length of the call.
            Callback::Text(callback) => unsafe { callback(self.user_data, output.token, text, text_bytes) },
            Callback::Token(callback) => {
                let event = sm_token_event {
                    struct_size: size_of::<sm_token_event>(),
                    text: if self.has_text { text } else { ptr::null() },
                    text_bytes,
                    n_generated: self.n_generated,
                    token: output.token,
                    is_new: output.is_new.into(),
                    logprobs: if logprobs.is_empty() { ptr::null() } else { logprobs.as_ptr() },
                    n_logprobs: logprobs.len(),
                };
                // SAFETY: as above; the event and what it points to live until the function returns.
                unsafe { callback(self.user_data, &event) }
            }
        }
    }

    /// Whether every text was delivered.
    fn check(&self) -> Result<(), Failure> {
        if self.out_of_memory { Err(no_memory()) } else { Ok(()) }
    }
}

fn no_memory() -> Failure {
    Failure::new(SM_STATUS_OUT_OF_MEMORY, "no memory for a token's text or log-probabilities")
}
