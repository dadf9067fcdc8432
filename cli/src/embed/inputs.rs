//! The texts of a command: lines, whole files or fields of JSON lines, from files, folders and standard input, one after
//! the other, so that memory stays the same however many there are.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use smallmind::Error;
use smallmind::tokenizer::MAX_TEXT_BYTES;
use walkdir::WalkDir;

use crate::failure::Result;

/// Reads files in blocks of so many bytes.
const BLOCK: usize = 1 << 16;

/// Why there is no text where one was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NotUtf8,
    TooLong,
    /// The line is no JSON.
    NotJson,
    /// The line's JSON has no text in the field.
    NoText,
    /// The file can't be read.
    Unreadable,
}

impl Fault {
    /// The status in records.
    pub fn name(self) -> &'static str {
        match self {
            Fault::NotUtf8 => "not-utf8",
            Fault::TooLong => "too-long",
            Fault::NotJson => "not-json",
            Fault::NoText => "no-text",
            Fault::Unreadable => "unreadable",
        }
    }
}

/// A text and where it comes from.
#[derive(Debug, PartialEq, Eq)]
pub struct Text {
    /// The `id` of a JSON line, else the source and the number of the line.
    pub id: String,
    /// The file; `-` for standard input.
    pub source: String,
    pub text: Result<String, Fault>,
}

/// How files become texts.
#[derive(Clone, Debug)]
pub struct Reading {
    pub whole_files: bool,
    /// The field of a JSON line that has the text.
    pub field: String,
}

/// Texts that are still to come.
pub struct Inputs {
    reading: Reading,
    files: VecDeque<PathBuf>,
    current: Option<Lines>,
    /// Texts that come first.
    given: VecDeque<Text>,
    read: u64,
    total: Option<u64>,
}

/// A file of which lines are read.
struct Lines {
    reader: Box<dyn BufRead>,
    source: String,
    is_json: bool,
    line: u64,
}

impl Inputs {
    /// Lists the files, which must be there. `own` are the command's files, which are no inputs if a folder has them.
    pub fn open(paths: &[PathBuf], reading: Reading, own: &[PathBuf]) -> Result<Inputs> {
        let stdin = [PathBuf::from("-")];
        let (mut files, mut total) = (VecDeque::new(), Some(0));
        for path in if paths.is_empty() { &stdin } else { paths } {
            if is_stdin(path) {
                files.push_back(path.clone());
                total = None;
                continue;
            }
            for entry in listed(path) {
                let (file, bytes) = entry?;
                if file != *path && own.iter().any(|own| is_same(own, &file)) {
                    continue;
                }
                total = total.map(|total: u64| total.saturating_add(bytes));
                files.push_back(file);
            }
        }
        Ok(Inputs { reading, files, current: None, given: VecDeque::new(), read: 0, total })
    }

    /// Texts that are there already.
    pub fn given(texts: VecDeque<Text>) -> Inputs {
        let reading = Reading { whole_files: false, field: String::new() };
        Inputs { reading, files: VecDeque::new(), current: None, given: texts, read: 0, total: None }
    }

    /// Bytes of all files; `None` where one of them is standard input.
    pub fn total_bytes(&self) -> Option<u64> {
        self.total
    }

