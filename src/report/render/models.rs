//! Each model in each part: tokens a second, and the cost of a token.

use super::text::ratio;
use super::view::{PartView, Spread};
use crate::report::data::{ModelSpec, Report};
use crate::report::models::generating;

/// A model in a part.
pub(super) struct ModelRate<'a> {
    pub model: &'a ModelSpec,
    /// Which of the parts.
    pub part: usize,
    /// Tokens of one run.
    pub tokens: u64,
    /// Nanoseconds that they took.
    pub total: Spread,
    /// Tokens a second.
    pub speed: Spread,
    /// Bytes allocated for a token.
    pub alloc_bytes: f64,
    /// Allocations for a token.
    pub alloc_count: f64,
    /// Operations declared for a token.
    pub flops: f64,
    /// 10⁹ operations a second.
    pub gflops: f64,
}

/// All models of a report in all parts in which they made tokens and were timed.
pub(super) fn rates<'a>(report: &'a Report, parts: &[PartView<'_>]) -> Vec<ModelRate<'a>> {
    let pairs = report.models.iter().flat_map(|model| parts.iter().map(move |part| (model, part)));
    pairs.filter_map(|(model, part)| rate(model, part, report.models.len() == 1)).collect()
}

/// Bytes and allocations for a token, over all models of a part; none where none made tokens.
pub(super) fn allocated_per_token(rates: &[ModelRate<'_>], part: usize) -> Option<(f64, f64)> {
    let here = || rates.iter().filter(|rate| rate.part == part);
    let tokens: f64 = here().map(|rate| rate.tokens as f64).sum();
    let over =
        |each: fn(&ModelRate<'_>) -> f64| here().map(|rate| each(rate) * rate.tokens as f64).sum::<f64>();
    (tokens > 0.0).then(|| (over(|rate| rate.alloc_bytes) / tokens, over(|rate| rate.alloc_count) / tokens))
}

fn rate<'a>(model: &'a ModelSpec, part: &PartView<'_>, alone: bool) -> Option<ModelRate<'a>> {
    let tokens = *model.tokens.get(part.index).filter(|&&tokens| tokens > 0)?;
    let name = generating(model, part.part, alone)?;
    let method = part.method(&name).filter(|method| method.total.median > 0.0)?;
    let each = |amount: u64| amount as f64 / tokens as f64;
    Some(ModelRate {
        model,
        part: part.index,
        tokens,
        total: method.total,
        speed: method.total.rate(1e9 * tokens as f64),
        alloc_bytes: each(method.figures.alloc_bytes),
        alloc_count: each(method.figures.alloc_count),
        flops: each(method.figures.flops),
        gflops: ratio(method.figures.flops as f64, method.total.median),
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::report;
    use super::super::view;
    use super::*;

    #[test]
    fn a_token_costs_what_the_inference_cost() {
        let report = report();
        let parts = view::parts(&report);
        let rates = rates(&report, &parts);
        let names: Vec<_> = rates.iter().map(|rate| (rate.model.name.as_str(), rate.part)).collect();
        assert_eq!(names, [("Small", 0), ("Small", 1), ("Medium", 0), ("Medium", 1)]);
        let inference = parts[0].method("Model_Small_Inference").unwrap();
        assert_eq!(rates[0].tokens, 25);
        assert!((rates[0].speed.median - 25e9 / inference.total.median).abs() < 1e-6);
        assert!(rates[0].speed.low <= rates[0].speed.median && rates[0].speed.median <= rates[0].speed.high);
        assert!((rates[0].flops * 25.0 - inference.figures.flops as f64).abs() < 1.0);
    }
}
