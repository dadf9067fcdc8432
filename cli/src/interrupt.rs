//! Ctrl-C stops a running generation; otherwise it ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::output::remark;

static GENERATING: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// The exit code that shells expect of a program ended by SIGINT.
pub const EXIT_CODE: u8 = 130;

/// Installs the handler of Ctrl-C. If the system has no signals, the default stays.
pub fn install() {
    let _ = ctrlc::set_handler(|| {
        // A second Ctrl-C ends the program: a prefill only ends after its batch.
        if !GENERATING.load(Ordering::SeqCst) || REQUESTED.swap(true, Ordering::SeqCst) {
            remark("\n");
            std::process::exit(EXIT_CODE.into());
        }
    });
}

/// While it lives, Ctrl-C is a request to stop.
pub struct Generating(());

impl Generating {
    pub fn begin() -> Self {
        REQUESTED.store(false, Ordering::SeqCst);
        GENERATING.store(true, Ordering::SeqCst);
        Generating(())
    }

    /// Whether Ctrl-C was pressed since.
    pub fn interrupted(&self) -> bool {
        REQUESTED.load(Ordering::SeqCst)
    }
}

impl Drop for Generating {
    fn drop(&mut self) {
        GENERATING.store(false, Ordering::SeqCst);
    }
}
