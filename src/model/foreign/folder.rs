//! A model's folder as Hugging Face lays it out: `config.json`, one or several safetensors files, `tokenizer.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::assembled::{Assembled, Form, Piece, plain};
use super::config::Settings;
use super::families::{self, Description, Family, Kind};
use super::vocabulary;
use crate::error::{Error, Result, at, quoted};
use crate::format::gguf::{TensorEntry, Value};
use crate::format::{ByteSource, BytesSource, FileSource, SafeTensor, safetensors};
use crate::memory::reserve::{filled, held, reserve};
use crate::quant::DType;
use crate::sort;
use crate::text::{escaped, escaped_path};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Longest texts: real configurations have a few KB, indices a few MB, `tokenizer.json` up to 35 MB.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Files that a model's tensors are in.
const MAX_FILES: usize = 1024;
/// Most memory that a parsed JSON text takes, in bytes for each of its bytes: a number of two bytes becomes a value of
/// 32 in a list that doubles.
const MEMORY_PER_BYTE: usize = 40;

/// The files of a folder.
pub(super) struct Folder<'a>(pub &'a Path);

impl Folder<'_> {
    /// A file's path, in messages.
    pub fn name(&self, file: &str) -> String {
        escaped_path(&self.0.join(file)).to_string()
    }

    /// The contents of a file; `None` where it isn't there.
    pub fn read(&self, file: &str) -> Result<Option<Vec<u8>>> {
        let path = self.0.join(file);
        if !path.exists() {
            return Ok(None);
        }
        let source = FileSource::open(&path)?;
        if source.len() > MAX_TEXT_BYTES {
            let name = self.name(file);
            return Err(Error::format(format!(
                "{name}: {} bytes; at most {MAX_TEXT_BYTES} are taken",
                source.len()
            )));
        }
        let mut text = filled(0u8, source.len() as usize, "a file of a model's folder")?;
        source.read_at(0, &mut text)?;
        Ok(Some(text))
    }

    /// A JSON text, parsed; `None` where the file isn't there.
    pub fn json(&self, file: &str) -> Result<Option<Json>> {
        let Some(text) = self.read(file)? else { return Ok(None) };
        let _held = held(text.len().saturating_mul(MEMORY_PER_BYTE), "a file of a model's folder")?;
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).map_err(|error| Error::format(format!("{}: {error}", self.name(file))))
    }

    /// A JSON object; `None` where the file isn't there.
    pub fn settings(&self, file: &str) -> Result<Option<Settings>> {
        self.read(file)?.map(|text| Settings::read(self.name(file), &text)).transpose()
    }
}

/// The folder as the GGUF file that it would be.
pub(super) fn open(path: &Path) -> Result<Assembled> {
    let folder = Folder(path);
    let settings = folder.settings(CONFIG)?.ok_or_else(|| {
        Error::invalid(format!(
            "{}: not a regular file but a folder; that of a model has {CONFIG}",
            escaped_path(path)
        ))
    })?;
    let family = family(&settings)?;
    let mut description = Description { architecture: family.architecture, ..Description::default() };
    let name = path.canonicalize().unwrap_or(path.to_owned());
    let name = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    description.metadata.insert("general.architecture".into(), Value::Str(family.architecture.into()))?;
    description.metadata.insert("general.name".into(), Value::Str(name))?;
    (family.read)(&settings, &mut description)?;
    let mut pieces = pieces(&folder, family, &description)?;
    let rows = pieces.iter().find(|piece| piece.entry.name == "token_embd.weight");
    let rows = rows.map_or(0, |piece| piece.entry.dims[1]);
    if let Some(divisors) = divisors(&description)? {
        reserve(&mut pieces, 1, "a list of tensors")?;
        pieces.push(divisors);
    }
    let Description { mut metadata, .. } = description;
    let too_many = || Error::format(format!("{}: an embedding of {rows} rows", escaped_path(path)));
    let count = u32::try_from(rows).map_err(|_| too_many())?;
    metadata.insert(format!("{}.vocab_size", family.architecture), Value::U32(count))?;
    metadata.insert("general.file_type".into(), Value::U32(file_type(&pieces)))?;
    vocabulary::insert(&mut metadata, &folder, &settings, family.architecture, rows)?;
    Assembled::new(path.display().to_string(), &metadata, pieces)
}

/// The family of the class in `architectures`.
fn family(settings: &Settings) -> Result<&'static Family> {
    if settings.get("quantization_config").is_some() {
        return Err(Error::Unsupported(format!("{}: weights that are quantised already", settings.file())));
    }
    let classes = settings.get("architectures").and_then(Json::as_array);
    let class = classes.and_then(|classes| classes.first()).and_then(Json::as_str);
    let class =
        class.ok_or_else(|| Error::format(format!("{}: no class in \"architectures\"", settings.file())))?;
    families::find(class).map_err(at(|| settings.file().to_owned()))
}

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

