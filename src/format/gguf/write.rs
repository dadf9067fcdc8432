//! Writes the header of a GGUF file, from metadata and a list of tensors: version 3, little-endian, with the default
//! alignment. The caller writes the tensors' data at [`Header::offsets`].

use super::limits::{DEFAULT_ALIGNMENT, MAX_DIMS, MAX_NAME_BYTES};
use super::metadata::{Array, Metadata, Value};
use super::read::tag;
use super::types::TensorType;
use crate::error::{Error, Result, quoted};
use crate::memory::reserve::{reserve, with_room};

/// The purpose of the memory, in errors.
const WHAT: &str = "the header of a file";

/// The entry of a tensor in a header to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Unique within the file.
    pub name: String,
    /// Lengths, the fastest-varying dimension first; at most four.
    pub dims: Vec<u64>,
    /// Element type.
    pub ty: TensorType,
}

/// The header of a file, and the placement of the tensors' data after it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// All bytes before the first tensor's data, padding included.
    pub bytes: Vec<u8>,
    /// Offset of each tensor's data from the beginning of the file; the bytes between tensors are zeros.
    pub offsets: Vec<u64>,
    /// Bytes of each tensor's data.
    pub sizes: Vec<u64>,
    /// Bytes of the whole file.
    pub file_len: u64,
}

impl Header {
    /// Writes the header of a file with these pairs and tensors.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a tensor that no file can hold; [`Error::OutOfMemory`].
    pub fn new(metadata: &Metadata, tensors: &[TensorEntry]) -> Result<Header> {
        Self::of(metadata.iter(), tensors)
    }

    /// [`Header::new`] with pairs from anywhere, whose keys the caller has made sure are unique.
    ///
    /// # Errors
    /// As [`Header::new`].
    pub fn of<'a>(
        pairs: impl ExactSizeIterator<Item = (&'a str, &'a Value)>,
        tensors: &[TensorEntry],
    ) -> Result<Header> {
        let mut bytes = Vec::new();
        put(&mut bytes, b"GGUF")?;
        put(&mut bytes, &3u32.to_le_bytes())?;
        put(&mut bytes, &(tensors.len() as u64).to_le_bytes())?;
        put(&mut bytes, &(pairs.len() as u64).to_le_bytes())?;
        for (key, value) in pairs {
            put_string(&mut bytes, key.as_bytes())?;
            put_value(&mut bytes, value)?;
        }
        let mut offsets: Vec<u64> = with_room(tensors.len(), WHAT)?;
        let mut sizes = with_room(tensors.len(), WHAT)?;
        let mut end = 0u64;
        for tensor in tensors {
            let (begin, size) = (end.next_multiple_of(DEFAULT_ALIGNMENT), size(tensor)?);
            let too_large = || Error::invalid("a file of so many tensors is too large");
            end = begin.checked_add(size).filter(|&end| end < 1 << 62).ok_or_else(too_large)?;
            put_entry(&mut bytes, tensor, begin)?;
            offsets.push(begin);
            sizes.push(size);
        }
        let padded = bytes.len().next_multiple_of(DEFAULT_ALIGNMENT as usize);
        let padding = padded - bytes.len();
        reserve(&mut bytes, padding, WHAT)?;
        bytes.resize(padded, 0);
        let data = bytes.len() as u64;
        offsets.iter_mut().for_each(|offset| *offset += data);
        Ok(Header { bytes, offsets, sizes, file_len: data + end })
    }
}

