//! Static strings of the library as C strings that live for ever. Each name is made once, so there are as many of them as
//! names in the program.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::{Mutex, PoisonError};

static NAMES: Mutex<BTreeMap<&'static str, &'static CStr>> = Mutex::new(BTreeMap::new());

/// `name`, NUL-terminated; the same pointer each time.
pub(super) fn intern(name: &'static str) -> *const c_char {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let terminated = names.entry(name).or_insert_with(|| {
        let terminated = CString::new(name).unwrap_or_default();
        Box::leak(terminated.into_boxed_c_str())
    });
    terminated.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_pointer() {
        let (first, second) = (intern("matmul"), intern("matmul"));
        assert_eq!(first, second);
        // SAFETY: interned strings live for ever.
        assert_eq!(unsafe { CStr::from_ptr(first) }, c"matmul");
        assert_ne!(first, intern("gelu"));
    }
}
