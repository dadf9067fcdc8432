//! The families of models. A family reads a configuration and emits a graph; a file holds a family and its kin,
//! and stands in [`KIN`]. Parts that several files share are in `parts`.

mod cohere;
mod delta;
mod encoders;
mod gated;
mod gemma;
mod gemma4;
mod glm;
mod gpt;
mod granite;
mod hybrids;
mod llama;
mod mistral;
mod mixtures;
mod olmo;
mod parts;
mod phi;
mod plamo2;
mod qwen;
mod recurrent;
mod routers;

use super::adapter::Adapter;
use super::builder::{Builder, Ends};
use super::config::Config;
use super::graph::Graph;
use super::keys::Keys;
use super::whole;
use crate::error::{Error, Result, at, quoted};
use crate::format::gguf::Gguf;
use crate::text::escaped;

/// A family of models.
pub(crate) struct Family {
    /// `general.architecture` of its files.
    pub name: &'static str,
    /// Reads the configuration, given the number of rows of the embedding.
    pub config: fn(&Keys<'_>, usize) -> Result<Config>,
    /// Emits the graph.
    pub emit: fn(&mut Builder<'_>, &Config) -> Result<Ends>,
}

/// Every family, in groups of kin.
const KIN: &[&[Family]] = &[
    llama::FAMILIES,
    qwen::FAMILIES,
    gemma::FAMILIES,
    gemma4::FAMILIES,
    gpt::FAMILIES,
    phi::FAMILIES,
    olmo::FAMILIES,
    cohere::FAMILIES,
    granite::FAMILIES,
    mistral::FAMILIES,
    glm::FAMILIES,
    gated::FAMILIES,
    encoders::FAMILIES,
    mixtures::FAMILIES,
    routers::FAMILIES,
    hybrids::FAMILIES,
    plamo2::FAMILIES,
    delta::FAMILIES,
];

/// Architectures that llama.cpp knows and that aren't here, by the part of their computation that is missing.
const MISSING: &[(&str, &[&str])] = &[
    ("a delta rule whose decays differ by channel", &["kimi-linear", "kimi-k3", "bailingmoe3", "glm5-next"]),
    ("a recurrence", &["rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7", "minimax-01"]),
    (
        "multi-head latent attention",
        &[
            "deepseek2",
            "deepseek2-ocr",
            "deepseek32",
            "deepseek4",
            "glm-dsa",
            "dots3note",
            "mistral4",
            "minicpm3",
            "plm",
            "hy_v4",
        ],
    ),
    ("a choice of positions to see", &["minimax-m3", "qwen4exp"]),
    ("attention with values that are not as long as keys", &["mimo2"]),
    ("attention in chunks", &["llama4"]),
    ("an encoder beside the decoder", &["t5", "t5encoder"]),
    ("streams side by side (AltUp)", &["gemma3n"]),
    ("an MLP or experts of a form of its own", &["apertus", "bitnet", "grok", "grovemoe", "laguna", "maple"]),
];

/// Every family.
fn all() -> impl Iterator<Item = &'static Family> {
    KIN.iter().copied().flatten()
}

/// The configuration and the graph of a file with adapters. Errors name the file.
pub(super) fn read(gguf: &Gguf, adapters: &[Adapter]) -> Result<(Config, Graph)> {
    read_known(gguf, adapters).map_err(at(|| escaped(gguf.source().name()).to_string()))
}

fn read_known(gguf: &Gguf, adapters: &[Adapter]) -> Result<(Config, Graph)> {
    whole::check_contents(gguf)?;
    let architecture = gguf.metadata().require_str("general.architecture")?;
    match all().find(|family| family.name == architecture) {
        Some(family) => family.read(gguf, adapters),
        None => {
            let mut known: Vec<_> = all().map(|family| family.name).collect();
            known.sort_unstable();
            let lacks = |(_, names): &&(&str, &[&str])| names.contains(&architecture);
            let missing = MISSING.iter().find(lacks);
            let missing = missing.map_or(String::new(), |(part, _)| format!(", for which {part} is missing"));
            let (known, architecture) = (known.join(", "), quoted(architecture));
            Err(Error::Unsupported(format!("architecture {architecture}{missing} (known: {known})")))
        }
    }
}

impl Family {
    /// The family that reads such files.
    #[cfg(test)]
    pub fn named(name: &str) -> &'static Family {
        all().find(|family| family.name == name).expect("a family of that name")
    }

    /// Reads a file of this family.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the file has what the family doesn't compute with: tensors, or keys that would change
    /// results.
    fn read(&self, gguf: &Gguf, adapters: &[Adapter]) -> Result<(Config, Graph)> {
        let (config, graph, read) = self.emitted(gguf, adapters, |_| {})?;
        whole::check_all_read(gguf, &config, &read)?;
        Ok((config, graph))
    }

    /// Reads a file of this family, after a change of its configuration; the graph may leave tensors unread.
    #[cfg(test)]
    pub fn read_changed(&self, gguf: &Gguf, change: impl FnOnce(&mut Config)) -> Result<(Config, Graph)> {
        self.emitted(gguf, &[], change).map(|(config, graph, _)| (config, graph))
    }

    /// Configuration and graph, and whether each tensor of the file is read.
    fn emitted(
        &self,
        gguf: &Gguf,
        adapters: &[Adapter],
        change: impl FnOnce(&mut Config),
    ) -> Result<(Config, Graph, Vec<bool>)> {
        let keys = Keys::new(gguf.metadata())?;
        let mut config = (self.config)(&keys, vocabulary_size(gguf)?)?;
        void_usual_scale(&keys, gguf, &config);
        config.warnings = keys.unread()?;
        whole::check_experts(gguf, &config)?;
        change(&mut config);
        let mut builder = Builder::new(gguf, &config, self.name)?.with_adapters(adapters)?;
        let ends = (self.emit)(&mut builder, &config)?;
        let heads = builder.heads(&config)?;
        builder.adapters.check(gguf)?;
        let (graph, read) = builder.finish(ends, heads);
        Ok((config, graph, read))
    }
}

/// Notes that a stated scale of scores means nothing where it is the one that is computed with anyhow.
fn void_usual_scale(keys: &Keys<'_>, gguf: &Gguf, config: &Config) {
    const SCALE: &str = "attention.scale";
    let stated = gguf.metadata().get_f32(&keys.key(SCALE)).ok().flatten();
    let usual = |scale: f32| config.layers.iter().all(|layer| (layer.score_scale / scale - 1.0).abs() < 1e-6);
    if stated.is_some_and(usual) {
        keys.void(&[SCALE]);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The page lists each family with what it was compared with.
    #[test]
    fn every_family_is_in_the_docs() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/models.md");
        let page = std::fs::read_to_string(page).unwrap();
        let missing: Vec<_> =
            all().map(|family| family.name).filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/models.md lacks {missing:?}");
    }

    #[test]
    fn no_name_stands_twice() {
        let missing = MISSING.iter().flat_map(|(_, names)| names.iter().copied());
        let mut names: Vec<_> = all().map(|family| family.name).chain(missing).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
