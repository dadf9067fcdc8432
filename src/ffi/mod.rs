//! libsmallmind: small transformers on a CPU, as fast as the CPU can go.
//!
//! To generate text, call `sm_model_load`, `sm_context_create` and `sm_sampler_create`; then `sm_tokenize` and
//! `sm_generate`, or `sm_decode` and `sm_sampler_sample` in a loop of your own; at the end the `*_free` functions. For
//! many texts at once, call `sm_server_create` and `sm_server_submit`, then `sm_server_step` and `sm_server_poll` in a loop.
//! For vectors of texts, call `sm_model_load`, `sm_embedder_create` and `sm_embedder_embed`. To train a model, call
//! `sm_trainer_create`, and `sm_trainer_step` in a loop. The sections from "Kernels" on need none of these: they compute on
//! your own buffers.
//!
//! Rules for all functions
//! -----------------------
//! - Errors. A function returns an `sm_status`; `SM_STATUS_OK` is 0. The few functions that can't fail return their value.
//!   After a failure, `sm_last_error()` has a line that says what was wrong, and every object and buffer that the call
//!   would have created or changed is as it was before, unless the function says otherwise. No argument terminates the
//!   process, as long as every pointer is NULL or valid, nor does a lack of memory or threads.
//! - Results go through pointers. After a failure, a handle that the call would have filled is NULL.
//! - Pointers are NULL or point to as many elements as the function says, aligned for their type, and no other thread
//!   writes them during the call. Where the function doesn't allow NULL, NULL gets `SM_STATUS_NULL_POINTER`.
//! - Ownership. You free each object that `*_create`, `*_load` or `*_pack` gave you, once, with the matching `*_free`; no
//!   other call may use it at that moment or later. Freeing NULL is fine. Objects can be freed in any order, except that
//!   a team is freed after the contexts, servers, embedders and trainers that hold it. Strings that the library returns belong to it; each
//!   function states how long they live. The library reads your buffers during the call only; a callback's `user_data` must
//!   live as long as the callback can be called.
//! - Threads. Any function may be called on any thread. A model or a server may be used on many threads at once. A context, a
//!   sampler, an embedder or a trainer takes one call at a time: a second thread, or a callback that calls back into the object that
//!   is calling it, gets `SM_STATUS_BUSY`.
//! - Processes. After a fork, the child has none of the library's threads: a context or a team from before gets
//!   `SM_STATUS_WRONG_PROCESS` there. Models and samplers can be used in the child, too.
//! - Structures of parameters begin with `struct_size`, so that they can grow: fill yours with `sm_*_params_init(&params,
//!   sizeof params)`, then change what you want. Where parameters may be NULL, NULL means the defaults. A function that
//!   fills a structure takes the structure's size as an argument. A size that ends inside a field is
//!   `SM_STATUS_INVALID_ARGUMENT`. If your structure is larger than the library's, because your header is newer,
//!   `sm_*_params_init` fills the rest with 0; if a byte there isn't 0 later, you want something that the library doesn't
//!   know, and the status is `SM_STATUS_UNSUPPORTED`. The same holds for the `stride` of arrays that you pass in.
//! - Arrays go out as (`out`, `capacity`, `count`), arrays of structures also with a `stride`, the size of your structure.
//!   `*count` always gets the number of elements that there are. If they don't fit, nothing else is written, and the
//!   status is `SM_STATUS_BUFFER_TOO_SMALL`. (NULL, 0) asks for the number only. Text goes out in the same way, in bytes,
//!   with a NUL behind it: the capacity includes the NUL, the count doesn't.
//! - Strings are UTF-8. They are NUL-terminated where no length is passed with them. Flags are `int32_t`, 0 or 1.
//! - Sizes count elements, unless they are called bytes. Tokens are `uint32_t`. Times have their unit in the name.
#![allow(non_camel_case_types)]
// The names are those of the C header. The rules above are the safety contract of every function: "the header's contract"
// in the comments below.
#![allow(clippy::missing_safety_doc)]

mod boundary;
mod buffers;
mod handle;
mod last_error;
mod matrices;
mod names;
mod operands;
mod params;
mod texts;

pub mod attention;
pub mod bf16;
pub mod chat;
pub mod context;
pub mod counters;
pub mod elementwise;
pub mod embedder;
pub mod gated;
pub mod generate;
pub mod kernels;
pub mod layout;
pub mod log;
pub mod matmul;
pub mod model;
pub mod packed;
pub mod profile;
pub mod profile_export;
pub mod random;
pub mod reductions;
pub mod rotary;
pub mod rows;
pub mod sampler;
pub mod server;
pub mod server_events;
pub mod snapshot;
pub mod status;
pub mod team;
pub mod tokenizer;
pub mod trainer;
pub mod version;
