//! The file of vectors that `embed` writes, in whole chunks of records, so that a run that was stopped can go on: JSON
//! lines, CSV, or a matrix for NumPy with its records beside it.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;
use smallmind::Error;
use smallmind::text::{escaped_lines, escaped_path};

use super::inputs::Text;
use super::npy;
use super::settings::{self, Settings};
use super::stored;
use crate::failure::{Failure, Result};
use crate::output::{failed, json_fit_for_terminals};

/// The format of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line of JSON a text: id, source, status, text, vector
    Jsonl,
    /// A row a text, with the same columns, and one for each number of the vector
    Csv,
    /// A matrix of f32 for NumPy, a row a text; FILE.jsonl has the ids, sources, statuses and texts
    Npy,
}

impl Format {
    /// The one that was chosen, else that of the file's extension.
    pub fn of(chosen: Option<Format>, path: Option<&Path>) -> Format {
        let extension = path.and_then(Path::extension).and_then(|extension| extension.to_str());
        chosen.or_else(|| Format::from_str(extension?, true).ok()).unwrap_or(Format::Jsonl)
    }

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Npy => "npy",
        }
    }
}

/// What is written of a text.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub text: &'a Text,
    pub status: &'a str,
    /// `None` where the text has none.
    pub vector: Option<&'a [f32]>,
}

/// A file with a suffix more.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The records beside a matrix.
pub fn records_of(matrix: &Path) -> PathBuf {
    beside(matrix, ".jsonl")
}

/// All files that may be written for an output.
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    vec![path.to_owned(), records_of(path), settings::place(path)]
}

/// A file or standard output, to which only whole pieces are appended.
struct Appended {
    path: PathBuf,
    /// `None` for standard output.
    file: Option<File>,
    /// Bytes of whole pieces.
    whole: u64,
}

impl Appended {
    fn stdout() -> Appended {
        Appended { path: "standard output".into(), file: None, whole: 0 }
    }

