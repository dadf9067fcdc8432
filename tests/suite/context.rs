//! A context's promises on real files: the same bits for any number of threads and any split of the
//! tokens, and nothing changed by a failed call.

use std::sync::Arc;

use crate::common::families::Family;
use crate::common::tiny_model;
use smallmind::Error;
use smallmind::format::BytesSource;
use smallmind::format::gguf::Value;
use smallmind::isa::IsaId;
use smallmind::kv::CacheType;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};

/// Small files with random weights, one for each trait of the families.
const MODELS: [&str; 7] = [
    "untied-mixed",
    "tied-rope-freqs",
    "untied-linear-rope",
    "qwen2-tied",
    "qwen2-quant",
    "qwen3-untied",
    "qwen3-tied-quant",
];

fn load(name: &str, isa: Option<IsaId>) -> Arc<Model> {
    Model::open(&tiny_model(name), &LoadParams::default().with_isa(isa)).unwrap()
}

fn context(model: &Arc<Model>, threads: usize, n_batch: usize) -> Context {
    context_of(CacheType::default(), model, threads, n_batch)
}

fn context_of(kv: CacheType, model: &Arc<Model>, threads: usize, n_batch: usize) -> Context {
    let params = ContextParams::default()
        .with_n_ctx(64)
        .with_n_batch(n_batch)
        .with_n_output(48)
        .with_threads(threads)
        .with_kv(kv);
    Context::new(model.clone(), &params).unwrap()
}

/// Forty-odd tokens that visit the whole vocabulary.
fn tokens() -> Vec<u32> {
    (0..45).map(|i| (i * 37 + 5) % 288).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Logits of every token, decoded in pieces of the given lengths.
fn decode_in(context: &mut Context, pieces: &[usize]) -> Vec<u32> {
    let tokens = tokens();
    let (mut at, mut all) = (0, Vec::new());
    for &piece in pieces {
        context.decode(&tokens[at..at + piece], Logits::All).unwrap();
        all.extend(bits(context.logits()));
        at += piece;
    }
    assert_eq!(at, tokens.len());
    all
}

#[test]
fn threads_and_batches_do_not_change_a_bit() {
    for isa in IsaId::available() {
        for name in MODELS {
            let model = load(name, Some(isa));
            let whole = decode_in(&mut context(&model, 1, 64), &[45]);
            assert!(whole.iter().any(|&b| b != whole[0]), "{name}: constant logits prove nothing");
            for threads in [1, 2, 3, 5] {
                for pieces in [&[45][..], &[1; 45], &[7, 1, 13, 24], &[32, 13]] {
                    let got = decode_in(&mut context(&model, threads, 64), pieces);
                    assert!(got == whole, "{name} on {isa:?}: {threads} threads, pieces {pieces:?}");
                }
            }
        }
    }
}

#[test]
fn no_type_of_cache_depends_on_threads_and_batches() {
    let model = load("untied-mixed", None);
    let mut seen = Vec::new();
    for kv in CacheType::ALL {
        let whole = decode_in(&mut context_of(kv, &model, 1, 64), &[45]);
        for threads in [1, 2, 3] {
            for pieces in [&[1; 45][..], &[7, 1, 13, 24], &[32, 13]] {
                let got = decode_in(&mut context_of(kv, &model, threads, 64), pieces);
                assert!(got == whole, "{kv:?}: {threads} threads, pieces {pieces:?}");
            }
        }
        seen.push(whole);
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2], "types that don't differ");
}

/// Sequences of several parts, which workers share where they decode single tokens.
#[test]
fn long_sequences_do_not_depend_on_threads_and_batches() {
    let model = load("untied-mixed", None);
    let n_vocab = model.config().n_vocab;
    let tokens: Vec<u32> = (0..530).map(|i| (i * 37 + 5) % 288).collect();
    for kv in CacheType::ALL {
        // Logits after each of some tokens, decoded one by one, and after all.
        let run = |threads, n_batch, single: std::ops::Range<usize>| {
            let params = ContextParams::default()
                .with_n_ctx(600)
                .with_n_batch(n_batch)
                .with_threads(threads)
                .with_kv(kv);
            let mut context = Context::new(model.clone(), &params).unwrap();
            let mut all = Vec::new();
            context.decode(&tokens[..single.start], Logits::Last).unwrap();
            for i in single.clone() {
                context.decode(&tokens[i..=i], Logits::Last).unwrap();
                all.extend(bits(context.logits()));
            }
            context.decode(&tokens[single.end..], Logits::Last).unwrap();
            all.extend(bits(context.logits()));
            all
        };
        for single in [254..259, 510..515] {
            let want = run(1, 64, single.clone());
            for (threads, n_batch) in [(2, 64), (3, 7), (5, 600)] {
                let got = run(threads, n_batch, single.clone());
                assert!(got == want, "{kv:?}: {threads} threads, by {n_batch}");
            }
            assert!(want[want.len() - n_vocab..] == run(2, 128, 529..529), "{kv:?}: all at once");
        }
    }
}

#[test]
fn a_rewound_context_continues_as_if_nothing_had_been() {
    let model = load("untied-mixed", None);
    let mut fresh = context(&model, 2, 16);
    fresh.decode(&tokens()[..20], Logits::Last).unwrap();
    let wanted = bits(fresh.logits());

    let mut used = context(&model, 2, 16);
    used.decode(&tokens(), Logits::Last).unwrap();
    used.rewind(12).unwrap();
    assert!(used.logits().is_empty());
    used.decode(&tokens()[12..20], Logits::Last).unwrap();
    assert_eq!(bits(used.logits()), wanted);

    used.clear();
    assert!(used.is_empty());
    used.decode(&tokens()[..20], Logits::Last).unwrap();
    assert_eq!(bits(used.logits()), wanted);
}

