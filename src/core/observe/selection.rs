//! Which requests a log shows.
//!
//! | named classes | a time | shown |
//! |---|---|---|
//! | none | none | every request |
//! | some | none | those of these classes |
//! | none | given | those whose client waited longer |
//! | some | given | those of these classes, and all whose client waited longer |
//!
//! Of these, a sample thins the answers that needed no fetch: those of the classes hit,
//! stale and own. A request that is shown because its client waited is never left out,
//! and neither is any other class. So the requests of a class are as many as the sum of
//! what its lines stand for, as long as only classes are chosen.

use super::{AccessRecord, Class};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Which requests are shown. The default is all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of these classes.
    pub classes: Option<Classes>,
    /// Those whose client waited longer than this for its first byte.
    pub slow: Option<Duration>,
    /// One of so many, where no fetch was needed.
    pub sample: Option<NonZeroU64>,
}

/// A set of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classes(u8);

impl FromIterator<Class> for Classes {
    fn from_iter<T: IntoIterator<Item = Class>>(classes: T) -> Classes {
        let bits = classes.into_iter().map(|class| 1 << class as u8);
        Classes(bits.fold(0, |all, bit: u8| all | bit))
    }
}

impl Classes {
    /// Whether this class is among them.
    pub fn contains(self, class: Class) -> bool {
        self.0 & (1 << class as u8) != 0
    }
}

impl Selection {
    /// Whether every request is shown, apart from a sample.
    pub fn is_everything(&self) -> bool {
        self.classes.is_none() && self.slow.is_none()
    }

    /// Whether every request of this class is shown, however short its client waited.
    pub fn shows_all(&self, class: Class) -> bool {
        let is_thinned = self.sample().is_some() && !is_fetched(class);
        self.has_class(class) && !is_thinned
    }

    /// Whether a sample was asked for that leaves out nothing, because no answer is
    /// shown that needed no fetch.
    pub fn samples_nothing(&self) -> bool {
        let mut thinned = Class::ALL.into_iter().filter(|class| !is_fetched(*class));
        self.sample().is_some() && !thinned.any(|class| self.has_class(class))
    }

    /// How many requests the line of this one stands for; `None` if it gets no line.
    /// `turn` counts the answers that a sample may leave out.
    pub fn pick(&self, class: Class, wait: Duration, turn: impl FnOnce() -> u64) -> Option<u64> {
        if self.slow.is_some_and(|limit| wait > limit) {
            return Some(1);
        }
        if !self.has_class(class) {
            return None;
        }

        match self.sample() {
            Some(sample) if !is_fetched(class) => turn().is_multiple_of(sample).then_some(sample),
            _ => Some(1),
        }
    }

    fn has_class(&self, class: Class) -> bool {
        let is_named = |classes: Classes| classes.contains(class);
        self.classes.map_or(self.slow.is_none(), is_named)
    }

    fn sample(&self) -> Option<u64> {
        let sample = self.sample.map(NonZeroU64::get);
        sample.filter(|sample| *sample > 1)
    }
}

/// Whether an answer of this class came from a fetch, or from nowhere.
fn is_fetched(class: Class) -> bool {
    !matches!(class, Class::Hit | Class::Stale | Class::Own)
}

/// A selection, and the count of what it samples.
#[derive(Debug, Default)]
pub struct Selector {
    selection: Selection,
    sampled: AtomicU64,
}

impl Selector {
    /// Nothing has been counted yet.
    pub fn new(selection: Selection) -> Selector {
        Selector {
            selection,
            sampled: AtomicU64::new(0),
        }
    }

    /// What is selected.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// How many requests the line of this one stands for; `None` if it gets no line.
    pub fn pick(&self, record: &AccessRecord<'_>) -> Option<u64> {
        let turn = || self.sampled.fetch_add(1, Ordering::Relaxed);
        self.selection.pick(record.class(), record.wait, turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);
    const FAST: Duration = LIMIT;
    const SLOW: Duration = Duration::from_millis(1001);

    /// The classes that a selection shows of clients that waited so long.
    fn shown(selection: &Selection, wait: Duration) -> Vec<&'static str> {
        let classes = Class::ALL.into_iter();
        let shown = classes.filter(|class| selection.pick(*class, wait, || 0).is_some());
        shown.map(Class::word).collect()
    }

    fn of(classes: &[Class]) -> Option<Classes> {
        Some(classes.iter().copied().collect())
    }

    #[test]
    fn without_a_choice_every_request_is_shown() {
        let all = Selection::default();
        assert_eq!(shown(&all, FAST).len(), Class::ALL.len());
        assert!(all.is_everything());
        assert!(all.shows_all(Class::Hit));
    }

    #[test]
    fn classes_and_a_time_each_add_what_they_name() {
        let classes = of(&[Class::Failure, Class::Miss]);
        let only = Selection {
            classes,
            ..Selection::default()
        };
        assert_eq!(shown(&only, SLOW), ["miss", "failure"]);

        let slow = Selection {
            slow: Some(LIMIT),
            ..Selection::default()
        };
        assert_eq!(shown(&slow, FAST), [""; 0]);
        assert_eq!(shown(&slow, SLOW).len(), Class::ALL.len());
        assert!(!slow.shows_all(Class::Failure));

        let both = Selection { classes, ..slow };
        assert_eq!(shown(&both, FAST), ["miss", "failure"]);
        assert_eq!(shown(&both, SLOW).len(), Class::ALL.len());
        assert!(both.shows_all(Class::Failure));
    }

    #[test]
    fn a_sample_thins_what_needed_no_fetch_and_nothing_else() {
        let sample = Selection {
            sample: NonZeroU64::new(10),
            ..Selection::default()
        };
        let stands_for = |class, turn| sample.pick(class, FAST, || turn);
        for class in [Class::Hit, Class::Stale, Class::Own] {
            assert_eq!(stands_for(class, 0), Some(10));
            assert_eq!(stands_for(class, 9), None);
            assert_eq!(stands_for(class, 10), Some(10));
            assert!(!sample.shows_all(class));
        }
        for class in [
            Class::Coalesced,
            Class::Miss,
            Class::Failure,
            Class::Unasked,
        ] {
            assert_eq!(stands_for(class, 9), Some(1));
            assert!(sample.shows_all(class));
        }
    }

    #[test]
    fn a_slow_request_is_in_no_sample() {
        let selection = Selection {
            classes: of(&[Class::Hit]),
            slow: Some(LIMIT),
            sample: NonZeroU64::new(10),
        };
        assert_eq!(selection.pick(Class::Hit, SLOW, || 9), Some(1));
        assert_eq!(selection.pick(Class::Hit, FAST, || 9), None);
    }

    #[test]
    fn a_sample_of_what_is_not_shown_is_told() {
        let sample = NonZeroU64::new(10);
        let only = |classes: &[Class]| Selection {
            classes: of(classes),
            sample,
            ..Selection::default()
        };
        assert!(only(&[Class::Failure]).samples_nothing());
        assert!(!only(&[Class::Failure, Class::Hit]).samples_nothing());

        let unsampled = Selection {
            sample: None,
            ..only(&[Class::Failure])
        };
        assert!(!unsampled.samples_nothing());
    }
}
