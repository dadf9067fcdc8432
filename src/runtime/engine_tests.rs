//! Batches of spans: a sequence gets the same bits as alone, for any other sequences in the batch, any division into
//! passes, any pages and any number of threads. A batch that contradicts itself is refused and changes nothing.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Batch, Engine, EngineParams, Output, Span};
use crate::Error;
use crate::format::FileSource;
use crate::format::gguf::Gguf;
use crate::kv::{CacheType, SequenceId};
use crate::model::{Family, LoadParams, Mask, Model, Pooling};
use crate::threads::Team;

/// The model of a small file, with one mask for its even layers and another one for its odd layers.
pub(super) fn model(name: &str, even: Mask, odd: Mask) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/gguf/{name}.gguf"));
    let source = Arc::new(FileSource::open(&path).unwrap());
    let read = |gguf: &Gguf| {
        let architecture = gguf.metadata().get_str("general.architecture").unwrap().unwrap();
        Family::named(architecture).read_changed(gguf, |config| {
            for (i, layer) in config.layers.iter_mut().enumerate() {
                layer.mask = if i % 2 == 0 { even } else { odd };
            }
        })
    };
    Model::load(source, &LoadParams::default(), read).unwrap()
}

pub(super) fn engine(model: &Arc<Model>, threads: usize, params: EngineParams) -> Engine {
    Engine::new(model.clone(), &params, Arc::new(Team::new(threads).unwrap())).unwrap()
}

pub(super) fn params(n_sequences: usize, n_ctx: usize, n_batch: usize) -> EngineParams {
    EngineParams { n_sequences, n_ctx, n_batch, n_output: n_batch, ..EngineParams::default() }
}

/// The tokens of a sequence: different ones for each seed.
pub(super) fn tokens(seed: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 37 + seed * 101 + 5) % 288) as u32).collect()
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// All output rows of a sequence alone, in passes of the given number of tokens.
fn alone(model: &Arc<Model>, output: Output, tokens: &[u32], n_batch: usize) -> Vec<u32> {
    let mut engine = engine(model, 1, EngineParams { output, ..params(1, 512, n_batch) });
    let sequence = engine.create().unwrap();
    let mut all = Vec::new();
    for (i, chunk) in tokens.chunks(n_batch).enumerate() {
        let spans = [Span { sequence, rows: chunk.len(), first: i * n_batch }];
        let outputs: Vec<u32> = (0..chunk.len() as u32).collect();
        engine.run(&Batch { tokens: chunk, spans: &spans, outputs: &outputs }).unwrap();
        all.extend(bits(engine.output()));
    }
    all
}

/// A pass over spans: for each its sequence and its number of tokens.
type Pass = Vec<(usize, usize)>;

/// Some passes over up to `n` sequences whose lengths stay below `most`.
fn passes(n: usize, most: usize, longest: usize) -> impl Strategy<Value = Vec<Pass>> {
    let span = (0..n, prop_oneof![3 => Just(1), 2 => 1..20usize, 1 => 1..=longest]);
    prop::collection::vec(prop::collection::vec(span, 1..=n), 1..8).prop_map(move |mut passes| {
        let mut lengths = vec![0; n];
        for pass in &mut passes {
            let mut seen = vec![false; n];
            pass.retain(|&(sequence, rows)| {
                let fits = !std::mem::replace(&mut seen[sequence], true) && lengths[sequence] + rows <= most;
                lengths[sequence] += if fits { rows } else { 0 };
                fits
            });
        }
        passes.retain(|pass| !pass.is_empty());
        passes
    })
}

