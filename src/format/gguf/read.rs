//! Reads the parts of a header in the order of the file: preamble, metadata, tensor entries.
//! A count is checked against the remaining bytes before memory is reserved for it.

use super::TensorInfo;
use super::cursor::Cursor;
use super::foreign;
use super::limits::*;
use super::metadata::{Array, Metadata, Strings, Value};
use super::types::TensorType;
use crate::error::{Error, Result, at, quoted};
use crate::memory::reserve::{copied, reserve, with_room};
use crate::text::escaped_bytes;

/// Numbers of value types in the file.
pub(super) mod tag {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// Fewest bytes of a string: its length.
const MIN_STRING: u64 = 8;
/// Fewest bytes of an array: its element type and length.
const MIN_ARRAY: u64 = 4 + 8;
/// Fewest bytes of a metadata pair: a key of one byte, a type, a value of one byte.
const MIN_PAIR: u64 = MIN_STRING + 1 + 4 + 1;
/// Fewest bytes of a tensor entry: a name of one byte, the number of dimensions, a type, an offset.
const MIN_TENSOR: u64 = MIN_STRING + 1 + 4 + 4 + 8;

/// The fixed fields at the beginning of a file.
pub(super) struct Preamble {
    pub version: u32,
    pub n_tensors: u64,
    pub n_pairs: u64,
}

pub(super) fn preamble(cursor: &mut Cursor) -> Result<Preamble> {
    let len = cursor.source_len();
    let head = foreign::head(cursor.peek()?);
    if head.starts_with(b"FUGG") {
        return Err(big_endian());
    }
    if !head.starts_with(b"GGUF") {
        return Err(foreign::error(head, len));
    }
    cursor.read(&mut [0; 4])?;
    let version = cursor.u32().map_err(at(|| "the version".into()))?;
    match version {
        2 | 3 => {}
        0 => return Err(Error::format("GGUF version 0")),
        // A small number in the other byte order: there will be no version 65536.
        _ if version & 0xffff == 0 => return Err(big_endian()),
        _ => {
            return Err(Error::Unsupported(format!(
                "GGUF version {version} (only versions 2 and 3 are read)"
            )));
        }
    }
    let n_tensors = cursor.u64().map_err(at(|| "the number of tensors".into()))?;
    let n_pairs = cursor.u64().map_err(at(|| "the number of metadata pairs".into()))?;
    check_count(cursor, n_pairs, MAX_KV_PAIRS, MIN_PAIR, "metadata pairs")?;
    check_count(cursor, n_tensors, MAX_TENSORS, MIN_TENSOR, "tensors")?;
    Ok(Preamble { version, n_tensors, n_pairs })
}

fn big_endian() -> Error {
    Error::Unsupported("big-endian GGUF, for computers of another byte order".into())
}

fn check_count(cursor: &Cursor, count: u64, max: u64, min_bytes: u64, what: &str) -> Result<()> {
    if count > max {
        return Err(Error::format(format!("{count} {what}; at most {max} are taken")));
    }
    cursor.check_room(count, min_bytes, what).map(|_| ())
}

pub(super) fn metadata(cursor: &mut Cursor, n_pairs: u64) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    for index in 0..n_pairs {
        let key = cursor.string(MAX_KEY_BYTES).map_err(at(|| format!("metadata pair {index}: key")))?;
        // No key that matters has other bytes than those of UTF-8; another one is only listed.
        let key = String::from_utf8(key).unwrap_or_else(|e| escaped_bytes(e.as_bytes()).to_string());
        let value = value(cursor).map_err(at(|| format!("metadata key {}", quoted(&key))))?;
        metadata.insert(key, value)?;
    }
    Ok(metadata)
}

fn value(cursor: &mut Cursor) -> Result<Value> {
    Ok(match cursor.u32()? {
        tag::U8 => Value::U8(cursor.number(u8::from_le_bytes)?),
        tag::I8 => Value::I8(cursor.number(i8::from_le_bytes)?),
        tag::U16 => Value::U16(cursor.number(u16::from_le_bytes)?),
        tag::I16 => Value::I16(cursor.number(i16::from_le_bytes)?),
        tag::U32 => Value::U32(cursor.u32()?),
        tag::I32 => Value::I32(cursor.number(i32::from_le_bytes)?),
        tag::U64 => Value::U64(cursor.u64()?),
        tag::I64 => Value::I64(cursor.number(i64::from_le_bytes)?),
        tag::F32 => Value::F32(cursor.number(f32::from_le_bytes)?),
        tag::F64 => Value::F64(cursor.number(f64::from_le_bytes)?),
        tag::BOOL => Value::Bool(boolean(cursor)?),
        tag::STRING => match String::from_utf8(cursor.string(MAX_STRING_BYTES)?) {
            Ok(text) => Value::Str(text),
            Err(error) => Value::Bytes(error.into_bytes()),
        },
        tag::ARRAY => Value::Array(array(cursor, 1)?),
        other => return Err(unknown_tag(cursor, other)),
    })
}

