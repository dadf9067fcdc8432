//! Lists and texts whose size comes from outside: from a file or a caller's argument.
//! Their memory is reserved fallibly. A size that can't be had is an [`Error::OutOfMemory`] that says what the memory
//! was for; the standard library's own methods would abort the process. Where the [`spare`] memory has been given back,
//! every reservation is refused that would take memory.

use std::collections::TryReserveError;

use super::spare::{self, Hold};
use crate::{Error, Result};

fn refused<T>(count: usize, what: &'static str) -> Error {
    Error::OutOfMemory { bytes: count.saturating_mul(size_of::<T>()), what }
}

/// Reserves `count` elements, unless memory is short.
fn granted<T>(
    count: usize,
    what: &'static str,
    reserve: impl FnOnce() -> Result<(), TryReserveError>,
) -> Result<()> {
    if (count > 0 && spare::is_short()) || reserve().is_err() {
        Err(refused::<T>(count, what))
    } else {
        Ok(())
    }
}

/// Makes room for `additional` more elements; repeated calls grow the list geometrically, as `push` does.
pub(crate) fn reserve<T>(list: &mut Vec<T>, additional: usize, what: &'static str) -> Result<()> {
    if additional <= list.capacity() - list.len() {
        return Ok(());
    }
    granted::<T>(list.len().saturating_add(additional), what, || list.try_reserve(additional))
}

/// Makes room for `additional` more bytes of text.
pub(crate) fn reserve_text(text: &mut String, additional: usize, what: &'static str) -> Result<()> {
    if additional <= text.capacity() - text.len() {
        return Ok(());
    }
    granted::<u8>(text.len().saturating_add(additional), what, || text.try_reserve(additional))
}

/// An empty list with room for exactly `count` elements.
pub(crate) fn with_room<T>(count: usize, what: &'static str) -> Result<Vec<T>> {
    let mut list = Vec::new();
    granted::<T>(count, what, || list.try_reserve_exact(count))?;
    Ok(list)
}

/// A list of `count` copies of `value`.
pub(crate) fn filled<T: Clone>(value: T, count: usize, what: &'static str) -> Result<Vec<T>> {
    let mut list = with_room(count, what)?;
    list.resize(count, value);
    Ok(list)
}

/// A copy of a slice.
pub(crate) fn copied<T: Clone>(slice: &[T], what: &'static str) -> Result<Vec<T>> {
    let mut list = with_room(slice.len(), what)?;
    list.extend_from_slice(slice);
    Ok(list)
}

/// A copy of a text.
pub(crate) fn copied_text(text: &str, what: &'static str) -> Result<String> {
    let mut copy = String::new();
    granted::<u8>(text.len(), what, || copy.try_reserve_exact(text.len()))?;
    copy.push_str(text);
    Ok(copy)
}

/// The items in a list; the first item that is an error ends it.
pub(crate) fn collected<T>(items: impl IntoIterator<Item = Result<T>>, what: &'static str) -> Result<Vec<T>> {
    let items = items.into_iter();
    let mut list = with_room(items.size_hint().0, what)?;
    for item in items {
        reserve(&mut list, 1, what)?;
        list.push(item?);
    }
    Ok(list)
}

/// Keeps `bytes` ready, until the result is dropped, for work of this thread in a library that allocates infallibly.
pub(crate) fn held(bytes: usize, what: &'static str) -> Result<Option<Hold>> {
    if !spare::INSTALLED {
        return probe(bytes, what).map(|()| None);
    }
    Hold::new(bytes).map(Some).ok_or_else(|| refused::<u8>(bytes, what))
}

/// Checks that `bytes` could be reserved now, and keeps nothing.
pub(crate) fn probe(bytes: usize, what: &'static str) -> Result<()> {
    // Without the black box the compiler may leave out an allocation that nobody uses.
    std::hint::black_box(with_room::<u8>(bytes, what)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any address space has, less than what `Layout` refuses.
    const HUGE: usize = (isize::MAX as usize) / 16;

    fn assert_refused<T>(result: Result<T>, count: usize) {
        match result.err().expect("no such memory") {
            Error::OutOfMemory { bytes, what: "a test" } => assert_eq!(bytes, count.saturating_mul(8)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_cannot_be_had_is_an_error_with_its_size() {
        for count in [HUGE, usize::MAX] {
            assert_refused(with_room::<u64>(count, "a test"), count);
            assert_refused(filled(0u64, count, "a test"), count);
            assert_refused(reserve(&mut Vec::<u64>::new(), count, "a test"), count);
            let endless = std::iter::repeat_n(1u64, count).map(Ok);
            assert_refused(collected(endless, "a test"), count);
        }
        assert!(reserve_text(&mut "abc".into(), usize::MAX, "a test").is_err());
        assert!(probe(isize::MAX as usize, "a test").is_err());
    }

    #[test]
    fn what_can_be_had_is_there() {
        assert_eq!(filled(7u8, 3, "a test").unwrap(), [7; 3]);
        assert_eq!(copied(&[1, 2], "a test").unwrap(), [1, 2]);
        assert_eq!(copied_text("aé", "a test").unwrap(), "aé");
        assert_eq!(collected((0..100).filter(|i| i % 2 == 0).map(Ok), "a test").unwrap().len(), 50);
        let failing = [Ok(1), Err(Error::Cancelled), Ok(3)];
        assert!(matches!(collected(failing, "a test"), Err(Error::Cancelled)));
        probe(1 << 20, "a test").unwrap();
    }
}
