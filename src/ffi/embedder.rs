//! Embedder
//! ========
//! Vectors of texts, and scores of documents. An embedder has engines and threads of its own for one model, and takes
//! batches of any number of texts, which it packs into passes without padding. A text's vector has the same bits in any
//! batch and on any number of threads.

use std::ffi::{c_char, c_void};
use std::mem::size_of;
use std::ops::ControlFlow;
use std::ptr;

use super::boundary;
use super::buffers;
use super::context::{cache_type, sm_memory_estimate};
use super::handle::{Entered, Exclusive, borrow, clear_out, free_exclusive, give};
use super::log::{SM_LOG_INFO, log};
use super::model::{sm_model, sm_progress_callback};
use super::params::{self, Params, Versioned, boolean, fields};
use super::status::{Failure, sm_status};
use super::team::{self, sm_team};
use super::texts::{HostSpans, HostTexts};
use crate::embed::{
    Embedder, EmbedderParams, LongTexts, Progress, Prompt, Results, Stop, Strategy, Summary, TextStatus,
};
use crate::memory::reserve::{copied_text, filled};
use crate::model::Pooling;
use crate::profile::{self, Zone};
use crate::tokenizer::MAX_TEXT_BYTES;

/// An embedder. It takes one call at a time.
pub struct sm_embedder {
    inner: Exclusive<Inner>,
    stop: Stop,
}

struct Inner {
    embedder: Embedder,
    statuses: Vec<TextStatus>,
    progress: Option<Host>,
}

/// The pooling that the file states.
pub const SM_POOLING_FILE: i32 = 0;
/// The mean of a text's rows.
pub const SM_POOLING_MEAN: i32 = 1;
/// A text's first row, that of BERT's `[CLS]`.
pub const SM_POOLING_CLS: i32 = 2;
/// A text's last row.
pub const SM_POOLING_LAST: i32 = 3;
/// The scores of the file's classifier: the embedder is a reranker.
pub const SM_POOLING_RANK: i32 = 4;

/// The end of a text that is too long is left out.
pub const SM_LONG_TEXTS_TRUNCATE: i32 = 0;
/// A text that is too long is split; its vector is the mean of its parts', weighted by their tokens.
pub const SM_LONG_TEXTS_SPLIT: i32 = 1;
/// A text that is too long has no vector.
pub const SM_LONG_TEXTS_REFUSE: i32 = 2;

/// Whichever strategy is estimated to be faster.
pub const SM_STRATEGY_AUTO: i32 = 0;
/// All threads in one pass.
pub const SM_STRATEGY_FINE: i32 = 1;
/// A pass on each thread.
pub const SM_STRATEGY_COARSE: i32 = 2;

/// The call ended before the text was reached; its row is as it was.
pub const SM_TEXT_NOT_DONE: i32 = 0;
/// The row has the text's vector.
pub const SM_TEXT_DONE: i32 = 1;
/// The row has the vector of the text's beginning.
pub const SM_TEXT_TRUNCATED: i32 = 2;
/// The row has the mean of the vectors of the text's parts.
pub const SM_TEXT_SPLIT: i32 = 3;
/// The text has no tokens. The row is zeros, as in all cases that follow.
pub const SM_TEXT_EMPTY: i32 = 4;
/// The text has too many tokens, or more than 16,777,216 bytes.
pub const SM_TEXT_TOO_LONG: i32 = 5;
/// A token is outside the vocabulary.
pub const SM_TEXT_BAD_TOKEN: i32 = 6;
/// The text is no UTF-8.
pub const SM_TEXT_NOT_UTF8: i32 = 7;
/// There was no memory for the text.
pub const SM_TEXT_NO_MEMORY: i32 = 8;
/// The text's pass failed by a defect of the library.
pub const SM_TEXT_FAILED: i32 = 9;

fn number(status: TextStatus) -> i32 {
    match status {
        TextStatus::NotDone => SM_TEXT_NOT_DONE,
        TextStatus::Done => SM_TEXT_DONE,
        TextStatus::Truncated => SM_TEXT_TRUNCATED,
        TextStatus::Split => SM_TEXT_SPLIT,
        TextStatus::Empty => SM_TEXT_EMPTY,
        TextStatus::TooLong => SM_TEXT_TOO_LONG,
        TextStatus::BadToken => SM_TEXT_BAD_TOKEN,
        TextStatus::NotUtf8 => SM_TEXT_NOT_UTF8,
        TextStatus::NoMemory => SM_TEXT_NO_MEMORY,
        TextStatus::Failed => SM_TEXT_FAILED,
    }
}

