//! How long a text is fresh: `--ttl`, or the ttl of the first pattern that it matches,
//! and a random part less.
//!
//! Plain data; chance is an argument.

use regex::bytes::{Regex, RegexSet};
use std::time::Duration;

/// What changes the ttl of a text. By default nothing does.
#[derive(Debug, Clone, Default)]
pub struct TtlRules {
    /// The patterns as one set: a text is read once for all of them.
    patterns: RegexSet,
    ttls: Vec<Duration>,
    jitter: f64,
}

impl TtlRules {
    /// The first of these that a text matches says its ttl. Up to `jitter` of the ttl,
    /// from 0 to 1, is taken off by chance, so that texts that were fetched together
    /// are not refreshed together.
    ///
    /// # Errors
    /// The patterns are too large together.
    pub fn new(rules: &[(Regex, Duration)], jitter: f64) -> Result<TtlRules, regex::Error> {
        let patterns = RegexSet::new(rules.iter().map(|(pattern, _)| pattern.as_str()))?;
        Ok(TtlRules {
            patterns,
            ttls: rules.iter().map(|(_, ttl)| *ttl).collect(),
            jitter,
        })
    }

    /// Whether a text has to be read.
    pub(super) fn has_patterns(&self) -> bool {
        !self.ttls.is_empty()
    }

    /// Whether every text has the usual ttl.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_patterns() && self.jitter == 0.0
    }

    /// The longest ttl of a pattern.
    pub(super) fn longest(&self) -> Option<Duration> {
        self.ttls.iter().max().copied()
    }

    /// The ttl by the first pattern that matches.
    pub(super) fn of(&self, text: &[u8]) -> Option<Duration> {
        let first = self.patterns.matches(text).iter().min()?;
        self.ttls.get(first).copied()
    }

    /// A ttl with its random part taken off. `chance` is from 0 to 1.
    pub(super) fn jittered(&self, ttl: Duration, chance: f64) -> Duration {
        ttl.mul_f64(1.0 - self.jitter * chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn rules(patterns: &[&str], jitter: f64) -> TtlRules {
        let rules: Vec<(Regex, Duration)> = (1..)
            .zip(patterns)
            .map(|(hours, pattern)| (Regex::new(pattern).expect("a pattern"), HOUR * hours))
            .collect();
        TtlRules::new(&rules, jitter).expect("they are short")
    }

    #[test]
    fn the_first_pattern_that_matches_decides() {
        let rules = rules(&["(?i)^no match", "match", "(?m)^x"], 0.0);
        assert!(rules.has_patterns() && !rules.is_empty());
        for (text, hours) in [
            ("No match for a", Some(1)),
            ("a match", Some(2)),
            ("a\nx match", Some(2)),
            ("a\nx", Some(3)),
            ("", None),
        ] {
            assert_eq!(
                rules.of(text.as_bytes()),
                hours.map(|hours| HOUR * hours),
                "{text}"
            );
        }
        assert!(TtlRules::default().is_empty());
    }

    #[test]
    fn jitter_takes_off_its_part_at_most() {
        let rules = rules(&[], 0.1);
        assert!(!rules.has_patterns() && !rules.is_empty());
        assert_eq!(rules.jittered(HOUR, 0.0), HOUR);
        assert_eq!(rules.jittered(HOUR, 1.0), HOUR - HOUR / 10);
        assert_eq!(rules.jittered(Duration::ZERO, 0.5), Duration::ZERO);
        assert_eq!(TtlRules::default().jittered(HOUR, 1.0), HOUR);
    }
}
