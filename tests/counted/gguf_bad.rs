//! GGUF files that lie: each is opened without a panic, within a bound on memory, to a named error.
//! Every byte of a header is mutated, every truncation tried, every limit passed by one.

use std::io::Write;
use std::sync::Arc;

use crate::common::gguf_writer::{F32, Q4_1, Writer, every_value_file, put_string, put_u32, put_u64, string};
use proptest::prelude::*;
use smallmind::format::gguf::{Array, Gguf, Value, limits};
use smallmind::format::{BytesSource, describe};
use smallmind::profile::alloc::count_during;
use smallmind::{Error, Result};

/// What opening may ask for in all, reallocations counted whole: a pair of 14 bytes becomes a slot of 88 that
/// doubling vectors ask for up to 4 times over, which is 25 times the file; names in messages are cut; and
/// vectors begin with 4 slots.
fn allowance(file_len: usize) -> u64 {
    32 * file_len as u64 + 8192
}

/// Opens within the allowance. What is opened must then keep its word: all tensors can be read whole.
fn open(bytes: &[u8]) -> Result<Gguf> {
    let source = Arc::new(BytesSource::new("f", bytes));
    let (opened, counts) = count_during(|| Gguf::open(source));
    let len = bytes.len();
    assert!(counts.bytes <= allowance(len), "{} bytes asked for on opening {len}: {opened:?}", counts.bytes);
    if let Ok(gguf) = &opened {
        assert!(describe(gguf).types.len() <= gguf.tensors().len());
        for tensor in gguf.tensors() {
            let mut data = vec![0; tensor.bytes as usize];
            gguf.read_tensor(tensor, 0, &mut data).unwrap();
        }
    }
    opened
}

/// The message of the error that opening gives, without the name.
fn refusal(bytes: &[u8]) -> String {
    let message = open(bytes).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message.replacen("bad file: f: ", "", 1)
}

#[test]
fn the_allowance_notices_a_large_reservation() {
    let (vec, counts) = count_during(|| Vec::<u8>::with_capacity(100_000));
    assert!(vec.capacity() >= 100_000 && counts.bytes > allowance(2000));
}

#[test]
fn every_byte_of_the_header_mutated() {
    let writer = every_value_file();
    let bytes = writer.build();
    let changes: [fn(u8) -> u8; 4] = [|_| 0x00, |_| 0xff, |b| b.wrapping_add(1), |b| b ^ 0x80];
    let mut refused = 0;
    for at in 0..writer.header_len() {
        for change in changes {
            let mut mutated = bytes.clone();
            mutated[at] = change(bytes[at]);
            refused += usize::from(open(&mutated).is_err());
        }
    }
    // Most bytes are lengths, types, keys and UTF-8: were nearly all mutants accepted, nothing would be checked.
    assert!(refused > writer.header_len(), "only {refused} mutants refused");
}

#[test]
fn every_field_of_the_header_set_to_an_extreme() {
    let writer = every_value_file();
    let bytes = writer.build();
    for at in 0..writer.header_len() {
        for extreme in [u64::MAX, u64::MAX / 2, i64::MIN as u64, 1 << 32, (1 << 61) + 1, 0] {
            for width in [4, 8] {
                let mut mutated = bytes.clone();
                let end = (at + width).min(bytes.len());
                mutated[at..end].copy_from_slice(&extreme.to_le_bytes()[..end - at]);
                let _ = open(&mutated);
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for version in [2, 3] {
        let bytes = every_value_file().version(version).build();
        assert!(open(&bytes).is_ok());
        for len in 0..bytes.len() {
            assert!(matches!(open(&bytes[..len]), Err(Error::Format(_))), "{len} bytes");
        }
    }
}

#[test]
fn other_files_versions_and_byte_orders() {
    let preamble = |magic: &[u8], version: [u8; 4]| [magic, &version, &[0; 16]].concat();
    assert_eq!(refusal(b""), "not a GGUF file: it is empty; was its download interrupted?");
    assert_eq!(refusal(b"\x7fFOO\x02\x01"), "not a GGUF file: begins with \"\\x7fFOO\"");
    assert_eq!(refusal(&preamble(b"GGUF", [0; 4])), "GGUF version 0");
    for (bytes, expected) in [
        (preamble(b"GGUF", [1, 0, 0, 0]), "GGUF version 1 (only versions 2 and 3 are read)"),
        (preamble(b"GGUF", [4, 0, 0, 0]), "GGUF version 4 (only versions 2 and 3 are read)"),
        (preamble(b"GGUF", [0, 0, 0, 3]), "big-endian GGUF, for computers of another byte order"),
        (preamble(b"FUGG", [0, 0, 0, 3]), "big-endian GGUF, for computers of another byte order"),
    ] {
        let error = open(&bytes).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)));
        assert_eq!(error.to_string(), format!("not supported: f: {expected}"));
    }
}

