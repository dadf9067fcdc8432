//! The tensors of a folder: found in one or several safetensors files, and put into GGUF's form and order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::assembled::{Order, Piece, Place, plain};
use super::families::{Description, Family};
use super::folder::Folder;
use super::modules::Dense;
use super::names::Kind;
use crate::error::{Error, Result, at, quoted};
use crate::format::gguf::TensorEntry;
use crate::format::{ByteSource, BytesSource, FileSource, SafeTensor, safetensors};
use crate::memory::reserve::reserve;
use crate::quant::DType;
use crate::sort;
use crate::text::{escaped, escaped_path};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Files that a model's tensors are in.
const MAX_FILES: usize = 1024;
/// Matrices that are read as F32 whatever their type: small, and read as vectors.
const WIDE: [&str; 4] =
    ["position_embd.weight", "token_types.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight"];
const LIST: &str = "a list of tensors";

/// The files with tensors, with the names of tensors that an index says are in each.
fn files(folder: &Folder<'_>) -> Result<BTreeMap<String, Option<BTreeSet<String>>>> {
    if folder.0.join(WEIGHTS).exists() {
        return Ok(BTreeMap::from([(WEIGHTS.to_owned(), None)]));
    }
    let Some(index) = folder.json(INDEX)? else {
        return Err(Error::format(format!(
            "{}: neither {WEIGHTS} nor {INDEX} is in this folder",
            escaped_path(folder.0)
        )));
    };
    let wrong = |what: &str| Error::format(format!("{}: {what}", folder.name(INDEX)));
    let map = index.get("weight_map").and_then(Json::as_object);
    let map = map.ok_or_else(|| wrong("no object \"weight_map\""))?;
    let mut files = BTreeMap::<String, Option<BTreeSet<String>>>::new();
    for (tensor, file) in map {
        let file = file.as_str().unwrap_or_default();
        // A file of this folder, and nothing else.
        if Path::new(file).file_name() != Some(file.as_ref()) || file.contains(['/', '\\', '\0']) {
            return Err(wrong(&format!(
                "tensor {} is in {}, which is no file's name",
                quoted(tensor),
                quoted(file)
            )));
        }
        files.entry(file.to_owned()).or_default().get_or_insert_default().insert(tensor.clone());
        if files.len() > MAX_FILES {
            return Err(wrong(&format!("more than {MAX_FILES} files")));
        }
    }
    match files.is_empty() {
        true => Err(wrong("no tensors")),
        false => Ok(files),
    }
}

/// A tensor in the making: parts by their numbers.
type Parts = BTreeMap<u32, Piece>;

/// The tensors of all files, by block and name.
pub(super) fn pieces(
    folder: &Folder<'_>,
    family: &Family,
    description: &Description,
    dense: &[Dense],
) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut stacks = BTreeMap::<String, Parts>::new();
    for (file, listed) in files(folder)? {
        let path: PathBuf = folder.0.join(&file);
        let source: Arc<dyn ByteSource> = Arc::new(FileSource::open(&path)?);
        let place = || escaped(source.name()).to_string();
        let tensors = safetensors(&*source)?;
        if let Some(listed) = listed {
            let there: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
            if let Some(missing) = listed.iter().find(|name| !there.contains(name.as_str())) {
                let missing = quoted(missing);
                let text = format!("tensor {missing}, which {INDEX} says is there, is missing");
                return Err(Error::format(text)).map_err(at(place));
            }
        }
        for tensor in tensors {
            for (piece, part) in forms(family, description, &tensor, &source).map_err(at(place))? {
                match part {
                    None => push(&mut pieces, piece)?,
                    Some(part) => {
                        drop(stacks.entry(piece.entry.name.clone()).or_default().insert(part, piece))
                    }
                }
            }
        }
    }
    for (name, parts) in stacks {
        let stacked = stacked(parts).map_err(|what| Error::format(format!("{}: {what}", quoted(&name))));
        push(&mut pieces, stacked.map_err(at(|| escaped_path(folder.0).to_string()))?)?;
    }
    for dense in dense {
        push(&mut pieces, dense.piece(folder)?)?;
    }
    for (name, values) in &description.extra {
        push(&mut pieces, vector(name, values))?;
    }
    let block = |name: &str| name.strip_prefix("blk.")?.split_once('.')?.0.parse::<u32>().ok();
    sort::by(&mut pieces, |a, b| {
        let (a, b) = (&a.entry.name, &b.entry.name);
        (block(a), a).cmp(&(block(b), b))
    });
    match pieces.windows(2).find(|pair| pair[0].entry.name == pair[1].entry.name) {
        Some(pair) => {
            let source = |piece: &Piece| escaped(piece.places[0].source.name()).to_string();
            let (one, other) = (source(&pair[0]), source(&pair[1]));
            let name = quoted(&pair[0].entry.name);
            Err(Error::format(format!("{one} and {other}: both have the tensor that GGUF calls {name}")))
        }
        None => Ok(pieces),
    }
}

fn push(pieces: &mut Vec<Piece>, piece: Piece) -> Result<()> {
    reserve(pieces, 1, LIST)?;
    pieces.push(piece);
    Ok(())
}

