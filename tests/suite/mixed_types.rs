//! Types mixed within a fused group (q, k and v; gate and up) and from one matrix to the next: floats beside
//! blocks, each with a form of activations of its own. The values are the same, so the results nearly are.

use std::sync::Arc;

use crate::common::gguf_writer::{F32, Writer};
use crate::common::tiny_model;
use smallmind::format::BytesSource;
use smallmind::format::gguf::Gguf;
use smallmind::model::{LoadParams, Model};
use smallmind::quant;
use smallmind::runtime::{Context, ContextParams, Logits};

/// The golden with a matrix of every type, those that `widen` names as f32 with the very same values.
fn file(widen: impl Fn(&str) -> bool) -> Vec<u8> {
    let path = tiny_model("untied-mixed");
    let gguf = Gguf::open_path(path).unwrap();
    let writer = Writer::new();
    let writer = gguf.metadata().iter().fold(writer, |writer, (key, value)| writer.pair(key, value.clone()));
    let built = gguf.tensors().iter().fold(writer, |writer, info| {
        let mut data = vec![0; info.bytes as usize];
        gguf.read_tensor(info, 0, &mut data).unwrap();
        if !widen(&info.name) {
            return writer.tensor(&info.name, info.shape(), info.ty.0, &data);
        }
        let mut values = vec![0.0f32; info.shape().iter().product::<u64>() as usize];
        quant::decode_row(info.dtype().unwrap(), &data, &mut values).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.tensor(&info.name, info.shape(), F32, &bytes)
    });
    built.build()
}

fn logits(file: Vec<u8>, threads: usize, pieces: usize) -> Vec<f32> {
    let source = Arc::new(BytesSource::new("mixed.gguf", file));
    let model = Model::from_source(source, &LoadParams::default()).unwrap();
    let params = ContextParams::default().with_n_ctx(64).with_n_output(40).with_threads(threads);
    let mut context = Context::new(model, &params).unwrap();
    let tokens: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 288).collect();
    let mut all = Vec::new();
    for piece in tokens.chunks(pieces) {
        context.decode(piece, Logits::All).unwrap();
        all.extend_from_slice(context.logits());
    }
    all
}

#[test]
fn floats_beside_blocks_in_one_group() {
    let wanted = logits(file(|_| true), 1, 40);
    let groups: [&[&str]; 6] = [
        &[],
        &["attn_q"],
        &["attn_k", "ffn_gate"],
        &["attn_v", "ffn_up", "attn_output"],
        &["attn_q", "attn_k", "ffn_down"],
        &["ffn_gate", "ffn_down", "token_embd"],
    ];
    for group in groups {
        let widen = |name: &str| group.iter().any(|part| name.contains(part));
        let got = logits(file(widen), 1, 40);
        let largest = wanted.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
        for (i, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            // Rounding activations to 16 bits, layer by layer.
            assert!((got - wanted).abs() < 2e-3 * largest, "{group:?}, logit {i}: {got} for {wanted}");
        }
        for (threads, pieces) in [(2, 40), (3, 1), (2, 3), (16, 7)] {
            assert!(logits(file(widen), threads, pieces) == got, "{group:?}: {threads} threads, by {pieces}");
        }
    }
}
