//! Tables of methods: columns are found by their headings, in any order, and every row becomes a method.

use std::collections::HashMap;

use super::number::{Number, Unit};
use super::page::{Column, Table};
use crate::error::quoted;
use crate::report::data::Method;

/// A row of a table of methods.
#[derive(Debug)]
pub struct Row {
    /// Its line.
    pub line: usize,
    /// The method; figures that the table lacks are 0.
    pub method: Method,
    /// How far the total may be off, in nanoseconds.
    pub rounding_ns: f64,
    /// Bytes allocated, where the table has them.
    pub allocated: Option<Number>,
}

/// The kind of a table of methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Times of a page of ours: totals and means are medians of several runs, each for itself.
    Times,
    /// Times of one run: the mean times the calls is the total.
    TimesOfOneRun,
    /// Bytes allocated.
    Allocations,
}

/// Where the figures stand.
struct Columns {
    method: usize,
    rank: Option<usize>,
    total: Option<usize>,
    mean: Option<usize>,
    calls: Option<usize>,
    allocated: Option<usize>,
    counts: [Option<usize>; 2],
    times: [Option<usize>; 8],
    peak: Option<usize>,
    rates: [Option<usize>; 2],
}

/// The headings of [`Columns::times`], in its order.
const TIMES: [&str; 8] = ["self", "cpu", "min", "max", "std", "p50", "p95", "p99"];

impl Columns {
    fn of(table: &Table) -> Result<Columns, String> {
        let none = || format!("line {}: no column for the names of methods", table.line);
        let method = table.named("method")?.ok_or_else(none)?;
        let time = |names: &[&str]| {
            let named = |column: &Column| names.contains(&column.name.as_str());
            table.column(|column| matches!(column.unit, Unit::Time(_)) && named(column))
        };
        let bytes = |names: &[&str]| {
            let named = |column: &Column| names.contains(&column.name.as_str());
            table.column(|column| matches!(column.unit, Unit::Bytes(_)) && named(column))
        };
        let mut times = [None; 8];
        for (index, name) in TIMES.iter().enumerate() {
            times[index] = time(&[name])?;
        }
        Ok(Columns {
            method,
            rank: table.named("rank")?,
            total: time(&["total", "time", "total time"])?,
            mean: time(&["avg", "avg time", "mean"])?,
            calls: table.named("calls")?,
            allocated: bytes(&["", "alloc", "allocated", "total", "total alloc"])?,
            counts: [table.named("allocations")?, table.named("threads")?],
            times,
            peak: bytes(&["peak"])?,
            rates: [table.named("gflops")?, table.named("gb/s")?],
        })
    }
}

/// The rows of a table of methods.
///
/// # Errors
/// The line of a row that is doubled or missing, or of a figure that is none; the line of the header where a column
/// is missing.
pub fn rows(table: &Table, kind: Kind) -> Result<Vec<Row>, String> {
    let columns = Columns::of(table)?;
    let needed = |column: Option<usize>, what: &str| match column {
        Some(_) => Ok(()),
        None => Err(format!("line {}: no column for the {what} of methods", table.line)),
    };
    needed(columns.calls, "calls")?;
    match kind {
        Kind::Allocations => needed(columns.allocated, "bytes allocated")?,
        Kind::Times | Kind::TimesOfOneRun => needed(columns.total, "total time")?,
    }
    let mut lines: HashMap<&str, usize> = HashMap::new();
    let mut rows = Vec::with_capacity(table.rows.len());
    for (index, cells) in table.rows.iter().enumerate() {
        let (line, name) = (cells.0, cells.1[columns.method].as_str());
        if name.is_empty() {
            return Err(format!("line {line}: a method without a name"));
        }
        if let Some(first) = lines.insert(name, line) {
            return Err(format!("line {line}: the method {} stands in line {first} already", quoted(name)));
        }
        if let Some(rank) = columns.rank {
            let (rank, expected) = (table.count(cells, rank)?, index as u64 + 1);
            if rank != expected {
                return Err(format!(
                    "line {line}: rank {rank} where {expected} is due: a row is missing or doubled"
                ));
            }
        }
        rows.push(row(table, kind, &columns, cells).map_err(|why| format!("{why} ({})", quoted(name)))?);
    }
    Ok(rows)
}

fn row(table: &Table, kind: Kind, columns: &Columns, cells: &(usize, Vec<String>)) -> Result<Row, String> {
    let figure = |column: Option<usize>| match column {
        Some(column) => table.number(cells, column),
        None => Ok(None),
    };
    let amount = |column| Ok::<u64, String>(figure(column)?.map_or(0, |number| number.value.round() as u64));
    let calls = columns.calls.map_or(Ok(0), |column| table.count(cells, column))?;
    let (total, mean) = (figure(columns.total)?, figure(columns.mean)?);
    let line = cells.0;
    let (total, rounding_ns) = match (total, columns.total) {
        (Some(total), _) if kind == Kind::TimesOfOneRun => {
            finer(total, mean, calls).map_err(|why| format!("line {line}: {why}"))?
        }
        (Some(total), _) => (total.value, total.rounding),
        (None, Some(_)) => return Err(format!("line {line}: no time")),
        (None, None) => (0.0, 0.0),
    };
    let mut times = [0; TIMES.len()];
    for (time, &column) in times.iter_mut().zip(&columns.times) {
        *time = amount(column)?;
    }
    let [self_ns, cpu_ns, min_ns, max_ns, std_ns, p50_ns, p95_ns, p99_ns] = times;
    let [flops, bytes] = [figure(columns.rates[0])?, figure(columns.rates[1])?]
        .map(|rate| rate.map_or(0, |rate| (rate.value * total).round() as u64));
    let allocated = figure(columns.allocated)?;
    let method = Method {
        name: cells.1[columns.method].clone(),
        calls,
        threads: amount(columns.counts[1])? as usize,
        total_ns: total.round() as u64,
        cpu_ns,
        self_ns,
        min_ns,
        mean_ns: mean.map_or(0, |mean| mean.value.round() as u64),
        max_ns,
        std_ns,
        p50_ns,
        p95_ns,
        p99_ns,
        flops,
        bytes,
        alloc_bytes: allocated.map_or(0, |bytes| bytes.value.round() as u64),
        alloc_count: amount(columns.counts[0])?,
        peak_bytes: amount(columns.peak)?,
        ..Method::default()
    };
    Ok(Row { line, method, rounding_ns, allocated })
}

/// The total, or the mean times the calls where that is known to more digits; both say the same.
fn finer(total: Number, mean: Option<Number>, calls: u64) -> Result<(f64, f64), String> {
    let Some(mean) = mean.filter(|_| calls > 0) else { return Ok((total.value, total.rounding)) };
    let product = Number { value: mean.value * calls as f64, rounding: mean.rounding * calls as f64 };
    let apart = (product.value - total.value).abs() - product.rounding - total.rounding;
    // Each may come from a reading of the clock of its own.
    if apart > 0.05 * total.value.max(product.value) + 1e3 {
        return Err(format!(
            "{calls} calls of {:.6} ms on average are not {:.6} ms in all",
            mean.value / 1e6,
            total.value / 1e6
        ));
    }
    let finer = if product.rounding < total.rounding { product } else { total };
    Ok((finer.value, finer.rounding))
}
