//! Model files whose data can't be read, or is anything: cut off, on a disk that goes away, mutated, random. Each load
//! ends in a named error or a model, without a panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bad_files::{Parts, load, load_from};
use proptest::prelude::*;
use smallmind::format::gguf::Gguf;
use smallmind::format::{ByteSource, BytesSource};
use smallmind::{Error, Result};

#[test]
fn every_truncation_on_a_tensors_edge() {
    let bytes = Parts::mixed().build();
    let gguf = Gguf::open(Arc::new(BytesSource::new("whole", bytes.clone()))).unwrap();
    for tensor in gguf.tensors() {
        let (begin, end) = (tensor.offset as usize, (tensor.offset + tensor.bytes) as usize);
        for len in [begin, begin + 1, end - 1] {
            let error = load_from(Arc::new(BytesSource::new("cut", &bytes[..len]))).err().unwrap();
            assert!(matches!(error, Error::Format(_)), "{error}");
        }
    }
}

/// Fails every read after the first few, as a disk that goes away.
struct Failing {
    bytes: BytesSource,
    reads_left: AtomicU64,
}

impl ByteSource for Failing {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn name(&self) -> &str {
        "failing"
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let left = self.reads_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        match left {
            Ok(_) => self.bytes.read_at(offset, buf),
            Err(_) => Err(Error::Io { path: "failing".into(), source: std::io::Error::other("gone") }),
        }
    }
}

#[test]
fn reads_that_fail_from_any_point_on() {
    let bytes = BytesSource::new("bytes", Parts::mixed().build());
    let load =
        |reads| load_from(Arc::new(Failing { bytes: bytes.clone(), reads_left: AtomicU64::new(reads) }));
    let needed = (0..10_000).find(|&reads| match load(reads) {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error, Error::Io { .. }), "{error}");
            false
        }
    });
    // The header, and each of the 21 tensors at least once.
    assert!(needed.unwrap() > 21);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn headers_with_a_run_of_bytes_replaced(
        at in 0usize..60_000,
        run in proptest::collection::vec(any::<u8>(), 1..9),
    ) {
        let mut bytes = Parts::mixed().build();
        let header = Gguf::open(Arc::new(BytesSource::new("whole", bytes.clone()))).unwrap().data_offset() as usize;
        let at = at % header;
        bytes[at..at + run.len()].copy_from_slice(&run);
        let _ = load_from(Arc::new(BytesSource::new("mutant", bytes)));
    }

    #[test]
    fn weights_of_random_bytes_load(seed: u64) {
        let mut parts = Parts::mixed();
        let mut state = seed | 1;
        for byte in parts.tensors.iter_mut().flat_map(|t| &mut t.data) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        prop_assert!(load(&parts).is_ok());
    }
}

#[cfg(unix)]
#[test]
fn a_file_cut_off_between_opening_and_reading() {
    /// A file that somebody cuts off before the `cut`-th read.
    struct Cut {
        file: smallmind::format::FileSource,
        path: std::path::PathBuf,
        len: u64,
        cut: u64,
        reads: AtomicU64,
    }
    impl ByteSource for Cut {
        fn len(&self) -> u64 {
            self.file.len()
        }
        fn name(&self) -> &str {
            self.file.name()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            if self.reads.fetch_add(1, Ordering::Relaxed) == self.cut {
                std::fs::OpenOptions::new().write(true).open(&self.path).unwrap().set_len(self.len).unwrap();
            }
            self.file.read_at(offset, buf)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let bytes = Parts::mixed().build();
    let mut refused = 0;
    for (i, part) in [0, 1, 2, 3, 4, 5].into_iter().enumerate() {
        for cut in [0, 1, 2, 5, 9, 14, 20] {
            let path = folder.path().join(format!("{i}-{cut}.gguf"));
            std::fs::write(&path, &bytes).unwrap();
            let file = smallmind::format::FileSource::open(&path).unwrap();
            let len = bytes.len() as u64 * part / 6;
            let reads = AtomicU64::new(0);
            match load_from(Arc::new(Cut { file, path, len, cut, reads })) {
                Err(Error::Io { .. }) => refused += 1,
                Err(error) => panic!("cut to {len} before read {cut}: {error}"),
                // What was cut off had been read already.
                Ok(_) => assert!(cut > 5),
            }
        }
    }
    assert!(refused > 20, "{refused} loads were refused");
}
