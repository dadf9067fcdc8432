//! Text that arrives in pieces: bytes of tokens go in, whole characters come out, since the bytes of a character may be
//! spread over several tokens.
//! The text in total is `String::from_utf8_lossy` of all bytes, however they were divided into pieces.

/// Holds back an unfinished UTF-8 sequence (at most three bytes) between pushes.
///
/// Only `out` allocates, when its capacity is used up: a caller that clears and reuses it allocates nothing in steady
/// state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Stream {
    pending: [u8; 4],
    len: usize,
}

impl Utf8Stream {
    /// A stream with nothing held back.
    pub const fn new() -> Self {
        Self { pending: [0; 4], len: 0 }
    }

    /// Appends all complete characters to `out`, and holds back an unfinished one at the end of `bytes`.
    /// Each invalid sequence becomes one U+FFFD, by the rule of [`String::from_utf8_lossy`].
    pub fn push(&mut self, mut bytes: &[u8], out: &mut String) {
        while self.len > 0 && !bytes.is_empty() {
            self.pending[self.len] = bytes[0];
            let held = &self.pending[..self.len + 1];
            match std::str::from_utf8(held) {
                Ok(text) => {
                    out.push_str(text);
                    self.len = 0;
                    bytes = &bytes[1..];
                }
                Err(error) if error.error_len().is_none() => {
                    self.len += 1;
                    bytes = &bytes[1..];
                }
                // The held bytes can't continue with this byte: they are one invalid sequence, and the byte may begin
                // a new character.
                Err(_) => {
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.len = 0;
                }
            }
        }
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let unfinished = chunks.peek().is_none()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if unfinished {
                self.pending[..invalid.len()].copy_from_slice(invalid);
                self.len = invalid.len();
            } else {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }

    /// Ends the text: an unfinished sequence becomes one U+FFFD. Afterwards the stream is empty, as a new one.
    pub fn flush(&mut self, out: &mut String) {
        if self.len > 0 {
            out.push(char::REPLACEMENT_CHARACTER);
            self.len = 0;
        }
    }

    /// Bytes held back.
    pub const fn pending(&self) -> usize {
        self.len
    }

    /// Discards the bytes held back.
    pub fn reset(&mut self) {
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Utf8Stream;
    use proptest::prelude::*;

    /// Pushes `bytes` in pieces that end at `cuts`, then flushes.
    fn streamed(bytes: &[u8], cuts: &[usize]) -> String {
        let (mut stream, mut out, mut from) = (Utf8Stream::new(), String::new(), 0);
        for &cut in cuts.iter().chain([&bytes.len()]) {
            stream.push(&bytes[from..cut], &mut out);
            assert!(stream.pending() <= 3);
            from = cut;
        }
        stream.flush(&mut out);
        out
    }

    /// Bytes that meet every rule of UTF-8: lead bytes, continuations, and the limits between them.
    fn tricky_byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            Just(b'a'),
            prop::sample::select(vec![
                0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf, 0xe0, 0xe2, 0xed, 0xef, 0xf0, 0xf1,
                0xf4, 0xf5, 0xff,
            ]),
            any::<u8>(),
        ]
    }

    proptest! {
        #[test]
        fn any_split_of_any_bytes_gives_the_lossy_whole(
            bytes in prop::collection::vec(tricky_byte(), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(streamed(&bytes, &cuts), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn every_three_byte_string_byte_by_byte() {
        // All rules of UTF-8 show within a lead byte and two more; fourth bytes are covered above.
        for lead in 0x80..=0xff_u8 {
            for second in [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xe2, 0xff] {
                for third in [0x00, 0x80, 0xbf, 0xc2, 0xf0] {
                    let bytes = [lead, second, third];
                    assert_eq!(streamed(&bytes, &[1, 2]), String::from_utf8_lossy(&bytes), "{bytes:x?}");
                }
            }
        }
    }

    #[test]
    fn a_character_appears_only_when_it_is_whole() {
        let (mut stream, mut out) = (Utf8Stream::new(), String::new());
        let bytes = "😀".as_bytes();
        for &byte in &bytes[..3] {
            stream.push(&[byte], &mut out);
            assert_eq!(out, "");
        }
        stream.push(&bytes[3..], &mut out);
        assert_eq!(out, "😀");
    }

    #[test]
    fn reset_forgets_and_flush_leaves_nothing() {
        let (mut stream, mut out) = (Utf8Stream::new(), String::new());
        stream.push(&[0xe2, 0x82], &mut out);
        stream.reset();
        stream.push(b"a", &mut out);
        assert_eq!(out, "a");
        stream.push(&[0xe2], &mut out);
        stream.flush(&mut out);
        stream.push(&[0x82], &mut out);
        stream.flush(&mut out);
        assert_eq!(out, "a\u{fffd}\u{fffd}");
    }
}