#[test]
fn a_refused_call_changes_nothing() {
    let model = load("untied-mixed", None);
    let mut context = context(&model, 2, 16);
    context.decode(&tokens()[..10], Logits::Last).unwrap();
    let before = bits(context.logits());
    let long = vec![1; 55];
    let refused: [(&[u32], Logits); 4] =
        [(&[], Logits::Last), (&[288], Logits::Last), (&[3, u32::MAX], Logits::None), (&long, Logits::None)];
    for (tokens, logits) in refused {
        let error = context.decode(tokens, logits).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_) | Error::ContextFull { .. }), "{error}");
    }
    assert!(matches!(context.decode(&[1; 49], Logits::All), Err(Error::InvalidArgument(_))));
    assert!(context.rewind(11).is_err());
    assert_eq!(context.len(), 10);
    assert_eq!(bits(context.logits()), before);
    // Exactly full is allowed, one more is not.
    context.decode(&[1; 54], Logits::None).unwrap();
    assert_eq!(context.len(), context.n_ctx());
    assert!(matches!(context.decode(&[1], Logits::None), Err(Error::ContextFull { n_ctx: 64, needed: 65 })));
}

#[test]
fn absurd_parameters_are_refused_before_memory_is() {
    let model = load("untied-mixed", None);
    let params = |n_ctx, n_batch, n_output, threads| {
        ContextParams::default()
            .with_n_ctx(n_ctx)
            .with_n_batch(n_batch)
            .with_n_output(n_output)
            .with_threads(threads)
    };
    let absurd = [
        params(64, 0, 1, 0),
        params(64, 0, 1, usize::MAX),
        params(usize::MAX, 0, 1, 1),
        params(64, usize::MAX, 1, 1),
        params(64, 0, usize::MAX, 1),
    ];
    for params in &absurd {
        assert!(Context::new(model.clone(), params).is_err(), "{params:?}");
    }
    // A factor for a run of 64 adds 4 bytes to each row; values end with a whole vector.
    let config = model.config();
    let layer = config.first();
    let rows = 2 * config.n_layer() * layer.n_head_kv * 1024;
    let elements = rows * layer.head_dim;
    assert!(layer.head_dim == 16, "whole vectors, and one run");
    for (kv, want) in [
        (CacheType::F32, 4 * elements),
        (CacheType::F16, 2 * elements),
        (CacheType::Q8_0, elements + 4 * rows),
    ] {
        let memory = Context::memory(&model, &params(1024, 16, 1, 1).with_kv(kv)).unwrap();
        assert_eq!(memory.cache_bytes, want, "{kv:?}");
    }
    let small = Context::memory(&model, &params(64, 16, 1, 1)).unwrap();
    let large = Context::memory(&model, &params(1 << 20, 16, 1, 1)).unwrap();
    assert_eq!(small.total_bytes, small.cache_bytes + small.arena_bytes);
    assert!(large.cache_bytes > 1000 * small.cache_bytes);
}

/// A model of one layer and without learned positions, whose keys and values each depend on their own token alone.
fn one_layer(name: &str, bias: f32) -> Arc<Model> {
    let mut family = Family::read(name);
    for (key, value) in &mut family.pairs {
        if key.ends_with(".block_count") {
            *value = Value::U32(1);
        } else if key.ends_with(".max_alibi_bias") {
            *value = Value::F32(bias);
        }
    }
    let is_kept = |name: &str| !name.starts_with("blk.1.") && !name.starts_with("position_embd");
    family.tensors.retain(|tensor| is_kept(&tensor.name));
    let source = Arc::new(BytesSource::new(name, family.file()));
    Model::from_source(source, &LoadParams::default()).unwrap()
}

/// Where scores have a bias by distance and keys no rotation, what moves up is what a fresh context has, to the bit: stored
/// keys and values stay as they are, and the bias is that of the new distances.
#[test]
fn a_shift_with_a_bias_by_distance_is_exact() {
    for name in ["bloom-dense", "mpt-dense"] {
        let model = one_layer(name, 8.0);
        let n_vocab = model.config().n_vocab as u32;
        let all: Vec<u32> = (0..250).map(|i| (i * 37 + i * i * 11 + 5) % n_vocab).collect();
        // Neither end is that of a page, and neither is the distance.
        let rest = [&all[..37], &all[170..]].concat();
        for kv in [CacheType::F32, CacheType::F16] {
            let context = |model: &Arc<Model>, tokens: &[u32]| {
                let params = ContextParams::default().with_n_ctx(256).with_threads(2).with_kv(kv);
                let mut context = Context::new(model.clone(), &params).unwrap();
                context.decode(tokens, Logits::Last).unwrap();
                context
            };
            let next = |context: &mut Context| {
                context.decode(&[7, 8, 9], Logits::Last).unwrap();
                bits(context.logits())
            };
            let mut whole = context(&model, &all);
            whole.remove_range(37..170).unwrap();
            let fresh = next(&mut context(&model, &rest));
            assert_eq!(next(&mut whole), fresh, "{name}, {kv:?}");
            assert_ne!(next(&mut context(&model, &all)), fresh, "{name}: what was removed counts");
            // BLOOM's bias stands in no file.
            if name == "mpt-dense" {
                assert_ne!(next(&mut context(&one_layer(name, 4.0), &rest)), fresh, "the bias counts");
            }
            let mut shifted = context(&model, &all);
            assert_eq!(shifted.shift(20).unwrap(), 115);
            let kept = [&all[..20], &all[135..]].concat();
            assert_eq!(next(&mut shifted), next(&mut context(&model, &kept)), "{name}, {kv:?}");
        }
    }
}