/// One tensor made of several of equal shape, which are its slices.
fn stacked(parts: Parts) -> Result<Piece, String> {
    let count = parts.len() as u32;
    if let Some((missing, _)) = (0..count).zip(parts.keys()).find(|(wanted, found)| wanted != *found) {
        return Err(format!("part {missing} of it is missing"));
    }
    let mut parts = parts.into_values();
    let mut whole = parts.next().ok_or("it has no parts")?;
    for (number, part) in (1..).zip(parts) {
        if part.entry.dims != whole.entry.dims || part.from != whole.from {
            return Err(format!("part {number} of it has another shape or type than part 0"));
        }
        whole.places.extend(part.places);
    }
    whole.entry.dims.push(count.into());
    Ok(whole)
}

/// A tensor in GGUF's form, and which part of a larger one it is; two for a gate with the matrix beside it, none for one
/// that is of no use.
fn forms(
    family: &Family,
    description: &Description,
    tensor: &SafeTensor,
    source: &Arc<dyn ByteSource>,
) -> Result<Vec<(Piece, Option<u32>)>> {
    let named = |what: String| format!("tensor {} {what}", quoted(&tensor.name));
    let Some(renamed) = family.rename(&tensor.name) else {
        return Err(Error::Unsupported(named(format!("is unknown in the family {}", family.architecture))));
    };
    let (name, kind) = (renamed.name, renamed.kind);
    if kind == Kind::Idle || description.tied && name == "output.weight" {
        return Ok(Vec::new());
    }
    let from = float(tensor.dtype).map_err(|other| Error::Unsupported(named(other)))?;
    let shaped = || Error::format(named(format!("has the shape {:?}", tensor.shape)));
    let most = if matches!(kind, Kind::Stacked | Kind::StackedTransposed | Kind::GateUp) { 3 } else { 2 };
    if !(1..=most).contains(&tensor.shape.len()) || tensor.shape.contains(&0) {
        return Err(shaped());
    }
    let matrix = tensor.shape.len() >= 2;
    let mut dims = tensor.shape.clone();
    let mut offset = tensor.offset;
    if kind != Kind::Transposed || !matrix {
        dims.reverse();
    }
    if kind == Kind::Positions && matrix {
        let skipped = u64::from(description.skipped);
        let left = dims[1].checked_sub(skipped).filter(|&rows| rows > 0);
        dims[1] = left.ok_or_else(|| Error::format(named(format!("has no more than {skipped} rows"))))?;
        offset += skipped * dims[0] * from.block_bytes() as u64;
    }
    let experts = description.stated("expert_count").unwrap_or(0).into();
    if matches!(kind, Kind::Stacked | Kind::StackedTransposed) && dims.len() < 3 {
        // Rows of all experts, one behind the other.
        let rows = dims.get(1).filter(|&&rows| experts > 0 && rows.is_multiple_of(experts));
        dims = vec![dims[0], rows.ok_or_else(shaped)? / experts, experts];
    }
    let head = u64::from(description.head_dim);
    let order = match kind {
        _ if family.moves(kind) => Order::Halves { head },
        Kind::Grouped => Order::Groups { queries: description.queries.into(), head },
        Kind::Transposed if matrix => Order::Transposed,
        Kind::StackedTransposed => {
            dims.swap(0, 1);
            Order::Transposed
        }
        Kind::GateUp => {
            let half = dims.get(1).filter(|rows| rows.is_multiple_of(2)).ok_or_else(shaped)? / 2;
            dims[1] = half;
            Order::Apart { run: dims[0] * half, every: 2 * dims[0] * half }
        }
        _ => Order::Plain,
    };
    let added = family.added(&name);
    let wide = !matrix || name.ends_with("_norm.weight") || WIDE.iter().any(|wide| name.ends_with(wide));
    let ty = plain(if wide { DType::F32 } else { from });
    let one = |name: String, offset: u64| {
        let entry = TensorEntry { name, dims: dims.clone(), ty };
        let places = vec![Place { source: source.clone(), offset }];
        (Piece { entry, places, from, order, added }, renamed.part)
    };
    Ok(match order {
        Order::Apart { run, .. } => {
            let second = offset + run * from.block_bytes() as u64;
            vec![one(name.replace("{gate}", "gate"), offset), one(name.replace("{gate}", "up"), second)]
        }
        _ => vec![one(name, offset)],
    })
}

/// The type of a tensor that can be read; otherwise what is said of it.
pub(super) fn float(dtype: &str) -> Result<DType, String> {
    match dtype {
        "F32" => Ok(DType::F32),
        "F16" => Ok(DType::F16),
        "BF16" => Ok(DType::BF16),
        other => Err(format!("is of type {other}")),
    }
}

/// A vector that folders keep in their configuration.
fn vector(name: &str, values: &[f32]) -> Piece {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let source = Arc::new(BytesSource::new(name, bytes));
    Piece::plain(name.to_owned(), vec![values.len() as u64], DType::F32, source, 0)
}

/// GGUF's number for the type that most matrices have.
pub(super) fn file_type(pieces: &[Piece]) -> u32 {
    let matrices = |dtype: DType| {
        pieces.iter().filter(|piece| piece.entry.dims.len() >= 2 && piece.entry.ty == plain(dtype)).count()
    };
    let types = [(DType::F32, 0), (DType::F16, 1), (DType::BF16, 32)];
    types.into_iter().max_by_key(|(dtype, _)| matrices(*dtype)).map_or(0, |(_, number)| number)
}
