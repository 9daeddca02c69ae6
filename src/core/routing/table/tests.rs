//! The table against a slow and obvious model.

use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

/// The choice as the table at the top of `routing.rs` says it.
fn obvious(patterns: &[RoutePattern], request: &str) -> Option<usize> {
    let word = request.split_whitespace().next_back().unwrap_or_default();
    let address: Option<IpNet> = word
        .parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| word.parse())
        .ok();
    let name = word.to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);

    let mut best: Option<(usize, usize)> = None; // how exact it is, and which route
    for (route, pattern) in patterns.iter().enumerate() {
        let exactness = match (pattern, address) {
            (RoutePattern::Net(net), Some(asked)) if net.contains(&asked) => {
                Some(usize::from(net.prefix_len()))
            }
            (RoutePattern::Suffix(suffix), None) => {
                let ending = format!(".{suffix}");
                let is_it = name.ends_with(&ending) && name.len() > ending.len();
                is_it.then_some(suffix.len())
            }
            _ => None,
        };
        if let Some(exactness) = exactness
            && best.is_none_or(|(before, _)| exactness > before)
        {
            best = Some((exactness, route));
        }
    }
    if let Some((_, route)) = best {
        return Some(route);
    }

    let mut all = patterns.iter();
    let by_regex = all.position(|pattern| match pattern {
        RoutePattern::Matches(regex) => regex.is_match(request.as_bytes()),
        _ => false,
    });
    let is_rest = |pattern: &RoutePattern| matches!(pattern, RoutePattern::Rest);
    by_regex.or_else(|| patterns.iter().position(is_rest))
}

fn table(patterns: &[&str]) -> RoutingTable {
    let patterns: Vec<RoutePattern> = patterns
        .iter()
        .map(|text| text.parse().expect(text))
        .collect();
    RoutingTable::new(&patterns, false).expect("they are few")
}

#[test]
fn the_most_exact_route_takes_a_request_whatever_the_order() {
    let table = table(&[
        "*",
        "/a/",
        "*.b",
        "*.a.b",
        "192.0.0.0/16",
        "192.0.2.0/24",
        "2001:db8::/32",
        "/^AS/",
    ]);
    for (request, route) in [
        ("x.b", 2),
        ("x.a.b", 3),
        ("-T dn X.A.B.", 3),
        ("a.b", 2),
        (".a.b", 2),
        (".b", 0),
        ("b", 0),
        ("a", 1),
        ("192.0.2.1", 5),
        ("n + 192.0.2.0/25", 5),
        ("192.0.2.0/23", 4),
        ("192.0.0.0/8", 0),
        ("::ffff:192.0.2.1", 5),
        ("2001:db8::1", 6),
        ("2001:db9::1", 0),
        ("AS64496", 7),
        ("", 0),
        ("a.b x", 1),
    ] {
        assert_eq!(table.choose(request.as_bytes()), Some(route), "{request}");
    }
}

#[test]
fn without_a_route_for_the_rest_some_requests_have_none() {
    let table = table(&["*.b"]);
    assert_eq!(table.choose(b"a.b"), Some(0));
    for request in [&b"a.c"[..], b"", b"\xff.c", &[b'.'; 4096], b"192.0.2.1"] {
        assert_eq!(table.choose(request), None);
    }
    assert_eq!(
        table.choose(b"\xff.b"),
        Some(0),
        "a name may be of any bytes"
    );
    let long = [&[b'a'; 252][..], b".b"].concat();
    assert_eq!(table.choose(&long), None, "longer than a name");
}

#[test]
fn a_route_that_is_never_reached_is_known() {
    let table = table(&[
        "*.b",
        "*.B.",
        "/x/",
        "/x/",
        "192.0.2.1",
        "192.0.2.1/32",
        "*",
        "*",
        "/.*/",
        "/y/",
    ]);
    assert_eq!(table.shadowed(), [(1, 0), (3, 2), (5, 4), (7, 6), (9, 8)]);
    assert_eq!(table.choose(b"y"), Some(8));
}

#[test]
fn expressions_take_letters_of_both_kinds_where_keys_do() {
    let patterns = ["/^AS/".parse().expect("a pattern")];
    let exact = RoutingTable::new(&patterns, false).expect("it is small");
    let folded = RoutingTable::new(&patterns, true).expect("it is small");
    assert_eq!(exact.choose(b"as1"), None);
    assert_eq!(folded.choose(b"as1"), Some(0));
}

#[test]
fn a_thousand_expressions_are_the_most() {
    let regex = |number| format!("/^{number}$/").parse().expect("a pattern");
    let patterns: Vec<RoutePattern> = (0..=REGEXES_MAX).map(regex).collect();
    assert!(RoutingTable::new(&patterns[..REGEXES_MAX], false).is_ok());
    let error = RoutingTable::new(&patterns, false).expect_err("one too many");
    assert_eq!(error, BadTable::TooMany);
}

proptest! {
    #[test]
    fn the_table_chooses_as_the_obvious_model_does(
        patterns in prop::collection::vec(
            prop_oneof![
                4 => "\\*(\\.[ab]){1,3}",
                2 => "10\\.[01]\\.0\\.0/(16|20|32)",
                1 => "a[ab]::/(16|64)",
                2 => "/\\^?[ab.1]{0,2}\\$?/",
                1 => "\\*",
            ],
            0..12,
        ),
        requests in prop::collection::vec(
            prop_oneof![
                4 => "([abA] )?([abAB]\\.){0,4}[abAB]?\\.?",
                2 => "10\\.[01]\\.[0-2]\\.[01](/(12|16|24|32))?",
                1 => "a[ab]::[01](/(8|16|128))?",
            ],
            1..20,
        ),
    ) {
        let patterns: Vec<RoutePattern> = patterns
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        let table = RoutingTable::new(&patterns, false).expect("they are few");
        for request in requests {
            let route = table.choose(request.as_bytes());
            prop_assert_eq!(route, obvious(&patterns, &request), "{}", request);
            let is_shadowed = |of: &(usize, usize)| Some(of.0) == route;
            prop_assert!(!table.shadowed().iter().any(is_shadowed));
        }
    }
}

/// What a choice costs among 1,000 expressions and 10,000 suffixes.
#[test]
#[ignore = "it measures: cargo test --release --lib routing -- --ignored --nocapture"]
fn a_choice_among_many_routes_costs_little() {
    let suffixes = (0..10_000).map(|number| format!("*.tld{number}"));
    let regexes = (0..1_000).map(|number| format!("/^AS{number}[0-9]{{0,3}}$/"));
    let patterns = suffixes.chain(regexes);
    let patterns: Vec<RoutePattern> = patterns.map(|text| text.parse().expect("one")).collect();
    let begun = std::time::Instant::now();
    let table = RoutingTable::new(&patterns, false).expect("they are few enough");
    println!("made in {:?}", begun.elapsed());

    let names: Vec<String> = (0..10_000)
        .map(|n| format!("name{n}.example.tld{n}"))
        .collect();
    let systems: Vec<String> = (0..1_000).map(|n| format!("AS{n}")).collect();
    let others: Vec<String> = (0..1_000).map(|n| format!("other{n}")).collect();
    for (what, requests) in [("suffix", &names), ("regex", &systems), ("none", &others)] {
        let once = || {
            let begun = std::time::Instant::now();
            for request in requests {
                std::hint::black_box(table.choose(request.as_bytes()));
            }
            begun.elapsed() / requests.len() as u32
        };
        let best = std::iter::repeat_with(once).take(20).min().expect("some");
        println!("{what}: {best:?} a choice");
    }
}
