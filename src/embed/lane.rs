//! A lane: an engine with the lists that describe a pass, and all memory for it reserved.

use std::ops::Range;
use std::sync::Arc;

use super::window::Window;
use crate::error::Result;
use crate::kv::SequenceId;
use crate::memory::reserve::{collected, with_room};
use crate::model::{Model, Pooling};
use crate::runtime::{Batch, Engine, EngineParams, Span};
use crate::threads::Team;

/// The purpose of the memory, in errors.
const WHAT: &str = "an embedder";

/// An engine that makes a pooled row of each text of a pass.
pub(super) struct Lane {
    pub engine: Engine,
    sequences: Vec<SequenceId>,
    /// Sequences of the last pass.
    used: usize,
    tokens: Vec<u32>,
    spans: Vec<Span>,
    outputs: Vec<u32>,
    /// The row of a text that pooling reads; the mean reads all.
    row: Pooling,
}

impl Lane {
    pub fn new(model: Arc<Model>, params: &EngineParams, row: Pooling, team: Arc<Team>) -> Result<Lane> {
        let mut engine = Engine::new(model, params, team)?;
        let sequences = collected((0..params.n_sequences).map(|_| engine.create()), WHAT)?;
        let n_batch = engine.n_batch();
        Ok(Lane {
            sequences,
            used: 0,
            tokens: with_room(n_batch, WHAT)?,
            spans: with_room(params.n_sequences, WHAT)?,
            outputs: with_room(n_batch, WHAT)?,
            row,
            engine,
        })
    }

    /// Runs the items at these places of a window's order in one pass: a row each.
    ///
    /// # Errors
    /// Those of [`Engine::run`].
    pub fn run(&mut self, window: &Window, places: Range<usize>) -> Result<&[f32]> {
        for &sequence in &self.sequences[..self.used] {
            self.engine.rewind(sequence, 0)?;
        }
        self.used = places.len();
        self.tokens.clear();
        self.spans.clear();
        self.outputs.clear();
        for (item, &sequence) in window.items(places).zip(&self.sequences) {
            let first = self.tokens.len() as u32;
            self.tokens.extend_from_slice(window.tokens_of(item));
            let end = self.tokens.len() as u32;
            self.spans.push(Span::new(sequence, 0, item.len));
            match self.row {
                Pooling::Cls => self.outputs.push(first),
                Pooling::Last => self.outputs.push(end - 1),
                Pooling::Mean | Pooling::Rank => self.outputs.extend(first..end),
            }
        }
        self.engine.run(&Batch::new(&self.tokens, &self.spans, &self.outputs))?;
        Ok(self.engine.output())
    }
}
