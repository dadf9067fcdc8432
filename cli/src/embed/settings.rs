//! How a file of vectors was made, kept beside it: a run that goes on with the file must make the same vectors.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use smallmind::Error;
use smallmind::embed::Embedder;
use smallmind::text::escaped_path;

use super::output::beside;
use crate::failure::Result;
use crate::small_file;

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

/// Where the settings of a file stand.
pub fn place(path: &Path) -> PathBuf {
    beside(path, ".settings.json")
}

impl Settings {
    /// Those of a file; `None` where there are none.
    pub fn read(path: &Path) -> Result<Option<Settings>> {
        let place = place(path);
        if !place.exists() {
            return Ok(None);
        }
        let text = small_file::read_text(&place, MAX_BYTES)?;
        let settings = serde_json::from_str(&text)
            .map_err(|error| Error::invalid(format!("{}: {error}", escaped_path(&place))))?;
        Ok(Some(settings))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(smallmind::files::write(&place(path), text.as_bytes())?)
    }

    /// Refuses to go on with a file that was made otherwise, and says what differs.
    pub fn check_against(&self, path: &Path) -> Result<()> {
        let refused = |what: &str| {
            let path = escaped_path(path);
            Err(Error::invalid(format!("{path} can't be resumed: {what} (--force begins it again)")).into())
        };
        let Some(then) = Settings::read(path)? else {
            return refused("its .settings.json isn't there");
        };
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
        if let Some((what, _)) = same.iter().find(|(_, same)| !same) {
            return refused(&format!("{what} was another"));
        }
        match then.probe == self.probe {
            true => Ok(()),
            false => refused("the model makes other vectors than then"),
        }
    }
}
