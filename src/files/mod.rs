//! Files that appear whole or not at all. A [`Draft`] is written next to its place and renamed when it is complete, so
//! a full disk, an error or a killed process leaves the file that stood there before. [`write_folder`] does the same
//! for the files of a folder.

mod folder;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::error::{Error, Result};

pub use folder::{check_folder, write_folder};

/// The name of whatever isn't complete yet: between these two stand random letters.
const DRAFT_NAME: (&str, &str) = (".smallmind-", ".tmp");
/// Links that are followed from a path to its file; Linux follows as many.
const MAX_LINKS: usize = 40;

/// Whether a file that is there already may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced once the new one is complete, which gets its permissions.
    Replace,
    /// It is an error.
    Refuse,
}

/// A file that isn't complete yet. Dropped before [`Draft::publish`], it leaves nothing behind.
///
/// A path that is a symbolic link means the file at its end. Devices, pipes and the process's own streams
/// (`/dev/stdout`) can't be replaced by a renaming: what is written goes straight to them.
#[derive(Debug)]
pub struct Draft {
    /// As the caller named it, for errors.
    path: PathBuf,
    existing: Existing,
    place: Place,
}

/// Where a draft's bytes go.
#[derive(Debug)]
enum Place {
    /// To a file next to the target, which is renamed to it.
    Beside { file: NamedTempFile, target: PathBuf },
    /// To something that can't be replaced.
    Straight(File),
}

/// What stands at the end of a path's links.
enum Found {
    Nothing(PathBuf),
    Regular(PathBuf, Metadata),
    /// A device, a pipe, or a stream of this process.
    Stream,
}

impl Draft {
    /// Begins a file for `path`.
    ///
    /// # Errors
    /// [`Error::Io`] where no file can be made there, with [`ErrorKind::AlreadyExists`] where one is there that may not
    /// be replaced, and [`ErrorKind::IsADirectory`] where the path is a folder.
    pub fn new(path: &Path, existing: Existing) -> Result<Draft> {
        Draft::with_mode(path, existing, 0o666)
    }

    /// [`Draft::new`], replacing, for a file that only its owner may read. A file that is replaced keeps its
    /// permissions.
    ///
    /// # Errors
    /// Those of [`Draft::new`].
    pub fn private(path: &Path) -> Result<Draft> {
        Draft::with_mode(path, Existing::Replace, 0o600)
    }

    fn with_mode(path: &Path, existing: Existing, mode: u32) -> Result<Draft> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let place = Place::of(path, existing, mode).map_err(failed)?;
        Ok(Draft { path: path.to_owned(), existing, place })
    }

    /// Whether the bytes go straight to a device, a pipe or a stream of the process.
    pub fn is_stream(&self) -> bool {
        matches!(self.place, Place::Straight(_))
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.place {
            // The error of the temporary file itself would name that file.
            Place::Beside { file, .. } => file.as_file_mut().write_all(bytes),
            Place::Straight(file) => file.write_all(bytes),
        };
        written.map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Puts all bytes on the disk, under no name yet.
    fn complete(&self) -> Result<()> {
        match &self.place {
            Place::Beside { file, .. } => {
                file.as_file().sync_all().map_err(|source| Error::Io { path: self.path.clone(), source })
            }
            Place::Straight(_) => Ok(()),
        }
    }

    /// Makes the file appear under its name, with all its bytes on the disk.
    ///
    /// # Errors
    /// [`Error::Io`] with the path; then the file that stood there before still does.
    pub fn publish(self) -> Result<()> {
        self.complete()?;
        let Draft { path, existing, place } = self;
        place.publish(existing).map_err(|source| Error::Io { path, source })
    }
}

impl Place {
    fn of(path: &Path, existing: Existing, mode: u32) -> io::Result<Place> {
        let found = follow(path)?;
        let target = match &found {
            Found::Stream => return Ok(Place::Straight(os::open_stream(path)?)),
            Found::Regular(..) if existing == Existing::Refuse => {
                return Err(ErrorKind::AlreadyExists.into());
            }
            Found::Nothing(target) | Found::Regular(target, _) => target.clone(),
        };
        let folder = parent(&target);
        // Asked first: the error of a temporary file would name that file.
        fs::metadata(folder)?;
        let file = os::with_mode(Builder::new().prefix(DRAFT_NAME.0).suffix(DRAFT_NAME.1), mode)
            .tempfile_in(folder)
            .map_err(|error| io::Error::from(error.kind()))?;
        if let Found::Regular(target, former) = &found {
            // A renaming would replace a file that nobody may write to.
            OpenOptions::new().write(true).open(target)?;
            os::take_over(file.as_file(), former)?;
        }
        Ok(Place::Beside { file, target })
    }

