//! Version
//! =======

use std::ffi::c_char;

/// The version of the ABI this header describes.
///
/// It grows when something in the header changes its meaning. New functions, and new fields at the end of a
/// structure, leave it as it is. A host compares it with `sm_abi_version()` once, at start.
pub const SM_ABI_VERSION: u32 = 1;

/// The `SM_ABI_VERSION` of the library that is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn sm_abi_version() -> u32 {
    SM_ABI_VERSION
}

/// The version of the library, such as "0.1.0"; NUL-terminated, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn sm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
