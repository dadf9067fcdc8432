//! GGUF files made by others: small ones by the format's own Python writer (`tests/goldens`), with every kind
//! of value and tensor, and a real model.

use crate::common::{golden, golden_path, model};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::common::gguf_writer::{F32, Writer};
use serde_json::{Value as Json, json};
use smallmind::format::gguf::{Array, Gguf, TensorType, Value};
use smallmind::format::{BytesSource, describe};
use smallmind::kv::CacheType;
use smallmind::model::{LoadParams, Model};
use smallmind::quant::{DType, decode_row};
use smallmind::runtime::{Context, ContextParams, Logits};

fn file(name: &str) -> PathBuf {
    golden_path("gguf").join(name)
}

/// A value as the goldens' JSON writes it: its type, or its innermost elements', and itself.
fn to_json(value: &Value) -> (&'static str, Json) {
    match value {
        Value::U8(x) => ("uint8", json!(x)),
        Value::I8(x) => ("int8", json!(x)),
        Value::U16(x) => ("uint16", json!(x)),
        Value::I16(x) => ("int16", json!(x)),
        Value::U32(x) => ("uint32", json!(x)),
        Value::I32(x) => ("int32", json!(x)),
        Value::U64(x) => ("uint64", json!(x)),
        Value::I64(x) => ("int64", json!(x)),
        Value::F32(x) => ("float32", json!(x)),
        Value::F64(x) => ("float64", json!(x)),
        Value::Bool(x) => ("bool", json!(x)),
        Value::Str(s) => ("string", json!(s)),
        Value::Bytes(_) => unreachable!("all strings here are UTF-8"),
        Value::Array(a) => array_to_json(a),
    }
}

fn array_to_json(array: &Array) -> (&'static str, Json) {
    match array {
        Array::U8(a) => ("uint8", json!(a)),
        Array::I8(a) => ("int8", json!(a)),
        Array::U16(a) => ("uint16", json!(a)),
        Array::I16(a) => ("int16", json!(a)),
        Array::U32(a) => ("uint32", json!(a)),
        Array::I32(a) => ("int32", json!(a)),
        Array::U64(a) => ("uint64", json!(a)),
        Array::I64(a) => ("int64", json!(a)),
        Array::F32(a) => ("float32", json!(a)),
        Array::F64(a) => ("float64", json!(a)),
        Array::Bool(a) => ("bool", json!(a)),
        Array::Str(a) => ("string", json!(a.iter().collect::<Vec<_>>())),
        Array::Bytes(_) => unreachable!("all strings here are UTF-8"),
        Array::Array(a) => {
            let inner: Vec<_> = a.iter().map(array_to_json).collect();
            (inner[0].0, inner.into_iter().map(|(_, json)| json).collect())
        }
    }
}

fn read_whole(gguf: &Gguf, name: &str) -> Vec<u8> {
    let tensor = gguf.tensor(name).unwrap();
    let mut data = vec![0; tensor.bytes as usize];
    gguf.read_tensor(tensor, 0, &mut data).unwrap();
    data
}

#[test]
fn every_value_of_the_goldens() {
    let text = std::fs::read_to_string(file("metadata.json")).unwrap();
    let expected: Vec<Json> = serde_json::from_str(&text).unwrap();
    assert!(expected.len() >= 19);
    for (name, version) in [("metadata.gguf", 3), ("metadata-v2.gguf", 2)] {
        let gguf = Gguf::open_path(file(name)).unwrap();
        assert_eq!((gguf.version(), gguf.alignment()), (version, 64));
        let found: Vec<Json> = gguf
            .metadata()
            .iter()
            .filter(|(key, _)| key.starts_with("test."))
            .map(|(key, value)| {
                let ((ty, json), array) = (to_json(value), matches!(value, Value::Array(_)));
                json!({ "key": key, "type": ty, "array": array, "value": json })
            })
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn every_tensor_of_the_goldens() {
    for name in ["metadata.gguf", "metadata-v2.gguf"] {
        let gguf = Gguf::open_path(file(name)).unwrap();
        for n_dims in 1..=4u64 {
            let name = format!("ramp{n_dims}");
            // numpy's shape (2, 3, …) has its fastest-varying length last.
            let shape: Vec<u64> = (2..2 + n_dims).rev().collect();
            assert_eq!(gguf.tensor(&name).unwrap().shape(), shape);
            let expected: Vec<u8> =
                (0..shape.iter().product()).flat_map(|i: u64| (i as f32).to_le_bytes()).collect();
            assert_eq!(read_whole(&gguf, &name), expected);
        }
        assert_eq!(gguf.tensor("halves").unwrap().dtype().unwrap(), DType::F16);
        let halves = [0x3c00u16, 0xc000, 0x3800].map(u16::to_le_bytes);
        assert_eq!(read_whole(&gguf, "halves"), halves.concat());
        assert_eq!(gguf.tensor("bytes").unwrap().ty.name(), Some("I8"));
        assert_eq!(read_whole(&gguf, "bytes"), (-3i8..=3).map(|x| x as u8).collect::<Vec<_>>());
        assert_eq!(gguf.tensors().len(), 6);
    }
}

#[test]
fn a_golden_cut_anywhere_is_refused_or_intact() {
    let bytes = std::fs::read(file("metadata.gguf")).unwrap();
    let open = |bytes: &[u8]| Gguf::open(Arc::new(BytesSource::new("cut", bytes)));
    let whole = open(&bytes).unwrap();
    let end = whole.tensors().iter().map(|t| t.offset + t.bytes).max().unwrap();
    for len in 0..bytes.len() {
        let cut = open(&bytes[..len]);
        assert_eq!(cut.is_ok(), len as u64 >= end, "{len} bytes");
        if let Ok(cut) = cut {
            assert_eq!(cut.tensors(), whole.tensors());
        }
    }
}

#[test]
fn every_type_of_the_mixed_golden() {
    let gguf = Gguf::open_path(file("untied-mixed.gguf")).unwrap();
    let types: Vec<DType> = gguf.tensors().iter().map(|t| t.dtype().unwrap()).collect();
    let mut kinds = types.clone();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, DType::ALL[..8], "the floats and the types with blocks of 32");
    // The writer lays tensors end to end with padding below the alignment, so sizes must add up.
    for pair in gguf.tensors().windows(2) {
        assert_eq!((pair[0].offset + pair[0].bytes).next_multiple_of(gguf.alignment()), pair[1].offset);
    }
}

/// The file with every weight decoded to f32.
fn widened(gguf: &Gguf) -> Vec<u8> {
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer = writer.pair(key, value.clone());
    }
    for tensor in gguf.tensors() {
        let mut raw = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut raw).unwrap();
        let mut values = vec![0.0; tensor.elements() as usize];
        decode_row(tensor.dtype().unwrap(), &raw, &mut values).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        writer = writer.tensor(&tensor.name, tensor.shape(), F32, &bytes);
    }
    writer.build()
}

