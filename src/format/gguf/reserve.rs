//! Reservations that fail with an error instead of aborting the process, for sizes that a file gives.
//! Each says what the memory was for.

use crate::{Error, Result};

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
