//! Profiles kept under names, to compare later ones with: one JSON file each in a folder.
//! A file appears whole or not at all, and a name can't lead out of the folder.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::read::{self, Read};
use super::{Format, Report, render};
use crate::error::{Error, Result, quoted};
use crate::files::{Draft, Existing};
use crate::sort;
use crate::text::escaped_path;

/// The longest name.
const MAX_NAME: usize = 64;
/// The ending of the files' names.
const EXTENSION: &str = ".json";

/// A folder of baselines.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// A baseline as a list shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its summary, or the reason why it can't be read.
    pub about: Result<About, String>,
}

/// The summary of a baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// When it was measured: RFC 3339, UTC.
    pub created: String,
    /// The mode that was profiled.
    pub mode: String,
    /// Where.
    pub cpu: String,
    /// The commit of the build, empty where unknown.
    pub commit: String,
    /// Runs of the part that has fewest.
    pub runs: usize,
    /// Median of the runs' wall times, all parts together, in nanoseconds.
    pub median_wall_ns: f64,
}

impl Store {
    /// The store in this folder, or in the user's data folder: `smallmind/baselines` in `$XDG_DATA_HOME`, else in
    /// `~/.local/share`. Nothing is made yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where neither is known.
    pub fn open(dir: Option<PathBuf>) -> Result<Store> {
        let dir =
            match dir {
                Some(dir) => dir,
                None => default_dir(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")).ok_or_else(
                    || Error::invalid("no home folder to keep baselines in: a folder must be given"),
                )?,
            };
        Ok(Store { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps a report under a name, and gives its file.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a bad name or, unless `replace`, one that is taken; [`Error::Format`] for a
    /// report with something amiss; [`Error::Io`].
    pub fn save(&self, name: &str, report: &Report, replace: bool) -> Result<PathBuf> {
        let path = self.check_free(name, replace)?;
        read::check(report).map_err(Error::format)?;
        let bytes = render(report, Format::Json)?;
        let failed = |source| Error::Io { path: path.clone(), source };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let existing = if replace { Existing::Replace } else { Existing::Refuse };
        let written = Draft::new(&path, existing).and_then(|mut draft| {
            draft.write(&bytes)?;
            // Another process may have taken the name meanwhile.
            draft.publish()
        });
        match written {
            Ok(()) => Ok(path),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => Err(taken(name)),
            Err(error) => Err(error),
        }
    }

    /// The file that a baseline of this name gets.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a bad name or, unless `replace`, one that is taken.
    pub fn check_free(&self, name: &str, replace: bool) -> Result<PathBuf> {
        let path = self.path(name)?;
        if !replace && path.symlink_metadata().is_ok() {
            return Err(taken(name));
        }
        Ok(path)
    }

    /// Whether there is a baseline of this name; a name that can't be one has none.
    pub fn contains(&self, name: &str) -> bool {
        self.path(name).is_ok_and(|path| path.is_file())
    }

    /// Reads a baseline.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a bad name or one that isn't there; those of [`read::read`].
    pub fn load(&self, name: &str) -> Result<Read> {
        read::read(self.existing(name)?)
    }

    /// Deletes a baseline.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a bad name or one that isn't there; [`Error::Io`].
    pub fn delete(&self, name: &str) -> Result<()> {
        let path = self.existing(name)?;
        fs::remove_file(&path).map_err(|source| Error::Io { path, source })
    }

    /// All baselines by name; one that can't be read is listed with the reason. A folder that isn't there has none.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder can't be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let failed = |source| Error::Io { path: self.dir.clone(), source };
        let files = match fs::read_dir(&self.dir) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut names = Vec::new();
        for file in files {
            let file = file.map_err(failed)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(EXTENSION));
            names.extend(name.filter(|name| check_name(name).is_ok()).map(str::to_owned));
        }
        sort::by(&mut names, String::cmp);
        let entry = |name: String| {
            let about = self.load(&name).and_then(Read::into_full).map(|report| About::of(&report));
            Entry { about: about.map_err(|error| error.to_string()), name }
        };
        Ok(names.into_iter().map(entry).collect())
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.dir.join(format!("{name}{EXTENSION}")))
    }

    fn existing(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name)?;
        match path.is_file() {
            true => Ok(path),
            false => {
                Err(Error::invalid(format!("no baseline {} in {}", quoted(name), escaped_path(&self.dir))))
            }
        }
    }
}

impl About {
    fn of(report: &Report) -> About {
        let runs = report.parts.iter().map(|part| part.runs.len()).min().unwrap_or(0);
        let wall = |run: usize| report.parts.iter().map(|part| part.runs[run].wall_ns as f64).sum::<f64>();
        let mut walls: Vec<f64> = (0..runs).map(wall).collect();
        sort::by(&mut walls, f64::total_cmp);
        let median = if runs == 0 { 0.0 } else { 0.5 * (walls[(runs - 1) / 2] + walls[runs / 2]) };
        About {
            created: report.created.clone(),
            mode: report.mode.clone(),
            cpu: report.machine.cpu.clone(),
            commit: report.machine.commit.clone(),
            runs,
            median_wall_ns: median,
        }
    }
}

