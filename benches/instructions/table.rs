//! Counts of instructions by kernel: the committed table, and how a new count compares with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a count may be off by, in shares of the one in the table.
pub const TOLERANCE: f64 = 0.01;

/// Counts of one build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The compiler of that build: another one counts differently.
    pub compiler: String,
    /// Instructions of one call, by kernel.
    pub instructions: BTreeMap<String, u64>,
}

/// A kernel whose count isn't what the table says.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// Counted, not in the table.
    Added { name: String, now: u64 },
    /// In the table, not counted.
    Missing { name: String, before: u64 },
    /// More or fewer than the tolerance allows.
    Changed { name: String, before: u64, now: u64 },
}

impl Table {
    /// Where `now` differs, by name.
    pub fn differences(&self, now: &Table) -> Vec<Difference> {
        let known = self.instructions.iter().filter_map(|(name, &before)| {
            let name = name.clone();
            match now.instructions.get(&name) {
                None => Some(Difference::Missing { name, before }),
                Some(&now) if within(before, now) => None,
                Some(&now) => Some(Difference::Changed { name, before, now }),
            }
        });
        let added = now.instructions.iter().filter(|(name, _)| !self.instructions.contains_key(*name));
        known.chain(added.map(|(name, &now)| Difference::Added { name: name.clone(), now })).collect()
    }
}

/// Whether a count is as good as the one before.
fn within(before: u64, now: u64) -> bool {
    before.abs_diff(now) as f64 <= TOLERANCE * before as f64
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Added { name, now } => {
                write!(f, "{name:44} {:>12} → {now:>12}  not in the table", "-")
            }
            Difference::Missing { name, before } => {
                write!(f, "{name:44} {before:>12} → {:>12}  no longer counted", "-")
            }
            Difference::Changed { name, before, now } => {
                let percent = 100.0 * (*now as f64 / (*before).max(1) as f64 - 1.0);
                write!(f, "{name:44} {before:>12} → {now:>12}  {percent:+.1} %")
            }
        }
    }
}
