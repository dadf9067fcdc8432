//! The families of models. A family is a file that reads a configuration and emits a graph, and an entry in
//! [`FAMILIES`]. Parts that several families share are in `parts`.

mod gpt2;
mod llama;
mod parts;
mod qwen2;
mod qwen3;

use super::builder::Builder;
use super::config::{Config, Keys};
use super::graph::{Graph, Value};
use crate::error::{Error, Result, quoted};
use crate::format::gguf::Gguf;

/// A family of models.
pub(crate) struct Family {
    /// `general.architecture` of its files.
    pub name: &'static str,
    /// Reads the configuration, given the number of rows of the embedding.
    pub config: fn(&Keys<'_>, usize) -> Result<Config>,
    /// Emits the graph; returns the last hidden rows and the logits.
    pub emit: fn(&mut Builder<'_>, &Config) -> Result<(Value, Value)>,
}

/// Every family, by name.
const FAMILIES: &[Family] = &[gpt2::FAMILY, llama::FAMILY, qwen2::FAMILY, qwen3::FAMILY];

/// The configuration and the graph of a file.
pub(super) fn read(gguf: &Gguf) -> Result<(Config, Graph)> {
    let architecture = gguf.metadata().get_str("general.architecture")?.unwrap_or("");
    match FAMILIES.iter().find(|family| family.name == architecture) {
        Some(family) => family.read(gguf, |_| {}),
        None => {
            let known: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
            let (known, architecture) = (known.join(", "), quoted(architecture));
            Err(Error::Unsupported(format!("architecture {architecture} (known: {known})")))
        }
    }
}

impl Family {
    /// The family that reads such files.
    #[cfg(test)]
    pub fn named(name: &str) -> &'static Family {
        FAMILIES.iter().find(|family| family.name == name).expect("a family of that name")
    }

    /// Reads a file of this family, after a change of its configuration.
    pub fn read(&self, gguf: &Gguf, change: impl FnOnce(&mut Config)) -> Result<(Config, Graph)> {
        let mut config = (self.config)(&Keys::new(gguf.metadata())?, vocabulary_size(gguf)?)?;
        change(&mut config);
        let mut builder = Builder::new(gguf, &config, self.name)?;
        let (hidden, logits) = (self.emit)(&mut builder, &config)?;
        Ok((config, builder.finish(hidden, logits)))
    }
}

/// Rows of the embedding. Every family has one, and its rows bound every token id.
fn vocabulary_size(gguf: &Gguf) -> Result<usize> {
    let tensor = gguf
        .tensor("token_embd.weight")
        .ok_or_else(|| Error::format("tensor token_embd.weight is missing"))?;
    let rows = tensor.shape().get(1).copied().unwrap_or(0);
    match u32::try_from(rows) {
        Ok(rows) if rows > 0 => Ok(rows as usize),
        _ => Err(Error::format(format!("token_embd.weight has {rows} rows"))),
    }
}
