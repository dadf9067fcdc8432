//! A model's folder as Hugging Face lays it out: `config.json`, one or several safetensors files, `tokenizer.json`.

use std::path::Path;

use serde_json::Value as Json;

use super::assembled::Assembled;
use super::config::Settings;
use super::families::{self, Family};
use super::{modules, tensors, vocabulary};
use crate::error::{Error, Result, at};
use crate::format::gguf::{Metadata, Value};
use crate::format::{ByteSource, FileSource};
use crate::memory::reserve::{filled, held};
use crate::text::escaped_path;

const CONFIG: &str = "config.json";

/// Longest texts: real configurations have a few KB, indices a few MB, `tokenizer.json` up to 35 MB.
const MAX_TEXT_BYTES: u64 = 64 << 20;
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
    let settings = settings.with_text();
    let mut description = family.describe(&settings)?;
    let dense = modules::read(&folder, family.architecture, &mut description)?;
    let pieces = tensors::pieces(&folder, family, &description, &dense)?;
    let rows = pieces.iter().find(|piece| piece.entry.name == "token_embd.weight");
    let rows = rows.map_or(0, |piece| piece.entry.dims[1]);
    let mut metadata = Metadata::new();
    let name = path.canonicalize().unwrap_or(path.to_owned());
    let name = name.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    metadata.insert("general.architecture".into(), Value::Str(family.architecture.into()))?;
    metadata.insert("general.name".into(), Value::Str(name))?;
    metadata.insert("general.file_type".into(), Value::U32(tensors::file_type(&pieces)))?;
    let too_many = || Error::format(format!("{}: an embedding of {rows} rows", escaped_path(path)));
    description.count("vocab_size", u32::try_from(rows).map_err(|_| too_many())?)?;
    for (key, value) in description.pairs {
        metadata.insert(format!("{}.{key}", family.architecture), value)?;
    }
    vocabulary::insert(&mut metadata, &folder, &settings, rows)?;
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
    let mixture = settings.count("moe_every_n_layers")?.is_some_and(|period| period > 0);
    families::find(class, mixture).map_err(at(|| settings.file().to_owned()))
}
