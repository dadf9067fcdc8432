//! The predecessor's Markdown pages: `Hot Paths` has the times, `Top Allocators` what was allocated. A page is of one
//! run. It read its clock again for each statistic; where its total is a sum over nested scopes, that is no wall time.

use std::collections::HashMap;

use smallmind::report::data::{FORMAT, Method, ModelSpec, Part, Report, Run, VERSION};
use smallmind::report::read::methods::{self, Kind, Row};
use smallmind::report::read::number::{self, Number, Unit};
use smallmind::report::read::page::{Fact, Page, Table, quoted};
use smallmind::report::read::{Dialect, Read};

/// The titles of its pages: one mode has one of its own, all others share the second.
const TITLES: [&str; 2] = ["Enhanced Performance Profile Report", "Performance Profile Report"];
/// The part of ours that does the same work.
const PART: &str = "same work";
/// The most rows that its tables of times were made with.
const CUTS: [u64; 2] = [20, 30];

/// The layout of its pages.
pub struct Pages;

impl Dialect for Pages {
    fn name(&self) -> &'static str {
        "predecessor"
    }

    fn titles(&self) -> &[&str] {
        &TITLES
    }

    fn parse(&self, page: &Page, title: &str) -> Result<Read, String> {
        parse(page, title)
    }
}

fn parse(page: &Page, title: &str) -> Result<Read, String> {
    let summary = Summary::of(page)?;
    let hot = table(page, "Hot Paths")?.ok_or("no section \"Hot Paths\": not a profile")?;
    let mut rows = methods::rows(hot, Kind::TimesOfOneRun)?;
    let mut notes = Vec::new();
    complete(&summary, hot, &rows, &mut notes)?;
    if let Some(table) = table(page, "Top Allocators")? {
        allocations(&mut rows, methods::rows(table, Kind::Allocations)?, &mut notes)?;
    }
    order(&mut rows, &mut notes);
    let nested: f64 = rows.iter().map(|row| row.method.total_ns as f64).sum();
    // Both come from a page with two digits.
    let is_sum = (nested - summary.total.value).abs() <= 0.005 * nested + summary.total.rounding;
    let total_ns = summary.total.value.round() as u64;
    let rounding_ns = rows.iter().map(|row| ((0, row.method.name.clone()), row.rounding_ns)).collect();
    let mut run = Run {
        wall_ns: if is_sum { 0 } else { total_ns },
        alloc_bytes: if is_sum { 0 } else { summary.allocated.value.round() as u64 },
        methods: rows.into_iter().map(|row| row.method).collect(),
        ..Run::default()
    };
    declare_work(&mut run.methods);
    let inside = inside(&run.methods);
    if is_sum {
        notes.push(
            "its totals of time and allocations are sums over nested scopes, which count the same work up to \
             three times: they can't be compared with wall time and allocations of the process"
                .into(),
        );
    }
    let report = Report {
        format: FORMAT.into(),
        version: VERSION,
        created: summary.created,
        mode: if title == TITLES[0] { "enhanced" } else { "standard or deep" }.into(),
        machine: Default::default(),
        models: models(&run),
        parts: vec![Part { name: PART.into(), about: String::new(), runs: vec![run] }],
        counting: None,
    };
    Ok(Read {
        rounding_ns,
        nested_total_ns: is_sum.then_some(total_ns),
        inside,
        allocations_counted: false,
        notes,
        ..Read::page(report)
    })
}

/// The figures at its head: in a list, or in a table of metric and value.
struct Summary {
    created: String,
    total: Number,
    allocated: Number,
    methods: Option<(usize, u64)>,
}

impl Summary {
    fn of(page: &Page) -> Result<Summary, String> {
        let facts = Facts::of(page)?;
        let needed = |key: &str, unit: Unit| {
            facts
                .number(key, unit)?
                .map(|(_, number)| number)
                .ok_or_else(|| format!("no {key:?} in the summary"))
        };
        let methods = facts.number("methods profiled", Unit::None)?.or(facts.number("methods", Unit::None)?);
        Ok(Summary {
            created: facts.text("generated"),
            total: needed("total runtime", Unit::Time(1_000_000))?,
            allocated: needed("total allocations", Unit::Bytes(1 << 20))?,
            methods: methods.map(|(line, number)| (line, number.value as u64)),
        })
    }
}

