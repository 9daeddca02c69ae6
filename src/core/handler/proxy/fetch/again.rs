//! Which source does a fetch ask after one has failed?
//!
//! | the sources | what is asked next |
//! |---|---|
//! | one has not been asked | that one, at once |
//! | all have refused | each of them again, after a pause, within `--connect-retry` |
//! | one has failed in another way | none |

use super::Fetch;
use crate::client::ConnectRetry;
use crate::error::Error;
use crate::observe::Event;
use crate::rt;
use crate::upstream::Source;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

impl Fetch {
    /// Notes the failure of a source. Returns the source that is asked next, once it
    /// may be; `None` if there is none, or if a part has been passed on.
    pub(super) async fn after_failure(
        &mut self,
        source: Source,
        error: &Error,
        asked: &mut AskedSources,
    ) -> Option<Source> {
        let target = self.ask.target.clone();
        let upstream = &target.upstream;
        let observer = self.proxy.observer.clone();
        let again = self.again(source, error, asked);

        // If it is the only one, it has not failed before the time is over.
        let is_decided = again.is_none() || upstream.len() > 1;
        if is_decided && asked.note_once(source) {
            upstream.note(source, Err(error), Instant::now(), &*observer);
        }
        if let Some((next, pause)) = again {
            rt::sleep(pause).await;
            return Some(next);
        }

        let is_last = asked.sources.len() == upstream.len();
        if is_last || !error.is_worth_another_server() || !self.rewind() {
            return None;
        }
        let next = self.next_source(&asked.sources).await?;
        observer.event(Event::NextUpstream {
            fetch: self.name(),
            error,
            next: &upstream.name(next),
        });
        Some(next)
    }

    /// The source that is asked again after this failure of one, and the pause before
    /// it.
    fn again(
        &mut self,
        source: Source,
        error: &Error,
        asked: &mut AskedSources,
    ) -> Option<(Source, Duration)> {
        let upstream = &self.ask.target.upstream;
        let has_others = asked.sources.len() < upstream.len();
        // A server that has reset the connection may have counted the request.
        let is_free = !upstream.has_rate(source) || error.is_unreached();
        let is_refusal = error.is_refusal() && is_free;

        let again = asked.failed(has_others, is_refusal, Instant::now())?;
        (error.is_worth_another_server() && self.rewind()).then_some(again)
    }
}

/// The sources that a fetch has asked.
pub(super) struct AskedSources {
    /// In the order in which they were first asked.
    sources: Vec<Source>,
    /// Whether each failure until now was a refusal.
    have_refused: bool,
    /// Those that are still to be asked again before the next pause.
    round: VecDeque<Source>,
    retry: ConnectRetry,
    /// Those whose failure has been noted.
    noted: Vec<Source>,
}

impl AskedSources {
    pub(super) fn new(connect_retry: Duration) -> AskedSources {
        AskedSources {
            sources: Vec::new(),
            have_refused: true,
            round: VecDeque::new(),
            retry: ConnectRetry::new(connect_retry),
            noted: Vec::new(),
        }
    }

    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }

    pub(super) fn ask(&mut self, source: Source) {
        if !self.sources.contains(&source) {
            self.sources.push(source);
        }
    }

    /// A source has failed. Returns which is asked again, and the pause before it.
    fn failed(
        &mut self,
        has_others: bool,
        is_refusal: bool,
        now: Instant,
    ) -> Option<(Source, Duration)> {
        self.have_refused &= is_refusal;
        if has_others {
            return None;
        }
        if let Some(next) = self.round.pop_front() {
            return Some((next, Duration::ZERO));
        }
        if !self.have_refused {
            return None;
        }

        let pause = self.retry.refused(now)?;
        self.round.extend(&self.sources);
        let first = self.round.pop_front()?;
        Some((first, pause))
    }

    /// Whether this failure of the source is the first to be noted: a source that
    /// refuses many times counts once.
    fn note_once(&mut self, source: Source) -> bool {
        let is_first = !self.noted.contains(&source);
        if is_first {
            self.noted.push(source);
        }
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::StartRight;

    const MS: Duration = Duration::from_millis(1);

    fn source(number: usize) -> Source {
        StartRight(number).into()
    }

    fn asked(numbers: &[usize], time: Duration) -> AskedSources {
        let mut asked = AskedSources::new(time);
        numbers.iter().for_each(|number| asked.ask(source(*number)));
        asked
    }

    #[test]
    fn sources_that_all_refuse_are_asked_again_in_rounds() {
        let mut asked = asked(&[1, 0], 100 * MS);
        let now = Instant::now();
        let first = |pause: u32| Some((source(1), pause * MS));
        let second = Some((source(0), Duration::ZERO));

        assert_eq!(
            asked.failed(true, true, now),
            None,
            "another is asked first"
        );
        assert_eq!(asked.failed(false, true, now), first(50));
        assert_eq!(asked.failed(false, true, now + 50 * MS), second);
        assert_eq!(asked.failed(false, true, now + 50 * MS), first(50));
        assert_eq!(asked.failed(false, true, now + 100 * MS), second);
        assert_eq!(asked.failed(false, true, now + 100 * MS), None);
    }

    #[test]
    fn another_failure_ends_it_after_the_round() {
        let now = Instant::now();
        let mut one_of_two = asked(&[0, 1], 100 * MS);
        assert_eq!(one_of_two.failed(true, false, now), None);
        assert_eq!(one_of_two.failed(false, true, now), None);

        let mut later = asked(&[0, 1], 100 * MS);
        later.failed(true, true, now);
        later.failed(false, true, now);
        let rest_of_round = Some((source(1), Duration::ZERO));
        assert_eq!(later.failed(false, false, now), rest_of_round);
        assert_eq!(later.failed(false, true, now), None);
    }

    #[test]
    fn a_failure_is_noted_once_for_each_source() {
        let mut asked = asked(&[0, 1], 100 * MS);
        assert!(asked.note_once(source(0)));
        assert!(asked.note_once(source(1)));
        assert!(!asked.note_once(source(0)));
    }
}
