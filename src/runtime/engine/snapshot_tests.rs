//! Sequences go on bit for bit from a snapshot, in an engine with other threads, other sequences and other pages. A
//! snapshot of another model or engine is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{Batch, Engine, EngineParams};
use crate::format::gguf::Gguf;
use crate::format::{ByteSource, BytesSource, FileSource};
use crate::kv::{CacheType, SequenceId};
use crate::model::graph::Op;
use crate::model::{GptConfig, LoadParams, Mask, Model, RopeOverrides, read_graph};
use crate::runtime::engine_tests::{bits, engine, model, params, tokens};
use crate::runtime::{Context, ContextParams, Logits, Output, Span};
use crate::{Error, Result};

/// Appends tokens; the bits of the last one's logits.
fn run(engine: &mut Engine, sequence: SequenceId, tokens: &[u32]) -> Vec<u32> {
    let spans = [Span::new(sequence, engine.len(sequence).unwrap(), tokens.len())];
    engine.run(&Batch::new(tokens, &spans, &[tokens.len() as u32 - 1])).unwrap();
    bits(engine.output())
}

fn saved(engine: &Engine, sequence: SequenceId, tokens: &[u32]) -> BytesSource {
    let mut bytes = Vec::new();
    let mut append = |more: &[u8]| {
        bytes.extend_from_slice(more);
        Ok(())
    };
    engine.save(sequence, tokens, &mut append).unwrap();
    BytesSource::new("a snapshot", bytes)
}

#[test]
fn a_restored_sequence_goes_on_bit_for_bit() {
    for name in ["untied-mixed", "qwen3-untied", "hybrid-quant", "short-conv"] {
        for (kv, window) in [(CacheType::F32, 1000), (CacheType::F16, 100), (CacheType::Q8_0, 200)] {
            let model = model(name, Mask::Causal, Mask::Window(window));
            let text = tokens(3, 330);
            let mut from = engine(&model, 2, EngineParams { kv, ..params(2, 512, 64) });
            let sequence = from.create().unwrap();
            text[..300].chunks(64).for_each(|chunk| drop(run(&mut from, sequence, chunk)));
            let snapshot = saved(&from, sequence, &text[..300]);
            let wanted = run(&mut from, sequence, &text[300..]);
            let mut to = engine(&model, 1, EngineParams { kv, ..params(3, 400, 128) });
            let other = to.create().unwrap();
            run(&mut to, other, &text[..70]);
            let mut read = Vec::new();
            to.check_snapshot(&snapshot).unwrap();
            let restored = to.restore(&snapshot, &mut read).unwrap();
            to.cache.audit();
            assert!(read == text[..300]);
            assert!(run(&mut to, restored, &text[300..]) == wanted, "{name} with {kv:?}");
            to.cache.audit();
        }
    }
}

#[test]
fn a_snapshot_of_another_model_or_engine_is_refused() {
    let open = |name: &str| model(name, Mask::Causal, Mask::Causal);
    let model = open("untied-mixed");
    let mut from = engine(&model, 1, params(1, 64, 64));
    let sequence = from.create().unwrap();
    run(&mut from, sequence, &tokens(0, 20));
    let snapshot = saved(&from, sequence, &[]);
    let refused = |to: &mut Engine, why: &str| {
        let error = to.check_snapshot(&snapshot).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(to.restore(&snapshot, &mut vec![]).unwrap_err().to_string(), error);
        to.create().unwrap();
    };
    let other = open("qwen3-untied");
    refused(&mut engine(&other, 1, params(1, 64, 64)), "a model of another shape");
    let windowed = crate::runtime::engine_tests::model("untied-mixed", Mask::Causal, Mask::Window(9));
    refused(&mut engine(&windowed, 1, params(1, 64, 64)), "a model of another shape");
    let with = |change: &dyn Fn(EngineParams) -> EngineParams| engine(&model, 1, change(params(1, 64, 64)));
    refused(&mut with(&|params| params.with_kv(CacheType::Q8_0)), "f16 keys and values; the cache has q8_0");
    let rope = RopeOverrides::default().with_base(5e5);
    refused(&mut with(&|params| params.with_rope(rope)), "other rotary scaling");
    refused(&mut with(&|params| params.with_n_ctx(16)), "the context holds 16 positions");
    refused(&mut with(&|params| params.with_one_span(true)), "as a whole");
    // Another kind of output reads the same keys and values.
    let mut hidden = with(&|params| params.with_output(Output::Hidden));
    let restored = hidden.restore(&snapshot, &mut vec![]).unwrap();
    assert_eq!(hidden.len(restored).unwrap(), 20);
}

