//! Reading kept profiles back: our JSON and Markdown, and the Markdown of other tools ([`Dialect`]).
//! A file is read whole, or refused with the line or field at fault; nothing is left out without a note.

mod check;
mod json;
pub mod methods;
pub mod number;
mod ours;
pub mod page;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Report;
use crate::error::{Error, Result};

pub use check::check;

/// The largest file that is read.
const MAX_BYTES: u64 = 256 << 20;

/// Files of a profile's folder, the fuller first.
const IN_FOLDERS: [&str; 2] = ["report.json", "report.md"];

/// How a profile was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Our JSON: everything.
    Json,
    /// Our Markdown: one figure for all runs, no call tree.
    Markdown,
    /// Markdown of the tool of this name ([`Dialect::name`]).
    Dialect(&'static str),
}

impl Layout {
    /// Its name in JSON: "json", "markdown" or the tool's.
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Json => "json",
            Layout::Markdown => "markdown",
            Layout::Dialect(name) => name,
        }
    }
}

impl serde::Serialize for Layout {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How another tool writes its profiles as Markdown, for [`read_with`] and [`parse_with`].
pub trait Dialect {
    /// The tool, in a word.
    fn name(&self) -> &'static str;

    /// The titles that its pages may have.
    fn titles(&self) -> &[&str];

    /// The report on a page with one of these titles; [`Read::page`] fills the other fields. The caller sets source and
    /// layout.
    ///
    /// # Errors
    /// The line at fault, and why.
    fn parse(&self, page: &page::Page, title: &str) -> std::result::Result<Read, String>;
}

/// A profile that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The file, as it was named.
    pub source: String,
    /// How it is written.
    pub layout: Layout,
    /// The report. From Markdown: one run a part, without a tree; figures that a page lacks are 0 or empty.
    pub report: Report,
    /// Nanoseconds by which the total of a method may be off, by part and name, where it was rounded for a page.
    pub rounding_ns: HashMap<(usize, String), f64>,
    /// The total of a page in nanoseconds, where it is a sum over nested scopes rather than wall time.
    pub nested_total_ns: Option<u64>,
    /// For methods of a page without a call tree: others that they run inside of.
    pub inside: HashMap<String, Vec<String>>,
    /// Whether [`Run::alloc_count`](super::data::Run::alloc_count) was measured.
    pub allocations_counted: bool,
    /// Notes on this file for a reader of the comparison.
    pub notes: Vec<String>,
}

impl Read {
    /// A report that was just measured, or that came another way than from a file.
    ///
    /// # Errors
    /// Those of [`check()`].
    pub fn of(source: impl Into<String>, report: Report) -> Result<Read> {
        let source = source.into();
        check(&report).map_err(|fault| Error::format(format!("{source}: {fault}")))?;
        Ok(Read { source, layout: Layout::Json, ..Read::page(report) })
    }

    /// The report of a page, without notes or rounding.
    pub fn page(report: Report) -> Read {
        Read {
            source: String::new(),
            layout: Layout::Markdown,
            report,
            rounding_ns: HashMap::new(),
            nested_total_ns: None,
            inside: HashMap::new(),
            allocations_counted: true,
            notes: Vec::new(),
        }
    }

    /// The report with everything that was measured.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for one that was read from Markdown, which keeps only a part of it.
    pub fn into_full(self) -> Result<Report> {
        match self.layout {
            Layout::Json => Ok(self.report),
            _ => Err(Error::invalid(format!(
                "{}: a Markdown page keeps only a part of a profile; its report.json is needed",
                self.source
            ))),
        }
    }
}

/// Reads a folder (its `report.json`, else its `report.md`), a JSON file or a Markdown page.
///
/// # Errors
/// [`Error::Io`] where a file can't be read; [`Error::Format`] with the line or field where it is no profile, or one
/// with something amiss; [`Error::Unsupported`] for another version.
pub fn read(path: impl AsRef<Path>) -> Result<Read> {
    read_with(path, &[])
}

/// The same, where a Markdown page may be in one of these dialects too.
///
/// # Errors
/// As for [`read`].
pub fn read_with(path: impl AsRef<Path>, dialects: &[&dyn Dialect]) -> Result<Read> {
    let path = file_of(path.as_ref())?;
    parse_with(&path.display().to_string(), &load(&path)?, dialects)
}

/// Reads the bytes of a profile, which are called `source` in messages.
///
/// # Errors
/// As for [`read`].
pub fn parse(source: &str, bytes: &[u8]) -> Result<Read> {
    parse_with(source, bytes, &[])
}

/// The same, where a Markdown page may be in one of these dialects too.
///
/// # Errors
/// As for [`read`].
pub fn parse_with(source: &str, bytes: &[u8], dialects: &[&dyn Dialect]) -> Result<Read> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large(source));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        Error::format(format!("{source}: line {line}: no UTF-8 text"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        None => Err(Error::format(format!("{source}: empty, so not a profile"))),
        Some('{') => json::parse(source, text),
        Some('[') => Err(Error::format(format!("{source}: a JSON list, so not a profile"))),
        Some(_) => markdown(source, text, dialects),
    }
}

/// A page of ours or in a dialect: its title says which.
fn markdown(source: &str, text: &str, dialects: &[&dyn Dialect]) -> Result<Read> {
    let named = |fault: String| Error::format(format!("{source}: {fault}"));
    let page = page::Page::parse(text).map_err(named)?;
    let (line, title) = page.title().map_err(named)?;
    let dialect = dialects.iter().find(|dialect| dialect.titles().contains(&title));
    let read = if let Some(mode) = title.strip_prefix(ours::TITLE) {
        ours::parse(&page, mode.trim())
    } else if let Some(dialect) = dialect {
        let layout = Layout::Dialect(dialect.name());
        dialect.parse(&page, title).map(|read| Read { layout, ..read })
    } else {
        Err(format!("line {line}: {} is not the title of a profile", crate::error::quoted(title)))
    };
    let read = read.map_err(named)?;
    check(&read.report).map_err(named)?;
    Ok(Read { source: source.to_owned(), ..read })
}

fn file_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    IN_FOLDERS.iter().map(|name| path.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        Error::format(format!(
            "{}: a folder with neither {} nor {}",
            path.display(),
            IN_FOLDERS[0],
            IN_FOLDERS[1]
        ))
    })
}

/// The bytes of a file, refused where there are too many, even where its size isn't told beforehand.
fn load(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large(&path.display().to_string()));
    }
    Ok(bytes)
}

fn too_large(source: &str) -> Error {
    Error::format(format!("{source}: more than {} MiB, so not a profile of this tool", MAX_BYTES >> 20))
}
