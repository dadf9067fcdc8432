//! Where the bytes of a model come from: positioned reads that many threads may make at once.
//! [`FileSource`] is the ordinary way; [`MapSource`] only on request, for the hazard it documents.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::os;
use crate::{Error, Result};

/// A fixed run of bytes that can be read at any position, from several threads at once.
pub trait ByteSource: Send + Sync {
    /// Bytes in the source, fixed when it was opened.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What to call the source in messages: the path of a file, as a rule.
    fn name(&self) -> &str;

    /// Fills `buf` with the bytes from `offset` on; all of it, or an error.
    ///
    /// # Errors
    /// [`Error::Format`] with the name and the range where that passes [`ByteSource::len`];
    /// [`Error::Io`] where the system cannot read, or the file has become shorter since it was opened.
    /// `buf` may then be partly overwritten.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;
}

/// The error of a read past the end, or nothing.
fn check_range(source: &dyn ByteSource, offset: u64, bytes: usize) -> Result<()> {
    let len = source.len();
    match offset.checked_add(bytes as u64) {
        Some(end) if end <= len => Ok(()),
        _ => Err(Error::format(format!(
            "{}: {bytes} bytes at {offset} are past the end, which is at {len}",
            source.name()
        ))),
    }
}

/// Opens a regular file. Anything else is refused before it is opened: opening a pipe could wait for ever.
fn open_regular(path: &Path) -> Result<(File, u64)> {
    let io_error = |source| Error::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(io_error)?.is_file() {
        return Err(Error::invalid(format!("{}: not a regular file", path.display())));
    }
    let file = File::open(path).map_err(io_error)?;
    let len = file.metadata().map_err(io_error)?.len();
    Ok((file, len))
}

/// A file, read by `pread` (`ReadFile` with an offset on Windows) straight into the caller's buffer.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
    path: PathBuf,
    name: String,
}

impl FileSource {
    /// Opens a regular file and notes its length.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened; [`Error::InvalidArgument`] for a folder, a pipe or a device.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, len) = open_regular(path)?;
        Ok(Self { file, len, path: path.to_owned(), name: path.display().to_string() })
    }

    fn io_error(&self, source: io::Error) -> Error {
        Error::Io { path: self.path.clone(), source }
    }
}

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, buf.len())?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            match os::read_some_at(&self.file, at, &mut buf[done..]) {
                Ok(0) => {
                    let text = format!("ends at byte {at}, was {} bytes when opened", self.len);
                    return Err(self.io_error(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.io_error(e)),
            }
        }
        Ok(())
    }
}

/// A file mapped into memory: pages come in when touched and are shared between processes.
///
/// Hazard: should another process truncate the file, touching a page past its new end raises SIGBUS (an
/// access violation on Windows) and ends this process; no check made here can prevent it. That is why a map is
/// made only where a caller asks for one, for files that nobody writes to.
#[derive(Debug)]
pub struct MapSource {
    map: memmap2::Mmap,
    name: String,
}

impl MapSource {
    /// Maps a regular file, whole and read-only.
    ///
    /// # Safety
    /// While the source lives no one may truncate or change the file: the mapped bytes are handed out as
    /// memory that does not change, and a page that is gone ends the process.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be opened or mapped; [`Error::InvalidArgument`] for what is no regular file.
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, _) = open_regular(path)?;
        // SAFETY: the caller vouches that the file stays as it is.
        let map = unsafe { memmap2::Mmap::map(&file) };
        let map = map.map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(Self { map, name: path.display().to_string() })
    }
}

impl ByteSource for MapSource {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, buf.len())?;
        buf.copy_from_slice(&self.map[offset as usize..][..buf.len()]);
        Ok(())
    }
}

/// Bytes already in memory, for callers that hold them and for tests.
#[derive(Clone, Debug)]
pub struct BytesSource {
    bytes: Arc<[u8]>,
    name: String,
}

impl BytesSource {
    /// Takes the bytes; `name` stands for them in messages.
    pub fn new(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { bytes: bytes.into(), name: name.into() }
    }
}

impl ByteSource for BytesSource {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, buf.len())?;
        buf.copy_from_slice(&self.bytes[offset as usize..][..buf.len()]);
        Ok(())
    }
}
