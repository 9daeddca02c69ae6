//! Which address, token, site and host has which rights.

use super::*;

const TOKEN: &[u8] = b"sixteen-letters!";

fn access() -> AdminAccess {
    AdminAccess {
        token: Token::new(TOKEN).ok(),
        hosts: vec!["poems.example".into()],
    }
}

/// The head of a request to `127.0.0.1:80`.
fn head(method: &str) -> HttpHead<'_> {
    HttpHead {
        method,
        hosts: vec![b"127.0.0.1:80"],
        ..HttpHead::default()
    }
}

/// Which of the rights these are: open, read, keys, act.
fn granted(rights: Result<Rights, Denied>) -> [bool; 4] {
    let rights = rights.expect("it is let in");
    [Right::Open, Right::Read, Right::Keys, Right::Act].map(|right| rights.allow(right).is_ok())
}

const ALL: [bool; 4] = [true; 4];
const NO_ACT: [bool; 4] = [true, true, true, false];
const OPEN: [bool; 4] = [true, false, false, false];

#[test]
fn the_address_decides_what_a_client_may_do() {
    let access = access();
    for (via, expected) in [
        (Via::Unix, ALL),
        (Via::Loopback, NO_ACT),
        (Via::Elsewhere, OPEN),
    ] {
        assert_eq!(granted(access.rights(via, &head("POST"))), expected);
        assert_eq!(granted(Ok(Rights::of(via))), expected);

        let mut with_token = head("POST");
        let authorization = [b"bearer ", TOKEN].concat();
        with_token.authorizations = vec![&authorization];
        assert_eq!(granted(access.rights(via, &with_token)), ALL);
        let nothing = AdminAccess::default().rights(via, &with_token);
        assert_eq!(granted(nothing), expected, "there is no token");
        with_token.authorizations = vec![&authorization, &authorization];
        assert_eq!(granted(access.rights(via, &with_token)), expected);
    }
}

#[test]
fn the_page_may_act_on_loopback_only() {
    let access = access();
    let mut page = head("POST");
    page.fetch_sites = vec![b"same-origin"];
    assert_eq!(granted(access.rights(Via::Loopback, &page)), ALL);
    assert_eq!(granted(access.rights(Via::Elsewhere, &page)), OPEN);

    let mut old_browser = head("POST");
    old_browser.origins = vec![b"http://127.0.0.1:80"];
    assert_eq!(granted(access.rights(Via::Loopback, &old_browser)), ALL);
}

#[test]
fn another_site_changes_nothing_whatever_else_it_sends() {
    const OURS: &[u8] = b"http://127.0.0.1:80";
    let authorization = [b"Bearer ", TOKEN].concat();
    let refused = |via, fetch_sites: &[&'static [u8]], origins: &[&'static [u8]]| {
        let mut other = head("POST");
        other.authorizations = vec![&authorization];
        other.fetch_sites = fetch_sites.to_vec();
        other.origins = origins.to_vec();
        access().rights(via, &other) == Err(Denied::CrossSite)
    };

    for via in [Via::Unix, Via::Loopback, Via::Elsewhere] {
        assert!(refused(via, &[b"cross-site"], &[]));
        assert!(refused(via, &[b"same-site"], &[]));
        assert!(refused(via, &[b"same-origin", b"cross-site"], &[]));
        assert!(refused(via, &[b"cross-site"], &[OURS]));
        assert!(refused(via, &[], &[b"http://evil.example"]));
        assert!(refused(via, &[], &[b"null"]));
        assert!(refused(via, &[], &[OURS, OURS]));
        assert!(!refused(via, &[], &[OURS]));
    }
}

#[test]
fn another_site_embeds_no_more_than_is_open_but_may_link() {
    for via in [Via::Unix, Via::Loopback, Via::Elsewhere] {
        let mut image = head("GET");
        image.fetch_sites = vec![b"cross-site"];
        image.fetch_modes = vec![b"no-cors"];
        let rights = access().rights(via, &image);
        assert_eq!(granted(rights)[..3], OPEN[..3], "{via:?}");
        let refused = rights.expect("it is let in").allow(Right::Keys);
        assert_eq!(refused, Err(Denied::CrossSite));

        let mut link = image.clone();
        link.fetch_modes = vec![b"navigate"];
        let plain = granted(access().rights(via, &head("GET")));
        assert_eq!(granted(access().rights(via, &link)), plain, "{via:?}");
    }
}

