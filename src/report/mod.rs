//! What becomes of a profile: files, pages and pictures for people and tools, and comparisons of two.
//! Everything is made from [`Report`], whether it was measured a moment ago or read from a file.

pub mod data;

pub use data::Report;
