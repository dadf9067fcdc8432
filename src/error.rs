//! The one error type of the crate: every variant is something a caller can act on. After an error, the objects of the
//! call are as usable as before it; only [`Error::Internal`] may leave a result of an interrupted pass undefined.
//! Its `Display` is one line that names the thing at fault, fit to be shown to a person.

use std::path::PathBuf;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error. The C ABI maps each variant to one status code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is outside the accepted range; the text names it and says why.
    #[error("{0}")]
    InvalidArgument(String),
    /// A file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file's contents contradict its format; the text says where.
    #[error("bad file: {0}")]
    Format(String),
    /// A valid request or file that this version does not handle.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The system refused memory.
    #[error("out of memory: could not reserve {bytes} bytes for {what}")]
    OutOfMemory {
        /// The bytes that were refused.
        bytes: usize,
        /// Their purpose.
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
    /// A defect of the library: a worker of a team panicked, or a state that can't be was found. The team and the object
    /// of the call stay usable. (A panic on the calling thread itself is no error in Rust: it unwinds to the caller. The C
    /// ABI catches it there, and from then on refuses the object that was in use.)
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// An [`Error::InvalidArgument`] from anything printable.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::InvalidArgument(text.into())
    }

    /// An [`Error::Format`] from anything printable.
    pub fn format(text: impl Into<String>) -> Self {
        Self::Format(text.into())
    }
}

/// Characters of a text from outside that a message shows.
const SHOWN_CHARS: usize = 80;

/// A text from a file or a caller, made fit for a one-line message: in quotes, control characters escaped,
/// shortened where long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// Puts the place in front of an error about contents; other errors stay as they are.
pub(crate) fn at(place: impl FnOnce() -> String) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Format(text) => Error::Format(format!("{}: {text}", place())),
        Error::Unsupported(text) => Error::Unsupported(format!("{}: {text}", place())),
        other => other,
    }
}
