//! Structures that can grow. Each begins with `struct_size`, the size that its caller was compiled with, and crosses the
//! boundary by copying the smaller of both sides' sizes. A new field is added at the end, at a multiple of 8, and never in
//! the padding behind the last field, which an older caller's size covers. A size that ends inside a field is refused, and
//! so is a larger structure whose caller has set something that this library doesn't know.

use std::mem::{MaybeUninit, size_of, size_of_val};
use std::{ptr, slice};

use super::status::{Failure, SM_STATUS_UNSUPPORTED};

/// The largest accepted `struct_size`; an uninitialised variable is likely above it.
pub(super) const LARGEST: usize = 4096;

/// A structure of the header.
///
/// # Safety
/// `#[repr(C)]`, and any bytes that a C compiler would put into its fields make a valid value: integers,
/// floats, raw pointers and optional function pointers only.
pub(super) unsafe trait Versioned: Copy {
    /// The structure's name in messages.
    const NAME: &'static str;

    /// Calls `see` with all fields. Destructuring `Self` makes the compiler refuse a list without one of them.
    fn each_field(&self, see: &mut dyn FnMut(&[&dyn Field]));
}

/// A field of a structure, of any type: a reference has its place and its size.
pub(super) trait Field {}

impl<T> Field for T {}

/// [`Versioned::each_field`] of these fields, named once.
macro_rules! fields {
    ($($field:ident),+ $(,)?) => {
        fn each_field(&self, see: &mut dyn FnMut(&[&dyn $crate::ffi::params::Field])) {
            let Self { $($field),+ } = self;
            see(&[$($field),+]);
        }
    };
}
pub(super) use fields;

/// A versioned structure that a caller fills in.
///
/// # Safety
/// As [`Versioned`], and the first field is `struct_size: usize`.
pub(super) unsafe trait Params: Versioned {
    /// The values of a caller that sets nothing.
    fn defaults() -> Self;

    /// The field that is always 0, where there is one: it fills the structure up to a multiple of 8, and a later version
    /// may use it.
    fn reserved(&self) -> i32 {
        0
    }
}

/// Writes the defaults into a caller's structure of `struct_size` bytes, its first field included, and zeroes into the
/// part that this library doesn't know.
///
/// # Safety
/// `out` is NULL or writable for `struct_size` bytes.
pub(super) unsafe fn init<T: Params>(out: *mut T, struct_size: usize) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    unsafe { write(out, &T::defaults(), struct_size) }?;
    // SAFETY: `write` has checked that there's room for the first field at least.
    unsafe { out.cast::<usize>().write_unaligned(struct_size) };
    let known = size_of::<T>();
    if struct_size > known {
        // SAFETY: `out` is writable for `struct_size` bytes, of which these are the last.
        unsafe { out.cast::<u8>().add(known).write_bytes(0, struct_size - known) };
    }
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
    if struct_size > len {
        // SAFETY: readable for `struct_size` bytes, of which these are the last.
        let unknown = unsafe { slice::from_raw_parts(params.cast::<u8>().add(len), struct_size - len) };
        refuse_unknown(T::NAME, len, unknown)?;
    }
    if value.reserved() != 0 {
        let message =
            format!("{}: reserved is {}; this version of the library knows 0", T::NAME, value.reserved());
        return Err(Failure::new(SM_STATUS_UNSUPPORTED, message));
    }
    Ok(value)
}

/// Refuses a structure whose bytes behind the `known` ones aren't all 0: its caller knows a newer version, and has set
/// something that would be ignored.
pub(super) fn refuse_unknown(name: &str, known: usize, unknown: &[u8]) -> Result<(), Failure> {
    match unknown.iter().position(|&byte| byte != 0) {
        None => Ok(()),
        Some(at) => Err(Failure::new(
            SM_STATUS_UNSUPPORTED,
            format!("{name}: byte {} is set; this version of the library knows {known} bytes", known + at),
        )),
    }
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
    if struct_size < size_of::<T>() && ends_inside_a_field::<T>(struct_size) {
        return Err(Failure::invalid(format!("{}: {struct_size} bytes end inside a field", T::NAME)));
    }
    Ok(struct_size.min(size_of::<T>()))
}

