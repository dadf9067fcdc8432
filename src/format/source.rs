//! Sources of a model's bytes, with positioned reads that many threads may make at the same time.
//! [`FileSource`] is the ordinary one; [`MapSource`] is only used on request, because of the hazard that it documents.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::os;
use crate::error::quoted;
use crate::memory::reserve::with_room;
use crate::text::{escaped, escaped_path};
use crate::{Error, Result};

/// A fixed sequence of bytes that can be read at any position, by several threads at the same time.
pub trait ByteSource: Send + Sync {
    /// Number of bytes, fixed when the source was opened.
    fn len(&self) -> u64;

    /// Whether the source has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name in messages: as a rule, the path of a file.
    fn name(&self) -> &str;

    /// Fills all of `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::Format`] with name and range where the range ends after [`ByteSource::len`]; [`Error::Io`] where the
    /// system can't read, or the file has become shorter since it was opened. Part of `buf` may have been overwritten
    /// then.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Opens the source that stands next to this one and is called `name`: for a file, another file of its folder.
    ///
    /// # Errors
    /// Those of opening it; [`Error::Unsupported`] from a source without neighbours, which is the default.
    fn sibling(&self, name: &str) -> Result<Arc<dyn ByteSource>> {
        let source = escaped(self.name());
        Err(Error::Unsupported(format!("{source} is no file, so {} can't be found from there", quoted(name))))
    }
}

/// Checks that a read ends within the source.
fn check_range(source: &dyn ByteSource, offset: u64, bytes: usize) -> Result<()> {
    let len = source.len();
    match offset.checked_add(bytes as u64) {
        Some(end) if end <= len => Ok(()),
        _ => Err(Error::format(format!(
            "{}: {bytes} bytes at {offset} are past the end, which is at {len}",
            escaped(source.name())
        ))),
    }
}

/// Opens a regular file. Other kinds are refused before they are opened, since opening a pipe may wait for ever.
fn open_regular(path: &Path) -> Result<(File, u64)> {
    let io_error = |source| Error::Io { path: path.to_owned(), source };
    let kind = std::fs::metadata(path).map_err(io_error)?;
    if !kind.is_file() {
        let folder = if kind.is_dir() { " but a folder; the path of a file in it is needed" } else { "" };
        return Err(Error::invalid(format!("{}: not a regular file{folder}", escaped_path(path))));
    }
    let file = File::open(path).map_err(io_error)?;
    let len = file.metadata().map_err(io_error)?.len();
    Ok((file, len))
}

/// A file, read by `pread` (on Windows by `ReadFile` with an offset) straight into the caller's buffer.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
    path: PathBuf,
    name: String,
}

impl FileSource {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`Error::Io`] where it can't be opened; [`Error::InvalidArgument`] for a folder, a pipe or a device.
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

    fn sibling(&self, name: &str) -> Result<Arc<dyn ByteSource>> {
        Ok(Arc::new(FileSource::open(self.path.with_file_name(name))?))
    }
}

/// A file mapped into memory: pages are read on first access and shared between processes.
///
/// Hazard: if another process truncates the file, an access past its new end raises SIGBUS (on Windows an access
/// violation), which ends this process. No check in this library can prevent that, so files are only mapped on request,
/// for files that nobody writes to.
pub struct MapSource {
    map: memmap2::Mmap,
    path: PathBuf,
    name: String,
}

impl MapSource {
    /// Maps a regular file, whole and read-only.
    ///
    /// # Safety
    /// While the source lives, nobody may truncate or change the file: its bytes are lent out as memory that doesn't
    /// change, and an access past the end of a truncated file ends the process. The same holds for the files of its
    /// folder that [`ByteSource::sibling`] maps, which are the other parts of a split model.
    ///
    /// # Errors
    /// [`Error::Io`] where the file can't be opened or mapped; [`Error::InvalidArgument`] for a folder, a pipe or a
    /// device.
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, _) = open_regular(path)?;
        // SAFETY: the caller promises that nobody truncates or changes the file while the source, and so the map,
        // lives.
        let map = unsafe { memmap2::Mmap::map(&file) };
        let map = map.map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(Self { map, path: path.to_owned(), name: path.display().to_string() })
    }
}