/// The size of an embedder, and what it makes of texts. Fill it with `sm_embedder_params_init`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_embedder_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// The most tokens of a text, special tokens and prompt included. 0, the default, for as many as the model was trained
    /// on, but at most 8192.
    pub n_ctx: usize,
    /// The most tokens of several texts in one pass; a longer text has a pass of its own. 0, the default, lets the library
    /// choose.
    pub n_batch: usize,
    /// Floats of a vector: the first so many of the model's, which must be trained for it (Matryoshka). 0, the default, for
    /// all.
    pub dimensions: usize,
    /// Threads, the calling one included; 0 is refused. Default: the CPUs that the process may use. Ignored if there is a
    /// `team`.
    pub n_threads: usize,
    /// The row that stands for a text: one of `SM_POOLING_*`. Default `SM_POOLING_FILE`.
    pub pooling: i32,
    /// What becomes of texts that are too long: one of `SM_LONG_TEXTS_*`. Default `SM_LONG_TEXTS_TRUNCATE`.
    pub long_texts: i32,
    /// How passes use the threads: one of `SM_STRATEGY_*`. Default `SM_STRATEGY_AUTO`. Results don't depend on it.
    pub strategy: i32,
    /// 1, the default, scales vectors to length 1, after they were cut to `dimensions`.
    pub normalize: i32,
    /// Element type of keys and values during a pass: one of `SM_CACHE_*`. Default `SM_CACHE_F16`.
    pub cache_type: i32,
    /// 0.
    pub reserved: i32,
    /// A team whose threads the embedder uses; contexts may use the same team. NULL, the default, for `n_threads` threads
    /// of the embedder's own. It holds the team as a context does.
    pub team: *mut sm_team,
}

// SAFETY: repr(C); integers and a raw pointer.
unsafe impl Versioned for sm_embedder_params {
    const NAME: &'static str = "sm_embedder_params";

    fields!(
        struct_size,
        n_ctx,
        n_batch,
        dimensions,
        n_threads,
        pooling,
        long_texts,
        strategy,
        normalize,
        cache_type,
        reserved,
        team
    );
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_embedder_params {
    fn defaults() -> Self {
        let EmbedderParams { n_ctx, n_batch, dimensions, threads, normalize, .. } = EmbedderParams::default();
        Self {
            struct_size: size_of::<Self>(),
            n_ctx,
            n_batch,
            dimensions,
            n_threads: threads,
            pooling: SM_POOLING_FILE,
            long_texts: SM_LONG_TEXTS_TRUNCATE,
            strategy: SM_STRATEGY_AUTO,
            normalize: normalize.into(),
            cache_type: super::context::SM_CACHE_F16,
            reserved: 0,
            team: ptr::null_mut(),
        }
    }

    fn reserved(&self) -> i32 {
        self.reserved
    }
}

/// The parameters of a call; the defaults for NULL.
///
/// # Safety
/// As [`params::read`]; the team is NULL or alive.
unsafe fn read_params(params: *const sm_embedder_params) -> Result<EmbedderParams, Failure> {
    // SAFETY: the function's contract.
    let read = unsafe { params::read(params) }?;
    let pooling = match read.pooling {
        SM_POOLING_FILE => None,
        SM_POOLING_MEAN => Some(Pooling::Mean),
        SM_POOLING_CLS => Some(Pooling::Cls),
        SM_POOLING_LAST => Some(Pooling::Last),
        SM_POOLING_RANK => Some(Pooling::Rank),
        other => return Err(Failure::invalid(format!("pooling is {other}, which is none of SM_POOLING_*"))),
    };
    let long_texts = match read.long_texts {
        SM_LONG_TEXTS_TRUNCATE => LongTexts::Truncate,
        SM_LONG_TEXTS_SPLIT => LongTexts::Split,
        SM_LONG_TEXTS_REFUSE => LongTexts::Refuse,
        other => {
            return Err(Failure::invalid(format!("long_texts is {other}, which is none of SM_LONG_TEXTS_*")));
        }
    };
    let strategy = match read.strategy {
        SM_STRATEGY_AUTO => Strategy::Auto,
        SM_STRATEGY_FINE => Strategy::Fine,
        SM_STRATEGY_COARSE => Strategy::Coarse,
        other => {
            return Err(Failure::invalid(format!("strategy is {other}, which is none of SM_STRATEGY_*")));
        }
    };
    Ok(EmbedderParams::default()
        .with_pooling(pooling)
        .with_long_texts(long_texts)
        .with_strategy(strategy)
        .with_normalize(boolean(read.normalize, "normalize")?)
        .with_dimensions(read.dimensions)
        .with_n_ctx(read.n_ctx)
        .with_n_batch(read.n_batch)
        .with_threads(read.n_threads)
        .with_kv(cache_type(read.cache_type)?)
        // SAFETY: the function's contract.
        .with_team(unsafe { team::share(read.team) }?))
}

/// What a call has done, and what it took.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_embed_summary {
    /// Texts that have a vector.
    pub n_with_vector: u64,
    /// Tokens that went through passes.
    pub n_tokens: u64,
    /// Passes.
    pub n_passes: u64,
    /// Seconds of all threads together in which texts were tokenized.
    pub tokenize_seconds: f64,
    /// Seconds of all threads together in passes.
    pub pass_seconds: f64,
    /// Seconds of the call.
    pub seconds: f64,
}

