//! How fetches end, and what must be true after each action.

use super::job::Running;
use super::record::{State, Times};
use super::{Run, WINDOW};
use poetry::cache::{CacheFailure, Purge};
use poetry::coalesce::Verdict;
use poetry::error::Error;

impl Run {
    /// Lands a fetch, if it has any text. `how` says whether another client asks for
    /// the key when it is settled and no reader has been told.
    pub(super) fn land(&mut self, which: u8, how: u8, is_good: bool) {
        let Some(running) = self.board.take(which) else {
            return;
        };
        if self.fetches.0[running.number].text.is_empty() {
            return self.board.put_back(running);
        }

        let Running {
            number,
            guard,
            token,
            place,
        } = running;
        let verdict = if is_good {
            Verdict::Keep
        } else {
            Verdict::Reject
        };
        let is_keeping = guard.is_keeping();
        let is_rejected = is_keeping && !is_good;
        let ended = guard.settle(verdict, self.now);

        if self.fetches.0[number].is_alone {
            let kept = ended.announce(); // whether it may be kept is not known here
            self.note_settled(number, kept, is_rejected);
        } else {
            let due = is_good && is_keeping && self.can_keep(number);
            self.note_settled(number, due, is_rejected);
            if how % 2 == 1 {
                self.ask(self.fetches.0[number].key);
            }
            assert_eq!(ended.announce(), due, "kept");
        }
        self.fetches.0[number].state = State::Landed;
        drop(token);
        drop(place);
    }

    /// Whether nothing stands against keeping the text of a fetch.
    fn can_keep(&self, number: usize) -> bool {
        let record = &self.fetches.0[number];
        let weight = record.text.len() as u64 + poetry::cache::ENTRY_WEIGHT;
        let is_timely = !(self.policy.ttl + self.policy.grace).is_zero();
        !record.is_detached && is_timely && weight <= self.policy.capacity
    }

    /// Records what became of the key. No client can join from here on.
    fn note_settled(&mut self, number: usize, is_kept: bool, is_rejected: bool) {
        let fresh_until = self.now + self.policy.ttl;
        let stale_until = fresh_until + self.policy.grace;
        let record = &mut self.fetches.0[number];
        record.is_keeping = false;
        if is_rejected && !record.is_detached {
            record.negative_until = Some(self.now + self.policy.fail_ttl);
        }
        if is_kept {
            let times = Times {
                fresh_until,
                stale_until,
            };
            self.fetches.keep(number, times);
        }
    }

    pub(super) fn fail(&mut self, which: u8, how: u8) {
        let Some(running) = self.board.take(which) else {
            return;
        };
        let Running {
            number,
            guard,
            token,
            place,
        } = running;
        let caching = if how & 2 > 0 {
            CacheFailure::No
        } else {
            CacheFailure::Yes
        };
        let is_cached = guard.is_keeping() && caching == CacheFailure::Yes;

        let ended = guard.settle_failed(Error::Abandoned, caching, self.now);
        self.note_settled(number, false, is_cached);
        if how % 2 == 1 {
            self.ask(self.fetches.0[number].key);
        }
        ended.announce();
        self.fetches.0[number].state = State::Failed;
        drop(token);
        drop(place);
    }

    /// Checks what must be true after each action.
    pub(super) fn check(&mut self) {
        for client in &mut self.clients {
            client.check(&self.fetches);
        }

        let running = self.dispatch.running();
        let waiting = self.dispatch.waiting();
        let count = |state| self.fetches.0.iter().filter(|r| r.state == state).count();
        assert!(running <= self.places, "{running} fetches run");
        assert!(waiting == 0 || running == self.places, "a place is free");
        assert_eq!(running, self.board.running());
        assert_eq!(
            (running, waiting),
            (count(State::Running), count(State::Waiting))
        );

        for (number, record) in self.fetches.0.iter().enumerate() {
            let is_read = self.has_reader(number);
            let is_useless = match record.state {
                State::Waiting => !record.is_refresh,
                State::Running => record.is_detached && !record.is_alone,
                State::Landed | State::Failed => false,
            };
            assert!(is_read || !is_useless, "it waits or runs for no client");
        }

        let cache = self.texts.cache();
        let kept = cache.held() - cache.in_flight();
        assert!(kept <= self.policy.capacity, "{kept} bytes are kept");
        let is_long = |text: &String| text.len() as u64 > WINDOW;
        let mut kept = self.fetches.0.iter().filter(|record| record.kept.is_some());
        assert!(!kept.any(|record| is_long(&record.text)));
    }

    /// Drops everything, and purges the cache.
    pub(super) fn end(mut self) {
        self.clients.clear();
        self.settle();
        while let Some(running) = self.board.take(0) {
            drop(running); // the next one may start
            self.settle();
            self.check();
        }

        self.texts.purge_all(Purge::Hard, self.now);
        let cache = self.texts.cache();
        assert_eq!((cache.len(), cache.held()), (0, 0));
        assert_eq!((self.dispatch.waiting(), self.dispatch.running()), (0, 0));
    }
}