/// Bytes of a tensor's data.
fn size(tensor: &TensorEntry) -> Result<u64> {
    let wrong = |what: &str| Error::invalid(format!("tensor {}: {what}", quoted(&tensor.name)));
    if tensor.name.is_empty() || tensor.name.len() as u64 > MAX_NAME_BYTES {
        return Err(wrong("a name of no or too many bytes"));
    }
    if tensor.dims.len() as u64 > u64::from(MAX_DIMS) || tensor.dims.contains(&0) {
        return Err(wrong("more than four dimensions, or one of 0"));
    }
    let elements = tensor.dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let (len, bytes) = tensor.ty.block().ok_or_else(|| wrong("a type of unknown size"))?;
    if !tensor.dims.first().unwrap_or(&1).is_multiple_of(len) {
        return Err(wrong("rows of no whole number of blocks"));
    }
    elements.and_then(|n| (n / len).checked_mul(bytes)).ok_or_else(|| wrong("too large"))
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    reserve(out, bytes.len(), WHAT)?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn put_entry(out: &mut Vec<u8>, tensor: &TensorEntry, offset: u64) -> Result<()> {
    put_string(out, tensor.name.as_bytes())?;
    put(out, &(tensor.dims.len() as u32).to_le_bytes())?;
    tensor.dims.iter().try_for_each(|dim| put(out, &dim.to_le_bytes()))?;
    put(out, &tensor.ty.0.to_le_bytes())?;
    put(out, &offset.to_le_bytes())
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    put(out, &(bytes.len() as u64).to_le_bytes())?;
    put(out, bytes)
}

fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<()> {
    let mut put_number = |tag: u32, bytes: &[u8]| {
        put(out, &tag.to_le_bytes())?;
        put(out, bytes)
    };
    match value {
        Value::U8(x) => put_number(tag::U8, &x.to_le_bytes()),
        Value::I8(x) => put_number(tag::I8, &x.to_le_bytes()),
        Value::U16(x) => put_number(tag::U16, &x.to_le_bytes()),
        Value::I16(x) => put_number(tag::I16, &x.to_le_bytes()),
        Value::U32(x) => put_number(tag::U32, &x.to_le_bytes()),
        Value::I32(x) => put_number(tag::I32, &x.to_le_bytes()),
        Value::U64(x) => put_number(tag::U64, &x.to_le_bytes()),
        Value::I64(x) => put_number(tag::I64, &x.to_le_bytes()),
        Value::F32(x) => put_number(tag::F32, &x.to_le_bytes()),
        Value::F64(x) => put_number(tag::F64, &x.to_le_bytes()),
        Value::Bool(x) => put_number(tag::BOOL, &[u8::from(*x)]),
        Value::Str(text) => {
            put(out, &tag::STRING.to_le_bytes())?;
            put_string(out, text.as_bytes())
        }
        Value::Bytes(bytes) => {
            put(out, &tag::STRING.to_le_bytes())?;
            put_string(out, bytes)
        }
        Value::Array(array) => {
            put(out, &tag::ARRAY.to_le_bytes())?;
            put_array(out, array)
        }
    }
}

/// Element type, length and elements of an array.
fn put_array(out: &mut Vec<u8>, array: &Array) -> Result<()> {
    match array {
        Array::U8(a) => put_numbers(out, tag::U8, a, u8::to_le_bytes),
        Array::I8(a) => put_numbers(out, tag::I8, a, i8::to_le_bytes),
        Array::U16(a) => put_numbers(out, tag::U16, a, u16::to_le_bytes),
        Array::I16(a) => put_numbers(out, tag::I16, a, i16::to_le_bytes),
        Array::U32(a) => put_numbers(out, tag::U32, a, u32::to_le_bytes),
        Array::I32(a) => put_numbers(out, tag::I32, a, i32::to_le_bytes),
        Array::U64(a) => put_numbers(out, tag::U64, a, u64::to_le_bytes),
        Array::I64(a) => put_numbers(out, tag::I64, a, i64::to_le_bytes),
        Array::F32(a) => put_numbers(out, tag::F32, a, f32::to_le_bytes),
        Array::F64(a) => put_numbers(out, tag::F64, a, f64::to_le_bytes),
        Array::Bool(a) => put_numbers(out, tag::BOOL, a, |x| [u8::from(x)]),
        Array::Str(a) => {
            put_array_head(out, tag::STRING, a.len())?;
            a.iter().try_for_each(|text| put_string(out, text.as_bytes()))
        }
        Array::Bytes(a) => {
            put_array_head(out, tag::STRING, a.len())?;
            a.iter().try_for_each(|bytes| put_string(out, bytes))
        }
        Array::Array(a) => {
            put_array_head(out, tag::ARRAY, a.len())?;
            a.iter().try_for_each(|inner| put_array(out, inner))
        }
    }
}

fn put_array_head(out: &mut Vec<u8>, tag: u32, len: usize) -> Result<()> {
    put(out, &tag.to_le_bytes())?;
    put(out, &(len as u64).to_le_bytes())
}

fn put_numbers<T: Copy, const N: usize>(
    out: &mut Vec<u8>,
    tag: u32,
    numbers: &[T],
    to_le: impl Fn(T) -> [u8; N],
) -> Result<()> {
    put_array_head(out, tag, numbers.len())?;
    numbers.iter().try_for_each(|&number| put(out, &to_le(number)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::BytesSource;
    use crate::format::gguf::{Gguf, Strings};

    fn spec(name: &str, dims: &[u64], ty: u32) -> TensorEntry {
        TensorEntry { name: name.to_owned(), dims: dims.to_vec(), ty: TensorType(ty) }
    }

    fn every_array() -> Vec<Array> {
        let mut strings = Strings::default();
        ["", "naïve", "b"].iter().for_each(|text| strings.push(text).unwrap());
        vec![
            Array::U8(vec![0, 255]),
            Array::I8(vec![-128, 127]),
            Array::U16(vec![65535]),
            Array::I16(vec![-1, 2]),
            Array::U32(vec![u32::MAX]),
            Array::I32(vec![i32::MIN, 3]),
            Array::U64(vec![u64::MAX]),
            Array::I64(vec![]),
            Array::F32(vec![0.1, -0.0]),
            Array::F64(vec![1e300]),
            Array::Bool(vec![true, false]),
            Array::Str(strings),
            Array::Bytes(vec![b"\xff".to_vec(), b"a".to_vec()]),
            Array::Array(vec![Array::U8(vec![1]), Array::Array(vec![Array::F32(vec![2.0])])]),
        ]
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut metadata = Metadata::new();
        for (key, value) in [
            ("u8", Value::U8(255)),
            ("i8", Value::I8(-128)),
            ("u16", Value::U16(65535)),
            ("i16", Value::I16(-2)),
            ("u32", Value::U32(7)),
            ("i32", Value::I32(-7)),
            ("u64", Value::U64(u64::MAX)),
            ("i64", Value::I64(i64::MIN)),
            ("f32", Value::F32(-0.1)),
            ("f64", Value::F64(1e300)),
            ("bool", Value::Bool(true)),
            ("text", Value::Str("naïve\0".into())),
            ("empty", Value::Str(String::new())),
            ("bytes", Value::Bytes(b"na\xefve".to_vec())),
        ] {
            metadata.insert(key.into(), value).unwrap();
        }
        for (i, array) in every_array().into_iter().enumerate() {
            metadata.insert(format!("array {i}"), Value::Array(array)).unwrap();
        }
        // f32, Q4_0 (18 bytes a block of 32), a single number, f32 with four dimensions.
        let tensors =
            [spec("a", &[3], 0), spec("b", &[64, 3], 2), spec("c", &[], 0), spec("d", &[2, 3, 4, 5], 0)];
        let header = Header::new(&metadata, &tensors).unwrap();
        assert_eq!(header.sizes, [12, 108, 4, 480]);
        let mut file = header.bytes.clone();
        file.resize(header.file_len as usize, 0);
        let gguf = Gguf::open(Arc::new(BytesSource::new("written", file))).unwrap();
        assert_eq!(gguf.metadata(), &metadata);
        for ((read, written), (offset, size)) in
            gguf.tensors().iter().zip(&tensors).zip(header.offsets.iter().zip(&header.sizes))
        {
            assert_eq!((&read.name, read.shape(), read.ty), (&written.name, &written.dims[..], written.ty));
            assert_eq!((read.offset, read.bytes), (*offset, *size));
        }
        assert_eq!(gguf.tensors().len(), tensors.len());
    }

    #[test]
    fn what_no_file_can_hold_is_refused() {
        let refused = |tensor| Header::new(&Metadata::new(), &[tensor]).unwrap_err().to_string();
        assert!(refused(spec("", &[1], 0)).contains("name"));
        assert!(refused(spec("a", &[1; 5], 0)).contains("dimensions"));
        assert!(refused(spec("a", &[0], 0)).contains("dimensions"));
        assert!(refused(spec("a", &[33], 2)).contains("blocks"));
        assert!(refused(spec("a", &[1], 999)).contains("unknown size"));
        assert!(refused(spec("a", &[1 << 40, 1 << 40], 0)).contains("too large"));
        assert!(refused(spec("a", &[1 << 61], 0)).contains("too large"));
    }
}
