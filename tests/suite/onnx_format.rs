//! ONNX's test cases: a model of one node, and its inputs and outputs, each a protobuf message.
//! Reads no more of the format than those have; what it does not know is a panic that names the field.

use std::collections::BTreeMap;
use std::path::Path;

/// A message's fields, in order: their numbers and what they hold.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&first, rest) = bytes.split_first().expect("a message ends inside a number");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first < 0x80 {
            return value;
        }
    }
    panic!("a number of more than 64 bits");
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at_checked(n).expect("a message ends inside a field");
    *bytes = rest;
    taken
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Bytes(take(&mut bytes, 8)),
            2 => {
                let n = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, n))
            }
            5 => Field::Fixed32(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap())),
            wire => panic!("a field of wire type {wire}"),
        };
        all.push((key >> 3, field));
    }
    all
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text in UTF-8")
}

/// Elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    /// A type that the library does not compute with, by its number.
    Other(u64),
}

/// A dense array, row-major.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub dims: Vec<usize>,
    pub data: Data,
}

impl Tensor {
    fn read(bytes: &[u8]) -> Self {
        let (mut dims, mut kind, mut raw) = (Vec::new(), 0, Vec::new());
        let (mut floats, mut integers) = (Vec::new(), Vec::new());
        for (number, field) in fields(bytes) {
            match (number, field) {
                (1, Field::Number(dim)) => dims.push(dim as usize),
                (1, Field::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        dims.push(varint(&mut packed) as usize);
                    }
                }
                (2, Field::Number(number)) => kind = number,
                (4, Field::Bytes(packed)) => {
                    floats.extend(packed.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())));
                }
                (4, Field::Fixed32(bits)) => floats.push(f32::from_bits(bits)),
                (5 | 7, Field::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        integers.push(varint(&mut packed) as i64);
                    }
                }
                (5 | 7, Field::Number(number)) => integers.push(number as i64),
                (8, _) => {} // its name
                (9, Field::Bytes(bytes)) => raw = bytes.to_vec(),
                (number, _) => panic!("field {number} of a tensor"),
            }
        }
        if !raw.is_empty() {
            floats = raw.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        }
        let data = match kind {
            1 => Data::F32(floats),
            7 if raw.is_empty() => Data::I64(integers),
            7 => Data::I64(raw.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()),
            9 if raw.is_empty() => Data::Bool(integers.iter().map(|&x| x != 0).collect()),
            9 => Data::Bool(raw.iter().map(|&x| x != 0).collect()),
            other => Data::Other(other),
        };
        let tensor = Self { dims, data };
        let held = match &tensor.data {
            Data::F32(x) => x.len(),
            Data::I64(x) => x.len(),
            Data::Bool(x) => x.len(),
            Data::Other(_) => tensor.len(),
        };
        assert_eq!(held, tensor.len(), "as many elements as the dimensions {:?} say", tensor.dims);
        tensor
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// The elements as f32, which they must be.
    pub fn floats(&self) -> &[f32] {
        match &self.data {
            Data::F32(x) => x,
            other => panic!("f32 wanted, not {other:?}"),
        }
    }

    /// The elements as integers, which they must be.
    pub fn integers(&self) -> &[i64] {
        match &self.data {
            Data::I64(x) => x,
            other => panic!("integers wanted, not {other:?}"),
        }
    }
}

/// What an attribute holds.
#[derive(Clone, Debug)]
pub enum Attribute {
    Float(f32),
    Int(i64),
    Text(String),
}

/// An operator with its inputs and the outputs that it must give. Absent ones in the middle are `None`.
#[derive(Debug)]
pub struct Case {
    pub op: String,
    pub attributes: BTreeMap<String, Attribute>,
    pub inputs: Vec<Option<Tensor>>,
    pub outputs: Vec<Option<Tensor>>,
}

impl Case {
    /// Reads a case's folder: its model of one node, and its only set of data.
    pub fn read(folder: &Path) -> Self {
        let read = |path: &Path| std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let model = read(&folder.join("model.onnx"));
        let graph = only(&model, 7);
        let mut node =
            Self { op: String::new(), attributes: BTreeMap::new(), inputs: Vec::new(), outputs: Vec::new() };
        let sets = std::fs::read_dir(folder).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(sets, 1, "one set of data");
        let data = folder.join("test_data_set_0");
        let (mut n_inputs, mut n_outputs) = (0, 0);
        // Files are numbered without the absent ones, whose names are empty.
        let tensor = |kind: &str, name: &[u8], n: &mut usize| {
            (!name.is_empty()).then(|| {
                let bytes = read(&data.join(format!("{kind}_{n}.pb")));
                *n += 1;
                Tensor::read(&bytes)
            })
        };
        for (number, field) in fields(only(graph, 1)) {
            match (number, field) {
                (1, Field::Bytes(name)) => node.inputs.push(tensor("input", name, &mut n_inputs)),
                (2, Field::Bytes(name)) => node.outputs.push(tensor("output", name, &mut n_outputs)),
                (4, Field::Bytes(op)) => node.op = text(op),
                (5, Field::Bytes(attribute)) => node.attributes.extend([read_attribute(attribute)]),
                (3 | 6 | 7, _) => {} // its name, its documentation, its domain
                (number, _) => panic!("field {number} of a node"),
            }
        }
        node
    }

    /// A whole number, or what it is where absent.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attributes.get(name) {
            None => default,
            Some(Attribute::Int(value)) => *value,
            Some(other) => panic!("{name} is {other:?}"),
        }
    }

    /// A number, where given.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attributes.get(name).map(|value| match value {
            Attribute::Float(value) => *value,
            other => panic!("{name} is {other:?}"),
        })
    }

    /// Input `i`, which must be there.
    pub fn input(&self, i: usize) -> &Tensor {
        self.optional(i).unwrap_or_else(|| panic!("input {i} is missing"))
    }

    /// Input `i`, where given.
    pub fn optional(&self, i: usize) -> Option<&Tensor> {
        self.inputs.get(i)?.as_ref()
    }
}

/// The only field of that number.
fn only(message: &[u8], number: u64) -> &[u8] {
    let mut found = fields(message).into_iter().filter(|(n, _)| *n == number);
    let Some((_, Field::Bytes(bytes))) = found.next() else { panic!("no field {number}") };
    assert!(found.next().is_none(), "more than one field {number}: a graph of several nodes");
    bytes
}

fn read_attribute(bytes: &[u8]) -> (String, Attribute) {
    let (mut name, mut value) = (String::new(), None);
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Field::Bytes(bytes)) => name = text(bytes),
            (2, Field::Fixed32(bits)) => value = Some(Attribute::Float(f32::from_bits(bits))),
            (3, Field::Number(number)) => value = Some(Attribute::Int(number as i64)),
            (4, Field::Bytes(bytes)) => value = Some(Attribute::Text(text(bytes))),
            (20, Field::Number(_)) => {} // its type
            (number, _) => panic!("field {number} of an attribute"),
        }
    }
    (name, value.expect("an attribute has a value"))
}
