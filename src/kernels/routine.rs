//! From arithmetic that is written once to code for one level, which tables of kernels hold and run.

use super::info::KernelInfo;
use crate::isa::{Isa, SimdBody};
use std::fmt;
use std::marker::PhantomData;

/// The arithmetic of a kernel on arguments of type `A`, written once for all levels. Where arguments are pointers, the
/// kernel's contract states the memory that they must point to.
pub(super) trait Routine<A> {
    /// The result.
    type Output;
    /// Computes. Implementations are `#[inline(always)]`, as all that they call must be: only then is the code
    /// compiled for `I`.
    fn run<I: Isa>(isa: I, args: &A) -> Self::Output;
}

/// A routine that is compiled for one level.
pub(super) struct Code<A, R = ()>(unsafe fn(&A) -> R);

impl<A, R> Clone for Code<A, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, R> Copy for Code<A, R> {}

impl<A, R> fmt::Debug for Code<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

impl<A, R> Code<A, R> {
    /// The code of a routine for level `I`.
    pub const fn of<I: Isa, B: Routine<A, Output = R>>() -> Self {
        Self(entry::<I, A, B>)
    }

    /// The code of a function, whose safety contract is that of [`Code::run`].
    pub const fn from_function(function: unsafe fn(&A) -> R) -> Self {
        Self(function)
    }

    /// Runs the code.
    ///
    /// # Safety
    /// This CPU has the level, as a kernel from its family's `select` proves. The memory that `args` names is there, as
    /// the kernel's contract says.
    #[inline(always)]
    #[doc(hidden)]
    pub unsafe fn run(&self, args: &A) -> R {
        // SAFETY: the caller promises the level and the memory.
        unsafe { (self.0)(args) }
    }
}

/// A kernel whose arguments, of type `A`, say all that it does.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<A> {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    pub(super) code: Code<A>,
}

impl<A> Kernel<A> {
    /// Computes what `args` describes.
    ///
    /// # Safety
    /// The memory that `args` names is there, as the documentation of its type says under *Memory*.
    #[doc(hidden)]
    pub unsafe fn run(&self, args: &A) {
        // SAFETY: `select`, which gave the kernel out, has proved the level; `args` names memory that is there.
        unsafe { self.code.run(args) }
    }
}

/// Runs a routine in a function that is compiled for level `I`.
///
/// # Safety
/// This CPU has the level, and the memory that `args` names is there, as the kernel's contract says.
#[inline(always)]
pub(super) unsafe fn entry<I: Isa, A, B: Routine<A>>(args: &A) -> B::Output {
    // SAFETY: the caller promises the level.
    unsafe { I::new_unchecked() }.vectorize(Call::<A, B>(args, PhantomData))
}

/// A routine and its arguments.
struct Call<'a, A, B>(&'a A, PhantomData<B>);

impl<A, B: Routine<A>> SimdBody for Call<'_, A, B> {
    type Output = B::Output;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> B::Output {
        B::run(isa, self.0)
    }
}

/// Runs a body that is its own arguments in a function that is compiled for level `I`.
///
/// # Safety
/// The CPU has the level, and the memory that `args` names is there as its type says.
pub(super) unsafe fn at_level<I: Isa, A>(args: &A)
where
    for<'a> &'a A: SimdBody<Output = ()>,
{
    // SAFETY: the CPU has the level.
    unsafe { I::new_unchecked() }.vectorize(args)
}
