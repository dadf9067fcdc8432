//! Model files that are good GGUF and bad models: a tensor missing, of another shape or type, metadata absent
//! or absurd; `bad_data` has data that cannot be read. Each load ends in a named error, without a panic and within a bound
//! on memory. Every case is one change to a small model that loads (`tests/goldens/gguf`).

use std::sync::Arc;

use crate::common::gguf_writer::{F32, Writer, string, strings};
use crate::common::golden_path;
use smallmind::format::gguf::{Array, Gguf, Value};
use smallmind::format::{ByteSource, BytesSource};
use smallmind::model::{LoadParams, Model};
use smallmind::profile::alloc::total_counts;
use smallmind::{Error, Result};

/// Most that all tests of this program may hold at once. A load holds the packed weights (some 200 KB), the
/// tokenizer, and a buffer of up to 1 MB a thread; tests run side by side. One reservation from a lie is more.
pub(crate) const MOST_HELD: u64 = 128 << 20;

/// A file taken apart: pairs and tensors that a test changes before it is put together again.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) pairs: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
}

#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) ty: u32,
    pub(crate) data: Vec<u8>,
}

impl Parts {
    /// The golden with an untied head and matrices of every type.
    pub(crate) fn mixed() -> Self {
        Self::of("untied-mixed.gguf")
    }

    pub(crate) fn of(golden: &str) -> Self {
        let folder = golden_path("gguf");
        let gguf = Gguf::open_path(folder.join(golden)).unwrap();
        let tensors = gguf.tensors().iter().map(|info| {
            let mut data = vec![0; info.bytes as usize];
            gguf.read_tensor(info, 0, &mut data).unwrap();
            Tensor { name: info.name.clone(), dims: info.shape().to_vec(), ty: info.ty.0, data }
        });
        let pairs = gguf.metadata().iter().map(|(key, value)| (key.to_owned(), value.clone()));
        Self { pairs: pairs.collect(), tensors: tensors.collect() }
    }

    /// Sets, replaces or (with `None`) removes a pair.
    pub(crate) fn with(mut self, key: &str, value: Option<Value>) -> Self {
        self.pairs.retain(|(k, _)| k != key);
        self.pairs.extend(value.map(|value| (key.to_owned(), value)));
        self
    }

    pub(crate) fn without_tensor(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// Changes one tensor; its data is cut or filled with zeros to `bytes`.
    fn with_tensor(mut self, name: &str, dims: &[u64], ty: u32, bytes: u64) -> Self {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
        tensor.dims = dims.to_vec();
        tensor.ty = ty;
        tensor.data.resize(bytes as usize, 0);
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let writer = self.pairs.iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value.clone()));
        let tensors = self.tensors.iter();
        tensors.fold(writer, |w, t| w.tensor(&t.name, &t.dims, t.ty, &t.data)).build()
    }
}

pub(crate) fn load_from(source: Arc<dyn ByteSource>) -> Result<Arc<Model>> {
    let loaded = Model::from_source(source, &LoadParams::default());
    let held = total_counts().peak_bytes;
    assert!(held <= MOST_HELD, "{held} bytes were held at once");
    loaded
}

pub(crate) fn load(parts: &Parts) -> Result<Arc<Model>> {
    load_from(Arc::new(BytesSource::new("bad.gguf", parts.build())))
}

/// The one-line message of the error that loading gives.
fn refusal(parts: &Parts) -> String {
    match load(parts) {
        Ok(_) => panic!("loaded"),
        Err(error @ (Error::Format(_) | Error::Unsupported(_))) => {
            let message = error.to_string();
            assert!(!message.contains('\n') && message.len() < 2000, "{message}");
            message
        }
        Err(error) => panic!("an error of another kind: {error}"),
    }
}

/// Fails unless loading is refused with a message that contains `named`.
pub(crate) fn assert_refused(parts: &Parts, named: &str) {
    let message = refusal(parts);
    assert!(message.contains(named), "{named:?} is not named in {message:?}");
}

#[test]
fn unchanged_files_load() {
    for golden in ["untied-mixed.gguf", "tied-rope-freqs.gguf", "untied-linear-rope.gguf"] {
        let parts = Parts::of(golden);
        let model = load(&parts).unwrap();
        assert_eq!(model.config().architecture, "llama");
        // The count that the other tests rely on sees what a model takes.
        assert!(model.weight_bytes() > 50_000 && total_counts().peak_bytes > model.weight_bytes() as u64);
    }
}

