//! Server
//! ======
//! Many generations at once on one model: requests come from any thread, and each step runs one pass over the weights for
//! all of them. A request's tokens are those that `sm_generate` gives for it alone, to the bit. `sm_server_create` reserves
//! the memory of all passes; once its requests run, a step takes none.

use std::ffi::c_char;
use std::mem::size_of;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::boundary;
use super::buffers;
use super::context::{self, sm_memory_estimate};
use super::generate::{optional, stop_strings};
use super::handle::{borrow, clear_out, give, take};
use super::log::{SM_LOG_INFO, log};
use super::model::sm_model;
use super::params::{self, Params, Versioned, fields};
use super::sampler::{self, sm_sampler};
use super::status::{Failure, sm_status};
use super::team::{self, sm_team};
use crate::Error;
use crate::model::RopeOverrides;
use crate::runtime::generation::{GenerationParams, MAX_STOPS};
use crate::serve::{Prompt, RequestId, Server, ServerParams, Status};
use crate::threads::Home;

/// The object's name in messages.
const NAME: &str = "the server";

/// A server. Any number of calls may use it at once; only `sm_server_step` takes one call at a time.
pub struct sm_server {
    server: Server,
    home: Arc<Home>,
    /// Calls that use it, or [`RETIRED`].
    calls: AtomicUsize,
}

/// The number of calls of a server that is being freed.
const RETIRED: usize = usize::MAX / 2;

/// The request has ended, or never was.
pub const SM_REQUEST_ENDED: i32 = 0;
/// The request waits for its turn, or for memory of the cache.
pub const SM_REQUEST_WAITING: i32 = 1;
/// The request runs.
pub const SM_REQUEST_RUNNING: i32 = 2;

/// The size and the options of a server. Fill it with `sm_server_params_init`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_server_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// The most requests that run at the same time. Default 16.
    pub n_sequences: usize,
    /// Positions of a request, prompt and text together; 0, the default, for as many as the model was trained on.
    pub n_ctx: usize,
    /// Positions that all running requests share, at least `n_ctx`; 0, the default, for `n_sequences` times `n_ctx`. With
    /// fewer, requests may have to wait, or are interrupted and computed again later, to the bit.
    pub n_positions: usize,
    /// The most tokens in a pass; 0, the default, lets the library choose. Each text has one token in each pass, pieces of
    /// prompts take the rest. A larger budget reads prompts faster, a smaller one keeps texts flowing meanwhile.
    pub n_batch: usize,
    /// The most requests that wait or run. Default 1024.
    pub n_requests: usize,
    /// Events that may wait for `sm_server_poll` before steps do nothing. Default 4096.
    pub n_events: usize,
    /// Threads, the one that calls `sm_server_step` included; 0 is refused. Default: the CPUs that the process may use.
    /// Ignored if there is a `team`.
    pub n_threads: usize,
    /// Element type of the stored keys and values: one of `SM_CACHE_*`. Default `SM_CACHE_F16`.
    pub cache_type: i32,
    /// As in `sm_context_params`.
    pub rope_scale: f32,
    /// As in `sm_context_params`.
    pub rope_base: f32,
    /// 1 if requests whose prompts begin with the same 128 tokens, or a multiple of these, compute them once and share them,
    /// also with requests that have ended. Default 1.
    pub prefix_index: i32,
    /// A team whose threads the server uses. NULL, the default, for `n_threads` threads of the server's own. It holds the
    /// team as a context does.
    pub team: *mut sm_team,
}

// SAFETY: repr(C); integers, floats and a raw pointer.
unsafe impl Versioned for sm_server_params {
    const NAME: &'static str = "sm_server_params";

