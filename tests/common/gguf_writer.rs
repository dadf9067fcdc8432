//! Writes GGUF files for tests, honest ones and liars: pairs and tensors as given, nothing checked.
//! Independent of the library, whose own writer only makes headers; it shares the types of metadata values.

// Each test binary that includes this file uses a part of it.
#![allow(dead_code)]

use smallmind::format::gguf::{Array, Value};

/// Type numbers of the format that tests write.
pub const F32: u32 = 0;
pub const F16: u32 = 1;
pub const Q4_1: u32 = 3;
pub const Q8_0: u32 = 8;

/// A file in the making.
#[derive(Clone)]
pub struct Writer {
    version: u32,
    alignment: usize,
    n_pairs: u64,
    pairs: Vec<u8>,
    n_entries: u64,
    entries: Vec<u8>,
    data: Vec<u8>,
}

impl Writer {
    /// Version 3, no pairs, no tensors, the default alignment.
    pub fn new() -> Self {
        let (pairs, entries, data) = (Vec::new(), Vec::new(), Vec::new());
        Self { version: 3, alignment: 32, n_pairs: 0, pairs, n_entries: 0, entries, data }
    }

    /// Another version number.
    pub fn version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// Another alignment of the data; the pair that says so is the caller's. Before any tensor.
    pub fn alignment(self, alignment: usize) -> Self {
        Self { alignment, ..self }
    }

    /// Adds a pair.
    pub fn pair(mut self, key: &str, value: Value) -> Self {
        put_string(&mut self.pairs, key);
        put_value(&mut self.pairs, &value);
        self.n_pairs += 1;
        self
    }

    /// Adds a pair whose type and value are the bytes given.
    pub fn raw_pair(mut self, key: &[u8], value: &[u8]) -> Self {
        put_u64(&mut self.pairs, key.len() as u64);
        self.pairs.extend_from_slice(key);
        self.pairs.extend_from_slice(value);
        self.n_pairs += 1;
        self
    }

    /// Adds a tensor and its data, at the next aligned offset.
    pub fn tensor(mut self, name: &str, dims: &[u64], ty: u32, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        let offset = self.data.len() as u64;
        self.data.extend_from_slice(data);
        self.entry(name, dims, ty, offset)
    }

    /// Adds an entry without data.
    pub fn entry(mut self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
        put_string(&mut self.entries, name);
        put_u32(&mut self.entries, dims.len() as u32);
        for &dim in dims {
            put_u64(&mut self.entries, dim);
        }
        put_u32(&mut self.entries, ty);
        put_u64(&mut self.entries, offset);
        self.n_entries += 1;
        self
    }

    /// Bytes before the padding in front of the data.
    pub fn header_len(&self) -> usize {
        4 + 4 + 8 + 8 + self.pairs.len() + self.entries.len()
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        put_u32(&mut file, self.version);
        put_u64(&mut file, self.n_entries);
        put_u64(&mut file, self.n_pairs);
        file.extend_from_slice(&self.pairs);
        file.extend_from_slice(&self.entries);
        file.resize(file.len().next_multiple_of(self.alignment), 0);
        file.extend_from_slice(&self.data);
        file
    }
}

/// A value of every type there is.
pub fn every_value() -> Vec<(&'static str, Value)> {
    vec![
        ("u8", Value::U8(200)),
        ("i8", Value::I8(-100)),
        ("u16", Value::U16(60_000)),
        ("i16", Value::I16(-30_000)),
        ("u32", Value::U32(4_000_000_000)),
        ("i32", Value::I32(-2_000_000_000)),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f32", Value::F32(-0.1)),
        ("f64", Value::F64(1e300)),
        ("bool", Value::Bool(true)),
        ("string", string("naïve Σ\n")),
        ("empty string", string("")),
        ("strings", strings(["", "a", "Ġthe", "日本"])),
        ("u8s", Value::Array(Array::U8(vec![0, 255]))),
        ("i8s", Value::Array(Array::I8(vec![-128, 127]))),
        ("u16s", Value::Array(Array::U16(vec![1, 2, 3]))),
        ("i16s", Value::Array(Array::I16(vec![-1]))),
        ("u32s", Value::Array(Array::U32(vec![u32::MAX]))),
        ("i32s", Value::Array(Array::I32((-5..5).collect()))),
        ("u64s", Value::Array(Array::U64(vec![u64::MAX, 0]))),
        ("i64s", Value::Array(Array::I64(vec![i64::MIN]))),
        ("f32s", Value::Array(Array::F32(vec![0.5, -0.0, f32::INFINITY]))),
        ("f64s", Value::Array(Array::F64(vec![]))),
        ("bools", Value::Array(Array::Bool(vec![true, false]))),
        (
            "nested",
            Value::Array(Array::Array(vec![Array::U8(vec![1]), Array::Bool(vec![]), Array::I32(vec![5])])),
        ),
    ]
}

