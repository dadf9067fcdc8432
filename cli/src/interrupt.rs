//! Ctrl-C stops a running generation; otherwise it ends the program. A Ctrl-C that this program was started to ignore
//! (by `nohup`, or in the background of a script) stays ignored.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::output::remark;

/// What Ctrl-C does: one of the constants below.
static MODE: AtomicU8 = AtomicU8::new(ENDS);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// It ends the program.
const ENDS: u8 = 0;
/// It is a request to stop; a second one ends the program.
const STOPS: u8 = 1;
/// It is a request to stop.
const ONLY_STOPS: u8 = 2;

/// The exit code that shells expect of a program ended by SIGINT.
pub const EXIT_CODE: u8 = 130;

/// Installs the handler of Ctrl-C, unless the signal is ignored. If the system has no signals, the default stays.
pub fn install() {
    let _ = ctrlc::try_set_handler(|| {
        let before = REQUESTED.swap(true, Ordering::SeqCst);
        match MODE.load(Ordering::SeqCst) {
            ONLY_STOPS => {}
            // A second Ctrl-C ends the program: a prefill only ends after its batch.
            STOPS if !before => {}
            _ => {
                remark("\n");
                std::process::exit(EXIT_CODE.into());
            }
        }
    });
}

/// Lets a write beyond the system's limit on a file's size fail as other writes do: by default its signal ends the program,
/// with its work and its temporary files left behind.
pub fn survive_full_files() {
    #[cfg(unix)]
    // SAFETY: no other thread runs yet, and the signal gets no handler that could do harm.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// While it lives, Ctrl-C is a request to stop.
pub struct Stoppable {
    before: u8,
}

impl Stoppable {
    /// Ctrl-C asks to stop what begins now; a second one ends the program.
    pub fn begin() -> Self {
        Stoppable::with(STOPS)
    }

    /// Ctrl-C asks to stop what begins now, and never ends the program.
    pub fn only() -> Self {
        Stoppable::with(ONLY_STOPS)
    }

    /// [`Stoppable::only`] within one that does the same, else [`Stoppable::begin`].
    pub fn during_chat() -> Self {
        Stoppable::with(MODE.load(Ordering::SeqCst).max(STOPS))
    }

    fn with(mode: u8) -> Self {
        REQUESTED.store(false, Ordering::SeqCst);
        Stoppable { before: MODE.swap(mode, Ordering::SeqCst) }
    }

    /// Whether Ctrl-C was pressed since.
    pub fn requested(&self) -> bool {
        REQUESTED.load(Ordering::SeqCst)
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        MODE.store(self.before, Ordering::SeqCst);
    }
}
