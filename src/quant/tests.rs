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

/// Scatters the bits of a number (the finaliser of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Pseudo-random bytes, the same as for the digests in the golden files.
fn mixed_bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| mix(i) as u8).collect()
}

fn digest(values: &[f32]) -> u64 {
    let bits = values.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() });
    bits.enumerate().fold(0, |sum: u64, (i, bits)| sum.wrapping_add(mix((i as u64) << 32 | u64::from(bits))))
}

fn decoded(dtype: DType, raw: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; raw.len() / dtype.block_bytes() * dtype.block_len()];
    decode_row(dtype, raw, &mut values).unwrap();
    values
}

#[test]
fn decodes_to_the_bits_of_gguf() {
    let mut golden = Reader(include_bytes!("../../tests/goldens/dequant.bin"));
    assert_eq!(golden.take(4), b"SMDQ");
    assert_eq!(golden.word(), 2);
    let sections = golden.word();
    assert_eq!(sections, DType::ALL.len() - 1, "every type but F32");
    for _ in 0..sections {
        let (dtype, blocks) = (golden.dtype(), golden.word());
        let (len, bytes) = (blocks * golden.word(), blocks * golden.word());
        assert_eq!(dtype.row_bytes(len), Some(bytes), "{}", dtype.name());
        let raw = golden.take(bytes);
        let expected = golden.floats(len);
        for (i, (&value, &expected)) in decoded(dtype, raw).iter().zip(&expected).enumerate() {
            assert!(same(value, expected), "{} element {i}: {value} not {expected}", dtype.name());
        }
        let digested = golden.word();
        let expected = u64::from_le_bytes(golden.take(8).try_into().unwrap());
        let values = decoded(dtype, &mixed_bytes(digested * dtype.block_bytes()));
        assert_eq!(digest(&values), expected, "{}: digest of {digested} blocks", dtype.name());
    }
    assert!(golden.0.is_empty());
}

/// The documented meaning of each unpacked form, element by element, against `decode_row`.
#[test]
fn blocks_come_apart_into_what_they_decode_to() {
    for dtype in DType::ALL {
        let raw = mixed_bytes(300 * dtype.block_bytes());
        let expected = decoded(dtype, &raw);
        let blocks = raw.chunks_exact(dtype.block_bytes()).zip(expected.chunks_exact(dtype.block_len()));
        for (block, expected) in blocks {
            let (levels, parts, plain) = (dtype.levels(block), dtype.parts(block), dtype.plain(block));
            for (i, &expected) in expected.iter().enumerate() {
                let value = if let Some(levels) = &levels {
                    let product =
                        levels.d.to_f32() * f32::from(i16::from(levels.q[i]) - i16::from(levels.offset));
                    levels.m.map_or(product, |m| product + m.to_f32())
                } else if let (Some(form), Some(parts)) = (dtype.form(), &parts) {
                    assert_eq!(form.len, dtype.block_len());
                    assert!(parts.codes[i] >> form.bits == 0);
                    let s = i / form.sub;
                    let product =
                        parts.d.to_f32() * f32::from(parts.scales[s]) * f32::from(form.level(parts.codes[i]));
                    let minimum = parts.dmin.to_f32() * f32::from(parts.minimums[s]);
                    if form.minimums { product - minimum } else { product }
                } else if let Some(plain) = &plain {
                    plain.scales[i / 16] * f32::from(plain.q[i])
                } else {
                    assert!(!dtype.is_quantized());
                    expected
                };
                assert!(same(value, expected), "{} element {i}: {value} not {expected}", dtype.name());
            }
        }
    }
}

#[test]
fn encodes_to_the_bytes_of_gguf() {
    let mut golden = Reader(include_bytes!("../../tests/goldens/quantize.bin"));
    assert_eq!(golden.take(4), b"SMQT");
    assert_eq!(golden.word(), 1);
    let (sections, len) = (golden.word(), golden.word());
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

/// About normal, deviation 1: sums of twelve uniform numbers.
fn normal(len: usize) -> Vec<f32> {
    let uniform: Vec<f32> = mixed_bytes(12 * len).iter().map(|&byte| f32::from(byte) / 256.0).collect();
    uniform.chunks_exact(12).map(|twelve| twelve.iter().sum::<f32>() - 5.98).collect()
}

fn round_trip(dtype: DType, x: &[f32]) -> Vec<f32> {
    let mut raw = vec![0; dtype.row_bytes(x.len()).unwrap()];
    encode_row(dtype, x, &mut raw).unwrap();
    decoded(dtype, &raw)
}

#[test]
fn encoding_loses_no_more_than_the_type_must() {
    // Root mean square of the error over that of the values, for normal values.
    let bounds = [
        (DType::Q2_K, 0.28),
        (DType::Q3_K, 0.155),
        (DType::Q4_K, 0.073),
        (DType::Q5_K, 0.037),
        (DType::Q6_K, 0.0185),
        (DType::IQ4_NL, 0.078),
        (DType::IQ4_XS, 0.079),
    ];
    let x = normal(1 << 14);
    for (dtype, bound) in bounds {
        for scale in [1e-3, 1.0, 300.0] {
            let x: Vec<f32> = x.iter().map(|x| x * scale).collect();
            let errors: Vec<f32> = round_trip(dtype, &x).iter().zip(&x).map(|(a, b)| a - b).collect();
            let squares = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            let error = (squares(&errors) / squares(&x)).sqrt();
            assert!(error < bound, "{} at {scale}: {error}", dtype.name());
        }
    }
}

#[test]
fn special_blocks_survive_encoding() {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_encodable()) {
        let len = dtype.block_len().max(32);
        assert!(round_trip(dtype, &vec![0.0; len]).iter().all(|&x| x == 0.0), "{}", dtype.name());
        // A single value returns with the rounding of its scale (MXFP4's is a power of two), the other values as zero
        // or a level close to it (IQ4 has no level at zero).
        for value in [1.0f32, -1.0, 0.007, -250.0] {
            let mut x = vec![0.0; len];
            x[len - 3] = value;
            let allowed = value.abs() * if dtype == DType::MXFP4 { 0.25 } else { 0.01 };
            for (i, (back, x)) in round_trip(dtype, &x).iter().zip(&x).enumerate() {
                assert!((back - x).abs() <= allowed, "{} element {i}: {back} for {x}", dtype.name());
            }
        }
    }
}

#[test]
fn types_that_can_only_be_read_say_so() {
    let unwritable: Vec<_> = DType::ALL.into_iter().filter(|dtype| !dtype.is_encodable()).collect();
    assert_eq!(unwritable.len(), 8, "the lattices and NVFP4");
    for dtype in unwritable {
        let mut raw = vec![7; dtype.block_bytes()];
        let error = encode_row(dtype, &vec![1.0; dtype.block_len()], &mut raw).unwrap_err();
        assert!(matches!(&error, Error::Unsupported(text) if text.contains(dtype.name())), "{error}");
        assert!(raw.iter().all(|&byte| byte == 7), "nothing is written");
    }
}

#[test]
fn values_that_are_not_finite_encode_without_harm() {
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_encodable()) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE / 4.0] {
            let mut x = vec![0.5; 256];
            x[7] = bad;
            round_trip(dtype, &x);
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_decode_and_any_floats_encode(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 292),
        bits in proptest::collection::vec(proptest::num::u32::ANY, 256),
    ) {
        let floats: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for dtype in DType::ALL {
            decoded(dtype, &bytes[..dtype.block_bytes()]);
            if dtype.is_encodable() {
                round_trip(dtype, &floats);
            }
        }
    }
}