/// Runs passes, and returns each sequence's rows of output, one after the other.
fn together(engine: &mut Engine, ids: &[SequenceId], texts: &[Vec<u32>], passes: &[Pass]) -> Vec<Vec<u32>> {
    let width = engine.model().config().n_vocab;
    let mut rows = vec![Vec::new(); ids.len()];
    for pass in passes {
        let (mut batch, mut spans) = (Vec::new(), Vec::new());
        for &(sequence, count) in pass {
            let first = engine.len(ids[sequence]).unwrap();
            batch.extend(&texts[sequence][first..first + count]);
            spans.push(Span { sequence: ids[sequence], rows: count, first });
        }
        let outputs: Vec<u32> = (0..batch.len() as u32).collect();
        engine.run(&Batch { tokens: &batch, spans: &spans, outputs: &outputs }).unwrap();
        let mut out = engine.output().chunks(width);
        for &(sequence, count) in pass {
            out.by_ref().take(count).for_each(|row| rows[sequence].extend(bits(row)));
        }
    }
    rows
}

/// Allocates pages and frees them, so that later ones are in no order.
fn shuffle_pages(engine: &mut Engine, rounds: usize) {
    let ids: Vec<_> = (0..3).map(|_| engine.create().unwrap()).collect();
    for i in 0..3 * rounds {
        let sequence = ids[i * 7 % 3];
        let first = engine.len(sequence).unwrap();
        let rows = 60.min(engine.n_ctx() - first);
        if rows == 0 {
            engine.rewind(sequence, 0).unwrap();
            continue;
        }
        let spans = [Span { sequence, rows, first }];
        engine.run(&Batch { tokens: &tokens(i, rows), spans: &spans, outputs: &[] }).unwrap();
    }
    for i in [1, 0, 2] {
        engine.remove(ids[i]).unwrap();
    }
}

const MASKS: [(Mask, Mask); 4] = [
    (Mask::Causal, Mask::Causal),
    (Mask::Causal, Mask::Window(100)),
    (Mask::Window(7), Mask::Window(150)),
    (Mask::Window(1), Mask::Window(1)),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_sequence_among_others_gets_the_bits_that_it_gets_alone(
        passes in passes(4, 400, 120),
        (masks, threads, rounds) in (0..MASKS.len(), 1..4usize, 0..5usize),
        name in prop::sample::select(vec!["untied-mixed", "qwen3-untied", "gpt-tied-quant", "hybrid-quant", "short-conv"]),
        kv in prop::sample::select(CacheType::ALL.to_vec()),
    ) {
        let (even, odd) = MASKS[masks];
        let model = model(name, even, odd);
        // A GPT has learned 40 positions.
        let most = model.config().n_ctx_most().min(512);
        let passes: Vec<Pass> = if most < 400 {
            vec![passes[0].iter().map(|&(sequence, rows)| (sequence, rows.min(most))).collect()]
        } else {
            passes
        };
        let mut engine = engine(&model, threads, EngineParams { kv, ..params(4, most, 4 * 120) });
        shuffle_pages(&mut engine, rounds);
        let ids: Vec<_> = (0..4).map(|_| engine.create().unwrap()).collect();
        let texts: Vec<_> = (0..4).map(|i| tokens(i, most)).collect();
        let rows = together(&mut engine, &ids, &texts, &passes);
        for (i, rows) in rows.iter().enumerate() {
            let text = &texts[i][..engine.len(ids[i]).unwrap()];
            let mut single = super::engine_tests::engine(&model, 1, EngineParams { kv, ..params(1, most, most) });
            let id = single.create().unwrap();
            let whole = if text.is_empty() { vec![] } else { vec![vec![(0, text.len())]] };
            let wanted = together(&mut single, &[id], &[text.to_vec()], &whole);
            prop_assert!(*rows == wanted[0], "{name}, sequence {i} of {passes:?} with {even} and {odd}");
        }
    }

    #[test]
    fn so_it_is_where_tokens_see_what_stands_behind_them(
        lengths in prop::collection::vec(1..150usize, 1..6),
        threads in 1..4usize,
        full in any::<bool>(),
    ) {
        let mask = Mask::SymmetricWindow(30);
        let model = model("untied-mixed", mask, if full { Mask::Full } else { mask });
        let mut engine = engine(&model, threads, params(6, 150, 900));
        let ids: Vec<_> = lengths.iter().map(|_| engine.create().unwrap()).collect();
        let texts: Vec<_> = lengths.iter().enumerate().map(|(i, &len)| tokens(i, len)).collect();
        let pass: Pass = lengths.iter().copied().enumerate().collect();
        let rows = together(&mut engine, &ids, &texts, &[pass]);
        for (text, rows) in texts.iter().zip(rows) {
            prop_assert!(rows == alone(&model, Output::Logits, text, 512), "{lengths:?}");
        }
    }
}

