//! Addresses to listen on, and the rights of a unix socket's file:
//! `unix:PATH,mode=0660,owner=USER,group=GROUP`.

use super::{Addr, BadAddr, parse_unix};
use std::str::FromStr;

/// An address to listen on: an [`Addr`], or `unix:PATH` with rights. What is not given
/// of the rights is as the system makes it: this process's user and group, and what the
/// umask leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    /// The address.
    pub addr: Addr,
    /// The mode of a unix socket's file, at most 0o777. Connecting takes the right to
    /// write.
    pub mode: Option<u32>,
    /// The owner of that file: a user's name or number.
    pub owner: Option<String>,
    /// The group of that file: a name or a number.
    pub group: Option<String>,
}

impl From<Addr> for ListenAddr {
    fn from(addr: Addr) -> ListenAddr {
        ListenAddr {
            addr,
            mode: None,
            owner: None,
            group: None,
        }
    }
}

impl FromStr for ListenAddr {
    type Err = BadAddr;

    fn from_str(text: &str) -> Result<ListenAddr, BadAddr> {
        let Some((path, parts)) = split(text) else {
            return text.parse::<Addr>().map(ListenAddr::from);
        };

        let mut listen = ListenAddr::from(parse_unix(path)?);
        for part in parts.split(',') {
            listen.add(part).map_err(BadAddr)?;
        }
        Ok(listen)
    }
}

impl ListenAddr {
    /// Adds the right `KEY=VALUE`, or says why not.
    fn add(&mut self, part: &str) -> Result<(), &'static str> {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            MODE if self.mode.is_some() => Err("the mode is given twice"),
            OWNER if self.owner.is_some() => Err("the owner is given twice"),
            GROUP if self.group.is_some() => Err("the group is given twice"),
            OWNER if value.is_empty() => Err("no user after owner="),
            GROUP if value.is_empty() => Err("no group after group="),
            MODE => mode(value).map(|mode| self.mode = Some(mode)),
            OWNER => {
                self.owner = Some(value.into());
                Ok(())
            }
            GROUP => {
                self.group = Some(value.into());
                Ok(())
            }
            _ => Err("beside mode=, owner= and group= a socket's file has no rights"),
        }
    }
}

const MODE: &str = "mode";
const OWNER: &str = "owner";
const GROUP: &str = "group";

fn mode(value: &str) -> Result<u32, &'static str> {
    let digits = value.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(value, 8).ok().filter(|_| digits);
    let mode = mode.filter(|mode| *mode <= 0o777);
    mode.ok_or("the mode is not an octal number up to 777, like mode=0660")
}

/// The path of a unix socket, and its rights, if there are any. They begin at the first
/// comma before one of their keys; other commas belong to the path.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix("unix:")?;
    let begins = [",mode=", ",owner=", ",group="].map(|key| text.find(key));
    let at = begins.into_iter().flatten().min()?;
    Some((&text[..at], &text[at + 1..]))
}

/// Why this is no address to connect to, if that is because it has rights.
pub(super) fn only_to_listen(text: &str) -> Option<&'static str> {
    let (_, rights) = split(text)?;
    let is = |key: &str| rights.starts_with(key);
    Some(match rights {
        _ if is(MODE) => "a mode is only for an address to listen on",
        _ if is(OWNER) => "an owner is only for an address to listen on",
        _ => "a group is only for an address to listen on",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ListenAddr, String> {
        text.parse::<ListenAddr>().map_err(|e| e.why().to_string())
    }

    #[test]
    fn a_socket_to_listen_on_may_have_rights() {
        let listen = parse("unix:/run/poem,mode=0660").unwrap();
        assert_eq!(listen.addr.to_string(), "unix:/run/poem");
        assert_eq!(listen.mode, Some(0o660));
        for text in ["unix:/run/poem", "10001"] {
            let addr: Addr = text.parse().unwrap();
            assert_eq!(parse(text), Ok(ListenAddr::from(addr)));
        }

        let all = ListenAddr {
            addr: Addr::Unix("/a,b".into()),
            mode: Some(0o600),
            owner: Some("www-data".into()),
            group: Some("4".into()),
        };
        for text in [
            "unix:/a,b,mode=600,owner=www-data,group=4",
            "unix:/a,b,group=4,mode=0600,owner=www-data",
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&all));
        }
    }

    #[test]
    fn bad_rights_are_refused_with_the_reason() {
        let not_octal = "the mode is not an octal number up to 777, like mode=0660";
        for (text, why) in [
            ("unix:/p,mode=", not_octal),
            ("unix:/p,mode=8", not_octal),
            ("unix:/p,mode=1777", not_octal),
            ("unix:/p,mode=+7", not_octal),
            ("unix:/p,owner=", "no user after owner="),
            ("unix:/p,owner=a,group=", "no group after group="),
            ("unix:/p,mode=1,mode=2", "the mode is given twice"),
            ("unix:/p,owner=a,owner=a", "the owner is given twice"),
            ("unix:/p,group=1,mode=2,group=1", "the group is given twice"),
            (
                "unix:/p,mode=0660,user=www",
                "beside mode=, owner= and group= a socket's file has no rights",
            ),
            ("unix:,mode=0660", "no path after unix:"),
        ] {
            assert_eq!(parse(text).expect_err(text), why, "{text}");
        }
    }

    #[test]
    fn rights_are_only_for_addresses_to_listen_on() {
        for (text, why) in [
            (
                "unix:/p,mode=0660",
                "a mode is only for an address to listen on",
            ),
            (
                "unix:/p,owner=a,mode=1",
                "an owner is only for an address to listen on",
            ),
            (
                "unix:/p,group=a",
                "a group is only for an address to listen on",
            ),
        ] {
            assert_eq!(text.parse::<Addr>().unwrap_err().why(), why);
        }
    }
}
