//! Checks that hold for every sound report: names stand once, times are in order, the tree is one.
//! Faults are told by the path of the field.

use std::collections::{HashMap, HashSet};

use crate::error::quoted;
use crate::report::data::{COUNTING_VERSION, Limits, Method, Report, Run};

/// The most methods, places of trees and events of timelines that a report may hold.
const MAX_ROWS: usize = 1_000_000;

/// Finds the first fault of a report.
///
/// # Errors
/// The path of the first field at fault, and why.
pub fn check(report: &Report) -> Result<(), String> {
    if report.parts.is_empty() {
        return Err("parts: empty: nothing was measured".into());
    }
    if let Some(counting) = report.counting.as_ref().filter(|counting| counting.version != COUNTING_VERSION) {
        let found = counting.version;
        return Err(format!("counting.version: {found}; this program reads version {COUNTING_VERSION}"));
    }
    rows(report)?;
    unique(report.parts.iter().map(|part| part.name.as_str()), "parts", "part")?;
    unique(report.models.iter().map(|model| model.name.as_str()), "models", "model")?;
    for (index, model) in report.models.iter().enumerate() {
        if model.tokens.len() != report.parts.len() {
            let (found, parts) = (model.tokens.len(), report.parts.len());
            return Err(format!("models[{index}].tokens: {found} numbers for {parts} parts"));
        }
    }
    report.machine.limits.as_ref().map_or(Ok(()), limits)?;
    for (index, part) in report.parts.iter().enumerate() {
        let place = format!("parts[{index}].runs");
        let Some(first) = part.runs.first() else {
            return Err(format!("{place}: empty: part {} was never run", quoted(&part.name)));
        };
        for (number, run) in part.runs.iter().enumerate() {
            let place = format!("{place}[{number}]");
            methods(run, &place)?;
            tree(run, &place)?;
            same_methods(first, run, &place)?;
        }
    }
    Ok(())
}

fn rows(report: &Report) -> Result<(), String> {
    let runs = report.parts.iter().flat_map(|part| &part.runs);
    let rows: usize = runs.map(|run| run.methods.len() + run.tree.len() + run.timeline.len()).sum();
    if rows > MAX_ROWS { Err(format!("parts: {rows} rows in all, more than {MAX_ROWS}")) } else { Ok(()) }
}

/// Names, of which each must be there and stand once.
fn unique<'a>(names: impl Iterator<Item = &'a str>, place: &str, what: &str) -> Result<(), String> {
    let mut seen = HashMap::new();
    for (index, name) in names.enumerate() {
        if name.is_empty() {
            return Err(format!("{place}[{index}].name: empty"));
        }
        if let Some(first) = seen.insert(name, index) {
            let name = quoted(name);
            return Err(format!(
                "{place}[{index}].name: the {what} {name} stands at {place}[{first}] already"
            ));
        }
    }
    Ok(())
}

fn limits(limits: &Limits) -> Result<(), String> {
    let figures =
        limits.levels.iter().enumerate().map(|(index, level)| (format!("levels[{index}].gbps"), level.gbps));
    for (name, figure) in std::iter::once(("fma_gflops".to_owned(), limits.fma_gflops)).chain(figures) {
        if !figure.is_finite() || figure < 0.0 {
            return Err(format!("machine.limits.{name}: {figure} is no speed"));
        }
    }
    Ok(())
}

fn methods(run: &Run, place: &str) -> Result<(), String> {
    let place = format!("{place}.methods");
    unique(run.methods.iter().map(|method| method.name.as_str()), &place, "method")?;
    for (index, method) in run.methods.iter().enumerate() {
        let place = format!("{place}[{index}]");
        if method.parent.is_some() {
            return Err(format!("{place}.parent: {}: only places of the tree have one", shown(method)));
        }
        times(method, &place)?;
    }
    Ok(())
}

/// The shortest, mean and longest call must be in order, and nothing can be longer than what it is a part of.
fn times(method: &Method, place: &str) -> Result<(), String> {
    let Method { calls, total_ns, self_ns, min_ns, mean_ns, max_ns, .. } = *method;
    let name = shown(method);
    if calls == 0 && total_ns > 0 {
        return Err(format!("{place}.calls: {name} took {total_ns} ns in 0 calls"));
    }
    if self_ns > total_ns {
        return Err(format!("{place}.self_ns: {name}: {self_ns} is more than the total of {total_ns}"));
    }
    // Whole nanoseconds may be rounded one way or the other.
    if calls > 0 && min_ns > mean_ns.saturating_add(1) {
        return Err(format!("{place}.min_ns: {name}: {min_ns} is more than the mean of {mean_ns}"));
    }
    if calls > 0 && mean_ns > max_ns.saturating_add(1) {
        return Err(format!("{place}.mean_ns: {name}: {mean_ns} is more than the longest of {max_ns}"));
    }
    Ok(())
}

fn tree(run: &Run, place: &str) -> Result<(), String> {
    let known: HashSet<&str> = run.methods.iter().map(|method| method.name.as_str()).collect();
    for (index, node) in run.tree.iter().enumerate() {
        let place = format!("{place}.tree[{index}]");
        if node.name.is_empty() {
            return Err(format!("{place}.name: empty"));
        }
        let depth = match node.parent {
            None => 0,
            Some(parent) if parent < index => run.tree[parent].depth + 1,
            Some(parent) => {
                let places = run.tree.len();
                let why = if parent < places { "stands after it" } else { "is not there" };
                return Err(format!("{place}.parent: {}: {parent} {why} ({places} places)", shown(node)));
            }
        };
        if node.depth != depth {
            let name = shown(node);
            return Err(format!("{place}.depth: {name}: {} where its callers make {depth}", node.depth));
        }
        if !known.contains(node.name.as_str()) {
            return Err(format!("{place}.name: {} is missing from methods", shown(node)));
        }
        times(node, &place)?;
    }
    Ok(())
}

/// Every run did the same work, so one that lacks a method lost it.
fn same_methods(first: &Run, run: &Run, place: &str) -> Result<(), String> {
    let names =
        |run: &Run| -> HashSet<String> { run.methods.iter().map(|method| method.name.clone()).collect() };
    let (expected, found) = (names(first), names(run));
    let by = |missing: Option<&String>, whom: &str| match missing {
        Some(name) => Err(format!("{place}.methods: {} is missing, which {whom} has", quoted(name))),
        None => Ok(()),
    };
    by(expected.difference(&found).min(), "the first run")?;
    match found.difference(&expected).min() {
        Some(name) => Err(format!("{place}.methods: {} is not in the first run", quoted(name))),
        None => Ok(()),
    }
}

fn shown(method: &Method) -> String {
    quoted(&method.name)
}
