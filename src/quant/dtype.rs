//! The list of element types: names, numbers in GGUF files, sizes of blocks.
//! A type is an entry in [`TABLE`]; the decoding and encoding of its blocks is in a file of its own.

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(non_camel_case_types, reason = "the formats' own names")]
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
    /// 256 × 2 bits, scales and minimums of 4 bits for each 16: w = d·s·q − dmin·m.
    Q2_K,
    /// 256 × 3 bits, scales of 6 bits for each 16: w = d·s·(q − 4).
    Q3_K,
    /// 256 × 4 bits, scales and minimums of 6 bits for each 32: w = d·s·q − dmin·m.
    Q4_K,
    /// 256 × 5 bits, scales and minimums of 6 bits for each 32: w = d·s·q − dmin·m.
    Q5_K,
    /// 256 × 6 bits, scales of 8 bits for each 16: w = d·s·(q − 32).
    Q6_K,
    /// 32 × 4 bits into a table of uneven levels, one scale: `w = d·table[q]`.
    IQ4_NL,
    /// 256 × 4 bits into that table, scales of 6 bits for each 32: `w = d·s·table[q]`.
    IQ4_XS,
    /// 32 floats of 4 bits, a power of two as scale.
    MXFP4,
    /// 64 floats of 4 bits, a float of 8 bits as scale of each 16.
    NVFP4,
    /// 256 × 1.5 bits: points of a grid of eight dimensions.
    IQ1_S,
    /// 256 × 1.75 bits: as IQ1_S, scales for each 16.
    IQ1_M,
    /// 256 × 2 bits: points of a grid of eight dimensions, and signs.
    IQ2_XXS,
    /// 256 × 2.3 bits: as IQ2_XXS, a finer grid.
    IQ2_XS,
    /// 256 × 2.5 bits: as IQ2_XS, a finer grid.
    IQ2_S,
    /// 256 × 3 bits: points of a grid of four dimensions, and signs.
    IQ3_XXS,
    /// 256 × 3.4 bits: as IQ3_XXS, a finer grid.
    IQ3_S,
    /// 256 × −1, 0 or 1 in base 3, one scale.
    TQ1_0,
    /// 256 × −1, 0 or 1 in two bits, one scale.
    TQ2_0,
}

/// The name, number and sizes of a type.
struct Entry {
    dtype: DType,
    name: &'static str,
    /// Number in GGUF files (`ggml_type`).
    id: u32,
    block_len: usize,
    block_bytes: usize,
}

const fn entry(dtype: DType, name: &'static str, id: u32, block_len: usize, block_bytes: usize) -> Entry {
    Entry { dtype, name, id, block_len, block_bytes }
}

/// In the order of the enumeration.
const TABLE: [Entry; 26] = [
    entry(DType::F32, "F32", 0, 1, 4),
    entry(DType::F16, "F16", 1, 1, 2),
    entry(DType::BF16, "BF16", 30, 1, 2),
    entry(DType::Q4_0, "Q4_0", 2, 32, 18),
    entry(DType::Q4_1, "Q4_1", 3, 32, 20),
    entry(DType::Q5_0, "Q5_0", 6, 32, 22),
    entry(DType::Q5_1, "Q5_1", 7, 32, 24),
    entry(DType::Q8_0, "Q8_0", 8, 32, 34),
    entry(DType::Q2_K, "Q2_K", 10, 256, 84),
    entry(DType::Q3_K, "Q3_K", 11, 256, 110),
    entry(DType::Q4_K, "Q4_K", 12, 256, 144),
    entry(DType::Q5_K, "Q5_K", 13, 256, 176),
    entry(DType::Q6_K, "Q6_K", 14, 256, 210),
    entry(DType::IQ4_NL, "IQ4_NL", 20, 32, 18),
    entry(DType::IQ4_XS, "IQ4_XS", 23, 256, 136),
    entry(DType::MXFP4, "MXFP4", 39, 32, 17),
    entry(DType::NVFP4, "NVFP4", 40, 64, 36),
    entry(DType::IQ1_S, "IQ1_S", 19, 256, 50),
    entry(DType::IQ1_M, "IQ1_M", 29, 256, 56),
    entry(DType::IQ2_XXS, "IQ2_XXS", 16, 256, 66),
    entry(DType::IQ2_XS, "IQ2_XS", 17, 256, 74),
    entry(DType::IQ2_S, "IQ2_S", 22, 256, 82),
    entry(DType::IQ3_XXS, "IQ3_XXS", 18, 256, 98),
    entry(DType::IQ3_S, "IQ3_S", 21, 256, 110),
    entry(DType::TQ1_0, "TQ1_0", 34, 256, 54),
    entry(DType::TQ2_0, "TQ2_0", 35, 256, 66),
];

impl DType {
    /// Every type.
    pub const ALL: [DType; TABLE.len()] = {
        let mut all = [DType::F32; TABLE.len()];
        let mut i = 0;
        while i < TABLE.len() {
            all[i] = TABLE[i].dtype;
            assert!(all[i] as usize == i, "the table is in another order");
            i += 1;
        }
        all
    };

    const fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// The format's own name of the type.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// The type with the number `id` in GGUF files; `None` for types that this crate doesn't know.
    pub const fn from_gguf(id: u32) -> Option<DType> {
        let mut i = 0;
        while i < TABLE.len() {
            if TABLE[i].id == id {
                return Some(TABLE[i].dtype);
            }
            i += 1;
        }
        None
    }

    /// The number of this type in GGUF files.
    pub const fn gguf_id(self) -> u32 {
        self.entry().id
    }

    /// Whether the elements of a block share a scale: true for all types except plain floats.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Elements in a block (1 for plain floats).
    pub const fn block_len(self) -> usize {
        self.entry().block_len
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        self.entry().block_bytes
    }

    /// Bytes of a row of `len` elements; `None` if `len` is no whole number of blocks, or if the size overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}
