//! Sequences that share pages get the bits that they get alone, whatever order they are made, grown, forked, rewound,
//! told to the index, found again and removed in. No page is lost, and a batch that lacks pages changes nothing.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Batch, Engine, EngineParams};
use crate::Error;
use crate::kv::{CacheType, PAGE, SequenceId};
use crate::model::{Mask, Model, Pooling};
use crate::runtime::engine_tests::{bits, engine, model, params, tokens};
use crate::runtime::{Output, Span};

/// Most positions of a sequence.
const N_CTX: usize = 3 * PAGE + 40;
/// Most rows by which a sequence grows at once.
const MOST_ROWS: usize = 150;
const N_SEQUENCES: usize = 4;

/// What happens to the sequences. Sequences are named by numbers, of those that exist.
#[derive(Clone, Debug)]
enum Action {
    Create,
    /// A text whose beginning the index may know.
    Begin {
        text: usize,
        len: usize,
    },
    /// Sequences and rows.
    Grow(Vec<(usize, usize)>),
    Fork {
        sequence: usize,
        part: f64,
    },
    Rewind {
        sequence: usize,
        part: f64,
    },
    Index(usize),
    Remove(usize),
    Release(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let sequence = 0..N_SEQUENCES;
    let rows = prop_oneof![3 => 1..4usize, 2 => 1..=MOST_ROWS];
    let part = prop_oneof![1 => Just(1.0), 2 => 0.0..=1.0];
    prop_oneof![
        2 => Just(Action::Create),
        3 => (0..2usize, 1..N_CTX).prop_map(|(text, len)| Action::Begin { text, len }),
        6 => prop::collection::vec((sequence.clone(), rows), 1..=N_SEQUENCES).prop_map(Action::Grow),
        3 => (sequence.clone(), part.clone()).prop_map(|(sequence, part)| Action::Fork { sequence, part }),
        1 => (sequence.clone(), part).prop_map(|(sequence, part)| Action::Rewind { sequence, part }),
        2 => sequence.clone().prop_map(Action::Index),
        1 => sequence.clone().prop_map(Action::Remove),
        2 => sequence.prop_map(Action::Release),
    ]
}

/// A sequence and its tokens.
struct Known {
    id: SequenceId,
    tokens: Vec<u32>,
    /// The text that it goes on with.
    text: usize,
}

/// An engine, the sequences that it should have, and an engine of one sequence to compare with.
struct World {
    engine: Engine,
    sequences: Vec<Known>,
    single: Engine,
    id: SequenceId,
    texts: Vec<Vec<u32>>,
}

impl World {
    fn new(model: &Arc<Model>, threads: usize, n_positions: usize, kv: CacheType) -> World {
        let common = params(N_SEQUENCES, N_CTX, N_SEQUENCES * MOST_ROWS);
        let shared =
            EngineParams { n_output: N_SEQUENCES, n_positions, prefix_index: true, kv, ..common.clone() };
        let mut single = engine(model, 1, EngineParams { n_sequences: 1, n_output: 1, kv, ..common });
        let id = single.create().unwrap();
        let texts = (0..2 * N_SEQUENCES).map(|i| tokens(i, N_CTX)).collect();
        World { engine: engine(model, threads, shared), sequences: Vec::new(), single, id, texts }
    }

    /// The logits after a text that is computed alone, in one pass.
    fn alone(&mut self, tokens: &[u32]) -> Vec<u32> {
        self.single.rewind(self.id, 0).unwrap();
        let spans = [Span::new(self.id, 0, tokens.len())];
        let outputs = [tokens.len() as u32 - 1];
        self.single.run(&Batch::new(tokens, &spans, &outputs)).unwrap();
        bits(self.single.output())
    }

