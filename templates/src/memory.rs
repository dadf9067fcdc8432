//! Memory that is asked for before it is taken: minijinja and Rust's collections abort the process where the system
//! refuses them a few bytes, and a host may know more about what is left than the system tells.

use std::collections::TryReserveError;

use crate::Error;

/// Whether so many bytes of memory can be had now.
pub type CanAllocate = fn(bytes: usize) -> bool;

/// Whether the global allocator gives so many bytes now. It takes them, and gives them back.
pub fn can_allocate(bytes: usize) -> bool {
    let mut memory = Vec::<u8>::new();
    let is_granted = memory.try_reserve_exact(bytes).is_ok();
    // Without the black box the compiler may leave out an allocation that nobody uses.
    std::hint::black_box(memory);
    is_granted
}

/// Asks before memory is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory(pub CanAllocate);

impl Memory {
    /// Fails where `bytes` can't be had now.
    pub(crate) fn ask(self, bytes: usize) -> Result<(), Error> {
        if self.0(bytes) { Ok(()) } else { Err(Error::OutOfMemory { bytes }) }
    }

    /// Makes room for `additional` more bytes of output.
    pub(crate) fn reserve(self, list: &mut Vec<u8>, additional: usize) -> Result<(), Error> {
        self.grow(list.len(), list.capacity(), additional, || list.try_reserve(additional))
    }

    /// Makes room for `additional` more bytes of text.
    pub(crate) fn reserve_text(self, text: &mut String, additional: usize) -> Result<(), Error> {
        self.grow(text.len(), text.capacity(), additional, || text.try_reserve(additional))
    }

    /// A copy of a text.
    pub(crate) fn copied(self, text: &str) -> Result<String, Error> {
        let mut copy = String::new();
        self.reserve_text(&mut copy, text.len())?;
        copy.push_str(text);
        Ok(copy)
    }

    fn grow(
        self,
        length: usize,
        capacity: usize,
        additional: usize,
        reserve: impl FnOnce() -> Result<(), TryReserveError>,
    ) -> Result<(), Error> {
        if additional <= capacity - length {
            return Ok(());
        }
        let bytes = length.saturating_add(additional);
        self.ask(bytes)?;
        reserve().map_err(|_| Error::OutOfMemory { bytes })
    }
}
