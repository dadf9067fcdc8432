//! The text that tokens' bytes make up, as far as it can be handed out: whole characters, up to the first stop
//! string. Each stop string has an automaton of Knuth, Morris and Pratt, which knows how many of its bytes the text
//! ends with, at two comparisons a byte on average. The most that any of them knows is held back.

use super::super::stream::Utf8Stream;
use super::no_memory;
use crate::{Error, Result};

/// Most stop strings of a generation.
pub const MAX_STOPS: usize = 64;
/// Longest stop string in bytes.
pub const MAX_STOP_BYTES: usize = 1024;

/// Room for the text of a token, so that few tokens make the buffer grow.
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

/// Text on its way out.
pub(super) struct Text {
    stream: Utf8Stream,
    /// One for each stop string; none once the text is over.
    automata: Vec<Automaton>,
    /// What is ready, and behind it what is held back: the longest end of the text that is the beginning of a stop
    /// string. A stop string begins with a whole character, so this does.
    text: String,
    /// Bytes of `text` that are ready.
    ready: usize,
}

impl Text {
    /// # Errors
    /// As [`check`]; [`Error::OutOfMemory`].
    pub(super) fn new(stops: &[&str]) -> Result<Self> {
        check(stops)?;
        let (mut automata, mut text) = (Vec::new(), String::new());
        let longest = stops.iter().map(|stop| stop.len()).max().unwrap_or(0);
        let room = automata.try_reserve_exact(stops.len()).and(text.try_reserve(longest + ROOM));
        room.map_err(no_memory("the stop strings", stops.len() * size_of::<Automaton>() + longest + ROOM))?;
        for stop in stops {
            automata.push(Automaton::new(stop)?);
        }
        Ok(Self { stream: Utf8Stream::new(), automata, text, ready: 0 })
    }

    /// Goes on with a token's bytes; true once a stop string is complete. The text is over then.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<bool> {
        let begin = self.forget_ready();
        // At worst each byte becomes a U+FFFD of three, and so do those that the stream holds.
        let most = 3 * (self.stream.pending() + bytes.len());
        self.text.try_reserve(most).map_err(no_memory("generated text", most))?;
        self.stream.push(bytes, &mut self.text);
        Ok(self.search(begin))
    }

    /// Ends the text: what is held back is ready, with U+FFFD for an unfinished character, unless that makes a stop
    /// string complete: true then.
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

    /// What can be handed out since the last push.
    pub(super) fn ready(&self) -> &str {
        &self.text[..self.ready]
    }

    /// Keeps only what is held back, and gives its length.
    fn forget_ready(&mut self) -> usize {
        self.text.drain(..self.ready);
        self.ready = 0;
        self.text.len()
    }

    /// Searches the text from `begin` on, and sets what is ready: what can't be part of a stop string any more, or
    /// all before the stop string that is complete.
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
    /// For the first i + 1 bytes: how many of them, but not all, are both their beginning and their end.
    borders: Vec<u16>,
    /// Bytes of the stop string that the text ends with: the most, but not all.
    matched: usize,
}

impl Automaton {
    fn new(stop: &str) -> Result<Self> {
        let (mut bytes, mut borders) = (Vec::new(), Vec::new());
        let room = bytes.try_reserve_exact(stop.len()).and(borders.try_reserve_exact(stop.len()));
        room.map_err(no_memory("a stop string", 3 * stop.len()))?;
        bytes.extend_from_slice(stop.as_bytes());
        borders.push(0);
        let mut automaton = Self { bytes, borders, matched: 0 };
        // Searching the stop string in itself, from its second byte on, finds the borders one after the other.
        for &byte in &stop.as_bytes()[1..] {
            automaton.push(byte);
            automaton.borders.push(automaton.matched as u16);
        }
        automaton.matched = 0;
        Ok(automaton)
    }

    /// Takes the text's next byte; gives the stop string's length where it is complete.
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
