//! Python's semantics for minijinja: values, operators, methods, filters and tests as jinja2 has them under CPython.
//! What a template computes is charged to a [`Budget`], so that it can't take unbounded memory or time.
//!
//! Known differences from jinja2: integers beyond 128 bits are errors; a lone surrogate is U+FFFD; a generator is
//! computed at once, and can be read twice; all operands of `a < b < c` are computed; `safe` and `escape` make plain
//! strings; `random` chooses from one item only; `striptags` decodes references to characters by number, and the names
//! of Latin-1; namespaces and macros can't be put into lists, maps or namespaces; macros take an undefined argument for
//! one that isn't given, and `call` blocks have no `varargs` and `kwargs`; a block sees the variables of the loop that
//! it is in.

mod args;
mod budget;
mod calls;
mod checks;
mod filters;
mod format;
mod functions;
mod json;
mod methods;
mod numbers;
mod operators;
mod pretty;
mod sequences;
mod spec;
mod strings;
mod text;
mod values;
mod variadic;
mod web;
mod wrap;

pub(super) use budget::{Budget, NAME as BUDGET};
pub(super) use text::shown;
pub(super) use values::{dict, list};

use minijinja::{Environment, Error, ErrorKind};

/// Gives `environment` the filters, tests and functions that chat templates may use.
pub(super) fn install(environment: &mut Environment<'static>) {
    calls::install(environment);
    filters::install(environment);
    checks::install(environment);
    functions::install(environment);
}

/// An error as Python's `TypeError` or `ValueError`.
fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// An error that a rendering gives back as [`crate::Error::OutOfMemory`].
fn out_of_memory(error: crate::Error) -> Error {
    wrong(error.to_string()).with_source(error)
}

/// jinja2's `UndefinedError`.
fn undefined(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::UndefinedError, message.into())
}
