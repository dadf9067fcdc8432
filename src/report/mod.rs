//! What becomes of a profile: files, pages and pictures for people and tools, and comparisons of two.
//! Everything is made from [`Report`], whether it was measured a moment ago or read from a file.

mod capture;
pub mod data;
mod machine;
pub mod read;
mod render;
pub mod stats;

pub use capture::{record, record_traced, timeline};
pub use data::Report;
pub use machine::{last_measured, measured};
pub use read::{Read, read};
pub use render::{Format, render, write_file, write_folder};
