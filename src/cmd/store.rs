//! The flags of what outlives the process, and of what proxies share.

#![cfg_attr(
    not(all(feature = "store", feature = "fleet")),
    allow(
        dead_code,
        unused_variables,
        reason = "each kind of store needs some of it"
    )
)]

use super::failure::Failure;
use super::values::positive_duration;
#[cfg(feature = "store")]
use super::values::size;
use clap::Args;
#[cfg(feature = "fleet")]
use poetry::fleet::{FLEET_NAME, Fleet, FleetSettings, ServerPlace};
use poetry::observe::Observer;
#[cfg(feature = "store")]
use poetry::store::{CAPACITY_MIN, OpenStore, StoreSettings, system_clock};
use poetry::tier::Tier;
#[cfg(feature = "store")]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The longest name of a fleet. It is a part of each name in the server.
const NAME_MOST: usize = 64;

/// Where poems are kept beside the memory.
#[derive(Debug, Clone, Args)]
pub(super) struct Storing {
    /// Where to keep poems beside the memory: a file, which keeps them over a restart;
    /// or a server of Redis or Valkey that proxies share, as
    /// redis://[USER:PASSWORD@]HOST:PORT/DB or redis+unix:PATH
    #[arg(long, value_name = "WHERE", value_parser = place)]
    store: Option<StoreAt>,
    /// Disk space for --store with a file
    #[cfg(feature = "store")]
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = capacity)]
    store_capacity: u64,
    /// How long a fetch waits for the store's word; with a server, ten times that for
    /// the bytes of poems, and to connect
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = positive_duration)]
    store_timeout: Duration,
    /// The name of the fleet: proxies of one server and one name share poems [default:
    /// poetry]
    #[arg(long, value_name = "NAME", value_parser = name)]
    store_name: Option<String>,
}

/// What --store names.
#[derive(Debug, Clone)]
enum StoreAt {
    #[cfg(feature = "store")]
    File(PathBuf),
    #[cfg(feature = "fleet")]
    Server(ServerPlace),
    /// A server that can't be read, or is not in this build: why. clap would quote the
    /// value, and it may have a password.
    Bad(String),
}

fn place(text: &str) -> Result<StoreAt, String> {
    if text.is_empty() {
        return Err("empty; wanted the path of a file, or a server".into());
    }
    if text.starts_with("unix:") {
        return Err("not a file; wanted redis+unix:PATH for a server".into());
    }
    if SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
        return Ok(server(text));
    }
    if text.contains("://") {
        let text = without_password(text);
        return Ok(StoreAt::Bad(format!(
            "'{text}': neither a file nor a server; wanted PATH, \
             redis://[USER:PASSWORD@]HOST:PORT/DB or redis+unix:PATH"
        )));
    }
    if is_address(text) {
        return Err(format!("wanted redis://{text}/0, or ./{text} for a file"));
    }
    Ok(file(text))
}

/// Whether this is HOST:PORT. A file of that name would hardly be meant.
fn is_address(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let parts = text.rsplit_once(':');
    !text.contains('/') && parts.is_some_and(|(host, port)| !host.is_empty() && is_port(port))
}

/// What a server's address begins with.
const SCHEMES: [&str; 4] = ["redis:", "redis+unix:", "rediss:", "valkey:"];

#[cfg(feature = "fleet")]
fn server(text: &str) -> StoreAt {
    match text.parse() {
        Ok(place) => StoreAt::Server(place),
        Err(why) => StoreAt::Bad(format!("'{}': {why}", without_password(text))),
    }
}

#[cfg(not(feature = "fleet"))]
fn server(text: &str) -> StoreAt {
    let text = without_password(text);
    StoreAt::Bad(format!("'{text}': this program was built without servers"))
}

#[cfg(feature = "store")]
fn file(text: &str) -> StoreAt {
    StoreAt::File(text.into())
}

#[cfg(not(feature = "store"))]
fn file(text: &str) -> StoreAt {
    StoreAt::Bad(format!("'{text}': this program was built without files"))
}

/// The text without what may be a password.
fn without_password(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        _ => text.to_string(),
    }
}

#[cfg(feature = "store")]
fn capacity(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes < CAPACITY_MIN {
        return Err("too small for a store; wanted 1MiB or more".into());
    }
    Ok(bytes)
}

fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > NAME_MOST || !text.chars().all(fits) {
        return Err("wanted at most 64 letters, digits, dots, dashes and underscores".into());
    }
    Ok(text.into())
}

/// What a proxy has of its settings for a store.
pub(super) struct StoreTerms {
    pub ttl: Duration,
    /// The longest ttl that a poem may have.
    pub longest_ttl: Duration,
    pub grace: Duration,
    /// The longest poem that is kept, with its framing.
    pub longest: u64,
    /// An upstream that is another server on each machine, as it was given.
    pub local_upstream: Option<String>,
}

