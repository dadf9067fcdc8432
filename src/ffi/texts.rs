//! A host's texts and spans of tokens: arrays of pointers with lengths, which are checked before a call and read during it,
//! also by the library's threads.

use std::ffi::c_char;
use std::{slice, str};

use super::buffers;
use super::status::Failure;
use crate::embed::{List, TextStatus};
use crate::tokenizer::MAX_TEXT_BYTES;

/// The host's texts: pointers, and bytes or NULs at their ends.
pub(super) struct HostTexts<'a> {
    texts: &'a [*const c_char],
    bytes: Option<&'a [usize]>,
}

// SAFETY: nobody writes the texts during the call, by the header's rules.
unsafe impl Sync for HostTexts<'_> {}

impl<'a> HostTexts<'a> {
    /// # Safety
    /// As the header says of texts and their bytes, during `'a`.
    pub unsafe fn new(texts: *const *const c_char, bytes: *const usize, n: usize) -> Result<Self, Failure> {
        // SAFETY: the function's contract.
        let texts = unsafe { buffers::array(texts, n, "texts") }?;
        let bytes = match bytes.is_null() {
            true => None,
            // SAFETY: the function's contract.
            false => Some(unsafe { buffers::array(bytes, n, "text_bytes") }?),
        };
        let is_missing = |i: usize| texts[i].is_null() && bytes.is_none_or(|bytes| bytes[i] > 0);
        if (0..n).any(is_missing) {
            return Err(Failure::null("a text"));
        }
        Ok(HostTexts { texts, bytes })
    }
}

impl List<str> for HostTexts<'_> {
    fn len(&self) -> usize {
        self.texts.len()
    }

    fn size(&self, i: usize) -> usize {
        let text = self.texts[i].cast::<u8>();
        // SAFETY: where there are no sizes, the text isn't NULL and is NUL-terminated, and the search ends at the NUL.
        let ends = |at: &usize| unsafe { text.add(*at).read() } == 0;
        match self.bytes {
            Some(bytes) => bytes[i],
            None => (0..=MAX_TEXT_BYTES).find(ends).unwrap_or(usize::MAX),
        }
    }

    fn get(&self, i: usize) -> Result<&str, TextStatus> {
        let bytes = match self.size(i) {
            0 => return Ok(""),
            bytes if bytes > MAX_TEXT_BYTES => return Err(TextStatus::TooLong),
            // SAFETY: not NULL, and readable for so many bytes during the call.
            bytes => unsafe { slice::from_raw_parts(self.texts[i].cast::<u8>(), bytes) },
        };
        str::from_utf8(bytes).map_err(|_| TextStatus::NotUtf8)
    }
}

/// The host's spans of tokens.
pub(super) struct HostSpans<'a> {
    spans: &'a [*const u32],
    lengths: &'a [usize],
}

// SAFETY: nobody writes the tokens during the call, by the header's rules.
unsafe impl Sync for HostSpans<'_> {}

impl<'a> HostSpans<'a> {
    /// # Safety
    /// As the header says of spans and their lengths, during `'a`.
    pub unsafe fn new(spans: *const *const u32, lengths: *const usize, n: usize) -> Result<Self, Failure> {
        // SAFETY: the function's contract.
        let spans = unsafe { buffers::array(spans, n, "spans") }?;
        // SAFETY: the function's contract.
        let lengths = unsafe { buffers::array(lengths, n, "lengths") }?;
        for (&span, &length) in spans.iter().zip(lengths) {
            buffers::check(span, length, "a span")?;
        }
        Ok(HostSpans { spans, lengths })
    }
}

impl List<[u32]> for HostSpans<'_> {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn size(&self, i: usize) -> usize {
        self.lengths[i]
    }

    fn get(&self, i: usize) -> Result<&[u32], TextStatus> {
        match self.lengths[i] {
            0 => Ok(&[]),
            // SAFETY: `new` has checked the pointer; it is readable for so many tokens during the call.
            length => Ok(unsafe { slice::from_raw_parts(self.spans[i], length) }),
        }
    }
}
