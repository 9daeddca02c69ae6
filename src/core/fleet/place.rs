//! Where a fleet's server is: `redis://[USER:PASSWORD@]HOST:PORT/DB` or
//! `redis+unix:PATH`.

use crate::addr::Addr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of a server that is given without one.
const REDIS_PORT: u16 = 6379;

/// The forms, for error messages.
const FORMS: &str = "redis://[USER:PASSWORD@]HOST:PORT/DB or redis+unix:PATH";

/// A server of Redis, or of Valkey, and the credentials to use there.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerPlace {
    /// Where it is.
    pub addr: Addr,
    /// The user; the server's default one if there is none.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database.
    pub db: u32,
}

/// Why a text is not a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPlace(String);

fn bad(why: &str) -> BadPlace {
    BadPlace(format!("{why}; wanted {FORMS}"))
}

impl FromStr for ServerPlace {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<ServerPlace, BadPlace> {
        if text.starts_with("rediss:") {
            return Err(bad("there is no TLS here: lead a tunnel to the server"));
        }
        if let Some(path) = text.strip_prefix("redis+unix:") {
            return by_path(path);
        }

        let Some(rest) = text.strip_prefix("redis://") else {
            return Err(bad("not a server's address"));
        };
        let (before, db) = match rest.split_once('/') {
            Some((before, db)) => (before, number(db)?),
            None => (rest, 0),
        };
        let (credentials, host) = match before.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, before),
        };

        let (user, password) = match credentials {
            None => (None, None),
            Some(both) => {
                let (user, password) = both
                    .split_once(':')
                    .ok_or_else(|| bad("no colon between user and password"))?;
                (
                    Some(plain(user)?).filter(|user| !user.is_empty()),
                    Some(plain(password)?),
                )
            }
        };
        Ok(ServerPlace {
            addr: address(host)?,
            user,
            password,
            db,
        })
    }
}

/// `PATH`, or `PATH?db=N`.
fn by_path(text: &str) -> Result<ServerPlace, BadPlace> {
    let (path, db) = match text.rsplit_once("?db=") {
        Some((path, db)) => (path, number(db)?),
        None => (text, 0),
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err(bad("no path after redis+unix:"));
    }
    Ok(ServerPlace {
        addr: Addr::Unix(PathBuf::from(path)),
        user: None,
        password: None,
        db,
    })
}

fn address(host: &str) -> Result<Addr, BadPlace> {
    let has_port = match host.rsplit_once(':') {
        Some((_, port)) => !port.contains(']'),
        None => false,
    };
    let host = if has_port {
        host.to_string()
    } else {
        format!("{host}:{REDIS_PORT}")
    };
    host.parse()
        .map_err(|error: crate::addr::BadAddr| bad(error.why()))
}

fn number(db: &str) -> Result<u32, BadPlace> {
    if db.is_empty() {
        return Ok(0);
    }
    let digits = db.bytes().all(|byte| byte.is_ascii_digit());
    let number = db.parse().ok().filter(|_| digits);
    number.ok_or_else(|| bad("the database is not a number, or too large"))
}

/// A user or a password, with its `%XX` read.
fn plain(text: &str) -> Result<String, BadPlace> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| (digit as char).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(bad("a % in user or password is written %25")),
        }
    }
    String::from_utf8(bytes).map_err(|_| bad("user or password is not UTF-8"))
}

/// Without user and password: this is what logs show.
impl fmt::Display for ServerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.addr {
            Addr::Tcp { .. } => write!(f, "redis://{}/{}", self.addr, self.db),
            Addr::Unix(path) if self.db == 0 => write!(f, "redis+unix:{}", path.display()),
            Addr::Unix(path) => write!(f, "redis+unix:{}?db={}", path.display(), self.db),
        }
    }
}

impl fmt::Debug for ServerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerPlace({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> ServerPlace {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_place_is_shown_without_its_password() {
        for (given, shown) in [
            ("redis://h", "redis://h:6379/0"),
            ("redis://h:1/", "redis://h:1/0"),
            ("redis://u:secret@h:1/3", "redis://h:1/3"),
            ("redis://:sec@ret@h:1", "redis://h:1/0"),
            ("redis://[::1]:1/3", "redis://[::1]:1/3"),
            ("redis://[::1]", "redis://[::1]:6379/0"),
            ("redis+unix:/run/r.sock", "redis+unix:/run/r.sock"),
            (
                "redis+unix:///run/r.sock?db=2",
                "redis+unix:/run/r.sock?db=2",
            ),
        ] {
            let place = place(given);
            assert_eq!(place.to_string(), shown);
            assert_eq!(format!("{place:?}"), format!("ServerPlace({shown})"));
            assert_eq!(shown.parse::<ServerPlace>().unwrap().addr, place.addr);
        }
    }

    #[test]
    fn user_and_password_may_have_escapes() {
        let both = place("redis://me:a%40b%2Fc@h/1");
        assert_eq!(both.user.as_deref(), Some("me"));
        assert_eq!(both.password.as_deref(), Some("a@b/c"));
        let one = place("redis://:x@h");
        assert_eq!((one.user, one.password.as_deref()), (None, Some("x")));
    }

    #[test]
    fn what_is_no_place_is_refused_without_showing_it() {
        for text in [
            "redis:",
            "redis:h:1",
            "redis://",
            "redis://h:x",
            "redis://h:1/x",
            "redis://h:1/+1",
            "redis://secret@h:1",
            "redis://u:secret%4@h:1",
            "redis://u:secret%zz@h:1",
            "redis+unix:",
            "rediss://u:secret@h:1",
            "valkey://h",
        ] {
            let error = text.parse::<ServerPlace>().unwrap_err().to_string();
            assert!(error.contains("wanted redis://"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_place_on_this_machine_is_told_from_others() {
        for local in ["redis://127.0.0.1", "redis://[::1]:1", "redis+unix:/r"] {
            assert!(place(local).addr.is_local(), "{local}");
        }
        for remote in ["redis://10.0.0.1", "redis://store.example:6379/0"] {
            assert!(!place(remote).addr.is_local(), "{remote}");
        }
        assert!(place("redis://localhost:1").addr.is_local());
    }
}
