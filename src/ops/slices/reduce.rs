//! Reductions of a slice to one number. They run on the calling thread: the order of additions is part of a sum's
//! result, and a slice is read faster than a team wakes.

use super::{bytes, check_len, kernels};
use crate::error::Result;
use crate::profile::{self, Scope, Zone};

/// The sum of all elements; 0 of none.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) where the environment asks for kernels that this CPU has
/// not.
pub fn sum(x: &[f32]) -> Result<f32> {
    let kernel = &kernels()?.rows.sum;
    let _zone = zone(x.len());
    Ok(kernel.apply(x))
}

/// `Σ a[i] · b[i]`; 0 of none.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) where a and b differ in length, and as [`sum`].
pub fn dot(a: &[f32], b: &[f32]) -> Result<f32> {
    check_len("b", b.len(), a.len())?;
    let kernel = &kernels()?.rows.dot;
    let _zone = zone(a.len().saturating_mul(2));
    Ok(kernel.apply(a, b))
}

/// The largest element: −∞ of none, NaN where any is NaN.
///
/// # Errors
/// As [`sum`].
pub fn max(x: &[f32]) -> Result<f32> {
    let kernel = &kernels()?.rows.max;
    let _zone = zone(x.len());
    Ok(kernel.apply(x))
}

/// The first index of the largest element, where NaN counts as smallest; 0 where there is nothing else.
///
/// # Errors
/// As [`sum`].
pub fn argmax(x: &[f32]) -> Result<usize> {
    let kernel = &kernels()?.rows.argmax;
    let _zone = zone(x.len());
    Ok(kernel.apply(x))
}

/// The profile's scope for a reduction of so many floats.
fn zone(floats: usize) -> Scope {
    profile::scope(Zone::Reduce).work(floats as u64, bytes(floats))
}