/// Models with recurrent layers: state spaces, and short convolutions.
const RECURRENT: [&str; 2] = ["hybrid-quant", "short-conv"];

#[test]
fn a_recurrent_sequence_returns_only_to_where_its_state_was_kept() {
    for name in RECURRENT {
        let model = model(name, Mask::Causal, Mask::Causal);
        let mut engine = engine(&model, 2, params(2, 64, 32));
        assert!(engine.has_state());
        let [sequence, other] = [(); 2].map(|()| engine.create().unwrap());
        let text = tokens(1, 30);
        let run = |engine: &mut Engine, begin: usize, end: usize| {
            let spans = [Span { sequence, rows: end - begin, first: begin }];
            let outputs = [(end - begin) as u32 - 1];
            engine.run(&Batch { tokens: &text[begin..end], spans: &spans, outputs: &outputs }).unwrap();
            bits(engine.output())
        };
        run(&mut engine, 0, 20);
        let error = engine.rewind(sequence, 10).unwrap_err().to_string();
        assert!(error.contains("recurrent layers") && !error.contains("only at"), "{error}");
        engine.keep(sequence).unwrap();
        assert_eq!((engine.kept(sequence).unwrap(), engine.kept(other).unwrap()), (Some(20), None));
        let wanted = run(&mut engine, 20, 30);
        let error = engine.rewind(sequence, 25).unwrap_err().to_string();
        assert!(error.contains("recurrent layers") && error.contains("only at 20"), "{error}");
        assert_eq!(engine.len(sequence).unwrap(), 30);
        engine.rewind(sequence, 20).unwrap();
        assert!(run(&mut engine, 20, 30) == wanted, "{name}: from the copy");
        // A new sequence in the place of one that was removed begins with zeros.
        engine.remove(other).unwrap();
        engine.rewind(sequence, 0).unwrap();
        assert_eq!(engine.kept(sequence).unwrap(), None);
        run(&mut engine, 0, 3);
        assert!(run(&mut engine, 3, 30) == wanted, "{name}: from the beginning");
        engine.remove(sequence).unwrap();
        let again = engine.create().unwrap();
        let spans = [Span { sequence: again, rows: 30, first: 0 }];
        engine.run(&Batch { tokens: &text, spans: &spans, outputs: &[29] }).unwrap();
        assert!(bits(engine.output()) == wanted, "{name}: in the place of another sequence");
    }
}

#[test]
fn states_count_as_memory() {
    for name in RECURRENT {
        let model = model(name, Mask::Causal, Mask::Causal);
        let cache = |n_sequences, n_positions| {
            let params = EngineParams { n_positions, ..params(n_sequences, 256, 8) };
            Engine::memory(&model, &params, 1).unwrap().cache_bytes
        };
        let page = cache(1, 256) - cache(1, 128);
        let state = engine(&model, 1, params(1, 128, 8)).plan().state_bytes;
        assert!(page > 0 && state > 0);
        assert_eq!(cache(1, 128), page + 2 * state, "{name}: a state and its copy");
        assert_eq!(cache(2, 128), 2 * (page + 2 * state), "{name}: of each sequence");
    }
}

