//! What test programs share: files of the workspace, goldens, a writer of GGUF files, the real model, tests in
//! processes of their own.

// Each program uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

pub mod adapters;
pub mod embedders;
pub mod families;
pub mod gguf_writer;
#[path = "../../src/testing/golden.rs"]
pub mod golden;
#[path = "../../src/testing/growth.rs"]
pub mod growth;
pub mod model;
pub mod process;

/// The folder of the workspace. The command line's package stands a folder deeper than the library's.
pub fn root() -> &'static Path {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders.find(|folder| folder.join("tests/goldens").is_dir()).expect("the workspace")
}

/// A file of `tests/goldens`.
pub fn golden_path(name: &str) -> PathBuf {
    root().join("tests/goldens").join(name)
}

/// A model of `tests/goldens/gguf`: small, random weights.
pub fn tiny_model(name: &str) -> PathBuf {
    golden_path(&format!("gguf/{name}.gguf"))
}