    fields!(
        struct_size,
        n_sequences,
        n_ctx,
        n_positions,
        n_batch,
        n_requests,
        n_events,
        n_threads,
        cache_type,
        rope_scale,
        rope_base,
        prefix_index,
        team
    );
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_server_params {
    fn defaults() -> Self {
        let params = ServerParams::default();
        Self {
            struct_size: size_of::<Self>(),
            n_sequences: params.n_sequences,
            n_ctx: params.n_ctx,
            n_positions: params.n_positions,
            n_batch: params.n_batch,
            n_requests: params.n_requests,
            n_events: params.n_events,
            n_threads: params.threads,
            cache_type: context::SM_CACHE_F16,
            rope_scale: params.rope.factor,
            rope_base: params.rope.base,
            prefix_index: params.prefix_index.into(),
            team: ptr::null_mut(),
        }
    }
}

/// The parameters of a call; the defaults for NULL.
///
/// # Safety
/// As [`params::read`]; the team is NULL or alive.
unsafe fn read_params(params: *const sm_server_params) -> Result<ServerParams, Failure> {
    // SAFETY: the function's contract.
    let read = unsafe { params::read(params) }?;
    // SAFETY: the function's contract.
    let team = unsafe { team::share(read.team) }?;
    Ok(ServerParams::default()
        .with_n_sequences(read.n_sequences)
        .with_n_ctx(read.n_ctx)
        .with_n_positions(read.n_positions)
        .with_n_batch(read.n_batch)
        .with_n_requests(read.n_requests)
        .with_n_events(read.n_events)
        .with_threads(read.n_threads)
        .with_team(team)
        .with_prefix_index(params::boolean(read.prefix_index, "prefix_index")?)
        .with_kv(context::cache_type(read.cache_type)?)
        .with_rope(RopeOverrides { base: read.rope_base, factor: read.rope_scale }))
}

/// The limits of a request. Fill it with `sm_request_params_init`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_request_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// The most tokens to generate. Default 256.
    pub max_tokens: usize,
    /// `n_stop` stop strings, as in `sm_generate_params`; they are copied.
    pub stop: *const *const c_char,
    /// The number of stop strings. Default 0.
    pub n_stop: usize,
    /// Requests of a higher priority come first: they take running requests' places and memory, if none are free. Default 0.
    pub priority: i32,
    /// 0 if tokens are all that is wanted: then the model needs no tokenizer. Default 1.
    pub needs_text: i32,
    /// 0 or above: `sm_server_poll_logprobs` gets each new token's log-probability and those of so many of the likeliest
    /// tokens, at most 100. -1, the default, for none.
    pub n_logprobs: i64,
}

// SAFETY: repr(C); integers and a raw pointer.
unsafe impl Versioned for sm_request_params {
    const NAME: &'static str = "sm_request_params";

    fields!(struct_size, max_tokens, stop, n_stop, priority, needs_text, n_logprobs);
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_request_params {
    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            max_tokens: GenerationParams::default().max_tokens,
            stop: ptr::null(),
            n_stop: 0,
            priority: 0,
            needs_text: 1,
            n_logprobs: -1,
        }
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_server_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_params_init(
    params: *mut sm_server_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_request_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_request_params_init(
    params: *mut sm_request_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Tells the memory that `sm_server_create` would reserve for these parameters, apart from the lists of requests and events:
/// `memory_size` is `sizeof(sm_memory_estimate)`. `params` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_memory(
    model: *const sm_model,
    params: *const sm_server_params,
    memory: *mut sm_memory_estimate,
    memory_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let model = borrow(model, "model")?;
        let estimate = Server::memory(&model.model, &read_params(params)?)?;
        params::write(memory, &estimate.into(), memory_size)
    })
}

/// Makes a server for the model in `*server`, which you free with `sm_server_free`. `params` may be NULL. The model may be
/// freed before the server.
///
/// `SM_STATUS_INVALID_ARGUMENT`: a parameter is outside its range; the message names it. `SM_STATUS_UNSUPPORTED`: the model
/// writes no text. `SM_STATUS_OUT_OF_MEMORY`. `SM_STATUS_NO_THREADS`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_create(
    model: *const sm_model,
    params: *const sm_server_params,
    server: *mut *mut sm_server,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(server, "server")?;
        let model = borrow(model, "model")?.model.clone();
        let made = Server::new(model, &read_params(params)?)?;
        let threads = made.team().count();
        log(SM_LOG_INFO, &format!("server of {} sequences on {threads} threads", made.n_sequences()));
        let home = made.team().home().clone();
        give(server, sm_server { server: made, home, calls: AtomicUsize::new(0) });
        Ok(())
    })
}

