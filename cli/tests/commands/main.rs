//! Tests of the built command line, a module a subject: `cargo test --test commands -- docs::` runs one.

#[path = "../../../tests/common/mod.rs"]
mod common;

mod batch;
mod chat;
mod cli;
mod docs;
mod embed;
mod lines;
mod models;
mod profile_cli;
mod profile_compare;
mod profile_embed;
mod sampling;
mod sets;
mod snapshots;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
mod train;
#[cfg(target_os = "linux")]
mod whole_files;
