//! The lines of the input, one after the other, so that memory stays the same however many there are.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use smallmind::Error;
use smallmind::tokenizer::MAX_TEXT_BYTES;

use super::line::Line;
use crate::failure::Result;

/// Reads in blocks of so many bytes.
const BLOCK: usize = 1 << 16;

/// Most bytes of a line: a text as long as the tokenizer takes, each byte escaped.
const MAX_LINE: u64 = 6 * MAX_TEXT_BYTES as u64;

/// A line with its place.
pub struct Numbered {
    /// The line's id, else the input and the number of the line.
    pub id: String,
    /// The number of the line, from 1 on.
    pub number: u64,
    /// Bytes of the input up to its end.
    pub end: u64,
    pub line: Result<Line, String>,
}

pub struct Input {
    reader: Box<dyn BufRead + Send>,
    name: String,
    number: u64,
    read: u64,
    /// Bytes of the file; `None` where that isn't known.
    pub total: Option<u64>,
}

impl Input {
    pub fn open(path: &Path) -> Result<Input> {
        let name = path.to_string_lossy().into_owned();
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let (reader, total): (Box<dyn BufRead + Send>, _) = match path.as_os_str() == "-" {
            true => (Box::new(BufReader::with_capacity(BLOCK, std::io::stdin())), None),
            false => {
                let file = File::open(path).map_err(failed)?;
                let about = file.metadata().map_err(failed)?;
                if about.is_dir() {
                    return Err(failed(std::io::ErrorKind::IsADirectory.into()).into());
                }
                (Box::new(BufReader::with_capacity(BLOCK, file)), about.is_file().then_some(about.len()))
            }
        };
        Ok(Input { reader, name, number: 0, read: 0, total })
    }

    /// The next line that isn't empty; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Io`]: what stands behind can't be known.
    pub fn next(&mut self) -> Result<Option<Numbered>> {
        loop {
            let mut bytes = Vec::new();
            let failed = |source| Error::Io { path: (&self.name).into(), source };
            let count = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut bytes).map_err(failed)?;
            if count == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.read += count as u64;
            let mut line = Err(format!("the line has more than {MAX_LINE} bytes"));
            if bytes.ends_with(b"\n") || (count as u64) < MAX_LINE {
                if bytes.trim_ascii().is_empty() {
                    continue;
                }
                line = serde_json::from_slice::<Line>(&bytes).map_err(|error| error.to_string());
            } else {
                self.read += self.reader.skip_until(b'\n').map_err(failed)? as u64;
            }
            let id = line.as_ref().ok().and_then(Line::id);
            let id = id.unwrap_or_else(|| format!("{}:{}", self.name, self.number));
            return Ok(Some(Numbered { id, number: self.number, end: self.read, line }));
        }
    }
}
