//! Starts threads one by one: each only if its memory can be had, and not before the thread before it runs.
//! A thread that runs out of memory during its start would abort the process.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{Builder, JoinHandle};

use super::gate::{Gate, Patience};
use crate::memory::reserve::probe;
use crate::{Error, Result};

/// Address space that must be free before a thread is started: its stack, and as much again.
const THREAD_BYTES: usize = 4 << 20;

/// Starts thread `index` of `wanted`, counted from 0 with the calling thread, and returns once it has run `prepare`.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::NoThreads`].
pub(super) fn start(
    index: usize,
    wanted: usize,
    prepare: fn(),
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    probe(THREAD_BYTES, "a thread")?;
    let started = Arc::new(Gate::new());
    let seen = started.clone();
    let thread = Builder::new().name(format!("smallmind-{index}")).spawn(move || {
        prepare();
        seen.change(|number| number.fetch_add(1, SeqCst));
        drop(seen);
        work();
    });
    let thread = thread.map_err(|source| Error::NoThreads { wanted, started: index, source })?;
    started.wait_past(0, &Patience::new());
    Ok(thread)
}

/// A pool of rayon's with `n` threads.
///
/// # Errors
/// As [`start`].
#[cfg_attr(not(feature = "models"), allow(dead_code, reason = "only models are loaded on a pool"))]
pub(crate) fn pool(n: usize) -> Result<rayon::ThreadPool> {
    let mut refused = None;
    let builder = rayon::ThreadPoolBuilder::new().num_threads(n).spawn_handler(|thread| {
        let index = thread.index() + 1;
        // Dropping the handle detaches the thread, which ends with the pool.
        start(index, n + 1, || (), || thread.run()).map(drop).map_err(|error| {
            let kind = match &error {
                Error::NoThreads { source, .. } => source.kind(),
                _ => std::io::ErrorKind::OutOfMemory,
            };
            refused = Some(error);
            kind.into()
        })
    });
    let built = builder.build();
    built.map_err(|error| {
        refused.unwrap_or_else(|| Error::NoThreads {
            wanted: n + 1,
            started: 1,
            source: std::io::Error::other(error.to_string()),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_the_threads_that_it_was_made_for() {
        let pool = pool(3).unwrap();
        assert_eq!(pool.current_num_threads(), 3);
        let names = pool.broadcast(|_| std::thread::current().name().map(str::to_owned));
        assert_eq!(names, [1, 2, 3].map(|i| Some(format!("smallmind-{i}"))));
    }
}
