//! Link settings of the shared library, and the C header generated beside it.
//! (The header goes to the build's own folder; a test compares it with `include/smallmind.h`.)

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
