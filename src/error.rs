//! The error type of the crate. Each variant is a kind of failure that a caller can act on.
//! `Display` writes one line that names the thing at fault, fit to be shown to a person: text from files is escaped.
//! After an error, the objects of the call are as usable as before it; only [`Error::Internal`] may leave a result of an
//! interrupted pass undefined.

use std::path::PathBuf;

use crate::text::escaped_path;
pub(crate) use crate::text::{quoted, shortened};

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The C ABI maps each variant to one status code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The function doesn't accept an argument; the text says which and why.
    #[error("{0}")]
    InvalidArgument(String),
    /// A file could not be opened or read.
    #[error("{}: {source}", escaped_path(.path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The contents of a file contradict its format; the text says where.
    #[error("bad file: {0}")]
    Format(String),
    /// A valid request or file that this version does not handle.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// A training step met NaN or infinity; the text names the step and the first tensor at fault. Weights are as before.
    #[error("{0}")]
    NotFinite(String),
    /// Memory could not be reserved.
    #[error("out of memory: could not reserve {bytes} bytes for {what}")]
    OutOfMemory {
        /// Size of the reservation; `usize::MAX` where the size itself overflows.
        bytes: usize,
        /// The purpose of the memory.
        what: &'static str,
    },
    /// The tokens do not fit into the context.
    #[error("the context holds {n_ctx} positions; {needed} are needed")]
    ContextFull {
        /// Capacity in positions.
        n_ctx: usize,
        /// Positions the call would have needed.
        needed: usize,
    },
    /// A callback, or another thread, asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The object is in use by another thread, or by a callback's own caller.
    #[error("busy: {0} is in use by another call")]
    Busy(&'static str),
    /// The operating system starts no more threads.
    #[error(
        "could not start thread {} of {wanted}: {source} (fewer threads, or a higher limit on threads and memory, would \
         help)",
        started + 1
    )]
    NoThreads {
        /// Threads that were to run, the calling one included.
        wanted: usize,
        /// Those of them that run.
        started: usize,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A fork copied the object without its threads: only the process that made it can use it.
    #[error("{0} belongs to the process that made it; after a fork, make another one")]
    WrongProcess(&'static str),
    /// A defect of the library: a worker of a team panicked, or a state that can't be was found. The team and the object
    /// of the call stay usable. (A panic on the calling thread itself is no error in Rust: it unwinds to the caller. The C
    /// ABI catches it there, and from then on refuses the object that was in use.)
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// An [`Error::InvalidArgument`] with this text.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidArgument(text.into())
    }

    /// An [`Error::Format`] with this text.
    pub fn format(text: impl Into<String>) -> Self {
        Self::Format(text.into())
    }
}

/// Puts the place in front of the text of an error about a file's contents; other errors stay as they are.
pub(crate) fn at(place: impl FnOnce() -> String) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Format(text) => Error::Format(format!("{}: {text}", place())),
        Error::Unsupported(text) => Error::Unsupported(format!("{}: {text}", place())),
        other => other,
    }
}
