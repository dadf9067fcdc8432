//! The file of vectors that `embed` writes, in whole chunks of records, so that a run that was stopped can go on: JSON
//! lines, CSV, or a matrix for NumPy with its records beside it.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use serde::Serialize;
use smallmind::Error;
use smallmind::text::{escaped_lines, escaped_path};
use smallmind::threads::Team;

use super::inputs::Text;
use super::npy;
use super::settings::Settings;
use super::stored;
use crate::failure::{Failure, Result};
use crate::kept_settings;
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

/// A file of vectors, to which chunks of records are appended.
pub trait Records {
    /// Appends records: all, or, where that fails, none.
    fn append(&mut self, records: &[Record<'_>]) -> Result<()>;

    /// Puts everything on the disk.
    fn finish(self: Box<Self>) -> Result<()>;
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
    vec![path.to_owned(), records_of(path), kept_settings::place(path)]
}

/// A file or standard output, to which only whole pieces are appended.
pub struct Appended {
    path: PathBuf,
    /// `None` for standard output.
    file: Option<File>,
    /// Bytes of whole pieces.
    whole: u64,
}

impl Appended {
    /// Standard output.
    pub fn stdout() -> Appended {
        Appended { path: "standard output".into(), file: None, whole: 0 }
    }

    /// A new file, or what an earlier run has left, up to so many bytes.
    pub fn open(path: &Path, whole: u64) -> smallmind::Result<Appended> {
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
    pub fn append(&mut self, bytes: &[u8]) -> smallmind::Result<()> {
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

    /// Puts everything on the disk.
    pub fn sync(&self) -> smallmind::Result<()> {
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
    form: Form,
    /// The matrix of [`Format::Npy`].
    matrix: Option<Appended>,
    records: Appended,
    /// Records that are there.
    count: u64,
    /// Makes bytes of records.
    team: Arc<Team>,
    /// The records on their way, a piece for each worker of the team.
    pieces: Vec<Mutex<Piece>>,
}

/// How records are written.
#[derive(Clone, Copy)]
struct Form {
    format: Format,
    width: usize,
    with_text: bool,
}

/// Some of a chunk's records as bytes.
#[derive(Default)]
struct Piece {
    records: Vec<u8>,
    /// The rows of a matrix.
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
            Format::Jsonl | Format::Csv => Ok(()),
            _ => Err(Failure::Usage(format!("'--format {}' needs '--out <FILE>'", format.name()))),
        };
    };
    let Ok(about) = std::fs::metadata(path) else { return Ok(()) };
    let suits_streams = matches!(format, Format::Jsonl | Format::Csv);
    if !about.is_file() && (there == There::Resume || !suits_streams || about.is_dir()) {
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
    /// Begins a file, or goes on with it; the team will make bytes of its records. Returns also how many records are
    /// there, and the id of the last.
    pub fn open(
        path: Option<&Path>,
        format: Format,
        there: There,
        settings: &Settings,
        team: &Arc<Team>,
    ) -> Result<(Store, Option<String>)> {
        let form = Form { format, width: settings.width, with_text: settings.with_text };
        let kept = match path {
            Some(path) if there == There::Resume && has_bytes(path) => {
                settings.check_against(path)?;
                stored::kept(path, format, form.width)?
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
        let pieces = (0..team.count()).map(|_| Mutex::default()).collect();
        let mut store = Store { form, matrix, records, count: kept.count, team: team.clone(), pieces };
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
            let header = npy::header(self.count, self.form.width);
            match matrix.whole {
                0 => matrix.append(&header)?,
                // A run may have ended before it had counted its last rows.
                _ => matrix.overwrite(&header)?,
            }
        }
        let Form { format, width, with_text } = self.form;
        if format == Format::Csv && self.records.whole == 0 {
            let columns = ["id", "source", "status", "text"].map(str::to_owned).into_iter();
            let columns = columns.filter(|name| with_text || name != "text");
            let columns: Vec<_> = columns.chain((0..width).map(|i| format!("v{i}"))).collect();
            self.records.append(format!("{}\n", columns.join(",")).as_bytes())?;
        }
        Ok(())
    }

    /// Makes bytes of records, on all threads: a vector as text takes some ten microseconds.
    fn make_pieces(&mut self, records: &[Record<'_>]) -> smallmind::Result<()> {
        let (form, pieces, failed) = (self.form, &self.pieces, Mutex::new(Ok(())));
        self.team.run(|worker| {
            let own = &records[worker.share(records.len(), 1)];
            if let Err(error) = lock(&pieces[worker.index()]).make(form, own) {
                *lock(&failed) = Err(error);
            }
        })?;
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows first: of rows without records a resumed run knows.
    fn append_pieces(&mut self) -> smallmind::Result<()> {
        let Store { form, matrix, records, pieces, .. } = self;
        if let Some(matrix) = matrix {
            pieces.iter().try_for_each(|piece| matrix.append(&lock(piece).numbers))?;
        }
        let escapes = form.format == Format::Csv && records.file.is_none() && std::io::stdout().is_terminal();
        pieces.iter().map(lock).try_for_each(|piece| match escapes {
            true => {
                let text = String::from_utf8_lossy(&piece.records);
                records.append(escaped_lines(&text).to_string().as_bytes())
            }
            false => records.append(&piece.records),
        })
    }
}

impl Records for Store {
    fn append(&mut self, records: &[Record<'_>]) -> Result<()> {
        self.make_pieces(records)?;
        let former = [self.records.whole, self.matrix.as_ref().map_or(0, |matrix| matrix.whole)];
        if let Err(error) = self.append_pieces() {
            self.records.cut(former[0]);
            if let Some(matrix) = &mut self.matrix {
                matrix.cut(former[1]);
            }
            return Err(error.into());
        }
        self.count += records.len() as u64;
        if let Some(matrix) = &mut self.matrix {
            matrix.overwrite(&npy::header(self.count, self.form.width))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if let Some(matrix) = &self.matrix {
            matrix.sync()?;
        }
        Ok(self.records.sync()?)
    }
}

impl Piece {
    /// Takes these records in place of the former ones.
    fn make(&mut self, form: Form, records: &[Record<'_>]) -> smallmind::Result<()> {
        self.records.clear();
        self.numbers.clear();
        for record in records {
            match form.format {
                Format::Csv => self.csv(form, record)?,
                _ => self.json(form, record)?,
            }
            if form.format == Format::Npy {
                match record.vector {
                    Some(vector) => self.numbers.extend(vector.iter().flat_map(|x| x.to_le_bytes())),
                    None => self.numbers.resize(self.numbers.len() + 4 * form.width, 0),
                }
            }
        }
        Ok(())
    }

    fn json(&mut self, form: Form, record: &Record<'_>) -> smallmind::Result<()> {
        let Record { text, status, vector } = record;
        let out = &mut self.records;
        out.extend_from_slice(b"{\"id\":");
        put_text(out, &text.id)?;
        out.extend_from_slice(b",\"source\":");
        put_text(out, &text.source)?;
        out.extend_from_slice(b",\"status\":");
        put_text(out, status)?;
        if let (true, Ok(text)) = (form.with_text, &text.text) {
            out.extend_from_slice(b",\"text\":");
            put_text(out, text)?;
        }
        if form.format == Format::Jsonl {
            out.extend_from_slice(b",\"vector\":");
            put_json(out, vector)?;
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    fn csv(&mut self, form: Form, record: &Record<'_>) -> smallmind::Result<()> {
        let Record { text, status, vector } = record;
        let mut writer = csv::WriterBuilder::new().from_writer(&mut self.records);
        let shown = form.with_text.then(|| text.text.as_deref().unwrap_or(""));
        let fields = [Some(text.id.as_str()), Some(&text.source), Some(status), shown];
        let written = writer.write_record(fields.into_iter().flatten()).and_then(|()| Ok(writer.flush()?));
        written.map_err(|error| Error::Internal(error.to_string()))?;
        drop(writer);
        // Numbers need no quotes. They stand behind the fields above, whose line break moves to the end.
        let out = &mut self.records;
        out.pop();
        for i in 0..form.width {
            out.push(b',');
            if let Some(vector) = vector {
                put_json(out, &vector[i])?;
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

/// The value behind a lock; a panic while it was held is an error of the team.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a file is there, and isn't empty.
fn has_bytes(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.len() > 0)
}

/// Whether a path leads to what isn't a file: a pipe, a device.
fn is_stream(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| !about.is_file())
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
