//! The team: threads that sleep between regions, wake together, and each run the same closure.
//! The closure is passed by address, so starting a region allocates nothing.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::barrier::{Barrier, Poisoned};
use super::gate::{Gate, Patience};
use super::os::Home;
use super::start::start;
use super::turns::Turns;
use super::work;
use crate::memory::reserve::with_room;
use crate::profile;
use crate::{Error, Result};

/// Most workers a team can have.
pub const MAX_WORKERS: usize = 1024;

/// The regions that a thread is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    None,
    /// That of a team of several workers.
    Several,
    /// That of a team of one, maybe within another team's.
    One,
}

thread_local! {
    static INSIDE: Cell<Inside> = const { Cell::new(Inside::None) };
}

/// Threads that run one parallel region at a time. The caller of a region is worker 0; the other workers are threads
/// that sleep between regions.
///
/// A team may be shared: regions of several callers run one after the other, in the order of the calls. Dropping the
/// team ends its threads. In a forked child the team has no threads: [`Team::run`] is refused, and dropping it only frees
/// memory.
pub struct Team {
    home: Arc<Home>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Each region is a turn.
    turns: Turns,
    /// The patience of worker 0, which is the thread that has the turn.
    patience: CallerPatience,
}

/// Used by one thread at a time: the one that has the turn.
struct CallerPatience(Patience);

// SAFETY: `Team::new`, which owns the team alone, and `Team::run_turn`, whose caller has the turn, are the only users;
// `Turns` gives the turn to one thread at a time, which sees what earlier ones wrote.
unsafe impl Sync for CallerPatience {}

/// The part of a team that its workers share.
struct Shared {
    count: usize,
    /// Its number rises with each region.
    start: Gate,
    job: JobCell,
    barrier: Barrier,
    cancelled: AtomicBool,
    closing: AtomicBool,
    /// The text of the first worker's panic.
    panic: Mutex<Option<String>>,
}

/// The closure of a region: its address, and a function that calls it with its type.
#[derive(Clone, Copy)]
struct Job {
    closure: *const (),
    call: unsafe fn(*const (), &Worker<'_>),
    path: Option<*const profile::Path>,
}

struct JobCell(UnsafeCell<Option<Job>>);

// SAFETY: the cell is written only while no region runs, before `start` rises, and read only after `start` has risen
// and before the reader leaves the barrier. The gates' SeqCst operations order these accesses.
unsafe impl Sync for JobCell {}
// SAFETY: as for Sync. The job's pointers are shared with all workers only as references: `Team::run` demands that the
// closure is Sync, and a `profile::Path` is.
unsafe impl Send for JobCell {}

/// A worker inside a region.
pub struct Worker<'a> {
    shared: &'a Shared,
    index: usize,
    patience: &'a Patience,
    /// Makes it neither Send nor Sync: the barrier counts on one thread for each worker.
    this_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Worker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker {} of {}", self.index, self.shared.count)
    }
}

impl Team {
    /// A team of `n` workers, of which `n − 1` are new threads.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 or more than [`MAX_WORKERS`]; [`Error::OutOfMemory`]; [`Error::NoThreads`].
    pub fn new(n: usize) -> Result<Self> {
        if n == 0 || n > MAX_WORKERS {
            return Err(Error::invalid(format!("a team has 1 to {MAX_WORKERS} threads, not {n}")));
        }
        let mut team = Self {
            home: Arc::new(Home::here()),
            shared: Arc::new(Shared::new(n)?),
            threads: with_room(n - 1, "a team")?,
            turns: Turns::new(),
            patience: CallerPatience(Patience::new()),
        };
        for index in 1..n {
            let shared = Arc::clone(&team.shared);
            team.threads.push(start(index, n, profile::prepare_thread, move || shared.serve(index))?);
        }
        Ok(team)
    }

    /// Number of workers, including the caller of a region.
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// The process that made it.
    #[cfg_attr(
        not(feature = "models"),
        allow(dead_code, reason = "only contexts and the C ABI keep forks out by it")
    )]
    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// Runs `f` once on each worker, and returns when all calls have returned. First waits for the regions of earlier
    /// callers. Within the region of a team of several, a team of one may run a region, in which no other may: its caller
    /// then waits only for threads that wait for nobody.
    ///
    /// # Errors
    /// [`Error::WrongProcess`] in a forked child; [`Error::Busy`] inside another region, except as above;
    /// [`Error::Internal`] with the text of a panic in `f`, or where a worker returned before a barrier at which others
    /// waited; [`Error::Cancelled`] after [`Worker::cancel`]. The team stays usable after any of them.
    pub fn run<F: Fn(&Worker<'_>) + Sync>(&self, f: F) -> Result<()> {
        if !self.home.is_here() {
            return Err(Error::WrongProcess("the thread team"));
        }
        let (outer, inner) = (INSIDE.get(), if self.count() == 1 { Inside::One } else { Inside::Several });
        if outer != Inside::None && (outer, inner) != (Inside::Several, Inside::One) {
            return Err(Error::Busy("the thread team"));
        }
        let _turn = self.turns.take();
        INSIDE.set(inner);
        let result = self.run_turn(&f);
        INSIDE.set(outer);
        result
    }

    fn run_turn<F: Fn(&Worker<'_>) + Sync>(&self, f: &F) -> Result<()> {
        /// # Safety
        /// `closure` points to a live `F`.
        unsafe fn call<F: Fn(&Worker<'_>)>(closure: *const (), worker: &Worker<'_>) {
            // SAFETY: the caller promises that `closure` points to a live `F`.
            unsafe { (*closure.cast::<F>())(worker) }
        }
        let shared = &*self.shared;
        let patience = &self.patience.0;
        shared.renew();
        if shared.count > 1 {
            let path = profile::current_path();
            let job = Job {
                closure: std::ptr::from_ref(f).cast(),
                call: call::<F>,
                path: path.as_ref().map(std::ptr::from_ref),
            };
            // SAFETY: no worker reads the cell now: this thread has the turn, and the previous region has ended. `f`
            // and `path` outlive the region: this function waits for its end below, and nothing before that can unwind.
            unsafe { *shared.job.0.get() = Some(job) };
            shared.start.change(|number| number.fetch_add(1, SeqCst));
            shared.work(0, patience, f);
            shared.barrier.wait_all_left(patience);
        } else {
            shared.work(0, patience, f);
        }
        shared.outcome()
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // A handle that is dropped detaches its thread, which this process doesn't have.
            self.threads.drain(..).for_each(std::mem::forget);
            return;
        }
        self.shared.closing.store(true, SeqCst);
        self.shared.start.change(|number| number.fetch_add(1, SeqCst));
        for thread in self.threads.drain(..) {
            // A worker catches the panics of closures, so none is left to pass on.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Team").field("count", &self.count()).finish()
    }
}