/// Starts a store that can be used.
pub(super) type StartStore = Box<dyn FnOnce(Arc<dyn Observer>) -> Arc<dyn Tier>>;

/// A store that does not run yet.
pub(super) struct NewStore {
    pub start: StartStore,
    /// Descriptors that it takes.
    pub fds: u64,
    /// How long a stopping service waits for it.
    pub close_limit: Duration,
}

impl Storing {
    /// Opens the store, if there is to be one.
    ///
    /// # Errors
    /// Those of [`OpenStore::open`]; a server that can't be read, or that makes no
    /// sense with the upstream.
    pub fn open(&self, terms: &StoreTerms) -> Result<Option<NewStore>, Failure> {
        match &self.store {
            None => Ok(None),
            Some(StoreAt::Bad(why)) => Err(Failure::value("store", why.clone())),
            #[cfg(feature = "store")]
            Some(StoreAt::File(path)) => self.file(path, terms).map(Some),
            #[cfg(feature = "fleet")]
            Some(StoreAt::Server(place)) => self.server(place, terms).map(Some),
        }
    }

    #[cfg(feature = "store")]
    fn file(&self, path: &Path, terms: &StoreTerms) -> Result<NewStore, Failure> {
        /// Its file, the two beside it, the lock, and some for SQLite.
        const FDS: u64 = 8;
        /// Texts are written all along, so that little is left to be written then.
        const CLOSE_LIMIT: Duration = Duration::from_secs(2);

        let open = OpenStore::open(StoreSettings {
            path: path.into(),
            capacity: self.store_capacity,
            ttl: terms.ttl,
            longest_ttl: terms.longest_ttl,
            grace: terms.grace,
            answer_wait: self.store_timeout,
            clock: system_clock(),
        })?;
        Ok(NewStore {
            start: Box::new(move |observer| open.start(observer)),
            fds: FDS,
            close_limit: CLOSE_LIMIT,
        })
    }

    #[cfg(feature = "fleet")]
    fn server(&self, place: &ServerPlace, terms: &StoreTerms) -> Result<NewStore, Failure> {
        /// Two connections, and two while they are made again.
        const FDS: u64 = 4;
        /// Others wait for the leases that it gives back.
        const CLOSE_LIMIT: Duration = Duration::from_millis(200);

        if let Some(upstream) = &terms.local_upstream
            && self.store_name.is_none()
            && !place.addr.is_local()
        {
            return Err(Failure::conflict(format!(
                "'{upstream}' is another server on each machine, and {place} may be shared with \
                 others; give the proxies that mean the same upstream a --store-name"
            )));
        }
        let settings = FleetSettings {
            place: place.clone(),
            name: self.store_name.clone().unwrap_or(FLEET_NAME.into()),
            answer_wait: self.store_timeout,
            longest: terms.longest,
        };
        Ok(NewStore {
            start: Box::new(move |observer| Fleet::join(settings, observer)),
            fds: FDS,
            close_limit: CLOSE_LIMIT,
        })
    }

    /// What makes no sense with these flags.
    pub fn oddity(&self, ttl: Duration) -> Option<&'static str> {
        let is_named = self.store_name.is_some();
        match &self.store {
            None if is_named => Some("--store-name without --store"),
            #[cfg(feature = "store")]
            Some(StoreAt::File(_)) if is_named => {
                Some("--store-name with a file: only a server is shared")
            }
            #[cfg(feature = "store")]
            Some(StoreAt::File(_)) if ttl.is_zero() => {
                Some("--store with --ttl 0: no poem is kept")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_quoted() {
        for text in [
            "redis://u:secret@h:x",
            "redis://:sec@ret@h:1/x",
            "rediss://u:secret@h",
            "http://u:secret@h",
        ] {
            let Ok(StoreAt::Bad(why)) = place(text) else {
                panic!("{text}");
            };
            assert!(!why.contains("sec"), "{why}");
            assert!(why.starts_with('\'') && why.contains("wanted"), "{why}");
        }
    }

    #[test]
    fn an_address_without_its_scheme_makes_no_file() {
        for text in ["localhost:6379", "10.0.0.1:6379", "[::1]:6379"] {
            let why = place(text).expect_err(text);
            assert!(
                why.starts_with(&format!("wanted redis://{text}/0")),
                "{why}"
            );
        }
        for file in ["./localhost:6379", "poems", "a:b", ":1", "/var/poems:1"] {
            assert!(matches!(place(file), Ok(StoreAt::File(_))), "{file}");
        }
    }

    #[test]
    fn a_name_is_short_and_plain() {
        assert_eq!(name("whois-2").as_deref(), Ok("whois-2"));
        for bad in ["", "a b", "{x}", "a:b", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
