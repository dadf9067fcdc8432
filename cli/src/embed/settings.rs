//! How a file of vectors was made, kept beside it: a run that goes on with the file must make the same vectors.

use std::path::Path;

use serde::{Deserialize, Serialize};
use smallmind::embed::Embedder;

use crate::failure::Result;
use crate::kept_settings;

/// Most bytes of settings.
const MAX_BYTES: u64 = 16 << 20;

/// The text whose vector stands for the model and everything that changes a vector.
const PROBE: &str = "The quick brown fox jumps over the lazy dog.";

/// What a file of vectors depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub model: String,
    pub width: usize,
    pub prompt: String,
    pub long: String,
    pub n_ctx: usize,
    pub format: String,
    pub with_text: bool,
    pub inputs: Vec<String>,
    pub whole_files: bool,
    pub field: String,
    /// The vector of a text that is always the same: with other weights, another pooling or other arithmetic its bits
    /// differ.
    pub probe: Vec<f32>,
}

/// The vector of the probe.
///
/// # Errors
/// Those of [`Embedder::embed_one`].
pub fn probe(embedder: &mut Embedder) -> smallmind::Result<Vec<f32>> {
    embedder.embed_one(PROBE)
}

impl Settings {
    /// Those of a file; `None` where there are none.
    pub fn read(path: &Path) -> Result<Option<Settings>> {
        kept_settings::read(path, MAX_BYTES)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        kept_settings::write(path, self)
    }

    /// Refuses to go on with a file that was made otherwise, and says what differs.
    pub fn check_against(&self, path: &Path) -> Result<()> {
        let then: Settings = kept_settings::needed(path, MAX_BYTES)?;
        let same = [
            ("format", then.format == self.format),
            ("inputs", then.inputs == self.inputs),
            ("--whole-files", then.whole_files == self.whole_files),
            ("--field", then.field == self.field),
            ("--no-text", then.with_text == self.with_text),
            ("--dimensions", then.width == self.width),
            ("prompt", then.prompt == self.prompt),
            ("--long", (&then.long, then.n_ctx) == (&self.long, self.n_ctx)),
        ];
        kept_settings::check(path, &same)?;
        match then.probe == self.probe {
            true => Ok(()),
            false => Err(kept_settings::refused(path, "the model makes other vectors than then")),
        }
    }
}
