//! Each family's model with a fault: a tensor too few, one too many, one of another shape. Each is refused by the
//! tensor's name before any weight is read. The models are those of `tests/goldens/families`, without weights.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::families::{self, Family};
use crate::common::gguf_writer::{F32, Writer};
use smallmind::format::ByteSource;
use smallmind::format::gguf::Value;
use smallmind::model::{LoadParams, Model};
use smallmind::{Error, Result};

/// A file whose header is there and whose weights are ones that take no memory.
struct Hollow {
    header: Vec<u8>,
    len: u64,
}

impl Hollow {
    fn new(family: &Family) -> Self {
        let mut writer =
            family.pairs.iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value.clone()));
        let mut end = 0u64;
        for tensor in &family.tensors {
            let start = end.next_multiple_of(32);
            writer = writer.entry(&tensor.name, &tensor.dims, F32, start);
            end = start + 4 * tensor.dims.iter().product::<u64>();
        }
        let header = writer.build();
        let len = header.len() as u64 + end;
        Hollow { header, len }
    }
}

impl ByteSource for Hollow {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> &str {
        "family"
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let one = 1.0f32.to_le_bytes();
        for (at, byte) in (offset as usize..).zip(buf) {
            *byte = self.header.get(at).copied().unwrap_or(one[at % 4]);
        }
        Ok(())
    }
}

/// The error that names what is wrong with a model; `None` where its weights would be read.
fn refusal(family: &Family) -> Option<String> {
    let stop = |_| ControlFlow::Break(());
    let params = LoadParams::default().with_progress(&stop);
    match Model::from_source(Arc::new(Hollow::new(family)), &params) {
        Err(Error::Cancelled) => None,
        Err(error @ (Error::Format(_) | Error::Unsupported(_))) => Some(error.to_string()),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("the load wasn't cancelled"),
    }
}

/// A tensor's name without the number of its layer.
fn kind(name: &str) -> &str {
    let in_layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    in_layer.map_or(name, |(_, kind)| kind)
}

/// The tensors of a model, one layer's of those that each layer has: the last layer's.
fn of_each_kind(family: &Family) -> Vec<usize> {
    let kinds: Vec<_> = family.tensors.iter().map(|tensor| kind(&tensor.name)).collect();
    (0..kinds.len()).filter(|&n| !kinds[n + 1..].contains(&kinds[n])).collect()
}

/// Weights that models may lack, by beginnings of models' names; factors and biases may be missing in all.
const OPTIONAL: &[(&str, &[&str])] = &[
    ("", &["output.weight", "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"]),
    ("falcon-h1", &["ssm_norm.weight"]),
    ("gemma4", &["attn_v.weight", "layer_output_scale.weight"]),
    ("glm4moe", &["attn_q_norm.weight", "attn_k_norm.weight"]),
    ("jina-bert-v2", &["ffn_gate.weight", "attn_q_norm.weight", "attn_k_norm.weight", "attn_norm_2.weight"]),
    ("mpt", &["position_embd.weight", "attn_q_norm.weight", "attn_k_norm.weight"]),
    ("qwen3next", &["ssm_in.weight"]),
    ("stablelm", &["attn_q_norm.weight", "attn_k_norm.weight"]),
];

/// Tensors that llama.cpp ignores too, so that their shape means nothing.
const IGNORED: &[(&str, &[&str])] = &[
    ("", &["cls.output.weight"]),
    ("dream", &["output.bias"]),
    ("falcon-h1", &["attn_output.bias", "rope_freqs.weight"]),
    ("llada-dense", &["attn_output.bias", "ffn_gate.bias", "ffn_down.bias", "ffn_up.bias"]),
    ("mpt", &["attn_k_norm.weight", "attn_k_norm.bias"]),
    ("openelm", &["attn_qkv.scale"]),
    ("plamo2", &["attn_qkv.scale", "ssm_in.scale", "ssm_out.scale"]),
    ("plamo3", &["attn_qkv.scale"]),
    ("qwen2vl", &["output.bias"]),
    ("qwen3next", &["ssm_in.weight", "ssm_in.scale", "attn_qkv.scale", "ssm_out.scale"]),
    ("refact", &["attn_output.bias", "ffn_gate.bias", "ffn_down.bias", "ffn_up.bias", "rope_freqs.weight"]),
];

