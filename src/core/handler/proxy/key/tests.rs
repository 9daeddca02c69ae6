//! What keys tell apart, and what they are named.

use super::*;
use std::collections::HashMap;

fn scopes() -> Vec<(String, Scope)> {
    let upstreams: [&[&str]; 5] = [&["1"], &["1", "2"], &["2", "1"], &["1,2"], &["1:1,"]];
    let pipelines: [&[u8]; 4] = [b"", b"shout", b"shout,", b"5:shout,"];

    let mut scopes = Vec::new();
    for protocol in [Protocol::Poem, Protocol::Line, Protocol::Netstring] {
        for upstreams in upstreams {
            for pipeline in pipelines {
                let ids: Vec<_> = upstreams.iter().map(|id| id.as_bytes().to_vec()).collect();
                let scope = Scope::new(protocol, &ids, pipeline);
                scopes.push((format!("{protocol:?} {upstreams:?} {pipeline:?}"), scope));
            }
        }
    }
    scopes
}

#[test]
fn no_two_requests_share_a_key() {
    let long = [
        vec![b'x'; 256],
        vec![b'x'; 257],
        vec![b'y'; 257],
        vec![b'x'; 258],
    ];
    let names = [
        name(&long[1]),
        netstring(&name(&long[1])),
        name(&long[1])[1..].to_vec(),
    ];
    let mut requests: Vec<&[u8]> = vec![
        b"", b"a", b"1:a,", b"0:,", b"a,", b"4:line,", b"\xff", b"1:a,0:,", b"#257:",
    ];
    requests.extend(long.iter().chain(&names).map(Vec::as_slice));

    let mut seen = HashMap::new();
    for (what, scope) in scopes() {
        let is_poem = scope.protocol == Protocol::Poem;
        let asked = if is_poem { &requests[..1] } else { &requests };
        for request in asked {
            let what = format!("{what} {request:?}");
            let whole = scope.whole(&scope.key(request));
            let other = seen.insert(whole, what.clone());
            assert_eq!(other, None, "the same key as {what}");
        }
    }
    assert!(seen.len() > 600);
}

#[test]
fn a_key_tells_its_name_and_the_name_its_key() {
    let scope = Scope::new(Protocol::Netstring, &[b"1".to_vec()], b"");
    let requests: [&[u8]; 7] = [
        b"",
        b"a",
        b"1:a,",
        b"#257:",
        b"\xff,",
        &[b'x'; 256],
        &[b':'; 256],
    ];
    for request in requests {
        let key = scope.key(request);
        assert_eq!(key.name(), request);
        assert_eq!(scope.named(request), [key]);
    }

    let long = scope.key(&[b'x'; 300]);
    let name = long.name().into_owned();
    assert!(name.starts_with(b"#300:") && name.len() == 5 + 64);
    assert_eq!(scope.long(&name), Some(long.clone()));
    assert_eq!(scope.named(&name), [scope.key(&name), long.clone()]);
    assert!(long.begins_with(&name[..20]) && !long.begins_with(b"#301"));
    assert!(long.begins_with(b"") && !long.begins_with(b"x"));
    let short = scope.key(b"#3");
    assert!(short.begins_with(b"#") && !short.begins_with(b"#30"));

    let poem = Scope::new(Protocol::Poem, &[b"1".to_vec()], b"");
    assert_eq!(poem.key(b"").name(), &b""[..]);
    assert_eq!(poem.named(b""), [poem.key(b"")]);
    assert_eq!(poem.named(b"a"), []);
}

#[test]
fn what_only_looks_like_a_digest_names_no_long_request() {
    let scope = Scope::new(Protocol::Line, &[b"1".to_vec()], b"");
    let hex = "0f".repeat(32);
    assert!(scope.long(format!("#257:{hex}").as_bytes()).is_some());

    for name in [
        format!("#256:{hex}"),
        format!("#0257:{hex}"),
        format!("#+257:{hex}"),
        format!("257:{hex}"),
        format!("#257:{}", hex.to_uppercase()),
        format!("#257:{hex}0f"),
        format!("#257:{}", "é".repeat(32)),
        format!("#257:{}", &hex[1..]),
        format!("#99999999999999999999999:{hex}"),
    ] {
        assert_eq!(scope.long(name.as_bytes()), None, "{name}");
    }
}

