//! Our JSON. The version is looked at before anything else, so that a file of a later one is called that.

use serde::Deserialize;

use super::Read;
use crate::error::{Error, Result, quoted};
use crate::report::data::{FORMAT, Report, VERSION};

/// The fields that every version has.
#[derive(Deserialize)]
struct Head {
    format: Option<serde_json::Value>,
    version: Option<serde_json::Value>,
}

pub(super) fn parse(source: &str, text: &str) -> Result<Read> {
    let head: Head = field_by_field(source, text)?;
    match &head.format {
        Some(serde_json::Value::String(format)) if format == FORMAT => {}
        Some(format) => {
            let format = quoted(&format.to_string());
            return Err(Error::format(format!(
                "{source}: format: {format} is not {FORMAT:?}: not a profile"
            )));
        }
        None => return Err(Error::format(format!("{source}: format: absent: not a profile"))),
    }
    match &head.version {
        Some(version) if *version == VERSION => {}
        Some(version) => {
            let version = quoted(&version.to_string());
            return Err(Error::Unsupported(format!(
                "{source}: version: a profile of version {version}; this program reads version {VERSION}"
            )));
        }
        None => return Err(Error::format(format!("{source}: version: absent"))),
    }
    Read::of(source, field_by_field::<Report>(source, text)?)
}

/// Deserialises with the path of the field in errors; line and column are serde_json's.
fn field_by_field<'a, T: Deserialize<'a>>(source: &str, text: &'a str) -> Result<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        Error::format(format!("{source}: {place}{}", error.into_inner()))
    })?;
    json.end().map_err(|error| Error::format(format!("{source}: {error}")))?;
    Ok(value)
}