/// One file a family, or a trait that brings tensors of its own.
const FAMILIES: [(&str, &str); 3] =
    [("llama", "untied-mixed.gguf"), ("qwen2", "qwen2-quant.gguf"), ("qwen3", "qwen3-tied-quant.gguf")];

/// What stands before the tensor's name in a refusal: the family and the layer.
fn place(family: &str, tensor: &str) -> String {
    let layer = tensor.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
    layer.map_or(format!("{family}: "), |layer| format!("{family}, layer {layer}: "))
}

#[test]
fn every_tensor_missing() {
    for (family, golden) in FAMILIES {
        let whole = Parts::of(golden);
        load(&whole).unwrap();
        for Tensor { name, .. } in &whole.tensors {
            let parts = whole.clone().without_tensor(name);
            match name.as_str() {
                "output.weight" => {
                    load(&parts).expect("without a head of its own the embedding is the head");
                }
                // llama.cpp takes models of the family without them too.
                _ if family == "qwen2" && name.ends_with(".bias") => drop(load(&parts).unwrap()),
                // Every model has one: it is asked for before the family is known.
                "token_embd.weight" => assert_refused(&parts, "tensor token_embd.weight is missing"),
                _ => assert_refused(&parts, &format!("{}tensor {name} is missing", place(family, name))),
            }
        }
    }
}

/// What Llama lacks, biases of queries, keys and values and norms of heads, has the length of what it is for: a norm
/// of all heads at once is another thing.
#[test]
fn biases_and_norms_of_the_qwens() {
    for (family, golden, names) in [
        ("qwen2", "qwen2-quant.gguf", &["attn_q.bias", "attn_k.bias", "attn_v.bias"][..]),
        ("qwen3", "qwen3-tied-quant.gguf", &["attn_q_norm.weight", "attn_k_norm.weight"]),
    ] {
        let whole = Parts::of(golden);
        for name in names.iter().flat_map(|name| [0, 1].map(|layer| format!("blk.{layer}.{name}"))) {
            let len = whole.tensors.iter().find(|tensor| tensor.name == name).unwrap().dims[0];
            for dims in [vec![len - 1], vec![len + 1], vec![2 * len], vec![len, 2], vec![1], vec![]] {
                let parts = whole.clone().with_tensor(&name, &dims, F32, 4 * dims.iter().product::<u64>());
                assert_refused(&parts, &format!("{}tensor {name}", place(family, &name)));
            }
        }
    }
}

fn tensors_of_families() -> impl Iterator<Item = (&'static str, Tensor)> {
    FAMILIES
        .into_iter()
        .flat_map(|(_, golden)| Parts::of(golden).tensors.into_iter().map(move |t| (golden, t)))
}

#[test]
fn every_tensor_of_another_shape() {
    for (golden, Tensor { name, dims, .. }) in tensors_of_families() {
        let (k, n) = (dims[0], dims.get(1).copied().unwrap_or(1));
        let others = [
            vec![k],
            vec![n, k],
            vec![k, n + 1],
            vec![k, n.saturating_sub(1).max(1)],
            vec![k + 32, n],
            vec![k, n, 2],
            vec![k, n, 1, 2],
            vec![1],
            vec![],
        ];
        // A vector is a matrix of one row, and a square one turned round is itself.
        for other in others.into_iter().filter(|other| *other != [k, n] && *other != dims) {
            let bytes = other.iter().product::<u64>() * 4;
            let parts = Parts::of(golden).with_tensor(&name, &other, F32, bytes);
            let message = refusal(&parts);
            // The embedding's rows are the vocabulary: a change of them is seen wherever they meet.
            assert!(message.contains(&name) || name == "token_embd.weight", "{name} {other:?}: {message}");
        }
    }
}

#[test]
fn every_tensor_of_a_type_that_cannot_be_loaded() {
    for Tensor { name, dims, .. } in Parts::mixed().tensors {
        let elements: u64 = dims.iter().product();
        for (ty, bytes, called) in
            [(24, elements, "I8"), (28, 8 * elements, "F64"), (77, elements, "unknown (77)")]
        {
            let parts = Parts::mixed().with_tensor(&name, &dims, ty, bytes);
            let message = refusal(&parts);
            assert!(message.starts_with("not supported: "), "{message}");
            assert!(message.contains(&name) && message.contains(called), "{message}");
        }
    }
}

