//! Split models: `NAME-00001-of-0000N.gguf` and so on, each a file of its own with a share of the tensors, of which the
//! first has the metadata. The parts are checked against each other, then read as one file whose bytes are those of all
//! parts in order.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::limits::{MAX_PARTS, MAX_TENSORS};
use super::{Gguf, Metadata, index_names};
use crate::error::{Error, Result, at, quoted};
use crate::format::ByteSource;
use crate::format::source::JoinedSource;
use crate::memory::reserve::{reserve, with_room};
use crate::text::escaped;

/// The keys of a part: its number from 0, the number of parts, the tensors of all parts.
const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// What helps where parts can't be joined.
const MERGE: &str = "llama.cpp's llama-gguf-split --merge makes one file of the parts";

/// Keys that tell models apart, for parts that repeat them.
const IDENTITY: [&str; 3] = ["general.architecture", "general.name", "general.file_type"];

/// How many parts are to be joined, if this is the first one of several.
pub(super) fn parts_to_join(gguf: &Gguf) -> Result<Option<u64>> {
    let place = || escaped(gguf.source.name()).to_string();
    let read = |key: &str| gguf.metadata.get_u64(key).map_err(at(place));
    let (number, count) = (read(NUMBER)?.unwrap_or(0), read(COUNT)?.unwrap_or(1));
    if count > MAX_PARTS {
        let text = format!("{}: {count} parts of a split model; at most {MAX_PARTS} are taken", place());
        return Err(Error::format(text));
    }
    Ok((number == 0 && count > 1).then_some(count))
}

/// The name of a part, counted from 1.
fn part_name(stem: &str, number: u64, count: u64) -> String {
    format!("{stem}-{number:05}-of-{count:05}.gguf")
}

/// The sources of the parts behind the first.
pub(super) fn siblings(first: &Gguf, count: u64) -> Result<Vec<Arc<dyn ByteSource>>> {
    let source = &first.source;
    let place = || format!("{}: part 1 of {count} of a split model", escaped(source.name()));
    let name = Path::new(source.name()).file_name().map(|name| name.to_string_lossy().into_owned());
    let ending = part_name("", 1, count);
    let Some(stem) = name.as_deref().and_then(|name| name.strip_suffix(&ending)) else {
        return Err(Error::Unsupported(format!(
            "{}, whose name doesn't end in {}, so the other parts can't be found; {MERGE}",
            place(),
            quoted(&ending)
        )));
    };
    let mut others = with_room(count as usize - 1, "a list of files")?;
    for number in 2..=count {
        let name = part_name(stem, number, count);
        others.push(source.sibling(&name).map_err(|error| match error {
            Error::Unsupported(why) => Error::Unsupported(format!("{}: {why}; {MERGE}", place())),
            Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                Error::format(format!("{}: part {number} is missing, {}", place(), quoted(&name)))
            }
            other => other,
        })?);
    }
    Ok(others)
}

/// Joins the first part and the others, which are in their order.
pub(super) fn join(first: Gguf, others: Vec<Arc<dyn ByteSource>>) -> Result<Gguf> {
    let count = others.len() + 1;
    let mut sources = with_room(count, "a list of files")?;
    sources.push(first.source.clone());
    let mut lists = with_room(others.len(), "a list of files")?;
    check_part(&first.metadata, &first.metadata, 0, count)
        .map_err(at(|| escaped(first.source.name()).to_string()))?;
    for (index, source) in others.into_iter().enumerate() {
        let part = Gguf::read_part(&source)?;
        check_part(&part.metadata, &first.metadata, index + 1, count)
            .map_err(at(|| escaped(source.name()).to_string()))?;
        lists.push(part.tensors);
        sources.push(source);
    }
    let source = JoinedSource::new(sources)?;
    let Gguf { version, metadata, mut tensors, alignment, data_offset, .. } = first;
    let place = || escaped(source.name()).to_string();
    for (index, list) in lists.into_iter().enumerate() {
        if (tensors.len() + list.len()) as u64 > MAX_TENSORS {
            return Err(Error::format(format!("{}: more than {MAX_TENSORS} tensors in all parts", place())));
        }
        reserve(&mut tensors, list.len(), "the list of tensors")?;
        for mut tensor in list {
            tensor.offset += source.begin(index + 1);
            tensors.push(tensor);
        }
    }
    let by_name = index_names(&tensors).map_err(at(|| format!("{}, in all {count} parts", place())))?;
    let stated = metadata.get_u64(TENSORS).map_err(at(place))?;
    if let Some(stated) = stated.filter(|&stated| stated != tensors.len() as u64) {
        return Err(Error::format(format!(
            "{}: {TENSORS} is {stated}, but the {count} parts have {} tensors; is one of another model?",
            place(),
            tensors.len()
        )));
    }
    let source = Arc::new(source);
    Ok(Gguf { source, version, metadata, tensors, by_name, alignment, data_offset, parts: count })
}

/// Checks what the part at `index` says of itself against its place and against the first part.
fn check_part(part: &Metadata, first: &Metadata, index: usize, count: usize) -> Result<()> {
    let stated = part.get_u64(COUNT)?.unwrap_or(1);
    if stated != count as u64 {
        return Err(Error::format(format!(
            "is of a model in {stated} parts; a part of one in {count} is needed"
        )));
    }
    let number = part.get_u64(NUMBER)?;
    if number.unwrap_or(0) != index as u64 {
        let stated = number.map_or("no number".into(), |number| format!("part {}", number.saturating_add(1)));
        return Err(Error::format(format!("says that it is {stated}; part {} is needed", index + 1)));
    }
    let pair = |key: &&'static str| Some((*key, part.get(key)?.to_string(), first.get(key)?.to_string()));
    match [TENSORS].iter().chain(&IDENTITY).filter_map(pair).find(|(_, here, there)| here != there) {
        Some((key, here, there)) => {
            Err(Error::format(format!("is of another model: {key} is {here}, in the first part {there}")))
        }
        None => Ok(()),
    }
}
