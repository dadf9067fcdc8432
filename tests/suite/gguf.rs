//! GGUF reading: what is written comes back, from every kind of source and in both versions;
//! getters convert what they can and say what is wrong with the rest.

use std::io::Write;
use std::sync::Arc;

use crate::common::gguf_writer::{
    F32, Q4_1, Q8_0, Writer, every_value, every_value_file, f32_bytes, string, strings,
};
use proptest::prelude::*;
use smallmind::Error;
use smallmind::format::gguf::{Array, Gguf, Metadata, TensorType, Value};
use smallmind::format::{ByteSource, BytesSource, FileSource, MapSource, describe};
use smallmind::quant::{DType, decode_row};

fn open(bytes: Vec<u8>) -> smallmind::Result<Gguf> {
    Gguf::open(Arc::new(BytesSource::new("test.gguf", bytes)))
}

fn check_every_value_file(gguf: &Gguf, version: u32) {
    assert_eq!(gguf.version(), version);
    let pairs: Vec<(&str, Value)> = gguf.metadata().iter().map(|(k, v)| (k, v.clone())).collect();
    assert_eq!(pairs, every_value());
    for (key, value) in every_value() {
        assert_eq!(gguf.metadata().get(key), Some(&value), "{key}");
    }
    assert_eq!(gguf.metadata().get("absent"), None);

    let names: Vec<&str> = gguf.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["norm", "weight", "scalar"]);
    let weight = gguf.tensor("weight").unwrap();
    assert_eq!(
        (weight.shape(), weight.row_len(), weight.rows(), weight.elements()),
        (&[64, 3][..], 64, 3, 192)
    );
    assert_eq!((weight.dtype().unwrap(), weight.bytes), (DType::Q4_1, 120));
    assert_eq!(weight.offset, gguf.data_offset() + 32);
    let scalar = gguf.tensor("scalar").unwrap();
    assert_eq!((scalar.shape(), scalar.elements(), scalar.bytes), (&[][..], 1, 4));
    assert!(gguf.tensor("bias").is_none());

    let mut row = [0; 40];
    gguf.read_tensor(weight, 80, &mut row).unwrap();
    assert_eq!(row.to_vec(), (80..120).collect::<Vec<u8>>());
    let past = gguf.read_tensor(weight, 81, &mut row).unwrap_err();
    assert_eq!(past.to_string(), "tensor \"weight\": 40 bytes at 81 are past its end, which is at 120");
    assert!(gguf.read_tensor(weight, u64::MAX, &mut row).is_err());
    gguf.read_tensor(weight, 120, &mut []).unwrap();
}

#[test]
fn what_is_written_comes_back_from_every_source_in_both_versions() {
    for version in [2, 3] {
        let bytes = every_value_file().version(version).build();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        check_every_value_file(&Gguf::open_path(file.path()).unwrap(), version);
        // SAFETY: the file is this test's own and stays as it is.
        let map = unsafe { MapSource::open(file.path()) }.unwrap();
        check_every_value_file(&Gguf::open(Arc::new(map)).unwrap(), version);
        check_every_value_file(&open(bytes).unwrap(), version);
    }
}

#[test]
fn a_header_longer_than_the_buffer_is_read_whole() {
    let tokens: Vec<String> = (0..30_000).map(|i| format!("token {i}")).collect();
    let scores: Vec<f32> = (0..50_000).map(|i| i as f32).collect();
    let long = "x".repeat(200_000);
    let writer = Writer::new()
        .pair("odd", Value::U8(1))
        .pair("tokens", strings(tokens.iter().map(String::as_str)))
        .pair("scores", Value::Array(Array::F32(scores.clone())))
        .pair("long", string(&long))
        .pair("last", Value::U16(513));
    let gguf = open(writer.build()).unwrap();
    let metadata = gguf.metadata();
    let read = metadata.require_str_array("tokens").unwrap();
    assert!(read.iter().eq(tokens.iter()));
    assert_eq!((read.len(), read.get(29_999), read.get(30_000)), (30_000, Some("token 29999"), None));
    assert_eq!(metadata.get_f32_array("scores").unwrap(), Some(&scores[..]));
    assert_eq!(metadata.require_str("long").unwrap(), long);
    assert_eq!(metadata.require_u32("last").unwrap(), 513);
}

