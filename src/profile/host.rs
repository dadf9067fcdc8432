//! Zones that a host opens and closes by name, in two calls: its code stands in the same tree as the library's.
//! A stack for each thread pairs the calls, so that unbalanced ones are counted and do no harm.

use std::cell::RefCell;

use super::table::{Role, Token};
use super::zone::{Zone, zone};
use super::{begin, enabled, end, pool};
use crate::{Error, Result};

/// Zones that a thread may have open at once; those beyond are counted as dropped.
const MOST_OPEN: usize = 64;

/// Names that a thread finds without the lock: many more than a host has in a loop.
const KNOWN: usize = 64;

/// An open zone: without a token where it isn't recorded.
#[derive(Clone, Copy)]
struct Open {
    token: Option<Token>,
    flops: u64,
    bytes: u64,
}

impl Open {
    const UNRECORDED: Open = Open { token: None, flops: 0, bytes: 0 };
}

/// A thread's open zones and the names it has used.
struct Host {
    /// Zones open, those beyond the stack included.
    depth: usize,
    open: [Open; MOST_OPEN],
    known: [Option<(&'static str, Zone)>; KNOWN],
}

thread_local! {
    static HOST: RefCell<Host> = const {
        RefCell::new(Host { depth: 0, open: [Open::UNRECORDED; MOST_OPEN], known: [None; KNOWN] })
    };
}

/// Opens a zone on this thread, until its [`zone_end`], which must follow even where this returns an error. The
/// zone's counters are read too ([`super::counters`]).
///
/// # Errors
/// Those of [`zone`], but that a name too many is no error: that zone is counted as dropped.
pub fn zone_begin(name: &str) -> Result<()> {
    // A thread that is ending has nothing to record with.
    HOST.try_with(|host| host.borrow_mut().begin(name)).unwrap_or(Ok(()))
}

/// Closes the zone that this thread opened last; `false` (and one more unbalanced) where none is open.
pub fn zone_end() -> bool {
    HOST.try_with(|host| host.borrow_mut().end()).unwrap_or(true)
}

/// Adds to the declared work of the zone that this thread opened last; see [`Scope::add_work`](super::Scope::add_work).
pub fn zone_work(flops: u64, bytes: u64) {
    let _ = HOST.try_with(|host| {
        if let Some(open) = host.borrow_mut().last() {
            open.flops = open.flops.wrapping_add(flops);
            open.bytes = open.bytes.wrapping_add(bytes);
        }
    });
}

impl Host {
    fn begin(&mut self, name: &str) -> Result<()> {
        let zone = if enabled() { self.zone(name).map(Some) } else { Ok(None) };
        let depth = self.depth;
        self.depth += 1;
        let Some(open) = self.open.get_mut(depth) else {
            if zone.is_ok() && enabled() {
                pool::count_dropped();
            }
            return zone.map(drop);
        };
        *open = Open::UNRECORDED;
        match zone {
            Ok(Some(zone)) => open.token = begin(zone, None, true),
            Ok(None) => {}
            Err(error) => {
                pool::count_dropped();
                return if matches!(error, Error::Unsupported(_)) { Ok(()) } else { Err(error) };
            }
        }
        Ok(())
    }

    fn end(&mut self) -> bool {
        if self.depth == 0 {
            if enabled() {
                pool::count_unbalanced();
            }
            return false;
        }
        if let Some(&mut Open { token: Some(token), flops, bytes }) = self.last() {
            end(token, Role::Call, [flops, bytes], None);
        }
        self.depth -= 1;
        true
    }

    fn last(&mut self) -> Option<&mut Open> {
        self.open.get_mut(self.depth.checked_sub(1)?)
    }

    /// The zone of a name, as a rule from this thread's own table.
    fn zone(&mut self, name: &str) -> Result<Zone> {
        let bytes = name.as_bytes();
        let (first, last) = (bytes.first().copied().unwrap_or(0), bytes.last().copied().unwrap_or(0));
        let place = (usize::from(first) + 7 * usize::from(last) + 31 * bytes.len()) % KNOWN;
        if let Some((known, zone)) = self.known[place]
            && known == name
        {
            return Ok(zone);
        }
        let found = zone(name)?;
        self.known[place] = Some((found.name(), found));
        Ok(found)
    }
}
