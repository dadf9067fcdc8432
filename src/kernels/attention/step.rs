//! How attention runs its steps, and where the promise is made that their memory is there.
//!
//! Types of this module that hold pointers (rows, tiles, states, the arguments of steps) are made here alone, out of
//! memory that the caller of an unsafe function ([`Kernel::run`](super::Kernel::run) and its like) has promised, or
//! that a safe one has checked. They are used no longer than that call takes. So running a step on them is safe
//! inside this module, and `unsafe` stands only where the promise is made and where memory is read or written.
//! Attention's gradient (`kernels::backward::attention`) keeps the same rule with its own types, and with
//! [`Pack`](super::pack::Pack).

use crate::isa::Isa;
use crate::kernels::routine::{Code, Routine};
use std::fmt;

/// A step that is compiled for one level, on arguments of type `A`.
pub(in crate::kernels) struct Step<A>(Code<A>);

impl<A> Clone for Step<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Step<A> {}

impl<A> fmt::Debug for Step<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<A> Step<A> {
    /// The step for level `I`.
    pub const fn of<I: Isa, R: Routine<A, Output = ()>>() -> Self {
        Self(Code::of::<I, R>())
    }

    /// The step that a function runs, whose safety contract is that of [`Code::run`].
    pub const fn from_function(function: unsafe fn(&A)) -> Self {
        Self(Code::from_function(function))
    }

    /// Runs the step.
    #[inline(always)]
    pub fn run(&self, args: &A) {
        // SAFETY: `select` has proved the level, and the memory is there, as the module says.
        unsafe { self.0.run(args) }
    }
}
