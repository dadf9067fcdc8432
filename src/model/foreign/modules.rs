//! The modules of sentence-transformers behind a model: pooling, and dense layers.

use serde_json::Value as Json;

use super::assembled::Piece;
use super::config::Settings;
use super::families::Description;
use super::folder::Folder;
use super::tensors::float;
use crate::error::{Error, Result, at, quoted};
use crate::format::{ByteSource, FileSource, safetensors};
use std::sync::Arc;

const MODULES: &str = "modules.json";
/// Where pooling is described in folders without a list of modules.
const POOLING: &str = "1_Pooling";
/// The only architecture whose dense layers GGUF has.
const WITH_DENSE: &str = "gemma-embedding";
/// GGUF's names of the dense layers, and of their widths.
const DENSE: [[&str; 3]; 2] = [
    ["dense_2.weight", "dense_2_feat_in", "dense_2_feat_out"],
    ["dense_3.weight", "dense_3_feat_in", "dense_3_feat_out"],
];

/// A dense layer behind pooling.
pub(super) struct Dense {
    name: &'static str,
    /// The folder of its tensors.
    path: String,
}

/// Reads the modules into the description, and returns the dense layers.
pub(super) fn read(folder: &Folder<'_>, architecture: &str, d: &mut Description) -> Result<Vec<Dense>> {
    let mut dense = Vec::new();
    let Some(modules) = folder.json(MODULES)? else {
        if let Some(pooling) = folder.settings(&format!("{POOLING}/config.json"))? {
            insert_pooling(&pooling, d)?;
        }
        return Ok(dense);
    };
    let wrong = |what: String| Error::format(format!("{}: {what}", folder.name(MODULES)));
    for module in modules.as_array().ok_or_else(|| wrong("not a list".into()))? {
        let text = |key: &str| module.get(key).and_then(Json::as_str).unwrap_or_default();
        let (kind, path) = (text("type"), text("path"));
        if path.split(['/', '\\']).any(|part| part == "..") || path.starts_with('/') || path.contains('\0') {
            return Err(wrong(format!("{} is no folder within this one", quoted(path))));
        }
        let kind = kind.rsplit('.').next().unwrap_or_default();
        match kind {
            "Transformer" | "Normalize" => {}
            "Pooling" => insert_pooling(&settings(folder, path)?, d)?,
            "Dense" if architecture == WITH_DENSE && dense.len() < DENSE.len() => {
                let [name, inputs, outputs] = DENSE[dense.len()];
                let settings = settings(folder, path)?;
                settings.expect("activation_function", &["torch.nn.modules.linear.Identity"])?;
                d.count(inputs, settings.required("in_features")?)?;
                d.count(outputs, settings.required("out_features")?)?;
                dense.push(Dense { name, path: path.to_owned() });
            }
            other => {
                let what = format!("{}: the module {}", folder.name(MODULES), quoted(other));
                return Err(Error::Unsupported(what));
            }
        }
    }
    Ok(dense)
}

fn settings(folder: &Folder<'_>, path: &str) -> Result<Settings> {
    let file = format!("{path}/config.json");
    let missing = || Error::format(format!("{}: the file is missing", folder.name(&file)));
    folder.settings(&file)?.ok_or_else(missing)
}

/// How a text's rows become one vector.
fn insert_pooling(pooling: &Settings, d: &mut Description) -> Result<()> {
    // GGUF's numbers.
    const KINDS: [(&str, &str, u32); 3] = [
        ("pooling_mode_mean_tokens", "mean", 1),
        ("pooling_mode_cls_token", "cls", 2),
        ("pooling_mode_lasttoken", "lasttoken", 3),
    ];
    const OTHERS: [&str; 3] =
        ["pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens"];
    let named = pooling.text("pooling_mode")?;
    let mut chosen = Vec::new();
    for (key, name, number) in KINDS {
        if pooling.flag(key)? || named == Some(name) {
            chosen.push(number);
        }
    }
    let mut others = false;
    for key in OTHERS {
        others |= pooling.flag(key)?;
    }
    match chosen[..] {
        [number] if !others => d.count("pooling_type", number),
        _ => Err(Error::Unsupported(format!(
            "{}: pooling other than the mean, the first or the last token",
            pooling.file()
        ))),
    }
}

impl Dense {
    /// The layer's matrix.
    pub fn piece(&self, folder: &Folder<'_>) -> Result<Piece> {
        let source = FileSource::open(folder.0.join(&self.path).join("model.safetensors"))?;
        let source: Arc<dyn ByteSource> = Arc::new(source);
        let tensors = safetensors(&*source)?;
        let fault = |what: String| at(|| source.name().to_owned())(Error::Unsupported(what));
        match &tensors[..] {
            [tensor] if tensor.name == "linear.weight" && tensor.shape.len() == 2 => {
                let dtype = float(tensor.dtype).map_err(|what| fault(format!("its tensor {what}")))?;
                let dims = tensor.shape.iter().rev().copied().collect();
                Ok(Piece::plain(self.name.to_owned(), dims, dtype, source.clone(), tensor.offset))
            }
            _ => Err(fault("a dense layer of other tensors than a matrix \"linear.weight\"".into())),
        }
    }
}