impl Shared {
    fn new(count: usize) -> Result<Self> {
        Ok(Self {
            count,
            start: Gate::new(),
            job: JobCell(UnsafeCell::new(None)),
            barrier: Barrier::new(count)?,
            cancelled: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            panic: Mutex::new(None),
        })
    }

    /// The main function of a worker's thread.
    fn serve(&self, index: usize) {
        INSIDE.set(Inside::Several);
        let patience = Patience::new();
        let mut seen = 0;
        loop {
            seen = self.start.wait_past(seen, &patience);
            if self.closing.load(SeqCst) {
                return;
            }
            // SAFETY: the region has started, so the cell was written before; it isn't written again before the region
            // ends, which waits for this worker to leave the barrier in `work`.
            let Some(job) = (unsafe { *self.job.0.get() }) else { continue };
            self.work(index, &patience, |worker| {
                // SAFETY: `run_turn` keeps the path alive until the region ends, and the region waits for this worker.
                let _adopted = profile::adopt(job.path.map(|path| unsafe { &*path }));
                // SAFETY: `run_turn` made `call` for the type of `closure`, and keeps it alive until the region ends.
                unsafe { (job.call)(job.closure, worker) }
            });
        }
    }

    /// Runs one worker's call, catches a panic, and leaves the barrier, which ends the region for this worker. Never
    /// unwinds.
    fn work(&self, index: usize, patience: &Patience, f: impl FnOnce(&Worker<'_>)) {
        let worker = Worker { shared: self, index, patience, this_thread: PhantomData };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(&worker))) {
            self.note_panic(payload);
            self.barrier.quit(index);
        }
        self.barrier.leave(index);
    }

    #[cold]
    fn note_panic(&self, payload: Box<dyn Any + Send>) {
        let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_string(),
            (_, Some(text)) => text.clone(),
            _ => "a panic without a text".to_string(),
        };
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
        // Dropping a payload may panic; that second payload is leaked.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
    }

    /// Resets the state of the last region.
    fn renew(&self) {
        self.barrier.renew();
        self.cancelled.store(false, SeqCst);
    }

    fn outcome(&self) -> Result<()> {
        if let Some(text) = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Error::Internal(format!("a worker panicked: {text}")));
        }
        if self.cancelled.load(SeqCst) {
            return Err(Error::Cancelled);
        }
        if self.barrier.is_broken() {
            return Err(Error::Internal("a worker left before a barrier that others waited at".into()));
        }
        Ok(())
    }
}

impl Worker<'_> {
    /// Number of this worker: 0 is the caller of [`Team::run`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of workers in the region.
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// A scope of work that workers share: it counts as a call for the first worker, and as assistance for the others.
    #[cfg(feature = "models")]
    #[inline(always)]
    pub(crate) fn clock(&self, zone: profile::Zone, from: profile::Moment) -> profile::Scope {
        if self.index == 0 { profile::scope_at(zone, from) } else { profile::assist_at(zone, from) }
    }

    /// Waits until all workers have called it. Afterwards each worker sees all that others wrote before.
    ///
    /// # Errors
    /// [`Poisoned`] where another worker won't call it: return from the region.
    #[inline]
    pub fn barrier(&self) -> Result<(), Poisoned> {
        if self.shared.count == 1 {
            return if self.shared.barrier.is_broken() { Err(Poisoned) } else { Ok(()) };
        }
        self.shared.barrier.wait(self.index, self.patience)
    }

    /// This worker's even share of `0..total`, cut at multiples of `grain`; see [`share`](super::share).
    #[inline]
    pub fn share(&self, total: usize, grain: usize) -> Range<usize> {
        work::share(total, grain, self.index, self.count())
    }

    /// Ends the region: all barriers fail from now on, and [`Team::run`] returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, SeqCst);
        self.shared.barrier.quit(self.index);
    }

    /// Whether a panic, a cancellation or a failed barrier is ending the region. Long ops should check it.
    pub fn is_poisoned(&self) -> bool {
        self.shared.barrier.is_broken()
    }
}
