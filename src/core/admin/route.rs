//! From a method, a path and a query to what is asked for. Pure, and total: whatever
//! the bytes, there is an answer.
//!
//! A key is a query parameter and no part of the path: browsers and curl fold `..`,
//! proxies decode `%2F`, and the selectors of gopher begin with a slash.

use super::action::{self, Action, KEYS_DEFAULT, KEYS_MAX, KeyQuery, PurgeTarget};
use crate::cache::Purge;
use std::fmt;
use std::time::Duration;

/// Why a request leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misrouted {
    /// There is nothing at this path.
    NoSuchPath,
    /// There is, but not for this method; these are allowed.
    Method(&'static str),
    /// The query can't be understood.
    Query(String),
}

impl Misrouted {
    /// The status code of HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Misrouted::NoSuchPath => 404,
            Misrouted::Method(_) => 405,
            Misrouted::Query(_) => 400,
        }
    }
}

impl fmt::Display for Misrouted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misrouted::NoSuchPath => f.write_str("there is nothing at this path"),
            Misrouted::Method(allowed) => write!(f, "use {allowed} here"),
            Misrouted::Query(why) => f.write_str(why),
        }
    }
}

/// The methods that change nothing.
const SAFE: &str = "GET, HEAD";
/// The one that changes something.
const UNSAFE: &str = "POST";

/// The history that is kept: five minutes. More than that can't be asked for.
const HISTORY_MAX: Duration = Duration::from_secs(300);

/// The most parameters of a query. No path has as many, and each is compared with all.
const PARAMETERS_MAX: usize = 8;

/// What this request asks for. `query` is what follows the question mark.
///
/// # Errors
/// The reason why it asks for nothing.
pub fn route(method: &str, path: &str, query: &str) -> Result<Action, Misrouted> {
    let allowed = match path {
        "/" | "/page.css" | "/page.js" | "/metrics" | "/health/live" | "/health/ready"
        | "/status" | "/keys" | "/flights" | "/upstreams" | "/notices" | "/log" => SAFE,
        "/purge" | "/refresh" => UNSAFE,
        _ => return Err(Misrouted::NoSuchPath),
    };
    if !allowed.split(", ").any(|one| one == method) {
        return Err(Misrouted::Method(allowed));
    }

    let mut fields = Fields::parse(query).map_err(Misrouted::Query)?;
    let action = action(path, &mut fields).map_err(Misrouted::Query)?;
    fields.is_spent().map_err(Misrouted::Query)?;
    Ok(action)
}

fn action(path: &str, fields: &mut Fields) -> Result<Action, String> {
    Ok(match path {
        "/page.css" => Action::Style,
        "/page.js" => Action::PageScript,
        "/metrics" => Action::Metrics,
        "/health/live" => Action::Live,
        "/health/ready" => Action::Ready {
            upstream: fields.flag("upstream")?,
        },
        "/status" => Action::Status {
            history: history(fields)?,
        },
        "/keys" => keys(fields)?,
        "/flights" => Action::Flights,
        "/upstreams" => Action::Upstreams,
        "/notices" => Action::Notices,
        "/log" => log(fields)?,
        "/purge" => purge(fields)?,
        "/refresh" => Action::Refresh {
            name: fields.take("key").ok_or("key is missing")?,
            wait: fields.flag("wait")?,
        },
        _ => Action::Help,
    })
}

fn history(fields: &mut Fields) -> Result<Duration, String> {
    let seconds = fields.number("history")?.unwrap_or(0);
    Ok(Duration::from_secs(seconds).min(HISTORY_MAX))
}

fn keys(fields: &mut Fields) -> Result<Action, String> {
    if let Some(name) = fields.take("key") {
        return Ok(Action::Key(name));
    }

    let limit = fields.number("limit")?.unwrap_or(KEYS_DEFAULT as u64);
    Ok(Action::Keys(KeyQuery {
        prefix: fields.take("prefix").unwrap_or_default(),
        cursor: fields.number("cursor")?,
        limit: usize::try_from(limit)
            .unwrap_or(KEYS_MAX)
            .clamp(1, KEYS_MAX),
    }))
}

fn log(fields: &mut Fields) -> Result<Action, String> {
    let sample = fields.number("sample")?.unwrap_or(1).max(1);
    let class = match fields.take("class") {
        None => None,
        Some(word) => {
            let class = std::str::from_utf8(&word).ok().and_then(action::class);
            Some(class.ok_or_else(|| format!("class is one of {}", action::classes()))?)
        }
    };
    Ok(Action::Log {
        class,
        sample: u32::try_from(sample).unwrap_or(u32::MAX),
    })
}

/// Exactly one of the three: a mistake must not purge all.
fn purge(fields: &mut Fields) -> Result<Action, String> {
    let how = if fields.flag("soft")? {
        Purge::Soft
    } else {
        Purge::Hard
    };

    let target = match (
        fields.take("key"),
        fields.take("prefix"),
        fields.flag("all")?,
    ) {
        (Some(name), None, false) => PurgeTarget::Named(name),
        (None, Some(prefix), false) if prefix.is_empty() => {
            return Err("an empty prefix is that of every key: say all".into());
        }
        (None, Some(prefix), false) => PurgeTarget::Prefix(prefix),
        (None, None, true) => PurgeTarget::All,
        _ => return Err("wanted one of key, prefix and all".into()),
    };
    Ok(Action::Purge(target, how))
}

