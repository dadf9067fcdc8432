//! The date and time of day, for reports. Always UTC, so that reports of several machines can be compared. `jiff` knows
//! the calendar.

use std::time::SystemTime;

use jiff::Timestamp;

/// The current time in the format of RFC 3339, to the second: `2024-02-29T12:00:00Z`; 1970-01-01 where the system's clock
/// shows a year outside of -9999 to 9999.
pub(crate) fn rfc3339_now() -> String {
    rfc3339(Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn rfc3339(time: Timestamp) -> String {
    format!("{time:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_has_whole_seconds() {
        for (nanoseconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999_999_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::from_nanosecond(nanoseconds).unwrap()), expected);
        }
        assert!(rfc3339_now().as_str() >= "2024", "the clock is set");
    }
}
