//! llama.cpp's logits on small random models that have what the real one lacks: an untied head, every
//! block format, other head groupings, Llama 3's frequency factors, linear rotary scaling, Qwen's biases and norms
//! of heads.

use std::sync::Arc;

use super::{Context, ContextParams, Logits};
use crate::format::BytesSource;
use crate::kernels::qmatmul::Activations;
use crate::kv::CacheType;
use crate::model::{LoadParams, Model};
use crate::testing::golden::{Cursor, read};
use crate::testing::golden_path;

/// Root mean square and largest difference from llama.cpp's logits on the same file.
fn difference(name: &str, activations: Activations) -> (f64, f64) {
    let params = LoadParams::default().with_activations(activations);
    let model = Model::open(&golden_path(&format!("gguf/{name}.gguf")), &params).unwrap();
    let bytes = read(&format!("gguf/{name}.logits.bin"));
    let mut cursor = Cursor::new(&bytes, b"SMLG");
    let (positions, vocabulary) = (cursor.size(), cursor.size());
    let tokens: Vec<u32> = (0..positions).map(|_| cursor.u32()).collect();

    let params = ContextParams::default()
        .with_n_ctx(positions)
        .with_n_output(positions)
        .with_n_batch(7)
        .with_threads(2)
        .with_kv(CacheType::F32);
    let mut context = Context::new(model, &params).unwrap();
    context.decode(&tokens, Logits::All).unwrap();
    assert_eq!(context.logits().len(), positions * vocabulary);
    let (mut squares, mut max) = (0.0f64, 0.0f64);
    for &ours in context.logits() {
        let off = (f64::from(ours) - f64::from(cursor.f32())).abs();
        squares += off * off;
        max = max.max(off);
    }
    ((squares / (positions * vocabulary) as f64).sqrt(), max)
}

/// Without quantised weights only f32 rounding differs: a plain f64 pass is within 1.3e-5 of the golden,
/// and ours sums each of some ten products of up to 96 terms with 2⁻²⁴ a term.
#[test]
fn float_models_match_to_rounding() {
    for name in ["tied-rope-freqs", "untied-linear-rope", "qwen2-tied", "qwen3-untied"] {
        let (rms, max) = difference(name, Activations::Bits16);
        println!("{name}: rms {rms:.2e}, max {max:.2e}");
        assert!(max < 1e-4, "{name}: {max}");
    }
}

/// With quantised weights the activations are rounded to 16 bits (half a step of max/32512 in each of 32),
/// a thousandth of what 8 bits cost (rms 0.04, max 0.26 in llama.cpp itself).
#[test]
fn quantised_models_match_to_the_rounding_of_activations() {
    let (rms, max) = difference("untied-mixed", Activations::Bits16);
    println!("untied-mixed: rms {rms:.2e}, max {max:.2e}");
    assert!(rms < 2e-4 && max < 1.5e-3, "{rms} {max}");
}

/// So it is with every type of weights.
#[test]
fn every_type_matches_to_the_rounding_of_activations() {
    let (rms, max) = difference("untied-every-quant", Activations::Bits16);
    println!("untied-every-quant: rms {rms:.2e}, max {max:.2e}");
    assert!(rms < 1e-3 && max < 2e-2, "{rms} {max}");
}

/// The same of the Qwens. A step of 16 bits is a 256th of one of 8, and so are the differences where errors are small
/// enough to add up: a hundredth leaves room for those of 8 bits that aren't.
#[test]
fn quantised_qwens_match_to_the_rounding_of_activations() {
    for name in ["qwen2-quant", "qwen3-tied-quant"] {
        let [(rms, max), (rms8, max8)] =
            [Activations::Bits16, Activations::Bits8].map(|activations| difference(name, activations));
        println!("{name}: rms {rms:.2e}, max {max:.2e}; with 8 bits {rms8:.2e}, {max8:.2e}");
        assert!(rms < rms8 / 100.0 && max < max8 / 100.0, "{name}: {rms} {max}, with 8 bits {rms8} {max8}");
    }
}

/// The file from memory gives the same model as the file from disk.
#[test]
fn a_model_can_come_from_memory() {
    let bytes = read("gguf/untied-mixed.gguf");
    let source = Arc::new(BytesSource::new("untied-mixed", bytes));
    let model = Model::from_source(source, &LoadParams::default()).unwrap();
    assert_eq!(model.config().n_vocab, 288);
    assert!(model.weight_bytes() > 0 && model.n_parameters() > 0);
}
