//! Goes through a set of vectors on all threads of a team: blocks of the file are read one after the other, and the thread
//! that has read one looks at its records, while others read on.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use smallmind::Error;
use smallmind::text::escaped_path;
use smallmind::threads::Team;

use super::npy;
use super::output::records_of;
use super::stored::{Stored, append_line, failed, open, record};
use crate::failure::{Failure, Result};

/// Bytes of a block: few enough to be looked at while they are in a core's own cache.
const BLOCK: usize = 1 << 18;

/// Most bytes of a matrix's header.
const MAX_HEADER: u64 = 1 << 20;

/// A vector of a set.
pub struct Found<'a> {
    /// Vectors, and records without one, that stand before it.
    pub place: u64,
    pub vector: &'a [f32],
    /// What else the set holds of it; a matrix alone holds nothing.
    pub record: Option<Stored>,
}

/// Calls `each` with every vector of a set, on any worker of the team, and returns the workers' states.
///
/// # Errors
/// The first that one thread would have met: of the file, and of `each`.
pub fn scan<S: Send>(
    path: &Path,
    team: &Team,
    state: impl Fn() -> S,
    each: impl Fn(&mut S, Found<'_>) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let set = Mutex::new(Set::open(path)?);
    let states: Vec<Mutex<S>> = (0..team.count()).map(|_| Mutex::new(state())).collect();
    let fault: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
    let note = |place, failure| {
        let mut fault = lock(&fault);
        if fault.as_ref().is_none_or(|(first, _)| place < *first) {
            *fault = Some((place, failure));
        }
    };
    team.run(|worker| {
        let (mut state, mut block) = (lock(&states[worker.index()]), Block::default());
        // Blocks before one with a fault have been taken, and are looked at to their ends.
        while lock(&fault).is_none() {
            let taken = lock(&set).take(&mut block);
            match taken {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => return note(block.first, failure),
            }
            if let Err(failure) = block.visit(path, |found| each(&mut state, found)) {
                note(block.first, failure);
            }
        }
    })?;
    match fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, failure)) => Err(failure),
        None => Ok(states
            .into_iter()
            .map(|state| state.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A set that is read.
struct Set {
    path: PathBuf,
    kind: Kind,
    /// Records of the blocks that were taken.
    next: u64,
}

enum Kind {
    Lines(BufReader<File>),
    Matrix { file: File, width: usize, rows: u64, records: Option<(PathBuf, BufReader<File>)> },
}

/// Records that follow each other.
#[derive(Default)]
struct Block {
    /// The place of the first one.
    first: u64,
    /// The rows of a matrix, of so many floats.
    rows: Vec<u8>,
    width: usize,
    /// Lines, and where each ends.
    lines: Vec<u8>,
    ends: Vec<usize>,
    vector: Vec<f32>,
}

impl Set {
    fn open(path: &Path) -> Result<Set> {
        let mut file = open(path)?;
        let mut begin = Vec::new();
        (&mut file).take(MAX_HEADER).read_to_end(&mut begin).map_err(failed(path))?;
        if begin.starts_with(b"PAR1") {
            let path = escaped_path(path);
            let text = format!("{path} is a Parquet file, which can't be searched (.npy and .jsonl can)");
            return Err(Error::invalid(text).into());
        }
        let set = |kind| Set { path: path.to_owned(), kind, next: 0 };
        if !begin.starts_with(b"\x93NUMPY") {
            file.seek(SeekFrom::Start(0)).map_err(failed(path))?;
            return Ok(set(Kind::Lines(file)));
        }
        let mut file = file.into_inner();
        let (rows, width, first) =
            npy::parse(&begin).map_err(|error| Error::invalid(format!("{}: {error}", escaped_path(path))))?;
        let held = file.metadata().map_err(failed(path))?.len().saturating_sub(first);
        if rows.checked_mul(4 * width as u64).is_none_or(|bytes| bytes > held) {
            let path = escaped_path(path);
            return Err(Error::invalid(format!("{path} ends before its last row")).into());
        }
        file.seek(SeekFrom::Start(first)).map_err(failed(path))?;
        let place = records_of(path);
        let records = match place.exists() {
            true => Some((place.clone(), open(&place)?)),
            false => None,
        };
        Ok(set(Kind::Matrix { file, width, rows, records }))
    }

    /// Reads the next block; false at the end.
    fn take(&mut self, block: &mut Block) -> Result<bool> {
        block.first = self.next;
        block.lines.clear();
        block.ends.clear();
        block.rows.clear();
        match &mut self.kind {
            Kind::Lines(reader) => {
                while block.lines.len() < BLOCK && append_line(&self.path, reader, &mut block.lines)? > 0 {
                    block.ends.push(block.lines.len());
                }
                self.next += block.ends.len() as u64;
            }
            Kind::Matrix { file, width, rows, records } => {
                let most = (BLOCK / (4 * *width)).max(1) as u64;
                let count = (*rows - self.next).min(most);
                block.width = *width;
                block.rows.resize(count as usize * 4 * *width, 0);
                file.read_exact(&mut block.rows).map_err(failed(&self.path))?;
                if let Some((place, reader)) = records {
                    for _ in 0..count {
                        append_line(place, reader, &mut block.lines)?;
                        block.ends.push(block.lines.len());
                    }
                }
                self.next += count;
            }
        }
        Ok(self.next > block.first)
    }
}

impl Block {
    /// Calls `each` with every vector.
    fn visit(&mut self, path: &Path, mut each: impl FnMut(Found<'_>) -> Result<()>) -> Result<()> {
        let mut lines = self.ends.iter().scan(0, |begin, &end| {
            let line = &self.lines[*begin..end];
            *begin = end;
            Some(line)
        });
        if self.rows.is_empty() {
            for (place, line) in (self.first..).zip(lines) {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let mut stored = record(path, place + 1, line)?;
                if let Some(vector) = stored.vector.take() {
                    each(Found { place, vector: &vector, record: Some(stored) })?;
                }
            }
            return Ok(());
        }
        self.vector.resize(self.width, 0.0);
        for (place, row) in (self.first..).zip(self.rows.chunks_exact(4 * self.width)) {
            let stored = match lines.next() {
                Some(line) => Some(record(&records_of(path), place + 1, line)?),
                None => None,
            };
            if stored.as_ref().is_some_and(|stored| !stored.has_vector()) {
                continue;
            }
            for (x, bytes) in self.vector.iter_mut().zip(row.chunks_exact(4)) {
                *x = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            each(Found { place, vector: &self.vector, record: stored })?;
        }
        Ok(())
    }
}
