//! A Markdown page of our own: the parts that its summary has columns for, each with its table of all methods.

use std::collections::HashMap;

use super::Read;
use super::methods::{self, Kind};
use super::number::{self, Number};
use super::page::{Column, Page, Table};
use crate::error::quoted;
use crate::report::data::{FORMAT, Machine, ModelSpec, Part, Report, Run, VERSION};

/// How its title begins; the mode follows.
pub(super) const TITLE: &str = "Profile:";
/// How the section of a part begins; its name follows.
const PART: &str = "Part:";
/// The tables that a part's methods are read from, the fuller first.
const TABLES: [&str; 2] = ["All Methods", "Hot Paths"];

/// One part's column of the summary: figures by the name of the metric.
type Figures = HashMap<String, Option<Number>>;

pub(super) fn parse(page: &Page, mode: &str) -> Result<Read, String> {
    let created = page.fact("generated")?.map_or(String::new(), |fact| fact.value.clone());
    let summary = summary(page)?;
    let sections = sections(page);
    let mut rounding_ns = HashMap::new();
    let mut notes = Vec::new();
    let mut parts = Vec::with_capacity(summary.len());
    for (index, (name, figures)) in summary.iter().enumerate() {
        if !sections.contains(&name.as_str()) {
            return Err(format!("no section \"{PART} {name}\", which the summary has a column for"));
        }
        let rows = methods::rows(table_of(page, name)?, Kind::Times)?;
        let figure =
            |metric: &str| figures.get(metric).copied().flatten().map(|number| number.value.round() as u64);
        if let Some(expected) = figure("methods").filter(|&expected| expected != rows.len() as u64) {
            let found = rows.len();
            return Err(format!(
                "the part {}: {found} methods of {expected}: rows are missing or too many",
                quoted(name)
            ));
        }
        if let Some(runs) = figure("runs").filter(|&runs| runs > 1) {
            notes.push(format!(
                "the page has medians of {runs} runs of {}, not the runs: nothing tells their noise",
                quoted(name)
            ));
        }
        let needed = |metric: &str| {
            figure(metric).ok_or_else(|| format!("the summary has no {metric:?} of {}", quoted(name)))
        };
        rounding_ns.extend(rows.iter().map(|row| ((index, row.method.name.clone()), row.rounding_ns)));
        let run = Run {
            wall_ns: needed("wall")?,
            dropped: figure("scopes dropped or unbalanced").unwrap_or(0),
            alloc_bytes: figure("allocated").unwrap_or(0),
            alloc_count: figure("allocations").unwrap_or(0),
            peak_bytes: figure("peak").unwrap_or(0),
            methods: rows.into_iter().map(|row| row.method).collect(),
            ..Run::default()
        };
        parts.push(Part { name: name.clone(), about: String::new(), runs: vec![run] });
    }
    if let Some(extra) = sections.iter().find(|section| !summary.iter().any(|(name, _)| name == *section)) {
        return Err(format!("the section \"{PART} {extra}\" has no column in the summary"));
    }
    let models = models(page, &parts)?;
    let report = Report {
        format: FORMAT.into(),
        version: VERSION,
        created,
        mode: mode.into(),
        machine: machine(page)?,
        models,
        parts,
        counting: None,
    };
    Ok(Read { rounding_ns, notes, ..Read::page(report) })
}

/// The names of the parts that have sections, each once, in their order.
fn sections(page: &Page) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for table in &page.tables {
        let name = table.section.strip_prefix(PART).map(str::trim);
        names.extend(name.filter(|name| names.last() != Some(name)));
    }
    names
}

/// The only table with this section and a column of that name.
fn only<'a>(page: &'a Page, section: &str, column: &str) -> Result<Option<&'a Table>, String> {
    let has = |table: &&Table| table.columns.iter().any(|other| other.name == column);
    let mut tables = page.tables.iter().filter(|table| table.section == section).filter(has);
    let first = tables.next();
    match (first, tables.next()) {
        (Some(first), Some(second)) => Err(format!(
            "line {}: a second table of {column:?}; the first is line {}",
            second.line, first.line
        )),
        _ => Ok(first),
    }
}

