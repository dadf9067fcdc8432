//! The small random models of `tests/goldens/families`: each is written again as a GGUF file from its list of keys and
//! tensors, and llama.cpp's logits on it are read. The layout is in `tests/goldens/README.md`.

use serde_json::Value as Json;
use smallmind::format::gguf::{Array, Value};

use super::gguf_writer::{F32, Writer, f32_bytes, strings};
use super::golden::{Cursor, read};

/// Names of the models, in order.
pub fn names() -> Vec<String> {
    let folder = super::golden_path("families");
    let files =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> =
        files.filter_map(|name| name.to_str()?.strip_suffix(".logits.bin").map(str::to_owned)).collect();
    names.sort();
    names
}

/// A tensor in the making: its values are `middle` ± `half`.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    middle: f32,
    half: f32,
}

/// A model in the making: what its file states.
#[derive(Clone, Debug)]
pub struct Family {
    pub pairs: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

impl Family {
    /// The model of that name.
    pub fn read(name: &str) -> Self {
        let golden = json(&format!("families/{name}.json"));
        let architecture = golden["architecture"].as_str().expect("an architecture");
        let without: Vec<_> =
            rows(&golden["without"]).iter().map(|key| key.as_str().expect("a key")).collect();
        let own = rows(&golden["metadata"]);
        let common = json("families/common.json");
        let common = if without == ["*"] { &[] } else { rows(&common["metadata"]) };
        let kept = common.iter().filter(|pair| {
            let key = pair[0].as_str().expect("a key");
            !without.contains(&key) && own.iter().all(|pair| pair[0] != key)
        });
        let mut pairs = vec![("general.architecture".to_owned(), Value::Str(architecture.to_owned()))];
        pairs.extend(kept.chain(own).map(|pair| {
            let key = pair[0].as_str().expect("a key");
            let prefix = if key.starts_with('.') { architecture } else { "" };
            (format!("{prefix}{key}"), value(pair[1].as_str().expect("a type"), &pair[2]))
        }));
        Family { pairs, tensors: rows(&golden["tensors"]).iter().flat_map(tensors).collect() }
    }

    /// The model's file.
    pub fn file(&self) -> Vec<u8> {
        let writer = self.pairs.iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value.clone()));
        let add = |w: Writer, t: &Tensor| w.tensor(&t.name, &t.dims, F32, &f32_bytes(&t.values()));
        self.tensors.iter().fold(writer, add).build()
    }
}

impl Tensor {
    /// The values.
    fn values(&self) -> Vec<f32> {
        let n = self.dims.iter().product::<u64>() as usize;
        uniform(&self.name, n).into_iter().map(|x| self.middle + self.half * x).collect()
    }
}

/// `n` numbers in [−1, 1): SplitMix64 that begins at the FNV-1a hash of the name, 24 bits of each number.
pub fn uniform(name: &str, n: usize) -> Vec<f32> {
    let hash = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) >> 40) as f32 * 2.0f32.powi(-23) - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// llama.cpp's logits on a model.
pub struct Logits {
    /// Tokens that were decoded.
    pub n_tokens: usize,
    /// Positions whose logits are kept.
    pub positions: Vec<usize>,
    /// The first logits of each position.
    pub rows: Vec<Vec<f32>>,
}

impl Logits {
    /// The logits on the model of that name.
    pub fn read(name: &str) -> Self {
        let bytes = read(&format!("families/{name}.logits.bin"));
        let mut cursor = Cursor::new(&bytes, b"SMFL");
        let [n_tokens, n_rows, n_columns] = std::array::from_fn(|_| cursor.size());
        let positions = (0..n_rows).map(|_| cursor.size()).collect();
        let rows = (0..n_rows).map(|_| (0..n_columns).map(|_| cursor.f32()).collect()).collect();
        Logits { n_tokens, positions, rows }
    }

    /// The tokens that were decoded, of a vocabulary of `n_vocab`.
    pub fn tokens(&self, n_vocab: usize) -> Vec<u32> {
        (0..self.n_tokens).map(|i| ((37 * i + 11 * i * i + 5) % n_vocab) as u32).collect()
    }

    /// mse(theirs, ours) / mse(theirs, 0), of our logits at every position.
    pub fn error(&self, ours: &[f32]) -> f64 {
        let width = ours.len() / self.n_tokens;
        let (mut off, mut size) = (0.0f64, 0.0f64);
        for (&position, theirs) in self.positions.iter().zip(&self.rows) {
            for (&b, &a) in ours[position * width..].iter().zip(theirs) {
                off += (f64::from(a) - f64::from(b)).powi(2);
                size += f64::from(a).powi(2);
            }
        }
        off / size
    }
}

fn json(name: &str) -> Json {
    serde_json::from_slice(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn rows(list: &Json) -> &[Json] {
    list.as_array().expect("a list")
}

/// The tensors of a line: name, dimensions, middle, half width, and the layers that `*` in the name stands for.
fn tensors(line: &Json) -> Vec<Tensor> {
    let name = line[0].as_str().expect("a name");
    let dims: Vec<u64> = rows(&line[1]).iter().map(|dim| dim.as_u64().expect("a dimension")).collect();
    let [middle, half] = [&line[2], &line[3]].map(|x| x.as_f64().expect("a number") as f32);
    let layers = rows(&line[4]);
    let names = match layers {
        [] => vec![name.to_owned()],
        _ => layers.iter().map(|layer| name.replace('*', &layer.to_string())).collect(),
    };
    names.into_iter().map(|name| Tensor { name, dims: dims.clone(), middle, half }).collect()
}

/// A value of a type like `uint32` or, for an array of 3, `uint32[3]`; one value stands for equal elements.
fn value(kind: &str, content: &Json) -> Value {
    let Some((kind, count)) = kind.split_once('[') else { return single(kind, content) };
    let count: usize = count.trim_end_matches(']').parse().expect("a length");
    let elements = match content {
        Json::Array(elements) => elements.clone(),
        element => vec![element.clone(); count],
    };
    assert_eq!(elements.len(), count);
    let integers = || elements.iter().map(|x| x.as_i64().expect("an integer"));
    Value::Array(match kind {
        "uint32" => Array::U32(integers().map(|x| x as u32).collect()),
        "int32" => Array::I32(integers().map(|x| x as i32).collect()),
        "uint64" => Array::U64(integers().map(|x| x as u64).collect()),
        "float32" => Array::F32(elements.iter().map(float).collect()),
        "string" => return strings(elements.iter().map(|x| x.as_str().expect("a text"))),
        "bool" => Array::Bool(elements.iter().map(|x| x.as_bool().expect("a bool")).collect()),
        other => panic!("arrays of {other}"),
    })
}

fn single(kind: &str, content: &Json) -> Value {
    let integer = || content.as_i64().expect("an integer");
    match kind {
        "uint32" => Value::U32(integer() as u32),
        "int32" => Value::I32(integer() as i32),
        "uint64" => Value::U64(integer() as u64),
        "float32" => Value::F32(float(content)),
        "bool" => Value::Bool(content.as_bool().expect("a bool")),
        "string" => Value::Str(content.as_str().expect("a text").to_owned()),
        other => panic!("values of {other}"),
    }
}

/// A number, or `inf` and `-inf` as texts.
fn float(content: &Json) -> f32 {
    match content.as_str() {
        Some(text) => text.parse().expect("an infinity"),
        None => content.as_f64().expect("a number") as f32,
    }
}
