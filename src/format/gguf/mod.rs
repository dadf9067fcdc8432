//! Reader of GGUF files, versions 2 and 3, little-endian, after the public specification
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>). It reads the header through a small buffer
//! and checks all of it against the file; tensor data is read later, by position, by any number of threads.
//!
//! A file is: the magic `GGUF`, the version, the numbers of tensors and of metadata pairs; the pairs; an entry
//! for each tensor (name, dimensions, type, offset); padding to `general.alignment`; the tensors' data, which
//! the offsets count from. Limits are in [`limits`]; memory taken is a small multiple of the header's size.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{ByteSource, FileSource};
use crate::quant::DType;
use crate::{Error, Result};

mod cursor;
pub mod limits;
mod metadata;
mod read;
mod text;
mod types;

pub use metadata::{Array, Metadata, Strings, Value};
pub use types::TensorType;

use cursor::Cursor;
use text::{at, quoted, reserve_one, reserved};

/// Where a tensor lies in the file and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Unique within the file.
    pub name: String,
    /// How many of `dims` the file gave; 0 is a single number.
    pub n_dims: usize,
    /// Lengths, the fastest-varying first: `dims[0]` is the length of a row, as GGUF orders them. A weight of
    /// a layer with K inputs and N outputs has `[K, N]`. 1 from `n_dims` on; none is 0.
    pub dims: [u64; 4],
    /// Element type, which may be one that cannot be loaded.
    pub ty: TensorType,
    /// Offset of the data from the beginning of the file.
    pub offset: u64,
    /// Bytes of data. For a type of unknown size: the room up to the next tensor or the end of the file.
    pub bytes: u64,
}

impl TensorInfo {
    /// The lengths the file gave, fastest-varying first.
    pub fn shape(&self) -> &[u64] {
        &self.dims[..self.n_dims]
    }

    /// Elements of a row.
    pub fn row_len(&self) -> u64 {
        self.dims[0]
    }

    /// Rows: the product of all lengths but the first.
    pub fn rows(&self) -> u64 {
        self.dims[1..].iter().product()
    }

    /// Elements in all.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// The type to load it as.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming tensor and type, where there is none.
    pub fn dtype(&self) -> Result<DType> {
        self.ty.dtype().ok_or_else(|| {
            Error::Unsupported(format!("tensor {} is of type {}", quoted(&self.name), self.ty))
        })
    }
}

/// An opened GGUF file: its header, checked, and the source to read tensors from.
pub struct Gguf {
    source: Arc<dyn ByteSource>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<u32>,
    alignment: u64,
    data_offset: u64,
}