// SAFETY: repr(C); integers and floats.
unsafe impl Versioned for sm_embed_summary {
    const NAME: &'static str = "sm_embed_summary";

    fields!(n_with_vector, n_tokens, n_passes, tokenize_seconds, pass_seconds, seconds);
}

impl From<Summary> for sm_embed_summary {
    fn from(summary: Summary) -> Self {
        Self {
            n_with_vector: summary.with_vector as u64,
            n_tokens: summary.tokens,
            n_passes: summary.passes,
            tokenize_seconds: summary.tokenize_seconds,
            pass_seconds: summary.pass_seconds,
            seconds: summary.seconds,
        }
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_embedder_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_params_init(
    params: *mut sm_embedder_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Writes the memory that `sm_embedder_create` would reserve for these parameters into `*estimate`. `params` may be NULL.
/// `struct_size` is `sizeof(sm_memory_estimate)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_memory(
    model: *const sm_model,
    params: *const sm_embedder_params,
    estimate: *mut sm_memory_estimate,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let model = borrow(model, "model")?;
        let memory = Embedder::memory(&model.model, &read_params(params)?)?;
        params::write(estimate, &memory.into(), struct_size)
    })
}

/// Makes an embedder for the model in `*embedder`, which you free with `sm_embedder_free`. `params` may be NULL. The model
/// may be freed before the embedder.
///
/// `SM_STATUS_UNSUPPORTED`: the file states no pooling and none is chosen, as for a model that writes text, or scores are
/// wanted of a model without a classifier. `SM_STATUS_INVALID_ARGUMENT`: a parameter is outside its range.
/// `SM_STATUS_OUT_OF_MEMORY`, `SM_STATUS_NO_THREADS`. An embedder belongs to the process that made it, as a context does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_create(
    model: *const sm_model,
    params: *const sm_embedder_params,
    embedder: *mut *mut sm_embedder,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(embedder, "embedder")?;
        let model = borrow(model, "model")?;
        let _zone = profile::scope(Zone::ContextCreate);
        let made = Embedder::new(model.model.clone(), &read_params(params)?)?;
        let (width, threads) = (made.width(), made.team().count());
        log(SM_LOG_INFO, &format!("embedder of vectors of {width} on {threads} threads"));
        let (stop, home) = (made.stop(), made.team().home().clone());
        let inner = Inner { embedder: made, statuses: Vec::new(), progress: None };
        give(embedder, sm_embedder { inner: Exclusive::at_home("the embedder", inner, &home), stop });
        Ok(())
    })
}

/// Frees an embedder; NULL is fine. In a fork of the process that made it, nothing is done. While a call is using it, the
/// status is `SM_STATUS_BUSY` and it is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_free(embedder: *mut sm_embedder) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { free_exclusive(embedder, |embedder| &embedder.inner) })
}

/// Stores the floats of a vector in `*width`; 1 for a reranker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_width(embedder: *const sm_embedder, width: *mut usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { buffers::give_value(enter(embedder)?.embedder.width(), width, "width") })
}

/// Puts a text in front of each text from now on: NUL-terminated UTF-8 of at most 65,536 bytes; NULL for none, as at
/// first. Queries and documents have different ones, as a rule.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_set_prompt(
    embedder: *mut sm_embedder,
    prompt: *const c_char,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let mut inner = enter(embedder)?;
        let prompt = match prompt.is_null() {
            true => Prompt::default(),
            false => {
                let text = buffers::string(prompt, MAX_PROMPT_BYTES, "prompt")?;
                Prompt::text(copied_text(text, "a prompt")?)
            }
        };
        inner.embedder.set_prompt(prompt);
        Ok(())
    })
}

