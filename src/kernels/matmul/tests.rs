//! Tests of the matmul family.
