//! Profile: files and pictures
//! ===========================
//! The record so far as a report: tables, a page with pictures, a flame graph, and formats of other tools.

use std::ffi::{c_char, c_void};

use super::boundary;
use super::buffers;
use super::status::{Failure, sm_status};
use crate::Error;
use crate::memory::reserve::held;
use crate::memory::spare::Hold;
use crate::profile::extent::{Extent, extent};
use crate::profile::trace;
use crate::report::{self, Format, Report};

/// Tables for people, in Markdown.
pub const SM_PROFILE_MARKDOWN: i32 = 0;
/// All figures, as JSON: `smallmind profile compare` reads it.
pub const SM_PROFILE_JSON: i32 = 1;
/// One page with pictures, which needs nothing else.
pub const SM_PROFILE_HTML: i32 = 2;
/// A flame graph of self times, as SVG.
pub const SM_PROFILE_FLAME: i32 = 3;
/// The timeline with tracks of counters, for Perfetto and chrome://tracing; empty without `sm_profile_trace_start`.
pub const SM_PROFILE_TRACE: i32 = 4;
/// A compressed profile.proto, for pprof.
pub const SM_PROFILE_PPROF: i32 = 5;

/// Takes a piece of a report: `bytes` bytes at `data`, which live until it returns. Anything but 0 stops.
pub type sm_profile_sink =
    Option<unsafe extern "C" fn(user_data: *mut c_void, data: *const c_void, bytes: usize) -> i32>;

/// Starts a timeline: notes each call that ends from now on, up to `events` (at most 1048576) on each thread, while
/// recording is on. Calls noted before are forgotten. `SM_STATUS_INVALID_ARGUMENT` where one is under way.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_trace_start(events: usize) -> sm_status {
    boundary::call_with_spare(|| Ok(trace::start(events)?))
}

/// Ends the timeline. It stays, for exports, until another is started.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_trace_stop() -> sm_status {
    boundary::call(|| {
        trace::stop();
        Ok(())
    })
}

/// Writes the record so far to the file `path`, in a format of `SM_PROFILE_*`. A file that is there is replaced once the new one is complete. `SM_STATUS_IO` where it can't be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_export(format: i32, path: *const c_char) -> sm_status {
    boundary::call_with_spare(|| {
        let format = format_of(format)?;
        let _held = hold_report(Some(format))?;
        // SAFETY: by the header, `path` is NULL or a string that ends with a zero.
        let path = unsafe { buffers::path(path) }?;
        Ok(report::write_file(&Report::of_host()?, format, &path)?)
    })
}

/// Hands the record so far, in a format of `SM_PROFILE_*`, to `sink`. `SM_STATUS_CANCELLED` where that stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_export_to(
    format: i32,
    sink: sm_profile_sink,
    user_data: *mut c_void,
) -> sm_status {
    boundary::call_with_spare(|| {
        let format = format_of(format)?;
        let _held = hold_report(Some(format))?;
        let sink = sink.ok_or_else(|| Failure::null("sink"))?;
        let bytes = report::render(&Report::of_host()?, format)?;
        // SAFETY: the host gave a function of this signature with its user_data for the length of the call.
        match unsafe { sink(user_data, bytes.as_ptr().cast(), bytes.len()) } {
            0 => Ok(()),
            _ => Err(Error::Cancelled.into()),
        }
    })
}

/// Writes the record so far in every format into a folder, which is made where there is none: report.md,
/// report.json, report.html, flame.svg, trace.json, profile.pb.gz.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_save(folder: *const c_char) -> sm_status {
    boundary::call_with_spare(|| {
        let _held = hold_report(None)?;
        // SAFETY: by the header, `folder` is NULL or a string that ends with a zero.
        let folder = unsafe { buffers::path(folder) }?;
        report::write_folder(&Report::of_host()?, &folder)?;
        Ok(())
    })
}

/// Holds memory ready for a report and its rendering in one format, or in all, which are made of lists and texts that
/// can't fail.
fn hold_report(format: Option<Format>) -> crate::Result<Option<Hold>> {
    const LEAST: usize = 4 << 20;
    const NODE_BYTES: usize = 16 << 10;
    let Extent { nodes, events } = extent();
    // Measured, and a third more: a trace is a tree of JSON values, with the counters of each scope.
    let event_bytes = if matches!(format, None | Some(Format::Trace)) { 20 << 10 } else { 3 << 10 };
    held(LEAST + nodes * NODE_BYTES + events * event_bytes, "a report")
}

fn format_of(format: i32) -> Result<Format, Failure> {
    match format {
        SM_PROFILE_MARKDOWN => Ok(Format::Markdown),
        SM_PROFILE_JSON => Ok(Format::Json),
        SM_PROFILE_HTML => Ok(Format::Html),
        SM_PROFILE_FLAME => Ok(Format::Flame),
        SM_PROFILE_TRACE => Ok(Format::Trace),
        SM_PROFILE_PPROF => Ok(Format::Pprof),
        _ => Err(Failure::invalid(format!("format is {format}, which is none of SM_PROFILE_*"))),
    }
}
