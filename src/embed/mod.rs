//! Vectors of texts, and scores of documents: an [`Embedder`] keeps engines for one model, and takes batches of any number
//! of texts. Texts are packed into passes by their tokens, without padding; results come in the order of the texts, and a
//! text's bits depend neither on the others nor on threads.
//!
//! A call goes through its texts in windows of some thousand. The texts of a window are tokenized by all threads, sorted
//! by length and packed. Passes are of two kinds ([`Strategy`]): one at a time on all threads, or one on each thread; in
//! the second kind, threads that have no pass left tokenize the next window.
//!
//! ```
//! use std::path::Path;
//!
//! use smallmind::embed::{Embedder, EmbedderParams, Prompt, Results, TextStatus};
//! use smallmind::model::{LoadParams, Model};
//!
//! # fn main() -> smallmind::Result<()> {
//! # let Ok(file) = std::env::var("SMALLMIND_DOC_EMBEDDER") else { return Ok(()) };
//! let model = Model::open(Path::new(&file), &LoadParams::default())?;
//! let mut embedder = Embedder::new(model, &EmbedderParams::default())?;
//! let texts = ["A man plays a guitar.", "Someone makes music."];
//! let width = embedder.width();
//! let (mut rows, mut statuses) = (vec![0.0; width * texts.len()], vec![TextStatus::NotDone; texts.len()]);
//! let summary = embedder.embed(&texts, &mut Results::new(&mut rows, width, &mut statuses))?;
//! assert_eq!(summary.with_vector, 2);
//!
//! embedder.set_prompt(Prompt::text("query: "));
//! let query = embedder.embed_one("Who plays?")?;
//! # assert_eq!(query.len(), width);
//! # Ok(())
//! # }
//! ```

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

pub use embedder::{Embedder, Stop};
pub use params::{EmbedderParams, LongTexts, Strategy};
pub use prompt::Prompt;
pub use results::{Progress, Results, Summary, TextStatus};
#[cfg(feature = "capi")]
pub(crate) use source::List;
