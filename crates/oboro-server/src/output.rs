//! What goes to standard output: text for people, one object for programs.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// The result of a verb.
pub trait Report: Serialize {
    /// Writes the text form.
    ///
    /// # Errors
    /// Those of `out`.
    fn text(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Prints a result in the form that was asked for.
///
/// # Errors
/// If standard output cannot be written to; a closed pipe is no failure.
pub fn print(report: &impl Report, json: bool) -> Outcome<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = if json {
        serde_json::to_writer(&mut out, report)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
    } else {
        report.text(&mut out)
    };
    match written.and_then(|()| out.flush()) {
        // A reader such as `head` that has seen enough is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format_args!(
            "cannot write to standard output: {error}"
        ))),
        Ok(()) => Ok(()),
    }
}

/// `1,234,567`
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12.9 KB` (1 KB = 1,000 bytes)
#[must_use]
pub fn bytes(value: u64) -> String {
    let mut scaled = value as f64;
    for unit in ["bytes", "KB", "MB", "GB"] {
        if scaled < 1_000.0 {
            return if unit == "bytes" {
                format!("{value} bytes")
            } else {
                format!("{scaled:.1} {unit}")
            };
        }
        scaled /= 1_000.0;
    }
    format!("{scaled:.1} TB")
}

/// Hexadecimal digits of bytes, for fingerprints and ids.
#[must_use]
pub fn hex(value: &[u8]) -> String {
    use std::fmt::Write as _;
    value.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A text that others wrote, for a terminal or a line of text: control characters, and
/// those that turn the direction of writing, stand as `\u{1b}`.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(hides) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hides(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// What lists give away, for whoever builds an index with them or searches it.
pub const LISTS_LEAK: &str = "which lists a query looks at is told to the searcher, and its host can see it too: they learn the query's neighbourhood, though not which vectors it finds there; without lists they do not";

/// The line that stands in every output where no hardware protects a role.
pub const SIMULATED: &str = "SIMULATED platform: no hardware protects the memory of the servers.";

/// The line about the platform, which nobody shall overlook where it protects nothing.
///
/// # Errors
/// Those of `out`.
pub fn platform(out: &mut dyn Write, platform: &str) -> io::Result<()> {
    if platform == oboro_attest::Platform::Simulated.name() {
        writeln!(out, "{SIMULATED}")
    } else {
        writeln!(out, "Platform: {platform}.")
    }
}

/// Seconds since 1970, now.
#[must_use]
pub fn now() -> u64 {
    oboro_attest::unix_seconds(std::time::SystemTime::now())
}

/// Seconds since 1970 as day and time in UTC: `2026-01-31T12:00:00Z`.
#[must_use]
pub fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years (146,097 days).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Reads what [`utc`] writes, or a number of seconds since 1970; a day alone means its
/// beginning.
#[must_use]
pub fn seconds_of(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let (day, time) = match text.strip_suffix('Z')?.split_once('T') {
        Some(parts) => parts,
        None => (text.strip_suffix('Z')?, "00:00:00"),
    };
    let numbers = |text: &str, by: char| -> Option<[u64; 3]> {
        let parts: Option<Vec<u64>> = text.split(by).map(|part| part.parse().ok()).collect();
        parts?.try_into().ok()
    };
    let [year, month, day_of_month] = numbers(day, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    if !(1970..=9_999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let (shifted, from_march) = (year - u64::from(month <= 2), (month + 9) % 12);
    let days = shifted * 365 + shifted / 4 - shifted / 100
        + shifted / 400
        + (153 * from_march + 2) / 5
        + day_of_month.checked_sub(1)?;
    let seconds = days.checked_sub(719_468)? * 86_400 + hour * 3_600 + minute * 60 + second;
    // Whatever is no day of the calendar or no time of the day comes back as another one.
    let full = format!("{day}T{time}Z");
    (utc(seconds) == full).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_wrote_reaches_a_terminal_raw() {
        for (text, want) in [
            ("paris", "paris"),
            ("Zürich 東京 🙂", "Zürich 東京 🙂"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("1\t2\n3\r4\0", "1\\u{9}2\\u{a}3\\u{d}4\\u{0}"),
            ("\u{9b}31m\x7f", "\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
        ] {
            assert_eq!(shown(text), want);
        }
    }

    #[test]
    fn times_are_read_back() {
        for seconds in [0, 951_782_400, 1_767_225_599, 4_102_444_800] {
            assert_eq!(seconds_of(&utc(seconds)), Some(seconds));
            assert_eq!(seconds_of(&seconds.to_string()), Some(seconds));
        }
        assert_eq!(seconds_of("2000-02-29Z"), Some(951_782_400));
        for bad in [
            "",
            "2001-02-29T00:00:00Z",
            "2001-01-01T25:00:00Z",
            "2001-13-01T00:00:00Z",
            "1969-12-31T00:00:00Z",
            "now",
            "2001-01-00T00:00:00Z",
            "2001-1-1T0:0:0Z",
        ] {
            assert_eq!(seconds_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(12_900), "12.9 KB");
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }

    #[test]
    fn days_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_767_225_599), "2025-12-31T23:59:59Z");
    }
}