/// Puts the prompt of this name in front of each text from now on: one of the model's training, such as "query" or
/// "document", where its family or its name tells, or one of another kind of models, such as "nomic:query".
///
/// `SM_STATUS_INVALID_ARGUMENT`: there is no such prompt; the message lists those that there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_set_prompt_named(
    embedder: *mut sm_embedder,
    name: *const c_char,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let mut inner = enter(embedder)?;
        let name = buffers::string(name, MAX_NAME_BYTES, "name")?;
        let prompt = Prompt::named(inner.embedder.model(), name)?;
        inner.embedder.set_prompt(prompt);
        Ok(())
    })
}

/// Reports the share of texts that are done to `progress` during calls from now on, on the calling thread, between passes;
/// NULL for none, as at first. Any result but 0 cancels the call. The callback can't use the library's threads: what would
/// gets `SM_STATUS_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_set_progress(
    embedder: *mut sm_embedder,
    progress: sm_progress_callback,
    user_data: *mut c_void,
) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        unsafe { enter(embedder) }?.progress = progress.map(|callback| Host { callback, user_data });
        Ok(())
    })
}

/// Makes the vectors of `n_texts` texts. Text i is `text_bytes[i]` bytes of UTF-8 at `texts[i]`, which may contain NUL; if
/// `text_bytes` is NULL, all are NUL-terminated. Its vector gets the row that begins at `rows + i * stride`, of as many
/// floats as `sm_embedder_width` tells; what stands between rows is left alone. `statuses`, which may be NULL, gets one of
/// `SM_TEXT_*` for each text. A text that can't be embedded has a status that says why, and a row of zeros, and changes
/// nothing for the others. Text is text: no control token can be written in it. An empty text has the vector of the special
/// tokens that the model expects around a text; where there are none, and no prompt, it is `SM_TEXT_EMPTY`.
///
/// `summary` may be NULL; otherwise `summary_size` is `sizeof(sm_embed_summary)`.
///
/// `SM_STATUS_CANCELLED`: by `sm_embedder_cancel` or the progress callback. After it, and after `SM_STATUS_OUT_OF_MEMORY`,
/// texts with results have them, and `statuses` tells which. `SM_STATUS_UNSUPPORTED`: the model has no tokenizer.
/// `SM_STATUS_INVALID_ARGUMENT`: rows overlap, or the embedder is a reranker. `SM_STATUS_NULL_POINTER`: also where one of
/// `texts` is NULL, unless it has 0 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_embed(
    embedder: *mut sm_embedder,
    texts: *const *const c_char,
    text_bytes: *const usize,
    n_texts: usize,
    rows: *mut f32,
    stride: usize,
    statuses: *mut i32,
    summary: *mut sm_embed_summary,
    summary_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let mut inner = enter(embedder)?;
        let texts = HostTexts::new(texts, text_bytes, n_texts)?;
        let out = Out { rows, stride, statuses, summary, summary_size };
        inner.call(n_texts, out, |embedder, results| embedder.embed_list(&texts, results))
    })
}

/// Makes the vectors of `n_spans` spans of tokens as they are: the prompt is not used, special tokens are yours, and the
/// model needs no tokenizer. Span i is `lengths[i]` tokens at `spans[i]`. Otherwise as `sm_embedder_embed`. Once a call has
/// had as many tokens, a call takes no memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_embed_tokens(
    embedder: *mut sm_embedder,
    spans: *const *const u32,
    lengths: *const usize,
    n_spans: usize,
    rows: *mut f32,
    stride: usize,
    statuses: *mut i32,
    summary: *mut sm_embed_summary,
    summary_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let mut inner = enter(embedder)?;
        let spans = HostSpans::new(spans, lengths, n_spans)?;
        let out = Out { rows, stride, statuses, summary, summary_size };
        inner.call(n_spans, out, |embedder, results| embedder.embed_spans(&spans, results))
    })
}

/// Scores `n_documents` documents as answers to the query, of `query_bytes` bytes; higher is better. Scores are those of the
/// file's classifier, as it gives them. `scores` gets one float a document. Of a query and a document that are too long
/// together, the document's end is left out. Otherwise as `sm_embedder_embed`.
///
/// `SM_STATUS_UNSUPPORTED`: the model is no reranker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_rerank(
    embedder: *mut sm_embedder,
    query: *const c_char,
    query_bytes: usize,
    documents: *const *const c_char,
    document_bytes: *const usize,
    n_documents: usize,
    scores: *mut f32,
    statuses: *mut i32,
    summary: *mut sm_embed_summary,
    summary_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let mut inner = enter(embedder)?;
        let query_bytes = buffers::at_most(query_bytes, MAX_TEXT_BYTES, "query_bytes")?;
        let query = buffers::text(query, query_bytes, "query")?;
        let documents = HostTexts::new(documents, document_bytes, n_documents)?;
        let out = Out { rows: scores, stride: 1, statuses, summary, summary_size };
        inner.call(n_documents, out, |embedder, results| embedder.rerank_list(query, &documents, results))
    })
}

