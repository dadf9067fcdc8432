//! Why the program ends without success, what it says then, and its exit code.

use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::process::ExitCode;

use smallmind::Error;

use crate::interrupt;
use crate::output::complain;

/// The exit code of a wrong command line.
const USAGE: u8 = 2;

/// A failure of a command.
#[derive(Debug)]
pub enum Failure {
    /// A wrong value on the command line, named with its option.
    Usage(String),
    /// An error, and what would help.
    Hinted(Error, String),
    /// An error of the library.
    Failed(Error),
    /// Ctrl-C.
    Interrupted,
}

/// The result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Failed(error)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => write!(f, "{text} (see --help)"),
            Failure::Hinted(error, hint) => write!(f, "{error}: {hint}"),
            Failure::Failed(error) => write!(f, "{error}"),
            Failure::Interrupted => write!(f, "stopped"),
        }
    }
}

impl Failure {
    /// Says what went wrong, in a line on standard error, and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Failure::Interrupted => return ExitCode::from(interrupt::EXIT_CODE),
            // Nobody reads any more.
            Failure::Failed(Error::Io { ref source, .. }) if source.kind() == ErrorKind::BrokenPipe => {
                return ExitCode::SUCCESS;
            }
            _ => complain(&self.to_string()),
        }
        match self {
            Failure::Usage(_) => ExitCode::from(USAGE),
            _ => ExitCode::FAILURE,
        }
    }
}
