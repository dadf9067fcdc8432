//! Files that are read whole: regular ones, up to a length.

use std::fs::{File, metadata};
use std::io::Read;
use std::path::Path;

use smallmind::text::escaped_path;
use smallmind::{Error, Result};

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// [`Error::Io`] where it can't be read; [`Error::InvalidArgument`] for a folder, a pipe or a device;
/// [`Error::Format`] where it is longer.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    // Opening a pipe may wait for ever.
    if !metadata(path).map_err(failed)?.is_file() {
        return Err(Error::invalid(format!("{}: not a regular file", escaped_path(path))));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > most {
        true => Err(Error::format(format!("{}: more than {most} bytes", escaped_path(path)))),
        false => Ok(bytes),
    }
}

/// [`read`] for a text.
///
/// # Errors
/// Those of [`read`], and [`Error::Format`] where the file isn't UTF-8.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    String::from_utf8(read(path, most)?)
        .map_err(|_| Error::format(format!("{}: not UTF-8", escaped_path(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        let refused = |most| read_text(&path, most).unwrap_err().to_string();
        assert!(refused(3).ends_with("text: more than 3 bytes"), "{}", refused(3));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(refused(4).ends_with("text: not UTF-8"), "{}", refused(4));
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path(), 4).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
        assert!(matches!(read(&folder.path().join("none"), 4), Err(Error::Io { .. })));
    }
}