#[test]
fn a_model_of_the_same_shape_with_other_weights_is_another_model() {
    let random = |seed| {
        let config = GptConfig { context: 64, ..GptConfig::SMALL };
        Model::random(&config, seed, &LoadParams::default()).unwrap()
    };
    let mut from = engine(&random(1), 1, params(1, 64, 64));
    let sequence = from.create().unwrap();
    run(&mut from, sequence, &[1, 2, 3]);
    let snapshot = saved(&from, sequence, &[1, 2, 3]);
    let error = engine(&random(2), 1, params(1, 64, 64)).restore(&snapshot, &mut vec![]).unwrap_err();
    assert!(error.to_string().contains("other weights"), "{error}");
    engine(&random(1), 1, params(1, 64, 64)).restore(&snapshot, &mut vec![]).unwrap();
}

#[test]
fn a_model_with_another_factor_is_another_model() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/gguf/untied-mixed.gguf");
    let with = |factor: f32| {
        let source = Arc::new(FileSource::open(path).unwrap());
        let read = |gguf: &Gguf| {
            let (config, mut graph) = read_graph(gguf)?;
            for node in &mut graph.nodes {
                if let Op::Attention(attention) = &mut node.op {
                    attention.scores.scale *= factor;
                }
            }
            Ok((config, graph))
        };
        engine(&Model::load(source, &LoadParams::default(), read).unwrap(), 1, params(1, 64, 64))
    };
    let mut from = with(1.0);
    let sequence = from.create().unwrap();
    run(&mut from, sequence, &[1, 2, 3]);
    let snapshot = saved(&from, sequence, &[]);
    with(1.0).restore(&snapshot, &mut vec![]).unwrap();
    let error = with(1.001).restore(&snapshot, &mut vec![]).unwrap_err();
    assert!(error.to_string().contains("other factors"), "{error}");
}

fn context(n_ctx: usize, threads: usize) -> Context {
    let model = model("hybrid-quant", Mask::Causal, Mask::Causal);
    let params = ContextParams::default().with_n_ctx(n_ctx).with_n_batch(32).with_threads(threads);
    Context::new(model, &params).unwrap()
}

#[test]
fn a_context_goes_on_from_its_snapshot() {
    let text = tokens(5, 200);
    let mut from = context(512, 2);
    from.decode(&text[..150], Logits::None).unwrap();
    let mut bytes = Vec::new();
    let mut append = |more: &[u8]| {
        bytes.extend_from_slice(more);
        Ok(())
    };
    from.save(&mut append).unwrap();
    assert_eq!(bytes.len() as u64, from.snapshot_bytes());
    from.decode(&text[150..], Logits::Last).unwrap();
    let mut to = context(220, 1);
    to.decode(&[7; 30], Logits::Last).unwrap();
    to.load(&BytesSource::new("a snapshot", bytes.clone())).unwrap();
    assert!(to.tokens() == &text[..150] && to.logits().is_empty());
    to.decode(&text[150..], Logits::Last).unwrap();
    assert!(bits(to.logits()) == bits(from.logits()));
    // What can't be loaded changes nothing.
    let before = bits(to.logits());
    bytes[200] ^= 1;
    let error = to.load(&BytesSource::new("a snapshot", bytes.clone())).unwrap_err();
    assert!(matches!(error, Error::Format(_)), "{error}");
    bytes[200] ^= 1;
    let (engine, sequence) = from.engine_of_tests();
    let without_tokens = saved(engine, sequence, &[]);
    assert!(to.load(&without_tokens).unwrap_err().to_string().contains("without tokens"));
    assert!(to.tokens() == text && bits(to.logits()) == before);
    let mut small = context(149, 1);
    let error = small.load(&BytesSource::new("a snapshot", bytes)).unwrap_err();
    assert!(matches!(error, Error::ContextFull { n_ctx: 149, needed: 150 }), "{error}");
}

/// A file that somebody changes after it was read once.
struct Changing {
    bytes: BytesSource,
    read: AtomicBool,
}

impl ByteSource for Changing {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn name(&self) -> &str {
        self.bytes.name()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.bytes.read_at(offset, buf)?;
        let is_last = offset + buf.len() as u64 == self.len();
        if is_last && self.read.swap(true, Relaxed) {
            buf[0] ^= 1;
        }
        Ok(())
    }
}

#[test]
fn a_snapshot_that_changes_while_it_is_read_leaves_an_empty_context() {
    let mut context = context(64, 1);
    context.decode(&tokens(1, 40), Logits::Last).unwrap();
    let (engine, sequence) = context.engine_of_tests();
    let bytes = saved(engine, sequence, context.tokens());
    let error = context.load(&Changing { bytes, read: AtomicBool::new(false) }).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
    assert!(context.is_empty() && context.logits().is_empty());
    context.decode(&tokens(1, 40), Logits::Last).unwrap();
}
