//! Reader of GGUF files and writer of their headers, after the public specification
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), for versions 2 and 3, little-endian. The reader reads
//! the header through a small buffer and checks all of it against the file. Tensor data is read later, by position, by
//! any number of threads.
//!
//! A file consists of the magic `GGUF`, the version, the numbers of tensors and of metadata pairs; the pairs; an entry
//! for each tensor (name, dimensions, type, offset); padding to `general.alignment`; the data of tensors, from whose
//! beginning offsets count. Limits are in [`limits`]; an opened file takes a small multiple of its header's size in
//! memory.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{ByteSource, FileSource};
use crate::error::{Error, Result, at, quoted};
use crate::memory::reserve::{copied, reserve, with_room};
use crate::quant::DType;
use crate::sort;
use crate::text::escaped;

mod cursor;
mod foreign;
mod layout;
pub mod limits;
mod metadata;
mod read;
mod split;
mod types;
mod write;

pub use metadata::{Array, Metadata, Strings, Value};
pub use types::TensorType;
pub use write::{Header, TensorEntry};

use cursor::Cursor;
use layout::Section;

/// A tensor's entry in the header: its shape, type and place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Unique within the file.
    pub name: String,
    /// Number of dimensions in the file; 0 for a single number.
    pub n_dims: usize,
    /// Lengths, the fastest-varying dimension first, as in the file: `dims[0]` is the length of a row, and a weight
    /// with K inputs and N outputs has `[K, N]`. The lengths from `n_dims` on are 1; none is 0.
    pub dims: [u64; 4],
    /// Element type, which may be one that can't be loaded.
    pub ty: TensorType,
    /// Offset of the data from the beginning of the source, which is of all parts if the file is split.
    pub offset: u64,
    /// Bytes of data. For a type of unknown size: the room up to the next tensor or the end of the file.
    pub bytes: u64,
}

impl TensorInfo {
    /// The lengths in the file, the fastest-varying dimension first.
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

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// The element type, as one that can be loaded.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming tensor and type, for any other type.
    pub fn dtype(&self) -> Result<DType> {
        self.ty.dtype().ok_or_else(|| {
            Error::Unsupported(format!("tensor {} is of type {}", quoted(&self.name), self.ty))
        })
    }
}

/// An opened GGUF file: its checked header, and the source of its tensors.
pub struct Gguf {
    source: Arc<dyn ByteSource>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<u32>,
    alignment: u64,
    data_offset: u64,
    parts: usize,
}

impl Gguf {
    /// Reads and checks the header. The first part of a split model opens the others too, as siblings of the source.
    ///
    /// # Errors
    /// [`Error::Format`] naming file and place where the contents contradict themselves, the file or the
    /// [`limits`]; [`Error::Unsupported`] for another version, another byte order, or a file of another known kind (an
    /// archive, another format of models, a page of the web), which it names; [`Error::Io`] and
    /// [`Error::OutOfMemory`].
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let first = Self::read_part(&source)?;
        let Some(count) = split::parts_to_join(&first)? else { return Ok(first) };
        let others = split::siblings(&first, count)?;
        split::join(first, others)
    }

    /// [`Gguf::open`] for a split model whose parts are at hand, in their order.
    ///
    /// # Errors
    /// As [`Gguf::open`]; [`Error::Format`] for sources that aren't the parts of one model.
    pub fn open_parts(sources: &[Arc<dyn ByteSource>]) -> Result<Self> {
        let Some((first, others)) = sources.split_first() else {
            return Err(Error::invalid("no parts of a file"));
        };
        split::join(Self::read_part(first)?, copied(others, "a list of files")?)
    }

    /// [`Gguf::open`] on a [`FileSource`].
    ///
    /// # Errors
    /// As [`FileSource::open`] and [`Gguf::open`].
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self> {
        Self::open(Arc::new(FileSource::open(path)?))
    }

    /// One file, with the place in its errors.
    fn read_part(source: &Arc<dyn ByteSource>) -> Result<Self> {
        Self::read(source).map_err(at(|| escaped(source.name()).to_string()))
    }

    fn read(source: &Arc<dyn ByteSource>) -> Result<Self> {
        let mut cursor = Cursor::new(&**source)?;
        let preamble = read::preamble(&mut cursor)?;
        let metadata = read::metadata(&mut cursor, preamble.n_pairs)?;
        let alignment = layout::alignment(&metadata)?;
        let mut tensors = Vec::new();
        for index in 0..preamble.n_tensors {
            reserve(&mut tensors, 1, "the list of tensors")?;
            tensors.push(read::tensor(&mut cursor, index)?);
        }
        let data_offset = cursor.pos().next_multiple_of(alignment);
        let section = Section { alignment, offset: data_offset, file_len: source.len() };
        layout::place(&mut tensors, &section)?;
        let by_name = index_names(&tensors)?;
        let version = preamble.version;
        let (source, parts) = (source.clone(), 1);
        Ok(Self { source, version, metadata, tensors, by_name, alignment, data_offset, parts })
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

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.position(name).map(|place| &self.tensors[place])
    }

    /// Position in [`Gguf::tensors`] of the tensor with this name.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        let place = self.by_name.binary_search_by(|&i| self.tensors[i as usize].name.as_str().cmp(name));
        Some(self.by_name[place.ok()?] as usize)
    }

    /// Elements of all tensors. Saturating: the size of the file doesn't bound the elements of a type of unknown size.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.elements()))
    }

    /// Alignment in bytes of each tensor's offset from [`Gguf::data_offset`].
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Offset of the data section, which may lie past the end of a file without tensors.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Number of files that the model stands in: 1 if it isn't split.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The source of the file's bytes; of all parts one after the other, if the file is split.
    pub fn source(&self) -> &Arc<dyn ByteSource> {
        &self.source
    }

    /// Fills `buf` with the tensor's data from `byte_offset` on. Several threads may read at the same time.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the range ends after the tensor; those of [`ByteSource::read_at`].
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

/// Indices of the tensors, sorted by name; two equal names are an error.
fn index_names(tensors: &[TensorInfo]) -> Result<Vec<u32>> {
    let mut by_name = indices(tensors.len())?;
    let name = |i: u32| tensors[i as usize].name.as_str();
    sort::numbers(&mut by_name, &|a, b| name(a).cmp(name(b)));
    match by_name.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        Some(pair) => Err(Error::format(format!("two tensors are called {}", quoted(name(pair[0]))))),
        None => Ok(by_name),
    }
}

/// `0..count`, to be sorted into an index of the tensors.
fn indices(count: usize) -> Result<Vec<u32>> {
    let mut indices = with_room(count, "an index of the tensors")?;
    indices.extend(0..count as u32);
    Ok(indices)
}
