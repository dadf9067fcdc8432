//! K-quants: blocks of 256 with scales, and for some minimums, of sub-blocks that are themselves quantised.
//! Encoders choose scales by a search of their own (see `search`), which is not ggml's: the bytes differ.

mod q2;
mod q3;
mod q45;
mod q6;

pub use q2::Q2K;
pub use q3::Q3K;
pub use q6::Q6K;
pub use q45::{Q4K, Q5K};
