//! Positions taken out of the middle of a sequence. Keys that move up are those that a rotation back in f64 gives, and in
//! the first layer, which sees no other token, those that are computed at the new positions. Values are the same bits.
//! Pages are given back, and those that others share stay as they are.

use std::sync::Arc;

use super::{Batch, Engine, EngineParams};
use crate::Error;
use crate::kernels::rope::Pairing;
use crate::kv::{CacheType, LayerId, PAGE, SequenceId};
use crate::model::{GptConfig, LoadParams, Mask, Model, RandomGpt};
use crate::runtime::engine_tests::{bits, engine, model, params, tokens};
use crate::runtime::plan::Turned;
use crate::runtime::{Context, ContextParams, Logits, Span};

const N_CTX: usize = 400;
/// Half of the distance from 1 to the next number.
const F32: f64 = 1.0 / (1 << 24) as f64;
const F16: f64 = 1.0 / (1 << 11) as f64;

fn causal(name: &str) -> Arc<Model> {
    model(name, Mask::Causal, Mask::Causal)
}

fn appended(engine: &mut Engine, sequence: SequenceId, tokens: &[u32]) -> Vec<u32> {
    for chunk in tokens.chunks(engine.n_batch()) {
        let spans = [Span { sequence, rows: chunk.len(), first: engine.len(sequence).unwrap() }];
        engine.run(&Batch { tokens: chunk, spans: &spans, outputs: &[chunk.len() as u32 - 1] }).unwrap();
    }
    bits(engine.output())
}

fn filled(engine: &mut Engine, tokens: &[u32]) -> SequenceId {
    let sequence = engine.create().unwrap();
    appended(engine, sequence, tokens);
    sequence
}

/// The key and the value of each position in a layer, all heads.
fn stored(engine: &Engine, layer: LayerId, sequence: SequenceId) -> Vec<(Vec<f32>, Vec<u8>)> {
    let len = engine.len(sequence).unwrap();
    (0..len).map(|position| engine.cache.stored(layer, sequence, position)).collect()
}

/// A key's heads turned back by so many positions, in f64.
fn turned_back(model: &Model, turned: Turned, head_dim: usize, key: &[f32], by: usize) -> Vec<(f64, f64)> {
    let Turned::By(rope, pairing) = turned else { panic!("{turned:?}") };
    let spec = &model.graph().ropes[rope.0 as usize];
    let (dim, factors) = (spec.config.dim, spec.factors(N_CTX));
    let mut turned: Vec<(f64, f64)> = key.iter().map(|&x| (x.into(), 0.0)).collect();
    for head in turned.chunks_mut(head_dim) {
        for i in 0..dim / 2 {
            let divisor =
                factors.map_or(1.0, |factors| f64::from(factors[i])) * f64::from(spec.config.factor);
            let angle =
                -(by as f64) * f64::from(spec.config.base).powf(-2.0 * i as f64 / dim as f64) / divisor;
            let [a, b] = match pairing {
                Pairing::Adjacent => [2 * i, 2 * i + 1],
                Pairing::Halves => [i, i + dim / 2],
            };
            let (x, y, (sin, cos)) = (head[a].0, head[b].0, angle.sin_cos());
            let length = x.hypot(y);
            (head[a], head[b]) = ((x * cos - y * sin, length), (x * sin + y * cos, length));
        }
    }
    turned
}