    /// A new file, or what an earlier run has left, up to so many bytes.
    fn open(path: &Path, whole: u64) -> smallmind::Result<Appended> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(false).open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_file() {
            file.set_len(whole).map_err(failed)?;
            file.seek(SeekFrom::Start(whole)).map_err(failed)?;
        }
        Ok(Appended { path: path.to_owned(), file: Some(file), whole })
    }

    /// Appends all bytes, or, where that fails, none.
    fn append(&mut self, bytes: &[u8]) -> smallmind::Result<()> {
        let Some(file) = &mut self.file else {
            let mut out = std::io::stdout().lock();
            return out.write_all(bytes).and_then(|()| out.flush()).map_err(failed);
        };
        let written = file.write_all(bytes);
        if let Err(source) = written {
            let _ = file.set_len(self.whole);
            return Err(Error::Io { path: self.path.clone(), source });
        }
        self.whole += bytes.len() as u64;
        Ok(())
    }

    /// Takes back what was appended behind so many bytes.
    fn cut(&mut self, whole: u64) {
        if let Some(file) = &mut self.file {
            let _ = file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole)));
            self.whole = whole;
        }
    }

    /// Writes over the beginning.
    fn overwrite(&mut self, bytes: &[u8]) -> smallmind::Result<()> {
        let failed = |source| Error::Io { path: self.path.clone(), source };
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(bytes));
        written.and_then(|()| file.seek(SeekFrom::Start(self.whole))).map(drop).map_err(failed)
    }

    fn sync(&self) -> smallmind::Result<()> {
        match &self.file {
            Some(file) if file.metadata().is_ok_and(|about| about.is_file()) => {
                file.sync_all().map_err(|source| Error::Io { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

/// Where records go.
pub struct Store {
    format: Format,
    width: usize,
    with_text: bool,
    /// The matrix of [`Format::Npy`].
    matrix: Option<Appended>,
    records: Appended,
    /// Records that are there.
    count: u64,
    buffer: Vec<u8>,
    numbers: Vec<u8>,
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum There {
    Refuse,
    Replace,
    Resume,
}

/// Checks, before a model is loaded, that a file can be written.
pub fn check(path: Option<&Path>, format: Format, there: There) -> Result<()> {
    let Some(path) = path else {
        return match format {
            Format::Npy => Err(Failure::Usage("'--format npy' needs '--out <FILE>'".into())),
            _ => Ok(()),
        };
    };
    let Ok(about) = std::fs::metadata(path) else { return Ok(()) };
    if !about.is_file() && (there == There::Resume || format == Format::Npy || about.is_dir()) {
        return Err(Error::invalid(format!("{} is no file that can be rewritten", escaped_path(path))).into());
    }
    if about.is_file() && there == There::Refuse {
        let path = escaped_path(path);
        let text = format!("{path} is there already (--resume goes on with it, --force overwrites it)");
        return Err(Error::invalid(text).into());
    }
    Ok(())
}

impl Store {
    /// Begins a file, or goes on with it. Returns also how many records are there, and the id of the last.
    pub fn open(
        path: Option<&Path>,
        format: Format,
        there: There,
        settings: &Settings,
    ) -> Result<(Store, Option<String>)> {
        let (width, with_text) = (settings.width, settings.with_text);
        let kept = match path {
            Some(path) if there == There::Resume && has_bytes(path) => {
                settings.check_against(path)?;
                stored::kept(path, format, width)?
            }
            _ => stored::Kept::default(),
        };
        let (matrix, records) = match (path, format) {
            (None, _) => (None, Appended::stdout()),
            (Some(path), Format::Npy) => {
                let matrix = Appended::open(path, kept.matrix_bytes)?;
                (Some(matrix), Appended::open(&records_of(path), kept.bytes)?)
            }
            (Some(path), _) => (None, Appended::open(path, kept.bytes)?),
        };
        // Only now: the settings of a file that isn't emptied yet are others.
        if let Some(path) = path.filter(|path| !is_stream(path)) {
            settings.write(path)?;
        }
        let (buffer, numbers) = (Vec::new(), Vec::new());
        let mut store =
            Store { format, width, with_text, matrix, records, count: kept.count, buffer, numbers };
        store.begin()?;
        Ok((store, kept.last))
    }

    /// Records that are there.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What stands in front of the first record.
    fn begin(&mut self) -> Result<()> {
        if let Some(matrix) = &mut self.matrix {
            let header = npy::header(self.count, self.width);
            match matrix.whole {
                0 => matrix.append(&header)?,
                // A run may have ended before it had counted its last rows.
                _ => matrix.overwrite(&header)?,
            }
        }
        if self.format == Format::Csv && self.records.whole == 0 {
            let columns = ["id", "source", "status", "text"].map(str::to_owned).into_iter();
            let columns = columns.filter(|name| self.with_text || name != "text");
            let columns: Vec<_> = columns.chain((0..self.width).map(|i| format!("v{i}"))).collect();
            self.records.append(format!("{}\n", columns.join(",")).as_bytes())?;
        }
        Ok(())
    }

    /// Appends records: all, or, where that fails, none.
    pub fn append(&mut self, records: &[Record<'_>]) -> Result<()> {
        self.buffer.clear();
        self.numbers.clear();
        for record in records {
            match self.format {
                Format::Csv => self.csv(record)?,
                Format::Jsonl | Format::Npy => self.json(record)?,
            }
            if self.matrix.is_some() {
                match record.vector {
                    Some(vector) => self.numbers.extend(vector.iter().flat_map(|x| x.to_le_bytes())),
                    None => self.numbers.resize(self.numbers.len() + 4 * self.width, 0),
                }
            }
        }
        // Rows first: of rows without records a resumed run knows.
        let former = self.matrix.as_ref().map_or(0, |matrix| matrix.whole);
        if let Some(matrix) = &mut self.matrix {
            matrix.append(&self.numbers)?;
        }
        let escapes =
            self.format == Format::Csv && self.records.file.is_none() && std::io::stdout().is_terminal();
        let appended = if escapes {
            let text = String::from_utf8_lossy(&self.buffer);
            self.records.append(escaped_lines(&text).to_string().as_bytes())
        } else {
            self.records.append(&self.buffer)
        };
        if let (Err(_), Some(matrix)) = (&appended, &mut self.matrix) {
            matrix.cut(former);
        }
        appended?;
        self.count += records.len() as u64;
        if let Some(matrix) = &mut self.matrix {
            matrix.overwrite(&npy::header(self.count, self.width))?;
        }
        Ok(())
    }

    /// Puts everything on the disk.
    pub fn finish(self) -> Result<()> {
        if let Some(matrix) = &self.matrix {
            matrix.sync()?;
        }
        Ok(self.records.sync()?)
    }

    fn json(&mut self, record: &Record<'_>) -> smallmind::Result<()> {
        let Record { text, status, vector } = record;
        let out = &mut self.buffer;
        out.extend_from_slice(b"{\"id\":");
        put_text(out, &text.id)?;
        out.extend_from_slice(b",\"source\":");
        put_text(out, &text.source)?;
        out.extend_from_slice(b",\"status\":");
        put_text(out, status)?;
        if let (true, Ok(text)) = (self.with_text, &text.text) {
            out.extend_from_slice(b",\"text\":");
            put_text(out, text)?;
        }
        if self.matrix.is_none() {
            out.extend_from_slice(b",\"vector\":");
            put_json(out, vector)?;
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    fn csv(&mut self, record: &Record<'_>) -> smallmind::Result<()> {
        let Record { text, status, vector } = record;
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(&mut self.buffer);
        let shown = self.with_text.then(|| text.text.as_deref().unwrap_or(""));
        let fields = [Some(text.id.as_str()), Some(&text.source), Some(status), shown];
        let mut row = csv::StringRecord::from_iter(fields.into_iter().flatten());
        match vector {
            Some(vector) => vector.iter().for_each(|x| row.push_field(&number(*x))),
            None => (0..self.width).for_each(|_| row.push_field("")),
        }
        let written = writer.write_record(&row).and_then(|()| Ok(writer.flush()?));
        written.map_err(|error| Error::Internal(error.to_string()))
    }
}

/// Whether a file is there, and isn't empty.
fn has_bytes(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.len() > 0)
}

/// Whether a path leads to what isn't a file: a pipe, a device.
fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| !about.is_file())
}

/// The shortest number that reads as the same float.
fn number(x: f32) -> String {
    serde_json::to_string(&x).unwrap_or_default()
}

fn put_json<T: Serialize>(out: &mut Vec<u8>, value: &T) -> smallmind::Result<()> {
    serde_json::to_writer(out, value).map_err(|error| Error::Internal(error.to_string()))
}

/// A text as JSON without control characters.
pub fn put_text(out: &mut Vec<u8>, text: &str) -> smallmind::Result<()> {
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return put_json(out, &text);
    }
    let json = serde_json::to_string(text).map_err(|error| Error::Internal(error.to_string()))?;
    out.extend_from_slice(json_fit_for_terminals(&json).trim_end_matches('\n').as_bytes());
    Ok(())
}
