//! A Markdown page cut into its title, facts (`- **Key:** value`) and tables, each with its line and headings.
//! Cells come as plain text: without backticks, emphasis and escapes.

use super::number::{Number, Unit};

/// The most lines a page may have.
const MAX_LINES: usize = 1_000_000;

/// A page.
#[derive(Debug, Default)]
pub struct Page {
    title: Option<(usize, String)>,
    /// Lines of "key: value", in a list or not.
    pub facts: Vec<Fact>,
    /// Its tables.
    pub tables: Vec<Table>,
}

/// A line that gives one figure a name.
#[derive(Debug)]
pub struct Fact {
    /// Its line.
    pub line: usize,
    /// Its name, in lower case.
    pub key: String,
    /// The text behind the colon.
    pub value: String,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Line of its header.
    pub line: usize,
    /// The heading of second level above it.
    pub section: String,
    /// The heading of third level above it, empty where there is none in the section.
    pub subsection: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, each with its line and as many cells as there are columns.
    pub rows: Vec<(usize, Vec<String>)>,
}

/// A column's heading: `Total Time (ms)` and `total ms` are "total time" and "total", in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// In lower case, the unit left out.
    pub name: String,
    /// The unit of its cells.
    pub unit: Unit,
    /// The heading as it stands.
    pub heading: String,
}

impl Page {
    /// Cuts a page up.
    ///
    /// # Errors
    /// The line of a table that isn't whole.
    pub fn parse(text: &str) -> Result<Page, String> {
        let mut page = Page::default();
        let (mut section, mut subsection) = (String::new(), String::new());
        let mut lines =
            text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line)).peekable();
        let mut fenced = false;
        while let Some((number, line)) = lines.next() {
            if number > MAX_LINES {
                return Err(format!("more than {MAX_LINES} lines, so not a profile of this tool"));
            }
            if line.starts_with("```") {
                fenced = !fenced;
            } else if fenced {
            } else if let Some(heading) = line.strip_prefix("### ") {
                subsection = plain(heading);
            } else if let Some(heading) = line.strip_prefix("## ") {
                (section, subsection) = (plain(heading), String::new());
            } else if let Some(heading) = line.strip_prefix("# ") {
                if let Some((first, _)) = page.title {
                    return Err(format!("line {number}: a second title; the first stands in line {first}"));
                }
                page.title = Some((number, plain(heading)));
            } else if line.starts_with('|') {
                let mut table = Table::begin(number, line, lines.next())?;
                (table.section, table.subsection) = (section.clone(), subsection.clone());
                while let Some((number, line)) =
                    lines.next_if(|(_, line)| !line.is_empty() && !line.starts_with('#'))
                {
                    table.push(number, line)?;
                }
                page.tables.push(table);
            } else if let Some((key, value)) = fact(line) {
                page.facts.push(Fact { line: number, key, value });
            }
        }
        Ok(page)
    }

    /// The title with its line.
    ///
    /// # Errors
    /// There is none.
    pub fn title(&self) -> Result<(usize, &str), String> {
        let none = || "line 1: no title: not a profile".to_owned();
        self.title.as_ref().map(|(line, title)| (*line, title.as_str())).ok_or_else(none)
    }

    /// The only fact of this name.
    ///
    /// # Errors
    /// It stands there twice.
    pub fn fact(&self, key: &str) -> Result<Option<&Fact>, String> {
        let mut facts = self.facts.iter().filter(|fact| fact.key == key);
        let first = facts.next();
        match (first, facts.next()) {
            (Some(first), Some(second)) => {
                Err(format!("line {}: {key:?} a second time; the first is line {}", second.line, first.line))
            }
            _ => Ok(first),
        }
    }
}

