//! quantised matmul

/// This family's kernels at one level.
#[derive(Clone, Copy)]
pub struct Set {}