/// Cancels the call that is using this embedder, between two steps of its passes or, where these are about to begin, after
/// them. That call returns `SM_STATUS_CANCELLED`. If no call is using the embedder, nothing happens. This is the only
/// function that you may call for an embedder that is in use: on any thread, also from a callback, but never after
/// `sm_embedder_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_embedder_cancel(embedder: *const sm_embedder) -> sm_status {
    boundary::call(|| {
        // SAFETY: the header's contract.
        let embedder = unsafe { borrow(embedder, "embedder") }?;
        embedder.inner.check_home()?;
        embedder.stop.cancel();
        Ok(())
    })
}

/// Longest prompt, and longest name of one.
const MAX_PROMPT_BYTES: usize = 1 << 16;
const MAX_NAME_BYTES: usize = 256;

/// The embedder, for this call.
///
/// # Safety
/// `embedder` is NULL or alive during `'a`.
unsafe fn enter<'a>(embedder: *const sm_embedder) -> Result<Entered<'a, Inner>, Failure> {
    // SAFETY: the function's contract.
    unsafe { borrow(embedder, "embedder") }?.inner.enter()
}

/// Where the host wants a call's results.
struct Out {
    rows: *mut f32,
    stride: usize,
    statuses: *mut i32,
    summary: *mut sm_embed_summary,
    summary_size: usize,
}

impl Inner {
    /// Runs a call on the host's rows, and gives it its statuses, also those of a call that failed on its way.
    ///
    /// # Safety
    /// As the header says of the places for results.
    unsafe fn call(
        &mut self,
        n: usize,
        out: Out,
        call: impl FnOnce(&mut Embedder, &mut Results<'_>) -> crate::Result<Summary>,
    ) -> Result<(), Failure> {
        if !out.summary.is_null() {
            // Before the work, so that a wrong size doesn't waste it.
            params::check_size::<sm_embed_summary>(out.summary_size)?;
        }
        let width = self.embedder.width();
        let floats = match n {
            0 => Some(0),
            _ => (n - 1).checked_mul(out.stride).and_then(|floats| floats.checked_add(width)),
        };
        let floats = floats.ok_or_else(|| Failure::invalid("rows: so many don't fit into memory"))?;
        // SAFETY: the header's contract.
        let rows = unsafe { buffers::array_mut(out.rows, floats, "rows") }?;
        if !out.statuses.is_null() {
            buffers::check(out.statuses, n, "statuses")?;
        }
        self.statuses.clear();
        if self.statuses.capacity() < n {
            self.statuses = filled(TextStatus::NotDone, n, "the statuses of texts")?;
        }
        self.statuses.resize(n, TextStatus::NotDone);
        let host = self.progress;
        let mut progress =
            |progress: Progress| host.map_or(ControlFlow::Continue(()), |host| host.report(progress));
        let mut results = Results::new(rows, out.stride, &mut self.statuses).with_progress(&mut progress);
        let outcome = call(&mut self.embedder, &mut results);
        if !out.statuses.is_null() {
            for (i, &status) in self.statuses.iter().enumerate() {
                // SAFETY: not NULL, so writable for `n` numbers by the header.
                unsafe { out.statuses.add(i).write(number(status)) };
            }
        }
        let summary = sm_embed_summary::from(outcome?);
        match out.summary.is_null() {
            true => Ok(()),
            // SAFETY: the header's contract.
            false => unsafe { params::write(out.summary, &summary, out.summary_size) },
        }
    }
}

/// The host's progress callback.
#[derive(Clone, Copy)]
struct Host {
    callback: unsafe extern "C" fn(*mut c_void, f32) -> i32,
    user_data: *mut c_void,
}

// SAFETY: the host's callback is called on the thread that called the library; its `user_data` is the host's.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    fn report(self, progress: Progress) -> ControlFlow<()> {
        let fraction = progress.texts as f64 / progress.of.max(1) as f64;
        // SAFETY: the host gave a function of this signature with its user_data for as long as it is set.
        match unsafe { (self.callback)(self.user_data, fraction as f32) } {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}
