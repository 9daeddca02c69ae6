//! What the model keeps for a key: a value, and what is known of the key's last fetch.

#[derive(Default)]
pub struct Entry {
    pub value: Option<Kept>,
    pub fetch: Option<Fetch>,
}

/// A value that the cache keeps.
pub struct Kept {
    pub value: u32,
    pub fresh_until: u64,
    pub stale_until: u64,
    pub counted: Counted,
    /// Whether clones of the value share its reservation.
    pub is_shared: bool,
    /// Whether a look-up has asked for it since it was last spared.
    pub asked_for: bool,
}

/// The bytes of a value or of a negative entry.
pub struct Counted {
    /// A number of its own. Later ones are higher.
    pub number: u64,
    pub bytes: u64,
    /// How many hold its reservation beside the cache: readers and refreshes.
    pub holders: usize,
}

/// The last fetch of a key.
pub struct Fetch {
    /// The number of its flight.
    pub id: u32,
    pub state: State,
    /// Refreshes that have failed in a row.
    pub failures: u32,
    /// A stale value is not refreshed before.
    pub not_before: u64,
}

pub enum State {
    InFlight,
    /// It failed, and clients join what failed.
    Negative(Cached),
    /// Each client fetches for itself.
    HitForMiss(Cached),
    /// It failed, and only the pause before the next refresh is left of it.
    Paused,
}

/// How long a negative entry is cached, and what counts it.
pub struct Cached {
    pub until: u64,
    pub counted: Counted,
}

impl Entry {
    /// A pause without a value holds nothing back.
    pub fn is_void(&self) -> bool {
        let is_pause = |fetch: &Fetch| matches!(fetch.state, State::Paused);
        self.value.is_none() && self.fetch.as_ref().is_none_or(is_pause)
    }

    /// Whether the value is being refreshed, so that it must stay.
    pub fn is_pinned(&self) -> bool {
        self.fetch.as_ref().is_some_and(Fetch::is_in_flight)
    }

    pub fn negative(&self) -> Option<&Cached> {
        self.fetch.as_ref()?.state.cached()
    }

    /// The number of the value; 0 without one.
    pub fn number(&self) -> u64 {
        self.value.as_ref().map_or(0, |kept| kept.counted.number)
    }

    /// The bytes of the value and of the negative entry.
    pub fn bytes(&self) -> u64 {
        let value = self.value.as_ref().map_or(0, |kept| kept.counted.bytes);
        let negative = self.negative().map_or(0, |cached| cached.counted.bytes);
        value + negative
    }

    /// What counts the value, and what counts the negative entry.
    pub fn counted(&mut self) -> impl Iterator<Item = &mut Counted> {
        let value = self.value.as_mut().map(|kept| &mut kept.counted);
        let negative = self
            .fetch
            .as_mut()
            .and_then(|fetch| match &mut fetch.state {
                State::Negative(cached) | State::HitForMiss(cached) => Some(&mut cached.counted),
                State::InFlight | State::Paused => None,
            });
        value.into_iter().chain(negative)
    }

    /// Takes out the negative entry. A kept value keeps the pause before its refresh.
    pub fn take_negative(&mut self) -> Option<Counted> {
        let fetch = self.fetch.as_mut()?;
        fetch.state.cached()?;

        let state = std::mem::replace(&mut fetch.state, State::Paused);
        if self.value.is_none() {
            self.fetch = None;
        }
        state.into_counted()
    }
}

impl Fetch {
    pub fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight)
    }

    /// Whether time has ended it. A stale value waits for the end of the pause, too.
    pub fn is_over(&self, now: u64, has_value: bool) -> bool {
        let is_cached = self.state.cached().is_some_and(|cached| now < cached.until);
        let is_paused = has_value && now < self.not_before;
        !self.is_in_flight() && !is_cached && !is_paused
    }

    /// Pauses refreshes: 1, 2, 4, 8, 16 and then 30 seconds, or as long as failures are
    /// cached.
    pub fn pause(&mut self, now: u64, fail_ttl: u64) {
        let pauses = [1, 2, 4, 8, 16];
        let pause = *pauses.get(self.failures as usize).unwrap_or(&30);
        self.not_before = now + fail_ttl.max(pause);
        self.failures += 1;
    }
}

impl State {
    pub fn cached(&self) -> Option<&Cached> {
        match self {
            State::Negative(cached) | State::HitForMiss(cached) => Some(cached),
            State::InFlight | State::Paused => None,
        }
    }

    pub fn into_counted(self) -> Option<Counted> {
        match self {
            State::Negative(cached) | State::HitForMiss(cached) => Some(cached.counted),
            State::InFlight | State::Paused => None,
        }
    }
}
