//! Parsers for the values of options. Each error tells what is wanted; clap quotes the
//! value.

use bytesize::ByteSize;
use clap::Arg;
use std::fmt::Display;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

/// The longest duration: 100 years. A longer one could overflow a clock, so it is cut
/// to this.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

const WANTED_DURATION: &str = "wanted a duration like 500ms, 30s or 2h";

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    refuse_minus(text, WANTED_DURATION)?;

    match humantime::parse_duration(text) {
        Ok(time) => Ok(time.min(MAX_DURATION)),
        Err(error) => Err(bad_duration(text, &error.to_string())),
    }
}

/// What is wrong with a duration, and what to type instead.
fn bad_duration(text: &str, why: &str) -> String {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && !text.is_empty() {
        return format!("no unit given; try {text}s or {text}h");
    }

    let lower = text.to_lowercase();
    if lower != text && humantime::parse_duration(&lower).is_ok() {
        return format!("units are written small; try {lower}");
    }
    format!("{why}; {WANTED_DURATION}")
}

/// If a duration is in months by its unit `M`: the duration with minutes instead, which
/// may have been meant.
pub(super) fn months_as_minutes(text: &str) -> Option<String> {
    let is_unit = |at: usize| {
        let next = text[at + 1..].chars().next();
        !next.is_some_and(char::is_alphabetic) && text[..at].ends_with(|c: char| !c.is_alphabetic())
    };
    let mut units = text.match_indices('M').map(|(at, _)| at);
    units.any(is_unit).then(|| text.replace('M', "m"))
}

/// Refuses a value that starts with a minus: a negative one, or the next option where
/// the value of this one is missing.
fn refuse_minus(text: &str, wanted: &str) -> Result<(), String> {
    let Some(rest) = text.strip_prefix('-') else {
        return Ok(());
    };
    let why = if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        "must not be negative"
    } else {
        "a value is missing before it"
    };
    Err(format!("{why}; {wanted}"))
}

/// Has clap pass values with a minus to the parsers here: they know what is wrong with
/// `--ttl -1s`, which clap takes for an unknown option.
pub(super) fn with_minus(option: Arg) -> Arg {
    let mut names = option.get_value_names().unwrap_or_default().iter();
    if names.any(|name| ["DURATION", "SIZE", "N"].contains(&name.as_str())) {
        option.allow_hyphen_values(true)
    } else {
        option
    }
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() {
        return Err(format!("must be greater than zero; {WANTED_DURATION}"));
    }
    Ok(time)
}

/// How long something may take: a duration, or `none` for no limit. That is as long as
/// a duration can be.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    or_none(text, duration)
}

/// Like [`limit`], but not zero.
pub(super) fn positive_limit(text: &str) -> Result<Duration, String> {
    or_none(text, positive_duration)
}

fn or_none(
    text: &str,
    parse: impl Fn(&str) -> Result<Duration, String>,
) -> Result<Duration, String> {
    if text == "none" {
        return Ok(MAX_DURATION);
    }
    parse(text).map_err(|why| {
        let takes_none = why.ends_with(WANTED_DURATION);
        why + if takes_none { ", or none" } else { "" }
    })
}

/// A part of a whole, from 0 to 1, given in percent.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    const WANTED: &str = "wanted a percentage from 0% to 100%, like 10%";
    refuse_minus(text, WANTED)?;
    let number = text
        .strip_suffix('%')
        .ok_or(format!("no % at its end; {WANTED}"))?;
    let number: f64 = number.parse().map_err(|_| WANTED.to_string())?;
    if !(0.0..=100.0).contains(&number) {
        return Err(WANTED.to_string());
    }
    Ok(number / 100.0)
}

/// A number of bytes, at least 1.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const WANTED: &str = "wanted a size like 65536, 16MiB or 1GB";
    refuse_minus(text, WANTED)?;
    let size: ByteSize = text.parse().map_err(|_| WANTED.to_string())?;
    match size.as_u64() {
        0 => Err(format!("must be greater than zero; {WANTED}")),
        u64::MAX => Err(format!("too large; {WANTED}")), // bytesize saturates
        bytes => Ok(bytes),
    }
}

/// A whole number, `least` or more.
pub(super) fn number<T>(least: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr<Err = ParseIntError> + PartialOrd + Display + Copy,
{
    move |text| {
        let wanted = format!("wanted a whole number, {least} or more");
        refuse_minus(text, &wanted)?;
        match text.parse::<T>() {
            Ok(number) if number >= least => Ok(number),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
                Err(format!("too large; {wanted}"))
            }
            _ => Err(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_told_from_other_units() {
        for (text, minutes) in [
            ("1M", Some("1m")),
            ("1h 30M", Some("1h 30m")),
            ("1month", None),
            ("2Months", None),
            ("1m", None),
        ] {
            assert_eq!(months_as_minutes(text).as_deref(), minutes, "{text}");
        }
    }

    #[test]
    fn a_percentage_is_a_part_of_a_whole() {
        for (text, part) in [("0%", 0.0), ("10%", 0.1), ("2.5%", 0.025), ("100%", 1.0)] {
            assert_eq!(percent(text), Ok(part));
        }
        for text in ["10", "101%", "-1%", "%", "nan%", "inf%", "a%"] {
            let error = percent(text).expect_err(text);
            assert!(error.contains("wanted a percentage"), "{text}: {error}");
        }
    }

    #[test]
    fn a_limit_is_a_duration_or_none() {
        assert_eq!(limit("none"), Ok(MAX_DURATION));
        assert_eq!(limit("0"), Ok(Duration::ZERO));
        assert_eq!(positive_limit("none"), Ok(MAX_DURATION));
        assert_eq!(positive_limit("2m"), Ok(Duration::from_secs(120)));

        let error = |text| positive_limit(text).expect_err(text);
        let wanted = "wanted a duration like 500ms, 30s or 2h, or none";
        assert_eq!(error("0"), format!("must be greater than zero; {wanted}"));
        assert!(error("never").ends_with(wanted));
        assert_eq!(error("5"), "no unit given; try 5s or 5h");
        assert!(duration("none").is_err(), "a ttl has an end");
    }

    #[test]
    fn a_bad_duration_is_told_with_what_to_type_instead() {
        for (text, why) in [
            ("2", "no unit given; try 2s or 2h"),
            ("5S", "units are written small; try 5s"),
            ("-1s", "must not be negative; wanted a duration"),
            ("--grace", "a value is missing before it; wanted a duration"),
        ] {
            let error = duration(text).expect_err(text);
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }
}