#[test]
fn masks_mean_what_they_say() {
    let text = tokens(3, 90);
    let logits = |even, odd| alone(&model("tied-rope-freqs", even, odd), Output::Logits, &text, 512);
    let causal = logits(Mask::Causal, Mask::Causal);
    assert!(causal == logits(Mask::Window(90), Mask::Window(1000)), "a window that holds all is none");
    assert!(causal != logits(Mask::Window(89), Mask::Causal));
    let full = logits(Mask::Full, Mask::Full);
    assert!(full == logits(Mask::SymmetricWindow(180), Mask::SymmetricWindow(1000)));
    assert!(full != causal && full != logits(Mask::SymmetricWindow(176), Mask::Full));
    // A token that sees only itself has the same result at any position: the rotations cancel.
    let model = model("tied-rope-freqs", Mask::Window(1), Mask::Window(1));
    let width = model.config().n_vocab;
    let here = alone(&model, Output::Logits, &[9, 9, 200, 9], 512);
    assert!(here[..width] == here[width..2 * width] && here[..width] == here[3 * width..]);
    assert!(here[..width] != here[2 * width..3 * width]);
    // Both masks are the same for the last token of a whole sequence, but not for the others.
    let last = causal.len() - width;
    assert!(causal[..width] != full[..width] && causal[last..] != full[last..]);
}

#[test]
fn hidden_rows_are_what_the_head_reads() {
    let model = model("qwen3-untied", Mask::Causal, Mask::Causal);
    let (width, n_vocab) = (model.config().n_embd, model.config().n_vocab);
    let text = tokens(1, 30);
    let hidden: Vec<f32> =
        alone(&model, Output::Hidden, &text, 7).iter().map(|&bits| f32::from_bits(bits)).collect();
    let logits = alone(&model, Output::Logits, &text, 512);
    assert_eq!((hidden.len(), logits.len()), (30 * width, 30 * n_vocab));
    let crate::model::graph::Op::Linear(_, head, None, _) =
        model.graph().node(model.graph().logits.unwrap()).op
    else {
        panic!("the head is a product")
    };
    let mut row = vec![0.0; width];
    for v in (0..n_vocab).step_by(13) {
        model.weights().matrix(head).row(v, &mut row).unwrap();
        for (t, hidden) in hidden.chunks(width).enumerate() {
            let terms = || hidden.iter().zip(&row).map(|(&a, &b)| f64::from(a) * f64::from(b));
            let (sum, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            let got = f64::from(f32::from_bits(logits[t * n_vocab + v]));
            // A sum of `width` products in f32.
            let bound = size * width as f64 * f64::from(f32::EPSILON);
            assert!((got - sum).abs() <= bound, "{v} at {t}: {got} for {sum}");
        }
    }
}

/// The row that a pooling makes of rows.
fn pooled(pooling: Pooling, rows: &[&[f32]], width: usize) -> Vec<f32> {
    match (pooling, rows) {
        (_, []) => vec![0.0; width],
        (Pooling::Cls, [first, ..]) => first.to_vec(),
        (Pooling::Last, [.., last]) => last.to_vec(),
        _ => {
            let mut sum = vec![0.0f32; width];
            rows.iter().for_each(|row| sum.iter_mut().zip(*row).for_each(|(sum, x)| *sum += x));
            sum.iter().map(|sum| sum * (1.0 / rows.len() as f32)).collect()
        }
    }
}

#[test]
fn scores_need_a_classifier() {
    let params = EngineParams { output: Output::Pooled(Pooling::Rank), ..params(1, 64, 64) };
    let team = Arc::new(Team::new(1).unwrap());
    let model = model("qwen3-untied", Mask::Causal, Mask::Causal);
    let error = Engine::new(model, &params, team).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)) && error.to_string().contains("no classifier"), "{error}");
}

/// Of some rows, of two sequences at once, one of them without rows.
#[test]
fn rows_of_spans_are_pooled() {
    for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Last] {
        for threads in [1, 2] {
            check_pooling(pooling, threads);
        }
    }
}

