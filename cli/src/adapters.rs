//! The option for low-rank adapters (LoRA) that commands have which load a model.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args as Group;
use clap::builder::{OsStringValueParser, TypedValueParser};
use smallmind::model::Adapter;
use smallmind::text::escaped_path;

use crate::failure::Result;
use crate::machine::explain;
use crate::output::remark;

#[derive(Group, Clone, Debug, Default)]
pub struct AdapterArgs {
    /// Apply a low-rank adapter (LoRA, GGUF), at this scale instead of 1; may be given several times
    #[arg(long, value_name = "FILE[=SCALE]", value_parser = OsStringValueParser::new().try_map(adapter))]
    pub lora: Vec<AdapterFile>,
}

/// An adapter's file, and the scale that it is applied with.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFile {
    path: PathBuf,
    scale: f32,
}

/// A path, with a number behind the last `=` if there is one; a path may have a `=` of its own.
fn adapter(text: OsString) -> std::result::Result<AdapterFile, &'static str> {
    let scaled = text.to_str().and_then(|text| {
        let (path, scale) = text.rsplit_once('=')?;
        Some((path.to_owned(), scale.parse::<f32>().ok()?))
    });
    let (path, scale) = match scaled {
        Some((path, scale)) => (path.into(), scale),
        None => (text, 1.0),
    };
    match (path.is_empty(), scale.is_finite()) {
        (true, _) => Err("a file is needed before the scale"),
        (_, false) => Err("a finite scale is needed"),
        _ => Ok(AdapterFile { path: path.into(), scale }),
    }
}

impl AdapterArgs {
    /// The adapters, whose headers are read and checked.
    pub fn open(&self) -> Result<Vec<Adapter>> {
        let open = |file: &AdapterFile| {
            let adapter = Adapter::open(&file.path).map_err(explain(&file.path))?;
            Ok(adapter.with_scale(file.scale))
        };
        self.lora.iter().map(open).collect()
    }

    /// Their files and scales, as they are written.
    pub fn names(&self) -> Vec<String> {
        self.lora.iter().map(|file| format!("{}={}", file.path.display(), file.scale)).collect()
    }

    /// Says on standard error which adapters a model has.
    pub fn report(&self, adapters: &[Adapter]) {
        for (file, adapter) in self.lora.iter().zip(adapters) {
            let (path, scale, tensors) = (escaped_path(&file.path), file.scale, adapter.targets().len());
            remark(&format!("[adapter {path} changes {tensors} tensors, at a scale of {scale}]\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_stands_behind_the_last_equals_sign() {
        let read = |text: &str| adapter(text.into());
        let file = |path: &str, scale| Ok(AdapterFile { path: path.into(), scale });
        assert_eq!(read("a.gguf"), file("a.gguf", 1.0));
        assert_eq!(read("a.gguf=0.5"), file("a.gguf", 0.5));
        assert_eq!(read("a=b.gguf"), file("a=b.gguf", 1.0));
        assert_eq!(read("a=b.gguf=-2"), file("a=b.gguf", -2.0));
        assert_eq!(read("a=1=0"), file("a=1", 0.0));
        for bad in ["=0.5", "", "a.gguf=NaN", "a.gguf=inf", "a.gguf=1e99"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
