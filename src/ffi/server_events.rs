//! Steps and events of a server
//! ============================
//! A step runs one pass; what it brings for each request waits as events until the host takes them.

use std::ffi::c_char;

use super::boundary;
use super::buffers;
use super::generate::stop_reason;
use super::params::{self, Versioned, fields};
use super::sampler::sm_token_logprob;
use super::server::{enter, sm_server};
use super::status::{Failure, SM_STATUS_OK, sm_status};
use super::tokenizer::SM_TOKEN_NONE;
use crate::runtime::sampling::TokenLogprob;
use crate::serve::{Event, Progress, Stats, Summary};

/// There is no event.
pub const SM_EVENT_NONE: i32 = 0;
/// A token, or text that was held back.
pub const SM_EVENT_OUTPUT: i32 = 1;
/// The request has ended.
pub const SM_EVENT_FINISHED: i32 = 2;
/// The request has failed, or was cancelled.
pub const SM_EVENT_FAILED: i32 = 3;

/// The work of a step, and the work that is left.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_server_progress {
    /// Tokens that the pass computed.
    pub n_tokens: u64,
    /// Requests that run.
    pub n_running: u64,
    /// Requests that wait. If none runs or waits, the server is idle.
    pub n_waiting: u64,
    /// 1 if the step did nothing because too many events wait: call `sm_server_poll`.
    pub must_poll: i32,
    /// 0.
    pub reserved: i32,
}

// SAFETY: repr(C); integers.
unsafe impl Versioned for sm_server_progress {
    const NAME: &'static str = "sm_server_progress";

    fields!(n_tokens, n_running, n_waiting, must_poll, reserved);
}

impl From<Progress> for sm_server_progress {
    fn from(progress: Progress) -> Self {
        Self {
            n_tokens: progress.n_tokens as u64,
            n_running: progress.n_running as u64,
            n_waiting: progress.n_waiting as u64,
            must_poll: progress.must_poll.into(),
            reserved: 0,
        }
    }
}

/// Something that happened to a request. Events of one request come in their order, the last one is `SM_EVENT_FINISHED` or
/// `SM_EVENT_FAILED`. Fields that the kind doesn't name are 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_server_event {
    /// The request.
    pub request: u64,
    /// One of `SM_EVENT_*`.
    pub kind: i32,
    /// `SM_EVENT_FAILED`: why, `SM_STATUS_CANCELLED` among others. The event's text has the message.
    pub status: sm_status,
    /// `SM_EVENT_OUTPUT`: the token; if it isn't new, the last one again. `SM_EVENT_FINISHED`: the last generated token, also
    /// one that ended the text; `SM_TOKEN_NONE` if there is none.
    pub token: u32,
    /// `SM_EVENT_OUTPUT`: 1 if the token is a new one, 0 for text that was held back until the end.
    pub is_new: i32,
    /// `SM_EVENT_FINISHED`: why, one of `SM_STOP_*`.
    pub stop_reason: i32,
    /// 0.
    pub reserved: i32,
    /// `SM_EVENT_FINISHED`: tokens of the prompt.
    pub n_prompt: u64,
    /// `SM_EVENT_FINISHED`: tokens generated, the one that ended the text included.
    pub n_generated: u64,
    /// `SM_EVENT_FINISHED`: how often the request was interrupted for lack of memory, or by a higher priority.
    pub n_preempted: u64,
    /// `SM_EVENT_FINISHED`: seconds from the submission to the first step that ran the request.
    pub wait_seconds: f64,
    /// `SM_EVENT_FINISHED`: seconds from then until the prompt was read.
    pub prefill_seconds: f64,
    /// `SM_EVENT_FINISHED`: seconds from then to the end.
    pub decode_seconds: f64,
}

// SAFETY: repr(C); integers and floats.
unsafe impl Versioned for sm_server_event {
    const NAME: &'static str = "sm_server_event";

    fields!(
        request,
        kind,
        status,
        token,
        is_new,
        stop_reason,
        reserved,
        n_prompt,
        n_generated,
        n_preempted,
        wait_seconds,
        prefill_seconds,
        decode_seconds
    );
}

