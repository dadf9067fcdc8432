//! Vectors of texts, and scores of documents: an [`Embedder`] keeps engines for one model, and takes batches of any number
//! of texts. Texts are packed into passes by their tokens, without padding; results come in the order of the texts, and a
//! text's bits depend neither on the others nor on threads.
//!
//! A call goes through its texts in windows of some thousand. The texts of a window are tokenized by all threads, sorted
//! by length and packed. Passes are of two kinds ([`Strategy`]): one at a time on all threads, or one on each thread; in
//! the second kind, threads that have no pass left tokenize the next window.

mod embedder;
mod lane;
mod make;
mod params;
mod prompt;
mod results;
mod schedule;
mod source;
#[cfg(test)]
mod tests;
mod window;

pub use embedder::{Embedder, Stop, Summary};
pub use params::{EmbedderParams, LongTexts, Strategy};
pub use prompt::Prompt;
pub use results::{Progress, Results, TextStatus};
#[cfg(feature = "capi")]
pub(crate) use source::List;
