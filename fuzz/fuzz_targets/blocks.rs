//! Any bytes as rows of every element type: decoded whole, or refused where they are no whole blocks.
//! From the top folder: `mkdir -p fuzz/corpus/blocks && cargo +nightly fuzz run blocks fuzz/corpus/blocks`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smallmind::quant::{DType, decode_row, encode_row};

fuzz_target!(|bytes: &[u8]| {
    for dtype in DType::ALL {
        let blocks = bytes.len() / dtype.block_bytes();
        let mut values = vec![0.0; blocks * dtype.block_len()];
        let whole = blocks * dtype.block_bytes() == bytes.len();
        assert_eq!(decode_row(dtype, bytes, &mut values).is_ok(), whole);
        // What bits there are as floats: encoders must take any.
        let floats: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let blocks = floats.len() / dtype.block_len();
        let mut encoded = vec![0; blocks * dtype.block_bytes()];
        let written = encode_row(dtype, &floats[..blocks * dtype.block_len()], &mut encoded);
        assert_eq!(written.is_ok(), dtype.is_encodable());
    }
});