#[test]
fn absurd_counts() {
    let count = |n_tensors: u64, n_pairs: u64| {
        let mut bytes = Writer::new().build();
        bytes[8..16].copy_from_slice(&n_tensors.to_le_bytes());
        bytes[16..24].copy_from_slice(&n_pairs.to_le_bytes());
        refusal(&bytes)
    };
    assert_eq!(count(u64::MAX, 0), "18446744073709551615 tensors; at most 1048576 are taken");
    assert_eq!(count(0, u64::MAX), "18446744073709551615 metadata pairs; at most 16384 are taken");
    assert_eq!(
        count(limits::MAX_TENSORS, 0),
        "1048576 tensors at byte 24, but only 8 bytes are left in the file; was its download interrupted?"
    );
    assert_eq!(
        count(0, 1),
        "1 metadata pairs at byte 24, but only 8 bytes are left in the file; was its download interrupted?"
    );
}

/// A file with one pair of key `k` whose type and value are as given.
fn one_value(value: &[u8]) -> Vec<u8> {
    Writer::new().raw_pair(b"k", value).build()
}

/// Type and value of an array with a length that may be a lie.
fn array(element: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    put_u32(&mut value, 9);
    put_u32(&mut value, element);
    put_u64(&mut value, len);
    [&value, elements].concat()
}

/// Type and value of a string with a length that may be a lie.
fn text(len: u64, bytes: &[u8]) -> Vec<u8> {
    [&8u32.to_le_bytes()[..], &len.to_le_bytes(), bytes].concat()
}

#[test]
fn lying_lengths_of_strings_and_arrays() {
    let value = |value: &[u8]| refusal(&one_value(value)).replacen("metadata key \"k\": ", "", 1);
    assert_eq!(
        value(&text(u64::MAX, b"")),
        "a string of 18446744073709551615 bytes at byte 45; at most 67108864 are taken"
    );
    assert_eq!(
        value(&text(100, b"abc")),
        "100 bytes of a string at byte 45, but only 19 bytes are left in the file; was its download interrupted?"
    );
    for element in 0..=12 {
        let refused = value(&array(element, u64::MAX, &[0; 8]));
        let expected = "18446744073709551615 array elements at byte 49, but only";
        assert!(refused.starts_with(expected), "{element}: {refused}");
        // As many as could be there were each a byte: only the types of one byte are.
        let refused = open(&one_value(&array(element, 8, &[0; 8]))).is_err();
        assert_eq!(refused, ![0, 1, 7].contains(&element), "{element}");
    }
    assert_eq!(value(&13u32.to_le_bytes()), "unknown value type 13 before byte 37");
    assert_eq!(value(&array(13, 0, b"")), "unknown value type 13 before byte 49");
    assert_eq!(value(&[7, 0, 0, 0, 2]), "a truth value is 2 at byte 37");
    assert_eq!(value(&array(7, 2, &[1, 0xff])), "a truth value is 255 at byte 50");
}

/// Strings that aren't UTF-8 are kept as bytes, and their lengths are checked as those of others.
#[test]
fn strings_of_other_bytes() {
    let value = |value: &[u8]| open(&one_value(value)).unwrap().metadata().get("k").unwrap().clone();
    assert_eq!(value(&text(3, b"a\xffb")), Value::Bytes(b"a\xffb".to_vec()));
    let strings =
        [&3u64.to_le_bytes()[..], b"abc", &2u64.to_le_bytes(), b"\xc3\x28", &0u64.to_le_bytes()].concat();
    let wanted = [b"abc".to_vec(), b"\xc3\x28".to_vec(), Vec::new()];
    assert_eq!(value(&array(8, 3, &strings)), Value::Array(Array::Bytes(wanted.to_vec())));
    let lie = [&strings[..], &(1u64 << 20).to_le_bytes()].concat();
    let refused = refusal(&one_value(&array(8, 4, &lie)));
    assert!(refused.starts_with("metadata key \"k\": element 3: 1048576 bytes of a string"), "{refused}");
    let gguf = open(&Writer::new().raw_pair(b"a\x80", &[0, 0, 0, 0, 1]).build()).unwrap();
    assert_eq!(gguf.metadata().get("a\\x80"), Some(&Value::U8(1)));
    for error in [
        open(&one_value(&text(1, b"\xff"))).unwrap().metadata().get_str("k").unwrap_err(),
        open(&one_value(&array(8, 3, &strings))).unwrap().metadata().get_str_array("k").unwrap_err(),
    ] {
        assert!(error.to_string().contains("not") && error.to_string().contains("UTF-8"), "{error}");
    }
}

