//! Parsers for the values of options. Each error tells what is wanted; clap quotes the
//! value.

use bytesize::ByteSize;
use poetry::addr::{Addr, BadAddr, ListenAddr};
use std::fmt::Display;
use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;
use std::time::Duration;

/// The longest duration: 100 years. A longer one could overflow a clock, so it is cut
/// to this.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

const WANTED_DURATION: &str = "wanted a duration like 500ms, 30s or 2h";

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(time) => Ok(time.min(MAX_DURATION)),
        Err(error) => Err(format!("{error}; {WANTED_DURATION}")),
    }
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() {
        return Err(format!("must be greater than zero; {WANTED_DURATION}"));
    }
    Ok(time)
}

/// A number of bytes, at least 1.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const WANTED: &str = "wanted a size like 65536, 16MiB or 1GB";
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
        match text.parse::<T>() {
            Ok(number) if number >= least => Ok(number),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
                Err(format!("too large; {wanted}"))
            }
            _ => Err(wanted),
        }
    }
}

/// An address to listen on; port 0 picks a free one.
pub(super) fn listen_addr(text: &str) -> Result<ListenAddr, String> {
    text.parse().map_err(|error: BadAddr| error.to_string())
}

/// An address to connect to.
pub(super) fn connect_addr(text: &str) -> Result<Addr, String> {
    let addr = text.parse().map_err(|error: BadAddr| error.to_string())?;
    if matches!(addr, Addr::Tcp { port: 0, .. }) {
        return Err("port 0 cannot be connected to; wanted a port from 1 to 65535".into());
    }
    Ok(addr)
}