    fn publish(self, existing: Existing) -> io::Result<()> {
        match self {
            Place::Straight(mut file) => file.flush(),
            Place::Beside { file, target } => {
                match existing {
                    Existing::Replace => file.persist(&target),
                    Existing::Refuse => file.persist_noclobber(&target),
                }
                .map_err(|error| error.error)?;
                sync_folder(parent(&target));
                Ok(())
            }
        }
    }
}

/// Writes a whole file, or leaves the one that stood there.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut draft = Draft::new(path, Existing::Replace)?;
    draft.write(bytes)?;
    draft.publish()
}

/// Follows a path's links, also to a file that isn't there yet.
fn follow(path: &Path) -> io::Result<Found> {
    let is_folder = || io::Error::new(ErrorKind::IsADirectory, "is a folder; a file is needed");
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(is_folder());
    }
    let mut at = path.to_owned();
    for _ in 0..MAX_LINKS {
        let about = match fs::symlink_metadata(&at) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing(at)),
            about => about?,
        };
        if about.is_dir() {
            return Err(is_folder());
        } else if about.is_file() {
            return Ok(Found::Regular(at, about));
        } else if !about.is_symlink() || os::is_stream(&at) {
            return Ok(Found::Stream);
        }
        at = parent(&at).join(fs::read_link(&at)?);
    }
    Err(io::Error::other("too many symbolic links"))
}

/// The folder that a path stands in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts a folder's names on the disk. Not all file systems can, and the files are complete without it.
fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// What files have on some systems only: modes, owners, and links to a process's own streams.
#[cfg(unix)]
mod os {
    use std::fs::{File, Metadata, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    use std::path::Path;

    use tempfile::Builder;

    /// Opens a device, a pipe or a stream of the process. A pipe that nobody reads is an error: opening it would wait for a
    /// reader, for ever if none comes.
    pub fn open_stream(path: &Path) -> io::Result<File> {
        use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
        if std::fs::metadata(path)?.file_type().is_fifo() {
            let probe = OpenOptions::new().append(true).custom_flags(libc::O_NONBLOCK).open(path);
            let probe = probe.map_err(|error| match error.raw_os_error() {
                Some(libc::ENXIO) => io::Error::new(io::ErrorKind::NotConnected, "a pipe that nobody reads"),
                _ => error,
            })?;
            // The reader must see no end before the file that is written to is open, too.
            let file = OpenOptions::new().append(true).open(path);
            drop(probe);
            return file;
        }
        OpenOptions::new().append(true).open(path)
    }

    /// The mode of a new file or folder, before the process's mask takes bits away.
    pub fn with_mode<'b, 'a, 's>(builder: &'b mut Builder<'a, 's>, mode: u32) -> &'b mut Builder<'a, 's> {
        builder.permissions(Permissions::from_mode(mode))
    }

    /// Gives a new file or folder the owner, if this process may, and the mode of the one that it will replace.
    pub fn take_over(new: &File, former: &Metadata) -> io::Result<()> {
        let own = new.metadata()?;
        if (own.uid(), own.gid()) != (former.uid(), former.gid()) {
            let _ = fchown(new, Some(former.uid()), Some(former.gid()));
        }
        new.set_permissions(Permissions::from_mode(former.mode() & 0o7777))
    }

    /// Whether a link stands for a stream of a process, such as `/dev/stdout`: its end may be a regular file, but it
    /// means the open stream.
    pub fn is_stream(link: &Path) -> bool {
        super::parent(link).canonicalize().is_ok_and(|folder| folder.starts_with("/proc"))
    }
}

#[cfg(not(unix))]
mod os {
    use std::fs::{File, Metadata};
    use std::io;
    use std::path::Path;

    use tempfile::Builder;

    pub fn with_mode<'b, 'a, 's>(builder: &'b mut Builder<'a, 's>, _mode: u32) -> &'b mut Builder<'a, 's> {
        builder
    }

    pub fn take_over(new: &File, former: &Metadata) -> io::Result<()> {
        new.set_permissions(former.permissions())
    }

    pub fn is_stream(_link: &Path) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
