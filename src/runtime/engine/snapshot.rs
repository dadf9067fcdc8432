//! Sequences of an engine as bytes and files, by which they go on in another engine, or another process.

use std::fmt::{self, Write};

use super::Engine;
use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::kv::{SequenceId, Sink, Tags};

/// A checksum of text that is written to it.
struct Sum(crc32fast::Hasher);

impl Sum {
    fn new() -> Sum {
        Sum(crc32fast::Hasher::new())
    }

    fn floats(&mut self, floats: &[f32]) {
        floats.iter().for_each(|x| self.0.update(&x.to_le_bytes()));
    }
}

impl Write for Sum {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

impl Engine {
    /// What the keys and values of a sequence depend on besides its tokens. Of the weights, some of each tensor.
    fn tags(&self) -> Result<Tags> {
        let (model, n_ctx) = (&self.model, self.n_ctx());
        let (graph, activations) = (model.graph(), model.kernels().qmatmul.activations());
        let [mut shape, mut weights, mut numerics] = [Sum::new(), Sum::new(), Sum::new()];
        // The text says what the nodes read, the nodes have all their factors.
        let written = write!(shape, "{}\n{graph}{:?}", model.config().architecture, graph.nodes)
            .and_then(|()| write!(numerics, "{activations:?}"))
            .and_then(|()| {
                graph.ropes.iter().try_for_each(|rope| write!(numerics, "{:?}", rope.config.with(&self.rope)))
            });
        written.map_err(|_| Error::Internal("a checksum takes all text".into()))?;
        for factors in graph.ropes.iter().filter_map(|rope| rope.factors(n_ctx)) {
            numerics.floats(factors);
        }
        model.weights().sample(&mut |values| weights.floats(values))?;
        let [shape, weights, numerics] = [shape, weights, numerics].map(|sum| sum.0.finalize());
        Ok(Tags { shape, weights, numerics })
    }

    /// Refuses sequences that can't go on.
    fn check_continues(&self) -> Result<()> {
        if self.needs_whole() {
            return Err(Error::invalid("a sequence that is decoded as a whole has nothing to go on from"));
        }
        Ok(())
    }

    /// Bytes of a snapshot of a sequence, with its tokens or without.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn snapshot_bytes(&self, sequence: SequenceId, with_tokens: bool) -> Result<u64> {
        self.cache.snapshot_bytes(sequence, with_tokens)
    }

    /// Hands out the bytes of a snapshot of a sequence, straight from the cache: its keys and values, the state of recurrent
    /// layers and the copy of that state. [`Engine::restore`] makes a sequence of it that goes on bit for bit. `tokens` are
    /// those of all its positions, or none, where the host keeps them itself.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist or is decoded as a whole, and for another number of
    /// tokens; those of `write`; [`Error::OutOfMemory`].
    pub fn save(&self, sequence: SequenceId, tokens: &[u32], write: Sink<'_>) -> Result<()> {
        self.check_continues()?;
        self.cache.save(sequence, tokens, self.tags()?, write)
    }

    /// A new sequence from a snapshot. Tokens of the snapshot replace those in `tokens`. Of a layer with a window, it has
    /// the positions that the next token sees, so it can't be rewound before them. Nothing has changed after an error.
    ///
    /// # Errors
    /// [`Error::Format`] where the source is no snapshot, is cut off, or was changed; [`Error::InvalidArgument`] for a
    /// snapshot of another model, of another element type or layout of keys and values, of other rotary scaling or
    /// activations, and where [`EngineParams::n_sequences`](super::EngineParams) sequences exist already;
    /// [`Error::ContextFull`] where the sequence is too long, or too few pages are free; [`Error::Io`];
    /// [`Error::OutOfMemory`].
    pub fn restore(&mut self, source: &dyn ByteSource, tokens: &mut Vec<u32>) -> Result<SequenceId> {
        self.check_continues()?;
        let (tags, mut read) = (self.tags()?, Vec::new());
        let sequence = self.cache.restore(tags, source, &mut read)?;
        if let Err(error) = self.check_tokens(&read) {
            self.cache.remove(sequence)?;
            return Err(error);
        }
        *tokens = read;
        Ok(sequence)
    }

    /// Reads a whole snapshot and checks it, and returns whether it has the tokens of its positions. [`Engine::restore`] takes
    /// it then, if there is room.
    ///
    /// # Errors
    /// As [`Engine::restore`].
    pub fn check_snapshot(&self, source: &dyn ByteSource) -> Result<bool> {
        self.check_continues()?;
        self.cache.check_snapshot(self.tags()?, source)
    }
}

#[cfg(feature = "report")]
impl Engine {
    /// [`Engine::save`] to a file, which appears whole or not at all.
    ///
    /// # Errors
    /// Those of [`Engine::save`]; [`Error::Io`] with the path: then the file that stood there before still does.
    pub fn save_file(&self, sequence: SequenceId, tokens: &[u32], path: &std::path::Path) -> Result<()> {
        let mut draft = crate::files::Draft::new(path, crate::files::Existing::Replace)?;
        self.save(sequence, tokens, &mut |bytes| draft.write(bytes))?;
        draft.publish()
    }
}
