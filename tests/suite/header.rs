//! The committed C header is the one that this source generates.
//! To refresh it after a change of `src/ffi`: `SMALLMIND_UPDATE_HEADER=1 cargo test --test suite header`.

use std::path::Path;

const GENERATED: &str = concat!(env!("OUT_DIR"), "/smallmind.h");
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/smallmind.h");

/// What to tell whoever finds that the two differ; `None` where they don't.
fn difference(generated: &str, committed: &str) -> Option<String> {
    if generated == committed {
        return None;
    }
    let same = generated.lines().zip(committed.lines()).take_while(|(a, b)| a == b).count();
    Some(format!(
        "include/smallmind.h is not what src/ffi generates; they differ first in line {}.\n\
         Refresh it with: SMALLMIND_UPDATE_HEADER=1 cargo test --test suite header",
        same + 1
    ))
}

#[test]
fn the_committed_header_is_up_to_date() {
    let generated = std::fs::read_to_string(GENERATED)
        .expect("the build script wrote a header; if it did not, it printed a warning that says why");
    if std::env::var_os("SMALLMIND_UPDATE_HEADER").is_some() {
        std::fs::create_dir_all(Path::new(COMMITTED).parent().expect("a folder")).expect("include/");
        std::fs::write(COMMITTED, &generated).expect("include/smallmind.h is writable");
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    if let Some(message) = difference(&generated, &committed) {
        panic!("{message}");
    }
    // Some compilers read headers in the system's character set.
    assert!(committed.is_ascii(), "a character outside ASCII in the documentation of src/ffi");
}

#[test]
fn a_changed_line_is_noticed() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    let message = difference("a\nb\nc\n", "a\nB\nc\n").expect("they differ");
    assert!(message.contains("line 2") && message.contains("SMALLMIND_UPDATE_HEADER=1"), "{message}");
    assert!(difference("a\nb\n", "a\n").is_some() && difference("a\n", "").is_some());
}
