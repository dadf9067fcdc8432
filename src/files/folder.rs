//! Several files of one folder, all of them or none. A folder that holds nothing but plain files is built again next to
//! its place, and both are exchanged in one step. Where that can't be done (the folder has folders of its own or links,
//! is where this process stands, or is a mount point), every file is complete before the first one is renamed.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

use super::{DRAFT_NAME, Draft, Existing, os, parent, sync_folder};
use crate::error::{Error, Result};

/// Writes files, named by their place in the folder, which is made where there is none. Other files of the folder
/// stay. Returns the files' paths.
///
/// # Errors
/// [`Error::Io`] with the path; then the folder is as it was, or not there.
pub fn write_folder(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    let former = existing(folder).map_err(failed)?;
    let written = match &former {
        None => create(folder, files).map(|()| true),
        Some(former) => replace(former, files),
    };
    let paths: Vec<_> = files.iter().map(|(name, _)| folder.join(name)).collect();
    if !written.map_err(failed)? {
        one_by_one(&paths, files)?;
    }
    Ok(paths)
}

/// Checks that a folder is there or can be made, so that work for it isn't done in vain. Leaves nothing behind.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn check_folder(folder: &Path) -> Result<()> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    let check = || -> io::Result<()> {
        let mut at = folder;
        // The nearest folder that is there already.
        while existing(at)?.is_none() {
            at = parent(at);
        }
        stage(at).map(drop)
    };
    check().map_err(failed)
}

/// The folder at the end of a path's links, if there is one.
fn existing(folder: &Path) -> io::Result<Option<PathBuf>> {
    match fs::metadata(folder) {
        Ok(about) if about.is_dir() => fs::canonicalize(folder).map(Some),
        Ok(_) => Err(io::Error::new(ErrorKind::NotADirectory, "is a file; a folder is needed")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A new folder in `parent` that is removed when it is dropped.
fn stage(parent: &Path) -> io::Result<TempDir> {
    os::with_mode(Builder::new().prefix(DRAFT_NAME.0).suffix(DRAFT_NAME.1), 0o777)
        .tempdir_in(parent)
        .map_err(|error| io::Error::from(error.kind()))
}

fn create(folder: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir_all(parent(folder))?;
    let stage = stage(parent(folder))?;
    fill(stage.path(), files)?;
    fs::rename(stage.path(), folder)?;
    // Nothing of this name is left to remove.
    let _ = stage.keep();
    sync_folder(parent(folder));
    Ok(())
}

fn fill(folder: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    for (name, bytes) in files {
        let mut file = File::create(folder.join(name))?;
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()?;
    }
    sync_folder(folder);
    Ok(())
}

/// Exchanges a folder for one with the new files and the others that it has; false where that can't be done.
fn replace(former: &Path, files: &[(&str, Vec<u8>)]) -> io::Result<bool> {
    let Some(names) = plain_files(former)? else { return Ok(false) };
    let Ok(stage) = stage(parent(former)) else { return Ok(false) };
    fill(stage.path(), files)?;
    for name in &names {
        let (old, new) = (former.join(name), stage.path().join(name));
        let linked = match files.iter().any(|(file, _)| name == file) {
            true => os::take_over(&File::open(&new)?, &fs::metadata(&old)?),
            false => fs::hard_link(&old, &new),
        };
        if linked.is_err() {
            return Ok(false);
        }
    }
    os::take_over(&File::open(stage.path())?, &fs::metadata(former)?)?;
    if exchange(stage.path(), former).is_err() {
        return Ok(false);
    }
    sync_folder(parent(former));
    // The former folder now, with what another process may have put there meanwhile.
    let old = stage.keep();
    for name in &names {
        let _ = fs::remove_file(old.join(name));
    }
    for late in fs::read_dir(&old).into_iter().flatten().flatten() {
        let _ = fs::rename(late.path(), former.join(late.file_name()));
    }
    let _ = fs::remove_dir(old);
    Ok(true)
}

/// The names of a folder's files; `None` where something else is among them, and where this process stands in it:
/// whoever stands in a folder that is exchanged stays in the former one.
fn plain_files(folder: &Path) -> io::Result<Option<Vec<std::ffi::OsString>>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            return Ok(None);
        }
        names.push(entry.file_name());
    }
    let here = fs::canonicalize(".").is_ok_and(|here| here == folder);
    Ok((!here).then_some(names))
}

#[cfg(target_os = "linux")]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_a: &Path, _b: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

fn one_by_one(paths: &[PathBuf], files: &[(&str, Vec<u8>)]) -> Result<()> {
    let mut drafts = Vec::new();
    for (path, (_, bytes)) in paths.iter().zip(files) {
        let mut draft = Draft::new(path, Existing::Replace)?;
        draft.write(bytes)?;
        draft.complete()?;
        drafts.push(draft);
    }
    drafts.into_iter().try_for_each(Draft::publish)
}
