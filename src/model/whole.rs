//! Checks that a file holds one whole model of a known kind, before anything of it is read as a family's: parts of
//! models and adapters are named as what they are, and so are mixtures of experts that a family doesn't read. Behind the graph: that the file has no tensor
//! that nothing reads.

use super::config::Config;
use crate::error::{Error, Result, quoted};
use crate::format::gguf::{Gguf, Metadata, TensorInfo};
use crate::memory::reserve::collected;

/// Most tensors that an error names.
const NAMED: usize = 3;

/// Checks that the file isn't a part of a model, nor an addition to one.
///
/// # Errors
/// [`Error::Unsupported`], with what the file is.
pub(super) fn check_contents(gguf: &Gguf) -> Result<()> {
    let metadata = gguf.metadata();
    if gguf.parts() == 1
        && let Some(part) = split_part(metadata, gguf.source().name())?
    {
        return Err(Error::Unsupported(part));
    }
    // A kind that is no text refuses nothing: most files state none.
    let kind = metadata.get_str("general.type").ok().flatten().unwrap_or("model");
    let known = match kind {
        "adapter" => "an adapter (LoRA), which changes another model",
        "mmproj" => "a projector of images or sound, which belongs to another model",
        "imatrix" => "an importance matrix, which is for quantising a model",
        _ if gguf.tensors().is_empty() => "a file without tensors, of a vocabulary as a rule",
        _ => return Ok(()),
    };
    Err(Error::Unsupported(format!("{known}, not a model")))
}

/// The text that tells which part of a split model this is, if it is one behind the first, which opens all of them.
fn split_part(metadata: &Metadata, file: &str) -> Result<Option<String>> {
    let count = metadata.get_u64("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(None);
    }
    let number = metadata.get_u64("split.no")?.unwrap_or(0).saturating_add(1);
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let first = match name.strip_suffix(&format!("-{number:05}-of-{count:05}.gguf")) {
        Some(stem) => {
            format!(", which begins with {}", quoted(&format!("{stem}-00001-of-{count:05}.gguf")))
        }
        None => String::new(),
    };
    Ok(Some(format!("part {number} of {count} of a split model{first}; the first part opens all of them")))
}

/// Checks that a file without experts in its configuration has no tensors of experts either.
///
/// # Errors
/// [`Error::Unsupported`].
pub(super) fn check_experts(gguf: &Gguf, config: &Config) -> Result<()> {
    let has = config.layers.iter().any(|layer| layer.experts.is_some());
    if has || !gguf.tensors().iter().any(|tensor| tensor.name.contains("_exps.")) {
        return Ok(());
    }
    Err(Error::Unsupported(format!("{}: a mixture of experts", config.architecture)))
}

/// Checks that every tensor of a file is read (`read`, in the file's order) or known to be of no use.
///
/// # Errors
/// [`Error::Unsupported`], naming tensors.
pub(super) fn check_all_read(gguf: &Gguf, config: &Config, read: &[bool]) -> Result<()> {
    let (layers, predicting) = (config.layers.len(), predicting_blocks(gguf)?);
    let predicts = |name: &str| {
        place(name).is_some_and(|(block, _)| block >= layers && predicting.binary_search(&block).is_ok())
    };
    let lost =
        |(tensor, read): &(&TensorInfo, &bool)| !**read && !is_idle(&tensor.name) && !predicts(&tensor.name);
    let lost = gguf.tensors().iter().zip(read).filter(lost);
    let names = collected(lost.map(|(tensor, _)| Ok(tensor.name.as_str())), "a list of tensors")?;
    if names.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = names.iter().take(NAMED).map(|name| quoted(name)).collect();
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (s, listed) = (if names.len() == 1 { "" } else { "s" }, shown.join(", "));
    Err(Error::Unsupported(format!(
        "{}: nothing here computes with tensor{s} {listed}{more}",
        config.architecture
    )))
}

/// The blocks that predict further tokens, ascending: those with tensors that only such blocks have.
fn predicting_blocks(gguf: &Gguf) -> Result<Vec<usize>> {
    let places = gguf.tensors().iter().filter_map(|tensor| place(&tensor.name));
    let predicting = places.filter(|(_, part)| part.starts_with("nextn."));
    let mut blocks = collected(predicting.map(|(block, _)| Ok(block)), "a list of blocks")?;
    blocks.sort_unstable();
    Ok(blocks)
}

/// The block in a tensor's name, and the rest of the name.
fn place(name: &str) -> Option<(usize, &str)> {
    let (block, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((block.parse().ok()?, part))
}

/// Whether a tensor changes no result: rotary frequencies, which follow from the configuration, and scales by which some
/// engines quantise activations.
fn is_idle(name: &str) -> bool {
    let bare = name.strip_suffix(".weight").unwrap_or(name);
    bare.ends_with(".attn_rot_embd")
        || bare.ends_with("rotary_emb.inv_freq")
        || name.ends_with(".input_scale")
}