impl std::fmt::Debug for MapSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapSource").field("name", &self.name).field("len", &self.map.len()).finish()
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

    fn sibling(&self, name: &str) -> Result<Arc<dyn ByteSource>> {
        // SAFETY: whoever opened this source promises the same of the files next to it.
        Ok(Arc::new(unsafe { MapSource::open(self.path.with_file_name(name)) }?))
    }
}

/// Bytes in memory.
#[derive(Clone)]
pub struct BytesSource {
    bytes: Bytes,
    name: String,
}

#[derive(Clone)]
enum Bytes {
    Shared(Arc<[u8]>),
    OfProgram(&'static [u8]),
}

impl BytesSource {
    /// A source of these bytes; `name` is their name in messages.
    pub fn new(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { bytes: Bytes::Shared(bytes.into()), name: name.into() }
    }

    /// A source of bytes that are a part of the program, without a copy.
    pub fn of_program(name: impl Into<String>, bytes: &'static [u8]) -> Self {
        Self { bytes: Bytes::OfProgram(bytes), name: name.into() }
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Shared(bytes) => bytes,
            Bytes::OfProgram(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for BytesSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BytesSource").field("name", &self.name).field("len", &self.len()).finish()
    }
}

impl ByteSource for BytesSource {
    fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, buf.len())?;
        buf.copy_from_slice(&self.bytes()[offset as usize..][..buf.len()]);
        Ok(())
    }
}

/// Several sources, read as if their bytes stood one after the other. It has the name and the siblings of the first.
pub(super) struct JoinedSource {
    parts: Vec<Arc<dyn ByteSource>>,
    /// The offset at which each part begins.
    begins: Vec<u64>,
    len: u64,
}

impl JoinedSource {
    /// Joins sources, of which there is at least one.
    pub fn new(parts: Vec<Arc<dyn ByteSource>>) -> Result<Self> {
        if parts.is_empty() {
            return Err(Error::invalid("no source to read from"));
        }
        let mut begins = with_room(parts.len(), "a list of files")?;
        let mut len = 0u64;
        for part in &parts {
            begins.push(len);
            len =
                len.checked_add(part.len()).ok_or_else(|| Error::invalid("files of more than 2^64 bytes"))?;
        }
        Ok(Self { parts, begins, len })
    }

    /// The offset at which a part begins.
    pub fn begin(&self, part: usize) -> u64 {
        self.begins[part]
    }
}

impl ByteSource for JoinedSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> &str {
        self.parts[0].name()
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, buf.len())?;
        let mut part = self.begins.partition_point(|&begin| begin <= offset).saturating_sub(1);
        while !buf.is_empty() {
            let source = &self.parts[part];
            let within = offset - self.begins[part];
            let count = (source.len() - within).min(buf.len() as u64) as usize;
            let (now, later) = buf.split_at_mut(count);
            source.read_at(within, now)?;
            (buf, offset, part) = (later, offset + count as u64, part + 1);
        }
        Ok(())
    }

    fn sibling(&self, name: &str) -> Result<Arc<dyn ByteSource>> {
        self.parts[0].sibling(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_sources_read_as_one() {
        let parts = [&b"abc"[..], b"", b"defg", b"h"];
        let source = |bytes: &[u8]| -> Arc<dyn ByteSource> { Arc::new(BytesSource::new("part", bytes)) };
        let joined = JoinedSource::new(parts.map(source).to_vec()).unwrap();
        let all = parts.concat();
        assert_eq!(joined.len(), all.len() as u64);
        for begin in 0..=all.len() {
            for end in begin..=all.len() {
                let mut read = vec![0; end - begin];
                joined.read_at(begin as u64, &mut read).unwrap();
                assert_eq!(read, all[begin..end]);
            }
        }
        assert!(joined.read_at(7, &mut [0; 2]).is_err());
        assert!(joined.sibling("other").err().unwrap().to_string().contains("part is no file"));
    }
}
