//! Which client may do what. Pure: a head in, the rights or the refusal out.
//!
//! | the address | `open` | `read`, `keys` | `act` |
//! |---|---|---|---|
//! | a unix socket | yes | yes | yes: the mode of its file decides |
//! | loopback | yes | yes | with the token, or from the page |
//! | elsewhere | yes | with the token | with the token |
//!
//! What a browser could be made to do is refused before that:
//!
//! | threat | what stops it |
//! |---|---|
//! | a form or an image of another site | nothing changes by GET; `Sec-Fetch-Site`, or `Origin` beside `Host` |
//! | images of another site that occupy the endpoint, as `/log` would | what they embed gets no more than `open`; a link may lead anywhere |
//! | a name of another site that leads here | over TCP, `Host` is an IP address, `localhost` or a name given at the start; without one, as HTTP/1.0 may be, only what is `open` is answered |

use super::action::Right;
use crate::addr::Addr;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::IpAddr;

/// The shortest token: sixteen random characters can't be guessed over a network.
const TOKEN_MIN: usize = 16;

/// How the endpoint was reached: by the address that it listens on, not by the
/// client's, because a proxy on this machine has an address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A unix socket.
    Unix,
    /// An address that only this machine can reach.
    Loopback,
    /// Any other address.
    Elsewhere,
}

impl Via {
    /// How clients of this address come.
    pub fn of(addr: &Addr) -> Via {
        match addr {
            Addr::Unix(_) => Via::Unix,
            Addr::Tcp { host, .. } => {
                let ip = host.split('%').next().unwrap_or_default().parse();
                let is_local = ip.is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
                if is_local || host.eq_ignore_ascii_case("localhost") {
                    Via::Loopback
                } else {
                    Via::Elsewhere
                }
            }
        }
    }
}

/// A secret that gives all rights. Only its digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// The token in a file of this content: without the white space around it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(content: &[u8]) -> Result<Token, &'static str> {
        let token = content.trim_ascii();
        if token.len() < TOKEN_MIN {
            return Err("a token has at least 16 characters");
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err("a token is one word of ASCII characters");
        }
        Ok(Token::digest(token))
    }

    fn digest(token: &[u8]) -> Token {
        Token(Sha256::digest(token).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Which clients are let in.
#[derive(Debug, Clone, Default)]
pub struct AdminAccess {
    /// The secret, if there is one.
    pub token: Option<Token>,
    /// Names that `Host` may have beside `localhost` and IP addresses.
    pub hosts: Vec<String>,
}

/// What of a head decides over rights. Each field may be there any number of times.
#[derive(Debug, Clone, Default)]
pub struct HttpHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The host and port of an absolute target.
    pub authority: Option<&'a str>,
    /// Whether it is HTTP/1.0, which needs no `Host`.
    pub is_http_1_0: bool,
    /// `Host`.
    pub hosts: Vec<&'a [u8]>,
    /// `Sec-Fetch-Site`.
    pub fetch_sites: Vec<&'a [u8]>,
    /// `Sec-Fetch-Mode`.
    pub fetch_modes: Vec<&'a [u8]>,
    /// `Origin`.
    pub origins: Vec<&'a [u8]>,
    /// `Authorization`.
    pub authorizations: Vec<&'a [u8]>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is no `Host`, or more than one.
    NotOneHost,
    /// The host is none of ours.
    WrongHost,
    /// A browser says that another site asks.
    CrossSite,
    /// It takes the token.
    NoToken,
    /// It takes a token, and there is none.
    Never,
}

impl Denied {
    /// The status code of HTTP.
    pub fn status(self) -> u16 {
        match self {
            Denied::NotOneHost => 400,
            Denied::WrongHost => 421,
            Denied::NoToken => 401,
            Denied::CrossSite | Denied::Never => 403,
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::NotOneHost => "wanted exactly one Host",
            Denied::WrongHost => {
                "this host is not known here: use an IP address, localhost, or --admin-host"
            }
            Denied::CrossSite => "another site asks for this",
            Denied::NoToken => "this takes the token of --admin-token",
            Denied::Never => "this takes a unix socket, the page at /, or a token (--admin-token)",
        })
    }
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    may_read: bool,
    may_act: bool,
    /// What a refusal says.
    refusal: Denied,
}

impl HttpHead<'_> {
    /// Whether this is HTTP/1.0 without a `Host`, as the health checks of HAProxy are.
    /// No browser sends that, so no name can have led it here.
    fn is_health_check(&self) -> bool {
        self.is_http_1_0 && self.hosts.is_empty() && self.authority.is_none()
    }
}

impl Rights {
    /// Of a client that names no host: health and metrics.
    const OPEN: Rights = Rights {
        may_read: false,
        may_act: false,
        refusal: Denied::NotOneHost,
    };