#[test]
fn over_tcp_the_host_is_known_and_there_is_one() {
    let access = access();
    let ask = |via, hosts: &[&'static str], authority: Option<&'static str>| {
        let mut head = head("GET");
        head.hosts = hosts.iter().map(|host| host.as_bytes()).collect();
        head.authority = authority;
        access.rights(via, &head).map(drop)
    };
    let hosts = [
        "127.0.0.1",
        "10.0.0.1:8080",
        "[::1]:80",
        "LocalHost:1",
        "poems.example",
    ];
    for host in hosts {
        assert_eq!(ask(Via::Loopback, &[host], None), Ok(()), "{host}");
        assert_eq!(ask(Via::Loopback, &[host], Some(host)), Ok(()), "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.1",
        "::1",
        "[::1",
        "",
        "localhost:80x",
        "user@localhost",
    ] {
        let wrong = Err(Denied::WrongHost);
        assert_eq!(ask(Via::Loopback, &[host], None), wrong, "{host}");
        assert_eq!(ask(Via::Elsewhere, &["localhost"], Some(host)), wrong);
        assert_eq!(ask(Via::Unix, &[host], Some(host)), Ok(()), "{host}");
    }

    let two = ["localhost", "localhost"];
    assert_eq!(ask(Via::Loopback, &two, None), Err(Denied::NotOneHost));
    assert_eq!(ask(Via::Loopback, &[], None), Err(Denied::NotOneHost));
    assert_eq!(ask(Via::Unix, &two, None), Err(Denied::NotOneHost));
    assert_eq!(ask(Via::Unix, &[], None), Ok(()));
}

#[test]
fn through_a_tunnel_to_a_unix_socket_a_foreign_name_changes_nothing() {
    let mut rebound = head("POST");
    rebound.hosts = vec![b"evil.example:10002"];
    rebound.origins = vec![b"http://evil.example:10002"];
    let refused = access().rights(Via::Unix, &rebound);
    assert_eq!(refused, Err(Denied::WrongHost));

    let mut page = head("POST");
    page.hosts = vec![b"localhost:10002"];
    page.origins = vec![b"http://localhost:10002"];
    assert_eq!(granted(access().rights(Via::Unix, &page)), ALL);
}

#[test]
fn a_health_check_of_http_1_0_needs_no_host() {
    let access = access();
    let authorization = [b"Bearer ", TOKEN].concat();
    let mut check = head("GET");
    check.is_http_1_0 = true;
    check.hosts.clear();
    check.authorizations = vec![&authorization];
    for via in [Via::Loopback, Via::Elsewhere] {
        let rights = access.rights(via, &check);
        assert_eq!(granted(rights), OPEN);
        let refusal = rights.and_then(|rights| rights.allow(Right::Read));
        assert_eq!(refusal, Err(Denied::NotOneHost));
    }

    check.method = "POST";
    let refused = access.rights(Via::Loopback, &check);
    assert_eq!(refused, Err(Denied::NotOneHost));
    check.method = "GET";
    check.authority = Some("evil.example");
    let refused = access.rights(Via::Loopback, &check);
    assert_eq!(refused, Err(Denied::NotOneHost));
}

#[test]
fn an_address_is_on_loopback_or_not() {
    let via = |text: &str| Via::of(&text.parse().expect(text));
    for text in ["unix:/a", "80", "127.9.9.9:1", "[::1]:1", "localhost:1"] {
        assert_ne!(via(text), Via::Elsewhere, "{text}");
    }
    for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "poems.example:1"] {
        assert_eq!(via(text), Via::Elsewhere, "{text}");
    }
    assert_eq!(via("unix:127.0.0.1"), Via::Unix);
}

#[test]
fn a_token_is_one_long_word_and_is_never_shown() {
    let token = Token::new(b" \tsixteen-letters!\r\n").expect("a token");
    assert_eq!(Some(&token), access().token.as_ref());
    assert_eq!(format!("{token:?}"), "Token");
    assert!(Token::new(b"fifteen-letters\n").is_err());
    assert!(Token::new(b"two words of a text").is_err());
    assert!(Token::new(b"").is_err());
}
