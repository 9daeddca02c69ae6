//! The end of a flight, checked against a slow and obvious model: one key, those who ask for it, and an upstream that
//! connects, says pieces, and ends or resets, in every order up to a size and in long random ones.
//!
//! A failure prints the shortest order of acts that shows it, as a line that can be put into a test here:
//!
//! ```text
//! play(hours(1, 0, 0), &[Ask(A), Say(0), Ask(B), Reset(0)])
//! ```
//!
//! The parts are put together here as `FlightGuard` puts them together in the proxy. Seven flaws in that are tests too: a
//! check that never fails shows nothing, so each of these must be found, and by the rule that it breaks.

mod explore;
mod obvious;
mod real;

use explore::{Counterexample, Looks, Setting, Visited, orders, states};
use obvious::{Act, Act::*, Client::*, Hours, Limits, Model};
use proptest::prelude::*;
use real::{Flaw, Rule};

/// The ttl, the grace, and how long failures are remembered.
fn hours(ttl: u64, grace: u64, fail_ttl: u64) -> Hours {
    Hours {
        ttl,
        grace,
        fail_ttl,
    }
}

fn play(hours: Hours, acts: &[Act]) -> Result<(), Counterexample> {
    explore::play(Setting { hours, flaw: None }, acts, Looks::Each)
}

/// Keeping alone, with grace, with failures remembered as well, and keeping nothing.
const POLICIES: [Hours; 4] = [
    Hours {
        ttl: 1,
        grace: 0,
        fail_ttl: 0,
    },
    Hours {
        ttl: 1,
        grace: 1,
        fail_ttl: 0,
    },
    Hours {
        ttl: 1,
        grace: 1,
        fail_ttl: 1,
    },
    Hours {
        ttl: 0,
        grace: 0,
        fail_ttl: 0,
    },
];

/// A leader and two more, a fetch and one after a purge, two pieces each: too much to be exhausted in a debug build.
const MANY: Limits = Limits {
    clients: 3,
    aloft: 2,
    pieces: 2,
};
/// What is exhausted, until no act leads to anything new: a leader and two more, and one fetch at a time;
const THREE: Limits = Limits {
    clients: 3,
    aloft: 1,
    pieces: 1,
};
/// and fewer clients, with a fetch beside the one that was purged.
const TWICE: Limits = Limits {
    clients: 2,
    aloft: 2,
    pieces: 1,
};
/// More acts than lead to any state of those: what ends such a search is that nothing is left.
const ALL: usize = 99;

fn visit(hours: Hours, go: impl Fn(Setting) -> Result<Visited, Counterexample>) -> Visited {
    let visited = go(Setting { hours, flaw: None }).unwrap_or_else(|found| panic!("{found:?}"));
    println!("{hours:?}: {visited:?}");
    visited
}

#[test]
fn every_act_in_every_state_of_one_fetch_and_three_clients_is_as_the_model_says() {
    let visited = visit(POLICIES[0], |setting| states(setting, THREE, ALL));
    assert!(
        visited.states > 5_000 && visited.orders > 38_000 && visited.deepest < ALL,
        "{visited:?}"
    );
    for hours in POLICIES {
        let visited = visit(hours, |setting| states(setting, MANY, 7));
        assert!(
            visited.states > 500 && visited.orders > 4_000,
            "{visited:?}"
        );
    }
}

#[test]
fn every_act_in_every_state_of_two_fetches_and_two_clients_is_as_the_model_says() {
    for hours in [POLICIES[0], POLICIES[2], POLICIES[3]] {
        let visited = visit(hours, |setting| states(setting, TWICE, ALL));
        assert!(
            visited.states > 1_000 && visited.orders > 10_000 && visited.deepest < ALL,
            "{visited:?}"
        );
    }
}

#[test]
fn every_order_of_six_acts_is_as_the_model_says() {
    for hours in POLICIES {
        let visited = visit(hours, |setting| orders(setting, MANY, 6));
        assert!(visited.orders > 8_000, "{visited:?}");
    }
}

#[test]
#[ignore = "a minute in a release build: cargo test --release --test it model:: -- --ignored"]
fn every_act_in_every_state_of_two_fetches_and_three_clients_is_as_the_model_says() {
    for hours in POLICIES {
        for limits in [Limits { pieces: 1, ..MANY }, Limits { aloft: 1, ..MANY }] {
            let visited = visit(hours, |setting| states(setting, limits, ALL));
            assert!(
                visited.states > 15_000 && visited.deepest < ALL,
                "{visited:?}"
            );
        }
    }
}

