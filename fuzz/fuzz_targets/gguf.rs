//! Any bytes as a GGUF file: opened, described and read without a panic, or refused.
//! From the top folder: `mkdir -p fuzz/corpus/gguf && cargo +nightly fuzz run gguf fuzz/corpus/gguf tests/goldens/gguf`.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use smallmind::format::gguf::Gguf;
use smallmind::format::{BytesSource, describe};

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::open(Arc::new(BytesSource::new("fuzz", bytes))) else { return };
    let description = describe(&gguf);
    assert_eq!(description.tensors, gguf.tensors().len());
    let mut read = 0;
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        let mut data = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut data).expect("a tensor accepted can be read");
        read += data.len();
    }
    // No two tensors share bytes, so all of them together fit into the file.
    assert!(read <= bytes.len());
    for (key, value) in gguf.metadata().iter() {
        assert!(gguf.metadata().get(key).is_some());
        let _ = value.to_string();
    }
});
