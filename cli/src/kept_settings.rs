//! Settings of a file that grows, kept beside it: a run that goes on with the file must make the same records.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use smallmind::Error;
use smallmind::text::escaped_path;

use crate::embed::output::beside;
use crate::failure::{Failure, Result};
use crate::small_file;

/// Where the settings of a file stand.
pub fn place(path: &Path) -> PathBuf {
    beside(path, ".settings.json")
}

/// Those of a file, in at most `most` bytes; `None` where there are none.
pub fn read<T: DeserializeOwned>(path: &Path, most: u64) -> Result<Option<T>> {
    let place = place(path);
    if !place.exists() {
        return Ok(None);
    }
    let text = small_file::read_text(&place, most)?;
    let settings = serde_json::from_str(&text)
        .map_err(|error| Error::invalid(format!("{}: {error}", escaped_path(&place))))?;
    Ok(Some(settings))
}

/// [`read`] for a run that goes on with the file.
///
/// # Errors
/// [`refused`] where there are none.
pub fn needed<T: DeserializeOwned>(path: &Path, most: u64) -> Result<T> {
    read(path, most)?.ok_or_else(|| refused(path, "its .settings.json isn't there"))
}

pub fn write<T: Serialize>(path: &Path, settings: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(settings).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(smallmind::files::write(&place(path), text.as_bytes())?)
}

/// Refuses to go on with a file that was made otherwise, and names the first setting that isn't the same.
pub fn check(path: &Path, same: &[(&str, bool)]) -> Result<()> {
    match same.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => Err(refused(path, &format!("{what} was another"))),
    }
}

/// The error of a file that a run can't go on with.
pub fn refused(path: &Path, why: &str) -> Failure {
    let path = escaped_path(path);
    Error::invalid(format!("{path} can't be resumed: {why} (--force begins it again)")).into()
}
