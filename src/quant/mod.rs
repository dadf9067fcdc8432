//! Element types of tensors: block formats, their sizes, encode and decode.
//! Layouts follow the GGUF format's own (ggml's block structs); decoding is bit-equal to its reference.

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 32 × 4 bits, one scale: w = d·(q − 8).
    Q4_0,
    /// 32 × 4 bits, scale and minimum: w = d·q + m.
    Q4_1,
    /// 32 × 5 bits, one scale: w = d·(q − 16).
    Q5_0,
    /// 32 × 5 bits, scale and minimum: w = d·q + m.
    Q5_1,
    /// 32 × 8 bits, one scale: w = d·q.
    Q8_0,
}

impl DType {
    /// Every type.
    pub const ALL: [DType; 8] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
    ];

    /// Name as files and reports write it.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::Q4_0 => "Q4_0",
            DType::Q4_1 => "Q4_1",
            DType::Q5_0 => "Q5_0",
            DType::Q5_1 => "Q5_1",
            DType::Q8_0 => "Q8_0",
        }
    }

    /// Elements in a block (1 for plain floats).
    pub const fn block_len(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 => 1,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q8_0 => 34,
        }
    }

    /// Bytes of a row of `len` elements; `None` where `len` is no whole number of blocks or it overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if len % self.block_len() != 0 {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}