/// The parameters of a query that were not asked for yet.
struct Fields(Vec<(Vec<u8>, Vec<u8>)>);

impl Fields {
    /// `a=b&c`, where a plus is a blank, as in forms.
    fn parse(query: &str) -> Result<Fields, String> {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for field in query.split('&').filter(|field| !field.is_empty()) {
            if fields.len() == PARAMETERS_MAX {
                return Err("too many parameters".into());
            }
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if fields.iter().any(|(other, _)| *other == name) {
                return Err(format!("{} is there twice", name.escape_ascii()));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }

    fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self
            .0
            .iter()
            .position(|(other, _)| other == name.as_bytes());
        at.map(|at| self.0.swap_remove(at).1)
    }

    /// Whether there is a parameter without a value.
    fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.take(name) {
            None => Ok(false),
            Some(value) if value.is_empty() => Ok(true),
            Some(_) => Err(format!("{name} takes no value")),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(&value).ok().filter(|_| is_number);
        let number = number.and_then(|number| number.parse().ok());
        number
            .map(Some)
            .ok_or_else(|| format!("{name} is no whole number"))
    }

    /// An unknown parameter is an error, so that a misspelt one is not ignored.
    fn is_spent(&self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("there is no {} here", name.escape_ascii())),
        }
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let value = digit().zip(digit());
                let (high, low) = value.ok_or("wanted two hexadecimal digits after %")?;
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Result<Action, Misrouted> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        route("GET", path, query)
    }

    fn post(target: &str) -> Result<Action, Misrouted> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        route("POST", path, query)
    }

    #[test]
    fn each_path_has_its_action() {
        assert_eq!(get("/"), Ok(Action::Help));
        assert_eq!(get("/metrics"), Ok(Action::Metrics));
        let ready = Action::Ready { upstream: true };
        assert_eq!(get("/health/ready?upstream"), Ok(ready));
        let history = Duration::from_secs(300);
        assert_eq!(get("/status?history=999"), Ok(Action::Status { history }));
        assert_eq!(get("/keys?key=a%20b"), Ok(Action::Key(b"a b".to_vec())));
        let page = KeyQuery {
            prefix: b"\xff/..".to_vec(),
            cursor: Some(7),
            limit: KEYS_MAX,
        };
        let target = "/keys?prefix=%ff/..&cursor=7&limit=99999";
        assert_eq!(get(target), Ok(Action::Keys(page)));
        let log = Action::Log {
            class: Some(crate::observe::Class::Failure),
            sample: 10,
        };
        assert_eq!(get("/log?class=failure&sample=10"), Ok(log));
    }

    #[test]
    fn a_purge_says_exactly_what_and_is_hard_unless_it_says_soft() {
        let named = |name: &[u8]| PurgeTarget::Named(name.to_vec());
        let purge = |target, how| Ok(Action::Purge(target, how));
        assert_eq!(post("/purge?key=a"), purge(named(b"a"), Purge::Hard));
        assert_eq!(post("/purge?key="), purge(named(b""), Purge::Hard));
        assert_eq!(
            post("/purge?all&soft"),
            purge(PurgeTarget::All, Purge::Soft)
        );
        let prefix = PurgeTarget::Prefix(b"a+b".to_vec());
        assert_eq!(post("/purge?prefix=a%2Bb"), purge(prefix, Purge::Hard));

        for target in [
            "/purge",
            "/purge?",
            "/purge?soft",
            "/purge?prefix=",
            "/purge?all=1",
            "/purge?all&key=a",
            "/purge?key=a&key=b",
            "/purge?keys=a",
            "/purge?all&dry",
            "/purge?key=%",
            "/purge?key=%g0",
            "/refresh",
            "/refresh?wait",
        ] {
            let refused = post(target).expect_err(target);
            assert_eq!(refused.status(), 400, "{target}: {refused}");
        }
    }

    #[test]
    fn nothing_changes_by_get_and_nothing_is_read_by_post() {
        for path in ["/purge?all", "/refresh?key=a"] {
            assert_eq!(get(path), Err(Misrouted::Method("POST")), "{path}");
        }
        for path in ["/", "/status", "/keys", "/log"] {
            assert_eq!(post(path), Err(Misrouted::Method("GET, HEAD")), "{path}");
        }
        for path in [
            "",
            "*",
            "//",
            "/Status",
            "/status/",
            "/../status",
            "/purge/",
        ] {
            assert_eq!(get(path), Err(Misrouted::NoSuchPath), "{path}");
        }
    }

    #[test]
    fn a_number_is_one() {
        for target in ["/status?history=", "/status?history=-1", "/keys?limit=x"] {
            assert_eq!(get(target).expect_err(target).status(), 400, "{target}");
        }
    }
}
