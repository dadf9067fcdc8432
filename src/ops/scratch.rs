//! Working memory that an op keeps from call to call: it grows to what the largest call needs, and stays.

use crate::error::Result;
use crate::memory::AlignedBuf;

/// The memory; none before the first call.
#[derive(Debug, Default)]
pub(super) struct Scratch(Option<AlignedBuf>);

impl Scratch {
    /// At least so many bytes. A call that needs no more than an earlier one allocates nothing; `what` names the purpose
    /// in errors.
    pub(super) fn reserve(&mut self, bytes: usize, what: &'static str) -> Result<&mut AlignedBuf> {
        let buffer = match self.0.take() {
            Some(buffer) if buffer.len() >= bytes => buffer,
            _ => AlignedBuf::zeroed(bytes, what)?,
        };
        Ok(self.0.insert(buffer))
    }
}
