//! Snapshots
//! =========
//! What a context holds, kept in a file or in memory, for the same context or another one to go on from.

use std::ffi::c_char;

use super::boundary;
use super::buffers;
use super::context::{enter, sm_context};
use super::model::HostBytes;
use super::status::sm_status;
use crate::format::FileSource;

/// Writes a snapshot of the context to a file, which appears whole or not at all: its tokens, keys and values, and the state
/// of recurrent layers. `sm_context_load` goes on from it, in this process or another one. On Unix `path` is any bytes, as
/// the system has them; elsewhere UTF-8.
///
/// `SM_STATUS_IO`: the file can't be written; one that stood there before still does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_save(context: *const sm_context, path: *const c_char) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe { Ok(enter(context)?.save_file(&buffers::path(path)?)?) })
}

/// Replaces what the context holds by a snapshot that `sm_context_save` wrote. It goes on bit for bit as the saved context
/// would have. The logits of the last decode are lost: decode at least one more token, or keep all tokens but the last one
/// with `sm_context_rewind` and decode that again. The context may have another size and other threads than the saved one,
/// but needs the same model, `cache_type`, rotary scaling, activations and instruction set. The file is read twice: it is
/// checked whole before anything is replaced.
///
/// `SM_STATUS_FORMAT`: the file is no snapshot, was cut off or changed. `SM_STATUS_INVALID_ARGUMENT`: it is one of another
/// model or other settings. `SM_STATUS_CONTEXT_FULL`: it has more tokens than the context has positions. The context is as
/// before then. If the file is changed while it is read, the context may be empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_load(context: *mut sm_context, path: *const c_char) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let mut context = enter(context)?;
        Ok(context.load(&FileSource::open(buffers::path(path)?)?)?)
    })
}

/// Writes the snapshot of `sm_context_save` into memory: into `bytes`, which has room for `capacity`. `*count` gets the
/// number of bytes; with NULL and 0 only that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_save_memory(
    context: *const sm_context,
    bytes: *mut u8,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        let context = enter(context)?;
        let len = context.snapshot_bytes() as usize;
        buffers::give_pieces(len, (bytes, capacity), count, "bytes", |write| context.save(write))
    })
}

/// `sm_context_load` from memory: the `n_bytes` bytes that `sm_context_save_memory` wrote, which are only read during the
/// call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_context_load_memory(
    context: *mut sm_context,
    bytes: *const u8,
    n_bytes: usize,
) -> sm_status {
    // SAFETY: the header's contract; the source is dropped before the call ends.
    boundary::call_with_spare(|| unsafe {
        let mut context = enter(context)?;
        Ok(context.load(&HostBytes::new(buffers::array(bytes, n_bytes, "bytes")?))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::context::tests::{decode, logits};
    use crate::ffi::context::{sm_context_clear, sm_context_create, sm_context_free};
    use crate::ffi::model::{sm_model_free, sm_model_load};
    use crate::ffi::status::{SM_STATUS_BUFFER_TOO_SMALL, SM_STATUS_FORMAT, SM_STATUS_OK};
    use std::ffi::CString;
    use std::ptr;

    #[test]
    fn a_context_goes_on_from_a_file_and_from_memory() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/gguf/untied-mixed.gguf");
        let file = CString::new(file).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = CString::new(folder.path().join("snapshot").to_str().unwrap()).unwrap();
        let (mut model, mut context) = (ptr::null_mut(), ptr::null_mut());
        let (mut bytes, mut count) = (vec![0u8; 1 << 20], 0);
        // SAFETY: paths and the defaults, living handles that are freed once, memory of the given sizes.
        unsafe {
            assert_eq!(sm_model_load(file.as_ptr(), ptr::null(), &mut model), SM_STATUS_OK);
            assert_eq!(sm_context_create(model, ptr::null(), &mut context), SM_STATUS_OK);
            (5..9).for_each(|token| decode(context, token));
            assert_eq!(sm_context_save(context, path.as_ptr()), SM_STATUS_OK);
            let at = bytes.as_mut_ptr();
            assert_eq!(sm_context_save_memory(context, at, bytes.len(), &mut count), SM_STATUS_OK);
            assert!(bytes[..count] == std::fs::read(folder.path().join("snapshot")).unwrap());
            assert_eq!(
                sm_context_save_memory(context, at, count - 1, &mut count),
                SM_STATUS_BUFFER_TOO_SMALL
            );
            decode(context, 9);
            let wanted = logits(context);
            for from_file in [true, false] {
                assert_eq!(sm_context_clear(context), SM_STATUS_OK);
                let status = match from_file {
                    true => sm_context_load(context, path.as_ptr()),
                    false => sm_context_load_memory(context, at, count),
                };
                assert_eq!(status, SM_STATUS_OK);
                decode(context, 9);
                assert!(logits(context) == wanted);
            }
            assert_eq!(sm_context_load_memory(context, at, count - 1), SM_STATUS_FORMAT);
            assert_eq!(sm_context_load(context, file.as_ptr()), SM_STATUS_FORMAT);
            assert_eq!(sm_context_free(context), SM_STATUS_OK);
            assert_eq!(sm_model_free(model), SM_STATUS_OK);
        }
    }
}
