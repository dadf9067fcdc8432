//! The operands of kernels, from pointers to slices: outputs that are checked before they are borrowed, and inputs that
//! are an output or share no memory with it. The ops check everything else.

use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::Range;

use super::buffers;
use super::matrices::overlap;
use super::status::Failure;
use crate::ops::Input;

/// An array that a call writes. It is not borrowed yet, so that inputs may be compared with it.
pub(super) struct Output<'a, T> {
    name: &'static str,
    first: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

impl<'a, T> Output<'a, T> {
    /// An output of `len` elements.
    ///
    /// # Safety
    /// `first` is NULL or writable for `len` elements during `'a`, and nobody else uses them.
    pub(super) unsafe fn new(name: &'static str, first: *mut T, len: usize) -> Result<Self, Failure> {
        buffers::check(first, len, name)?;
        Ok(Self { name, first, len, borrowed: PhantomData })
    }

    /// An output that is not wanted where the pointer is NULL.
    ///
    /// # Safety
    /// As [`Output::new`].
    pub(super) unsafe fn optional(name: &'static str, first: *mut T, len: usize) -> Result<Self, Failure> {
        // SAFETY: the function's contract.
        unsafe { Self::new(name, first, if first.is_null() { 0 } else { len }) }
    }

    fn addresses(&self) -> Range<usize> {
        addresses(self.first, self.len)
    }

    /// Refuses an array, known to fit into memory, that shares memory with this output.
    fn refuse_overlap<U>(&self, name: &str, first: *const U, len: usize) -> Result<(), Failure> {
        if overlap(&self.addresses(), &addresses(first, len)) {
            return Err(Failure::invalid(format!("{} overlaps {name}", self.name)));
        }
        Ok(())
    }

    /// An input that shares no memory with this output.
    ///
    /// # Safety
    /// `first` is NULL or readable for `len` elements that nobody changes during `'a`.
    pub(super) unsafe fn read<U>(
        &self,
        name: &'static str,
        first: *const U,
        len: usize,
    ) -> Result<&'a [U], Failure> {
        buffers::check(first, len, name)?;
        self.refuse_overlap(name, first, len)?;
        // SAFETY: the function's contract; it is no part of the output.
        unsafe { buffers::array(first, len, name) }
    }

    /// The same, absent where the pointer is NULL.
    ///
    /// # Safety
    /// As [`Output::read`].
    pub(super) unsafe fn read_optional<U>(
        &self,
        name: &'static str,
        first: *const U,
        len: usize,
    ) -> Result<Option<&'a [U]>, Failure> {
        // SAFETY: the function's contract.
        (!first.is_null()).then(|| unsafe { self.read(name, first, len) }).transpose()
    }

    /// The elements, to write; absent where the pointer is NULL.
    ///
    /// # Safety
    /// As [`Output::borrow`].
    pub(super) unsafe fn borrow_optional(self) -> Option<&'a mut [T]> {
        // SAFETY: the function's contract.
        (!self.first.is_null()).then(|| unsafe { self.borrow() })
    }

    /// The elements, to write.
    ///
    /// # Safety
    /// Nothing else that was made of the call's pointers covers them: every input was read through this output, and
    /// [`check_apart`] has compared the outputs.
    pub(super) unsafe fn borrow(self) -> &'a mut [T] {
        // SAFETY: checked when it was made; exclusive by the function's contract.
        unsafe { buffers::array_mut(self.first, self.len, self.name) }.unwrap_or_default()
    }
}

impl<'a> Output<'a, f32> {
    /// An input that is this output, where the pointers are the same and `same_layout` says that the rows are too, or
    /// that shares no memory with it.
    ///
    /// # Safety
    /// As [`Output::read`].
    pub(super) unsafe fn input(
        &self,
        name: &'static str,
        first: *const f32,
        len: usize,
        same_layout: bool,
    ) -> Result<Input<'a>, Failure> {
        if self.is(first) && same_layout {
            return Ok(Input::InPlace);
        }
        // SAFETY: the function's contract.
        unsafe { self.read(name, first, len) }.map(Input::Slice)
    }

    /// Whether an array begins where this output does.
    pub(super) fn is(&self, first: *const f32) -> bool {
        self.len > 0 && self.first.cast_const() == first
    }
}

