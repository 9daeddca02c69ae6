//! Addresses on the command line, and what to type instead of one that cannot be used.

use poetry::addr::{Addr, BadAddr, ListenAddr};
use poetry::error::Error;
use std::net::Ipv6Addr;
use std::path::Path;

/// The default ports of the listening commands. They are proposed where a port is
/// missing.
pub(super) const PROXY_PORT: u16 = 10000;
pub(super) const SERVE_PORT: u16 = 10001;
pub(super) const TRANSFORM_PORT: u16 = 11000;

/// The port that is proposed for operators: a free one, and none that browsers refuse.
pub(super) const ADMIN_PORT: u16 = 10002;

/// Ports below this one need privileges to listen on.
const FIRST_FREE_PORT: u16 = 1024;

/// A parser of addresses to listen on; port 0 picks a free one. `port` is proposed
/// where none is given.
pub(super) fn listen_addr(port: u16) -> impl Fn(&str) -> Result<ListenAddr, String> + Clone {
    move |text| {
        let every_host = |port| format!("0.0.0.0:{port} or [::]:{port}");
        text.parse().map_err(|error: BadAddr| {
            let host_left_out = port_alone(text).map(every_host);
            explain(&error, host_left_out.or_else(|| nearest(text, port)))
        })
    }
}

/// A parser of addresses to connect to. `port` is proposed where none is given.
pub(super) fn connect_addr(port: u16) -> impl Fn(&str) -> Result<Addr, String> + Clone {
    move |text| {
        let addr: Addr = match text.parse() {
            Ok(addr) => addr,
            Err(_) if is_file(text) => return Err(format!("{NOT_A_SERVER} {text}")),
            Err(error) => {
                let local = port_alone(text).map(|port| format!("127.0.0.1:{port}"));
                return Err(explain(&error, local.or_else(|| nearest(text, port))));
            }
        };
        if matches!(addr, Addr::Tcp { port: 0, .. }) {
            return Err("port 0 cannot be connected to; wanted a port from 1 to 65535".into());
        }
        Ok(addr)
    }
}

const NOT_A_SERVER: &str = "a file, not a server; to serve it, type: poetry serve";

/// Whether this names a file: one that exists, or one of the kind that is served.
fn is_file(text: &str) -> bool {
    text.ends_with(".txt") || Path::new(text).is_file()
}

fn explain(error: &BadAddr, instead: Option<String>) -> String {
    match instead {
        Some(instead) => format!("{}; try {instead}", error.why()),
        None => error.to_string(),
    }
}

/// The port of `:PORT` or `*:PORT`.
fn port_alone(text: &str) -> Option<u16> {
    let port = text.strip_prefix('*').unwrap_or(text).strip_prefix(':')?;
    port.parse().ok()
}

/// The address that was probably meant, if there is one; `port` where none is given.
fn nearest(text: &str, port: u16) -> Option<String> {
    if text.starts_with(['/', '.']) {
        return Some(format!("unix:{text}"));
    }
    if text.starts_with("unix:") {
        return None;
    }

    let has_scheme = text.contains("://");
    let (_, rest) = text.split_once("://").unwrap_or(("", text));
    let (host, _path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.trim_end_matches(':');
    if host.len() < rest.len() && !has_scheme && !rest.contains(':') {
        return None; // a relative path
    }

    let split = host.rsplit_once(':').unwrap_or((host, ""));
    let candidates = [
        host.to_string(),
        format!("{host}:{port}"),
        format!("[{}]:{}", split.0, split.1),
        format!("[{host}]:{port}"),
    ];
    candidates.into_iter().find(|text| is_address(text))
}

/// Whether this is an address with a host that can be meant.
fn is_address(text: &str) -> bool {
    let Ok(Addr::Tcp { host, .. }) = text.parse() else {
        return false;
    };
    let number = host.split('%').next().unwrap_or_default();
    let is_ipv6 = number.parse::<Ipv6Addr>().is_ok();
    let is_number = host.bytes().all(|byte| byte.is_ascii_digit());
    text.contains(':') && (is_ipv6 || !(is_number || host.contains(':')))
}

/// Adds to an error of listening what helps: without privileges, another port.
pub(super) fn explain_refusal(addr: &Addr, error: Error) -> Error {
    match (addr, error) {
        (Addr::Tcp { port, .. }, Error::Local { subject, why })
            if (1..FIRST_FREE_PORT).contains(port) && why.ends_with("permission denied") =>
        {
            let mut high = addr.clone();
            if let Addr::Tcp { port, .. } = &mut high {
                *port += 8000; // 80 becomes 8080
            }
            let help = format!("ports below {FIRST_FREE_PORT} need privileges; try {high}");
            let why = format!("{why}: {help}");
            Error::Local { subject, why }
        }
        (_, error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_address_is_told_with_what_to_type_instead() {
        for (text, error) in [
            ("localhost", "no port given; try localhost:10000"),
            ("localhost:", "no port given; try localhost:10000"),
            ("127.0.0.1", "no port given; try 127.0.0.1:10000"),
            ("[::1]", "no port after the brackets; try [::1]:10000"),
            ("::1", "an IPv6 address needs brackets; try [::1]:10000"),
            ("::1:80", "an IPv6 address needs brackets; try [::1]:80"),
            (
                "fe80::1%eth0:80",
                "an IPv6 address needs brackets; try [fe80::1%eth0]:80",
            ),
            (
                "http://localhost:10001/",
                "a scheme like http:// has no place in it; try localhost:10001",
            ),
            (
                "http://h",
                "a scheme like http:// has no place in it; try h:10000",
            ),
            ("h:1/", "the port is not a number up to 65535; try h:1"),
            (":80", "no host before the colon; try 127.0.0.1:80"),
            (
                "no/such/file.txt",
                "a file, not a server; to serve it, type: poetry serve no/such/file.txt",
            ),
            (
                "Cargo.toml",
                "a file, not a server; to serve it, type: poetry serve Cargo.toml",
            ),
        ] {
            assert_eq!(connect_addr(10000)(text), Err(error.into()), "{text}");
        }

        let error = connect_addr(10000)("70000").expect_err("too large");
        assert!(error.ends_with("; wanted [HOST:]PORT, [IPV6]:PORT or unix:PATH"));
    }

    #[test]
    fn an_address_without_a_host_to_listen_on_is_told_with_two_hosts() {
        for (text, why) in [
            (":80", "no host before the colon"),
            ("*:80", "not a host name"),
        ] {
            let expected = format!("{why}; try 0.0.0.0:80 or [::]:80");
            assert_eq!(listen_addr(10000)(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn without_privileges_another_port_is_proposed() {
        let denied = |addr: &str| {
            let addr: Addr = addr.parse().expect(addr);
            let error = Error::Local {
                subject: addr.to_string(),
                why: "could not listen: permission denied".into(),
            };
            explain_refusal(&addr, error).to_string()
        };

        assert_eq!(
            denied("80"),
            "127.0.0.1:80: could not listen: permission denied: \
             ports below 1024 need privileges; try 127.0.0.1:8080"
        );
        assert!(denied("8080").ends_with("permission denied"));
        assert!(denied("unix:/p").ends_with("permission denied"));
    }
}
