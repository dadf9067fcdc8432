//! The text of generated tokens, as far as it is final: whole characters, up to the first stop string. Each stop string
//! has an automaton of Knuth, Morris and Pratt, which knows how many of the stop string's first bytes the text ends
//! with, at two comparisons a byte on average. The longest such end is held back.

use super::super::stream::Utf8Stream;
use crate::memory::reserve::{copied, reserve_text, with_room};
use crate::{Error, Result};

/// Most stop strings of a generation.
pub const MAX_STOPS: usize = 64;
/// Longest stop string in bytes.
pub const MAX_STOP_BYTES: usize = 1024;

/// The purpose of the memory, in errors.
const STOPS: &str = "the stop strings";
/// Bytes reserved for the text of a token: few tokens have more and make the buffer grow.
const ROOM: usize = 256;

/// Checks stop strings.
pub(super) fn check(stops: &[&str]) -> Result<()> {
    if stops.len() > MAX_STOPS {
        return Err(Error::invalid(format!("{} stop strings; at most {MAX_STOPS} are taken", stops.len())));
    }
    for (i, len) in stops.iter().map(|stop| stop.len()).enumerate() {
        if len == 0 {
            return Err(Error::invalid(format!("stop string {i} is empty")));
        }
        if len > MAX_STOP_BYTES {
            return Err(Error::invalid(format!("stop string {i} has {len} bytes; at most {MAX_STOP_BYTES}")));
        }
    }
    Ok(())
}

/// The last part of the text, which the caller hasn't seen yet.
pub(super) struct Text {
    stream: Utf8Stream,
    /// One for each stop string; empty once the text has ended.
    automata: Vec<Automaton>,
    /// Text that is ready, then text that is held back: the longest end of the text that is the beginning of a stop
    /// string. It begins with a whole character, as stop strings do.
    text: String,
    /// Bytes of `text` that are ready.
    ready: usize,
}

impl Text {
    /// # Errors
    /// As [`check`]; [`Error::OutOfMemory`].
    pub(super) fn new(stops: &[&str]) -> Result<Self> {
        check(stops)?;
        let longest = stops.iter().map(|stop| stop.len()).max().unwrap_or(0);
        let (mut automata, mut text) = (with_room(stops.len(), STOPS)?, String::new());
        reserve_text(&mut text, longest + ROOM, STOPS)?;
        for stop in stops {
            automata.push(Automaton::new(stop)?);
        }
        Ok(Self { stream: Utf8Stream::new(), automata, text, ready: 0 })
    }

    /// Appends a token's bytes; true if a stop string is complete, which ends the text.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<bool> {
        let begin = self.forget_ready();
        // At worst each byte, also of those that the stream holds, becomes a U+FFFD of three bytes.
        let most = 3 * (self.stream.pending() + bytes.len());
        reserve_text(&mut self.text, most, "generated text")?;
        self.stream.push(bytes, &mut self.text);
        Ok(self.search(begin))
    }

    /// Ends the text. The text held back becomes ready, with U+FFFD for an unfinished character, unless this completes
    /// a stop string: true then.
    pub(super) fn finish(&mut self) -> bool {
        let begin = self.forget_ready();
        self.stream.flush(&mut self.text);
        let stopped = self.search(begin);
        self.automata.clear();
        if !stopped {
            self.ready = self.text.len();
        }
        stopped
    }

    /// The text that became ready with the last push.
    pub(super) fn ready(&self) -> &str {
        &self.text[..self.ready]
    }

    /// Keeps only the text held back, and returns its length.
    fn forget_ready(&mut self) -> usize {
        self.text.drain(..self.ready);
        self.ready = 0;
        self.text.len()
    }

    /// Searches the text from `begin` on for stop strings. Text that can't belong to one becomes ready; if one is
    /// complete, the text ends before it.
    fn search(&mut self, begin: usize) -> bool {
        for i in begin..self.text.len() {
            let byte = self.text.as_bytes()[i];
            let complete = self.automata.iter_mut().filter_map(|automaton| automaton.push(byte)).max();
            if let Some(len) = complete {
                self.ready = i + 1 - len;
                self.text.truncate(self.ready);
                self.automata.clear();
                return true;
            }
        }
        let held = self.automata.iter().map(|automaton| automaton.matched).max().unwrap_or(0);
        self.ready = self.text.len() - held;
        false
    }
}

/// Looks for one stop string.
struct Automaton {
    bytes: Vec<u8>,
    /// Entry i is the longest border of the first i + 1 bytes: the most bytes, fewer than i + 1, that are both their
    /// beginning and their end.
    borders: Vec<u16>,
    /// The most bytes of the stop string's beginning, but not all, that the text ends with.
    matched: usize,
}

impl Automaton {
    fn new(stop: &str) -> Result<Self> {
        let mut borders = with_room(stop.len(), STOPS)?;
        borders.push(0);
        let mut automaton = Self { bytes: copied(stop.as_bytes(), STOPS)?, borders, matched: 0 };
        // Searching for the stop string in itself, from its second byte on, finds the borders one after the other.
        for &byte in &stop.as_bytes()[1..] {
            automaton.push(byte);
            automaton.borders.push(automaton.matched as u16);
        }
        automaton.matched = 0;
        Ok(automaton)
    }

    /// Takes the text's next byte; returns the stop string's length if it is complete.
    fn push(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.borders[self.matched - 1].into();
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        let len = self.bytes.len();
        if self.matched < len {
            return None;
        }
        self.matched = self.borders[len - 1].into();
        Some(len)
    }
}