    /// The rights that a connection has by itself: all that the line language knows.
    pub fn of(via: Via) -> Rights {
        Rights {
            may_read: via != Via::Elsewhere,
            may_act: via == Via::Unix,
            refusal: Denied::Never,
        }
    }

    /// Allows what takes this right.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn allow(self, right: Right) -> Result<(), Denied> {
        let is_allowed = match right {
            Right::Open => true,
            Right::Read | Right::Keys => self.may_read,
            Right::Act => self.may_act,
        };
        if is_allowed {
            Ok(())
        } else {
            Err(self.refusal)
        }
    }
}

impl AdminAccess {
    /// The rights of a request, by its head.
    ///
    /// # Errors
    /// Why it is refused, whatever it asks for.
    pub fn rights(&self, via: Via, head: &HttpHead<'_>) -> Result<Rights, Denied> {
        let is_safe = ["GET", "HEAD"].contains(&head.method);
        if is_safe && via != Via::Unix && head.is_health_check() {
            return Ok(Rights::OPEN);
        }
        self.check_hosts(via, head)?;
        let site = Site::of(head);
        if !is_safe && site == Site::Other {
            return Err(Denied::CrossSite);
        }

        let plain = Rights::of(via);
        let has_token = self.has_token(head);
        let is_page = via == Via::Loopback && site == Site::Same;
        // A person follows a link, and sees the answer. What a page embeds is hidden
        // from it, but can keep places and cores busy.
        let is_link = head.fetch_modes == [b"navigate"];
        let is_embedded = site == Site::Other && !is_link;
        let refusal = match self.token {
            _ if is_embedded => Denied::CrossSite,
            Some(_) => Denied::NoToken,
            None => Denied::Never,
        };
        Ok(Rights {
            may_read: (plain.may_read || has_token) && !is_embedded,
            may_act: plain.may_act || has_token || is_page,
            refusal,
        })
    }

    /// Over TCP both the target's host and `Host` must be known: a name of another site
    /// that leads here makes a browser send what looks like our own page's requests,
    /// and only the host shows it. A unix socket has no name, but a tunnel leads
    /// browsers to it, and what they mark as theirs is held to the same.
    fn check_hosts(&self, via: Via, head: &HttpHead<'_>) -> Result<(), Denied> {
        if head.hosts.len() > 1 {
            return Err(Denied::NotOneHost);
        }
        let is_browser = !head.fetch_sites.is_empty() || !head.origins.is_empty();
        if via == Via::Unix && !is_browser {
            return Ok(());
        }

        let [host] = head.hosts[..] else {
            return Err(Denied::NotOneHost);
        };
        let host = std::str::from_utf8(host).unwrap_or_default();
        let mut named = [Some(host), head.authority].into_iter().flatten();
        if named.all(|host| self.knows(host)) {
            Ok(())
        } else {
            Err(Denied::WrongHost)
        }
    }

    /// Whether this is a host of ours. The port may be any: a tunnel has its own.
    fn knows(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else {
            return false;
        };
        let is_ip = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.parse::<std::net::Ipv4Addr>().is_ok(),
        };
        let is_named = |name: &str| name.eq_ignore_ascii_case(host);
        is_ip || is_named("localhost") || self.hosts.iter().any(|name| is_named(name))
    }

    fn has_token(&self, head: &HttpHead<'_>) -> bool {
        let ([authorization], Some(token)) = (&head.authorizations[..], &self.token) else {
            return false;
        };
        let Some((scheme, given)) = authorization.split_at_checked(b"Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && Token::digest(given.trim_ascii()) == *token
    }
}

/// The host of `HOST[:PORT]`.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => {
            (&authority[..colon], &authority[colon + 1..])
        }
        _ => (authority, ""),
    };
    port.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(host)
}

/// Which site asks, as a browser says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    /// Our own page.
    Same,
    /// Another site.
    Other,
    /// No site: a person typed the address, or this is no browser.
    None,
}

impl Site {
    /// Browsers since 2023 send `Sec-Fetch-Site` with everything, and no page can set
    /// it. Older ones send `Origin` with what is not safe.
    fn of(head: &HttpHead<'_>) -> Site {
        match head.fetch_sites[..] {
            [] => Site::by_origin(head),
            [b"same-origin"] => Site::Same,
            [b"none"] => Site::None,
            _ => Site::Other,
        }
    }

    fn by_origin(head: &HttpHead<'_>) -> Site {
        let origin = match head.origins[..] {
            [] => return Site::None,
            [origin] => origin,
            _ => return Site::Other,
        };
        let origin = std::str::from_utf8(origin).unwrap_or_default();
        let origin = origin.split_once("://").map(|(_, host)| host.as_bytes());

        let host = head.hosts.first();
        let is_same = origin
            .zip(host)
            .is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host));
        if is_same { Site::Same } else { Site::Other }
    }
}

#[cfg(test)]
mod tests;
