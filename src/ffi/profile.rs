//! Profile
//! =======
//! Where time and memory went, by method. Off at start; off, it costs next to nothing, and on, under 1 %.
//! It is one for the process: every model and context counts into it.

use std::ffi::c_char;

use super::boundary;
use super::buffers;
use super::names::intern;
use super::params::{self, Versioned, boolean};
use super::status::sm_status;
use crate::profile::{self, MethodStats};

/// Figures of one method below one caller: a node of the tree of calls. Times are nanoseconds, summed over
/// the threads that worked in it where not said otherwise.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_method_stats {
    /// The method, such as "linear.qkv"; never freed, and the same pointer each time.
    pub name: *const c_char,
    /// Index of the caller in the same array, smaller than this one's; -1 for none.
    pub parent: i64,
    /// Callers above it.
    pub depth: u64,
    /// Calls that ended.
    pub calls: u64,
    /// Threads on which it took time.
    pub threads: u64,
    /// Time in it, what it called included.
    pub total_ns: u64,
    /// The same on the thread with most: for work that threads share, what it took.
    pub busiest_ns: u64,
    /// Time in it, what it called left out.
    pub self_ns: u64,
    /// Shortest call.
    pub min_ns: u64,
    /// Mean of the calls.
    pub mean_ns: u64,
    /// Longest call.
    pub max_ns: u64,
    /// Standard deviation of the calls.
    pub std_ns: u64,
    /// Half of the calls took no longer (within 6 %, as the next two).
    pub p50_ns: u64,
    /// 95 % of the calls took no longer.
    pub p95_ns: u64,
    /// 99 % of the calls took no longer.
    pub p99_ns: u64,
    /// Floating-point operations; a multiplication with an addition is two.
    pub flops: u64,
    /// Bytes that had to be read or written.
    pub bytes: u64,
    /// Bytes allocated, what it called included.
    pub alloc_bytes: u64,
    /// Allocations, likewise.
    pub alloc_count: u64,
    /// 10^9 operations a second.
    pub gflops: f64,
    /// 10^9 bytes a second.
    pub gbps: f64,
}

// SAFETY: repr(C); integers, floats and a raw pointer.
unsafe impl Versioned for sm_method_stats {
    const NAME: &'static str = "sm_method_stats";
}

impl From<&MethodStats> for sm_method_stats {
    fn from(stats: &MethodStats) -> Self {
        Self {
            name: intern(stats.name),
            parent: stats.parent.map_or(-1, |index| index as i64),
            depth: stats.depth as u64,
            calls: stats.calls,
            threads: stats.threads as u64,
            total_ns: stats.total_ns,
            busiest_ns: stats.busiest_ns,
            self_ns: stats.self_ns,
            min_ns: stats.min_ns,
            mean_ns: stats.mean_ns,
            max_ns: stats.max_ns,
            std_ns: stats.std_ns,
            p50_ns: stats.p50_ns,
            p95_ns: stats.p95_ns,
            p99_ns: stats.p99_ns,
            flops: stats.flops,
            bytes: stats.bytes,
            alloc_bytes: stats.alloc_bytes,
            alloc_count: stats.alloc_count,
            gflops: stats.gflops(),
            gbps: stats.gbps(),
        }
    }
}

/// What the profile as a whole is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_profile_info {
    /// Nanoseconds that recording was on since the last reset: what shares of time are shares of.
    pub wall_ns: u64,
    /// Calls that could not be recorded; 0 unless something is amiss.
    pub dropped: u64,
    /// Length of a tick of the clock in nanoseconds: no time is known better.
    pub ns_per_tick: f64,
}

// SAFETY: repr(C); integers and a float.
unsafe impl Versioned for sm_profile_info {
    const NAME: &'static str = "sm_profile_info";
}

/// Switches recording on (1) or off (0). What was recorded stays until `sm_profile_reset`.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_enable(on: i32) -> sm_status {
    boundary::call(|| {
        profile::set_enabled(boolean(on, "on")?);
        Ok(())
    })
}

/// Forgets what was recorded.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_reset() -> sm_status {
    boundary::call(|| {
        profile::reset();
        Ok(())
    })
}

/// Writes the figures of every method, callers before those they called. `stride` is
/// `sizeof(sm_method_stats)`.
///
/// While other threads work, there may be more methods than a moment before: ask again when told that the
/// buffer is too small.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_snapshot(
    stats: *mut sm_method_stats,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let nodes = profile::snapshot().nodes;
        buffers::give_structs(nodes.iter().map(sm_method_stats::from), stats, stride, capacity, count)
    })
}

/// Writes what the profile as a whole is. `struct_size` is `sizeof(sm_profile_info)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_describe(info: *mut sm_profile_info, struct_size: usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let snapshot = profile::snapshot();
        let result = sm_profile_info {
            wall_ns: snapshot.wall_ns,
            dropped: snapshot.dropped,
            ns_per_tick: snapshot.ns_per_tick,
        };
        params::write(info, &result, struct_size)
    })
}

/// The profile as a table for people, lines of UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_report(
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sm_status {
    let table = || profile::render_table(&profile::snapshot());
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { buffers::give_text(table().as_bytes(), text, capacity, length, "text") })
}
