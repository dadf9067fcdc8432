//! One figure before and after: how it changed, within which interval, and whether that is beyond doubt.
//! All figures are such that less is better: times, bytes, allocations.

use serde::Serialize;

use crate::report::stats::{self, Difference, Sample};

/// The verdict on a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Less than before, beyond doubt.
    Improved,
    /// More than before, beyond doubt.
    Regressed,
    /// The runs don't tell a difference: there is none, or there are too few runs.
    NoDifference,
    /// Too short for the clock, or rounded too far.
    TooShort,
    /// One side doesn't have the figure.
    Unknown,
}

impl Verdict {
    /// Its words.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Improved => "improved",
            Verdict::Regressed => "regressed",
            Verdict::NoDifference => "no difference shown",
            Verdict::TooShort => "too short to tell",
            Verdict::Unknown => "not measured on both sides",
        }
    }
}

/// A figure before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Before: the geometric mean of the runs (the mean, where one is zero).
    pub before: Option<f64>,
    /// After.
    pub after: Option<f64>,
    /// After over before.
    pub ratio: Option<f64>,
    /// The 95 % interval of the ratio, where both sides had several runs.
    pub interval: Option<[f64; 2]>,
    /// How likely so large a difference is where nothing changed, corrected for all that are looked at.
    pub p: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
    /// The difference that interval and verdict come from.
    #[serde(skip)]
    pub(super) difference: Option<Difference>,
}

impl Change {
    /// The change of a figure that is known to `step`, from its values in each run; none where it is unknown.
    pub(super) fn of(before: Option<&[f64]>, after: Option<&[f64]>, step: f64) -> Change {
        let mut change = Change {
            before: before.map(mean),
            after: after.map(mean),
            ratio: None,
            interval: None,
            p: None,
            verdict: Verdict::Unknown,
            difference: None,
        };
        let (Some(before), Some(after)) = (before, after) else { return change };
        change.verdict = Verdict::NoDifference;
        if let (Some(before), Some(after)) = (Sample::of_logs(before, step), Sample::of_logs(after, step)) {
            change.ratio = Some((after.mean - before.mean).exp());
            change.difference = Difference::welch(&before, &after);
            change.interval = change.difference.map(|difference| difference.interval());
            return change;
        }
        let none = |figures: &[f64]| figures.iter().all(|figure| *figure == 0.0);
        let some = |figures: &[f64]| figures.iter().all(|figure| *figure > 0.0);
        if none(before) && none(after) {
            change.ratio = Some(1.0);
        } else if before.len() > 1 && after.len() > 1 {
            // Nothing in every run of one side and something in every run of the other has no ratio, but is told.
            if none(before) && some(after) {
                change.verdict = Verdict::Regressed;
            } else if some(before) && none(after) {
                change.verdict = Verdict::Improved;
            }
        }
        change
    }

    /// Later less earlier.
    pub fn delta(&self) -> Option<f64> {
        Some(self.after? - self.before?)
    }

    /// The change in percent of before; negative is less.
    pub fn percent(&self) -> Option<f64> {
        self.ratio.map(|ratio| 100.0 * (ratio - 1.0))
    }

    /// Marks the figure as too short for a verdict.
    pub(super) fn too_short(&mut self) {
        (self.verdict, self.interval, self.difference) = (Verdict::TooShort, None, None);
    }
}

fn mean(figures: &[f64]) -> f64 {
    match Sample::of_logs(figures, 0.0) {
        Some(sample) => sample.mean.exp(),
        None => figures.iter().sum::<f64>() / figures.len().max(1) as f64,
    }
}

/// Gives verdicts to changes that are looked at together: the corrected p must be under 5 %. As no corrected value is
/// lower than the plain one, the 95 % interval then excludes no change as well.
pub(super) fn judge(changes: &mut [&mut Change]) {
    let mut known: Vec<(&mut &mut Change, Difference)> = changes
        .iter_mut()
        .filter_map(|change| change.difference.map(|difference| (change, difference)))
        .collect();
    let plain: Vec<f64> = known.iter().map(|(_, difference)| difference.p(1.0)).collect();
    for ((change, difference), p) in known.iter_mut().zip(stats::holm(&plain)) {
        change.p = Some(p);
        if p < 1.0 - stats::CONFIDENCE {
            change.verdict = if difference.log_ratio < 0.0 { Verdict::Improved } else { Verdict::Regressed };
        }
    }
}

/// Which of the changes are more than `limit` times as much as before, beyond doubt: corrected as verdicts are, so that
/// the whole interval lies above it.
pub(super) fn above(changes: &[&Change], limit: f64) -> Vec<bool> {
    let p = |change: &&Change| match change.difference {
        Some(difference) if difference.log_ratio > limit.ln() => difference.p(limit),
        _ => 1.0,
    };
    let judged: Vec<usize> =
        (0..changes.len()).filter(|&index| changes[index].difference.is_some()).collect();
    let corrected = stats::holm(&judged.iter().map(|&index| p(&changes[index])).collect::<Vec<_>>());
    let mut out = vec![false; changes.len()];
    for (index, p) in judged.into_iter().zip(corrected) {
        out[index] = p < 1.0 - stats::CONFIDENCE;
    }
    out
}