#[test]
fn every_tensor_of_every_other_type_loads_or_is_named() {
    for Tensor { name, dims, .. } in Parts::mixed().tensors {
        let elements: u64 = dims.iter().product();
        let blocks = elements / 32;
        let types =
            [(0, 4 * elements), (1, 2 * elements), (30, 2 * elements), (2, 18 * blocks), (3, 20 * blocks)];
        for (ty, bytes) in types.into_iter().chain([(6, 22 * blocks), (7, 24 * blocks), (8, 34 * blocks)]) {
            if let Err(error) = load(&Parts::mixed().with_tensor(&name, &dims, ty, bytes)) {
                assert!(error.to_string().contains(&name), "{error}");
            }
        }
    }
}

const REQUIRED: [&str; 5] = [
    "llama.embedding_length",
    "llama.attention.head_count",
    "llama.block_count",
    "llama.feed_forward_length",
    "llama.context_length",
];

#[test]
fn metadata_missing() {
    for key in REQUIRED {
        assert_refused(&Parts::mixed().with(key, None), key);
    }
    let nothing = Parts { pairs: Vec::new(), ..Parts::mixed() };
    refusal(&nothing);
    refusal(&Parts { tensors: Vec::new(), ..Parts::mixed() });
    refusal(&Parts { tensors: Vec::new(), ..nothing });
    for architecture in ["", "llamas", "gpt3", "llama\n"] {
        let parts = Parts::mixed().with("general.architecture", Some(string(architecture)));
        assert!(refusal(&parts).starts_with("not supported: "));
    }
    refusal(&Parts::mixed().with("general.architecture", None));
    refusal(&Parts::mixed().with("general.architecture", Some(Value::U32(1))));
}

#[test]
fn absurd_integers() {
    let optional =
        ["llama.attention.head_count_kv", "llama.rope.dimension_count", "llama.attention.key_length"];
    let absurd = [
        Value::U32(0),
        Value::U32(u32::MAX),
        Value::I32(-1),
        Value::I32(i32::MIN),
        Value::U64(u64::MAX),
        Value::U64(1 << 32),
        Value::F32(8.0),
        Value::F32(f32::NAN),
        Value::Bool(true),
        string("8"),
        Value::Array(Array::U32(vec![8])),
        Value::Array(Array::Str(Default::default())),
    ];
    for key in REQUIRED.into_iter().chain(optional) {
        for value in &absurd {
            assert_refused(&Parts::mixed().with(key, Some(value.clone())), key);
        }
    }
}

#[test]
fn numbers_that_contradict_each_other_or_the_tensors() {
    let file = |key: &str, value: u32| Parts::mixed().with(&format!("llama.{key}"), Some(Value::U32(value)));
    // 4 query heads and 2 key heads of 16 dimensions, 64 wide, 96 inside the MLP, 2 layers.
    for (key, values) in [
        ("attention.head_count", &[1, 2, 3, 5, 6, 8, 63, 64, 1 << 20][..]),
        ("attention.head_count_kv", &[1, 3, 4, 5, 8, 1 << 20]),
        ("embedding_length", &[1, 32, 63, 65, 96, 128, 1 << 24]),
        ("feed_forward_length", &[1, 95, 97, 1 << 24]),
        ("block_count", &[3, 4096, 1 << 20]),
        ("attention.key_length", &[1, 8, 15, 17, 32, 1024, 1025, 1 << 24]),
        ("attention.value_length", &[1, 8, 15, 17, 32, 1024, 1 << 24]),
        ("rope.dimension_count", &[1, 3, 15, 17, 18, 64]),
        ("context_length", &[1 << 31]),
    ] {
        for &value in values {
            refusal(&file(key, value));
        }
    }
    // What is allowed, or else the list above proves nothing.
    for (key, value) in [("attention.head_count", 4), ("rope.dimension_count", 8), ("context_length", 7)] {
        load(&file(key, value)).unwrap();
    }
    // The second block's tensors, which nothing reads then.
    assert_refused(&file("block_count", 1), "\"blk.1.attn_norm.weight\", \"blk.1.attn_q.weight\"");
}