impl Table {
    fn begin(line: usize, header: &str, rule: Option<(usize, &str)>) -> Result<Table, String> {
        let columns: Vec<Column> = cells(header).iter().map(|heading| Column::of(heading)).collect();
        let is_rule = |cell: &String| {
            let dashes = cell.trim_matches(':');
            !dashes.is_empty() && dashes.bytes().all(|byte| byte == b'-')
        };
        match rule.map(|(_, rule)| raw_cells(rule)) {
            Some(cells) if cells.len() == columns.len() && cells.iter().all(is_rule) => Ok(Table {
                line,
                section: String::new(),
                subsection: String::new(),
                columns,
                rows: Vec::new(),
            }),
            _ => Err(format!(
                "line {}: no rule of {} columns below the header of a table",
                line + 1,
                columns.len()
            )),
        }
    }

    fn push(&mut self, line: usize, row: &str) -> Result<(), String> {
        if !row.starts_with('|') {
            return Err(format!("line {line}: {} ends no table: a row begins with '|'", quoted(row)));
        }
        let cells = cells(row);
        if cells.len() != self.columns.len() {
            let (found, columns) = (cells.len(), self.columns.len());
            return Err(format!("line {line}: {found} cells in a table of {columns} columns"));
        }
        self.rows.push((line, cells));
        Ok(())
    }

    /// The index of the only column that `wanted` holds for.
    ///
    /// # Errors
    /// There are two.
    pub fn column(&self, wanted: impl Fn(&Column) -> bool) -> Result<Option<usize>, String> {
        let mut found = (0..self.columns.len()).filter(|&index| wanted(&self.columns[index]));
        let first = found.next();
        match (first, found.next()) {
            (Some(first), Some(second)) => Err(format!(
                "line {}: the columns {} and {} say the same",
                self.line,
                quoted(&self.columns[first].heading),
                quoted(&self.columns[second].heading)
            )),
            _ => Ok(first),
        }
    }

    /// The index of the column of this name without a unit.
    ///
    /// # Errors
    /// There are two.
    pub fn named(&self, name: &str) -> Result<Option<usize>, String> {
        self.column(|column| column.name == name && column.unit == Unit::None)
    }

    /// The number in a cell.
    ///
    /// # Errors
    /// It is none; with line and column.
    pub fn number(&self, row: &(usize, Vec<String>), column: usize) -> Result<Option<Number>, String> {
        let head = &self.columns[column];
        super::number::parse(&row.1[column], head.unit)
            .map_err(|why| format!("line {}: {}: {why}", row.0, quoted(&head.heading)))
    }

    /// The whole number in a cell, 0 where there is nothing.
    ///
    /// # Errors
    /// It is none; with line and column.
    pub fn count(&self, row: &(usize, Vec<String>), column: usize) -> Result<u64, String> {
        let number = self.number(row, column)?.map_or(0.0, |number| number.value);
        if number.fract() == 0.0 {
            return Ok(number as u64);
        }
        let head = quoted(&self.columns[column].heading);
        Err(format!("line {}: {head}: {} is no whole number", row.0, quoted(&row.1[column])))
    }
}

impl Column {
    /// A heading or the name of a metric taken apart.
    pub fn of(heading: &str) -> Column {
        let flat: String = heading.chars().map(|c| if matches!(c, '(' | ')') { ' ' } else { c }).collect();
        let mut words: Vec<&str> = flat.split_whitespace().collect();
        let unit = words.last().and_then(|word| Unit::of(word)).filter(|unit| *unit != Unit::Percent);
        if unit.is_some() {
            words.pop();
        }
        let name = words.join(" ").to_lowercase();
        Column { name, unit: unit.unwrap_or(Unit::None), heading: heading.to_owned() }
    }
}

/// A text from a file for a message: short, on one line and in quotation marks.
pub fn quoted(text: &str) -> String {
    crate::error::quoted(text)
}

/// "- **Key:** value", "**Key:** value" or "- key: value".
fn fact(line: &str) -> Option<(String, String)> {
    let item = line.strip_prefix("- ");
    if item.is_none() && !line.starts_with("**") {
        return None;
    }
    let (key, value) = item.unwrap_or(line).split_once(':')?;
    let key = key.trim().trim_start_matches("**").to_lowercase();
    let value = plain(value.trim().strip_prefix("**").unwrap_or(value));
    (key.split_whitespace().count() <= 3).then_some((key, value))
}

