//! The metadata of a GGUF file: typed values by key, in the file's order. Getters convert between types where no
//! information is lost; otherwise their error says what the key holds and what was needed.

use std::fmt;

use super::limits::MAX_KV_PAIRS;
use crate::error::{Error, Result, quoted, shortened};
use crate::memory::reserve::{reserve, reserve_text};
use crate::text::quoted_bytes;

/// A metadata value, of any type of the format.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Unsigned 8-bit.
    U8(u8),
    /// Signed 8-bit.
    I8(i8),
    /// Unsigned 16-bit.
    U16(u16),
    /// Signed 16-bit.
    I16(i16),
    /// Unsigned 32-bit.
    U32(u32),
    /// Signed 32-bit.
    I32(i32),
    /// Unsigned 64-bit.
    U64(u64),
    /// Signed 64-bit.
    I64(i64),
    /// IEEE single.
    F32(f32),
    /// IEEE double.
    F64(f64),
    /// Truth value.
    Bool(bool),
    /// UTF-8 text.
    Str(String),
    /// A string that is not UTF-8.
    Bytes(Vec<u8>),
    /// Values of one type.
    Array(Array),
}

/// An array of metadata values, stored by its element type.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Unsigned 8-bit.
    U8(Vec<u8>),
    /// Signed 8-bit.
    I8(Vec<i8>),
    /// Unsigned 16-bit.
    U16(Vec<u16>),
    /// Signed 16-bit.
    I16(Vec<i16>),
    /// Unsigned 32-bit.
    U32(Vec<u32>),
    /// Signed 32-bit.
    I32(Vec<i32>),
    /// Unsigned 64-bit.
    U64(Vec<u64>),
    /// Signed 64-bit.
    I64(Vec<i64>),
    /// IEEE single.
    F32(Vec<f32>),
    /// IEEE double.
    F64(Vec<f64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    Str(Strings),
    /// Strings of which one at least is not UTF-8.
    Bytes(Vec<Vec<u8>>),
    /// Arrays, which may differ in type and length.
    Array(Vec<Array>),
}

/// A list of strings in one allocation: a vocabulary takes its text and 8 bytes for each token.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    text: String,
    ends: Vec<usize>,
}

impl Strings {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start..end])
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }

    /// Appends a string.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn push(&mut self, string: &str) -> Result<()> {
        reserve_text(&mut self.text, string.len(), "an array of strings")?;
        reserve(&mut self.ends, 1, "an array of strings")?;
        self.text.push_str(string);
        self.ends.push(self.text.len());
        Ok(())
    }
}

impl fmt::Debug for Strings {
    /// The number of strings, which may be hundreds of thousands, and the first ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} strings: ", self.len())?;
        f.debug_list().entries(self.iter().take(8).map(|text| shortened(text, 80))).finish()
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(a) => a.len(),
            Array::I8(a) => a.len(),
            Array::U16(a) => a.len(),
            Array::I16(a) => a.len(),
            Array::U32(a) => a.len(),
            Array::I32(a) => a.len(),
            Array::U64(a) => a.len(),
            Array::I64(a) => a.len(),
            Array::F32(a) => a.len(),
            Array::F64(a) => a.len(),
            Array::Bool(a) => a.len(),
            Array::Str(a) => a.len(),
            Array::Bytes(a) => a.len(),
            Array::Array(a) => a.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first element, if it is a whole number that isn't negative.
    #[cfg(feature = "models")]
    pub(crate) fn first_integer(&self) -> Option<u64> {
        match self {
            Array::U8(a) => a.first().map(|&x| x.into()),
            Array::U16(a) => a.first().map(|&x| x.into()),
            Array::U32(a) => a.first().map(|&x| x.into()),
            Array::U64(a) => a.first().copied(),
            Array::I8(a) => u64::try_from(*a.first()?).ok(),
            Array::I16(a) => u64::try_from(*a.first()?).ok(),
            Array::I32(a) => u64::try_from(*a.first()?).ok(),
            Array::I64(a) => u64::try_from(*a.first()?).ok(),
            _ => None,
        }
    }

