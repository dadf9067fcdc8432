//! Files that commands write are whole or absent: after a full disk (a limit on the size of files stands for one), after
//! a kill, and where the output is no file that could be replaced.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{assert_fails, chat_model, fails, smallmind, stderr, succeeds, with_input};

/// No file may become longer than this.
pub fn limited(mut command: Command, bytes: u64) -> Command {
    // SAFETY: between fork and exec only signal and setrlimit are called, which are safe there.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            // By default the signal ends the process.
            libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    command
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What every file of a folder holds.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(folder.join(name)).unwrap());
    names(folder).into_iter().map(read).collect()
}

fn profile(out: &str) -> Command {
    smallmind(&["profile", "memory", "--out", out, "-q"])
}

#[test]
fn a_full_disk_leaves_the_former_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let (model, reports, talk, page) =
        (path("model.gguf"), path("reports"), path("talk.json"), path("page.html"));
    let store = path("store");
    let save = |name: &str, force: &[&str]| {
        let mut command = smallmind(&["baseline", "save", name, "--from", &reports, "--dir", &store]);
        command.args(force);
        command
    };
    succeeds(&mut smallmind(&["create", "--random", "small", "-o", &model]));
    succeeds(&mut profile(&reports));
    ["one", "two"].iter().for_each(|name| drop(succeeds(&mut save(name, &[]))));
    let chat = || smallmind(&["chat", "-m", &chat_model(), "-q", "-n", "4"]);
    let said = format!("{}\n/save {talk}\n", "word ".repeat(40));
    assert!(with_input(chat(), said.as_bytes()).status.success());
    let history = || smallmind(&["baseline", "history", "-o", &page, "--dir", &store]);
    succeeds(&mut history());
    let compare = || smallmind(&["profile", "compare", &reports, &reports, "-o", &page]);

    let all = || {
        let folders = [folder.path().join("reports"), folder.path().join("store")];
        let files = ["model.gguf", "talk.json", "page.html"]
            .map(|name| std::fs::read(folder.path().join(name)).unwrap());
        (names(folder.path()), folders.map(|folder| contents(&folder)), files)
    };
    let before = all();
    let failed = |command: Command, input: &[u8]| -> Output {
        let output = with_input(limited(command, 100), input);
        assert!(!stderr(&output).contains(".smallmind-"), "{}", stderr(&output));
        output
    };
    let force = ["create", "--random", "small", "--seed", "9", "--force", "-o", &model];
    assert_fails("create", &failed(smallmind(&force), b""), 1, "model.gguf: File too large");
    assert_fails("profile", &failed(profile(&reports), b""), 1, "reports: File too large");
    assert_fails("baseline", &failed(save("one", &["--force"]), b""), 1, "one.json: File too large");
    assert_fails("history", &failed(history(), b""), 1, "page.html: File too large");
    assert_fails("compare", &failed(compare(), b""), 1, "page.html: File too large");
    let chatted = failed(chat(), said.as_bytes());
    assert!(stderr(&chatted).contains("talk.json: File too large"), "{}", stderr(&chatted));
    assert!(all() == before, "{:?} and {:?}", names(folder.path()), before.0);
    // Where nothing stood before, nothing stands after.
    let new = path("new");
    assert_fails("profile", &failed(profile(&new), b""), 1, "new: File too large");
    assert!(all() == before);
}

#[test]
fn a_kill_leaves_the_former_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, "former").unwrap();
    let shape = ["create", "--random", "32768,64,2048,4,16", "--force", "-o", path.to_str().unwrap()];
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT] {
        let mut child = smallmind(&shape).spawn().unwrap();
        let start = Instant::now();
        let draft = || {
            let mut drafts = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata());
            drafts.any(|about| about.is_ok_and(|about| about.len() > 4 << 20))
        };
        while !draft() {
            assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(1));
        }
        // SAFETY: kill only sends a signal, to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
        let status = child.wait().unwrap();
        assert!(!status.success());
        assert_eq!(std::fs::read(&path).unwrap(), b"former");
        let left: Vec<_> = names(folder.path()).into_iter().filter(|name| name != "model.gguf").collect();
        match signal {
            // Ctrl-C removes what isn't complete.
            libc::SIGINT => assert_eq!((status.code(), left.len()), (Some(130), 0)),
            _ => left.iter().for_each(|name| std::fs::remove_file(folder.path().join(name)).unwrap()),
        }
    }
}

#[test]
fn outputs_that_are_no_files_are_written_to() {
    let create = ["create", "--random", "small", "--seed", "7", "-o"];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    succeeds(&mut smallmind(&[&create[..], &[path.to_str().unwrap()]].concat()));
    let whole = std::fs::read(&path).unwrap();
    // A pipe, and a file that the shell has opened: nothing but the model's bytes.
    let streams = [&create[..], &["/dev/stdout"]].concat();
    let piped = smallmind(&streams).output().unwrap();
    assert!(piped.status.success() && piped.stdout == whole, "{}", stderr(&piped));
    let opened = folder.path().join("opened.gguf");
    let status = smallmind(&streams).stdout(std::fs::File::create(&opened).unwrap()).status().unwrap();
    assert!(status.success() && std::fs::read(&opened).unwrap() == whole);
    fails(&mut smallmind(&[&create[..], &["/dev/full"]].concat()), 1, "/dev/full: No space left");
    fails(
        &mut smallmind(&[&create[..], &[folder.path().to_str().unwrap()]].concat()),
        1,
        "is a folder; a file",
    );
    // A reader who has gone is no error.
    let mut child = smallmind(&streams).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert_eq!(names(folder.path()), ["model.gguf", "opened.gguf"]);
}
