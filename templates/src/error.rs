//! The errors of templates. Each variant is a kind of failure that a caller can act on; `Display` writes one line.

use minijinja::ErrorKind;

/// Most characters of an error: a template may have names of any length.
const MAX_MESSAGE: usize = 500;

/// Why a template can't be compiled or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source is empty, too long, or doesn't compile; then the text says at which line.
    #[error("{0}")]
    Source(String),
    /// The source has a statement that this crate doesn't know, or is nested beyond its limits.
    #[error("{0}")]
    Unsupported(String),
    /// The template rejects the conversation, in its own words, fails on it, or exceeds a limit.
    #[error("{0}")]
    Rendering(String),
    /// Memory could not be had.
    #[error("out of memory: could not reserve {bytes} bytes for a chat template")]
    OutOfMemory {
        /// Size of the reservation.
        bytes: usize,
    },
    /// A defect of this crate.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// An error of a compilation.
    pub(crate) fn of_source(error: &minijinja::Error) -> Self {
        Error::Source(describe(error))
    }

    /// An error of a rendering.
    pub(crate) fn of_rendering(error: &minijinja::Error) -> Self {
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            // An error of a write holds its cause, but doesn't name it as its source.
            let written = inner.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
            let own = written.and_then(|cause| cause.downcast_ref()).or_else(|| inner.downcast_ref());
            if let Some(Error::OutOfMemory { bytes }) = own {
                return Error::OutOfMemory { bytes: *bytes };
            }
            cause = inner.source();
        }
        Error::Rendering(describe(error))
    }
}

/// An error of minijinja, as one line.
pub(crate) fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let text = match error.detail() {
        _ if error.kind() == ErrorKind::OutOfFuel => "the template takes too many steps".to_owned(),
        Some(detail) if error.kind() == ErrorKind::InvalidOperation => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    // The source has the cause of a failed write or call.
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("chat template{line}: {text}{cause}").replace(['\n', '\r'], " ");
    shortened(&text, MAX_MESSAGE).to_owned()
}

/// The first `max` characters of a text.
pub(crate) fn shortened(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(cut, _)| &text[..cut])
}