/// The tensors of all files, by block and name.
fn pieces(folder: &Folder<'_>, family: &Family, description: &Description) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for (file, listed) in files(folder)? {
        let path: PathBuf = folder.0.join(&file);
        let source: Arc<dyn ByteSource> = Arc::new(FileSource::open(&path)?);
        let place = || escaped(source.name()).to_string();
        let tensors = safetensors(&*source)?;
        if let Some(listed) = listed {
            let there: BTreeSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
            if let Some(missing) = listed.iter().find(|name| !there.contains(name.as_str())) {
                let text = format!(
                    "{}: tensor {}, which {INDEX} says is there, is missing",
                    place(),
                    quoted(missing)
                );
                return Err(Error::format(text));
            }
        }
        for tensor in tensors {
            if let Some(piece) = piece(family, description, &tensor, &source).map_err(at(place))? {
                reserve(&mut pieces, 1, "a list of tensors")?;
                pieces.push(piece);
            }
        }
    }
    let block = |name: &str| name.strip_prefix("blk.")?.split_once('.')?.0.parse::<u32>().ok();
    sort::by(&mut pieces, |a, b| {
        let (a, b) = (&a.entry.name, &b.entry.name);
        (block(a), a).cmp(&(block(b), b))
    });
    match pieces.windows(2).find(|pair| pair[0].entry.name == pair[1].entry.name) {
        Some(pair) => {
            let (one, other) = (escaped(pair[0].source.name()), escaped(pair[1].source.name()));
            let name = quoted(&pair[0].entry.name);
            Err(Error::format(format!("{one} and {other}: both have the tensor that GGUF calls {name}")))
        }
        None => Ok(pieces),
    }
}

/// A tensor in GGUF's form; `None` for one that is of no use.
fn piece(
    family: &Family,
    description: &Description,
    tensor: &SafeTensor,
    source: &Arc<dyn ByteSource>,
) -> Result<Option<Piece>> {
    let named = |what: String| format!("tensor {} {what}", quoted(&tensor.name));
    let Some((name, kind)) = family.rename(&tensor.name) else {
        return Err(Error::Unsupported(named(format!("is unknown in the family {}", family.architecture))));
    };
    if kind == Kind::Idle || description.tied && name == "output.weight" {
        return Ok(None);
    }
    let dtype = match tensor.dtype {
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        other => return Err(Error::Unsupported(named(format!("is of type {other}")))),
    };
    if !(1..=2).contains(&tensor.shape.len()) || tensor.shape.contains(&0) {
        return Err(Error::format(named(format!("has the shape {:?}", tensor.shape))));
    }
    let matrix = tensor.shape.len() == 2;
    let mut dims = tensor.shape.clone();
    let head = u64::from(description.head_dim);
    let moved = family.architecture == "llama" && matches!(kind, Kind::Queries | Kind::Keys);
    if !(kind == Kind::Transposed && matrix) {
        dims.reverse();
    }
    let form = if moved && matrix {
        if head == 0 || head % 2 == 1 || !dims[1].is_multiple_of(head) {
            let text = format!("has {} rows, no whole number of heads of {head}", dims[1]);
            return Err(Error::format(named(text)));
        }
        Form::Halves { head }
    } else if moved {
        return Err(Error::Unsupported(named("is a bias of rotated heads".into())));
    } else if kind == Kind::Transposed && matrix {
        Form::Transposed
    } else if !matrix && dtype != DType::F32 {
        Form::Widened(dtype)
    } else {
        Form::Plain
    };
    let ty = plain(if matrix { dtype } else { DType::F32 });
    let entry = TensorEntry { name, dims, ty };
    Ok(Some(Piece { entry, form, source: source.clone(), offset: tensor.offset }))
}

/// The tensor of rotary divisors, where the frequencies have any.
fn divisors(description: &Description) -> Result<Option<Piece>> {
    if description.rope_divisors.is_empty() {
        return Ok(None);
    }
    let bytes: Vec<u8> = description.rope_divisors.iter().flat_map(|x| x.to_le_bytes()).collect();
    let dims = vec![description.rope_divisors.len() as u64];
    let entry = TensorEntry { name: "rope_freqs.weight".into(), dims, ty: plain(DType::F32) };
    let source = Arc::new(BytesSource::new("rotary divisors", bytes));
    Ok(Some(Piece { entry, form: Form::Plain, source, offset: 0 }))
}

/// GGUF's number for the type that most matrices have.
fn file_type(pieces: &[Piece]) -> u32 {
    let matrices = |dtype: DType| {
        pieces.iter().filter(|piece| piece.entry.dims.len() == 2 && piece.entry.ty == plain(dtype)).count()
    };
    let types = [(DType::F32, 0), (DType::F16, 1), (DType::BF16, 32)];
    types.into_iter().max_by_key(|(dtype, _)| matrices(*dtype)).map_or(0, |(_, number)| number)
}
