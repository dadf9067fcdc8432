//! Version
//! =======

use std::ffi::c_char;

/// The version of the ABI this header describes.
///
/// The number grows when the meaning of something in the header changes. It stays when functions, or fields at the end of a
/// structure, are added. A host compares it with `sm_abi_version()` once, at start.
pub const SM_ABI_VERSION: u32 = 1;

/// The `SM_ABI_VERSION` of the loaded library.
#[unsafe(no_mangle)]
pub extern "C" fn sm_abi_version() -> u32 {
    SM_ABI_VERSION
}

/// The version of the library, such as "0.1.0"; NUL-terminated, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn sm_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
