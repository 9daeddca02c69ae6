//! Addresses as people write them, to listen on or to connect to: `[HOST:]PORT`,
//! `[IPV6]:PORT` or `unix:PATH`.

mod client;
mod listen;

pub use client::ClientNet;
pub use listen::ListenAddr;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The host of an address that gives only a port.
const DEFAULT_HOST: &str = "127.0.0.1";

/// The forms of an address, for error messages.
const FORMS: &str = "[HOST:]PORT, [IPV6]:PORT or unix:PATH";

/// An address to listen on or to connect to. A name stays a name: each fetch resolves
/// it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addr {
    /// A host and a port. To listen on port 0 is to listen on any free port.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Addr {
    /// Whether only programs of this machine reach it by this address, as it is written.
    pub fn is_local(&self) -> bool {
        match self {
            Addr::Unix(_) => true,
            Addr::Tcp { host, .. } if host == "localhost" => true,
            Addr::Tcp { host, .. } => {
                let ip: Option<IpAddr> = host.parse().ok();
                ip.is_some_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }

    /// What tells this address from all others, for cache keys. Unlike its `Display`,
    /// this keeps paths that are not UTF-8 apart.
    pub(crate) fn id(&self) -> Vec<u8> {
        match self {
            Addr::Tcp { host, port } => format!("tcp:{host}:{port}").into_bytes(),
            Addr::Unix(path) => [b"unix:", path.as_os_str().as_encoded_bytes()].concat(),
        }
    }
}

fn parse_unix(path: &str) -> Result<Addr, BadAddr> {
    if path.is_empty() {
        return Err(BadAddr("no path after unix:"));
    }
    Ok(Addr::Unix(PathBuf::from(path)))
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Addr {
        Addr::Tcp {
            host: addr.ip().to_string(),
            port: addr.port(),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Addr::Tcp { host, port } => write!(f, "{host}:{port}"),
            Addr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a text is not an address. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted {FORMS}")]
pub struct BadAddr(&'static str);

impl BadAddr {
    /// What is wrong, without the forms that are wanted.
    pub fn why(&self) -> &'static str {
        self.0
    }
}

impl FromStr for Addr {
    type Err = BadAddr;

    fn from_str(text: &str) -> Result<Addr, BadAddr> {
        if let Some(why) = listen::only_to_listen(text) {
            return Err(BadAddr(why));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_unix(path);
        }

        if text.contains("://") && !text.starts_with('[') {
            return Err(BadAddr("a scheme like http:// has no place in it"));
        }
        if text.starts_with('[') && text.ends_with(']') {
            return Err(BadAddr("no port after the brackets"));
        }
        if is_ipv6(text) {
            return Err(BadAddr("an IPv6 address needs brackets"));
        }

        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (bare_host(host)?, port),
            None if is_host(text) => return Err(BadAddr("no port given")),
            None => (DEFAULT_HOST, text),
        };
        Ok(Addr::Tcp {
            host: host.to_string(),
            port: parse_port(port)?,
        })
    }
}

/// The host without the brackets of an IPv6 address.
fn bare_host(host: &str) -> Result<&str, BadAddr> {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));

    match inner {
        Some(inner) if !inner.contains(':') || has_bad_char(inner) => {
            Err(BadAddr("not an IPv6 address between the brackets"))
        }
        Some(inner) => Ok(inner),
        None if host.is_empty() => Err(BadAddr("no host before the colon")),
        None if is_ipv6(host) => Err(BadAddr("an IPv6 address needs brackets")),
        None if host.contains(':') || has_bad_char(host) => Err(BadAddr("not a host name")),
        None => Ok(host),
    }
}

/// Whether this is an IPv6 address, with or without a zone.
fn is_ipv6(host: &str) -> bool {
    host.split('%')
        .next()
        .is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
}

/// Whether this can only be a host: it has no colon, and a port has neither letters nor
/// dots.
fn is_host(text: &str) -> bool {
    text.contains(|c: char| c.is_alphabetic() || c == '.')
}

/// Whether there is a character that neither a host name nor an IP address can have.
fn has_bad_char(host: &str) -> bool {
    host.contains(|c: char| c.is_whitespace() || c.is_control() || "/[]*".contains(c))
}

fn parse_port(port: &str) -> Result<u16, BadAddr> {
    if port.is_empty() {
        return Err(BadAddr("no port given"));
    }
    // Digits only: u16::from_str would also take a leading plus.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|_| digits);
    number.ok_or(BadAddr("the port is not a number up to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        text.parse::<Addr>()
            .map(|addr| addr.to_string())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn an_address_is_shown_as_it_can_be_given_again() {
        for (given, meant) in [
            ("10001", "127.0.0.1:10001"),
            ("localhost:0", "localhost:0"),
            ("poems.example:80", "poems.example:80"),
            ("[::1]:10001", "[::1]:10001"),
            ("unix:/tmp/a b", "unix:/tmp/a b"),
        ] {
            assert_eq!(shown(given).as_deref(), Ok(meant), "{given}");
            assert_eq!(shown(meant).as_deref(), Ok(meant), "{meant}");
        }
    }

    #[test]
    fn a_bad_address_is_refused_with_the_reason() {
        for text in [
            "",
            "x",
            "+80",
            "65536",
            ":80",
            "::1:80",
            "[::1]",
            "[x]:1",
            "a b:1",
            "unix:",
            "h:",
            "http://h:1",
        ] {
            let why = shown(text).expect_err(text);
            assert!(
                why.ends_with("wanted [HOST:]PORT, [IPV6]:PORT or unix:PATH"),
                "{text}: {why}"
            );
        }
    }

    #[test]
    fn the_reason_is_the_one_that_helps() {
        for (text, reason) in [
            (
                "http://localhost:10001/",
                "a scheme like http:// has no place in it",
            ),
            ("localhost", "no port given"),
            ("127.0.0.1", "no port given"),
            ("localhost:", "no port given"),
            ("70000", "the port is not a number up to 65535"),
            ("[::1]", "no port after the brackets"),
            ("::1", "an IPv6 address needs brackets"),
            ("fe80::1%eth0", "an IPv6 address needs brackets"),
            ("fe80::1%eth0:80", "an IPv6 address needs brackets"),
            ("http:localhost:1", "not a host name"),
            ("localhost:1/", "the port is not a number up to 65535"),
        ] {
            let why = shown(text).expect_err(text);
            assert_eq!(why.split("; ").next(), Some(reason), "{text}");
        }
    }

    #[test]
    fn brackets_hold_an_ipv6_address_only() {
        assert_eq!(
            shown("[fe80::1%eth0]:80").as_deref(),
            Ok("[fe80::1%eth0]:80")
        );
        for text in ["[::1 ]:1", "[::1\0]:1", "[[::1]]:1", "[http://h]:1"] {
            assert!(
                shown(text).is_err_and(|why| why.starts_with("not an IPv6 address")),
                "{text}"
            );
        }
    }
}
