//! The history of typed lines: a JSON text a line in the user's state folder, which only the user may read.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use smallmind::files::Draft;
use smallmind::{Error, Result};

use crate::small_file;

/// Lines that are kept.
pub const MAX_ENTRIES: usize = 1000;
/// The longest file that is read: longer than any that this program writes.
const MAX_BYTES: u64 = 64 << 20;
/// The longest line that is kept.
const MAX_LINE: usize = 8 << 10;

/// A file of lines.
pub struct History {
    path: PathBuf,
}

impl History {
    /// The user's history; `None` where there is no home folder.
    pub fn open() -> Option<History> {
        place(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME")).map(|path| History { path })
    }

    /// The lines, oldest first. A file that can't be read has none, and neither has a damaged line.
    pub fn entries(&self) -> Vec<String> {
        self.read().unwrap_or_default()
    }

    /// Keeps another line.
    pub fn add(&self, line: &str) -> Result<()> {
        if line.len() > MAX_LINE {
            return Ok(());
        }
        let failed = |source| Error::Io { path: self.path.clone(), source };
        let mut entries = match self.read() {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Vec::new(),
            entries => entries?,
        };
        if entries.last().is_some_and(|last| last == line) {
            return Ok(());
        }
        entries.push(line.to_owned());
        let kept = &entries[entries.len().saturating_sub(MAX_ENTRIES)..];
        let text: String = kept.iter().map(|entry| format!("{}\n", serde_json::json!(entry))).collect();
        make_private(self.path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        let mut draft = Draft::private(&self.path)?;
        draft.write(text.as_bytes())?;
        draft.publish()
    }

    fn read(&self) -> Result<Vec<String>> {
        let text = small_file::read_text(&self.path, MAX_BYTES)?;
        let entries = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        // The editor writes an entry to the terminal as it is.
        let is_plain =
            |entry: &String| !entry.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t'));
        Ok(entries.filter(is_plain).collect())
    }
}

/// An empty or relative `$XDG_STATE_HOME` counts as none, as its specification has it.
fn place(state: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let state = state.map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || Some(PathBuf::from(home.filter(|home| !home.is_empty())?).join(".local/state"));
    Some(state.or_else(home)?.join("smallmind").join("chat-history"))
}

/// Makes a folder that only its owner may enter, where there is none.
fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_in_order_and_the_file_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let history = History { path: folder.path().join("new/chat-history") };
        assert!(history.entries().is_empty());
        for line in ["one", "two\nlines \\", "two\nlines \\", "three"] {
            history.add(line).unwrap();
        }
        history.add(&"x".repeat(MAX_LINE + 1)).unwrap();
        assert_eq!(history.entries(), ["one", "two\nlines \\", "three"]);
        let many: String = (0..MAX_ENTRIES).map(|i| format!("\"{i}\"\n")).collect();
        fs::write(&history.path, many + "damaged\n").unwrap();
        history.add("last").unwrap();
        assert_eq!((history.entries().len(), &*history.entries()[0]), (MAX_ENTRIES, "1"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&history.path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    /// Waiting for a pipe's other end would last for ever.
    #[cfg(unix)]
    #[test]
    fn a_pipe_is_no_history() {
        let folder = tempfile::tempdir().unwrap();
        let history = History { path: folder.path().join("pipe") };
        let name = std::ffi::CString::new(history.path.to_str().unwrap()).unwrap();
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(history.entries().is_empty());
        let error = history.add("one").unwrap_err().to_string();
        assert!(error.ends_with("pipe: not a regular file"), "{error}");
    }

    #[test]
    fn the_file_is_in_the_users_state_folder() {
        let place = |state: &str, home: &str| place(Some(state.into()), Some(home.into()));
        assert_eq!(place("/state", "/me").unwrap(), Path::new("/state/smallmind/chat-history"));
        let local = Path::new("/me/.local/state/smallmind/chat-history");
        assert_eq!((place("", "/me").unwrap(), place("here", "/me").unwrap()), (local.into(), local.into()));
        assert_eq!(place("", ""), None);
    }
}
