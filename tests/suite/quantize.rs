//! Quantising a file: the new file has the same model in fewer bits, all its metadata, and errors as the types allow;
//! what can't be quantised is refused by the tensor's name.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::gguf_writer::{F32, Writer, every_value, f32_bytes, string, strings};
use smallmind::format::BytesSource;
use smallmind::format::gguf::{Gguf, Value};
use smallmind::model::quantize::{Importance, Mix, QuantizeParams, QuantizePlan, QuantizedTensor};
use smallmind::quant::decode_row;
use smallmind::{Error, Result};

/// Pseudo-random numbers between −1 and 1, rarely outside a half.
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..count).map(|_| next() * (next() * next()).abs().sqrt() * 4.0).collect()
}

const LAYERS: usize = 8;
const WIDTH: u64 = 256;

/// A file with the tensors of a Llama; nothing checks that they make a model.
fn writer() -> Writer {
    let mut writer = every_value().into_iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value));
    writer = writer
        .pair("general.architecture", string("llama"))
        .pair("general.file_type", Value::U32(0))
        .pair("llama.block_count", Value::U32(LAYERS as u32))
        .pair("llama.attention.head_count", Value::U32(4))
        .pair("llama.attention.head_count_kv", Value::U32(4))
        .pair("split.count", Value::U16(1))
        .pair("tokenizer.ggml.tokens", strings(["a", "b", "ü"]));
    let matrix = |w: Writer, name: &str, rows: u64, seed: u32| {
        w.tensor(name, &[WIDTH, rows], F32, &f32_bytes(&numbers(seed, (WIDTH * rows) as usize)))
    };
    writer = matrix(writer, "token_embd.weight", 3, 1);
    writer = matrix(writer, "output.weight", 3, 2);
    for i in 0..LAYERS {
        for (j, part) in ["attn_v", "attn_q", "attn_output", "ffn_up", "ffn_down"].into_iter().enumerate() {
            writer = matrix(writer, &format!("blk.{i}.{part}.weight"), 4, (10 * i + j) as u32);
        }
        writer = writer.tensor(&format!("blk.{i}.attn_norm.weight"), &[WIDTH], F32, &f32_bytes(&[1.0; 256]));
    }
    // Rows that no K-quant fits.
    writer.tensor("blk.0.odd.weight", &[32, 2], F32, &f32_bytes(&numbers(99, 64)))
}

fn open(bytes: Vec<u8>) -> Gguf {
    Gguf::open(Arc::new(BytesSource::new("test.gguf", bytes))).unwrap()
}

fn quantized(gguf: &Gguf, params: &QuantizeParams<'_>) -> Result<(Gguf, Vec<QuantizedTensor>)> {
    let plan = QuantizePlan::new(gguf, params)?;
    let mut bytes = Vec::new();
    let mut shares = Vec::new();
    let write = |more: &[u8]| {
        bytes.extend_from_slice(more);
        Ok(())
    };
    let lines = plan.run(write, |share| {
        shares.push(share);
        ControlFlow::Continue(())
    })?;
    assert_eq!(bytes.len() as u64, plan.file_len());
    assert!(shares.is_sorted() && shares.last() == Some(&1.0), "{shares:?}");
    Ok((open(bytes), lines))
}

fn mix(name: &str) -> Mix {
    Mix::named(name).unwrap()
}

/// The values of a tensor.
fn values(gguf: &Gguf, name: &str) -> Vec<f32> {
    let tensor = gguf.tensor(name).unwrap();
    let mut bytes = vec![0; tensor.bytes as usize];
    gguf.read_tensor(tensor, 0, &mut bytes).unwrap();
    let mut values = vec![0.0; tensor.elements() as usize];
    decode_row(tensor.dtype().unwrap(), &bytes, &mut values).unwrap();
    values
}

fn type_of(gguf: &Gguf, name: &str) -> String {
    gguf.tensor(name).unwrap().ty.to_string()
}