#[test]
fn arrays_nest_only_so_deep() {
    let nested = |depth: u32| (1..depth).fold(Array::U8(vec![1]), |inner, _| Array::Array(vec![inner]));
    let file = |depth| Writer::new().pair("k", Value::Array(nested(depth))).build();
    assert!(open(&file(limits::MAX_ARRAY_DEPTH)).is_ok());
    assert!(refusal(&file(limits::MAX_ARRAY_DEPTH + 1)).ends_with("arrays nested more than 4 deep"));
    // Deep enough to end the stack, were it followed.
    let endless: Vec<u8> =
        (0..100_000).flat_map(|_| [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat()).collect();
    assert!(open(&one_value(&array(9, 1, &endless))).is_err());
}

#[test]
fn keys_and_names() {
    let key = |key: &[u8]| refusal(&Writer::new().raw_pair(key, &[0, 0, 0, 0, 1]).build());
    assert_eq!(key(b""), "a metadata key is empty");
    assert!(key(&[b'a'; 65_536]).starts_with("metadata pair 0: key: a string of 65536 bytes"));
    assert!(open(&Writer::new().raw_pair(&[b'a'; 65_535], &[0, 0, 0, 0, 1]).build()).is_ok());
    let twice = Writer::new().pair("b", Value::U8(1)).pair("a", Value::U8(1)).pair("b", Value::U8(2));
    assert_eq!(refusal(&twice.build()), "metadata key \"b\" appears twice");

    let name = |name: &str| Writer::new().tensor(name, &[1], F32, &[0; 4]);
    assert!(open(&name(&"n".repeat(256)).build()).is_ok());
    assert!(refusal(&name(&"n".repeat(257)).build()).starts_with("tensor 0: name: a string of 257 bytes"));
    assert_eq!(refusal(&name("").build()), "tensor 0 has an empty name");
    let twice = name("w").tensor("v", &[1], F32, &[0; 4]).tensor("w", &[1], F32, &[0; 4]);
    assert_eq!(refusal(&twice.build()), "two tensors are called \"w\"");
    // A name cannot break the line of a message or make it long.
    let rude = refusal(&name(&"\n\u{1b}[31m".repeat(40)).entry("x", &[0], F32, 0).build());
    assert_eq!(rude, "tensor \"x\": a dimension is 0");
    let rude = refusal(&Writer::new().entry(&"\n".repeat(200), &[0], F32, 0).build());
    assert_eq!(rude, format!("tensor \"{}\"…: a dimension is 0", "\\n".repeat(80)));
}

#[test]
fn more_pairs_than_are_taken() {
    let file = |n: u64| (0..n).fold(Writer::new(), |w, i| w.pair(&format!("{i:x}"), Value::U8(0))).build();
    assert!(open(&file(limits::MAX_KV_PAIRS)).is_ok());
    assert_eq!(refusal(&file(limits::MAX_KV_PAIRS + 1)), "16385 metadata pairs; at most 16384 are taken");
}

#[test]
fn tensor_entries() {
    let entry = |dims: &[u64], ty, offset| {
        refusal(&Writer::new().entry("w", dims, ty, offset).build()).replacen("tensor \"w\": ", "", 1)
    };
    assert_eq!(entry(&[1; 5], F32, 0), "5 dimensions; there are at most 4");
    assert_eq!(entry(&[4, 0], F32, 0), "a dimension is 0");
    assert_eq!(entry(&[1 << 32, 1 << 32], F32, 0), "dimensions [4294967296, 4294967296] are too large");
    assert_eq!(entry(&[1 << 62], F32, 0), "dimensions [4611686018427387904] are too large");
    assert_eq!(
        entry(&[u64::MAX, 1, 1, 2], 77, 0),
        "dimensions [18446744073709551615, 1, 1, 2] are too large"
    );
    assert_eq!(
        entry(&[48], Q4_1, 0),
        "rows of 48 elements are no whole number of Q4_1 blocks, which have 32"
    );
    assert_eq!(
        entry(&[300], 12, 0),
        "rows of 300 elements are no whole number of Q4_K blocks, which have 256"
    );
    assert_eq!(entry(&[1], F32, 8), "offset 8 is no multiple of 32");
    let past = "bytes at offset 32 of the data, which begins at 64, are past the end of the file at 64; was its download interrupted?";
    assert_eq!(entry(&[3], F32, 32), format!("12 {past}"));
    assert!(entry(&[1], F32, u64::MAX - 31).contains("are past the end of the file"));
    assert!(entry(&[1 << 61], F32, 1 << 63).contains("are past the end of the file"));
    assert_eq!(entry(&[1], 77, 0), "tensor \"w\" begins at the end of the file");
}

#[test]
fn tensors_that_share_bytes() {
    let file = |second: u64| {
        Writer::new().tensor("a", &[16], F32, &[0; 64]).tensor("c", &[1], F32, &[0; 4]).entry(
            "b",
            &[8],
            F32,
            second,
        )
    };
    assert_eq!(refusal(&file(32).build()), "tensors \"a\" and \"b\" overlap");
    let same = refusal(&file(0).build());
    assert!(same == "tensors \"a\" and \"b\" overlap" || same == "tensors \"b\" and \"a\" overlap", "{same}");
    let same = Writer::new().tensor("a", &[16], 77, &[0; 64]).entry("b", &[8], 78, 0).build();
    assert!(refusal(&same).ends_with("overlap"));
}

#[test]
fn alignments() {
    let file = |value: Value| Writer::new().pair("general.alignment", value).build();
    let refused = |value| refusal(&file(value));
    for bad in [0, 1, 4, 48, 3 << 20, 4 << 20, u32::MAX] {
        let expected = format!("general.alignment is {bad}; a power of two from 8 to 2097152 is needed");
        assert_eq!(refused(Value::U32(bad)), expected);
    }
    assert_eq!(
        refused(string("32")),
        "metadata key \"general.alignment\" is the string \"32\"; a u64 is needed"
    );
    assert!(open(&file(Value::U32(2 << 20))).is_ok());
}

#[test]
fn a_sparse_giant_is_not_read() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut header = Writer::new().raw_pair(b"k", &array(0, 1 << 32, b"")).build();
    header.truncate(49);
    file.write_all(&header).unwrap();
    file.as_file().set_len(1 << 33).unwrap();
    let (opened, counts) = count_during(|| Gguf::open_path(file.path()));
    let expected =
        "4294967296 array elements at byte 49, but only 268435407 bytes are left of the largest header taken";
    assert!(opened.unwrap_err().to_string().ends_with(expected));
    assert!(counts.bytes < 100_000, "{} bytes asked for", counts.bytes);
}

