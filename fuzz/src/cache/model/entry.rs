//! What the model keeps for a key: a value, a flight, a negative entry.

#[derive(Default)]
pub struct Entry {
    pub value: Option<Kept>,
    pub flight: Option<Flight>,
}

/// A value that the cache keeps.
pub struct Kept {
    pub value: u32,
    pub fresh_until: u64,
    pub stale_until: u64,
    pub counted: Counted,
    /// Whether a look-up has asked for it since it was last spared.
    pub asked_for: bool,
}

/// The bytes of a value or of a negative entry.
pub struct Counted {
    /// A number of its own. Later ones are higher.
    pub number: u64,
    pub bytes: u64,
    /// Whether a reader holds it beside the cache.
    pub is_read: bool,
}

/// The flight of a key, or what is left of a failed one.
pub struct Flight {
    pub id: u32,
    /// What new clients join. `None` if every client is to fetch alone.
    pub joined: Option<u32>,
    /// Set once the flight has failed.
    pub negative: Option<Negative>,
}

/// A cached failure.
pub struct Negative {
    pub until: u64,
    pub counted: Counted,
}

impl Entry {
    pub fn negative(&self) -> Option<&Negative> {
        self.flight.as_ref()?.negative.as_ref()
    }

    /// The number of the value; 0 without one.
    pub fn number(&self) -> u64 {
        self.value.as_ref().map_or(0, |kept| kept.counted.number)
    }

    /// The bytes of the value and of the negative entry.
    pub fn bytes(&self) -> u64 {
        let value = self.value.as_ref().map_or(0, |kept| kept.counted.bytes);
        let negative = self.negative().map_or(0, |n| n.counted.bytes);
        value + negative
    }

    /// What counts the value, and what counts the negative entry.
    pub fn counted(&mut self) -> impl Iterator<Item = &mut Counted> {
        let value = self.value.as_mut().map(|kept| &mut kept.counted);
        let negative = self
            .flight
            .as_mut()
            .and_then(|flight| flight.negative.as_mut())
            .map(|negative| &mut negative.counted);
        value.into_iter().chain(negative)
    }
}

impl Flight {
    pub fn is_expired(&self, now: u64) -> bool {
        self.negative
            .as_ref()
            .is_some_and(|negative| now >= negative.until)
    }
}
