//! The placement of tensors in a file: sizes, which follow from shapes, and offsets, checked against the file's length
//! and against each other.

use super::limits;
use super::metadata::Metadata;
use super::types::TensorType;
use super::{TensorInfo, indices};
use crate::error::{Error, Result, at, quoted};
use crate::sort;

/// The part of a file that holds the tensors' data.
pub(super) struct Section {
    /// Alignment of tensors' offsets from its beginning.
    pub alignment: u64,
    /// Its offset in the file.
    pub offset: u64,
    /// Bytes of the whole file.
    pub file_len: u64,
}

/// `general.alignment`, or its default.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64> {
    const KEY: &str = "general.alignment";
    let alignment = metadata.get_u64(KEY)?.unwrap_or(limits::DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || !limits::ALIGNMENTS.contains(&alignment) {
        return Err(Error::format(format!(
            "{KEY} is {alignment}; a power of two from {} to {} is needed",
            limits::ALIGNMENTS.start(),
            limits::ALIGNMENTS.end()
        )));
    }
    Ok(alignment)
}

/// Computes the sizes of tensors, and their offsets from the beginning of the file.
///
/// # Errors
/// [`Error::Format`] where one lies outside the file, is misaligned, or shares bytes with another.
pub(super) fn place(tensors: &mut [TensorInfo], section: &Section) -> Result<()> {
    for tensor in tensors.iter_mut() {
        let placed = size(tensor.ty, tensor.shape()).and_then(|bytes| locate(tensor.offset, bytes, section));
        (tensor.offset, tensor.bytes) = placed.map_err(at(|| format!("tensor {}", quoted(&tensor.name))))?;
    }
    separate(tensors, section.file_len)
}

/// Bytes of a tensor; 0 for a type of unknown size.
fn size(ty: TensorType, shape: &[u64]) -> Result<u64> {
    let too_large = || Error::format(format!("dimensions {shape:?} are too large"));
    let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let elements = elements.ok_or_else(too_large)?;
    let Some((block_len, block_bytes)) = ty.block() else { return Ok(0) };
    let row_len = shape.first().copied().unwrap_or(1);
    if !row_len.is_multiple_of(block_len) {
        return Err(Error::format(format!(
            "rows of {row_len} elements are no whole number of {ty} blocks, which have {block_len}"
        )));
    }
    (elements / block_len).checked_mul(block_bytes).ok_or_else(too_large)
}

/// Offset in the file and size of `bytes` at `offset` of the section, which must be inside the file.
fn locate(offset: u64, bytes: u64, section: &Section) -> Result<(u64, u64)> {
    if !offset.is_multiple_of(section.alignment) {
        return Err(Error::format(format!("offset {offset} is no multiple of {}", section.alignment)));
    }
    let begin = section.offset.checked_add(offset);
    let end = begin.and_then(|begin| begin.checked_add(bytes));
    match (begin, end) {
        (Some(begin), Some(end)) if end <= section.file_len => Ok((begin, bytes)),
        _ => Err(Error::format(format!(
            "{bytes} bytes at offset {offset} of the data, which begins at {}, are past the end of the file at {}; was its \
             download interrupted?",
            section.offset, section.file_len
        ))),
    }
}

/// Checks that no two tensors share bytes. A tensor of unknown size gets the room up to the next one.
fn separate(tensors: &mut [TensorInfo], file_len: u64) -> Result<()> {
    let mut by_offset = indices(tensors.len())?;
    let offset = |i: u32| tensors[i as usize].offset;
    sort::numbers(&mut by_offset, &|a, b| offset(a).cmp(&offset(b)));
    for (position, &index) in by_offset.iter().enumerate() {
        let next = by_offset.get(position + 1).map(|&i| i as usize);
        let room = next.map_or(file_len, |next| tensors[next].offset) - tensors[index as usize].offset;
        let tensor = &mut tensors[index as usize];
        if tensor.ty.block().is_none() {
            tensor.bytes = room;
        }
        if tensor.bytes > room || room == 0 {
            let name = quoted(&tensor.name);
            return Err(Error::format(match next {
                Some(next) => format!("tensors {name} and {} overlap", quoted(&tensors[next].name)),
                None => format!("tensor {name} begins at the end of the file"),
            }));
        }
    }
    Ok(())
}
