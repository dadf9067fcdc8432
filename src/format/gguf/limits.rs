//! Limits of the reader, each with its reason. All are far above any file in use, and are checked before memory is
//! reserved. In addition, every count is checked against the remaining bytes.

/// Size of the header, which is everything before the tensors' data. The largest tokenizers in use (262,144 tokens with
/// merges, or a whole `tokenizer.json` in one string) take about 50 MB; the limit keeps a sparse file of terabytes from
/// being read.
pub const MAX_HEADER_BYTES: u64 = 256 << 20;

/// Length of a metadata key: 2¹⁶ − 1 bytes, from the specification.
pub const MAX_KEY_BYTES: u64 = 65_535;

/// Length of a tensor's name. The specification allows 64 bytes; some writers use more.
pub const MAX_NAME_BYTES: u64 = 256;

/// Length of a string value, or of a string in an array: a whole `tokenizer.json` fits.
pub const MAX_STRING_BYTES: u64 = 64 << 20;

/// Arrays within arrays. No file in use nests at all; the limit bounds the recursion.
pub const MAX_ARRAY_DEPTH: u32 = 4;

/// Metadata pairs: files in use have a few dozen.
pub const MAX_KV_PAIRS: u64 = 1 << 14;

/// Tensors in a file: the largest mixtures of experts, with a tensor for each expert, stay below 100,000.
pub const MAX_TENSORS: u64 = 1 << 20;

/// Files that a model is split into: the largest models have some hundred.
pub const MAX_PARTS: u64 = 1024;

/// Dimensions of a tensor, from the specification.
pub const MAX_DIMS: u32 = 4;

/// `general.alignment`: a power of two from 8 (the specification's unit) up to a huge page.
pub const ALIGNMENTS: std::ops::RangeInclusive<u64> = 8..=2 << 20;

/// `general.alignment` of a file without this key, from the specification.
pub const DEFAULT_ALIGNMENT: u64 = 32;
