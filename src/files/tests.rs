//! Files that are replaced, kept and refused: permissions, links, streams, errors in the middle.

use super::*;
use std::path::PathBuf;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn kind(error: Error) -> ErrorKind {
    match error {
        Error::Io { source, .. } => source.kind(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_draft_is_seen_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "former").unwrap();
    let mut draft = Draft::new(&path, Existing::Replace).unwrap();
    draft.write(b"new ").unwrap();
    draft.write(b"file").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"former");
    drop(draft);
    assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"former".to_vec(), vec!["file".into()]));
    write(&path, b"new").unwrap();
    assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"new".to_vec(), vec!["file".into()]));
}

#[test]
fn a_file_that_may_not_be_replaced_stays_also_where_it_comes_late() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let draft = Draft::new(&path, Existing::Refuse).unwrap();
    fs::write(&path, "former").unwrap();
    assert_eq!(kind(draft.publish().unwrap_err()), ErrorKind::AlreadyExists);
    assert_eq!(kind(Draft::new(&path, Existing::Refuse).unwrap_err()), ErrorKind::AlreadyExists);
    assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"former".to_vec(), vec!["file".into()]));
}

#[test]
fn what_can_be_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    for place in [path("."), path("new/"), folder.path().to_owned()] {
        let error = write(&place, b"x").unwrap_err();
        assert!(error.to_string().ends_with("is a folder; a file is needed"), "{error}");
    }
    assert_eq!(kind(write(&path("none/file"), b"x").unwrap_err()), ErrorKind::NotFound);
    assert!(names(folder.path()).is_empty());
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn permissions_of_the_former_file_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (path, plain, own) =
            (folder.path().join("file"), folder.path().join("plain"), folder.path().join("own"));
        fs::write(&path, "former").unwrap();
        for bits in [0o640, 0o604, 0o755] {
            fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
            write(&path, b"new").unwrap();
            assert_eq!(mode(&path), bits);
        }
        // A new file has those that the process gives.
        File::create(&plain).unwrap();
        let usual = mode(&plain);
        fs::remove_file(&plain).unwrap();
        write(&plain, b"new").unwrap();
        assert_eq!(mode(&plain), usual);
        Draft::private(&own).unwrap().publish().unwrap();
        assert_eq!(mode(&own), 0o600);
    }

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let (link, second) = (folder.path().join("link"), inner.join("second"));
        // Relative to the folder that each link stands in; the file isn't there yet.
        symlink("inner/second", &link).unwrap();
        symlink("file", &second).unwrap();
        for text in ["first", "second"] {
            write(&link, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(inner.join("file")).unwrap(), text);
        }
        assert!(link.is_symlink() && second.is_symlink());
        assert_eq!(names(&inner), ["file", "second"]);
        let around = folder.path().join("around");
        symlink("around", &around).unwrap();
        assert!(write(&around, b"x").unwrap_err().to_string().contains("too many symbolic links"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_and_pipes_are_written_to() {
        assert_eq!(kind(write(Path::new("/dev/full"), b"x").unwrap_err()), ErrorKind::StorageFull);
        let null = Draft::new(Path::new("/dev/null"), Existing::Refuse).unwrap();
        assert!(null.is_stream());
        null.publish().unwrap();
        // A stream of this process that is a regular file: it is appended to, not replaced.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "before, ").unwrap();
        let open = OpenOptions::new().append(true).open(&path).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&open);
        for stream in [format!("/dev/fd/{number}"), format!("/proc/self/fd/{number}")] {
            write(Path::new(&stream), b"x").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"before, xx");
        assert_eq!(names(folder.path()), ["file"]);
    }

    fn files<'a>() -> Vec<(&'a str, Vec<u8>)> {
        vec![("a", b"new a".to_vec()), ("b", b"new b".to_vec())]
    }

    #[test]
    fn a_folder_is_exchanged_with_what_else_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("new/reports");
        let paths = write_folder(&place, &files()).unwrap();
        assert_eq!(paths, [place.join("a"), place.join("b")]);
        fs::write(place.join("a"), "former").unwrap();
        fs::write(place.join("notes"), "mine").unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(place.join("a"), Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link");
        symlink("new/reports", &link).unwrap();
        write_folder(&link, &files()).unwrap();
        assert_eq!((names(&place), mode(&place)), (vec!["a".into(), "b".into(), "notes".into()], 0o750));
        assert_eq!((fs::read(place.join("a")).unwrap(), mode(&place.join("a"))), (b"new a".to_vec(), 0o640));
        assert_eq!(fs::read(place.join("notes")).unwrap(), b"mine");
        assert!(link.is_symlink());
        assert_eq!(names(&folder.path().join("new")), ["reports"], "nothing is left beside it");
    }

    /// A folder of its own, and a link, in the place of a plain file.
    #[test]
    fn a_folder_that_can_not_be_exchanged_gets_its_files_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("file"), "former").unwrap();
        symlink("file", folder.path().join("a")).unwrap();
        write_folder(folder.path(), &files()).unwrap();
        assert_eq!(names(folder.path()), ["a", "b", "file", "inner"]);
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"new a");
        assert!(folder.path().join("a").is_symlink());
        // One that can't be written keeps all of them as they are.
        fs::remove_file(folder.path().join("b")).unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        let others = vec![("a", b"third".to_vec()), ("b", b"third".to_vec())];
        assert_eq!(kind(write_folder(folder.path(), &others).unwrap_err()), ErrorKind::IsADirectory);
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"new a");
        assert_eq!(names(folder.path()), ["a", "b", "file", "inner"]);
    }

    #[test]
    fn a_folder_is_checked_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        check_folder(&folder.path().join("not/yet")).unwrap();
        check_folder(folder.path()).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = check_folder(&folder.path().join("file")).unwrap_err();
        assert!(error.to_string().ends_with("is a file; a folder is needed"), "{error}");
        assert!(check_folder(&folder.path().join("file/inner")).is_err());
        assert_eq!(names(folder.path()), ["file"]);
    }
}
