//! The flags of what outlives the process, and of what proxies share.

use super::failure::Failure;
use super::values::{positive_duration, size};
use clap::Args;
use poetry::fleet::{FLEET_NAME, Fleet, FleetSettings, Place};
use poetry::observe::Observer;
use poetry::store::{ANSWER_WAIT, CAPACITY_MIN, OpenStore, StoreSettings, system_clock};
use poetry::tier::Tier;
use std::path::PathBuf;
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
    File(PathBuf),
    Server(Place),
    /// A server that can't be read: why. clap would quote the value, and it may have a
    /// password.
    BadServer(String),
}

fn place(text: &str) -> Result<StoreAt, String> {
    if text.is_empty() {
        return Err("empty; wanted the path of a file, or a server".into());
    }
    if text.starts_with("unix:") {
        return Err("not a file; wanted redis+unix:PATH for a server".into());
    }
    if !Place::is_meant(text) {
        return Ok(StoreAt::File(text.into()));
    }
    Ok(match text.parse() {
        Ok(place) => StoreAt::Server(place),
        Err(why) => StoreAt::BadServer(format!("'{}': {why}", without_password(text))),
    })
}

/// The text without what may be a password.
fn without_password(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        _ => text.to_string(),
    }
}

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

/// A store that can be used, and does not run yet.
pub(super) enum NewStore {
    File(Box<OpenStore>),
    Server(FleetSettings),
}

/// A store that runs.
pub(super) struct Running {
    pub tier: Arc<dyn Tier>,
    fleet: Option<Arc<Fleet>>,
}

impl Storing {
    /// Opens the store, if there is to be one.
    ///
    /// # Errors
    /// Those of [`OpenStore::open`]; a server that makes no sense with the upstream.
    pub fn open(&self, terms: StoreTerms) -> Result<Option<NewStore>, Failure> {
        let place = match &self.store {
            None => return Ok(None),
            Some(StoreAt::BadServer(why)) => return Err(Failure::value("store", why.clone())),
            Some(StoreAt::Server(place)) => place,
            Some(StoreAt::File(path)) => {
                let settings = self.file(path.clone(), &terms);
                let open = OpenStore::open(settings)?;
                return Ok(Some(NewStore::File(Box::new(open))));
            }
        };

        if let (Some(upstream), false, None) =
            (&terms.local_upstream, place.is_local(), &self.store_name)
        {
            return Err(Failure::conflict(format!(
                "'{upstream}' is another server on each machine, and the proxies at {place} \
                 would share its poems; name those that may with --store-name"
            )));
        }
        Ok(Some(NewStore::Server(FleetSettings {
            place: place.clone(),
            name: self.store_name.clone().unwrap_or(FLEET_NAME.into()),
            answer_wait: self.store_timeout,
            longest: terms.longest,
        })))
    }

    fn file(&self, path: PathBuf, terms: &StoreTerms) -> StoreSettings {
        StoreSettings {
            path,
            capacity: self.store_capacity,
            ttl: terms.ttl,
            longest_ttl: terms.longest_ttl,
            grace: terms.grace,
            answer_wait: self.store_timeout,
            clock: system_clock(),
        }
    }

    /// What makes no sense with these flags.
    pub fn oddity(&self, ttl: Duration) -> Option<&'static str> {
        match &self.store {
            Some(StoreAt::File(_)) if self.store_name.is_some() => {
                Some("--store-name with a file: only a server is shared")
            }
            Some(StoreAt::File(_)) if ttl.is_zero() => {
                Some("--store with --ttl 0: no poem is kept")
            }
            None if self.store_name.is_some() => Some("--store-name without --store"),
            _ => None,
        }
    }
}

impl NewStore {
    /// Starts it. What happens to it is told to `observer`.
    pub fn start(self, observer: Arc<dyn Observer>) -> Running {
        match self {
            NewStore::File(open) => Running {
                tier: open.start(observer),
                fleet: None,
            },
            NewStore::Server(settings) => {
                let fleet = Fleet::join(settings, observer);
                Running {
                    tier: fleet.clone(),
                    fleet: Some(fleet),
                }
            }
        }
    }
}

impl Running {
    /// Ends it when its service has ended.
    pub async fn end(&self) {
        match &self.fleet {
            Some(fleet) => drop(fleet.leave(LEAVE_LIMIT).await),
            None => drop(self.tier.close(CLOSE_LIMIT)),
        }
    }
}

/// How long a stopping service waits for its file. Texts are written all along, so that
/// little is left to be written then.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How long it waits for its fleet: others wait for the leases that it gives back.
const LEAVE_LIMIT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_quoted() {
        for text in [
            "redis://u:secret@h:x",
            "redis://:sec@ret@h:1/x",
            "rediss://u:secret@h",
        ] {
            let Ok(StoreAt::BadServer(why)) = place(text) else {
                panic!("{text}");
            };
            assert!(!why.contains("sec"), "{why}");
            assert!(why.starts_with("'redis"), "{why}");
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
