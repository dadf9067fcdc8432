//! The figures of each method of a part, run by run.

use std::collections::HashMap;

use crate::report::data::{Method, Run};

/// A method over the runs of a part.
#[derive(Clone, Debug, Default)]
pub(super) struct MethodSeries {
    /// Nanoseconds of each run.
    pub times_ns: Vec<f64>,
    /// Bytes allocated in each run.
    pub alloc_bytes: Vec<f64>,
    /// Mean calls of a run.
    pub calls: f64,
    /// Mean operations declared in a run.
    pub flops: f64,
}

impl MethodSeries {
    /// Nanoseconds of one call.
    pub fn call_ns(&self) -> f64 {
        self.times_ns.iter().sum::<f64>() / (self.times_ns.len() as f64 * self.calls.max(1.0))
    }
}

/// All methods of a part, by falling time.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    names: Vec<String>,
    methods: HashMap<String, MethodSeries>,
}

impl Series {
    pub fn of<'a>(runs: impl Iterator<Item = &'a Run>) -> Series {
        let mut series = Series::default();
        let mut count = 0.0;
        for run in runs {
            count += 1.0;
            for method in &run.methods {
                series.add(method);
            }
        }
        for method in series.methods.values_mut() {
            method.calls /= count;
            method.flops /= count;
        }
        series
    }

    fn add(&mut self, method: &Method) {
        let series = self.methods.entry(method.name.clone()).or_insert_with(|| {
            self.names.push(method.name.clone());
            MethodSeries::default()
        });
        series.times_ns.push(method.total_ns as f64);
        series.alloc_bytes.push(method.alloc_bytes as f64);
        series.calls += method.calls as f64;
        series.flops += method.flops as f64;
    }

    pub fn get(&self, name: &str) -> Option<&MethodSeries> {
        self.methods.get(name)
    }

    pub fn calls(&self, name: &str) -> Option<f64> {
        self.get(name).map(|method| method.calls)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &MethodSeries)> {
        self.names.iter().map(|name| (name.as_str(), &self.methods[name]))
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// For each run, the sum of the times of these methods; nested ones count again.
    pub fn sums(&self, names: &[&str]) -> Vec<f64> {
        let runs = self.methods.values().next().map_or(0, |method| method.times_ns.len());
        let one = |run: usize| {
            names.iter().filter_map(|name| self.get(name)).map(|method| method.times_ns[run]).sum()
        };
        (0..runs).map(one).collect()
    }
}
