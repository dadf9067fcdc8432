//! A terminal of its own for a command, as a person's is: what is typed, and what is shown.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long anything may take to be shown.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
    /// How much of it has been waited for.
    read: usize,
    child: Child,
}

impl Terminal {
    /// Starts a command whose input and output are a new terminal, the one that controls it.
    pub fn start(command: &mut Command) -> Terminal {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both descriptors are written by the call; no name and no settings are asked for.
        let opened =
            unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size) };
        assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: openpty has just opened them, and nobody else has them.
        let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let shared = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(shared()).stdout(shared()).stderr(shared()).env("TERM", "xterm");
        let controlling = slave.as_raw_fd();
        // SAFETY: between fork and exec only setsid and ioctl are called, which are safe there.
        unsafe {
            command.pre_exec(move || {
                let done = libc::setsid() >= 0 && libc::ioctl(controlling, libc::TIOCSCTTY, 0) == 0;
                if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let child = command.spawn().unwrap();
        // The command keeps the terminal's side too: it ends with the child.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(slave);
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal without a process is an error to read from.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { keyboard, screen, seen: String::new(), read: 0, child }
    }

    /// Types keys as they are: `\r` is Enter, `\x03` Ctrl-C, `\x04` Ctrl-D.
    pub fn types(&mut self, keys: &str) {
        self.types_bytes(keys.as_bytes());
    }

    /// Types bytes that may be no text.
    pub fn types_bytes(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits until this is shown behind what was waited for before; returns what stands before it.
    pub fn shows(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen[self.read..].find(text) {
                let before = self.seen[self.read..][..at].to_owned();
                self.read += at + text.len();
                return before;
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(why) => panic!("no {text:?} ({why:?}) behind {:?} in {:?}", self.read, self.seen),
            }
        }
    }

    /// Waits for the end; returns all that was shown, and the exit status.
    pub fn ends(mut self) -> (String, ExitStatus) {
        let start = Instant::now();
        loop {
            match self.screen.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(why) => panic!("goes on ({why:?}): {:?}", self.seen),
            }
        }
        (std::mem::take(&mut self.seen), self.child.wait().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where a test has failed it may still run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