    /// The element type's name.
    pub fn element_type(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F32(_) => "f32",
            Array::F64(_) => "f64",
            Array::Bool(_) => "bool",
            Array::Str(_) | Array::Bytes(_) => "string",
            Array::Array(_) => "array",
        }
    }
}

impl Value {
    /// The name of the type; `"array"` for an array of any type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::U8(_) => "u8",
            Value::I8(_) => "i8",
            Value::U16(_) => "u16",
            Value::I16(_) => "i16",
            Value::U32(_) => "u32",
            Value::I32(_) => "i32",
            Value::U64(_) => "u64",
            Value::I64(_) => "i64",
            Value::F32(_) => "f32",
            Value::F64(_) => "f64",
            Value::Bool(_) => "bool",
            Value::Str(_) | Value::Bytes(_) => "string",
            Value::Array(_) => "array",
        }
    }

    /// The value of any integer type.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(x) => x.into(),
            Value::I8(x) => x.into(),
            Value::U16(x) => x.into(),
            Value::I16(x) => x.into(),
            Value::U32(x) => x.into(),
            Value::I32(x) => x.into(),
            Value::U64(x) => x.into(),
            Value::I64(x) => x.into(),
            _ => return None,
        })
    }

    /// A short description for an error: a number with its type, or the kind of value.
    fn summary(&self) -> String {
        match self {
            Value::Array(Array::Bytes(a)) => {
                format!("an array of {} strings that are not all UTF-8", a.len())
            }
            Value::Array(a) => format!("an array of {} {}", a.len(), a.element_type()),
            Value::Str(s) => format!("the string {}", quoted(s)),
            Value::Bytes(s) => format!("the string {}, which is not UTF-8", quoted_bytes(s)),
            Value::Bool(b) => format!("{b}"),
            Value::F32(x) => format!("{x} (f32)"),
            Value::F64(x) => format!("{x} (f64)"),
            _ => format!("{} ({})", self.integer().unwrap_or_default(), self.type_name()),
        }
    }
}

impl fmt::Display for Value {
    /// Writes one line: long strings are cut, and an array is its length and element type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::F32(x) => write!(f, "{x}"),
            Value::F64(x) => write!(f, "{x}"),
            Value::Str(s) => f.write_str(&quoted(s)),
            Value::Bytes(s) => f.write_str(&quoted_bytes(s)),
            Value::Bool(_) | Value::Array(_) => f.write_str(&self.summary()),
            _ => write!(f, "{}", self.integer().unwrap_or_default()),
        }
    }
}

/// Key-value pairs with unique keys, in the order of the file.
#[derive(Clone, Default, PartialEq)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
    /// Indices into `pairs`, sorted by key.
    by_key: Vec<u32>,
}

impl fmt::Debug for Metadata {
    /// The pairs, with values as [`Value`]'s `Display` shortens them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, value)| (key, Shown(value)))).finish()
    }
}

/// A value whose `Debug` is its `Display`.
struct Shown<'a>(&'a Value);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)
    }
}

impl Metadata {
    /// Metadata without pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a pair.
    ///
    /// # Errors
    /// [`Error::Format`] for an empty key, a key that exists already, or more than [`MAX_KV_PAIRS`] pairs;
    /// [`Error::OutOfMemory`].
    pub fn insert(&mut self, key: String, value: Value) -> Result<()> {
        if key.is_empty() {
            return Err(Error::format("a metadata key is empty"));
        }
        if self.pairs.len() as u64 >= MAX_KV_PAIRS {
            return Err(Error::format(format!("more than {MAX_KV_PAIRS} metadata pairs")));
        }
        let Err(place) = self.find(&key) else {
            return Err(Error::format(format!("metadata key {} appears twice", quoted(&key))));
        };
        reserve(&mut self.by_key, 1, "metadata")?;
        reserve(&mut self.pairs, 1, "metadata")?;
        self.by_key.insert(place, self.pairs.len() as u32);
        self.pairs.push((key, value));
        Ok(())
    }