fn array(cursor: &mut Cursor, depth: u32) -> Result<Array> {
    if depth > MAX_ARRAY_DEPTH {
        return Err(Error::format(format!("arrays nested more than {MAX_ARRAY_DEPTH} deep")));
    }
    let (element, count) = (cursor.u32()?, cursor.u64()?);
    Ok(match element {
        tag::U8 => Array::U8(cursor.numbers(count, u8::from_le_bytes)?),
        tag::I8 => Array::I8(cursor.numbers(count, i8::from_le_bytes)?),
        tag::U16 => Array::U16(cursor.numbers(count, u16::from_le_bytes)?),
        tag::I16 => Array::I16(cursor.numbers(count, i16::from_le_bytes)?),
        tag::U32 => Array::U32(cursor.numbers(count, u32::from_le_bytes)?),
        tag::I32 => Array::I32(cursor.numbers(count, i32::from_le_bytes)?),
        tag::U64 => Array::U64(cursor.numbers(count, u64::from_le_bytes)?),
        tag::I64 => Array::I64(cursor.numbers(count, i64::from_le_bytes)?),
        tag::F32 => Array::F32(cursor.numbers(count, f32::from_le_bytes)?),
        tag::F64 => Array::F64(cursor.numbers(count, f64::from_le_bytes)?),
        tag::BOOL => {
            let count = cursor.check_room(count, 1, "array elements")?;
            let mut array = with_room(count, "a metadata array")?;
            for _ in 0..count {
                array.push(boolean(cursor)?);
            }
            Array::Bool(array)
        }
        tag::STRING => strings(cursor, count)?,
        tag::ARRAY => {
            let count = cursor.check_room(count, MIN_ARRAY, "array elements")?;
            let mut arrays = Vec::new();
            for index in 0..count {
                let inner = array(cursor, depth + 1).map_err(at(|| format!("element {index}")))?;
                reserve(&mut arrays, 1, "a metadata array")?;
                arrays.push(inner);
            }
            Array::Array(arrays)
        }
        other => return Err(unknown_tag(cursor, other)),
    })
}

fn strings(cursor: &mut Cursor, count: u64) -> Result<Array> {
    let count = cursor.check_room(count, MIN_STRING, "array elements")?;
    let mut strings = Strings::default();
    let mut string = Vec::new();
    for index in 0..count {
        cursor.string_into(MAX_STRING_BYTES, &mut string).map_err(at(|| format!("element {index}")))?;
        match std::str::from_utf8(&string) {
            Ok(text) => strings.push(text)?,
            Err(_) => return byte_strings(cursor, count, &strings, string).map(Array::Bytes),
        }
    }
    Ok(Array::Str(strings))
}

/// The strings of an array of `count` whose first ones were read as text, and whose next one is no text.
fn byte_strings(cursor: &mut Cursor, count: usize, texts: &Strings, next: Vec<u8>) -> Result<Vec<Vec<u8>>> {
    let mut strings = with_room(count, "a metadata array")?;
    for text in texts.iter() {
        strings.push(copied(text.as_bytes(), "a metadata array")?);
    }
    strings.push(next);
    for index in strings.len()..count {
        strings.push(cursor.string(MAX_STRING_BYTES).map_err(at(|| format!("element {index}")))?);
    }
    Ok(strings)
}

fn boolean(cursor: &mut Cursor) -> Result<bool> {
    match cursor.number(u8::from_le_bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::format(format!("a truth value is {other} at byte {}", cursor.pos() - 1))),
    }
}

fn unknown_tag(cursor: &Cursor, tag: u32) -> Error {
    Error::format(format!("unknown value type {tag} before byte {}", cursor.pos()))
}

/// The next tensor entry, as in the file: its offset counts from the data section, and its size in bytes is not known
/// yet and left 0.
pub(super) fn tensor(cursor: &mut Cursor, index: u64) -> Result<TensorInfo> {
    let name = cursor.text(MAX_NAME_BYTES).map_err(at(|| format!("tensor {index}: name")))?;
    if name.is_empty() {
        return Err(Error::format(format!("tensor {index} has an empty name")));
    }
    let mut fields = || {
        let (n_dims, dims) = dims(cursor)?;
        Ok((n_dims, dims, TensorType(cursor.u32()?), cursor.u64()?))
    };
    let (n_dims, dims, ty, offset) = fields().map_err(at(|| format!("tensor {}", quoted(&name))))?;
    Ok(TensorInfo { name, n_dims, dims, ty, offset, bytes: 0 })
}

/// The number of dimensions and their lengths, filled up with ones.
fn dims(cursor: &mut Cursor) -> Result<(usize, [u64; MAX_DIMS as usize])> {
    let n_dims = cursor.u32()?;
    if n_dims > MAX_DIMS {
        return Err(Error::format(format!("{n_dims} dimensions; there are at most {MAX_DIMS}")));
    }
    let mut dims = [1; MAX_DIMS as usize];
    for dim in &mut dims[..n_dims as usize] {
        *dim = cursor.u64()?;
        if *dim == 0 {
            return Err(Error::format("a dimension is 0"));
        }
    }
    Ok((n_dims as usize, dims))
}