    fn act(&mut self, action: &Action) {
        let count = self.sequences.len();
        match *action {
            Action::Create => match self.engine.create() {
                Ok(id) => self.sequences.push(Known { id, tokens: Vec::new(), text: count }),
                Err(_) => assert_eq!(count, N_SEQUENCES),
            },
            Action::Begin { text, len } => self.begin(text, len),
            Action::Grow(ref spans) => self.grow(spans),
            Action::Fork { sequence, part } => self.fork(sequence, part),
            Action::Rewind { sequence, part } if sequence < count => {
                let Known { id, tokens, text } = &mut self.sequences[sequence];
                let n = (part * tokens.len() as f64) as usize;
                if self.engine.rewind(*id, n).is_ok() {
                    tokens.truncate(n);
                    *text = (*text + 1) % self.texts.len();
                }
            }
            Action::Index(sequence) if sequence < count => {
                let Known { id, tokens, .. } = &self.sequences[sequence];
                self.engine.index_prefix(*id, tokens).unwrap();
            }
            Action::Remove(sequence) if sequence < count => {
                let Known { id, .. } = self.sequences.swap_remove(sequence);
                let (free, freed) = (self.engine.pages().free, self.engine.pages_freed(id).unwrap());
                self.engine.remove(id).unwrap();
                assert_eq!(self.engine.pages().free, free + freed);
            }
            Action::Release(sequence) if sequence < count => {
                let Known { id, tokens, .. } = self.sequences.swap_remove(sequence);
                self.engine.release_to_index(id, &tokens).unwrap();
            }
            _ => {}
        }
        self.engine.cache.audit();
        for Known { id, tokens, .. } in &self.sequences {
            assert_eq!(self.engine.len(*id).unwrap(), tokens.len());
        }
    }

    fn begin(&mut self, text: usize, len: usize) {
        let prompt = self.texts[text][..len].to_vec();
        let expected = self.engine.known_prefix(&prompt);
        match self.engine.create_with_prefix(&prompt) {
            Ok((id, known)) => {
                assert!(known == expected && known < len && known % PAGE == 0);
                self.sequences.push(Known { id, tokens: prompt[..known].to_vec(), text });
            }
            Err(_) => assert_eq!(self.sequences.len(), N_SEQUENCES),
        }
    }

    fn fork(&mut self, sequence: usize, part: f64) {
        let Some(Known { id, tokens, text }) = self.sequences.get(sequence) else { return };
        let n = (part * tokens.len() as f64) as usize;
        let free = self.engine.pages().free;
        if let Ok(id) = self.engine.fork(*id, n) {
            let known = Known { id, tokens: tokens[..n].to_vec(), text: (text + 1) % self.texts.len() };
            self.sequences.push(known);
        }
        assert_eq!(self.engine.pages().free, free, "a fork takes no page");
    }

    /// A batch, whose results are compared, or which changes nothing.
    fn grow(&mut self, wanted: &[(usize, usize)]) {
        let (mut batch, mut spans, mut outputs, mut grown) = (vec![], vec![], vec![], vec![]);
        let mut needed = 0;
        for &(sequence, rows) in wanted {
            let Some(Known { id, tokens, text }) = self.sequences.get(sequence) else { continue };
            let rows = rows.min(N_CTX - tokens.len());
            if rows == 0 || grown.contains(&sequence) {
                continue;
            }
            spans.push(Span::new(*id, tokens.len(), rows));
            batch.extend_from_slice(&self.texts[*text][tokens.len()..][..rows]);
            outputs.push(batch.len() as u32 - 1);
            grown.push(sequence);
            needed += self.engine.pages_needed(*id, rows).unwrap();
        }
        if spans.is_empty() {
            return;
        }
        let before = self.engine.pages();
        match self.engine.run(&Batch::new(&batch, &spans, &outputs)) {
            Ok(()) => {}
            Err(error) => {
                assert!(matches!(error, Error::ContextFull { .. }), "{error}");
                assert!(needed > before.free && self.engine.pages() == before);
                return;
            }
        }
        assert!(before.free.saturating_sub(needed) <= self.engine.pages().free);
        if let [_] = spans[..] {
            assert!(needed <= before.free, "a page more than was told");
            assert_eq!(self.engine.pages().free, before.free - needed);
        }
        let width = self.engine.model().config().n_vocab;
        let results: Vec<_> = self.engine.output().chunks(width).map(bits).collect();
        for ((sequence, span), result) in grown.into_iter().zip(&spans).zip(results) {
            let Known { tokens, text, .. } = &mut self.sequences[sequence];
            tokens.extend_from_slice(&self.texts[*text][span.first..][..span.rows]);
            let tokens = tokens.clone();
            assert!(result == self.alone(&tokens), "sequence {sequence} at {}", tokens.len());
        }
    }

