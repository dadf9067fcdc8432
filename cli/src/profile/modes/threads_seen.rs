//! The threads of this process, as the system lists them: how many were started between two moments, except those that
//! have ended meanwhile.

use std::collections::BTreeSet;

/// The threads at a moment; none where the system has no list of them.
pub struct ThreadsSeen(Option<BTreeSet<u32>>);

impl ThreadsSeen {
    pub fn now() -> ThreadsSeen {
        ThreadsSeen(listed())
    }

    /// How many threads of a later moment weren't there yet.
    pub fn started_since(&self, later: &ThreadsSeen) -> Option<usize> {
        Some(later.0.as_ref()?.difference(self.0.as_ref()?).count())
    }
}

#[cfg(target_os = "linux")]
fn listed() -> Option<BTreeSet<u32>> {
    let entries = std::fs::read_dir("/proc/self/task").ok()?;
    entries.map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(not(target_os = "linux"))]
fn listed() -> Option<BTreeSet<u32>> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_was_started_is_counted() {
        let before = ThreadsSeen::now();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv().is_err());
        // Tests on other threads may start some, too.
        let started = before.started_since(&ThreadsSeen::now()).unwrap();
        assert!(started >= 1);
        drop(go);
        assert!(thread.join().unwrap());
        assert!(ThreadsSeen(None).started_since(&before).is_none());
    }
}
