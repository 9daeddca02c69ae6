//! What a route takes, as it is written.

use ipnet::IpNet;
use regex::bytes::Regex;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest name that DNS can hold, in bytes, without a dot at its end.
pub(super) const NAME_MAX: usize = 253;

/// What a route takes.
#[derive(Debug, Clone)]
pub enum RoutePattern {
    /// Names that end in a dot and this. It is in small letters.
    Suffix(String),
    /// Addresses and networks within this one.
    Net(IpNet),
    /// Requests that match.
    Matches(Regex),
    /// All others.
    Rest,
}

/// Why a text is no pattern. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It is none of the four kinds.
    #[error("{0}; wanted *.SUFFIX, an address or a network, /REGEX/ or *")]
    Shape(&'static str),
    /// It may have been meant for another pattern.
    #[error("{why}; try {instead}")]
    Near {
        /// What is wrong.
        why: &'static str,
        /// What can be written instead.
        instead: String,
    },
    /// The expression can't be read.
    #[error("{0}; wanted a regular expression like /^AS[0-9]+$/")]
    Regex(String),
}

impl FromStr for RoutePattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<RoutePattern, BadPattern> {
        if text == "*" {
            return Ok(RoutePattern::Rest);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return suffix_pattern(suffix);
        }
        if let Some(rest) = text.strip_prefix('/') {
            return regex_pattern(rest);
        }
        if let Some(net) = net(text) {
            return net_pattern(net);
        }
        Err(other_than_a_pattern(text))
    }
}

/// An address or a network, as patterns and requests have them.
pub(super) fn net(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().ok().map(IpNet::from);
    let net = address.or_else(|| text.parse::<IpNet>().ok())?;
    Some(plain(net))
}

/// An IPv4 network within IPv6 (`::ffff:192.0.2.1`) as IPv4.
fn plain(net: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(mapped) = net else {
        return net;
    };
    let address = mapped.addr().to_ipv4_mapped();
    let bits = mapped.prefix_len().checked_sub(MAPPED_BITS);
    let short = address
        .zip(bits)
        .and_then(|(address, bits)| IpNet::new(address.into(), bits).ok());
    short.unwrap_or(net)
}

fn suffix_pattern(suffix: &str) -> Result<RoutePattern, BadPattern> {
    let lower = suffix.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || c == '*';

    if name.split('.').any(str::is_empty) {
        return Err(BadPattern::Shape("a part of the name is empty"));
    }
    if name.contains(is_odd) {
        return Err(BadPattern::Shape("a * or a space within the name"));
    }
    if name.len() > NAME_MAX {
        return Err(BadPattern::Shape("longer than a name can be"));
    }
    Ok(RoutePattern::Suffix(name.to_string()))
}

fn regex_pattern(rest: &str) -> Result<RoutePattern, BadPattern> {
    let Some(regex) = rest.strip_suffix('/') else {
        return Err(BadPattern::Shape("no / at the end of the expression"));
    };
    match Regex::new(regex) {
        Ok(regex) => Ok(RoutePattern::Matches(regex)),
        Err(error) => {
            let error = error.to_string();
            // The lines above the last one repeat the pattern and mark the place.
            let why = error.lines().last().unwrap_or_default();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            Err(BadPattern::Regex(why.to_string()))
        }
    }
}

fn net_pattern(net: IpNet) -> Result<RoutePattern, BadPattern> {
    if net.addr() == net.network() {
        return Ok(RoutePattern::Net(net));
    }
    Err(BadPattern::Near {
        why: "bits are set after the length of the network",
        instead: net.trunc().to_string(),
    })
}

/// What is wrong with a text that looks like none of the kinds.
fn other_than_a_pattern(text: &str) -> BadPattern {
    let name = text.trim_start_matches(['*', '.']);
    match suffix_pattern(name) {
        _ if text.is_empty() => BadPattern::Shape("nothing before the upstream"),
        Ok(suffix) if !text.contains(['/', ':', '=']) => BadPattern::Near {
            why: "a name alone is no pattern",
            instead: suffix.to_string(),
        },
        _ => BadPattern::Shape("none of the patterns there are"),
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoutePattern::Suffix(suffix) => write!(f, "*.{suffix}"),
            RoutePattern::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            RoutePattern::Net(net) => net.fmt(f),
            RoutePattern::Matches(regex) => write!(f, "/{regex}/"),
            RoutePattern::Rest => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parses_prints_as_it_can_be_given_again() {
        for (text, printed) in [
            ("*", "*"),
            ("*.DE", "*.de"),
            ("*.co.uk.", "*.co.uk"),
            ("*.münchen", "*.münchen"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("/^AS[0-9]+$/", "/^AS[0-9]+$/"),
            ("//", "//"),
            ("/a/b/", "/a/b/"),
        ] {
            let pattern: RoutePattern = text.parse().expect(text);
            assert_eq!(pattern.to_string(), printed);
            let again: RoutePattern = printed.parse().expect(printed);
            assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_what_is_wanted() {
        for (text, why) in [
            ("", "nothing before the upstream; wanted *.SUFFIX"),
            ("de", "a name alone is no pattern; try *.de"),
            (".de", "a name alone is no pattern; try *.de"),
            ("*de", "a name alone is no pattern; try *.de"),
            ("*.", "a part of the name is empty; wanted *.SUFFIX"),
            ("*.a..b", "a part of the name is empty"),
            ("*.*.de", "a * or a space within the name"),
            (
                "192.0.2.1/24",
                "bits are set after the length of the network; try 192.0.2.0/24",
            ),
            (
                "192.0.2.0/33",
                "none of the patterns there are; wanted *.SUFFIX",
            ),
            ("whois.example:43", "none of the patterns there are"),
            ("/a", "no / at the end of the expression"),
            ("/", "no / at the end of the expression"),
            (
                "/(/",
                "unclosed group; wanted a regular expression like /^AS[0-9]+$/",
            ),
        ] {
            let error = text.parse::<RoutePattern>().expect_err(text).to_string();
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }
}
