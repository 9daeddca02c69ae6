//! How tests of a fleet begin: an upstream, and proxies that share what it sends.

use super::member::{Fleet, Member, MemberTier};
use crate::support::{
    Builder, Client, Connection, FakeUpstream, ProxyParts, Service, proxy, wait_until,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A fleet of proxies of one upstream.
pub struct Scene {
    pub upstream: FakeUpstream,
    pub fleet: Arc<Fleet>,
}

impl Scene {
    pub fn new() -> Scene {
        Scene {
            upstream: FakeUpstream::new(),
            fleet: Fleet::new(),
        }
    }

    /// One more proxy.
    pub fn join(&self) -> Service {
        self.join_with(|proxy| proxy)
    }

    /// The same, with options of its own.
    pub fn join_with(
        &self,
        options: impl FnOnce(Builder<ProxyParts>) -> Builder<ProxyParts>,
    ) -> Service {
        self.join_as_member(options).0
    }

    /// The same, with its part of the fleet.
    pub fn join_as_member(
        &self,
        options: impl FnOnce(Builder<ProxyParts>) -> Builder<ProxyParts>,
    ) -> (Service, Arc<Member>) {
        join!(self.fleet, options(proxy(&self.upstream)))
    }

    pub fn pair(&self) -> [Service; 2] {
        [self.join(), self.join()]
    }

    /// A client of this proxy causes a fetch, and gets what that brings.
    pub fn fetch(&self, proxy: &Service, poem: &[u8]) {
        let mut client = proxy.connect();
        self.upstream.serve_once(poem);
        assert_eq!(client.rest().unwrap(), poem);
    }

    /// The same, and the fleet has it.
    pub fn keep(&self, proxy: &Service, poem: &[u8]) {
        self.fetch(proxy, poem);
        self.wait_for_kept(poem);
    }

    /// Waits until the fleet has this.
    pub fn wait_for_kept(&self, poem: &[u8]) {
        wait_until("it is in the fleet", || {
            self.fleet.kept().iter().any(|kept| kept == poem)
        });
    }

    /// Makes what the fleet has this old.
    pub fn set_age(&self, age: Duration, now: Instant) {
        self.fleet.change(|ledger| ledger.set_age(age, now));
    }

    /// `holder` fetches and `follower` follows: a client of each has the beginning.
    pub fn half_way(
        &self,
        holder: &Service,
        follower: &Service,
        beginning: &[u8],
    ) -> (Connection, [Client; 2]) {
        let mut first = holder.connect();
        let sending = self.upstream.accept().send(beginning);
        assert_eq!(first.read(beginning.len()), beginning);

        let mut second = follower.connect();
        assert_eq!(second.read(beginning.len()), beginning);
        (sending, [first, second])
    }
}
