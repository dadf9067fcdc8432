//! Profile
//! =======
//! Where time and memory went, by method. Off at start, unless the environment has SMALLMIND_PROFILE=1; off, it
//! costs next to nothing, and on, about a hundredth of a decode step. It is one for the process: every model and
//! context counts into it, and so do zones that you open yourself. One thread keeps the clock of a method that
//! workers share: it is one call, and the time of the other workers is in `cpu_ns`.

use std::ffi::c_char;

use super::boundary;
use super::buffers;
use super::context::{enter, sm_context};
use super::names::intern;
use super::params::{self, Versioned, boolean, fields};
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::memory::reserve::held;
use crate::memory::spare::Hold;
use crate::profile::extent::extent;
use crate::profile::{self, MethodStats};
use crate::report;

/// Figures of one method below one caller: a node of the tree of calls. Times are nanoseconds of the threads that
/// called it, summed where several did.
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
    /// Threads that worked in it.
    pub threads: u64,
    /// Time in it, methods that it called included.
    pub total_ns: u64,
    /// The same on the thread with most: the time it took where threads call it side by side.
    pub busiest_ns: u64,
    /// Time in it, methods that it called left out.
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
    /// Bytes allocated, methods that it called included.
    pub alloc_bytes: u64,
    /// Allocations, likewise.
    pub alloc_count: u64,
    /// 10^9 operations a second.
    pub gflops: f64,
    /// 10^9 bytes a second.
    pub gbps: f64,
    /// Time that all threads worked in it, waiting at barriers left out.
    pub cpu_ns: u64,
    /// Time that all threads waited at barriers in it.
    pub idle_ns: u64,
    /// Bytes allocated in it, methods that it called left out.
    pub self_alloc_bytes: u64,
    /// Most bytes that one call held at once, beyond what its thread held when it began.
    pub peak_bytes: u64,
    /// Operations for each byte; 0 where no bytes were declared.
    pub intensity: f64,
    /// `gflops` as a share of the machine's limit at this intensity when the bytes come from memory: above 1
    /// where they come from a cache. 0 where no operations were declared, and before `sm_profile_calibrate`.
    pub roof_share: f64,
}

// SAFETY: repr(C); integers, floats and a raw pointer.
unsafe impl Versioned for sm_method_stats {
    const NAME: &'static str = "sm_method_stats";

    fields!(
        name,
        parent,
        depth,
        calls,
        threads,
        total_ns,
        busiest_ns,
        self_ns,
        min_ns,
        mean_ns,
        max_ns,
        std_ns,
        p50_ns,
        p95_ns,
        p99_ns,
        flops,
        bytes,
        alloc_bytes,
        alloc_count,
        gflops,
        gbps,
        cpu_ns,
        idle_ns,
        self_alloc_bytes,
        peak_bytes,
        intensity,
        roof_share
    );
}

impl sm_method_stats {
    fn new(stats: &MethodStats, limits: Option<&report::data::Limits>) -> Self {
        let intensity = if stats.bytes > 0 { stats.flops as f64 / stats.bytes as f64 } else { 0.0 };
        let memory = limits.and_then(|limits| Some((limits, limits.levels.last()?)));
        let roof = memory.map_or(0.0, |(limits, level)| match stats.bytes {
            0 => limits.fma_gflops,
            _ => limits.roof(intensity, level),
        });
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
            cpu_ns: stats.cpu_ns,
            idle_ns: stats.idle_ns,
            self_alloc_bytes: stats.self_alloc_bytes,
            peak_bytes: stats.peak_bytes,
            intensity,
            roof_share: if roof > 0.0 { stats.gflops() / roof } else { 0.0 },
        }
    }
}

/// Figures of the whole profile.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_profile_info {
    /// Nanoseconds that recording was on since the last reset: shares of time are shares of these.
    pub wall_ns: u64,
    /// Calls that could not be recorded, as when there are more zones or deeper ones than the tables hold; 0 unless
    /// something is amiss.
    pub dropped: u64,
    /// Length of a tick of the clock in nanoseconds: no time is known better.
    pub ns_per_tick: f64,
    /// Zones that ended after the one around them, or not before their thread did, and ends without a beginning.
    pub unbalanced: u64,
}

// SAFETY: repr(C); integers and a float.
unsafe impl Versioned for sm_profile_info {
    const NAME: &'static str = "sm_profile_info";

    fields!(wall_ns, dropped, ns_per_tick, unbalanced);
}

/// Switches recording on (1) or off (0). The record stays until `sm_profile_reset`.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_enable(on: i32) -> sm_status {
    boundary::call(|| {
        profile::set_enabled(boolean(on, "on")?);
        Ok(())
    })
}

/// Stores in `*on` whether recording is on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_enabled(on: *mut i32) -> sm_status {
    // SAFETY: by the header, `on` is NULL or writable.
    boundary::call(|| unsafe { buffers::give_value(i32::from(profile::enabled()), on, "on") })
}

/// Forgets the record. Zones that are open count from now on.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_reset() -> sm_status {
    boundary::call(|| {
        profile::reset();
        Ok(())
    })
}