fn ends_inside_a_field<T: Versioned>(size: usize) -> bool {
    // SAFETY: by the contract of `Versioned`, any bytes that C could put there are a value, zeroes among them.
    let zeroed: T = unsafe { MaybeUninit::zeroed().assume_init() };
    let first = ptr::from_ref(&zeroed).addr();
    let mut inside = false;
    zeroed.each_field(&mut |fields| {
        inside = fields.iter().any(|field| {
            let begin = ptr::from_ref(*field).addr() - first;
            (begin + 1..begin + size_of_val(*field)).contains(&size)
        });
    });
    inside
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

        fields!(struct_size, old, new);
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
    fn a_newer_caller_gets_zeroes_and_is_refused_what_it_sets_there() {
        for size in [size_of::<Now>() + 1, 64, LARGEST] {
            let mut newer = vec![0xaau8; size + 1];
            let params = newer.as_mut_ptr().cast::<Now>();
            // SAFETY: `size` bytes are there.
            unsafe { init(params, size) }.unwrap();
            assert_eq!(newer[..8], size.to_ne_bytes());
            assert!(newer[size_of::<Now>()..size].iter().all(|&byte| byte == 0));
            assert_eq!(newer[size], 0xaa, "a byte behind the structure");
            for at in [size_of::<Now>(), size - 1] {
                // SAFETY: readable for `size` bytes.
                assert!(unsafe { read(newer.as_ptr().cast::<Now>()) }.is_ok());
                newer[at] = 1;
                // SAFETY: as above.
                let failure = unsafe { read(newer.as_ptr().cast::<Now>()) }.unwrap_err();
                assert_eq!(failure.status, SM_STATUS_UNSUPPORTED);
                assert!(failure.message.contains(&format!("byte {at} is set")), "{}", failure.message);
                newer[at] = 0;
            }
        }
    }

    #[test]
    fn a_size_may_end_where_a_field_does() {
        for (size, fine) in
            [(8, true), (9, false), (10, false), (11, false), (12, true), (13, false), (15, false)]
        {
            let mut now = Now::defaults();
            // SAFETY: at least `size` bytes are there.
            assert_eq!(unsafe { init(&mut now, size) }.is_ok(), fine, "{size}");
            now.struct_size = size;
            // SAFETY: as above.
            assert_eq!(unsafe { read(&now) }.is_ok(), fine, "{size}");
            // SAFETY: as above.
            assert_eq!(unsafe { write(&mut now, &Now::defaults(), size) }.is_ok(), fine, "{size}");
        }
    }

    /// The fields of a structure lie one behind the other: the list has all of them.
    fn assert_complete<T: Versioned>() {
        // SAFETY: zeroes are a value.
        let zeroed: T = unsafe { MaybeUninit::zeroed().assume_init() };
        let first = ptr::from_ref(&zeroed).addr();
        let mut end = 0_usize;
        zeroed.each_field(&mut |fields| {
            for field in fields {
                let begin = ptr::from_ref(*field).addr() - first;
                assert_eq!(begin, end.next_multiple_of(align_of_val(*field)), "{}", T::NAME);
                end = begin + size_of_val(*field);
            }
        });
        assert_eq!(end.next_multiple_of(align_of::<T>()), size_of::<T>(), "{}", T::NAME);
    }

    #[test]
    fn the_lists_of_fields_are_complete() {
        use crate::ffi::*;
        assert_complete::<attention::sm_attention_params>();
        assert_complete::<context::sm_context_params>();
        assert_complete::<context::sm_memory_estimate>();
        assert_complete::<generate::sm_generate_params>();
        assert_complete::<generate::sm_generate_summary>();
        assert_complete::<chat::sm_chat_params>();
        assert_complete::<generate::sm_token_event>();
        assert_complete::<kernels::sm_kernel>();
        assert_complete::<matmul::sm_matmul_params>();
        assert_complete::<model::sm_model_info>();
        assert_complete::<model::sm_model_params>();
        assert_complete::<packed::sm_matrix_params>();
        assert_complete::<profile::sm_method_stats>();
        assert_complete::<profile::sm_profile_info>();
        assert_complete::<counters::sm_thread_stats>();
        assert_complete::<counters::sm_zone_counters>();
        assert_complete::<random::sm_gpt_params>();
        assert_complete::<rows::sm_add_norm_params>();
        assert_complete::<rows::sm_rows_params>();
        assert_complete::<sampler::sm_sampler_params>();
        assert_complete::<server::sm_server_params>();
        assert_complete::<server::sm_request_params>();
        assert_complete::<server_events::sm_server_progress>();
        assert_complete::<server_events::sm_server_event>();
        assert_complete::<server_events::sm_server_stats>();
        assert_complete::<tokenizer::sm_special_tokens>();
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
