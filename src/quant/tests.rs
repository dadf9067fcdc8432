//! Decoding and encoding against the gguf package's answers, bit for bit.
//! `tests/goldens/README.md` describes the golden files.

use super::*;

/// Reads a golden file from front to back.
struct Reader(&'static [u8]);

impl Reader {
    fn take(&mut self, n: usize) -> &'static [u8] {
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        head
    }
    fn word(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
    }
    fn floats(&mut self, n: usize) -> Vec<f32> {
        let chunks = self.take(4 * n).chunks_exact(4);
        chunks.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
    fn dtype(&mut self) -> DType {
        DType::from_gguf(self.word() as u32).unwrap()
    }
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn decodes_to_the_bits_of_gguf() {
    let mut golden = Reader(include_bytes!("../../tests/goldens/dequant.bin"));
    assert_eq!(golden.take(4), b"SMDQ");
    assert_eq!(golden.word(), 1);
    let sections = golden.word();
    assert_eq!(sections, DType::ALL.len() - 1, "every type but F32");
    for _ in 0..sections {
        let (dtype, blocks) = (golden.dtype(), golden.word());
        let (len, bytes) = (blocks * golden.word(), blocks * golden.word());
        assert_eq!(dtype.row_bytes(len), Some(bytes), "{}", dtype.name());
        let raw = golden.take(bytes);
        let expected = golden.floats(len);
        let mut values = vec![0.0; len];
        decode_row(dtype, raw, &mut values).unwrap();
        for (i, (&value, &expected)) in values.iter().zip(&expected).enumerate() {
            assert!(same(value, expected), "{} element {i}: {value} not {expected}", dtype.name());
        }
    }
    assert!(golden.0.is_empty());
}

#[test]
fn encodes_to_the_bytes_of_gguf() {
    let mut golden = Reader(include_bytes!("../../tests/goldens/quantize.bin"));
    assert_eq!(golden.take(4), b"SMQT");
    assert_eq!(golden.word(), 1);
    let (sections, len) = (golden.word(), golden.word());
    assert_eq!(sections, DType::ALL.len() - 1, "every type but F32");
    let x = golden.floats(len);
    for _ in 0..sections {
        let (dtype, bytes) = (golden.dtype(), golden.word());
        let expected = golden.take(bytes);
        let mut encoded = vec![0xaa; bytes];
        encode_row(dtype, &x, &mut encoded).unwrap();
        let blocks = encoded.chunks(dtype.block_bytes()).zip(expected.chunks(dtype.block_bytes()));
        for (i, (block, expected)) in blocks.enumerate() {
            assert_eq!(block, expected, "{} block {i}", dtype.name());
        }
    }
    assert!(golden.0.is_empty());
}

#[test]
fn f32_is_little_endian_bytes() {
    let x = [1.5f32, -0.0, f32::INFINITY];
    let mut bytes = [0; 12];
    encode_row(DType::F32, &x, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0xc0, 0x3f, 0, 0, 0, 0x80, 0, 0, 0x80, 0x7f]);
    let mut back = [0.0; 3];
    decode_row(DType::F32, &bytes, &mut back).unwrap();
    assert!(back.iter().zip(&x).all(|(&a, &b)| same(a, b)));
}

#[test]
fn gguf_ids_go_both_ways_and_unknown_ones_nowhere() {
    for dtype in DType::ALL {
        assert_eq!(DType::from_gguf(dtype.gguf_id()), Some(dtype));
    }
    let known = (0..1000).filter(|&id| DType::from_gguf(id).is_some()).count();
    assert_eq!(known, DType::ALL.len());
    assert_eq!(DType::from_gguf(u32::MAX), None);
}

#[test]
fn lengths_that_do_not_match_are_errors() {
    for dtype in DType::ALL {
        let (len, bytes) = (dtype.block_len(), dtype.block_bytes());
        let mut values = vec![0.0; 3 * len];
        let mut raw = vec![0; 3 * bytes];
        assert!(decode_row(dtype, &[], &mut []).is_ok());
        assert!(decode_row(dtype, &raw[1..], &mut values).is_err());
        assert!(decode_row(dtype, &raw, &mut values[len..]).is_err());
        assert!(encode_row(dtype, &values[len..], &mut raw).is_err());
        assert!(encode_row(dtype, &values, &mut raw[1..]).is_err());
        if len > 1 {
            assert!(decode_row(dtype, &raw, &mut values[1..]).is_err());
            assert_eq!(dtype.row_bytes(len + 1), None);
        }
        assert_eq!(dtype.row_bytes(usize::MAX / len * len).is_some(), bytes <= len);
    }
}

#[test]
fn values_that_are_not_finite_encode_without_harm() {
    for dtype in DType::ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE / 4.0] {
            let mut x = vec![0.5; 32];
            x[7] = bad;
            let mut raw = vec![0; dtype.row_bytes(32).unwrap()];
            encode_row(dtype, &x, &mut raw).unwrap();
            decode_row(dtype, &raw, &mut x).unwrap();
        }
    }
}
