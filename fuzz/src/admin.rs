//! What operators ask, in both languages: whatever the bytes, there is one answer, and
//! only what says so changes anything.
//!
//! * bytes are told apart the same way however they come in, and within a limit;
//! * a method that changes nothing leads to nothing that does;
//! * what is percent-encoded comes back as it was;
//! * over TCP a command changes nothing, and neither does a request without a secret
//!   that another site could have sent.

use super::head;
use poetry::admin::action::{Action, PurgeTarget, Right};
use poetry::admin::first::{HEAD_MAX, Opening, look};
use poetry::admin::line;
use poetry::admin::rights::{AdminAccess, HttpHead, Rights, Via};
use poetry::admin::route::route;
use poetry::cache::Purge;

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "DELETE"];
const PATHS: [&str; 6] = ["/purge", "/refresh", "/keys", "/status", "/log", "/"];
const VIAS: [Via; 3] = [Via::Unix, Via::Loopback, Via::Elsewhere];

/// The first byte chooses a method, a path and an address; the rest is what was sent.
pub fn check(data: &[u8]) {
    let ([choice], sent) = head(data);
    let pick = usize::from(choice);
    let method = METHODS[pick % 4];
    let path = PATHS[pick / 4 % 6];
    let via = VIAS[pick / 24 % 3];

    check_first(sent);
    check_command(sent, via);
    check_route(method, path, &String::from_utf8_lossy(sent));
    check_key(path, sent);
    check_rights(method, via, sent);
}

/// What is known of a part stays so as more comes.
fn check_first(sent: &[u8]) {
    let whole = look(sent, false);
    for length in 0..sent.len() {
        let part = look(&sent[..length], false);
        assert!(part == Opening::Unfinished || part == whole || part == Opening::Noise);
        if part == Opening::Noise {
            break;
        }
    }

    assert_ne!(look(sent, true), Opening::Unfinished, "nothing more comes");
    if whole == Opening::Unfinished {
        assert!(sent.len() < HEAD_MAX);
    }
    if let Opening::Command(length) = whole {
        assert!(!sent[..length].contains(&b'\n'));
    }
}

fn check_command(line: &[u8], via: Via) {
    let Ok(action) = line::parse(line) else {
        return;
    };
    let is_change = action.right() == Right::Act;
    let says_so = line.starts_with(b"purge ") || line.starts_with(b"refresh");
    assert_eq!(is_change, says_so);

    let is_allowed = Rights::of(via).allow(action.right()).is_ok();
    assert!(!is_change || is_allowed == (via == Via::Unix));
}

fn check_route(method: &str, path: &str, query: &str) {
    let Ok(action) = route(method, path, query) else {
        return;
    };
    assert_eq!(action.right() == Right::Act, method == "POST");
    if let Action::Purge(PurgeTarget::All, _) = action {
        assert!(
            query
                .split('&')
                .any(|field| field.trim_end_matches('=') == "all" || field.contains('%'))
        );
    }
}

/// A key of any bytes can be purged.
fn check_key(path: &str, name: &[u8]) {
    let encoded: String = name.iter().map(|byte| format!("%{byte:02x}")).collect();
    let purge = route("POST", "/purge", &format!("key={encoded}&soft"));
    let target = PurgeTarget::Named(name.to_vec());
    assert_eq!(purge, Ok(Action::Purge(target, Purge::Soft)));
    assert!(
        route("GET", path, &format!("key={encoded}"))
            .is_ok_and(|action| { action == Action::Key(name.to_vec()) })
            == (path == "/keys")
    );
}

/// Another site can set anything but what browsers add themselves.
fn check_rights(method: &str, via: Via, sent: &[u8]) {
    let head = HttpHead {
        method,
        hosts: vec![sent],
        fetch_sites: vec![b"cross-site"],
        origins: vec![sent],
        authorizations: vec![sent],
        ..HttpHead::default()
    };
    if let Ok(rights) = AdminAccess::default().rights(via, &head) {
        let may_act = rights.allow(Right::Act).is_ok();
        let is_safe = method == "GET" || method == "HEAD";
        assert!(is_safe, "a change of another site");
        assert!(!may_act || via == Via::Unix);
    }
}
