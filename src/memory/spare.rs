//! Spare memory for allocations that can't fail: Rust's collections abort the process where the system refuses them a few
//! bytes. The spare is a mapping that nobody touches. When the system refuses such an allocation, the spare is given back
//! to it, the allocation is tried again, and memory is *short* from then on: the reservations of [`super::reserve`] and
//! [`super::AlignedBuf`] are refused, so that the work under way ends as an error before the spare is used up.
//! [`ready`] takes the spare again.
//!
//! Only `allocator` knows when the system refuses. Where another allocator is installed, there is no spare.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::os::{Mapping, grow_stack};

/// Whether the allocator is installed that gives the spare back.
pub(crate) const INSTALLED: bool = cfg!(any(feature = "counting-alloc", test)) && super::os::CAN_MAP;

/// Bytes of the spare. Between the first refused allocation and the next reservation, work allocates some hundred KB; the
/// tables of a compiled pattern, which grow to 2 MB, are the largest piece.
const BYTES: usize = 6 << 20;

/// Allocations up to this size may use the spare. Larger ones are made fallibly, or while a [`Hold`] exists.
const SMALL: usize = 2 << 20;

/// Most holds at the same time; further ones only check.
const HOLDS: usize = 62;

/// The spare hasn't been taken yet.
const UNUSED: u8 = 0;
/// The spare is there.
const READY: u8 = 1;
/// The spare was given back, and isn't there again.
const SHORT: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNUSED);
static SPARE: Mutex<Spare> = Mutex::new(Spare { base: None, holds: [const { Slot::Free }; HOLDS] });

thread_local! {
    /// Holds of this thread.
    static HOLDING: Cell<u32> = const { Cell::new(0) };
    /// Whether this thread's stack is as large as work may need.
    static STACK_GROWN: Cell<bool> = const { Cell::new(false) };
}

struct Spare {
    base: Option<Mapping>,
    holds: [Slot; HOLDS],
}

enum Slot {
    Free,
    Taken(Mapping),
    /// Given back; its [`Hold`] still exists.
    Used,
}

impl Spare {
    fn lock() -> MutexGuard<'static, Spare> {
        // Nothing under the lock panics.
        SPARE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> usize {
        let held = self.holds.iter().map(|slot| if let Slot::Taken(held) = slot { held.len() } else { 0 });
        held.sum::<usize>() + self.base.as_ref().map_or(0, Mapping::len)
    }

    /// Gives everything back to the system.
    fn give_back(&mut self) {
        self.base = None;
        for slot in &mut self.holds {
            if matches!(slot, Slot::Taken(_)) {
                *slot = Slot::Used;
            }
        }
        STATE.store(SHORT, SeqCst);
    }
}

/// Takes the spare, if it isn't there; false if the system refuses it. To be called before work that allocates, where
/// nothing is lost yet.
#[inline]
pub(crate) fn ready() -> bool {
    !INSTALLED || STATE.load(SeqCst) == READY || take()
}

/// [`ready`], and the calling thread's stack as well: it may not be able to grow later.
#[inline]
pub(crate) fn ready_for_work() -> bool {
    if INSTALLED && !STACK_GROWN.get() {
        STACK_GROWN.set(grow_stack());
        if !STACK_GROWN.get() {
            return false;
        }
    }
    ready()
}

#[cold]
fn take() -> bool {
    let mut spare = Spare::lock();
    if spare.base.is_none() {
        spare.base = Mapping::ballast(BYTES);
    }
    let there = spare.base.is_some();
    if there {
        STATE.store(READY, SeqCst);
    }
    there
}

/// Whether the spare was given back: reservations are to be refused.
#[inline]
pub(crate) fn is_short() -> bool {
    INSTALLED && STATE.load(SeqCst) == SHORT
}

/// Called where the system has refused `bytes`: gives the spare back. False if this can't help, or must not.
#[cold]
pub(super) fn give_back_for(bytes: usize) -> bool {
    if bytes > SMALL && HOLDING.get() == 0 {
        return false;
    }
    let mut spare = Spare::lock();
    // If another thread has just given it back, a second try may succeed as well.
    let short = STATE.load(SeqCst) == SHORT;
    if spare.bytes() <= bytes {
        return short;
    }
    spare.give_back();
    true
}

/// More spare memory, until it is dropped, for one thread's work that allocates up to so many bytes, in pieces of any
/// size, and can't fail.
#[derive(Debug)]
pub(crate) struct Hold {
    slot: Option<usize>,
    this_thread: PhantomData<*const ()>,
}

impl Hold {
    /// `None` if memory is short, or the system refuses.
    pub fn new(bytes: usize) -> Option<Hold> {
        if is_short() {
            return None;
        }
        let mut spare = Spare::lock();
        let slot = spare.holds.iter().position(|slot| matches!(slot, Slot::Free));
        let held = Mapping::ballast(bytes)?;
        if let Some(slot) = slot {
            spare.holds[slot] = Slot::Taken(held);
        }
        HOLDING.set(HOLDING.get() + 1);
        Some(Hold { slot, this_thread: PhantomData })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDING.set(HOLDING.get() - 1);
        if let Some(slot) = self.slot {
            Spare::lock().holds[slot] = Slot::Free;
        }
    }
}
