//! runtime

pub mod sampling;
pub mod stream;
