//! A server in the program: many requests on one engine, with continuous batching. A [`Server`] takes requests from any
//! thread, and each [`Server::step`] runs one pass over the weights for all of them: the next token of every running
//! sequence, and pieces of prompts within a budget of tokens. Sequences join and leave between steps.
//!
//! A request's tokens are those that [`drive`](crate::runtime::generation::drive) gives for it alone, to the bit: whatever
//! else runs, whenever it arrives, however often it is preempted.
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use smallmind::model::{LoadParams, Model};
//! use smallmind::runtime::sampling::{Sampler, SamplerParams};
//! use smallmind::serve::{Event, Request, Server, ServerParams};
//!
//! # fn main() -> smallmind::Result<()> {
//! # let Ok(file) = std::env::var("SMALLMIND_DOC_MODEL") else { return Ok(()) };
//! let model = Model::open(Path::new(&file), &LoadParams::default())?;
//! let n_vocab = model.config().n_vocab;
//! let server = Server::new(model, &ServerParams::default().with_n_sequences(8).with_n_ctx(512))?;
//! for (seed, prompt) in (1..).zip(["Once upon a time", "The capital of France is"]) {
//!     let sampler = Sampler::new(SamplerParams::default().with_seed(seed), n_vocab)?;
//!     server.submit(Request::new(prompt, sampler).with_max_tokens(32))?;
//! }
//! server.run(&mut |event, text| {
//!     match event {
//!         Event::Output { request, .. } => println!("{request}: {text}"),
//!         Event::Finished { request, summary } => println!("{request}: {:?}", summary.reason),
//!         Event::Failed { request, error } => println!("{request}: {error}"),
//!         _ => {}
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```

mod board;
mod event;
mod params;
mod request;
mod scheduler;
mod server;
mod task;
#[cfg(test)]
mod tests;

pub use event::{Event, Progress, Stats, Status, Summary};
pub use params::ServerParams;
pub use request::{Prompt, Request, RequestId};
pub use server::Server;