/// Measures the machine's limits on so many threads, for `roof_share` and the pictures. This takes some tenths of a
/// second the first time, and no time later.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_calibrate(threads: usize) -> sm_status {
    boundary::call_with_spare(|| {
        report::measured(KernelSet::default_set()?.isa, threads)?;
        Ok(())
    })
}

/// Writes the figures of every method below every caller, callers before those they called. `stride` is
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
    // SAFETY: by the header, the array is NULL or writable for `capacity` elements, `stride` bytes apart, and
    // `count` is NULL or writable; a context is NULL or live.
    boundary::call_with_spare(|| unsafe {
        let _held = hold_snapshot()?;
        give(&profile::snapshot().nodes, stats, stride, capacity, count)
    })
}

/// The same with one entry a method, wherever it was called, the longest first; `parent` is -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_methods(
    stats: *mut sm_method_stats,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: by the header, the array is NULL or writable for `capacity` elements, `stride` bytes apart, and
    // `count` is NULL or writable; a context is NULL or live.
    boundary::call_with_spare(|| unsafe {
        let _held = hold_snapshot()?;
        give(&profile::snapshot().by_zone(), stats, stride, capacity, count)
    })
}

/// The same tree as that of `sm_profile_snapshot`, of one context's calls alone.
///
/// `SM_STATUS_UNSUPPORTED` where too many contexts had a profile of their own when it was created (32; a reset
/// frees those of contexts that are gone).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_context_snapshot(
    context: *const sm_context,
    stats: *mut sm_method_stats,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: by the header, the array is NULL or writable for `capacity` elements, `stride` bytes apart, and
    // `count` is NULL or writable; a context is NULL or live.
    boundary::call_with_spare(|| unsafe {
        let _held = hold_snapshot()?;
        let snapshot = profile::snapshot_of(enter(context)?.owner())?;
        give(&snapshot.nodes, stats, stride, capacity, count)
    })
}

/// Holds memory for a snapshot ready, which is made of lists that can't fail.
pub(super) fn hold_snapshot() -> crate::Result<Option<Hold>> {
    /// Bytes of a node: its figures, those of its zone, its counters, and its line of a table.
    const NODE_BYTES: usize = 4 << 10;
    held((1 << 20) + extent().nodes * NODE_BYTES, "a snapshot of the profile")
}

/// # Safety
/// As the functions above.
unsafe fn give(
    methods: &[MethodStats],
    stats: *mut sm_method_stats,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> Result<(), Failure> {
    let limits = report::last_measured();
    let values = methods.iter().map(|method| sm_method_stats::new(method, limits.as_ref()));
    // SAFETY: `stats` and `count` are those of the caller, which the header makes NULL or writable.
    unsafe { buffers::give_structs(values, stats, stride, capacity, count) }
}

/// Opens a zone of your own on this thread: until `sm_profile_zone_end`, its time and allocations, and the library's
/// calls on this thread, stand below `name`. Zones of a thread nest. Its counters are read too: see
/// `sm_profile_counters`.
///
/// One `sm_profile_zone_end` belongs to it, even where this returns an error. More names (160), or deeper nesting
/// (64), than there is room for is no error: such a zone is counted in `dropped`. `SM_STATUS_INVALID_ARGUMENT` for a
/// name that is empty, longer than 120 bytes, no UTF-8, or has control characters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_zone_begin(name: *const c_char) -> sm_status {
    boundary::call(|| {
        // SAFETY: by the header, `name` is NULL or a string that ends with a zero.
        let name = unsafe { buffers::string(name, profile::MAX_NAME_BYTES, "name") };
        // A name that can't be read is refused as an empty one is, so that the end still has its beginning.
        let begun = profile::zone_begin(name.as_ref().map_or("", |name| name));
        name?;
        Ok(begun?)
    })
}

/// Adds work to the zone of your own that this thread opened last: floating-point operations (a multiplication with
/// an addition is two), and bytes that had to be read or written. Nothing where none is open.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_zone_work(flops: u64, bytes: u64) -> sm_status {
    boundary::call(|| {
        profile::zone_work(flops, bytes);
        Ok(())
    })
}

/// Closes the zone of your own that this thread opened last. `SM_STATUS_INVALID_ARGUMENT`, and one more in
/// `unbalanced`, where none is open.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_zone_end() -> sm_status {
    boundary::call(|| match profile::zone_end() {
        true => Ok(()),
        false => Err(Failure::invalid("no zone is open on this thread".to_owned())),
    })
}

/// Writes the figures of the whole profile. `struct_size` is `sizeof(sm_profile_info)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_describe(info: *mut sm_profile_info, struct_size: usize) -> sm_status {
    // SAFETY: by the header, the array is NULL or writable for `capacity` elements, `stride` bytes apart, and
    // `count` is NULL or writable; a context is NULL or live.
    boundary::call_with_spare(|| unsafe {
        let _held = hold_snapshot()?;
        let snapshot = profile::snapshot();
        let result = sm_profile_info {
            wall_ns: snapshot.wall_ns,
            dropped: snapshot.dropped,
            ns_per_tick: snapshot.ns_per_tick,
            unbalanced: snapshot.unbalanced,
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
    // SAFETY: by the header, `text` is NULL or writable for `capacity` bytes, `length` NULL or writable.
    boundary::call_with_spare(|| unsafe {
        buffers::give_text(table().as_bytes(), text, capacity, length, "text")
    })
}