/// Weights of every type, decoded here, give the logits that llama.cpp gives on weights that it decoded.
#[test]
fn every_type_decodes_to_llama_cpps_weights() {
    let gguf = Gguf::open_path(file("untied-every-quant.gguf")).unwrap();
    let types: BTreeSet<DType> = gguf.tensors().iter().map(|t| t.dtype().unwrap()).collect();
    assert!(DType::ALL[8..].iter().all(|dtype| types.contains(dtype)), "{types:?}");

    let source = Arc::new(BytesSource::new("widened", widened(&gguf)));
    let model = Model::from_source(source, &LoadParams::default()).unwrap();
    let bytes = golden::read("gguf/untied-every-quant.logits.bin");
    let mut cursor = golden::Cursor::new(&bytes, b"SMLG");
    let (positions, vocabulary) = (cursor.size(), cursor.size());
    let tokens: Vec<u32> = (0..positions).map(|_| cursor.u32()).collect();
    let sizes = ContextParams::default().with_n_ctx(positions).with_n_output(positions);
    let params = sizes.with_kv(CacheType::F32);
    let mut context = Context::new(model, &params).unwrap();
    context.decode(&tokens, Logits::All).unwrap();
    assert_eq!(context.logits().len(), positions * vocabulary);
    let off = context.logits().iter().map(|x| (x - cursor.f32()).abs());
    let off = off.fold(0.0, f32::max);
    assert!(off < 1e-4, "{off}");
}

#[test]
fn a_real_model() {
    let gguf = Gguf::open_path(model::smollm2()).unwrap();
    let counts = gguf.tensors().iter().fold(BTreeMap::new(), |mut counts, tensor| {
        *counts.entry(tensor.dtype().unwrap()).or_insert(0) += 1;
        counts
    });
    assert_eq!(counts, BTreeMap::from([(DType::F32, 61), (DType::Q4_1, 210), (DType::Q8_0, 1)]));

    let description = describe(&gguf);
    assert_eq!(description.architecture.as_deref(), Some("llama"));
    assert_eq!(description.parameters, 134_515_008);
    assert_eq!(description.types[0].ty, TensorType(3));
    assert_eq!((description.context_length, description.block_count), (Some(8192), Some(30)));
    assert_eq!(description.embedding_length, Some(576));
    assert_eq!((description.vocabulary, description.chat_template), (Some(49_152), true));
    assert_eq!(description.tokenizer.as_deref(), Some("gpt2 (smollm)"));

    let embedding = gguf.tensor("token_embd.weight").unwrap();
    assert_eq!((embedding.shape(), embedding.bytes), (&[576, 49_152][..], 49_152 * 576 / 32 * 34));
    let end = gguf.tensors().iter().map(|t| t.offset + t.bytes).max().unwrap();
    assert_eq!(
        end.next_multiple_of(gguf.alignment()),
        gguf.source().len().next_multiple_of(gguf.alignment())
    );
    // As gguf's Python reader gives them.
    assert_eq!(embedding.offset, 1_785_664);
    assert_eq!(gguf.tensor("output_norm.weight").unwrap().offset, 98_360_128);
    let gains = read_whole(&gguf, "output_norm.weight");
    let gains: Vec<f32> = gains.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(gains[..4], [1.7578125, 1.8203125, 1.78125, 1.6015625]);
    // Values of 8 significant bits: the sum is exact in any order.
    assert_eq!(gains.iter().map(|&g| f64::from(g)).sum::<f64>(), 1038.33203125);
}
