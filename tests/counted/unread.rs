//! Tensors of a file that no step of the model reads: those that change nothing are left alone and not trusted, all
//! others are refused by name. Every case adds tensors to a small model that loads.

use crate::bad_files::{Parts, Tensor, assert_refused, load};
use crate::common::gguf_writer::F32;
use smallmind::format::gguf::{Array, Value};

#[test]
fn tensors_that_are_not_used_are_not_trusted() {
    let mut parts = Parts::mixed();
    for name in ["one.input_scale", "two.input_scale"] {
        // A type of unknown size: nothing in the file bounds its elements, and their total is beyond u64.
        let dims = vec![u64::MAX / 2 + 1];
        parts.tensors.push(Tensor { name: name.into(), dims, ty: 77, data: vec![0; 32] });
    }
    assert_eq!(load(&parts).unwrap().n_parameters(), u64::MAX);
}

#[test]
fn tensors_that_nothing_reads() {
    let mut parts = Parts::mixed();
    for i in 0..6 {
        let name = format!("\x1b[31m{i}\n").repeat(30);
        parts.tensors.push(Tensor { name, dims: vec![1], ty: F32, data: vec![0; 4] });
    }
    assert_refused(&parts, "llama: nothing here computes with tensors \"\\x1b[31m0\\n");
    assert_refused(&parts, " and 3 more");
}

/// Blocks behind the model's layers that predict further tokens are no part of the model.
#[test]
fn blocks_that_predict_further_tokens() {
    let mut parts = Parts::mixed();
    let norm = "blk.1.nextn.enorm.weight".to_owned();
    parts.tensors.push(Tensor { name: norm.clone(), dims: vec![1], ty: F32, data: vec![0; 4] });
    let stated = |n: u32| parts.clone().with("llama.nextn_predict_layers", Some(Value::U32(n)));
    let model = load(&stated(1)).unwrap();
    assert_eq!((model.config().n_layer(), model.config().n_predicting), (1, 1));
    assert_refused(&stated(0), &norm);
    // A block without a tensor of that kind is one of the model.
    assert_refused(&stated(1).without_tensor(&norm), "blk.1.attn_q.weight");
    for wrong in [2, 3, u32::MAX] {
        assert_refused(&stated(wrong), "llama.nextn_predict_layers");
    }
    // A number for each block, of which the model has the first.
    let heads = Value::Array(Array::U32(vec![4, 2]));
    load(&stated(1).with("llama.attention.head_count", Some(heads))).unwrap();
    let block = |name: &str| {
        let mut parts = Parts::mixed();
        parts.tensors.push(Tensor { name: name.into(), dims: vec![1], ty: F32, data: vec![0; 4] });
        parts
    };
    load(&block("blk.2.nextn.enorm.weight")).unwrap();
    for wrong in
        ["blk.1.nextn.enorm.weight", "blk.2.enorm.weight", "blk.99999999999999999999.nextn.a", "nextn.a"]
    {
        assert_refused(&block(wrong), wrong);
    }
}
