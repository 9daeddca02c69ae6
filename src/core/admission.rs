//! Which clients may come in: lists of networks, connections by address, and a rate.
//!
//! Plain data and counters; time is an argument. The server asks it right after accept,
//! before a connection has cost anything else.
//!
//! | question, in this order | no means |
//! |---|---|
//! | Is the address in no `--deny`, and in an `--allow` if there is any? | [`Refusal::Denied`] |
//! | Has the client fewer than `--max-per-address` connections? | [`Refusal::PerAddress`] |
//! | Is its next turn by `--client-rate` due? | [`Refusal::Rate`] |
//!
//! A client is an IPv4 address or the /64 of an IPv6 address ([`ClientNet`]). One over
//! a unix socket has no address, and is never refused: the rights of the socket's file
//! say which users may connect.
//!
//! What is held is bounded: by the connections there are, and by [`METERS`].

mod connected;
mod lists;
mod meters;
mod refusal;
mod tally;

use crate::addr::ClientNet;
use crate::observe::REFUSALS;
use crate::rate::Rate;
use crate::stats::Stats;
use connected::Connected;
pub use connected::{Pass, UNCOUNTED};
pub use lists::{BadLine, BadNet, Lists, Nets, parse_list, parse_net};
pub use meters::METERS;
use meters::{Metered, Meters};
pub use refusal::{BadRefusalText, REFUSAL_BYTES, RefusalText};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
pub use tally::Tally;

/// What limits clients.
#[derive(Debug, Default)]
pub struct AdmissionSettings {
    /// Which addresses may come in.
    pub lists: Lists,
    /// The most connections of one client at once.
    pub max_per_address: Option<NonZeroU32>,
    /// How often one client may connect.
    pub rate: Option<Rate>,
    /// What the refused are told, in the line protocol.
    pub text: Option<RefusalText>,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its address is on a list, or on none that it should be on.
    Denied,
    /// Its client has too many connections.
    PerAddress,
    /// Its client connects too often. It may again after this time.
    Rate(Duration),
}

impl Refusal {
    /// The place of this reason in [`REFUSALS`].
    pub fn index(self) -> usize {
        match self {
            Refusal::Denied => 0,
            Refusal::PerAddress => 1,
            Refusal::Rate(_) => 2,
        }
    }

    /// The word for this reason.
    pub fn word(self) -> &'static str {
        REFUSALS[self.index()]
    }
}

/// Decides which clients may come in. All threads share one.
#[derive(Debug)]
pub struct Admission {
    /// Held to look an address up, or to replace them.
    lists: RwLock<Lists>,
    connected: Option<Arc<Connected>>,
    meters: Option<Meters>,
    stats: Arc<Stats>,
    text: Option<RefusalText>,
    tallies: [Tally; REFUSALS.len()],
}

impl Admission {
    /// For these settings; times are counted from `now`. `stats` counts the refused.
    pub fn new(settings: AdmissionSettings, stats: Arc<Stats>, now: Instant) -> Admission {
        let connected = settings.max_per_address.map(Connected::new);
        Admission {
            lists: RwLock::new(settings.lists),
            connected: connected.map(Arc::new),
            meters: settings.rate.map(|rate| Meters::new(rate, now)),
            text: settings.text,
            stats,
            tallies: Default::default(),
        }
    }

    /// Whether a client with this address may come in; `None` is a unix socket. The
    /// pass counts its connection until it is dropped.
    ///
    /// # Errors
    /// Why not. That is counted.
    pub fn admit(&self, from: Option<IpAddr>, now: Instant) -> Result<Pass, Refusal> {
        let admitted = self.decide(from, now);
        if let Err(refusal) = &admitted {
            self.stats.refused[refusal.index()].fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn decide(&self, from: Option<IpAddr>, now: Instant) -> Result<Pass, Refusal> {
        let Some(ip) = from else {
            return Ok(Pass::uncounted());
        };
        if !self.lists().admit(ip) {
            return Err(Refusal::Denied);
        }

        let client = ClientNet::of(ip);
        let pass = match &self.connected {
            None => Pass::uncounted(),
            Some(connected) => connected.enter(client).ok_or(Refusal::PerAddress)?,
        };
        let turn = self.meters.as_ref().map(|meters| meters.take(client, now));
        match turn {
            None | Some(Ok(Metered::Counted)) => {}
            Some(Ok(Metered::Uncounted)) => {
                self.stats.unmetered.fetch_add(1, Ordering::Relaxed);
            }
            Some(Err(wait)) => return Err(Refusal::Rate(wait)),
        }
        Ok(pass)
    }

    /// Whether connections from this address begin with a PROXY header.
    pub fn expects_header(&self, from: Option<IpAddr>) -> bool {
        from.is_some_and(|ip| self.lists().proxies.contains(ip))
    }

    /// Replaces the lists. Connections that are open stay.
    pub fn replace(&self, lists: Lists) {
        let mut held = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *held, lists);
        drop(held);
        drop(old); // it may be long
    }

    /// What the refused are told.
    pub fn text(&self) -> Option<&RefusalText> {
        self.text.as_ref()
    }

    /// What is counted of refusals like this one until it is told.
    pub fn tally(&self, refusal: Refusal) -> &Tally {
        &self.tallies[refusal.index()]
    }

    fn lists(&self) -> RwLockReadGuard<'_, Lists> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