/// A name is a plain word, so that it is a file's name everywhere and never a path.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let sound = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed);
    if sound && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{} can't name a baseline: up to {MAX_NAME} letters, digits, '.', '-' and '_', first a letter or digit",
        quoted(name)
    )))
}

fn taken(name: &str) -> Error {
    Error::invalid(format!("a baseline {} is there already (--force replaces it)", quoted(name)))
}

/// An empty or relative `$XDG_DATA_HOME` counts as none, as its specification has it.
fn default_dir(data: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let data = data.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || Some(PathBuf::from(home.filter(|home| !home.is_empty())?).join(".local/share"));
    Some(data.or_else(home)?.join("smallmind").join("baselines"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::data::{FORMAT, Machine, Part, Run, VERSION};

    fn report(walls: &[u64]) -> Report {
        let runs = walls.iter().map(|&wall_ns| Run { wall_ns, ..Run::default() }).collect();
        Report {
            format: FORMAT.into(),
            version: VERSION,
            counting: None,
            created: "2026-01-02T03:04:05Z".into(),
            mode: "enhanced".into(),
            machine: Machine { cpu: "A CPU".into(), commit: "abc".into(), ..Machine::default() },
            models: Vec::new(),
            parts: vec![Part { name: "same work".into(), about: String::new(), runs }],
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(dir.path().join("a").join("b"))).unwrap();
        (dir, store)
    }

    #[test]
    fn what_is_saved_is_listed_loaded_and_deleted() {
        let (_dir, store) = store();
        assert!(store.list().unwrap().is_empty());
        let first = report(&[4, 2, 9]);
        let path = store.save("v1.0", &first, false).unwrap();
        assert_eq!(path, store.dir().join("v1.0.json"));
        assert_eq!(store.load("v1.0").unwrap().into_full().unwrap(), first);
        store.save("older", &report(&[7, 8]), false).unwrap();
        let entries = store.list().unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["older", "v1.0"]);
        let about = entries[1].about.as_ref().unwrap();
        assert_eq!((about.runs, about.median_wall_ns), (3, 4.0));
        assert_eq!((&*about.cpu, &*about.commit, &*about.mode), ("A CPU", "abc", "enhanced"));
        assert_eq!(entries[0].about.as_ref().unwrap().median_wall_ns, 7.5);
        store.delete("older").unwrap();
        assert!(!store.contains("older") && store.contains("v1.0"));
        assert!(store.delete("older").unwrap_err().to_string().contains("no baseline \"older\""));
        // No draft is left.
        assert_eq!(fs::read_dir(store.dir()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_is_replaced_only_where_that_is_asked_for() {
        let (_dir, store) = store();
        store.save("x", &report(&[1]), false).unwrap();
        let error = store.save("x", &report(&[2]), false).unwrap_err().to_string();
        assert!(error.contains("is there already"), "{error}");
        assert_eq!(store.load("x").unwrap().report, report(&[1]));
        store.save("x", &report(&[2]), true).unwrap();
        assert_eq!(store.load("x").unwrap().report, report(&[2]));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let (_dir, store) = store();
        let long = "x".repeat(65);
        for name in
            ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "-rf", "a\\b", "a\0b", "a b", "ä", &long]
        {
            for error in [
                store.save(name, &report(&[1]), true).unwrap_err(),
                store.load(name).unwrap_err(),
                store.delete(name).unwrap_err(),
            ] {
                assert!(error.to_string().contains("can't name a baseline"), "{name:?}: {error}");
            }
            assert!(!store.contains(name));
        }
        assert!(!store.dir().exists());
        assert!(check_name(&long[..64]).is_ok());
    }

    #[test]
    fn a_report_with_something_amiss_is_not_kept() {
        let (_dir, store) = store();
        let mut bad = report(&[1]);
        bad.parts.clear();
        assert!(store.save("x", &bad, false).unwrap_err().to_string().contains("parts: empty"));
        assert!(!store.contains("x"));
    }

    #[test]
    fn a_file_that_is_no_baseline_is_listed_with_the_reason() {
        let (_dir, store) = store();
        store.save("good", &report(&[1]), false).unwrap();
        fs::write(store.dir().join("bad.json"), "{").unwrap();
        fs::write(store.dir().join("notes.txt"), "text").unwrap();
        let entries = store.list().unwrap();
        assert_eq!(entries.len(), 2);
        let reason = entries[0].about.as_ref().unwrap_err();
        assert!(
            entries[0].name == "bad" && reason.contains("bad.json") && reason.contains("line 1"),
            "{reason}"
        );
        assert!(entries[1].about.is_ok());
    }

    #[test]
    fn the_folder_is_that_of_the_users_data() {
        let dir = |data: Option<&str>, home: Option<&str>| {
            default_dir(data.map(OsString::from), home.map(OsString::from))
        };
        assert_eq!(dir(Some("/data"), Some("/me")).unwrap(), Path::new("/data/smallmind/baselines"));
        let local = Path::new("/me/.local/share/smallmind/baselines");
        assert_eq!(dir(None, Some("/me")).unwrap(), local);
        assert_eq!(dir(Some(""), Some("/me")).unwrap(), local);
        assert_eq!(dir(Some("relative"), Some("/me")).unwrap(), local);
        assert_eq!(dir(None, None), None);
    }
}