#[test]
fn alignment_moves_the_data() {
    for alignment in [8, 32, 64, 4096] {
        let writer = Writer::new()
            .alignment(alignment)
            .pair("general.alignment", Value::U32(alignment as u32))
            .tensor("a", &[1], F32, &f32_bytes(&[1.5]))
            .tensor("b", &[1], F32, &f32_bytes(&[2.5]));
        let gguf = open(writer.build()).unwrap();
        assert_eq!(gguf.alignment(), alignment as u64);
        assert_eq!(gguf.data_offset() % alignment as u64, 0);
        let b = gguf.tensor("b").unwrap();
        assert_eq!(b.offset, gguf.data_offset() + alignment as u64);
        let mut value = [0; 4];
        gguf.read_tensor(b, 0, &mut value).unwrap();
        assert_eq!(f32::from_le_bytes(value), 2.5);
    }
}

#[test]
fn a_file_of_metadata_alone_needs_no_padding() {
    let writer = Writer::new().pair("tokenizer.ggml.model", string("gpt2"));
    let bytes = writer.build();
    let gguf = open(bytes[..writer.header_len()].to_vec()).unwrap();
    assert!(gguf.tensors().is_empty());
    assert_eq!(gguf.metadata().len(), 1);
}

#[test]
fn getters_convert_without_loss_or_name_the_key() {
    let mut m = Metadata::new();
    for (key, value) in every_value() {
        m.insert(key.to_owned(), value).unwrap();
    }
    assert_eq!(m.get_u32("u8").unwrap(), Some(200));
    assert_eq!(m.get_u32("u16").unwrap(), Some(60_000));
    assert_eq!(m.get_u32("u32").unwrap(), Some(4_000_000_000));
    assert_eq!(m.get_u64("u64").unwrap(), Some(u64::MAX));
    assert_eq!(m.get_u32("absent").unwrap(), None);
    assert_eq!(m.get_f32("f32").unwrap(), Some(-0.1));
    assert_eq!(m.get_bool("bool").unwrap(), Some(true));
    assert_eq!(m.get_str("string").unwrap(), Some("naïve Σ\n"));
    assert_eq!(m.get_i32_array("i32s").unwrap().unwrap(), (-5..5).collect::<Vec<_>>());

    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    let cases = [
        (m.get_u32("i8").map(drop), "metadata key \"i8\" is -100 (i8); a u32 is needed"),
        (m.get_u32("u64").map(drop), "metadata key \"u64\" is 18446744073709551615 (u64); a u32 is needed"),
        (m.get_u32("f32").map(drop), "metadata key \"f32\" is -0.1 (f32); a u32 is needed"),
        (m.get_bool("u8").map(drop), "metadata key \"u8\" is 200 (u8); a truth value is needed"),
        (m.get_str("bool").map(drop), "metadata key \"bool\" is true; a string is needed"),
        (
            m.get_i32_array("u32s").map(drop),
            "metadata key \"u32s\" is an array of 1 u32; an array of i32 is needed",
        ),
        (
            m.get_f32_array("string").map(drop),
            "metadata key \"string\" is the string \"naïve Σ\\n\"; an array of f32 is needed",
        ),
        (m.require_u32("a.b").map(drop), "metadata key \"a.b\" is missing"),
        (m.require_f32("a.b").map(drop), "metadata key \"a.b\" is missing"),
        (m.require_str("a.b").map(drop), "metadata key \"a.b\" is missing"),
        (m.require_str_array("a.b").map(drop), "metadata key \"a.b\" is missing"),
        (m.insert("u8".into(), Value::U8(1)), "metadata key \"u8\" appears twice"),
        (m.insert(String::new(), Value::U8(1)), "a metadata key is empty"),
    ];
    for (result, expected) in cases {
        assert_eq!(message(result), format!("bad file: {expected}"));
    }
    // A finite f64 too large for f32 is an error, not an infinity.
    assert!(m.get_f32("f64").is_err());
}

#[test]
fn a_type_that_cannot_be_loaded_is_listed_and_named() {
    let writer = Writer::new()
        .tensor("k", &[256], 15, &[0; 292])
        .tensor("strange", &[5], 77, &[0; 50])
        .tensor("w", &[32], Q8_0, &[0; 34]);
    let gguf = open(writer.build()).unwrap();
    let (k, strange) = (gguf.tensor("k").unwrap(), gguf.tensor("strange").unwrap());
    assert_eq!((k.ty, k.bytes, k.ty.to_string()), (TensorType(15), 292, "Q8_K".to_owned()));
    // Up to the next tensor: 50 bytes padded to 64.
    assert_eq!(
        (strange.ty, strange.bytes, strange.ty.to_string()),
        (TensorType(77), 64, "unknown (77)".to_owned())
    );
    assert_eq!(k.dtype().unwrap_err().to_string(), "not supported: tensor \"k\" is of type Q8_K");
    assert_eq!(
        strange.dtype().unwrap_err().to_string(),
        "not supported: tensor \"strange\" is of type unknown (77)"
    );
}