#[test]
fn a_usual_key_needs_no_allocation_and_any_key_is_its_bytes() {
    for length in 0..64 {
        let name = vec![b'x'; length];
        let key = Key::new(&name);
        assert_eq!(key.bytes(), name);
        assert_eq!(key.heap_bytes() == 0, length <= SHORT);
    }
    assert_eq!(size_of::<Key>(), 24);
}

#[test]
fn a_folded_key_is_that_of_all_its_spellings_and_of_no_other_proxy() {
    let fold = |case, space| KeyFold { case, space };
    let line = || Scope::new(Protocol::Line, &[b"1".to_vec()], b"");
    let scopes = [
        line(),
        line().folded(fold(true, false)),
        line().folded(fold(false, true)),
        line().folded(fold(true, true)),
    ];

    let (upper, spaced) = (&b"A.EXAMPLE"[..], &b"  a.example "[..]);
    for (scope, is_one) in scopes
        .iter()
        .zip([[false; 2], [true, false], [false, true], [true; 2]])
    {
        let key = scope.key(b"a.example");
        let same = [upper, spaced].map(|request| scope.key(request) == key);
        assert_eq!(same, is_one);
        assert_eq!(scope.begins_with(&key, b" A.EX"), is_one[0] && is_one[1]);
    }

    let whole: Vec<_> = scopes
        .iter()
        .map(|scope| scope.whole(&scope.key(b"~4:case,")))
        .collect();
    for (at, key) in whole.iter().enumerate() {
        assert!(!whole[at + 1..].contains(key));
    }

    let other = Scope::new(Protocol::Netstring, &[b"1".to_vec()], b"").folded(fold(true, true));
    assert_ne!(other.key(b"A"), other.key(b"a"), "poems are not requests");
}

#[test]
fn a_tagged_key_is_the_same_but_for_its_tag() {
    let plain = Scope::new(Protocol::Line, &[b"1".to_vec()], b"");
    let long = [b'x'; 300];
    for number in [1, 127, 128, u32::MAX] {
        let tagged = plain.clone().tagged(Tag::new(number));
        for request in [&b""[..], b"a", b"\xff", &long] {
            let (key, other) = (tagged.key(request), plain.key(request));
            assert_ne!(key, other);
            assert_eq!(key.tag(), tagged.tag());
            assert_eq!(other.tag(), Tag::default());
            assert_eq!(key.name(), other.name());
            assert_eq!(key.is_digest(), request.len() > 256);
            assert_eq!(tagged.whole(&key), plain.whole(&other));
            assert_eq!(tagged.key_of(&plain.whole(&other)), Some(key.clone()));
            assert_eq!(tagged.named(&key.name()).last(), Some(&key));
        }
    }
    assert_ne!(Tag::new(1), Tag::new(128));
}

#[test]
fn a_scope_that_sends_something_else_has_keys_of_its_own() {
    let plain = Scope::new(Protocol::Line, &[b"1".to_vec()], b"");
    let fold = KeyFold {
        case: true,
        space: true,
    };
    let scopes = [
        plain.clone(),
        plain.clone().sending("{} a"),
        plain.clone().sending("{}"),
        plain.clone().folded(fold),
        plain.folded(fold).sending("{} a"),
    ];
    let requests = [&b"a"[..], b"4:{} a,>", b"10:case,space,~"];
    let mut seen = HashMap::new();
    for (at, scope) in scopes.iter().enumerate() {
        for request in requests {
            let whole = scope.whole(&scope.key(request));
            assert_eq!(Scope::prefix_of(&whole), Some(scope.prefix()));
            assert_eq!(seen.insert(whole, at), None);
        }
    }
    for odd in [&b""[..], b"\x01", b"\x010:,0:,", b"\x0199:,", b"\x02"] {
        assert_eq!(Scope::prefix_of(odd), None);
    }
}

#[test]
fn the_key_of_a_long_request_is_short() {
    let scope = Scope::new(Protocol::Netstring, &[b"1".to_vec()], b"");
    let length = |request: &[u8]| scope.key(request).bytes().len();
    let long = vec![b'x'; 16 << 20];

    let digest = "#16777216:".len() + 32;
    assert_eq!(length(&long), length(b"") - "0:,".len() + digest);
}
