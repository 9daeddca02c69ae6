//! The end of a flight, checked against a slow and obvious model: one key, any number of clients, and any order of
//! asking, saying, landing, failing, purging and waiting. A failure prints the shortest order that shows it.

use poetry::cache::{Cache, Fill, Lookup, Policy};
use poetry::error::Error;
use poetry::flight::{launch, Flight, Read, Reader, Writer};
use poetry::poem::Poem;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// A flight and its place in the model.
type Numbered = (usize, Flight);

#[derive(Debug, Clone, Copy)]
enum Act {
    Ask,
    Say(usize),
    Land(usize),
    Fail(usize),
    Drop(usize),
    Purge,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Ask),
        4 => (0usize..4).prop_map(Act::Say),
        2 => (0usize..4).prop_map(Act::Land),
        1 => (0usize..4).prop_map(Act::Fail),
        1 => (0usize..4).prop_map(Act::Drop),
        1 => Just(Act::Purge),
        2 => (1u64..90).prop_map(Act::Wait),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Aloft,
    Landed,
    Failed,
}

/// A flight as the model sees it, with the real one's two rights while it is aloft.
struct Modelled {
    rights: Option<(Fill<u8, Poem, Numbered>, Writer)>,
    said: String,
    end: End,
    readers: Vec<(Reader, String)>,
}

impl Modelled {
    /// Everyone reads what there is; nobody may be ahead, behind or told another end.
    fn check(&mut self) {
        for (reader, seen) in &mut self.readers {
            let last = loop {
                match reader.read() {
                    Read::Chunk(bytes) => seen.push_str(std::str::from_utf8(&bytes).unwrap()),
                    last => break last,
                }
            };
            assert_eq!(*seen, self.said);
            let told = match last {
                Read::Pending => End::Aloft,
                Read::End => End::Landed,
                _ => End::Failed,
            };
            assert_eq!(told, self.end);
        }
    }
}

fn play(acts: &[Act]) {
    let minute = Duration::from_secs(60);
    let policy =
        Policy { ttl: minute * 60, grace: Duration::ZERO, fail_ttl: Duration::ZERO, capacity: 1 << 20 };
    let cache = Cache::<u8, Poem, Numbered>::new(policy);
    let mut now = Instant::now();
    let mut flights: Vec<Modelled> = Vec::new();
    let (mut current, mut kept): (Option<usize>, Option<(String, Instant)>) = (None, None);
    for act in acts {
        match *act {
            Act::Ask => {
                let number = flights.len();
                let answer = cache.lookup(&0, now, || {
                    let (writer, flight) = launch(1 << 16);
                    (writer, (number, flight))
                });
                let fresh = kept.as_ref().filter(|(_, until)| now < *until);
                match (answer, fresh, current) {
                    (Lookup::Hit(poem, _), Some((text, _)), _) => assert_eq!(poem.bytes(), text.clone()),
                    (Lookup::Coalesced((joined, flight)), None, Some(current)) => {
                        assert_eq!(joined, current);
                        flights[joined].readers.push((flight.join().unwrap(), String::new()));
                    }
                    (Lookup::Miss(lead), None, None) => {
                        current = Some(number);
                        let readers = vec![(lead.flight.1.join().unwrap(), String::new())];
                        let rights = Some((lead.fill, lead.writer));
                        flights.push(Modelled { rights, said: String::new(), end: End::Aloft, readers });
                    }
                    (answer, fresh, current) => panic!("{answer:?}, but {fresh:?} and {current:?}"),
                }
            }
            Act::Say(which) => {
                let Some(flight) = aloft(&mut flights, which) else { continue };
                let Some((_, writer)) = &mut flights[flight].rights else { continue };
                let word = format!("{flight}:{} ", writer.len());
                writer.append(word.clone().into());
                flights[flight].said.push_str(&word);
            }
            Act::Land(which) | Act::Fail(which) | Act::Drop(which) => {
                let Some(flight) = aloft(&mut flights, which) else { continue };
                let Some((fill, writer)) = flights[flight].rights.take() else { continue };
                let own = current == Some(flight);
                if own {
                    current = None;
                }
                if let Act::Land(_) = act {
                    writer.finish(|poem| {
                        let kept = fill.commit(poem, 1, now);
                        assert_eq!(kept.is_ok(), own);
                        kept
                    });
                    flights[flight].end = End::Landed;
                    if own {
                        kept = Some((flights[flight].said.clone(), now + policy.ttl));
                    }
                } else {
                    drop(fill);
                    if let Act::Fail(_) = act {
                        writer.fail(Error::Abandoned);
                    }
                    flights[flight].end = End::Failed;
                }
            }
            Act::Purge => {
                cache.purge();
                (current, kept) = (None, None);
            }
            Act::Wait(minutes) => now += minute * minutes as u32,
        }
        flights.iter_mut().for_each(Modelled::check);
    }
    drop(flights);
    cache.purge();
    assert_eq!((cache.held(), cache.len()), (0, 0));
}

/// One of the flights that are still aloft.
fn aloft(flights: &mut [Modelled], which: usize) -> Option<usize> {
    let aloft: Vec<usize> = (0..flights.len()).filter(|&at| flights[at].rights.is_some()).collect();
    aloft.get(which % aloft.len().max(1)).copied()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_order_everyone_gets_the_same_and_nothing_partial_is_kept(
        acts in prop::collection::vec(act(), 0..60)
    ) {
        play(&acts);
    }
}