#[test]
fn every_type_is_sized_named_and_decoded_and_refuses_broken_rows() {
    for dtype in DType::ALL {
        let (len, bytes) = (dtype.block_len(), dtype.block_bytes());
        let data: Vec<u8> = (0..6 * bytes).map(|i| (i * i) as u8).collect();
        let dims = [2 * len as u64, 3];
        let gguf = open(Writer::new().tensor("w", &dims, dtype.gguf_id(), &data).build()).unwrap();
        let w = gguf.tensor("w").unwrap();
        assert_eq!((w.ty.to_string(), w.dtype().unwrap()), (dtype.name().to_owned(), dtype));
        assert_eq!((w.bytes, w.elements()), (6 * bytes as u64, 6 * len as u64));
        let share = describe(&gguf).types[0];
        assert_eq!((share.ty, share.bytes), (TensorType(dtype.gguf_id()), 6 * bytes as u64));
        let (mut row, mut values) = (vec![0; 2 * bytes], vec![f32::NAN; 2 * len]);
        gguf.read_tensor(w, 4 * bytes as u64, &mut row).unwrap();
        assert_eq!(row, data[4 * bytes..]);
        decode_row(dtype, &row, &mut values).unwrap();

        let broken = [2 * len as u64 + len.min(2) as u64 / 2, 3];
        if len > 1 {
            let writer = Writer::new().tensor("w.e", &broken, dtype.gguf_id(), &data);
            assert_eq!(
                open(writer.build()).unwrap_err().to_string(),
                format!(
                    "bad file: test.gguf: tensor \"w.e\": rows of {} elements are no whole number of {} blocks, \
                     which have {len}",
                    broken[0],
                    dtype.name()
                )
            );
        }
    }
}

#[test]
fn a_total_beyond_u64_saturates() {
    let writer = Writer::new()
        .tensor("a", &[u64::MAX / 2], 77, &[0; 32])
        .tensor("b", &[u64::MAX], 77, &[0; 32])
        .tensor("c", &[1], F32, &[0; 4]);
    let gguf = open(writer.build()).unwrap();
    assert_eq!(gguf.parameters(), u64::MAX);
    let shares: Vec<_> = describe(&gguf).types.iter().map(|t| (t.tensors, t.elements, t.bytes)).collect();
    assert_eq!(shares, [(2, u64::MAX, 64), (1, 1, 4)]);
}

#[test]
fn sources_refuse_to_read_past_their_end() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"0123456789").unwrap();
    let path = file.path().display().to_string();
    // SAFETY: the file is this test's own and stays as it is.
    let map = unsafe { MapSource::open(file.path()) }.unwrap();
    let sources: [(&dyn ByteSource, &str); 3] = [
        (&FileSource::open(file.path()).unwrap(), &path),
        (&map, &path),
        (&BytesSource::new("memory", &b"0123456789"[..]), "memory"),
    ];
    for (source, name) in sources {
        let mut buf = [0; 4];
        source.read_at(6, &mut buf).unwrap();
        assert_eq!((&buf, source.len(), source.name()), (b"6789", 10, name));
        source.read_at(10, &mut []).unwrap();
        for offset in [7, 10, 11, u64::MAX - 3, u64::MAX] {
            let error = source.read_at(offset, &mut buf).unwrap_err();
            assert!(matches!(error, Error::Format(_)));
            assert_eq!(
                error.to_string(),
                format!("bad file: {name}: 4 bytes at {offset} are past the end, which is at 10")
            );
        }
    }
}

#[test]
fn a_file_that_shrinks_is_an_error() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let writer = every_value_file();
    file.write_all(&writer.build()).unwrap();
    let gguf = Gguf::open_path(file.path()).unwrap();
    file.as_file().set_len(gguf.data_offset() + 40).unwrap();
    let error = gguf.read_tensor(gguf.tensor("weight").unwrap(), 0, &mut [0; 120]).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    assert!(error.to_string().contains("when opened"), "{error}");
    let mut norm = [0; 12];
    gguf.read_tensor(gguf.tensor("norm").unwrap(), 0, &mut norm).unwrap();
    assert_eq!(norm.to_vec(), f32_bytes(&[1.0, 2.0, 3.0]));
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.gguf");
    assert!(matches!(FileSource::open(&missing), Err(Error::Io { path, .. }) if path == missing));
    assert!(matches!(FileSource::open(folder.path()), Err(Error::InvalidArgument(_))));
    // SAFETY: nothing is mapped.
    assert!(matches!(unsafe { MapSource::open(folder.path()) }, Err(Error::InvalidArgument(_))));
    #[cfg(target_os = "linux")]
    assert!(matches!(FileSource::open("/dev/zero"), Err(Error::InvalidArgument(_))));
}

