//! Model files that commands write: whole or absent, and never over a file that is there, unless `--force` says so.

use std::io::ErrorKind;
use std::path::Path;

use smallmind::Error;
use smallmind::files::{Draft, Existing};
use smallmind::format::ByteSource;
use smallmind::text::escaped_path;

use crate::failure::{Failure, Result};
use crate::interrupt::Stoppable;
use crate::output::{print, remark};

/// Bytes computed and written at a time.
const CHUNK: usize = 1 << 20;

/// A file that isn't complete yet.
pub struct NewFile<'a> {
    path: &'a Path,
    draft: Draft,
}

impl<'a> NewFile<'a> {
    pub fn begin(path: &'a Path, force: bool) -> Result<Self> {
        let existing = if force { Existing::Replace } else { Existing::Refuse };
        let draft = Draft::new(path, existing).map_err(|error| taken(path, error))?;
        Ok(Self { path, draft })
    }

    pub fn write(&mut self, bytes: &[u8]) -> smallmind::Result<()> {
        self.draft.write(bytes)
    }

    /// Writes all that a source has.
    pub fn copy(&mut self, source: &dyn ByteSource, stoppable: &Stoppable) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < source.len() {
            if stoppable.requested() {
                return Err(Failure::Interrupted);
            }
            let count = (source.len() - at).min(CHUNK as u64) as usize;
            source.read_at(at, &mut chunk[..count])?;
            self.write(&chunk[..count])?;
            at += count as u64;
        }
        Ok(())
    }

    /// Makes the file appear.
    pub fn publish_silently(self) -> Result<()> {
        Ok(self.draft.publish().map_err(|error| taken(self.path, error))?)
    }

    /// Makes the file appear, and says what it is: `line` behind its path.
    pub fn publish(self, line: &str) -> Result<()> {
        let (path, streams) = (self.path, self.draft.is_stream());
        self.publish_silently()?;
        let done = format!("{}: {line}\n", escaped_path(path));
        match streams {
            // The file itself may go to standard output.
            true => remark(&done),
            false => print(&done)?,
        }
        Ok(())
    }
}

fn taken(path: &Path, error: Error) -> Error {
    match &error {
        Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
            Error::invalid(format!("{} is there already (--force overwrites it)", escaped_path(path)))
        }
        _ => error,
    }
}