/// What may differ from layer to layer may be one number or a list with one for each.
#[test]
fn numbers_for_each_layer() {
    let keys = [("attention.head_count", 4), ("attention.head_count_kv", 2), ("feed_forward_length", 96)];
    for (key, value) in keys.map(|(key, value)| (format!("llama.{key}"), value)) {
        let listed = |list: Array| Parts::mixed().with(&key, Some(Value::Array(list)));
        let same = load(&listed(Array::U32(vec![value; 2]))).unwrap();
        assert!(*same.config() == *load(&Parts::mixed()).unwrap().config(), "{key}");
        load(&listed(Array::I32(vec![value as i32; 2]))).unwrap();
        for wrong in [vec![], vec![value], vec![value; 3], vec![value, 0], vec![0, value]] {
            assert_refused(&listed(Array::U32(wrong)), &key);
        }
        // The second layer's tensors have the shapes of the first one's.
        let other = refusal(&listed(Array::U32(vec![value, 2 * value])));
        assert!(other.contains("layer 1") || other.contains("heads"), "{other}");
    }
}

#[test]
fn absurd_floats() {
    for key in ["llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"] {
        // llama.cpp computes with an epsilon of 0, and so some files have it.
        let zeros: &[f32] = if key.ends_with("epsilon") { &[] } else { &[0.0, -0.0] };
        for &value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0].iter().chain(zeros) {
            assert_refused(&Parts::mixed().with(key, Some(Value::F32(value))), key);
        }
        for value in [Value::F64(1e300), Value::U32(1), string("NaN")] {
            assert_refused(&Parts::mixed().with(key, Some(value)), key);
        }
    }
    let scaled = |kind: &str, factor: f32| {
        Parts::mixed()
            .with("llama.rope.scaling.type", Some(string(kind)))
            .with("llama.rope.scaling.factor", Some(Value::F32(factor)))
    };
    load(&scaled("linear", 2.0)).unwrap();
    for factor in [f32::NAN, f32::INFINITY, -4.0] {
        assert_refused(&scaled("linear", factor), "llama.rope.scaling.factor");
    }
    // Not set, as llama.cpp writes it.
    for factor in [0.0, -1.0] {
        load(&scaled("linear", factor)).unwrap();
    }
    assert_refused(&scaled("cubic", 2.0), "cubic");
    load(&scaled("yarn", 4.0)).unwrap();
    for key in ["yarn_ext_factor", "yarn_beta_fast", "yarn_beta_slow", "attn_factor"] {
        let key = format!("llama.rope.scaling.{key}");
        for value in [f32::NAN, f32::INFINITY, -2.0] {
            assert_refused(&scaled("yarn", 4.0).with(&key, Some(Value::F32(value))), &key);
        }
        for value in [0.0, -1.0] {
            let parts = scaled("yarn", 4.0).with(&key, Some(Value::F32(value)));
            assert_eq!(load(&parts).is_ok(), !key.ends_with("attn_factor"), "{key} = {value}");
        }
    }
    // A factor on queries and keys, which llama.cpp multiplies whatever the scaling.
    let key = "llama.rope.scaling.attn_factor";
    load(&scaled("linear", 4.0).with(key, Some(Value::F32(0.5)))).unwrap();
    assert_refused(&scaled("linear", 4.0).with(key, Some(Value::F32(-0.5))), key);
    let key = "llama.rope.scaling.original_context_length";
    load(&scaled("yarn", 4.0).with(key, Some(Value::U32(0)))).unwrap();
}

#[test]
fn frequency_factors() {
    let parts = Parts::of("tied-rope-freqs.gguf");
    let factors = parts.tensors.iter().find(|t| t.name == "rope_freqs.weight").unwrap().clone();
    let len = factors.dims[0];
    for dims in [vec![len + 1], vec![len - 1], vec![len, 2], vec![]] {
        let bytes = dims.iter().product::<u64>() * 4;
        assert_refused(
            &parts.clone().with_tensor("rope_freqs.weight", &dims, F32, bytes),
            "rope_freqs.weight",
        );
    }
    // A type of unknown size: nothing is reserved for its bytes.
    assert_refused(&parts.clone().with_tensor("rope_freqs.weight", &[len], 77, 64), "of type unknown (77)");
    for bad in [f32::NAN, f32::INFINITY, 0.0, -0.0] {
        let mut parts = parts.clone();
        let tensor = parts.tensors.iter_mut().find(|t| t.name == "rope_freqs.weight").unwrap();
        tensor.data[4..8].copy_from_slice(&bad.to_le_bytes());
        assert_refused(&parts, "rope_freqs.weight");
    }
}