/// Refuses outputs that share memory with each other.
pub(super) fn check_apart<T>(outputs: &[&Output<'_, T>]) -> Result<(), Failure> {
    for (i, output) in outputs.iter().enumerate() {
        outputs[i + 1..]
            .iter()
            .try_for_each(|other| output.refuse_overlap(other.name, other.first, other.len))?;
    }
    Ok(())
}

/// An input that shares no memory with any of the outputs, of which there is at least one; absent where the pointer is
/// NULL.
///
/// # Safety
/// As [`Output::read`].
pub(super) unsafe fn read_apart<'a, T, U>(
    outputs: &[&Output<'a, T>],
    name: &'static str,
    first: *const U,
    len: usize,
) -> Result<Option<&'a [U]>, Failure> {
    let mut input = None;
    for output in outputs {
        // SAFETY: the function's contract.
        input = unsafe { output.read_optional(name, first, len) }?;
    }
    Ok(input)
}

/// Addresses of `len` elements, which are known to fit into memory.
fn addresses<T>(first: *const T, len: usize) -> Range<usize> {
    first.addr()..first.addr() + len * size_of::<T>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::status::{SM_STATUS_INVALID_ARGUMENT, SM_STATUS_NULL_POINTER};

    #[test]
    fn an_input_is_the_output_or_apart_from_it() {
        let mut memory = [0.0f32; 12];
        let first = memory.as_mut_ptr();
        // SAFETY: elements 4 to 7 of the memory; inputs lie in it, and are only compared.
        let outcome = |at: usize, len: usize, same_layout: bool| unsafe {
            let output = Output::new("y", first.wrapping_add(4), 4).unwrap();
            output.input("x", first.wrapping_add(at).cast_const(), len, same_layout).map_or_else(
                |failure| Err(failure.message.into_owned()),
                |input| Ok(matches!(input, Input::InPlace)),
            )
        };
        assert_eq!(
            (outcome(4, 4, true), outcome(0, 4, true), outcome(8, 4, false)),
            (Ok(true), Ok(false), Ok(false))
        );
        for (at, len, same_layout) in [(4, 4, false), (3, 4, true), (7, 4, true), (0, 12, true), (5, 2, true)]
        {
            assert_eq!(outcome(at, len, same_layout), Err("y overlaps x".into()), "{at} {len}");
        }
    }

    #[test]
    fn several_outputs_are_apart_from_each_other_and_from_inputs() {
        let mut memory = [0.0f32; 12];
        let first = memory.as_mut_ptr();
        // SAFETY: both outputs lie in the memory; inputs are only compared.
        let outcome = |other: usize, input: usize| unsafe {
            let y = Output::new("y", first, 4).unwrap();
            let z = Output::new("z", first.wrapping_add(other), 4).unwrap();
            let outputs = [&y, &z];
            let checked = check_apart(&outputs)
                .and_then(|()| read_apart(&outputs, "x", first.wrapping_add(input).cast_const(), 2));
            checked.map(|input| input.unwrap().len()).map_err(|failure| failure.message.into_owned())
        };
        assert_eq!((outcome(4, 8), outcome(6, 4)), (Ok(2), Ok(2)));
        assert_eq!(outcome(3, 8), Err("y overlaps z".into()));
        assert_eq!((outcome(6, 3), outcome(6, 5)), (Err("y overlaps x".into()), Err("z overlaps x".into())));
    }

    #[test]
    fn pointers_that_can_not_be_are_refused() {
        // SAFETY: refused before anything is read or written.
        unsafe {
            let null = Output::new("y", std::ptr::null_mut::<f32>(), 4).err().unwrap();
            assert_eq!(null.status, SM_STATUS_NULL_POINTER);
            let mut memory = [0.0f32; 4];
            let output = Output::new("y", memory.as_mut_ptr(), 4).unwrap();
            let missing = output.read::<f32>("x", std::ptr::null(), 4).unwrap_err();
            assert_eq!((missing.status, missing.message.as_ref()), (SM_STATUS_NULL_POINTER, "x is NULL"));
            let huge = output.read("x", memory.as_ptr(), usize::MAX).unwrap_err();
            assert_eq!(huge.status, SM_STATUS_INVALID_ARGUMENT);
            assert!(output.read_optional::<f32>("x", std::ptr::null(), 4).unwrap().is_none());
            let unwanted = Output::optional("mean", std::ptr::null_mut::<f32>(), 4).unwrap();
            assert!(unwanted.borrow_optional().is_none());
        }
    }
}
