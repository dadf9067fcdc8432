//! What stands in a file of vectors: how much of it is whole, for a run that goes on, and records as they are read again.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use smallmind::Error;
use smallmind::text::escaped_path;

use super::npy;
use super::output::{Format, records_of};
use crate::failure::Result;

/// Reads files in blocks of so many bytes.
const BLOCK: usize = 1 << 20;

/// Most bytes of a line: a text as long as the tokenizer takes, each byte escaped, and a vector.
const MAX_LINE: u64 = 256 << 20;

/// The whole records of a file.
#[derive(Debug, Default)]
pub struct Kept {
    pub count: u64,
    /// Bytes of the records; of CSV, of the header too.
    pub bytes: u64,
    /// Bytes of the matrix, if there is one, with its header.
    pub matrix_bytes: u64,
    /// The id of the last one.
    pub last: Option<String>,
}

/// A record as it is read again.
#[derive(Debug, Deserialize)]
pub struct Stored {
    pub id: String,
    pub text: Option<String>,
    #[serde(default)]
    pub vector: Option<Vec<f32>>,
    pub status: String,
}

impl Stored {
    /// Whether a matrix's row is its vector, rather than zeros in place of one.
    pub fn has_vector(&self) -> bool {
        matches!(self.status.as_str(), "done" | "truncated" | "split")
    }
}

/// Finds the whole records of a file.
pub fn kept(path: &Path, format: Format, width: usize) -> Result<Kept> {
    match format {
        Format::Jsonl => lines_kept(path, u64::MAX),
        Format::Csv => rows_kept(path),
        Format::Npy => {
            let bytes = std::fs::metadata(path).map_err(failed(path))?.len();
            let row = 4 * width as u64;
            let rows = bytes.saturating_sub(npy::HEADER) / row;
            let records = records_of(path);
            let mut kept = match records.exists() {
                true => lines_kept(&records, rows)?,
                false => Kept::default(),
            };
            // A header that isn't whole is written again.
            kept.matrix_bytes = if bytes < npy::HEADER { 0 } else { npy::HEADER + kept.count * row };
            Ok(kept)
        }
    }
}

/// The error of a file.
pub fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { path: path.to_owned(), source }
}

/// Opens a file for reading from its beginning on.
///
/// # Errors
/// [`Error::Io`].
pub fn open(path: &Path) -> smallmind::Result<BufReader<File>> {
    Ok(BufReader::with_capacity(BLOCK, File::open(path).map_err(failed(path))?))
}

/// Whole lines of JSON, at most so many.
fn lines_kept(path: &Path, most: u64) -> Result<Kept> {
    let (mut reader, mut kept) = (open(path)?, Kept::default());
    let (mut line, mut last) = (Vec::new(), Vec::new());
    while kept.count < most {
        read_line(path, &mut reader, &mut line)?;
        if !line.ends_with(b"\n") {
            break;
        }
        (kept.count, kept.bytes) = (kept.count + 1, kept.bytes + line.len() as u64);
        std::mem::swap(&mut line, &mut last);
    }
    if kept.count > 0 {
        kept.last = Some(record(path, kept.count, &last)?.id);
    }
    Ok(kept)
}

/// Reads a line with its break, if it has one; 0 at the end.
fn read_line(path: &Path, reader: &mut BufReader<File>, line: &mut Vec<u8>) -> Result<usize> {
    line.clear();
    append_line(path, reader, line)
}

/// Reads a line behind what `line` holds.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidArgument`] for a line that no record is as long as.
pub fn append_line(path: &Path, reader: &mut BufReader<File>, line: &mut Vec<u8>) -> Result<usize> {
    let count = reader.take(MAX_LINE).read_until(b'\n', line).map_err(failed(path))?;
    if count as u64 == MAX_LINE && !line.ends_with(b"\n") {
        let path = escaped_path(path);
        return Err(Error::invalid(format!("{path} has a line of more than {MAX_LINE} bytes")).into());
    }
    Ok(count)
}

/// The record on a line of a file.
///
/// # Errors
/// [`Error::InvalidArgument`] where it is none.
pub fn record(path: &Path, line: u64, bytes: &[u8]) -> Result<Stored> {
    let said = |error| Error::invalid(format!("{}, line {line}: {error}", escaped_path(path)));
    Ok(serde_json::from_slice(bytes).map_err(said)?)
}

/// Whole rows of CSV behind the header: as many fields as that, and a line break.
fn rows_kept(path: &Path) -> Result<Kept> {
    let bad = |error: csv::Error| Error::invalid(format!("{}: {error}", escaped_path(path)));
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(open(path)?);
    let mut ends = Ends { file: File::open(path).map_err(failed(path))? };
    let (mut row, mut kept, mut fields) = (csv::ByteRecord::new(), Kept::default(), None);
    while reader.read_byte_record(&mut row).map_err(bad)? {
        let end = reader.position().byte();
        if row.len() != *fields.get_or_insert(row.len())
            || !ends.with_line_break(end).map_err(failed(path))?
        {
            break;
        }
        if kept.bytes > 0 {
            kept.count += 1;
            kept.last = row.get(0).map(|id| String::from_utf8_lossy(id).into_owned());
        }
        kept.bytes = end;
    }
    Ok(kept)
}

/// Looks at the ends of rows.
struct Ends {
    file: File,
}

impl Ends {
    fn with_line_break(&mut self, end: u64) -> std::io::Result<bool> {
        let mut byte = [0];
        self.file.seek(SeekFrom::Start(end.saturating_sub(1)))?;
        self.file.read_exact(&mut byte)?;
        Ok(byte == *b"\n")
    }
}