fn check_pooling(pooling: Pooling, threads: usize) {
    let model = model("qwen3-untied", Mask::Causal, Mask::Causal);
    let (width, text) = (model.config().n_embd, tokens(1, 30));
    let hidden: Vec<f32> =
        alone(&model, Output::Hidden, &text, 7).iter().map(|&bits| f32::from_bits(bits)).collect();
    let output = Output::Pooled(pooling);
    let mut engine = engine(&model, threads, EngineParams { output, ..params(2, 64, 64) });
    let ids = [engine.create().unwrap(), engine.create().unwrap()];
    let mut batch = text.clone();
    batch.extend(&text[..3]);
    let spans = [Span { sequence: ids[0], rows: 30, first: 0 }, Span { sequence: ids[1], rows: 3, first: 0 }];
    for outputs in [(0..33).collect::<Vec<u32>>(), vec![1, 4, 30], vec![7]] {
        engine.rewind(ids[0], 0).unwrap();
        engine.rewind(ids[1], 0).unwrap();
        engine.run(&Batch { tokens: &batch, spans: &spans, outputs: &outputs }).unwrap();
        assert_eq!(engine.output().len(), 2 * width);
        for (span, row) in engine.output().chunks(width).enumerate() {
            let rows: Vec<&[f32]> = outputs
                .iter()
                .map(|&row| row as usize)
                .filter(|&row| (row >= 30) == (span == 1))
                .map(|row| &hidden[row % 30 * width..][..width])
                .collect();
            assert_eq!(bits(row), bits(&pooled(pooling, &rows, width)), "{pooling:?} {outputs:?}");
        }
    }
}

#[test]
fn batches_that_contradict_themselves_change_nothing() {
    let model = model("untied-mixed", Mask::Causal, Mask::Causal);
    let mut engine = engine(&model, 2, EngineParams { n_output: 4, n_positions: 200, ..params(3, 200, 400) });
    let [a, b] = [engine.create().unwrap(), engine.create().unwrap()];
    let gone = engine.create().unwrap();
    engine.remove(gone).unwrap();
    let c = engine.create().unwrap();
    let text = tokens(0, 401);
    let span = |sequence, rows, first| Span { sequence, rows, first };
    engine
        .run(&Batch { tokens: &text[..30], spans: &[span(a, 10, 0), span(b, 20, 0)], outputs: &[9] })
        .unwrap();
    let before = bits(engine.output());
    type Case<'a> = (&'a [Span], usize, &'a [u32]);
    let cases: [Case<'_>; 15] = [
        (&[], 0, &[]),
        (&[span(a, 0, 10)], 0, &[]),
        (&[span(a, 5, 10)], 4, &[]),
        (&[span(a, usize::MAX, 10), span(b, 6, 20)], 5, &[]),
        (&[span(a, 1, 9)], 1, &[]),
        (&[span(a, 1, 11)], 1, &[]),
        (&[span(a, 1, 10), span(a, 1, 11)], 2, &[]),
        (&[span(b, 1, 20), span(gone, 1, 0)], 2, &[]),
        (&[span(a, 2, 10)], 2, &[1, 0]),
        (&[span(a, 2, 10)], 2, &[1, 1]),
        (&[span(a, 2, 10)], 2, &[2]),
        (&[span(a, 5, 10)], 5, &[0, 1, 2, 3, 4]),
        (&[span(a, 191, 10)], 191, &[]),
        (&[span(a, 190, 10), span(b, 180, 20), span(c, 31, 0)], 401, &[]),
        // Each sequence alone would fit, but together they need five pages of four.
        (&[span(a, 150, 10), span(b, 150, 20), span(c, 1, 0)], 301, &[]),
    ];
    for (i, (spans, count, outputs)) in cases.into_iter().enumerate() {
        let error = engine.run(&Batch { tokens: &text[..count], spans, outputs }).unwrap_err();
        let expected = matches!(error, Error::InvalidArgument(_) | Error::ContextFull { .. });
        assert!(expected && !error.to_string().contains('\n'), "{i}: {error}");
        assert_eq!((engine.len(a).unwrap(), engine.len(b).unwrap()), (10, 20), "{i}");
        assert!(bits(engine.output()) == before, "{i}: the output is gone");
    }
    let outside = [1, 288];
    assert!(engine.run(&Batch { tokens: &outside, spans: &[span(a, 2, 10)], outputs: &[] }).is_err());
    assert!(engine.len(gone).is_err() && engine.rewind(gone, 0).is_err() && engine.remove(gone).is_err());
    // Both continue as if nothing had happened.
    engine
        .run(&Batch { tokens: &text[30..32], spans: &[span(b, 1, 20), span(a, 1, 10)], outputs: &[1] })
        .unwrap();
    let mut single = text[..10].to_vec();
    single.push(text[31]);
    let wanted = alone(&model, Output::Logits, &single, 512);
    let width = model.config().n_vocab;
    assert!(bits(engine.output()) == wanted[10 * width..]);
}

