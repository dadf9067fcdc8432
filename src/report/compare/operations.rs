//! The operations whose arithmetic is known, with the speed at which they did it: operations that were declared, or
//! that follow from the name in the predecessor's pages, whose scopes hold a warm-up and all iterations.

use serde::Serialize;

use super::change::{Change, Verdict};
use super::series::Series;
use crate::report::read::Layout;

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
    /// What its time tells.
    pub verdict: Verdict,
}

/// The operation of a method that both sides have; nothing where neither knows its arithmetic.
pub(super) fn of(name: &str, before: &Side<'_>, after: &Side<'_>, time: &Change) -> Option<OperationChange> {
    let mut flops = [before, after].map(|side| side.flops(name));
    // The same calls of the same method are the same work: who doesn't know it takes it from who does.
    if before.series.calls(name) == after.series.calls(name) {
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

/// A part of one side.
pub(super) struct Side<'a> {
    pub series: &'a Series,
    pub layout: Layout,
}

impl Side<'_> {
    fn flops(&self, name: &str) -> Option<f64> {
        let declared = self.series.get(name).map_or(0.0, |method| method.flops);
        match self.layout {
            _ if declared > 0.0 => Some(declared),
            Layout::Predecessor => self.by_name(name),
            _ => None,
        }
    }

    /// What follows from a name such as "MatMul_128x128". Functions of which nobody says how many operations an element
    /// takes (GELU, softmax) have no number.
    fn by_name(&self, name: &str) -> Option<f64> {
        let (group, size) = name.split_once('_')?;
        let sizes: Vec<f64> =
            size.split('x').map(|size| size.parse::<u32>().ok().map(f64::from)).collect::<Option<_>>()?;
        let calls = self.series.calls(name)?;
        let iterations = self.iterations(group)?;
        let one = match (group, &sizes[..]) {
            // A square product; the warm-up before the iterations is in the scope too.
            ("MatMul", [rows, columns]) if rows == columns => {
                return Some(2.0 * rows.powi(3) * (iterations + 1.0) * calls);
            }
            ("TensorAdd" | "TensorMul", [elements]) => *elements,
            ("BroadcastAdd", [rows, columns]) => rows * columns,
            _ => return None,
        };
        Some(one * iterations * calls)
    }

    /// Iterations in one scope of a group: all of its iterations over all of its scopes.
    fn iterations(&self, group: &str) -> Option<f64> {
        let all = self.series.calls(&format!("{group}_Iteration"))?;
        let scopes: f64 = self
            .series
            .iter()
            .filter(|(name, _)| {
                let size = name.strip_prefix(group).and_then(|rest| rest.strip_prefix('_'));
                size.is_some_and(|size| size.starts_with(|c: char| c.is_ascii_digit()))
            })
            .map(|(_, method)| method.calls)
            .sum();
        (scopes > 0.0).then(|| all / scopes)
    }
}
