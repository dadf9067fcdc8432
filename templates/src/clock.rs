//! `strftime_now(format)`, with which templates put today's date into a system prompt.
//! The directives are those of `jiff`, a superset of the ones in well-known templates; the time is UTC:
//! with the local time zone, the same prompt would differ between machines.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::strtime;
use minijinja::{Error, ErrorKind};

/// Longest format, in bytes. A directive may ask for 255 places of padding, so this bounds the result as well.
const MAX_FORMAT_BYTES: usize = 1024;

/// The current time in the given format; 1970-01-01 where the system's clock shows a year outside of -9999 to 9999.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
    strftime(format, now)
}

fn strftime(format: &str, time: Timestamp) -> Result<String, Error> {
    let failed = |why: String| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {why}"));
    if format.len() > MAX_FORMAT_BYTES {
        return Err(failed(format!(
            "a format of {} bytes; at most {MAX_FORMAT_BYTES} are taken",
            format.len()
        )));
    }
    strtime::format(format, time).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(format: &str, seconds: i64) -> Result<String, Error> {
        strftime(format, Timestamp::from_second(seconds).unwrap())
    }

    #[test]
    fn known_moments() {
        // From `date -u -d @N +…`.
        let format = "%Y-%m-%d %H:%M:%S %I %p %a %A %b %B %j %%";
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 12 AM Thu Thursday Jan January 001 %"),
            (951_782_399, "2000-02-28 23:59:59 11 PM Mon Monday Feb February 059 %"),
            (951_782_400, "2000-02-29 00:00:00 12 AM Tue Tuesday Feb February 060 %"),
            (1_735_689_599, "2024-12-31 23:59:59 11 PM Tue Tuesday Dec December 366 %"),
            (4_107_542_400, "2100-03-01 00:00:00 12 AM Mon Monday Mar March 060 %"),
        ] {
            assert_eq!(at(format, seconds).unwrap(), expected);
        }
        assert_eq!(at("%y", 951_782_400).unwrap(), "00");
    }

    #[test]
    fn a_format_that_makes_no_sense_is_an_error_that_names_it() {
        let error = at("%E", 0).unwrap_err().to_string();
        assert!(error.contains("strftime_now") && error.contains("`E`"), "{error}");
        assert!(at("%", 0).is_err());
        assert!(at("", 0).unwrap().is_empty());
    }

    #[test]
    fn no_format_makes_an_endless_text() {
        assert!(at(&"%255d".repeat(200), 0).unwrap().len() <= 200 * 255);
        let error = at(&"%255d".repeat(1 << 20), 0).unwrap_err().to_string();
        assert!(error.contains("at most 1024"), "{error}");
    }
}
