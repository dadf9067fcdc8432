//! The settings on which the order of the data depends. A state keeps them, and `--resume` compares them: with others, it
//! would go on with other batches.

use serde::{Deserialize, Serialize};
use smallmind::format::gguf::Gguf;
use smallmind::train::LoraParams;
use smallmind::{Error, Result};

use super::args::Train;
use super::data::Data;
use super::fingerprint::Fingerprint;

/// Bytes of a file's header that are read at a time.
const CHUNK: usize = 1 << 16;

/// The settings of a training.
#[derive(PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Fingerprints of the model's header and of all tokens.
    model: String,
    tokens: String,
    context: usize,
    batch: usize,
    accumulate: usize,
    validation: f64,
    seed: u64,
    /// The adapter that is trained, in words; empty for a model.
    #[serde(default)]
    adapter: String,
}

impl Settings {
    pub fn new(args: &Train, lora: Option<&LoraParams>, gguf: &Gguf, data: &Data) -> Result<Settings> {
        let adapter = lora.map_or(String::new(), |LoraParams { rank, alpha, targets, .. }| {
            let targets = if targets.is_empty() { "all matrices".into() } else { targets.join(",") };
            format!("an adapter of rank {rank}, alpha {alpha}, of {targets}")
        });
        Ok(Settings {
            model: header(gguf)?,
            tokens: data.fingerprint(),
            context: data.context(),
            batch: args.steps.batch,
            accumulate: args.steps.accumulate,
            validation: args.data.validation,
            seed: args.data.seed,
            adapter,
        })
    }

    /// The text that a state keeps.
    pub fn note(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::Internal(error.to_string()))
    }

    /// Compares them with those of a state.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the first that differs.
    pub fn check(&self, note: &str, state: &str) -> Result<()> {
        let other: Settings = serde_json::from_str(note)
            .map_err(|_| Error::invalid(format!("{state}: it was written by another program")))?;
        let differs = |what: String| Err(Error::invalid(format!("{state}: {what}")));
        if self.model != other.model {
            return differs("a state of another model".into());
        }
        if self.tokens != other.tokens {
            return differs("a state of another text".into());
        }
        if self.adapter != other.adapter {
            let what =
                |adapter: &str| if adapter.is_empty() { "the model".into() } else { adapter.to_owned() };
            let (was, is) = (what(&other.adapter), what(&self.adapter));
            return differs(format!("{was} was trained, not {is}"));
        }
        let numbers = |s: &Settings| {
            let whole = [s.context as u64, s.batch as u64, s.accumulate as u64, s.seed];
            let [context, batch, accumulate, seed] = whole.map(|number| number.to_string());
            [context, batch, accumulate, seed, s.validation.to_string()]
        };
        let names = ["context", "batch", "accumulate", "seed", "validation"];
        for ((name, was), is) in names.iter().zip(numbers(&other)).zip(numbers(self)) {
            if was != is {
                return differs(format!("it was trained with --{name} {was}, not {is}"));
            }
        }
        Ok(())
    }
}

/// The fingerprint of a file's header, which has the metadata and the list of tensors, and of its length.
fn header(gguf: &Gguf) -> Result<String> {
    let (source, end) = (gguf.source(), gguf.data_offset());
    let mut fingerprint = Fingerprint::default();
    fingerprint.add(&source.len().to_le_bytes());
    let mut chunk = [0; CHUNK];
    let mut at = 0;
    while at < end {
        let bytes = &mut chunk[..(end - at).min(CHUNK as u64) as usize];
        source.read_at(at, bytes)?;
        fingerprint.add(bytes);
        at += bytes.len() as u64;
    }
    Ok(fingerprint.to_string())
}
