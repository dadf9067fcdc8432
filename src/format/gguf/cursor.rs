//! Reads a header from front to back through a buffer.
//! A length is checked against the remaining bytes before memory is reserved for it.

use super::limits::MAX_HEADER_BYTES;
use crate::format::ByteSource;
use crate::memory::reserve::{reserve, with_room};
use crate::{Error, Result};

/// Bytes fetched at once: a header of several MB is read in a few dozen calls.
const BUFFER_BYTES: usize = 64 << 10;

/// A position in a header, with the bytes after it fetched ahead.
pub(super) struct Cursor<'a> {
    source: &'a dyn ByteSource,
    /// The end of the source, or the limit of a header if that is lower.
    end: u64,
    /// Offset of the next byte.
    pos: u64,
    /// Fetched bytes; those before `next` have been read.
    buffer: Vec<u8>,
    next: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(source: &'a dyn ByteSource) -> Result<Self> {
        let end = source.len().min(MAX_HEADER_BYTES);
        let buffer = with_room((BUFFER_BYTES as u64).min(end) as usize, "the buffer of a header")?;
        Ok(Self { source, end, pos: 0, buffer, next: 0 })
    }

    /// Offset of the next byte.
    pub(super) fn pos(&self) -> u64 {
        self.pos
    }

    /// Checks that the remaining bytes can hold `count` items of at least `min_bytes` each; returns `count` as `usize`.
    pub(super) fn check_room(&self, count: u64, min_bytes: u64, what: &str) -> Result<usize> {
        let left = self.end - self.pos;
        let needed = count.checked_mul(min_bytes);
        match (needed, usize::try_from(count)) {
            (Some(needed), Ok(count)) if needed <= left => Ok(count),
            _ => Err(Error::format(format!(
                "{count} {what} at byte {}, but only {left} bytes are left{}",
                self.pos,
                if self.end < self.source.len() {
                    " of the largest header taken"
                } else {
                    " in the file; was its download interrupted?"
                }
            ))),
        }
    }

    /// Fills `out` with the next bytes.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<()> {
        self.check_room(out.len() as u64, 1, "bytes needed")?;
        let ahead = &self.buffer[self.next..];
        let buffered = ahead.len().min(out.len());
        out[..buffered].copy_from_slice(&ahead[..buffered]);
        self.advance(buffered);
        let rest = &mut out[buffered..];
        if rest.len() >= BUFFER_BYTES {
            self.source.read_at(self.pos, rest)?;
            self.pos += rest.len() as u64;
        } else if !rest.is_empty() {
            self.fetch()?;
            rest.copy_from_slice(&self.buffer[..rest.len()]);
            self.advance(rest.len());
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.next += bytes;
        self.pos += bytes as u64;
    }

    /// Refills the buffer, whose bytes have all been read.
    fn fetch(&mut self) -> Result<()> {
        let bytes = (self.end - self.pos).min(BUFFER_BYTES as u64) as usize;
        self.next = 0;
        self.buffer.resize(bytes, 0);
        let fetched = self.source.read_at(self.pos, &mut self.buffer);
        if fetched.is_err() {
            self.buffer.clear();
        }
        fetched
    }

    /// The next `N` bytes.
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// The next number; `from_le` converts its little-endian bytes.
    pub(super) fn number<T, const N: usize>(&mut self, from_le: fn([u8; N]) -> T) -> Result<T> {
        Ok(from_le(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.number(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.number(u64::from_le_bytes)
    }

    /// The next `count` numbers; `from_le` converts the little-endian bytes of each.
    pub(super) fn numbers<T, const N: usize>(
        &mut self,
        count: u64,
        from_le: fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let count = self.check_room(count, N as u64, "array elements")?;
        let mut numbers = with_room(count, "a metadata array")?;
        for _ in 0..count {
            numbers.push(self.number(from_le)?);
        }
        Ok(numbers)
    }

    /// The fetched bytes that come next: at the beginning, those of the file's head.
    pub(super) fn peek(&mut self) -> Result<&[u8]> {
        if self.next == self.buffer.len() {
            self.fetch()?;
        }
        Ok(&self.buffer[self.next..])
    }

    /// Bytes of the whole source.
    pub(super) fn source_len(&self) -> u64 {
        self.source.len()
    }

    /// Reads a length and that many bytes, which replace the contents of `out`.
    pub(super) fn string_into(&mut self, max_bytes: u64, out: &mut Vec<u8>) -> Result<()> {
        let (len, pos) = (self.u64()?, self.pos);
        if len > max_bytes {
            return Err(Error::format(format!(
                "a string of {len} bytes at byte {pos}; at most {max_bytes} are taken"
            )));
        }
        let len = self.check_room(len, 1, "bytes of a string")?;
        out.clear();
        reserve(out, len, "a string of a header")?;
        out.resize(len, 0);
        self.read(out)
    }

    /// Reads a length and that many bytes, which may be no UTF-8.
    pub(super) fn string(&mut self, max_bytes: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.string_into(max_bytes, &mut out)?;
        Ok(out)
    }

    /// Reads a length and that many bytes of UTF-8.
    pub(super) fn text(&mut self, max_bytes: u64) -> Result<String> {
        let bytes = self.string(max_bytes)?;
        let begin = self.pos - bytes.len() as u64;
        String::from_utf8(bytes).map_err(|e| {
            let valid = e.utf8_error().valid_up_to() as u64;
            Error::format(format!("a string is not UTF-8 at byte {}", begin + valid))
        })
    }
}
