//! A report as files: text for people, JSON for programs, pages and pictures, and formats of other tools.
//! Every rendering takes its figures from [`view`], so that no two of them disagree.

mod actions;
mod counts;
mod family;
pub(super) mod flame;
pub(super) mod html;
mod insights;
mod markdown;
mod models;
mod ops;
mod pprof;
#[cfg(test)]
pub(super) mod sample;
#[cfg(test)]
mod tests;
pub(super) mod text;
mod trace;
mod view;

use std::path::{Path, PathBuf};

use super::data::{Machine, Report};
use crate::error::quoted;
use crate::{Error, Result, files};

/// A way to write a report down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Sections and tables for people; the tables can be read back.
    Markdown,
    /// The whole report, for programs.
    Json,
    /// One self-contained page with pictures.
    Html,
    /// A flame graph of self times: an SVG picture.
    Flame,
    /// The timeline with tracks of counters, for Perfetto and `chrome://tracing`.
    Trace,
    /// A compressed `profile.proto`, for `go tool pprof` and its kin.
    Pprof,
}

impl Format {
    /// Every format, in the order in which [`write_folder`] writes them.
    pub const ALL: [Format; 6] =
        [Format::Markdown, Format::Json, Format::Html, Format::Flame, Format::Trace, Format::Pprof];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Markdown => "markdown",
            Format::Json => "json",
            Format::Html => "html",
            Format::Flame => "flame",
            Format::Trace => "trace",
            Format::Pprof => "pprof",
        }
    }

    /// The format of this name.
    pub fn parse(name: &str) -> Result<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let known = Format::ALL.map(Format::name).join(", ");
            Error::invalid(format!("no format {}; there are {known}", quoted(name)))
        })
    }

    /// The name of its file in a profile's folder.
    pub const fn file_name(self) -> &'static str {
        match self {
            Format::Markdown => "report.md",
            Format::Json => "report.json",
            Format::Html => "report.html",
            Format::Flame => "flame.svg",
            Format::Trace => "trace.json",
            Format::Pprof => "profile.pb.gz",
        }
    }
}

/// The bytes of a report in a format. The same report gives the same bytes.
pub fn render(report: &Report, format: Format) -> Result<Vec<u8>> {
    check_limits(&report.machine)?;
    match format {
        Format::Markdown => Ok(markdown::render(report).into_bytes()),
        Format::Json => json(report),
        Format::Html => html::render(report).map(String::into_bytes),
        Format::Flame => flame::render(report),
        Format::Trace => trace::render(report),
        Format::Pprof => pprof::render(report),
    }
}

/// Writes a report in every format into a folder, which is made where there is none: all files, or none of them.
/// Returns the files' paths.
pub fn write_folder(report: &Report, folder: &Path) -> Result<Vec<PathBuf>> {
    let rendered = Format::ALL.map(|format| Ok((format.file_name(), render(report, format)?)));
    files::write_folder(folder, &rendered.into_iter().collect::<Result<Vec<_>>>()?)
}

/// Writes a report in one format to a file. One that stood there is replaced only when the new one is complete.
pub fn write_file(report: &Report, format: Format, path: &Path) -> Result<()> {
    files::write(path, &render(report, format)?)
}

/// The only fractions in a report. JSON has no way to write down those that aren't numbers.
fn check_limits(machine: &Machine) -> Result<()> {
    let Some(limits) = &machine.limits else { return Ok(()) };
    let levels = limits.levels.iter().map(|level| (level.name.as_str(), level.gbps));
    for (name, value) in std::iter::once(("fma_gflops", limits.fma_gflops)).chain(levels) {
        if !value.is_finite() || value < 0.0 {
            let name = quoted(name);
            return Err(Error::invalid(format!("machine.limits: {name} is {value}, not a speed")));
        }
    }
    Ok(())
}

fn json(report: &Report) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(report)
        .map_err(|error| Error::Internal(format!("report as JSON: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