impl sm_server_event {
    fn new(kind: i32, request: u64) -> Self {
        Self {
            request,
            kind,
            status: SM_STATUS_OK,
            token: 0,
            is_new: 0,
            stop_reason: 0,
            reserved: 0,
            n_prompt: 0,
            n_generated: 0,
            n_preempted: 0,
            wait_seconds: 0.0,
            prefill_seconds: 0.0,
            decode_seconds: 0.0,
        }
    }
}

impl From<Option<Event>> for sm_server_event {
    fn from(event: Option<Event>) -> Self {
        match event {
            None => Self::new(SM_EVENT_NONE, 0),
            Some(Event::Output { request, token, is_new }) => {
                Self { token, is_new: is_new.into(), ..Self::new(SM_EVENT_OUTPUT, request.0) }
            }
            Some(Event::Failed { request, error }) => {
                Self { status: Failure::from(error).status, ..Self::new(SM_EVENT_FAILED, request.0) }
            }
            Some(Event::Finished { request, summary }) => {
                let Summary { wait_seconds, prefill_seconds, decode_seconds, .. } = summary;
                Self {
                    token: summary.last_token.unwrap_or(SM_TOKEN_NONE),
                    stop_reason: stop_reason(summary.reason),
                    n_prompt: summary.n_prompt as u64,
                    n_generated: summary.n_generated as u64,
                    n_preempted: summary.n_preempted as u64,
                    wait_seconds,
                    prefill_seconds,
                    decode_seconds,
                    ..Self::new(SM_EVENT_FINISHED, request.0)
                }
            }
        }
    }
}

/// Counts since the server was made, as of its last step.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_server_stats {
    /// Requests that wait.
    pub n_waiting: u64,
    /// Requests that run.
    pub n_running: u64,
    /// Events that wait for `sm_server_poll`.
    pub n_events: u64,
    /// Requests that were accepted.
    pub submitted: u64,
    /// Requests that ended without a failure.
    pub finished: u64,
    /// Requests that failed, the cancelled ones included.
    pub failed: u64,
    /// Requests that were cancelled.
    pub cancelled: u64,
    /// Passes.
    pub passes: u64,
    /// Tokens that passes computed: of prompts, of texts, and those that were computed again.
    pub computed: u64,
    /// Tokens that were generated.
    pub sampled: u64,
    /// How often a request was interrupted.
    pub preempted: u64,
    /// Positions that were lost by that, and had to be computed again.
    pub lost: u64,
    /// Positions that requests took over from others, since their texts begin in the same way.
    pub shared: u64,
}

// SAFETY: repr(C); integers.
unsafe impl Versioned for sm_server_stats {
    const NAME: &'static str = "sm_server_stats";

    fields!(
        n_waiting, n_running, n_events, submitted, finished, failed, cancelled, passes, computed, sampled,
        preempted, lost, shared
    );
}

impl From<Stats> for sm_server_stats {
    fn from(stats: Stats) -> Self {
        Self {
            n_waiting: stats.n_waiting as u64,
            n_running: stats.n_running as u64,
            n_events: stats.n_events as u64,
            submitted: stats.submitted,
            finished: stats.finished,
            failed: stats.failed,
            cancelled: stats.cancelled,
            passes: stats.passes,
            computed: stats.computed,
            sampled: stats.sampled,
            preempted: stats.preempted,
            lost: stats.lost,
            shared: stats.shared,
        }
    }
}

/// Runs one pass for all requests that run: the next token of each, and pieces of prompts. Requests that were submitted or
/// cancelled since the last step come in and go out here. `progress` may be NULL; otherwise `progress_size` is
/// `sizeof(sm_server_progress)`. Without work it returns at once.
///
/// What goes wrong with one request is an event of that request, and the others go on. `SM_STATUS_BUSY`: another step runs,
/// on another thread or around this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_step(
    server: *mut sm_server,
    progress: *mut sm_server_progress,
    progress_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let server = enter(server)?;
        if !progress.is_null() {
            params::check_size::<sm_server_progress>(progress_size)?;
        }
        let made = server.step()?;
        if progress.is_null() { Ok(()) } else { params::write(progress, &made.into(), progress_size) }
    })
}