/// The cells of a row as they stand.
fn raw_cells(row: &str) -> Vec<String> {
    let inner = row.strip_prefix('|').unwrap_or(row);
    let mut cells = vec![String::new()];
    let mut escaped = false;
    for c in inner.chars() {
        if c == '|' && !escaped {
            cells.push(String::new());
        } else if let Some(cell) = cells.last_mut() {
            cell.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    // Nothing but space behind the last bar is no cell.
    if cells.len() > 1 && cells.last().is_some_and(|cell| cell.trim().is_empty()) {
        cells.pop();
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

fn cells(row: &str) -> Vec<String> {
    raw_cells(row).iter().map(|cell| plain(cell)).collect()
}

/// Text without marks around it and backslashes in it.
fn plain(text: &str) -> String {
    let mut text = text.trim();
    for mark in ["**", "*"] {
        let inner = text.strip_prefix(mark).and_then(|text| text.strip_suffix(mark));
        text = inner.filter(|inner| !inner.is_empty() && !inner.ends_with('\\')).unwrap_or(text);
    }
    if let Some(code) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
        // In code only a bar is escaped, for the table's sake.
        return code.replace("\\|", "|");
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(&next) if c == '\\' && next.is_ascii_punctuation() => {
                out.push(next);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_falls_into_its_pieces() {
        let text = "# A title\n\n- **Total Runtime:** 5.00 ms\n- mode: deep\n**Made:** now\n\n## One\n### Two\n\
                    | Rank | Method | Time (ms) |\n|---:|:---|---|\n| 1 | `a_b` | 2.5 |\n| 2 | x\\|y\\* | **3** |\n\n\
                    ```\n| not | a table |\n```\n## Three\n| metric | MB |\n|---|---|\n";
        let page = Page::parse(text).unwrap();
        assert_eq!(page.title().unwrap(), (1, "A title"));
        let facts: Vec<_> = page.facts.iter().map(|fact| (fact.line, &*fact.key, &*fact.value)).collect();
        assert_eq!(facts, [(3, "total runtime", "5.00 ms"), (4, "mode", "deep"), (5, "made", "now")]);
        let [table, empty] = &page.tables[..] else { panic!("{:?}", page.tables) };
        assert_eq!((table.line, &*table.section, &*table.subsection), (9, "One", "Two"));
        let names: Vec<_> = table.columns.iter().map(|column| (&*column.name, column.unit)).collect();
        assert_eq!(names, [("rank", Unit::None), ("method", Unit::None), ("time", Unit::Time(1_000_000))]);
        let rows: Vec<_> = table.rows.iter().map(|(line, cells)| (*line, cells.join(","))).collect();
        assert_eq!(rows, [(11, "1,a_b,2.5".to_owned()), (12, "2,x|y*,3".to_owned())]);
        assert_eq!((&*empty.section, &*empty.subsection, empty.rows.len()), ("Three", "", 0));
        assert_eq!((&*empty.columns[1].name, empty.columns[1].unit), ("", Unit::Bytes(1 << 20)));
    }

    #[test]
    fn a_broken_table_is_told_by_its_line() {
        for (text, fault) in [
            ("# T\n| a | b |\n| 1 | 2 |\n", "line 3: no rule of 2 columns"),
            ("# T\n| a | b |\n|---|\n", "line 3: no rule of 2 columns"),
            ("# T\n| a | b |", "line 3: no rule of 2 columns"),
            ("# T\n| a | b |\n|---|---|\n| 1 | 2 | 3 |\n", "line 4: 3 cells in a table of 2 columns"),
            ("# T\n| a | b |\n|---|---|\n| 1 |\n", "line 4: 1 cells in a table of 2 columns"),
            ("# T\n| a | b |\n|---|---|\n| 1 | 2 |\n 3 | 4 |\n", "line 5: \"3 | 4 |\" ends no table"),
            ("# T\n# U\n", "line 2: a second title"),
        ] {
            let error = Page::parse(text).unwrap_err();
            assert!(error.starts_with(fault), "{text:?}: {error}");
        }
        assert!(Page::parse("text").unwrap().title().unwrap_err().contains("not a profile"));
    }
}