#[test]
fn a_mix_gives_each_tensor_its_type_and_error() {
    let original = open(writer().build());
    let (file, lines) = quantized(&original, &QuantizeParams::new(mix("Q4_K_M"))).unwrap();
    for (name, ty) in [
        ("token_embd.weight", "Q4_K"),
        ("output.weight", "Q6_K"),
        ("blk.0.attn_v.weight", "Q6_K"),
        ("blk.1.attn_v.weight", "Q4_K"),
        ("blk.7.ffn_down.weight", "Q6_K"),
        ("blk.4.ffn_up.weight", "Q4_K"),
        ("blk.0.attn_norm.weight", "F32"),
        ("blk.0.odd.weight", "Q5_0"),
    ] {
        assert_eq!(type_of(&file, name), ty, "{name}");
    }
    assert_eq!(lines.len(), original.tensors().len());
    for (line, tensor) in lines.iter().zip(original.tensors()) {
        let (before, after) = (values(&original, &tensor.name), values(&file, &tensor.name));
        let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
        let errors = squares(&mut before.iter().zip(&after).map(|(a, b)| f64::from(a - b)));
        let error = (errors / squares(&mut before.iter().map(|&x| x.into()))).sqrt();
        assert!((line.error - error).abs() <= 1e-6, "{}: {} not {error}", tensor.name, line.error);
        let bound = match line.to.to_string().as_str() {
            "F32" => 0.0,
            "Q6_K" => 0.02,
            _ => 0.09,
        };
        assert!(error <= bound, "{} as {}: {error}", tensor.name, line.to);
        assert_eq!((&line.name, line.bytes_from), (&tensor.name, tensor.bytes));
        assert_eq!(line.bytes_to, file.tensor(&tensor.name).unwrap().bytes);
    }
}

#[test]
fn metadata_are_kept() {
    let original = open(writer().build());
    let (file, _) = quantized(&original, &QuantizeParams::new(mix("Q8_0"))).unwrap();
    assert_eq!(file.metadata().get_u32("general.file_type").unwrap(), Some(7));
    assert_eq!(file.metadata().get_u32("general.quantization_version").unwrap(), Some(2));
    assert!(file.metadata().get("split.count").is_none());
    for (key, value) in original.metadata().iter() {
        if key != "general.file_type" && key != "split.count" {
            assert_eq!(file.metadata().get(key), Some(value), "{key}");
        }
    }
}

#[test]
fn one_type_for_all() {
    let original = open(writer().build());
    let (file, _) = quantized(&original, &QuantizeParams::new(mix("Q4_K_M")).with_pure(true)).unwrap();
    for name in ["output.weight", "blk.0.attn_v.weight", "blk.7.ffn_down.weight"] {
        assert_eq!(type_of(&file, name), "Q4_K");
    }
    let (half, lines) = quantized(&original, &QuantizeParams::new(mix("F16"))).unwrap();
    assert_eq!(type_of(&half, "blk.0.odd.weight"), "F16");
    assert!(lines.iter().all(|line| line.error < 1e-3));
    // What has the type already is copied, bit for bit.
    let (again, lines) = quantized(&half, &QuantizeParams::new(mix("F16"))).unwrap();
    assert!(lines.iter().all(|line| line.from == line.to && line.error == 0.0));
    assert_eq!(values(&again, "output.weight"), values(&half, "output.weight"));
}

#[test]
fn quantised_files_are_quantised_again_only_on_request() {
    let original = open(writer().build());
    let (eight, _) = quantized(&original, &QuantizeParams::new(mix("Q8_0"))).unwrap();
    let params = QuantizeParams::new(mix("Q4_0"));
    let error = quantized(&eight, &params).unwrap_err();
    assert!(
        matches!(&error, Error::Unsupported(text) if text.contains("is of type Q8_0 already")),
        "{error}"
    );
    let (four, _) = quantized(&eight, &params.with_requantize(true)).unwrap();
    assert_eq!(type_of(&four, "blk.0.attn_q.weight"), "Q4_0");
}

/// An importance matrix with these sums for a tensor.
fn importance(tensor: &str, sums: &[f32], count: f32) -> Result<Importance> {
    let file = Writer::new()
        .pair("general.type", string("imatrix"))
        .tensor(&format!("{tensor}.in_sum2"), &[sums.len() as u64, 1], F32, &f32_bytes(sums))
        .tensor(&format!("{tensor}.counts"), &[1, 1], F32, &f32_bytes(&[count]));
    Importance::read(&open(file.build()))
}