#[test]
fn threads_read_one_file_at_once() {
    let data: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&data).unwrap();
    let source = FileSource::open(file.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (source, data) = (&source, &data);
            scope.spawn(move || {
                let mut buf = vec![0; 4099];
                for chunk in (thread..250).step_by(4).map(|i| i * 4099) {
                    source.read_at(chunk as u64, &mut buf).unwrap();
                    assert_eq!(buf, data[chunk..chunk + 4099]);
                }
            });
        }
    });
}

#[test]
fn a_description_states_generic_facts() {
    let writer = Writer::new()
        .pair("general.architecture", string("llama"))
        .pair("general.name", string("Tiny"))
        .pair("llama.context_length", Value::U32(2048))
        .pair("llama.block_count", string("of the wrong type"))
        .pair("tokenizer.ggml.model", string("gpt2"))
        .pair("tokenizer.ggml.pre", string("smollm"))
        .pair("tokenizer.ggml.tokens", strings(["a", "b", "c"]))
        .tensor("norm", &[3], F32, &f32_bytes(&[1.0; 3]))
        .tensor("w", &[64, 3], Q4_1, &[0; 120])
        .tensor("v", &[32, 2], Q4_1, &[0; 40]);
    let d = describe(&open(writer.build()).unwrap());
    assert_eq!(d.architecture.as_deref(), Some("llama"));
    assert_eq!(d.name.as_deref(), Some("Tiny"));
    assert_eq!((d.context_length, d.block_count, d.embedding_length), (Some(2048), None, None));
    assert_eq!(d.tokenizer.as_deref(), Some("gpt2 (smollm)"));
    assert_eq!((d.vocabulary, d.chat_template, d.tensors), (Some(3), false, 3));
    assert_eq!(d.parameters, 3 + 192 + 64);
    let types: Vec<_> = d.types.iter().map(|t| (t.ty.to_string(), t.tensors, t.elements, t.bytes)).collect();
    assert_eq!(types, [("Q4_1".to_owned(), 2, 256, 160), ("F32".to_owned(), 1, 3, 12)]);
}

/// Any value, arrays nested up to the limit.
fn any_value() -> impl Strategy<Value = Value> {
    let texts =
        proptest::collection::vec(".{0,8}", 0..6).prop_map(|texts| strings(texts.iter().map(String::as_str)));
    let array = prop_oneof![
        any::<Vec<u8>>().prop_map(Array::U8),
        any::<Vec<i16>>().prop_map(Array::I16),
        any::<Vec<u64>>().prop_map(Array::U64),
        proptest::collection::vec(-1e30f32..1e30, 0..20).prop_map(Array::F32),
        any::<Vec<bool>>().prop_map(Array::Bool),
    ];
    let nested =
        array.prop_recursive(2, 20, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Array::Array));
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i32>().prop_map(Value::I32),
        any::<i64>().prop_map(Value::I64),
        (-1e300f64..1e300).prop_map(Value::F64),
        ".{0,40}".prop_map(Value::Str),
        texts,
        nested.prop_map(Value::Array),
    ]
}

proptest! {
    #[test]
    fn any_metadata_and_shapes_come_back(
        pairs in proptest::collection::btree_map("[a-zé.]{1,12}", any_value(), 0..12),
        shapes in proptest::collection::vec(proptest::collection::vec(1u64..6, 0..=4), 0..8),
    ) {
        let mut writer = pairs.iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value.clone()));
        for (i, dims) in shapes.iter().enumerate() {
            let data = vec![i as u8; dims.iter().product::<u64>() as usize * 4];
            writer = writer.tensor(&format!("t{i}"), dims, F32, &data);
        }
        let gguf = open(writer.build()).unwrap();
        prop_assert!(gguf.metadata().iter().eq(pairs.iter().map(|(k, v)| (k.as_str(), v))));
        for (i, dims) in shapes.iter().enumerate() {
            let tensor = gguf.tensor(&format!("t{i}")).unwrap();
            prop_assert_eq!(tensor.shape(), &dims[..]);
            let mut data = vec![0; tensor.bytes as usize];
            gguf.read_tensor(tensor, 0, &mut data).unwrap();
            prop_assert!(data.iter().all(|&b| b == i as u8) && !data.is_empty());
        }
    }
}
