//! Reader of the headers of safetensors files (<https://huggingface.co/docs/safetensors>): the length of a JSON text as
//! 8 bytes, the text, which names every tensor with its type, shape and place, and the data. All of it is checked against
//! the file before it is used.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::ByteSource;
use crate::error::{Error, Result, at, quoted};
use crate::memory::reserve::{collected, filled, held};
use crate::sort;
use crate::text::escaped;

/// Longest header, from the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Most memory that parsing takes, in bytes for each byte of the header: an entry of 50 bytes or more becomes a tensor
/// with its name and shape, in lists that double.
const MEMORY_PER_BYTE: usize = 6;

/// Element types, by their names in files, with the bytes of an element.
const TYPES: [(&str, u64); 15] = [
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("F64", 8),
    ("I64", 8),
    ("I32", 4),
    ("I16", 2),
    ("I8", 1),
    ("U64", 8),
    ("U32", 4),
    ("U16", 2),
    ("U8", 1),
    ("BOOL", 1),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
];

/// A tensor's entry: its type, shape and place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SafeTensor {
    /// Unique within the file.
    pub name: String,
    /// Element type, by the format's own name.
    pub dtype: &'static str,
    /// Lengths, the slowest-varying dimension first.
    pub shape: Vec<u64>,
    /// Offset of the data from the beginning of the file.
    pub offset: u64,
    /// Bytes of data.
    pub bytes: u64,
}

/// An entry as it stands in the JSON text.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The entries in the order of the text; keys may repeat in JSON, so that a map would lose some.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with an entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "__metadata__" => drop(map.next_value::<IgnoredAny>()?),
                        _ => entries.push((name, map.next_value()?)),
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// The tensors of a file, in the order of their data.
///
/// # Errors
/// [`Error::Format`], naming file and tensor, where the header is no such text, or a tensor has an unknown type, another
/// size than its shape says, data past the end of the file, or bytes of another one; [`Error::Io`] and
/// [`Error::OutOfMemory`].
pub fn safetensors(source: &dyn ByteSource) -> Result<Vec<SafeTensor>> {
    read(source).map_err(at(|| escaped(source.name()).to_string()))
}

fn read(source: &dyn ByteSource) -> Result<Vec<SafeTensor>> {
    const WHAT: &str = "the header of a file";
    let len = source.len();
    let mut length = [0; 8];
    if len < 8 {
        return Err(Error::format(format!("{len} bytes are no safetensors file")));
    }
    source.read_at(0, &mut length)?;
    let header = u64::from_le_bytes(length);
    if header > MAX_HEADER_BYTES {
        return Err(Error::format(format!(
            "a header of {header} bytes; at most {MAX_HEADER_BYTES} are taken"
        )));
    }
    if header > len - 8 {
        return Err(Error::format(format!(
            "a header of {header} bytes in a file of {len}; was its download interrupted?"
        )));
    }
    let _held = held(header as usize * MEMORY_PER_BYTE, WHAT)?;
    let mut text = filled(0u8, header as usize, WHAT)?;
    source.read_at(8, &mut text)?;
    let entries: Entries =
        serde_json::from_slice(&text).map_err(|error| Error::format(format!("its header: {error}")))?;
    let data = 8 + header;
    let tensors = entries.0.into_iter().map(|(name, entry)| {
        let place = format!("tensor {}", quoted(&name));
        tensor(name, entry, data, len).map_err(at(|| place))
    });
    let mut tensors = collected(tensors, WHAT)?;
    check_apart(&mut tensors)?;
    Ok(tensors)
}

/// A tensor whose data are in a file of `len` bytes, from `data` on.
fn tensor(name: String, entry: Entry, data: u64, len: u64) -> Result<SafeTensor> {
    let Entry { dtype, shape, data_offsets: [begin, end] } = entry;
    let Some(&(dtype, size)) = TYPES.iter().find(|(name, _)| *name == dtype) else {
        return Err(Error::format(format!("unknown type {}", quoted(&dtype))));
    };
    let needed = shape.iter().try_fold(size, |product, &dim| product.checked_mul(dim));
    if begin > end || needed != Some(end - begin) {
        return Err(Error::format(format!("bytes {begin} to {end} for {dtype} of shape {shape:?}")));
    }
    if end > len - data {
        return Err(Error::format(format!(
            "bytes {begin} to {end} are past the end of the data, which has {}; was its download interrupted?",
            len - data
        )));
    }
    Ok(SafeTensor { name, dtype, shape, offset: data + begin, bytes: end - begin })
}