#[test]
fn important_weights_get_smaller_errors() {
    const NAME: &str = "blk.3.ffn_up.weight";
    let original = open(writer().build());
    // Every eighth column matters a hundred times as much.
    let sums: Vec<f32> = (0..WIDTH).map(|i| if i % 8 == 3 { 400.0 } else { 4.0 }).collect();
    let importance = importance(NAME, &sums, 4.0).unwrap();
    for name in
        ["Q2_K", "Q3_K_S", "Q4_K_S", "Q5_K_S", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS"]
    {
        let params = QuantizeParams::new(mix(name)).with_pure(true);
        let (plain, _) = quantized(&original, &params).unwrap();
        let (weighted, lines) = quantized(&original, &params.with_importance(&importance)).unwrap();
        let error = |file: &Gguf, columns: &dyn Fn(usize) -> bool| {
            let (before, after) = (values(&original, NAME), values(file, NAME));
            let errors = before.iter().zip(&after).enumerate().filter(|(i, _)| columns(i % WIDTH as usize));
            errors.map(|(_, (a, b))| f64::from(a - b).powi(2)).sum::<f64>()
        };
        let important = |i: usize| i % 8 == 3;
        let (before, after) = (error(&plain, &important), error(&weighted, &important));
        assert!(after < 0.9 * before, "{name}: {after} not below {before}");
        assert!(lines.iter().all(|line| line.weighted == (line.name == NAME)));
        assert_eq!(values(&plain, "output.weight"), values(&weighted, "output.weight"));
        assert_eq!(weighted.metadata().get_u32("quantize.imatrix.entries_count").unwrap(), Some(1));
    }
}

#[test]
fn importances_that_do_not_fit_are_refused() {
    let original = open(writer().build());
    let refused = |tensor: &str, sums: &[f32]| {
        let importance = importance(tensor, sums, 1.0)?;
        quantized(&original, &QuantizeParams::new(mix("Q4_0")).with_importance(&importance)).map(|_| ())
    };
    let message = refused("blk.0.attn_q.weight", &[1.0; 7]).unwrap_err().to_string();
    assert!(
        message.contains("\"blk.0.attn_q.weight\" needs 256 importances") && message.contains("has 7"),
        "{message}"
    );
    assert!(refused("token_embd.weight", &[1.0; 7]).is_ok(), "what is looked up has none");
    assert!(refused("of.no.tensor", &[1.0]).is_ok());
    assert!(refused("a", &[f32::NAN]).unwrap_err().to_string().contains("an importance is NaN"));
    assert!(refused("a", &[-1.0]).is_err());
    let lone = Writer::new().pair("general.type", string("imatrix")).tensor("a.in_sum2", &[1], F32, &[0; 4]);
    let error = Importance::read(&open(lone.build())).unwrap_err().to_string();
    assert!(error.contains("\"a.in_sum2\" has no counts"), "{error}");
    assert!(Importance::read(&original).unwrap_err().to_string().contains("no importance matrix"));
}

#[test]
fn values_that_are_not_finite_are_named() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = numbers(5, 512);
        values[300] = bad;
        let gguf = open(writer().tensor("bad.weight", &[256, 2], F32, &f32_bytes(&values)).build());
        let error = quantized(&gguf, &QuantizeParams::new(mix("Q4_0"))).unwrap_err().to_string();
        assert!(error.contains("\"bad.weight\"") && error.contains("infinite or NaN"), "{error}");
    }
    let odd = writer().tensor("odd", &[1], 77, &[0; 32]);
    let error = quantized(&open(odd.build()), &QuantizeParams::new(mix("Q4_0"))).unwrap_err().to_string();
    assert!(error.contains("\"odd\" is of type unknown (77)"), "{error}");
}

#[test]
fn an_end_is_an_end() {
    let original = open(writer().build());
    let params = QuantizeParams::new(mix("Q4_0"));
    let plan = QuantizePlan::new(&original, &params).unwrap();
    let stopped = plan.run(|_| Ok(()), |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Cancelled)));
    let full = plan.run(|_| Err(Error::invalid("full")), |_| ControlFlow::Continue(()));
    assert!(full.unwrap_err().to_string().contains("full"));
}
