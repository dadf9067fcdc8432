//! libsmallmind: small transformers on a CPU, as fast as the CPU can go.
//!
//! The usual way: `sm_model_load`, `sm_context_create`, `sm_sampler_create`; then `sm_tokenize` and
//! `sm_generate`, or `sm_decode` and `sm_sampler_sample` in a loop of your own; at the end the `*_free`
//! functions. Beside it stand the bare kernels, which need none of these.
//!
//! Rules for everything below
//! --------------------------
//! - Errors. A function returns an `sm_status`, and `SM_STATUS_OK` is 0; the few that can't fail return
//!   their value. After a failure `sm_last_error()` has a line that says what was wrong, and whatever
//!   the call was to create or change is as it was before. Nothing you pass terminates the process; only
//!   a pointer that isn't NULL and yet points to nothing can't be noticed.
//! - Results go through pointers. A handle that a failed call was to fill is NULL.
//! - Ownership. You free what `*_create` and `*_load` gave you, with the matching `*_free`, once; freeing
//!   NULL is fine. A context keeps what it needs of its model alive, so the order of freeing is free;
//!   only a team is freed after the contexts that hold it.
//!   Strings that the library returns are its own, and their life is stated; what you pass in is only read
//!   during the call, but for a callback's `user_data`.
//! - Threads. Any function may be called on any thread. A model may be used on many at once. A context or a
//!   sampler is for one call at a time: a second thread, or a callback that calls back into the object that
//!   is calling it, gets `SM_STATUS_BUSY`.
//! - Structures begin with `struct_size`, so that they can grow: fill yours with `sm_*_params_init(&params,
//!   sizeof params)`, then change what you want. NULL instead of parameters means the defaults. A structure
//!   that the library fills takes its size as an argument.
//! - Arrays go out as (`out`, `capacity`, `count`), an array of structures with its `stride`, which is the
//!   size of your structure. `*count` always gets the number of elements there are. If they don't fit,
//!   nothing else is written, and the status is `SM_STATUS_BUFFER_TOO_SMALL`; (NULL, 0) just asks for the
//!   number. Text likewise, in bytes: a NUL is written behind it, which the capacity must have room for
//!   and the count leaves out.
//! - Strings are UTF-8, NUL-terminated where no length is passed with them. Flags are `int32_t`, 0 or 1.
//! - Sizes are numbers of elements, unless called bytes. Tokens are `uint32_t`. Times
//!   have their unit in the name.
#![allow(non_camel_case_types)]
// The names are those of the C header.
// One contract for all functions, stated above: pointers are NULL or point to what the signature says.
#![allow(clippy::missing_safety_doc)]

mod boundary;
mod buffers;
mod handle;
mod matrices;
mod names;
mod params;

pub mod attention;
pub mod bf16;
pub mod chat;
pub mod context;
pub mod elementwise;
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
pub mod status;
pub mod team;
pub mod tokenizer;
pub mod version;