/// Sorts tensors by their data, and checks that no two share bytes or a name.
fn check_apart(tensors: &mut [SafeTensor]) -> Result<()> {
    sort::by(tensors, |a, b| a.name.cmp(&b.name));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::format(format!("two tensors are called {}", quoted(&pair[0].name))));
    }
    sort::by_key(tensors, |tensor| (tensor.offset, tensor.bytes));
    match tensors.windows(2).find(|pair| pair[0].offset + pair[0].bytes > pair[1].offset) {
        Some(pair) => {
            let names = (quoted(&pair[0].name), quoted(&pair[1].name));
            Err(Error::format(format!("tensors {} and {} overlap", names.0, names.1)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BytesSource;

    fn file(header: &str, data: usize) -> BytesSource {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        BytesSource::new("a.safetensors", bytes)
    }

    fn refused(header: &str, data: usize) -> String {
        let error = safetensors(&file(header, data)).unwrap_err();
        assert!(matches!(error, Error::Format(_)), "{error}");
        error.to_string()
    }

    #[test]
    fn tensors_come_in_the_order_of_their_data() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"F16","shape":[2,3],"data_offsets":[8,20]},
            "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "scalar":{"dtype":"I64","shape":[],"data_offsets":[20,28]},
            "none":{"dtype":"F32","shape":[0,4],"data_offsets":[20,20]}}"#;
        let tensors = safetensors(&file(header, 28)).unwrap();
        let names: Vec<_> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "none", "scalar"]);
        let b = &tensors[1];
        assert_eq!((b.dtype, &b.shape[..], b.bytes), ("F16", &[2, 3][..], 12));
        assert_eq!(b.offset, 8 + header.len() as u64 + 8);
    }

    #[test]
    fn contradictions_are_named() {
        let two = |b: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},{b}}}"#);
        let overlap = two(r#""b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#);
        assert!(refused(&overlap, 12).contains("\"a\" and \"b\" overlap"));
        let twice = two(r#""a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}"#);
        assert!(refused(&twice, 16).contains("two tensors are called \"a\""));
        let short = two(r#""b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}"#);
        let message = refused(&short, 15);
        assert!(message.contains("tensor \"b\"") && message.contains("interrupted"), "{message}");
        for (wrong, named) in [
            (r#""b":{"dtype":"F33","shape":[2],"data_offsets":[8,16]}"#, "unknown type \"F33\""),
            (r#""b":{"dtype":"F32","shape":[3],"data_offsets":[8,16]}"#, "shape [3]"),
            (r#""b":{"dtype":"F32","shape":[2],"data_offsets":[16,8]}"#, "bytes 16 to 8"),
            (r#""b":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[8,16]}"#, "shape"),
            (r#""b":{"dtype":"F32","shape":[-1],"data_offsets":[8,16]}"#, "its header"),
            (r#""b":{"dtype":"F32","shape":[2]}"#, "data_offsets"),
            (r#""b":7"#, "its header"),
        ] {
            let message = refused(&two(wrong), 16);
            assert!(message.contains(named), "{named:?} is not in {message:?}");
        }
        assert!(refused("[]", 0).contains("its header"));
    }

    #[test]
    fn absurd_lengths_take_no_memory() {
        for length in [u64::MAX, MAX_HEADER_BYTES + 1, 1000] {
            let source = BytesSource::new("a", [&length.to_le_bytes()[..], b"{}"].concat());
            assert!(safetensors(&source).unwrap_err().to_string().contains("a header of"));
        }
        assert!(safetensors(&BytesSource::new("a", &b"1234"[..])).is_err());
        assert_eq!(safetensors(&file("{}", 0)).unwrap(), []);
    }
}