/// [`every_value`] and three tensors, the last of which ends with the file.
pub fn every_value_file() -> Writer {
    let writer = every_value().into_iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value));
    let rows: Vec<u8> = (0..120).collect();
    writer
        .tensor("norm", &[3], F32, &f32_bytes(&[1.0, 2.0, 3.0]))
        .tensor("weight", &[64, 3], Q4_1, &rows)
        .tensor("scalar", &[], F32, &f32_bytes(&[7.0]))
}

/// The array of strings.
pub fn strings<'a>(strings: impl IntoIterator<Item = &'a str>) -> Value {
    let mut array = smallmind::format::gguf::Strings::default();
    for string in strings {
        array.push(string).unwrap();
    }
    Value::Array(Array::Str(array))
}

/// The string.
pub fn string(text: &str) -> Value {
    Value::Str(text.to_owned())
}

/// Floats as their little-endian bytes.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

pub fn put_u32(out: &mut Vec<u8>, x: u32) {
    out.extend_from_slice(&x.to_le_bytes());
}

pub fn put_u64(out: &mut Vec<u8>, x: u64) {
    out.extend_from_slice(&x.to_le_bytes());
}

pub fn put_string(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// A string that may be no UTF-8.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Type number and bytes of a value.
pub fn put_value(out: &mut Vec<u8>, value: &Value) {
    let (ty, bytes) = match value {
        Value::U8(x) => (0, x.to_le_bytes().to_vec()),
        Value::I8(x) => (1, x.to_le_bytes().to_vec()),
        Value::U16(x) => (2, x.to_le_bytes().to_vec()),
        Value::I16(x) => (3, x.to_le_bytes().to_vec()),
        Value::U32(x) => (4, x.to_le_bytes().to_vec()),
        Value::I32(x) => (5, x.to_le_bytes().to_vec()),
        Value::F32(x) => (6, x.to_le_bytes().to_vec()),
        Value::Bool(x) => (7, vec![*x as u8]),
        Value::Str(s) => {
            let mut bytes = Vec::new();
            put_string(&mut bytes, s);
            (8, bytes)
        }
        Value::Bytes(s) => {
            let mut bytes = Vec::new();
            put_bytes(&mut bytes, s);
            (8, bytes)
        }
        Value::Array(a) => {
            let mut bytes = Vec::new();
            put_array(&mut bytes, a);
            (9, bytes)
        }
        Value::U64(x) => (10, x.to_le_bytes().to_vec()),
        Value::I64(x) => (11, x.to_le_bytes().to_vec()),
        Value::F64(x) => (12, x.to_le_bytes().to_vec()),
    };
    put_u32(out, ty);
    out.extend_from_slice(&bytes);
}

/// Element type, length and bytes of an array.
fn put_array(out: &mut Vec<u8>, array: &Array) {
    fn all<T, const N: usize>(values: &[T], to_le: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(to_le).collect()
    }
    let (ty, bytes) = match array {
        Array::U8(a) => (0, a.clone()),
        Array::I8(a) => (1, all(a, |x| x.to_le_bytes())),
        Array::U16(a) => (2, all(a, |x| x.to_le_bytes())),
        Array::I16(a) => (3, all(a, |x| x.to_le_bytes())),
        Array::U32(a) => (4, all(a, |x| x.to_le_bytes())),
        Array::I32(a) => (5, all(a, |x| x.to_le_bytes())),
        Array::F32(a) => (6, all(a, |x| x.to_le_bytes())),
        Array::Bool(a) => (7, all(a, |&x| [x as u8])),
        Array::Str(a) => (
            8,
            a.iter().fold(Vec::new(), |mut out, s| {
                put_string(&mut out, s);
                out
            }),
        ),
        Array::Bytes(a) => (
            8,
            a.iter().fold(Vec::new(), |mut out, s| {
                put_bytes(&mut out, s);
                out
            }),
        ),
        Array::Array(a) => (
            9,
            a.iter().fold(Vec::new(), |mut out, inner| {
                put_array(&mut out, inner);
                out
            }),
        ),
        Array::U64(a) => (10, all(a, |x| x.to_le_bytes())),
        Array::I64(a) => (11, all(a, |x| x.to_le_bytes())),
        Array::F64(a) => (12, all(a, |x| x.to_le_bytes())),
    };
    put_u32(out, ty);
    put_u64(out, array.len() as u64);
    out.extend_from_slice(&bytes);
}
