//! The operating system's part of reading files: a positioned read.
//! The offset is an argument, so several threads may read one file at the same time.

use std::fs::File;
use std::io;

/// Reads at most `buf.len()` bytes at `offset`; 0 at the end of the file.
#[cfg(unix)]
pub(super) fn read_some_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

/// Reads at most `buf.len()` bytes at `offset`; 0 at the end of the file.
/// It also moves the file's own position, which this crate doesn't use.
#[cfg(windows)]
pub(super) fn read_some_at(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}
