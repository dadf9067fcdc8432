//! Profiles as files, pages and pictures for people and tools, and comparisons of two.
//! Everything is made from [`Report`], whether it was measured a moment ago or read from a file.

pub mod baseline;
mod capture;
pub mod choice;
pub mod compare;
pub mod data;
mod machine;
pub mod models;
pub mod read;
mod render;
pub mod stats;
#[cfg(test)]
mod testing;

pub use capture::{record, record_traced, timeline};
pub use compare::{Comparison, compare, render_comparison};
pub use data::Report;
pub use machine::{last_measured, measured};
pub use models::{compare_models, render_models};
pub use read::{Read, read, read_with};
pub use render::html::compare::{Kept, comparison_page, history_page};
pub use render::{Format, render, write_file, write_folder};
