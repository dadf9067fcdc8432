//! Helpers that all of the reader shares: text from a file made fit for one-line messages,
//! places put in front of errors, and reservations that fail instead of aborting.

use crate::{Error, Result};

/// Characters of a name or a string that a message shows.
const SHOWN_CHARS: usize = 80;

/// A string from a file in quotes: control characters escaped, shortened where long.
pub(super) fn quoted(s: &str) -> String {
    match s.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("{:?}…", &s[..cut]),
        None => format!("{s:?}"),
    }
}

/// Puts the place in front of an error about contents; other errors stay as they are.
pub(super) fn at(place: impl FnOnce() -> String) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Format(text) => Error::Format(format!("{}: {text}", place())),
        Error::Unsupported(text) => Error::Unsupported(format!("{}: {text}", place())),
        other => other,
    }
}

/// An empty vector with room for exactly `count` elements.
pub(super) fn reserved<T>(count: usize, what: &'static str) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    let bytes = count.saturating_mul(size_of::<T>());
    vec.try_reserve_exact(count).map_err(|_| Error::OutOfMemory { bytes, what })?;
    Ok(vec)
}

/// Makes room for one more element; growth is geometric, as with `push`.
pub(super) fn reserve_one<T>(vec: &mut Vec<T>, what: &'static str) -> Result<()> {
    let bytes = vec.len().saturating_add(1).saturating_mul(size_of::<T>());
    vec.try_reserve(1).map_err(|_| Error::OutOfMemory { bytes, what })
}

/// `0..count`, to be sorted into an index of the tensors.
pub(super) fn indices(count: usize) -> Result<Vec<u32>> {
    let mut indices = reserved(count, "an index of the tensors")?;
    indices.extend(0..count as u32);
    Ok(indices)
}