fn summary(page: &Page) -> Result<Vec<(String, Figures)>, String> {
    let Some(table) = only(page, "Summary", "metric")? else {
        return Err("no summary with a table of metrics: not a profile".into());
    };
    let metric = table.named("metric")?.unwrap_or(0);
    let mut parts: Vec<(String, Figures)> = Vec::new();
    for (index, column) in table.columns.iter().enumerate().filter(|(index, _)| *index != metric) {
        if parts.iter().any(|(name, _)| *name == column.heading) {
            return Err(format!("line {}: two columns for the part {}", table.line, quoted(&column.heading)));
        }
        let mut figures = Figures::new();
        for (line, cells) in &table.rows {
            let Column { name, unit, heading } = Column::of(&cells[metric]);
            let number =
                number::parse(&cells[index], unit).map_err(|why| format!("line {line}: {heading}: {why}"))?;
            if figures.insert(name, number).is_some() {
                return Err(format!("line {line}: {heading}: a second time"));
            }
        }
        parts.push((column.heading.clone(), figures));
    }
    Ok(parts)
}

fn table_of<'a>(page: &'a Page, part: &str) -> Result<&'a Table, String> {
    let own = |table: &&Table| table.section.strip_prefix(PART).map(str::trim) == Some(part);
    for title in TABLES {
        let mut tables = page.tables.iter().filter(own).filter(|table| table.subsection == title);
        match (tables.next(), tables.next()) {
            (Some(first), Some(second)) => {
                return Err(format!(
                    "line {}: a second table {title:?}; the first is line {}",
                    second.line, first.line
                ));
            }
            (Some(table), None) => return Ok(table),
            _ => {}
        }
    }
    Err(format!("the part {} has no table {:?}", quoted(part), TABLES[0]))
}

fn machine(page: &Page) -> Result<Machine, String> {
    let mut machine = Machine::default();
    let Some(table) = only(page, "System Information", "machine")? else { return Ok(machine) };
    let (Some(what), Some(value)) = (table.named("machine")?, table.named("value")?) else {
        return Ok(machine);
    };
    for row in &table.rows {
        let text = if row.1[value] == "–" { String::new() } else { row.1[value].clone() };
        match row.1[what].as_str() {
            "CPU" => machine.cpu = text,
            "system" => machine.os = text,
            "instruction set" => machine.isa = text,
            "version" => machine.version = text,
            "commit" => machine.commit = text,
            "threads" => machine.threads = table.count(row, value)? as usize,
            "hardware threads" => machine.cores = table.count(row, value)? as usize,
            _ => {}
        }
    }
    Ok(machine)
}

fn models(page: &Page, parts: &[Part]) -> Result<Vec<ModelSpec>, String> {
    let Some(table) = only(page, "Models", "parameters")? else { return Ok(Vec::new()) };
    let column = |name: &str| {
        let missing = || format!("line {}: no column {name:?}", table.line);
        table.column(|column| column.name == name)?.ok_or_else(missing)
    };
    let name = column("model")?;
    let sizes = ["parameters", "tensors", "vocab", "context", "dim", "layers", "heads"];
    let mut models = Vec::new();
    for row in &table.rows {
        let mut figures = [0; 7];
        for (figure, size) in figures.iter_mut().zip(sizes) {
            *figure = table.count(row, column(size)?)?;
        }
        let [parameters, tensors, vocab, context, dim, layers, heads] = figures;
        let weights = table.number(row, column("weights")?)?;
        models.push(ModelSpec {
            name: row.1[name].clone(),
            parameters,
            tensors,
            vocab,
            context,
            dim,
            layers,
            heads,
            weight_bytes: weights.map_or(0, |bytes| bytes.value.round() as u64),
            tokens: vec![0; parts.len()],
        });
    }
    tokens(page, parts, &mut models)?;
    Ok(models)
}

/// Tokens of each model in each part, from the table of rates.
fn tokens(page: &Page, parts: &[Part], models: &mut [ModelSpec]) -> Result<(), String> {
    let Some(table) = only(page, "Models", "part")? else { return Ok(()) };
    let (Some(model), Some(part), Some(tokens)) =
        (table.named("model")?, table.named("part")?, table.named("tokens")?)
    else {
        return Ok(());
    };
    for row in &table.rows {
        let found = models.iter_mut().find(|known| known.name == row.1[model]);
        let index = parts.iter().position(|known| known.name == row.1[part]);
        let (Some(found), Some(index)) = (found, index) else {
            let pair = format!("{} in {}", row.1[model], row.1[part]);
            return Err(format!("line {}: {}: no such model or part", row.0, quoted(&pair)));
        };
        if std::mem::replace(&mut found.tokens[index], table.count(row, tokens)?) != 0 {
            return Err(format!("line {}: a model's tokens of a part a second time", row.0));
        }
    }
    Ok(())
}
