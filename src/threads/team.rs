//! The team: threads parked between regions, woken together, each running the same closure.
//! The closure is handed over by address, so starting a region allocates nothing.

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
use super::turns::Turns;
use super::work;
use crate::profile;
use crate::{Error, Result};

/// Most workers a team can have.
pub const MAX_WORKERS: usize = 1024;

thread_local! {
    /// Whether this thread is inside a region, of whatever team.
    static IN_REGION: Cell<bool> = const { Cell::new(false) };
}

/// Address space that must be free for a thread to be started: its stack, and as much again. One that finds no memory
/// while it starts aborts the process; so threads start one by one, each only where there is room.
const THREAD_BYTES: usize = 4 << 20;

fn no_thread(index: usize, n: usize, why: impl std::fmt::Display) -> String {
    format!("could not start thread {index} of {n}: {why}")
}

/// Threads that run one parallel region at a time. The caller is worker 0; the others sleep in between.
///
/// May be shared: regions of several callers run one after another, in the order in which they came. Dropping it ends
/// its threads.
pub struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// A region is a turn.
    turns: Turns,
    /// Worker 0's, whoever that is; used in its turn.
    patience: CallerPatience,
}

/// Used by one thread at a time: the one whose turn it is.
struct CallerPatience(Patience);

// SAFETY: only touched in `Team::run_turn`, by the one thread whose turn it is.
unsafe impl Sync for CallerPatience {}

/// What the workers of a team see.
struct Shared {
    count: usize,
    /// How many of the threads have started.
    started: Gate,
    /// Its number rises with each region.
    start: Gate,
    job: JobCell,
    barrier: Barrier,
    cancelled: AtomicBool,
    closing: AtomicBool,
    /// What the first panicking worker said.
    panic: Mutex<Option<String>>,
}

/// The closure of a region: its address, and the function that knows its type.
#[derive(Clone, Copy)]
struct Job {
    closure: *const (),
    call: unsafe fn(*const (), &Worker<'_>),
    path: Option<*const profile::Path>,
}

struct JobCell(UnsafeCell<Option<Job>>);

// SAFETY: written only while no region runs, before `start` rises; read only after it has risen and before
// the reader leaves the barrier. The gates order both.
unsafe impl Sync for JobCell {}
// SAFETY: as above; what the job points to is shared by reference with all workers, as `run` demands Sync.
unsafe impl Send for JobCell {}

/// One worker, inside a region.
pub struct Worker<'a> {
    shared: &'a Shared,
    index: usize,
    patience: &'a Patience,
    /// The barrier counts threads: a worker can't be lent to another.
    this_thread: PhantomData<*const ()>,
}

impl Team {
    /// A team of `n` workers, of which `n − 1` are new threads.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 or more than [`MAX_WORKERS`]; [`Error::Internal`] where the operating
    /// system gives no more threads.
    pub fn new(n: usize) -> Result<Self> {
        if n == 0 || n > MAX_WORKERS {
            return Err(Error::invalid(format!("a team has 1 to {MAX_WORKERS} threads, not {n}")));
        }
        let mut team = Self {
            shared: Arc::new(Shared::new(n)),
            threads: Vec::with_capacity(n - 1),
            turns: Turns::new(),
            patience: CallerPatience(Patience::new()),
        };
        for index in 1..n {
            let mut room = Vec::<u8>::new();
            let found = std::hint::black_box(&mut room).try_reserve_exact(THREAD_BYTES);
            found.map_err(|error| Error::Internal(no_thread(index, n, error)))?;
            drop(room);
            let shared = Arc::clone(&team.shared);
            let builder = std::thread::Builder::new().name(format!("smallmind-{index}"));
            let thread = builder
                .spawn(move || shared.serve(index))
                .map_err(|error| Error::Internal(no_thread(index, n, error)))?;
            team.threads.push(thread);
            team.shared.started.wait_past(index as u32 - 1, &team.patience.0);
        }
        Ok(team)
    }

    /// Workers, the caller included.
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// Runs `f` once on every worker and returns when all have. Waits for the regions of callers that came before to
    /// end.
    ///
    /// # Errors
    /// [`Error::Busy`] inside a region, of this or any team; [`Error::Internal`] with the text of a panic in
    /// `f`, or where a worker returned before a barrier that others waited at; [`Error::Cancelled`] after
    /// [`Worker::cancel`]. The team is usable after any of them.
    pub fn run<F: Fn(&Worker<'_>) + Sync>(&self, f: F) -> Result<()> {
        if IN_REGION.get() {
            return Err(Error::Busy("the thread team"));
        }
        let _turn = self.turns.take();
        IN_REGION.set(true);
        let result = self.run_turn(&f);
        IN_REGION.set(false);
        result
    }

    fn run_turn<F: Fn(&Worker<'_>) + Sync>(&self, f: &F) -> Result<()> {
        /// # Safety
        /// `closure` points to a live `F`.
        unsafe fn call<F: Fn(&Worker<'_>)>(closure: *const (), worker: &Worker<'_>) {
            // SAFETY: by this function's contract.
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
            // SAFETY: no region runs (it is this caller's turn, and the last region was waited for), so no worker
            // reads the cell. `f` and `path` outlive the region: this function waits for its end below, and
            // nothing between here and there can unwind.
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
        self.shared.closing.store(true, SeqCst);
        self.shared.start.change(|number| number.fetch_add(1, SeqCst));
        for thread in self.threads.drain(..) {
            // Workers catch what they run: there is no panic to pass on.
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
    fn new(count: usize) -> Self {
        Self {
            count,
            started: Gate::new(),
            start: Gate::new(),
            job: JobCell(UnsafeCell::new(None)),
            barrier: Barrier::new(count),
            cancelled: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            panic: Mutex::new(None),
        }
    }

    /// The life of a worker other than 0.
    fn serve(&self, index: usize) {
        profile::prepare_thread();
        IN_REGION.set(true);
        let patience = Patience::new();
        self.started.change(|number| number.fetch_add(1, SeqCst));
        let mut seen = 0;
        loop {
            seen = self.start.wait_past(seen, &patience);
            if self.closing.load(SeqCst) {
                return;
            }
            // SAFETY: the region has started, and can't end before this worker leaves the barrier in `work`.
            let Some(job) = (unsafe { *self.job.0.get() }) else { continue };
            self.work(index, &patience, |worker| {
                // SAFETY: the path lives as long as the region.
                let _adopted = profile::adopt(job.path.map(|path| unsafe { &*path }));
                // SAFETY: `closure` is the region's, of the type that `call` was made for.
                unsafe { (job.call)(job.closure, worker) }
            });
        }
    }

    /// Runs one worker's part, keeping a panic in, and leaves the barrier: the end of the region for this worker.
    /// Never unwinds.
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
        // A payload may panic when dropped; then it is leaked.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
    }

    /// Forgets the last region.
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
    /// Which worker this is: 0 is the caller of [`Team::run`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// Workers in the region.
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// Waits until all workers have come here. What any of them wrote before is seen by all after.
    ///
    /// # Errors
    /// [`Poisoned`] where one of them won't come: return from the region.
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

    /// Ends the region: barriers fail from now on, and [`Team::run`] returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, SeqCst);
        self.shared.barrier.quit(self.index);
    }

    /// Whether a panic, a cancel or a failed barrier is ending the region: worth asking inside a long op.
    pub fn is_poisoned(&self) -> bool {
        self.shared.barrier.is_broken()
    }
}