    /// Removes everything: all pages are there again.
    fn end(mut self) {
        for Known { id, .. } in &self.sequences {
            self.engine.remove(*id).unwrap();
        }
        self.engine.cache.audit();
        assert!(self.engine.cache.is_free());
        self.engine.clear_prefixes();
        self.engine.cache.audit();
        assert!(self.engine.cache.is_free() && self.engine.pages().kept == 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn sequences_that_share_pages_get_the_bits_that_they_get_alone(
        actions in prop::collection::vec(action(), 1..40),
        threads in 1..3usize,
        window in prop::sample::select(vec![None, Some(100), Some(PAGE + 1)]),
        n_positions in prop::sample::select(vec![N_CTX, 2 * N_CTX, N_SEQUENCES * N_CTX]),
        name in prop::sample::select(vec!["untied-mixed", "qwen3-untied", "hybrid-quant", "short-conv"]),
        kv in prop::sample::select(CacheType::ALL.to_vec()),
    ) {
        let model = model(name, Mask::Causal, window.map_or(Mask::Causal, Mask::Window));
        let mut world = World::new(&model, threads, n_positions, kv);
        actions.iter().for_each(|action| world.act(action));
        world.end();
    }
}

/// Appends tokens; the bits of the last one's logits.
fn run(engine: &mut Engine, sequence: SequenceId, tokens: &[u32]) -> Vec<u32> {
    let spans = [Span::new(sequence, engine.len(sequence).unwrap(), tokens.len())];
    engine.run(&Batch::new(tokens, &spans, &[tokens.len() as u32 - 1])).unwrap();
    bits(engine.output())
}

#[test]
fn a_shared_beginning_is_computed_once_and_takes_the_memory_of_one() {
    let model = model("untied-mixed", Mask::Causal, Mask::Causal);
    let n_positions = 4 * PAGE;
    let mut engine =
        engine(&model, 2, EngineParams { n_positions, prefix_index: true, ..params(32, 512, 256) });
    let total = engine.pages().total;
    assert_eq!(total, 4 + 31);
    let prompt = tokens(0, 2 * PAGE);
    let first = engine.create().unwrap();
    run(&mut engine, first, &prompt);
    engine.index_prefix(first, &prompt).unwrap();
    for i in 1..32 {
        let mut text = prompt.clone();
        text.extend(tokens(i, 5));
        let (id, known) = engine.create_with_prefix(&text).unwrap();
        assert_eq!(known, 2 * PAGE);
        run(&mut engine, id, &text[known..]);
    }
    assert_eq!(engine.pages().free, total - 2 - 31);
}

#[test]
fn a_state_is_forked_where_it_is_known_only() {
    for name in ["hybrid-quant", "short-conv"] {
        let model = model(name, Mask::Causal, Mask::Causal);
        let mut engine = engine(&model, 1, EngineParams { prefix_index: true, ..params(3, 256, 256) });
        let text = tokens(1, 200);
        let id = engine.create().unwrap();
        run(&mut engine, id, &text[..150]);
        engine.keep(id).unwrap();
        let wanted = run(&mut engine, id, &text[150..]);
        let error = engine.fork(id, 160).unwrap_err().to_string();
        assert!(error.contains("can't fork at 160") && error.contains("only at 150"), "{error}");
        let fork = engine.fork(id, 150).unwrap();
        assert_eq!(engine.kept(fork).unwrap(), Some(150));
        assert!(run(&mut engine, fork, &text[150..]) == wanted, "{name}");
        engine.rewind(fork, 150).unwrap();
        assert!(run(&mut engine, fork, &text[150..]) == wanted, "{name}: its copy too");
        engine.release_to_index(id, &text).unwrap();
        assert_eq!(engine.known_prefix(&text), 0, "states aren't kept for prefixes");
    }
}

#[test]
fn what_is_decoded_as_a_whole_is_not_shared() {
    let causal = model("untied-mixed", Mask::Causal, Mask::Causal);
    let full = model("untied-mixed", Mask::Full, Mask::Full);
    let output = Output::Pooled(Pooling::Mean);
    let one_span = EngineParams { one_span: true, output, prefix_index: true, ..params(2, 256, 256) };
    for (model, params) in [(causal, one_span.clone()), (full, EngineParams { one_span: false, ..one_span })]
    {
        let mut engine = engine(&model, 1, params);
        let (id, text) = (engine.create().unwrap(), tokens(0, 200));
        run(&mut engine, id, &text);
        assert!(engine.fork(id, 128).unwrap_err().to_string().contains("as a whole"));
        engine.release_to_index(id, &text).unwrap();
        assert_eq!(engine.known_prefix(&text), 0);
    }
}
