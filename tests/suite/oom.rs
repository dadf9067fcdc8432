//! Running out of memory is a status of the C ABI, and the library works on afterwards: under a limit on the
//! process's memory (in a process of its own), and for sizes that no machine has. `c-tests/oom.c` runs seven operations
//! under many limits with the library as it is shipped; `make -C c-tests oom` runs it whole, on the real model.
#![cfg(target_os = "linux")]

use crate::common::{golden_path, model, process};
use crate::{c_abi, shipped};
use std::ffi::{CStr, CString};
use std::process::Command;
use std::ptr;

use smallmind::ffi::context::*;
use smallmind::ffi::generate::sm_generate;
use smallmind::ffi::model::*;
use smallmind::ffi::sampler::*;
use smallmind::ffi::status::*;

/// What the limited process may take beyond what it has when the model is loaded.
const ROOM: u64 = 256 << 20;

#[test]
fn no_operation_dies_under_any_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let program =
        c_abi::host(false, &["oom.c"], &c_abi::shared().each_ref().map(String::as_str), folder.path());
    let sweep = |limits: [&str; 3]| {
        let mut command = Command::new(&program);
        command.arg(golden_path("cases/chatml_nobos.gguf")).arg(folder.path()).args(limits);
        command
    };
    // Small limits, where most is refused, one by one.
    for limits in [["1", "40", "3"], ["50", "400", "35"]] {
        let said = shipped::run(&mut sweep(limits));
        assert!(said.contains("0 dead, 0 failures"), "{said}");
        print!("{said}");
    }
    let died = sweep(["20", "20", "5"]).env("SMALLMIND_PLANT", "1").output().expect("the program starts");
    assert!(!died.status.success(), "a planted death went unseen");
}

#[test]
fn under_a_limit_a_large_context_is_refused_and_a_small_one_works() {
    process::alone("oom::under_a_limit_a_large_context_is_refused_and_a_small_one_works", limited);
}

#[test]
fn absurd_sizes_are_refused_without_a_limit() {
    let model = load();
    for n_ctx in [usize::MAX, usize::MAX / 2, 1 << 50] {
        let status = create(model, n_ctx, 1).map(|_| ()).unwrap_err();
        assert!([SM_STATUS_OUT_OF_MEMORY, SM_STATUS_INVALID_ARGUMENT].contains(&status), "{n_ctx}: {status}");
    }
    generate_a_little(model);
    // SAFETY: the handle is freed once, and not used again.
    unsafe { sm_model_free(model) };
}

fn limited() {
    let model = load();
    let used = address_space();
    let limit = libc::rlimit { rlim_cur: used + ROOM, rlim_max: used + ROOM };
    // SAFETY: a plain system call on a local structure.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);

    // The cache of SmolLM2 takes tens of kilobytes a position.
    let n_ctx = 1 << 16;
    assert!(estimate(model, n_ctx) > 2 * ROOM, "the test asks for more than the limit");
    for _ in 0..3 {
        assert_eq!(create(model, n_ctx, 1).unwrap_err(), SM_STATUS_OUT_OF_MEMORY);
        // SAFETY: never NULL; copied before anything else fails.
        let message = unsafe { CStr::from_ptr(sm_last_error()) }.to_str().expect("UTF-8");
        assert!(message.contains("memory"), "{message}");
    }
    generate_a_little(model);
    // SAFETY: the handle is freed once, and not used again.
    unsafe { sm_model_free(model) };
}

fn load() -> *mut sm_model {
    let path = CString::new(model::smollm2().to_str().expect("UTF-8")).expect("no NUL");
    let mut model = ptr::null_mut();
    // SAFETY: a NUL-terminated path and a variable for the handle.
    let status = unsafe { sm_model_load(path.as_ptr(), ptr::null(), &mut model) };
    assert_eq!(status, SM_STATUS_OK);
    model
}

fn params(n_ctx: usize, n_threads: usize) -> sm_context_params {
    let mut params = std::mem::MaybeUninit::uninit();
    // SAFETY: room for the structure, which the call fills.
    unsafe {
        let size = size_of::<sm_context_params>();
        assert_eq!(sm_context_params_init(params.as_mut_ptr(), size), SM_STATUS_OK);
        sm_context_params { n_ctx, n_threads, ..params.assume_init() }
    }
}

fn create(model: *mut sm_model, n_ctx: usize, n_threads: usize) -> Result<*mut sm_context, sm_status> {
    let mut context = ptr::null_mut();
    // SAFETY: a live model, filled parameters and a variable for the handle.
    match unsafe { sm_context_create(model, &params(n_ctx, n_threads), &mut context) } {
        SM_STATUS_OK => Ok(context),
        status => {
            assert!(context.is_null());
            Err(status)
        }
    }
}

fn estimate(model: *mut sm_model, n_ctx: usize) -> u64 {
    let mut estimate = sm_memory_estimate { cache_bytes: 0, arena_bytes: 0, total_bytes: 0 };
    let size = size_of::<sm_memory_estimate>();
    // SAFETY: a live model, filled parameters and room for the result.
    let status = unsafe { sm_context_memory(model, &params(n_ctx, 1), &mut estimate, size) };
    assert_eq!(status, SM_STATUS_OK);
    estimate.total_bytes
}

fn generate_a_little(model: *mut sm_model) {
    let context = create(model, 64, 1).expect("a small context");
    let mut sampler = ptr::null_mut();
    let prompt = [1, 2, 3];
    // SAFETY: live handles, an array of three, no summary; each handle is freed once.
    unsafe {
        assert_eq!(sm_sampler_create(model, ptr::null(), &mut sampler), SM_STATUS_OK);
        let params = ptr::null();
        let summary = ptr::null_mut();
        assert_eq!(sm_generate(context, sampler, prompt.as_ptr(), 3, params, summary, 0), SM_STATUS_OK);
        assert_eq!(sm_sampler_free(sampler), SM_STATUS_OK);
        assert_eq!(sm_context_free(context), SM_STATUS_OK);
    }
}

/// Bytes of address space that the process has, which is what RLIMIT_AS counts.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: u64 = statm.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    // SAFETY: a plain system call.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * u64::try_from(page).expect("a page size")
}