    /// Position of the key in `by_key`, or the position at which it would be inserted.
    fn find(&self, key: &str) -> std::result::Result<usize, usize> {
        self.by_key.binary_search_by(|&i| self.pairs[i as usize].0.as_str().cmp(key))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether it has no pairs.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + '_ {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key, of any type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let place = self.find(key).ok()?;
        Some(&self.pairs[self.by_key[place] as usize].1)
    }

    /// Position of a key among the pairs.
    #[cfg(feature = "models")]
    pub(crate) fn position(&self, key: &str) -> Option<usize> {
        self.find(key).ok().map(|place| self.by_key[place] as usize)
    }

    /// The value of a key, converted; `None` for an absent key, an error where `convert` returns `None`.
    fn get_as<'a, T>(
        &'a self,
        key: &str,
        needed: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(Error::format(format!(
                "metadata key {} is {}; {needed} is needed",
                quoted(key),
                value.summary()
            ))),
        }
    }

    /// A number that fits u32, from any integer type; `None` where the key is absent.
    ///
    /// # Errors
    /// [`Error::Format`], naming the key, for any other value. All getters below have this error.
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>> {
        self.get_as(key, "a u32", |v| v.integer()?.try_into().ok())
    }

    /// A number that fits u64, from any integer type.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>> {
        self.get_as(key, "a u64", |v| v.integer()?.try_into().ok())
    }

    /// An f32, or an f64 rounded to f32. NaN and infinities are returned as they are; a finite f64 beyond the range of
    /// f32 is an error.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>> {
        self.get_as(key, "an f32", |v| match *v {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32).filter(|y| y.is_finite() || !x.is_finite()),
            _ => None,
        })
    }

    /// A truth value.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>> {
        self.get_as(key, "a truth value", |v| match *v {
            Value::Bool(x) => Some(x),
            _ => None,
        })
    }

    /// A string.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>> {
        self.get_as(key, "a string", |v| match v {
            Value::Str(s) => Some(s.as_str()),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn get_str_array(&self, key: &str) -> Result<Option<&Strings>> {
        self.get_as(key, "an array of strings", |v| match v {
            Value::Array(Array::Str(a)) => Some(a),
            _ => None,
        })
    }

    /// An array of i32.
    pub fn get_i32_array(&self, key: &str) -> Result<Option<&[i32]>> {
        self.get_as(key, "an array of i32", |v| match v {
            Value::Array(Array::I32(a)) => Some(a.as_slice()),
            _ => None,
        })
    }

    /// An array of f32.
    pub fn get_f32_array(&self, key: &str) -> Result<Option<&[f32]>> {
        self.get_as(key, "an array of f32", |v| match v {
            Value::Array(Array::F32(a)) => Some(a.as_slice()),
            _ => None,
        })
    }

    /// [`Metadata::get_u32`] of a key that must exist.
    pub fn require_u32(&self, key: &str) -> Result<u32> {
        self.get_u32(key)?.ok_or_else(|| absent(key))
    }

    /// [`Metadata::get_f32`] of a key that must exist.
    pub fn require_f32(&self, key: &str) -> Result<f32> {
        self.get_f32(key)?.ok_or_else(|| absent(key))
    }

    /// [`Metadata::get_str`] of a key that must exist.
    pub fn require_str(&self, key: &str) -> Result<&str> {
        self.get_str(key)?.ok_or_else(|| absent(key))
    }

    /// [`Metadata::get_str_array`] of a key that must exist.
    pub fn require_str_array(&self, key: &str) -> Result<&Strings> {
        self.get_str_array(key)?.ok_or_else(|| absent(key))
    }
}

fn absent(key: &str) -> Error {
    Error::format(format!("metadata key {} is missing", quoted(key)))
}
