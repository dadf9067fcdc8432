//! `strftime_now(format)`, with which templates put today's date into a system prompt.
//! The time is UTC: the local time zone would make the same prompt differ between machines.
//! The directives of well-known templates are here; others are an error that names them.

use minijinja::{Error, ErrorKind};
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// From the day of 1970-01-01.
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// The current time as RFC 3339 writes it, in UTC.
pub(crate) fn rfc3339_now() -> String {
    // Every directive of it is known.
    strftime_now("%Y-%m-%dT%H:%M:%SZ").unwrap_or_default()
}

/// The current time by `format`.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    // A clock before 1970 is no clock; the template still renders.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    strftime(format, now)
}

/// `seconds` since 1970 by `format`.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    use std::fmt::Write;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let month_name = MONTHS[month as usize - 1];
    let weekday = WEEKDAYS[(days % 7) as usize];
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let written = match chars.next() {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('m') => write!(out, "{month:02}"),
            Some('B') => write!(out, "{month_name}"),
            Some('b') => write!(out, "{}", &month_name[..3]),
            Some('d') => write!(out, "{day:02}"),
            Some('A') => write!(out, "{weekday}"),
            Some('a') => write!(out, "{}", &weekday[..3]),
            Some('H') => write!(out, "{hour:02}"),
            Some('I') => write!(out, "{:02}", (hour + 11) % 12 + 1),
            Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{:02}", second % 60),
            Some('%') => write!(out, "%"),
            other => {
                let directive = other.map(String::from).unwrap_or_default();
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now doesn't know %{directive}"),
                ));
            }
        };
        written.map_err(|_| Error::new(ErrorKind::WriteFailure, "strftime_now"))?;
    }
    Ok(out)
}

/// Year, month and day in the Gregorian calendar, `days` after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Count from 0000-03-01: leap days then end a year, and all eras of 400 years are alike.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, months have 153 days in five.
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn known_moments() {
        // From `date -u -d @N +…`.
        let format = "%Y-%m-%d %H:%M:%S %I %p %a %A %b %B %y %%";
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 12 AM Thu Thursday Jan January 70 %"),
            (951_782_399, "2000-02-28 23:59:59 11 PM Mon Monday Feb February 00 %"),
            (951_782_400, "2000-02-29 00:00:00 12 AM Tue Tuesday Feb February 00 %"),
            (1_735_689_599, "2024-12-31 23:59:59 11 PM Tue Tuesday Dec December 24 %"),
            (4_107_542_400, "2100-03-01 00:00:00 12 AM Mon Monday Mar March 00 %"),
        ] {
            assert_eq!(strftime(format, seconds).unwrap(), expected);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let lengths = |year: u64| {
            let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000 {
            assert_eq!(super::date(days), (year, month, day));
            day += 1;
            if day > lengths(year)[month as usize - 1] {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn an_unknown_directive_is_named() {
        assert!(strftime("%Q", 0).unwrap_err().to_string().contains("%Q"));
        assert!(strftime("%", 0).is_err());
        assert!(strftime("", 0).unwrap().is_empty());
    }
}