impl Gguf {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`Error::Format`] naming file and place where the contents contradict themselves, the file or the
    /// [`limits`]; [`Error::Unsupported`] for another version or byte order; [`Error::Io`] and
    /// [`Error::OutOfMemory`].
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        Self::read(&source).map_err(at(|| source.name().to_owned()))
    }

    /// [`Gguf::open`] on a [`FileSource`].
    ///
    /// # Errors
    /// As [`FileSource::open`] and [`Gguf::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self> {
        Self::open(Arc::new(FileSource::open(path)?))
    }

    fn read(source: &Arc<dyn ByteSource>) -> Result<Self> {
        let mut cursor = Cursor::new(&**source)?;
        let preamble = read::preamble(&mut cursor)?;
        let metadata = read::metadata(&mut cursor, preamble.n_pairs)?;
        let alignment = alignment(&metadata)?;
        let mut entries = Vec::new();
        for index in 0..preamble.n_tensors {
            let entry = read::entry(&mut cursor, index)?;
            reserve_one(&mut entries, "the list of tensors")?;
            entries.push(entry);
        }
        let data_offset = cursor.pos().next_multiple_of(alignment);
        let tensors = place(entries, alignment, data_offset, source.len())?;
        let by_name = index_names(&tensors)?;
        let version = preamble.version;
        Ok(Self { source: source.clone(), version, metadata, tensors, by_name, alignment, data_offset })
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let place = self.by_name.binary_search_by(|&i| self.tensors[i as usize].name.as_str().cmp(name));
        Some(&self.tensors[self.by_name[place.ok()?] as usize])
    }

    /// Bytes that each tensor's offset is a multiple of, counted from [`Gguf::data_offset`].
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Offset of the data section, which may lie past the end of a file without tensors.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &Arc<dyn ByteSource> {
        &self.source
    }

    /// Fills `buf` with the tensor's data from `byte_offset` on. Threads may read at once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where that passes the tensor's end; as [`ByteSource::read_at`].
    pub fn read_tensor(&self, tensor: &TensorInfo, byte_offset: u64, buf: &mut [u8]) -> Result<()> {
        match byte_offset.checked_add(buf.len() as u64) {
            Some(end) if end <= tensor.bytes => {}
            _ => {
                return Err(Error::invalid(format!(
                    "tensor {}: {} bytes at {byte_offset} are past its end, which is at {}",
                    quoted(&tensor.name),
                    buf.len(),
                    tensor.bytes
                )));
            }
        }
        self.source.read_at(tensor.offset.saturating_add(byte_offset), buf)
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("source", &self.source.name())
            .field("version", &self.version)
            .field("pairs", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// `general.alignment`, or its default.
fn alignment(metadata: &Metadata) -> Result<u64> {
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

/// Gives the entries their absolute offsets and sizes, checked against the file and each other.
fn place(
    entries: Vec<read::Entry>,
    alignment: u64,
    data_offset: u64,
    file_len: u64,
) -> Result<Vec<TensorInfo>> {
    let mut tensors = reserved(entries.len(), "the list of tensors")?;
    for entry in entries {
        let info = locate(&entry, alignment, data_offset, file_len)
            .map_err(at(|| format!("tensor {}", quoted(&entry.name))))?;
        tensors.push(TensorInfo { name: entry.name, ..info });
    }
    separate(&mut tensors, file_len)?;
    Ok(tensors)
}

/// Checks one entry by itself. The name is left out; a type of unknown size gets 0 bytes.
fn locate(entry: &read::Entry, alignment: u64, data_offset: u64, file_len: u64) -> Result<TensorInfo> {
    let dims = entry.dims;
    let too_large =
        || Error::format(format!("dimensions {:?} are too large", &dims[..entry.n_dims as usize]));
    let elements =
        dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim)).ok_or_else(too_large)?;
    let bytes = match entry.ty.block() {
        None => 0,
        Some((block_len, block_bytes)) => {
            if !dims[0].is_multiple_of(block_len) {
                return Err(Error::format(format!(
                    "rows of {} elements are no whole number of {} blocks, which have {block_len}",
                    dims[0], entry.ty
                )));
            }
            (elements / block_len).checked_mul(block_bytes).ok_or_else(too_large)?
        }
    };
    if !entry.offset.is_multiple_of(alignment) {
        return Err(Error::format(format!("offset {} is no multiple of {alignment}", entry.offset)));
    }
    let offset = data_offset.checked_add(entry.offset);
    match offset.and_then(|offset| Some((offset, offset.checked_add(bytes)?))) {
        Some((offset, end)) if end <= file_len => Ok(TensorInfo {
            name: String::new(),
            n_dims: entry.n_dims as usize,
            dims,
            ty: entry.ty,
            offset,
            bytes,
        }),
        _ => Err(Error::format(format!(
            "{bytes} bytes at offset {} of the data, which begins at {data_offset}, \
             are past the end of the file at {file_len}",
            entry.offset
        ))),
    }
}

/// Checks that no two tensors share bytes; gives those of unknown size the room up to the next one.
fn separate(tensors: &mut [TensorInfo], file_len: u64) -> Result<()> {
    let mut by_offset = indices(tensors.len())?;
    by_offset.sort_unstable_by_key(|&i| tensors[i as usize].offset);
    for (position, &index) in by_offset.iter().enumerate() {
        let next = by_offset.get(position + 1).map(|&i| i as usize);
        let room = next.map_or(file_len, |next| tensors[next].offset) - tensors[index as usize].offset;
        let tensor = &mut tensors[index as usize];
        if tensor.ty.block().is_none() {
            tensor.bytes = room;
        }
        if tensor.bytes > room || room == 0 {
            let (name, other) = (&tensors[index as usize].name, next.map(|next| &tensors[next].name));
            return Err(Error::format(match other {
                Some(other) => format!("tensors {} and {} overlap", quoted(name), quoted(other)),
                None => format!("tensor {} begins at the end of the file", quoted(name)),
            }));
        }
    }
    Ok(())
}

/// Indices of the tensors sorted by name, all different.
fn index_names(tensors: &[TensorInfo]) -> Result<Vec<u32>> {
    let mut by_name = indices(tensors.len())?;
    let name = |i: u32| tensors[i as usize].name.as_str();
    by_name.sort_unstable_by(|&a, &b| name(a).cmp(name(b)));
    match by_name.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        Some(pair) => Err(Error::format(format!("two tensors are called {}", quoted(name(pair[0]))))),
        None => Ok(by_name),
    }
}

fn indices(count: usize) -> Result<Vec<u32>> {
    let mut indices = reserved(count, "an index of the tensors")?;
    indices.extend(0..count as u32);
    Ok(indices)
}