#[test]
fn what_is_not_causal_comes_whole_or_not_at_all() {
    let model = model("untied-mixed", Mask::Causal, Mask::Full);
    let mut engine = engine(&model, 1, params(1, 64, 32));
    let sequence = engine.create().unwrap();
    let text = tokens(0, 40);
    let mut run = |rows: usize, first| {
        let spans = [Span { sequence, rows, first }];
        engine.run(&Batch { tokens: &text[..rows], spans: &spans, outputs: &[] })
    };
    run(20, 0).unwrap();
    assert!(run(1, 20).unwrap_err().to_string().contains("as a whole"));
    assert!(run(40, 0).is_err());
}

#[test]
fn a_window_gives_its_pages_back() {
    let windowed = model("untied-mixed", Mask::Window(100), Mask::Window(100));
    let mut engine = engine(&windowed, 1, EngineParams { n_output: 1, ..params(1, 4096, 64) });
    let causal = model("untied-mixed", Mask::Causal, Mask::Causal);
    let small = Engine::memory(&windowed, &params(1, 4096, 64), 1).unwrap().cache_bytes;
    let large = Engine::memory(&causal, &params(1, 4096, 64), 1).unwrap().cache_bytes;
    assert_eq!(large / small, 32 / 3, "three pages hold a window of 100 and a batch of 64");
    let sequence = engine.create().unwrap();
    let text = tokens(0, 3000);
    for (i, chunk) in text.chunks(64).enumerate() {
        let spans = [Span { sequence, rows: chunk.len(), first: i * 64 }];
        engine.run(&Batch { tokens: chunk, spans: &spans, outputs: &[chunk.len() as u32 - 1] }).unwrap();
    }
    // Only the end of the text: each of the two layers sees 99 earlier positions.
    let end = bits(engine.output());
    assert!(end.iter().any(|&bits| bits != end[0]));
    assert!(engine.rewind(sequence, 2000).unwrap_err().to_string().contains("window"));
    assert_eq!(engine.len(sequence).unwrap(), 3000);
    engine.rewind(sequence, 2990).unwrap();
    let spans = [Span { sequence, rows: 10, first: 2990 }];
    engine.run(&Batch { tokens: &text[2990..], spans: &spans, outputs: &[9] }).unwrap();
    assert!(bits(engine.output()) == end);
}

#[test]
fn absurd_parameters_are_refused_before_memory_is() {
    let model = model("untied-mixed", Mask::Causal, Mask::Causal);
    let team = Arc::new(Team::new(1).unwrap());
    for params in [
        EngineParams { n_sequences: 0, ..params(1, 64, 8) },
        EngineParams { n_sequences: usize::MAX, ..params(1, 64, 8) },
        EngineParams { n_ctx: usize::MAX, ..params(1, 64, 8) },
        EngineParams { n_batch: usize::MAX, ..params(1, 64, 8) },
        EngineParams { n_output: usize::MAX, ..params(1, 64, 8) },
    ] {
        assert!(Engine::memory(&model, &params, 1).is_err(), "{params:?}");
        assert!(Engine::new(model.clone(), &params, team.clone()).is_err(), "{params:?}");
    }
    // Sequences share fewer positions than they could have together, down to a page each.
    let few = EngineParams { n_positions: 1, ..params(3, 512, 8) };
    let memory = |params: &EngineParams| Engine::memory(&model, params, 1).unwrap().cache_bytes;
    assert_eq!(memory(&params(3, 512, 8)), 4 * memory(&few));
}