/// A random header: honest parts in random order, with lies among them.
fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let small = || prop_oneof![4 => 0u64..20, 1 => any::<u64>()];
    let word = prop_oneof![
        small().prop_map(|x| x.to_le_bytes().to_vec()),
        (0u32..14).prop_map(|x| x.to_le_bytes().to_vec()),
        "[a-z]{0,6}".prop_map(|s| {
            let mut bytes = Vec::new();
            put_string(&mut bytes, &s);
            bytes
        }),
        any::<Vec<u8>>(),
    ];
    (0u64..4, 0u64..4, proptest::collection::vec(word, 0..30)).prop_map(|(tensors, pairs, words)| {
        [&b"GGUF\x03\0\0\0"[..], &tensors.to_le_bytes(), &pairs.to_le_bytes(), &words.concat(), &[0; 64]]
            .concat()
    })
}

proptest! {
    #[test]
    fn random_bytes(bytes: Vec<u8>) {
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn random_headers(bytes in any_header()) {
        let _ = open(&bytes);
    }

    #[test]
    fn honest_files_with_a_run_of_bytes_replaced(at in 0.0..1.0, run in proptest::collection::vec(any::<u8>(), 1..16)) {
        let writer = every_value_file();
        let mut bytes = writer.build();
        let at = (at * writer.header_len() as f64) as usize;
        let end = (at + run.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&run[..end - at]);
        let _ = open(&bytes);
    }
}
