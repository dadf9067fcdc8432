//! Tests of the built command line, a module a subject: `cargo test --test commands -- docs::` runs one.

#[path = "../../../tests/common/mod.rs"]
mod common;

mod cli;
mod docs;
mod profile_cli;
mod profile_compare;