/// As a failure would print it: a fetch that a purge has cut off resets while its successor's poem is stale and is
/// refreshed, and then all is forgotten once more.
#[test]
fn an_order_that_was_printed_can_be_played_again() {
    let acts = [
        Ask(A),
        Say(0),
        Purge,
        Ask(B),
        Say(1),
        End(1),
        Wait,
        Ask(C),
        Ask(D),
        Reset(0),
        Read(A),
        Say(2),
        Read(B),
        End(2),
        Read(C),
        Leave(D),
        Ask(A),
        Purge,
        Read(A),
    ];
    play(hours(1, 1, 0), &acts).unwrap();
}

/// Looks for what the flaw does, and expects it to be shown by these acts and to break this rule.
fn finds(flaw: Flaw, hours: Hours, rule: Rule, acts: &[Act]) {
    let found = states(
        Setting {
            hours,
            flaw: Some(flaw),
        },
        MANY,
        7,
    )
    .expect_err("the flaw was not found");
    println!("{found:?}");
    assert_eq!((found.rule, &found.acts[..]), (rule, acts), "{found:?}");
    let order = explore::play(Setting { hours, flaw: None }, acts, Looks::Each);
    order.expect("without the flaw nothing is wrong with that order");
}

#[test]
fn the_model_finds_a_fetch_that_ends_when_the_client_leaves_who_caused_it() {
    finds(
        Flaw::LeaderTakesItAlong,
        POLICIES[0],
        Rule::Fetches,
        &[Ask(A), Leave(A)],
    );
}

#[test]
fn the_model_finds_a_poem_that_is_kept_after_a_purge() {
    finds(
        Flaw::KeptAfterAPurge,
        POLICIES[0],
        Rule::Kept,
        &[Ask(A), Say(0), Purge, End(0)],
    );
}

#[test]
fn the_model_finds_a_late_client_who_misses_the_beginning() {
    finds(
        Flaw::LateMissTheBeginning,
        POLICIES[0],
        Rule::Seen,
        &[Ask(A), Say(0), Ask(B)],
    );
}

#[test]
fn the_model_finds_a_reset_that_is_taken_for_an_end() {
    finds(
        Flaw::ResetIsAnEnd,
        POLICIES[0],
        Rule::Kept,
        &[Ask(A), Say(0), Reset(0)],
    );
    // And where nothing is kept, by what the client is told.
    finds(
        Flaw::ResetIsAnEnd,
        POLICIES[3],
        Rule::Timing,
        &[Ask(A), Say(0), Read(A), Reset(0)],
    );
}

#[test]
fn the_model_finds_a_failure_of_which_the_leader_alone_is_told() {
    finds(
        Flaw::LeaderAloneIsTold,
        POLICIES[0],
        Rule::Timing,
        &[Ask(A), Ask(B), Reset(0)],
    );
}

#[test]
fn the_model_finds_a_failed_flight_that_is_joined() {
    finds(
        Flaw::FailedIsJoined,
        POLICIES[0],
        Rule::Asker,
        &[Ask(A), Reset(0)],
    );
}

#[test]
fn the_model_finds_two_fetches_where_one_is_still_connecting() {
    finds(
        Flaw::ConnectingIsNotJoined,
        POLICIES[0],
        Rule::Fetches,
        &[Ask(A), Ask(B)],
    );
}

/// Each number picks one of the acts that are possible by then.
fn order(hours: Hours, picks: &[u16]) -> Vec<Act> {
    let limits = Limits {
        clients: 5,
        aloft: 4,
        pieces: 9,
    };
    let mut model = Model::new(hours);
    let pick = |pick: &u16| {
        let acts = model.possible(limits);
        let act = *acts.get(*pick as usize % acts.len().max(1))?;
        model.act(act);
        Some(act)
    };
    picks.iter().filter_map(pick).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_order_everyone_gets_the_same_and_nothing_partial_is_kept(
        policy in 0..POLICIES.len(), picks in prop::collection::vec(any::<u16>(), 0..60)
    ) {
        let hours = POLICIES[policy];
        if let Err(found) = play(hours, &order(hours, &picks)) {
            panic!("{found:?}");
        }
    }
}