/// Facts by their key, wherever they stand.
struct Facts<'a>(HashMap<String, (usize, &'a str)>);

impl<'a> Facts<'a> {
    fn of(page: &'a Page) -> Result<Facts<'a>, String> {
        let mut facts = Facts(HashMap::new());
        for table in &page.tables {
            if let (Some(metric), Some(value)) = (table.named("metric")?, table.named("value")?) {
                for (line, cells) in &table.rows {
                    facts.add(cells[metric].to_lowercase(), *line, &cells[value])?;
                }
            }
        }
        for Fact { line, key, value } in &page.facts {
            if matches!(
                &**key,
                "generated" | "total runtime" | "total allocations" | "methods profiled" | "methods"
            ) {
                facts.add(key.clone(), *line, value)?;
            }
        }
        Ok(facts)
    }

    fn add(&mut self, key: String, line: usize, value: &'a str) -> Result<(), String> {
        match self.0.get(&key) {
            Some((first, _)) => {
                Err(format!("line {line}: {} a second time; the first is line {first}", quoted(&key)))
            }
            None => {
                self.0.insert(key, (line, value));
                Ok(())
            }
        }
    }

    fn number(&self, key: &str, unit: Unit) -> Result<Option<(usize, Number)>, String> {
        let Some(&(line, text)) = self.0.get(key) else { return Ok(None) };
        let number = number::parse(text, unit).map_err(|why| format!("line {line}: {key}: {why}"))?;
        Ok(number.map(|number| (line, number)))
    }

    fn text(&self, key: &str) -> String {
        self.0.get(key).map_or(String::new(), |(_, text)| (*text).to_owned())
    }
}

/// The only table in the section whose heading contains these words.
fn table<'a>(page: &'a Page, words: &str) -> Result<Option<&'a Table>, String> {
    let mut tables = page.tables.iter().filter(|table| table.section.contains(words));
    let first = tables.next();
    match (first, tables.next()) {
        (Some(first), Some(second)) => {
            Err(format!("line {}: a second table of {words}; the first is line {}", second.line, first.line))
        }
        _ => Ok(first),
    }
}

/// Compares the number of rows with that in the summary. Only a full table may leave methods out, which a note says.
fn complete(summary: &Summary, table: &Table, rows: &[Row], notes: &mut Vec<String>) -> Result<(), String> {
    let Some((line, methods)) = summary.methods else { return Ok(()) };
    let found = rows.len() as u64;
    if methods == found {
        return Ok(());
    }
    if methods > found && CUTS.contains(&found) {
        notes.push(format!("{found} of {methods} methods are on the page; nothing is known of the others"));
        return Ok(());
    }
    Err(format!(
        "line {}: {found} methods where line {line} says {methods}: rows are missing or too many",
        table.line
    ))
}

/// Adds the bytes of `Top Allocators`, and checks that both tables say the same.
fn allocations(rows: &mut [Row], allocators: Vec<Row>, notes: &mut Vec<String>) -> Result<(), String> {
    let places: HashMap<String, usize> =
        rows.iter().enumerate().map(|(index, row)| (row.method.name.clone(), index)).collect();
    for allocator in allocators {
        let name = quoted(&allocator.method.name);
        let Some(&index) = places.get(&allocator.method.name) else {
            notes.push(format!("{name} stands among the allocators only: nothing is known of its time"));
            continue;
        };
        let row = &mut rows[index];
        let (line, calls, bytes) = (allocator.line, allocator.method.calls, allocator.allocated);
        if calls != row.method.calls {
            return Err(format!(
                "line {line}: {calls} calls of {name}, {} in line {}",
                row.method.calls, row.line
            ));
        }
        if let (Some(here), Some(there)) = (bytes, row.allocated) {
            let rounding = here.rounding + there.rounding + 1.0;
            if (here.value - there.value).abs() > rounding {
                return Err(format!("line {line}: allocations of {name} are not those of line {}", row.line));
            }
        }
        row.method.alloc_bytes = allocator.method.alloc_bytes;
        row.allocated = bytes;
    }
    Ok(())
}