    /// Bytes read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read
    }

    /// The next text.
    pub fn next(&mut self) -> Option<Text> {
        if let Some(text) = self.given.pop_front() {
            return Some(text);
        }
        loop {
            if let Some(lines) = &mut self.current {
                match lines.next(&self.reading.field, &mut self.read) {
                    Some(text) => return Some(text),
                    None => self.current = None,
                }
            }
            let path = self.files.pop_front()?;
            let source = path.to_string_lossy().into_owned();
            let reader: Box<dyn BufRead> = if is_stdin(&path) {
                Box::new(std::io::stdin().lock())
            } else {
                match File::open(&path) {
                    Ok(file) => Box::new(BufReader::with_capacity(BLOCK, file)),
                    Err(_) => return Some(Text { id: source.clone(), source, text: Err(Fault::Unreadable) }),
                }
            };
            let is_json = path.extension().is_some_and(|extension| extension == "jsonl");
            if self.reading.whole_files && !is_json {
                return Some(whole(reader, source, &mut self.read));
            }
            self.current = Some(Lines { reader, source, is_json, line: 0 });
        }
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether two paths lead to one file.
fn is_same(a: &Path, b: &Path) -> bool {
    a.file_name() == b.file_name() && matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A file, or the files below a folder by their names; hidden ones are left out.
fn listed(path: &Path) -> impl Iterator<Item = smallmind::Result<(PathBuf, u64)>> {
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    let walk = WalkDir::new(path).sort_by_file_name().into_iter();
    let walk = walk.filter_entry(move |entry| entry.depth() == 0 || !hidden(entry.file_name()));
    let path = path.to_owned();
    walk.filter_map(move |entry| {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let at = error.path().unwrap_or(&path).to_owned();
                let source =
                    error.into_io_error().unwrap_or_else(|| std::io::Error::other("a loop of links"));
                return Some(Err(Error::Io { path: at, source }));
            }
        };
        // What was named itself may also be a link or a pipe.
        let bytes = std::fs::metadata(entry.path()).map(|about| (about.len(), about.is_dir()));
        match bytes {
            Ok((bytes, false)) if entry.depth() == 0 || entry.file_type().is_file() => {
                Some(Ok((entry.into_path(), bytes)))
            }
            Err(source) if entry.depth() == 0 => Some(Err(Error::Io { path: entry.into_path(), source })),
            _ => None,
        }
    })
}

/// A file as one text, without the line break at its end.
fn whole(reader: Box<dyn BufRead>, source: String, read: &mut u64) -> Text {
    let mut bytes = Vec::new();
    let text = match reader.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes) {
        Err(_) => Err(Fault::Unreadable),
        Ok(_) => {
            *read += bytes.len() as u64;
            text_of(bytes)
        }
    };
    Text { id: source.clone(), source, text }
}

/// Bytes without the line break at their end as a text.
fn text_of(mut bytes: Vec<u8>) -> Result<String, Fault> {
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(Fault::TooLong);
    }
    String::from_utf8(bytes).map_err(|_| Fault::NotUtf8)
}

impl Lines {
    /// The text of the next line; of JSON lines, of the next that isn't empty.
    fn next(&mut self, field: &str, read: &mut u64) -> Option<Text> {
        loop {
            let line = self.read_line(read)?;
            self.line += 1;
            let place = format!("{}:{}", self.source, self.line);
            let (id, text) = match line {
                Ok(text) if self.is_json && text.trim().is_empty() => continue,
                Ok(text) if self.is_json => from_json(&text, field),
                text => (None, text),
            };
            return Some(Text { id: id.unwrap_or(place), source: self.source.clone(), text });
        }
    }

    /// A line, of which no more is kept than a text may have; `None` at the end.
    fn read_line(&mut self, read: &mut u64) -> Option<Result<String, Fault>> {
        let mut bytes = Vec::new();
        // Two bytes more, for the line break.
        let limit = MAX_TEXT_BYTES as u64 + 2;
        match (&mut self.reader).take(limit).read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(count) => *read += count as u64,
            Err(_) => {
                self.reader = Box::new(std::io::empty());
                return Some(Err(Fault::Unreadable));
            }
        }
        if bytes.ends_with(b"\n") || (bytes.len() as u64) < limit {
            return Some(text_of(bytes));
        }
        let skipped = self.reader.skip_until(b'\n').unwrap_or(0);
        *read += skipped as u64;
        Some(Err(Fault::TooLong))
    }
}

/// The id and the text of a JSON line.
fn from_json(line: &str, field: &str) -> (Option<String>, Result<String, Fault>) {
    let Ok(mut json) = serde_json::from_str::<Json>(line) else { return (None, Err(Fault::NotJson)) };
    let id = match json.get("id") {
        Some(Json::String(id)) => Some(id.clone()),
        Some(Json::Number(id)) => Some(id.to_string()),
        _ => None,
    };
    match json.get_mut(field).map(Json::take) {
        Some(Json::String(text)) => (id, Ok(text)),
        _ => (id, Err(Fault::NoText)),
    }
}
