//! GGUF's numbers of element types, with the block sizes of all types in use.
//! Types with a [`DType`] can be loaded; the others can be listed, sized and named in an error.

use std::fmt;

use crate::quant::DType;

/// The element type of a stored tensor: the number in the file (`ggml_type` of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorType(pub u32);

/// Elements and bytes of a block, for types that have no [`DType`].
struct Listed {
    id: u32,
    name: &'static str,
    block_len: u64,
    block_bytes: u64,
}

const fn listed(id: u32, name: &'static str, block_len: u64, block_bytes: u64) -> Listed {
    Listed { id, name, block_len, block_bytes }
}

/// Known types that can't be loaded. The block sizes are those of ggml's structures.
const LISTED: [Listed; 8] = [
    listed(9, "Q8_1", 32, 36),
    listed(15, "Q8_K", 256, 292),
    listed(24, "I8", 1, 1),
    listed(25, "I16", 1, 2),
    listed(26, "I32", 1, 4),
    listed(27, "I64", 1, 8),
    listed(28, "F64", 1, 8),
    listed(41, "Q1_0", 128, 18),
];

impl TensorType {
    /// The type, if this crate can load it.
    pub const fn dtype(self) -> Option<DType> {
        DType::from_gguf(self.0)
    }

    /// The format's own name of the type; `None` for an unknown number.
    pub fn name(self) -> Option<&'static str> {
        self.dtype().map(DType::name).or_else(|| self.listed().map(|l| l.name))
    }

    /// Elements and bytes of a block; `None` for an unknown number.
    pub fn block(self) -> Option<(u64, u64)> {
        match self.dtype() {
            Some(dtype) => Some((dtype.block_len() as u64, dtype.block_bytes() as u64)),
            None => self.listed().map(|l| (l.block_len, l.block_bytes)),
        }
    }

    fn listed(self) -> Option<&'static Listed> {
        LISTED.iter().find(|l| l.id == self.0)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&format!("unknown ({})", self.0)),
        }
    }
}
