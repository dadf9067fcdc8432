//! How a file of texts was made, kept beside it: a run that goes on with the file must make the same texts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::Result;
use crate::kept_settings;

/// Most bytes of settings: the options of sampling may hold a grammar.
const MAX_BYTES: u64 = 1 << 24;

/// What a file of texts depends on. How many requests run at the same time, and on how many threads, changes no text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub model: String,
    pub adapters: Vec<String>,
    pub weight_bytes: u64,
    pub activations: u64,
    pub kv: String,
    pub rope: [f32; 2],
    pub n_ctx: usize,
    pub input: String,
    pub max_tokens: usize,
    pub logprobs: Option<usize>,
    /// All options of sampling but for the seed.
    pub sampling: String,
    pub stop: Vec<String>,
    pub parse_special: bool,
    pub adds_bos: bool,
    pub seed: u64,
}

impl Settings {
    /// Those of a file that a run goes on with.
    pub fn read(path: &Path) -> Result<Settings> {
        kept_settings::needed(path, MAX_BYTES)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        kept_settings::write(path, self)
    }

    /// Refuses to go on with a file that was made otherwise, and says what differs.
    pub fn check_against(&self, path: &Path, then: &Settings) -> Result<()> {
        let same = [
            ("the model", (&then.model, then.weight_bytes) == (&self.model, self.weight_bytes)),
            ("--lora", then.adapters == self.adapters),
            ("--activations", then.activations == self.activations),
            ("--kv", then.kv == self.kv),
            ("--rope-scale or --rope-base", then.rope == self.rope),
            ("--ctx", then.n_ctx == self.n_ctx),
            ("the input", then.input == self.input),
            ("--max-tokens", then.max_tokens == self.max_tokens),
            ("--logprobs", then.logprobs == self.logprobs),
            ("sampling", then.sampling == self.sampling),
            ("--stop", then.stop == self.stop),
            ("--parse-special", then.parse_special == self.parse_special),
            ("--no-bos", then.adds_bos == self.adds_bos),
            ("--seed", then.seed == self.seed),
        ];
        kept_settings::check(path, &same)
    }
}