/// A vocabulary that contradicts the file is refused at once; one that cannot be used leaves a model without a
/// tokenizer, which says why when it is asked for.
#[test]
fn vocabularies() {
    let file = |key: &str, value: Option<Value>| Parts::mixed().with(&format!("tokenizer.ggml.{key}"), value);
    for tokens in
        [strings([]), strings(["a"]), strings(["a", "a"]), Value::U8(1), Value::Array(Array::U8(vec![1]))]
    {
        let parts = file("tokens", Some(tokens));
        assert!(load(&parts).is_err_and(|e| matches!(e, Error::Format(_))) || unusable(&parts));
    }
    for (key, value) in [
        ("tokens", None),
        ("model", None),
        ("model", Some(string("llama"))),
        ("model", Some(Value::U8(0))),
        ("pre", Some(string("no such rules"))),
        ("pre", Some(Value::Bool(true))),
        ("merges", Some(strings(["no_space"]))),
        ("merges", Some(strings(["no such"]))),
        ("merges", Some(strings([" "]))),
        ("merges", Some(Value::Array(Array::I32(vec![1])))),
        ("token_type", Some(Value::Array(Array::I32(vec![1])))),
        ("token_type", Some(Value::Array(Array::F32(vec![1.0])))),
        ("bos_token_id", Some(Value::U32(288))),
        ("eos_token_id", Some(Value::U32(u32::MAX))),
        ("eos_token_id", Some(Value::I32(-1))),
        ("bos_token_id", None),
        ("add_bos_token", Some(Value::U8(1))),
    ] {
        let called = format!("{key}: {}", value.as_ref().map_or("absent".into(), Value::to_string));
        let parts = file(key, value);
        assert!(load(&parts).is_err() || unusable(&parts), "{called}");
    }
}

/// The error that waits until the tokenizer or the template is asked for is of the kind that building them gave.
#[test]
fn errors_of_vocabulary_and_template_keep_their_kind() {
    let file = |key: &str, value: Value| load(&Parts::mixed().with(key, Some(value))).unwrap();
    for (key, value, called) in [
        (
            "tokenizer.ggml.merges",
            strings(["no_space"]),
            "bad file: bad.gguf: no tokenizer: merge 0 is no pair",
        ),
        ("tokenizer.ggml.pre", Value::Bool(true), "bad file: bad.gguf: no tokenizer: metadata key"),
        (
            "tokenizer.ggml.pre",
            string("abc\x1b"),
            "not supported: bad.gguf: no tokenizer: pre-tokenizer \"abc\\x1b\" (tokenizer.ggml.pre)",
        ),
        ("tokenizer.ggml.model", string("rwkv"), "not supported: bad.gguf: no tokenizer: tokenizer \"rwkv\""),
        (
            "tokenizer.ggml.model",
            string("no_vocab"),
            "not supported: bad.gguf: no tokenizer: the file has no vocabulary",
        ),
    ] {
        let error = file(key, value).tokenizer().unwrap_err().to_string();
        assert!(error.starts_with(called), "{error}");
    }
    for (value, called) in [
        (string("{% if %}"), "bad file: bad.gguf: chat template (line 1)"),
        (Value::U8(1), "bad file: bad.gguf: metadata key"),
    ] {
        let error = file("tokenizer.chat_template", value).chat_template().unwrap_err().to_string();
        assert!(error.starts_with(called), "{error}");
    }
}

/// Text from the file neither breaks the line of a message nor makes it long.
#[test]
fn rude_texts() {
    let rude = "\n\u{1b}[31m".repeat(1000);
    assert_refused(&Parts::mixed().with("general.architecture", Some(string(&rude))), "architecture");
    let scaled = Parts::mixed().with("llama.rope.scaling.type", Some(string(&rude)));
    assert_refused(&scaled, "llama.rope.scaling.type");
    let merge = format!("{rude} {rude}");
    for (key, value) in [
        ("model", string(&rude)),
        ("pre", string(&rude)),
        ("merges", strings([rude.as_str()])),
        ("merges", strings([merge.as_str()])),
        ("merges", strings([merge.as_str(), merge.as_str()])),
        ("merges", string(&rude)),
    ] {
        let parts = Parts::mixed().with(&format!("tokenizer.ggml.{key}"), Some(value));
        let message = match load(&parts) {
            Ok(model) => model.tokenizer().err().unwrap().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(!message.contains(['\n', '\u{1b}']) && message.len() < 2000, "{message}");
    }
}

fn unusable(parts: &Parts) -> bool {
    load(parts).unwrap().tokenizer().is_err()
}