#[test]
fn keys_are_those_of_their_new_positions() {
    for name in ["untied-mixed", "qwen3-tied-quant", "tied-rope-freqs", "untied-linear-rope"] {
        let model = causal(name);
        for kv in [CacheType::F32, CacheType::F16] {
            let mut engine = engine(&model, 2, EngineParams { kv, ..params(2, N_CTX, 64) });
            let all = tokens(1, 390);
            let sequence = filled(&mut engine, &all);
            let layers = engine.plan().keys.clone();
            let before: Vec<_> = layers.iter().map(|(layer, _)| stored(&engine, *layer, sequence)).collect();
            // Neither end is that of a page, and neither is the distance.
            let (begin, end) = (37, 250);
            engine.remove_range(sequence, begin..end).unwrap();
            engine.cache.audit();
            assert_eq!(engine.len(sequence).unwrap(), 390 - (end - begin));
            let rest = [&all[..begin], &all[end..]].concat();
            let fresh = filled(&mut engine, &rest);
            let head_dim = engine.plan().groups[0].head_dim;
            // A turn: cosine and sine are rounded twice (a factor of 1 is exact), both products and their sum once: of the
            // pair's length, √2 · 4 roundings at most, and as many for the key at its first position. Then it is stored.
            let rounding = if kv == CacheType::F16 { F16 } else { 0.0 };
            let bound = |length: f64| (6.0 * F32 + rounding) * length + f64::from(f32::MIN_POSITIVE);
            let tiny = if kv == CacheType::F16 { 2f64.powi(-25) } else { 0.0 };
            for ((layer, turned), before) in layers.iter().zip(&before) {
                let after = stored(&engine, *layer, sequence);
                assert!(after[..begin] == before[..begin], "{name}: what stands before stays");
                for (new, (key, value)) in after.iter().enumerate().skip(begin) {
                    let (old_key, old_value) = &before[new + end - begin];
                    assert!(value == old_value, "{name}, {kv:?}, position {new}");
                    let exact = turned_back(&model, *turned, head_dim, old_key, end - begin);
                    for (found, (exact, length)) in key.iter().zip(exact) {
                        let off = (f64::from(*found) - exact).abs();
                        assert!(off <= bound(length) + tiny, "{name}, {kv:?}, {new}: {found} for {exact}");
                    }
                }
            }
            let (first, turned) = layers[0];
            let (moved, computed) = (stored(&engine, first, sequence), stored(&engine, first, fresh));
            for (new, (moved, computed)) in moved.iter().zip(&computed).enumerate() {
                assert!(moved.1 == computed.1, "{name}: values of the first layer");
                let lengths = turned_back(&model, turned, head_dim, &computed.0, 0);
                for ((moved, computed), (_, length)) in moved.0.iter().zip(&computed.0).zip(lengths) {
                    let off = (f64::from(*moved) - f64::from(*computed)).abs();
                    // Each of the three keys has been rounded: at the old position, by the turn, at the new position.
                    assert!(
                        off <= 3.0 * (bound(length) * 1.01 + tiny),
                        "{name}, {kv:?}, {new}: {moved} {computed}"
                    );
                }
            }
        }
    }
}

#[test]
fn pages_are_given_back_and_the_ends_are_a_rewind() {
    let model = causal("untied-mixed");
    let mut engine = engine(&model, 1, params(2, N_CTX, 64));
    let all = tokens(2, 3 * PAGE + 5);
    let sequence = filled(&mut engine, &all);
    let free = engine.pages().free;
    engine.remove_range(sequence, 3..PAGE + 3).unwrap();
    assert_eq!(engine.pages().free, free + 1);
    assert!(engine.output().is_empty());
    engine.remove_range(sequence, 10..10).unwrap();
    assert_eq!(engine.len(sequence).unwrap(), 2 * PAGE + 5);
    for bad in [std::ops::Range { start: 5, end: 4 }, 0..2 * PAGE + 6, usize::MAX - 1..usize::MAX] {
        assert!(matches!(engine.remove_range(sequence, bad), Err(Error::InvalidArgument(_))));
    }
    engine.remove(sequence).unwrap();
    // Nothing behind the range: to the bit what a rewind leaves.
    let [removed, rewound] = [0, 1].map(|_| filled(&mut engine, &all[..200]));
    engine.remove_range(removed, 70..200).unwrap();
    engine.rewind(rewound, 70).unwrap();
    let [a, b] = [removed, rewound].map(|sequence| appended(&mut engine, sequence, &all[70..80]));
    assert_eq!(a, b);
    engine.remove_range(removed, 0..80).unwrap();
    assert_eq!(engine.len(removed).unwrap(), 0);
    engine.cache.audit();
}