/// Frees a server with its requests; NULL is fine. In a fork of the process that made it, nothing is done. While a call is
/// using it, the status is `SM_STATUS_BUSY` and it is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_free(server: *mut sm_server) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let Some(alive) = server.as_ref().filter(|server| server.home.is_here()) else { return Ok(()) };
        let retired = alive.calls.compare_exchange(0, RETIRED, Ordering::Acquire, Ordering::Relaxed);
        retired.map_err(|_| Failure::busy(NAME))?;
        drop(take(server));
        Ok(())
    })
}

/// Takes a request to continue a prompt of `n_prompt` tokens, which the next step sees, and stores its number in `*request`.
/// Numbers begin with 1, and none comes twice. `params` may be NULL. It may be called while a step runs.
///
/// The sampler is a fresh one of its own, which belongs to the request from then on: it must not be used or freed any more.
/// After a failure it is still yours. (For several texts of one prompt, submit it several times, with samplers of other
/// seeds.)
///
/// `SM_STATUS_INVALID_ARGUMENT`: the prompt is empty, a token is outside the vocabulary, a stop string is empty, too long or
/// no UTF-8, `n_logprobs` is above 100, or `n_requests` requests wait or run already. `SM_STATUS_CONTEXT_FULL`: the prompt has more tokens than a
/// request has positions. `SM_STATUS_UNSUPPORTED`: text is wanted, and the model has no tokenizer.
/// `SM_STATUS_BUSY`: another call uses the sampler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_submit(
    server: *mut sm_server,
    sampler: *mut sm_sampler,
    prompt: *const u32,
    n_prompt: usize,
    params: *const sm_request_params,
    request: *mut u64,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        if request.is_null() {
            // Before the request is taken.
            return Err(Failure::null("request"));
        }
        let server = enter(server)?;
        let sampler = sampler::keep(sampler)?;
        buffers::check(prompt, n_prompt, "prompt")?;
        if n_prompt > server.n_ctx() {
            // Before a token is read: so many may not be there.
            return Err(Error::ContextFull { n_ctx: server.n_ctx(), needed: n_prompt }.into());
        }
        let prompt = Prompt::Tokens(buffers::array(prompt, n_prompt, "prompt")?);
        let params = params::read(params)?;
        let mut texts = [""; MAX_STOPS];
        let stops = stop_strings(params.stop, params.n_stop, &mut texts)?;
        let limits = GenerationParams::default()
            .with_max_tokens(params.max_tokens)
            .with_stops(stops)
            .with_needs_text(params::boolean(params.needs_text, "needs_text")?)
            .with_logprobs(optional(params.n_logprobs, "n_logprobs")?);
        let RequestId(number) = server.submit_with(prompt, &limits, params.priority, || sampler.take())?;
        buffers::give_value(number, request, "request")
    })
}

/// Cancels a request, from any thread: the next step ends it, and its last event is `SM_EVENT_FAILED` with
/// `SM_STATUS_CANCELLED`. For a request that has ended, or never was, nothing happens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_cancel(server: *mut sm_server, request: u64) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        unsafe { enter(server) }?.cancel(RequestId(request));
        Ok(())
    })
}

/// Stores the status of a request in `*status`: one of `SM_REQUEST_*`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_server_status(
    server: *const sm_server,
    request: u64,
    status: *mut i32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let number = match enter(server)?.status(RequestId(request)) {
            None => SM_REQUEST_ENDED,
            Some(Status::Waiting) => SM_REQUEST_WAITING,
            Some(Status::Running) => SM_REQUEST_RUNNING,
        };
        buffers::give_value(number, status, "status")
    })
}

/// A server that a call uses.
pub(super) struct Entered<'a>(&'a sm_server);

impl std::ops::Deref for Entered<'_> {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0.server
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Release);
    }
}

/// The server, for the length of a call.
///
/// # Safety
/// `server` is NULL or alive during `'a`.
pub(super) unsafe fn enter<'a>(server: *const sm_server) -> Result<Entered<'a>, Failure> {
    // SAFETY: the function's contract.
    let server = unsafe { borrow(server, "server") }?;
    if !server.home.is_here() {
        return Err(Error::WrongProcess(NAME).into());
    }
    let calls = server.calls.fetch_add(1, Ordering::Acquire);
    let entered = Entered(server);
    if calls >= RETIRED { Err(Failure::busy(NAME)) } else { Ok(entered) }
}
