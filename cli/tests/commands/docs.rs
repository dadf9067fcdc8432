//! docs/kernels.md lists the kernels of this build. To refresh it: `SMALLMIND_UPDATE_DOCS=1 cargo test --test commands docs`.
#![cfg(target_arch = "x86_64")]

use std::path::Path;
use std::process::Command;

/// The list is of all levels of an architecture, not of those that this CPU has.
#[test]
fn the_kernels_are_those_of_this_build() {
    let output = Command::new(env!("CARGO_BIN_EXE_smallmind")).arg("kernels").output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let (_, table) = listed.split_once("\n\n").expect("a table after the first line");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut parts: Vec<_> = page.split("```\n").collect();
    let [_, shown, _] = &mut parts[..] else { panic!("docs/kernels.md has one block") };
    if std::env::var_os("SMALLMIND_UPDATE_DOCS").is_some() {
        *shown = table;
        return std::fs::write(path, parts.join("```\n")).unwrap();
    }
    assert!(
        *shown == table,
        "docs/kernels.md is stale: SMALLMIND_UPDATE_DOCS=1 cargo test --test commands docs"
    );
}
