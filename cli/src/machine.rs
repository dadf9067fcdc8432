//! What this machine gives, said before a person waits in vain: its threads and its memory, and the files that are
//! there where one isn't.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;

use smallmind::memory::total_memory;
use smallmind::model::Model;
use smallmind::runtime::{Context, ContextParams};
use smallmind::text::{escaped, escaped_path};
use smallmind::{Error, threads};

use crate::failure::{Failure, Result};
use crate::output::remark;

/// Files of a folder that are looked at for a suggestion.
const MAX_FILES: usize = 10_000;
/// How alike two names are that one may have been meant for the other: of 1.
const ALIKE: f64 = 0.8;

/// Warns of more threads than can run at once.
pub fn warn_of_threads(wanted: usize, quiet: bool) {
    let most = threads::available();
    if wanted > most && !quiet {
        remark(&format!(
            "[{wanted} threads, but this machine runs {most} at once: they will wait for each other]\n"
        ));
    }
}

/// Refuses a context that this machine's memory can't hold, where `--ctx` asked for it.
pub fn check_context(model: &Model, params: &ContextParams, ctx: usize) -> Result<()> {
    let most = model.config().n_ctx_most();
    if ctx > most {
        return Err(Failure::Usage(format!(
            "invalid value '{ctx}' for '--ctx <N>': a context of this model has at most {most} positions"
        )));
    }
    let needed = Context::memory(model, params)?.total_bytes;
    match total_memory() {
        Some(total) if needed as u64 > total => {
            let hint = format!(
                "'--ctx {ctx}' takes {:.1} GB, and this machine has {:.1} GB; a smaller --ctx takes less, and so does \
                 --kv q8_0",
                needed as f64 / 1e9,
                total as f64 / 1e9
            );
            Err(Failure::Hinted(Error::OutOfMemory { bytes: needed, what: "the context" }, hint))
        }
        _ => Ok(()),
    }
}

/// Adds what would help to an error about a model's file that isn't there.
pub fn explain(path: &Path) -> impl FnOnce(Error) -> Failure {
    move |error| match &error {
        Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => match suggestion(path) {
            Some(hint) => Failure::Hinted(error, hint),
            None => Failure::Failed(error),
        },
        _ => Failure::Failed(error),
    }
}

/// What may have been meant by a path that leads nowhere.
fn suggestion(path: &Path) -> Option<String> {
    if let Ok(target) = std::fs::read_link(path) {
        return Some(format!("it is a link to '{}', which isn't there", escaped_path(&target)));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Some(format!("there is no folder {}", escaped_path(folder)));
    }
    let wanted = path.file_name()?.to_string_lossy().into_owned();
    let files = std::fs::read_dir(folder).ok()?.take(MAX_FILES).filter_map(|file| file.ok());
    let models = files.filter(|file| Path::new(&file.file_name()).extension() == Some(OsStr::new("gguf")));
    let rated = models.map(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        (strsim::jaro_winkler(&wanted, &name), name)
    });
    let (alike, name) = rated.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)))?;
    match alike >= ALIKE {
        true => Some(format!("did you mean '{}'?", escaped_path(&folder.join(&name)))),
        false => Some(format!("the folder has '{}', for example", escaped(&name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_may_have_been_meant_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str| suggestion(&folder.path().join(name));
        assert_eq!(said("model.gguf"), None);
        for name in ["smollm2-q8.gguf", "qwen3-q4.gguf", "notes\n.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert!(said("smolm2-q8.gguf").unwrap().ends_with("/smollm2-q8.gguf'?"));
        assert!(said("Qwen3-q4.gguf").unwrap().starts_with("did you mean '"));
        assert!(said("zzz").unwrap().starts_with("the folder has '"));
        assert!(said("none/model.gguf").unwrap().contains("there is no folder"));
    }
}