/// Its clock was read again for each statistic, so that a shortest call can be longer than the mean: such a call is
/// taken to be as long as the mean, which a note says.
fn order(rows: &mut [Row], notes: &mut Vec<String>) {
    for Row { line, method, .. } in rows {
        let (min, max) = (method.min_ns, method.max_ns);
        if min > method.mean_ns || (max > 0 && max < method.mean_ns) {
            let name = quoted(&method.name);
            notes.push(format!(
                "line {line}: the mean call of {name} is not between the shortest and the longest"
            ));
        }
        method.min_ns = min.min(method.mean_ns);
        method.max_ns = max.max(method.mean_ns);
    }
}

/// The models that it profiled, whose sizes are known; each token was a call.
fn models(run: &Run) -> Vec<ModelSpec> {
    let calls = |name: &str| run.methods.iter().find(|method| method.name == name).map(|method| method.calls);
    let small = ModelSpec {
        name: "Small".into(),
        parameters: 470_528,
        tensors: 29,
        vocab: 256,
        context: 64,
        dim: 128,
        layers: 2,
        heads: 4,
        weight_bytes: 4 * 470_528,
        tokens: Vec::new(),
    };
    let medium = ModelSpec {
        name: "Medium".into(),
        parameters: 3_454_464,
        tensors: 53,
        vocab: 512,
        context: 128,
        dim: 256,
        layers: 4,
        heads: 8,
        weight_bytes: 4 * 3_454_464,
        tokens: Vec::new(),
    };
    let ran = |model: ModelSpec| {
        let tokens = calls(&format!("Model_{}_GenerateToken", model.name))?;
        Some(ModelSpec { tokens: vec![tokens], ..model })
    };
    [small, medium].into_iter().filter_map(ran).collect()
}

/// Whether a name is that of a group at one size, such as "MatMul_128x128".
fn is_size_of(name: &str, group: &str) -> bool {
    let size = name.strip_prefix(group).and_then(|rest| rest.strip_prefix('_'));
    size.is_some_and(|size| size.starts_with(|c: char| c.is_ascii_digit()))
}

/// Which methods run inside of which, going by their names: its pages have no call tree.
fn inside(methods: &[Method]) -> HashMap<String, Vec<String>> {
    let names = || methods.iter().map(|method| method.name.clone());
    let outer = |name: &str| -> Vec<String> {
        if let Some(group) = name.strip_suffix("_Iteration") {
            return names().filter(|other| is_size_of(other, group)).collect();
        }
        let model = ["GenerateToken", "Forward"].iter().find_map(|piece| name.strip_suffix(piece));
        model.map_or(Vec::new(), |model| {
            names().filter(|other| *other == format!("{model}Inference")).collect()
        })
    };
    names()
        .map(|name| {
            let outer = outer(&name);
            (name, outer)
        })
        .collect()
}

/// Declares the operations that follow from the names of methods: a scope holds all iterations and, for products, a
/// warm-up. Functions of which nobody says how many operations an element takes (GELU, softmax) declare nothing.
fn declare_work(methods: &mut [Method]) {
    let counts: Vec<(String, u64)> =
        methods.iter().map(|method| (method.name.clone(), method.calls)).collect();
    for method in methods {
        if let Some(flops) = work(&method.name, method.calls, &counts) {
            method.flops = flops.round() as u64;
        }
    }
}

/// Operations of all calls of a method such as "MatMul_128x128".
fn work(name: &str, calls: u64, counts: &[(String, u64)]) -> Option<f64> {
    let (group, size) = name.split_once('_')?;
    let sizes: Vec<f64> =
        size.split('x').map(|size| size.parse::<u32>().ok().map(f64::from)).collect::<Option<_>>()?;
    let iterations = iterations(group, counts)?;
    let once = match (group, &sizes[..]) {
        ("MatMul", [rows, columns]) if rows == columns => 2.0 * rows.powi(3) * (iterations + 1.0),
        ("TensorAdd" | "TensorMul", [elements]) => elements * iterations,
        ("BroadcastAdd", [rows, columns]) => rows * columns * iterations,
        _ => return None,
    };
    Some(once * calls as f64)
}

/// Iterations in one scope of a group: those of all scopes, over the number of scopes.
fn iterations(group: &str, counts: &[(String, u64)]) -> Option<f64> {
    let all = counts.iter().find(|(name, _)| name.strip_prefix(group) == Some("_Iteration"))?.1;
    let scopes: u64 = counts.iter().filter(|(name, _)| is_size_of(name, group)).map(|(_, calls)| calls).sum();
    (scopes > 0).then(|| all as f64 / scopes as f64)
}
