//! Structures that can grow. Each begins with `struct_size`, the size that its caller was compiled with, and crosses the
//! boundary by copying the smaller of both sides' sizes. A new field is added at the end, at a multiple of 8, and never in
//! the padding behind the last field, which an older caller's size covers.

use std::mem::size_of;
use std::ptr;

use super::status::Failure;

/// The largest accepted `struct_size`; an uninitialised variable is likely above it.
const LARGEST: usize = 4096;

/// A structure of the header.
///
/// # Safety
/// `#[repr(C)]`, and any bytes that a C compiler would put into its fields make a valid value: integers,
/// floats, raw pointers and optional function pointers only.
pub(super) unsafe trait Versioned: Copy {
    /// The structure's name in messages.
    const NAME: &'static str;
}

/// A versioned structure that a caller fills in.
///
/// # Safety
/// As [`Versioned`], and the first field is `struct_size: usize`.
pub(super) unsafe trait Params: Versioned {
    /// The values of a caller that sets nothing.
    fn defaults() -> Self;
}

/// Writes the defaults into a caller's structure of `struct_size` bytes, its first field included.
///
/// # Safety
/// `out` is NULL or writable for `struct_size` bytes.
pub(super) unsafe fn init<T: Params>(out: *mut T, struct_size: usize) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    unsafe { write(out, &T::defaults(), struct_size) }?;
    // SAFETY: `write` has checked that there's room for the first field at least.
    unsafe { out.cast::<usize>().write_unaligned(struct_size) };
    Ok(())
}

/// The caller's structure over the defaults; the defaults alone for NULL.
///
/// # Safety
/// `params` is NULL or readable for as many bytes as its first field says.
pub(super) unsafe fn read<T: Params>(params: *const T) -> Result<T, Failure> {
    let mut value = T::defaults();
    if params.is_null() {
        return Ok(value);
    }
    // SAFETY: the first field of every such structure.
    let struct_size = unsafe { params.cast::<usize>().read_unaligned() };
    let len = check_size::<T>(struct_size)?;
    // SAFETY: readable for `struct_size` ≥ len bytes; `value` has room for len ≤ its size.
    unsafe { ptr::copy_nonoverlapping(params.cast::<u8>(), ptr::from_mut(&mut value).cast::<u8>(), len) };
    Ok(value)
}

/// The caller's structure over the defaults, where there must be one.
///
/// # Safety
/// As [`read`].
pub(super) unsafe fn read_given<T: Params>(params: *const T) -> Result<T, Failure> {
    if params.is_null() {
        return Err(Failure::null(T::NAME));
    }
    // SAFETY: the function's contract.
    unsafe { read(params) }
}

/// Writes `value` into a caller's structure of `struct_size` bytes.
///
/// # Safety
/// `out` is NULL or writable for `struct_size` bytes.
pub(super) unsafe fn write<T: Versioned>(out: *mut T, value: &T, struct_size: usize) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(T::NAME));
    }
    let len = check_size::<T>(struct_size)?;
    // SAFETY: `out` is writable for `struct_size` ≥ len bytes; `value` is at least len long.
    unsafe { ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), out.cast::<u8>(), len) };
    Ok(())
}

/// Bytes that both sides know, of a caller's structure of `struct_size` bytes.
pub(super) fn check_size<T: Versioned>(struct_size: usize) -> Result<usize, Failure> {
    if !(size_of::<usize>()..=LARGEST).contains(&struct_size) {
        return Err(Failure::invalid(format!("{}: {struct_size} is no struct_size", T::NAME)));
    }
    Ok(struct_size.min(size_of::<T>()))
}

/// An `int32_t` that means yes or no.
pub(super) fn boolean(value: i32, what: &'static str) -> Result<bool, Failure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Failure::invalid(format!("{what} is {value}; it must be 0 or 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Now {
        struct_size: usize,
        old: u32,
        new: u32,
    }
    // SAFETY: integers only, struct_size first.
    unsafe impl Versioned for Now {
        const NAME: &'static str = "now";
    }
    // SAFETY: as above.
    unsafe impl Params for Now {
        fn defaults() -> Self {
            Now { struct_size: size_of::<Now>(), old: 1, new: 2 }
        }
    }

    /// The structure of a caller that was compiled before `new` was added, with a canary behind.
    #[repr(C)]
    struct Before {
        struct_size: usize,
        old: u32,
        canary: u32,
    }

    #[test]
    fn an_older_caller_gets_the_defaults_of_what_it_does_not_know() {
        let mut before = Before { struct_size: 0, old: 0, canary: 0xc0ffee };
        let out = ptr::from_mut(&mut before).cast::<Now>();
        // SAFETY: 12 bytes are there.
        unsafe { init(out, 12) }.unwrap();
        assert_eq!((before.struct_size, before.old, before.canary), (12, 1, 0xc0ffee));
        before.old = 7;
        // SAFETY: readable for 12 bytes.
        let read = unsafe { read(ptr::from_ref(&before).cast::<Now>()) }.unwrap();
        assert_eq!((read.old, read.new), (7, 2));
    }

    #[test]
    fn a_newer_caller_keeps_what_the_library_does_not_know() {
        let mut newer = [0xaau8; 64];
        // SAFETY: 64 bytes are there.
        unsafe { init(newer.as_mut_ptr().cast::<Now>(), 64) }.unwrap();
        assert_eq!(newer[..8], 64usize.to_ne_bytes());
        assert!(newer[size_of::<Now>()..].iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        let mut now = Now::defaults();
        for size in [0, 1, 7, LARGEST + 1, usize::MAX] {
            // SAFETY: refused before anything is touched.
            assert!(unsafe { init(&mut now, size) }.is_err(), "{size}");
            now.struct_size = size;
            // SAFETY: refused after the first field is read.
            assert!(unsafe { read(&now) }.is_err(), "{size}");
            now = Now::defaults();
        }
        // SAFETY: NULL is allowed to be passed.
        assert_eq!(unsafe { read::<Now>(ptr::null()) }.unwrap(), Now::defaults());
        assert!(boolean(2, "flag").is_err() && boolean(1, "flag").unwrap() && !boolean(0, "flag").unwrap());
    }
}