/// Takes the next event: it fills `*event`, whose kind is `SM_EVENT_NONE` if there is none, and puts the event's text with a
/// NUL behind it into `text`. `event_size` is `sizeof(sm_server_event)`. A token's text has whole characters only, and may be
/// empty; that of `SM_EVENT_FAILED` is the message. It may be called on any thread, while a step runs, too.
///
/// `*text_bytes` always gets the bytes of the text, without the NUL. `SM_STATUS_BUFFER_TOO_SMALL`: the text doesn't fit; the
/// event stays. With (NULL, 0) for the text, the event stays, too, and `*event` isn't filled. 256 bytes are enough for nearly
/// all tokens. An event's log-probabilities go with it: `sm_server_poll_logprobs` gives them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_poll(
    server: *mut sm_server,
    event: *mut sm_server_event,
    event_size: usize,
    text: *mut c_char,
    capacity: usize,
    text_bytes: *mut usize,
) -> sm_status {
    let asks_only = text.is_null() && capacity == 0;
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        poll(server, event, event_size, asks_only, |piece, _| {
            buffers::give_text(piece.as_bytes(), text, capacity, text_bytes, "text")
        })
    })
}

/// As `sm_server_poll`, and puts the log-probabilities of a new token (`sm_request_params.n_logprobs`) into `logprobs`, which
/// has room for `logprobs_capacity`: the token's own, then those of the likeliest tokens, likeliest first. They are the model's:
/// no stage of the sampler changes them. Other events have none.
///
/// `*n_logprobs` always gets their number. `SM_STATUS_BUFFER_TOO_SMALL`: they, or the text, don't fit; the event stays. With
/// (NULL, 0) for them or for the text, the event stays, too, and `*event` isn't filled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_poll_logprobs(
    server: *mut sm_server,
    event: *mut sm_server_event,
    event_size: usize,
    text: *mut c_char,
    capacity: usize,
    text_bytes: *mut usize,
    logprobs: *mut sm_token_logprob,
    logprobs_capacity: usize,
    n_logprobs: *mut usize,
) -> sm_status {
    let asks_only = (text.is_null() && capacity == 0) || (logprobs.is_null() && logprobs_capacity == 0);
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        poll(server, event, event_size, asks_only, |piece, of_token| {
            // Both counts are stored, whichever doesn't fit.
            let text = buffers::give_text(piece.as_bytes(), text, capacity, text_bytes, "text");
            buffers::give_array(of_token, logprobs.cast(), logprobs_capacity, n_logprobs, "logprobs")?;
            text
        })
    })
}

/// Takes the next event into `*event`, once `give` has given out its text and its log-probabilities. It stays where the caller
/// `asks_only` for their lengths.
///
/// # Safety
/// `server` is NULL or alive; `event` is NULL or writable for `event_size` bytes.
unsafe fn poll(
    server: *const sm_server,
    event: *mut sm_server_event,
    event_size: usize,
    asks_only: bool,
    give: impl Fn(&str, &[TokenLogprob]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    let server = unsafe { enter(server) }?;
    if event.is_null() {
        return Err(Failure::null("event"));
    }
    params::check_size::<sm_server_event>(event_size)?;
    let taken = server.poll_with(|event, piece, logprobs| {
        match event {
            Event::Failed { error, .. } => give(&error.to_string(), logprobs),
            _ => give(piece, logprobs),
        }
        .map_err(Some)?;
        // Nothing went wrong, but the event stays.
        if asks_only { Err(None) } else { Ok(()) }
    });
    match taken {
        Err(None) => Ok(()),
        Err(Some(failure)) => Err(failure),
        Ok(taken) => {
            if taken.is_none() {
                give("", &[])?;
            }
            // SAFETY: the function's contract.
            unsafe { params::write(event, &taken.into(), event_size) }
        }
    }
}

/// Fills `*stats`. `stats_size` is `sizeof(sm_server_stats)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_get_stats(
    server: *const sm_server,
    stats: *mut sm_server_stats,
    stats_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::write(stats, &enter(server)?.stats().into(), stats_size) })
}