fn is_listed(list: &[(&str, &[&str])], model: &str, name: &str) -> bool {
    list.iter().any(|(models, kinds)| model.starts_with(models) && kinds.contains(&kind(name)))
}

/// Also types of tokens, and what comes behind pooling.
fn is_optional(model: &str, name: &str) -> bool {
    let additional = ["token_types.", "cls.", "dense_"].iter().any(|start| name.starts_with(start));
    additional || !name.ends_with(".weight") || is_listed(OPTIONAL, model, name)
}

/// Also factors of inputs, and in most families those of MLPs and gates.
fn is_ignored(model: &str, name: &str) -> bool {
    let factor =
        ["ffn_", "attn_gate."].iter().any(|start| kind(name).starts_with(start)) && name.ends_with(".scale");
    factor || name.ends_with(".input_scale") || is_listed(IGNORED, model, name)
}

/// Whether an error names a tensor, or another of the same product, or one of those that may stand in its place.
fn names(refusal: &str, name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let single = stem.replace("attn_qkv", "attn_q").replace("gate_up_exps", "gate_exps");
    refusal.contains(stem) || refusal.contains(&single)
}

/// Checks a change of each kind of tensor of each family; `expect` tells, of a model's and a tensor's name, whether a
/// refusal (`None`: the model was taken) is right.
fn check(change: impl Fn(&mut Family, usize), expect: impl Fn(&str, &str, Option<&str>) -> bool) {
    let mut faults = Vec::new();
    for model in families::names() {
        let family = Family::read(&model);
        assert_eq!(refusal(&family), None, "{model} as it is");
        for n in of_each_kind(&family) {
            let name = &family.tensors[n].name;
            let mut changed = family.clone();
            change(&mut changed, n);
            let refusal = refusal(&changed);
            if !expect(&model, name, refusal.as_deref()) {
                faults.push(format!("{model}, {name}: {refusal:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} wrong outcomes:\n{}", faults.len(), faults.join("\n"));
}

/// Sizes of recurrences that contradict each other, the tensors, or what there are kernels for: a model, a key and its
/// value, and the words that the error has.
const SIZES: &[(&str, &str, u32, &[&str])] = &[
    ("lfm2-dense", "shortconv.l_cache", 0, &["l_cache is 0"]),
    ("lfm2-dense", "shortconv.l_cache", 1, &["layer 1", "a convolution over 1 tokens"]),
    ("lfm2-dense", "shortconv.l_cache", 4, &["blk.1.shortconv.conv.weight", "[4, 256]"]),
    ("lfm2-dense", "shortconv.l_cache", 60, &["layer 1", "a convolution over 60 tokens"]),
    ("lfm2-dense", "shortconv.l_cache", u32::MAX, &["l_cache is 4294967295"]),
    ("mamba-dense", "ssm.conv_kernel", 0, &["conv_kernel is 0"]),
    ("mamba-dense", "ssm.conv_kernel", 9, &["layer 0", "a convolution over 9 tokens"]),
    ("mamba-dense", "ssm.state_size", 0, &["state_size is 0"]),
    ("mamba-dense", "ssm.state_size", 64, &["blk.0.ssm_x.weight"]),
    ("mamba-dense", "ssm.state_size", u32::MAX, &["state_size is 4294967295"]),
    ("mamba-dense", "ssm.inner_size", 500, &["blk.0.ssm_in.weight"]),
    ("mamba-dense", "ssm.inner_size", u32::MAX, &["inner_size is 4294967295"]),
    ("mamba-dense", "ssm.time_step_rank", 0, &["time_step_rank is 0"]),
    ("mamba-dense", "ssm.time_step_rank", 3, &["blk.0.ssm_x.weight"]),
    ("mamba2-dense", "ssm.conv_kernel", 5, &["blk.0.ssm_conv1d.weight"]),
    ("mamba2-dense", "ssm.state_size", 4096, &["blk.0.ssm_in.weight"]),
    ("mamba2-dense", "ssm.time_step_rank", 3, &["512 channels", "3 heads"]),
    ("mamba2-dense", "ssm.time_step_rank", 1 << 24, &["512 channels", "16777216 heads"]),
    ("mamba2-dense", "ssm.group_count", 0, &["group_count is 0"]),
    ("mamba2-dense", "ssm.group_count", 3, &["2 heads", "3 groups"]),
    ("mamba2-dense", "ssm.group_count", 1 << 24, &["2 heads", "16777216 groups"]),
    ("granitehybrid-dense", "ssm.group_count", 1, &["blk.1.ssm_in.weight"]),
    ("falcon-h1-dense", "ssm.time_step_rank", 4, &["blk.0.ssm_in.weight"]),
    ("nemotron_h-dense", "ssm.inner_size", 1 << 24, &["blk.1.ssm_in.weight"]),
    ("jamba-dense", "ssm.conv_kernel", 2, &["blk.1.ssm_conv1d.weight"]),
    ("qwen35-dense", "ssm.conv_kernel", 9, &["layer 0", "a convolution over 9 tokens"]),
    ("qwen35-dense", "ssm.state_size", 0, &["state_size is 0"]),
    ("qwen35-dense", "ssm.state_size", 64, &["256 channels", "2 heads of 64"]),
    ("qwen35-dense", "ssm.state_size", 1 << 24, &["state_size is 16777216"]),
    ("qwen35-dense", "ssm.inner_size", 1 << 24, &["16777216 channels", "2 heads of 128"]),
    ("qwen35-dense", "ssm.time_step_rank", u32::MAX, &["time_step_rank is 4294967295"]),
    ("qwen35-dense", "ssm.group_count", 0, &["group_count is 0"]),
    ("qwen35-dense", "ssm.group_count", 1, &["blk.0.attn_qkv.weight"]),
    ("qwen3next-moe-shared", "ssm.group_count", 3, &["4 heads of 64 on 3 heads of keys"]),
    ("qwen3next-moe-shared", "ssm.group_count", 1 << 24, &["on 16777216 heads of keys"]),
];

#[test]
fn contradicting_sizes_of_recurrences_are_refused() {
    let mut faults = Vec::new();
    for &(model, key, number, words) in SIZES {
        let mut family = Family::read(model);
        let at = family.pairs.iter().position(|(name, _)| name.ends_with(&format!(".{key}"))).expect(key);
        family.pairs[at].1 = Value::U32(number);
        let refusal = refusal(&family);
        if !refusal.as_ref().is_some_and(|text| words.iter().all(|word| text.contains(word))) {
            faults.push(format!("{model} with {key} = {number}: {refusal:?}"));
        }
        family.pairs.remove(at);
        let missing = self::refusal(&family);
        if !missing.as_ref().is_some_and(|text| text.contains(&format!("{key} is missing"))) {
            faults.push(format!("{model} without {key}: {missing:?}"));
        }
    }
    assert!(faults.is_empty(), "{} wrong outcomes:\n{}", faults.len(), faults.join("\n"));
}

/// A window may be as long as the longest context, in decoders and in encoders.
#[test]
fn windows_have_one_bound() {
    const MOST: u32 = 1 << 24;
    let mut faults = Vec::new();
    // EXAONE 4 has windows in models of 64 layers only.
    for model in families::names().iter().filter(|name| *name != "exaone4-dense") {
        let mut family = Family::read(model);
        let window = |(name, value): &(String, Value)| {
            name.ends_with(".attention.sliding_window") && *value != Value::U32(0)
        };
        let Some(at) = family.pairs.iter().position(window) else { continue };
        for (number, fits) in [(MOST, true), (MOST + 1, false)] {
            family.pairs[at].1 = Value::U32(number);
            let refusal = refusal(&family);
            let named = refusal.as_ref().is_some_and(|text| text.contains("sliding_window is 16777217"));
            if named == fits || refusal.is_none() != fits {
                faults.push(format!("{model} with a window of {number}: {refusal:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} wrong outcomes:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_missing_tensor_is_named() {
    let remove = |family: &mut Family, n| drop(family.tensors.remove(n));
    check(remove, |model, name, refusal| {
        is_optional(model, name) || refusal.is_some_and(|text| names(text, name))
    });
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let widen = |family: &mut Family, n: usize| family.tensors[n].dims[0] += 1;
    check(widen, |model, name, refusal| match refusal {
        Some(text) => text.contains(name),
        None => is_ignored(model, name),
    });
}

#[test]
fn a_tensor_too_many_is_named() {
    let add = |family: &mut Family, n: usize| {
        let mut extra = family.tensors[n].clone();
        extra.name = format!("{}_extra", extra.name);
        family.tensors.push(extra);
    };
    check(add, |_, name, refusal| match refusal {
        Some(text) => text.contains(&format!("{name}_extra")),
        // Of a classifier, about which the logits say nothing.
        None => name.starts_with("cls."),
    });
}