#[test]
fn other_sequences_and_the_index_keep_what_they_have() {
    let model = causal("untied-mixed");
    let with = EngineParams { prefix_index: true, n_positions: 2 * N_CTX, ..params(3, N_CTX, 64) };
    let mut engine = engine(&model, 2, with);
    let all = tokens(3, 300);
    let sequence = filled(&mut engine, &all);
    engine.index_prefix(sequence, &all).unwrap();
    let layer = engine.plan().keys[1].0;
    let before = stored(&engine, layer, sequence);
    let forked = engine.fork(sequence, 280).unwrap();
    engine.remove_range(forked, 20..150).unwrap();
    engine.cache.audit();
    assert!(stored(&engine, layer, sequence) == before);
    // What was moved is never found again as the keys and values of its tokens.
    let rest = [&all[..20], &all[150..280]].concat();
    engine.index_prefix(forked, &rest).unwrap();
    assert_eq!((engine.known_prefix(&rest), engine.known_prefix(&all)), (0, 2 * PAGE));
    // Pages of its own are taken from the index before they are written to.
    engine.remove(forked).unwrap();
    engine.remove_range(sequence, 130..200).unwrap();
    engine.cache.audit();
    assert_eq!(engine.known_prefix(&all), PAGE);
    let (found, known) = engine.create_with_prefix(&all).unwrap();
    assert!(known == PAGE && stored(&engine, layer, found)[..] == before[..PAGE]);
    engine.cache.audit();
}

#[test]
fn what_lacks_pages_for_copies_changes_nothing() {
    let model = causal("untied-mixed");
    let with = EngineParams { n_positions: N_CTX, ..params(2, N_CTX, 64) };
    let mut engine = engine(&model, 1, with);
    let sequence = filled(&mut engine, &tokens(4, 390));
    let forked = engine.fork(sequence, 390).unwrap();
    let layer = engine.plan().keys[0].0;
    let before = stored(&engine, layer, forked);
    assert!(matches!(engine.remove_range(forked, 5..10), Err(Error::ContextFull { .. })));
    engine.cache.audit();
    assert!(stored(&engine, layer, forked) == before);
}

#[test]
fn what_cannot_move_is_refused() {
    let refused = |model: &Arc<Model>, kv, why: &str| {
        let mut engine = engine(model, 1, EngineParams { kv, ..params(1, 32, 32) });
        let all: Vec<u32> = (0..20).collect();
        let sequence = filled(&mut engine, &all);
        let error = engine.remove_range(sequence, 3..9).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)) && error.to_string().contains(why), "{error}");
        assert_eq!((engine.len(sequence).unwrap(), engine.check_removal().is_err()), (20, true));
    };
    refused(&causal("untied-mixed"), CacheType::Q8_0, "stored in q8_0");
    refused(&model("untied-mixed", Mask::Causal, Mask::Window(8)), CacheType::F32, "a window releases");
    refused(&causal("gpt-untied"), CacheType::F32, "positions are learned");
    let shape = GptConfig { vocab: 64, context: 32, dim: 16, layers: 1, heads: 2 };
    let source = Arc::new(RandomGpt::new(&shape, 1).unwrap());
    refused(&Model::from_source(source, &LoadParams::default()).unwrap(), CacheType::F32, "are learned");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf/hybrid-quant.gguf");
    refused(&Model::open(&path, &LoadParams::default()).unwrap(), CacheType::F32, "recurrent layers");
}

#[test]
fn a_context_shifts_to_the_same_bits_on_any_number_of_threads() {
    let model = causal("untied-mixed");
    let run = |threads| {
        let params = ContextParams::default().with_n_ctx(64).with_threads(threads);
        let mut context = Context::new(model.clone(), &params).unwrap();
        let all = tokens(5, 64);
        context.decode(&all, Logits::Last).unwrap();
        assert_eq!(context.shift(10).unwrap(), 27);
        assert!(context.tokens() == [&all[..10], &all[37..]].concat() && context.logits().is_empty());
        context.decode(&[7, 8, 9], Logits::Last).unwrap();
        bits(context.logits())
    };
    let one = run(1);
    assert!(run(2) == one && run(3) == one);
    let mut context = Context::new(model.clone(), &ContextParams::default().with_n_ctx(64)).unwrap();
    context.decode(&[1, 2, 3], Logits::None).unwrap();
    assert!(context.shift(2).is_err() && context.shift(usize::MAX).is_err());
    assert_eq!((context.shift(1).unwrap(), context.tokens()), (1, &[1, 3][..]));
}
