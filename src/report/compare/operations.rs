//! The operations whose arithmetic was declared, with the speed at which they did it.

use serde::Serialize;

use super::change::{Change, Verdict};
use super::series::Series;

/// An operation on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationChange {
    /// The method.
    pub name: String,
    /// Floating-point operations of one run before.
    pub flops_before: Option<f64>,
    /// Floating-point operations of one run after.
    pub flops_after: Option<f64>,
    /// 10⁹ operations a second before.
    pub gflops_before: Option<f64>,
    /// 10⁹ operations a second after.
    pub gflops_after: Option<f64>,
    /// The verdict on its time.
    pub verdict: Verdict,
}

/// The operation of a method that both sides have; none where neither declared its work.
pub(super) fn of(name: &str, before: &Series, after: &Series, time: &Change) -> Option<OperationChange> {
    let declared = |series: &Series| Some(series.get(name)?.flops).filter(|flops| *flops > 0.0);
    let mut flops = [before, after].map(declared);
    // The same calls of the same method are the same work: a side that doesn't know it takes it from the other.
    if before.calls(name) == after.calls(name) {
        flops = match flops {
            [None, other] | [other, None] => [other; 2],
            both => both,
        };
    }
    let [flops_before, flops_after] = flops;
    flops_before.or(flops_after)?;
    let rate = |flops: Option<f64>, ns: Option<f64>| Some(flops? / ns.filter(|&ns| ns > 0.0)?);
    Some(OperationChange {
        name: name.to_owned(),
        flops_before,
        flops_after,
        gflops_before: rate(flops_before, time.before),
        gflops_after: rate(flops_after, time.after),
        verdict: time.verdict,
    })
}
