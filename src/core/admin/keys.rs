//! Keys and fetches as JSON. Names may be any bytes, so each has two forms: `key` is
//! text to show, `id` its exact bytes for a query.

use crate::control::{FlightView, KeyList, KeyView};
use crate::escape;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// A page of keys.
pub fn keys(list: &KeyList) -> Value {
    json!({
        "keys": list.keys.iter().map(key).collect::<Vec<_>>(),
        // As text: it may be larger than the numbers that a browser holds exactly.
        "next": list.next.map(|next| next.to_string()),
        "total": list.total,
    })
}

/// One key.
pub fn key(view: &KeyView) -> Value {
    let mut object = json!({
        "key": shown(&view.name),
        "id": encoded(&view.name),
        "state": view.state.word(),
        "in_flight": view.is_in_flight,
        "bytes": view.bytes,
        "age_s": view.age.map(seconds),
        "fresh_for_s": seconds(view.fresh_for),
        "served_for_s": seconds(view.served_for),
    });
    if let Some(route) = &view.route {
        object["route"] = json!(escape::text(route));
    }
    object
}

/// Fetches, in the order given.
pub fn flights(list: &[FlightView]) -> Value {
    list.iter().map(flight).collect()
}

fn flight(view: &FlightView) -> Value {
    json!({
        "key": shown(&view.name),
        "id": encoded(&view.name),
        "phase": view.phase.word(),
        "upstream": view.upstream,
        "age_s": seconds(view.age),
        "bytes": view.bytes,
        "readers": view.readers,
        "refresh": view.is_refresh,
    })
}

/// A name as text: nothing in it controls a terminal or turns the direction of text.
pub fn shown(name: &[u8]) -> String {
    escape::text(&String::from_utf8_lossy(name))
}

/// A name for a query: percent-encoded (RFC 3986, section 2.1).
pub fn encoded(name: &[u8]) -> String {
    let mut encoded = String::with_capacity(name.len());
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let _never_fails = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Seconds, to the millisecond.
pub(super) fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::KeyState;

    fn view(name: &[u8]) -> KeyView {
        KeyView {
            name: name.to_vec(),
            route: None,
            state: KeyState::Fresh,
            is_in_flight: false,
            bytes: 974,
            age: Some(Duration::from_millis(1500)),
            fresh_for: Duration::from_secs(60),
            served_for: Duration::from_secs(3660),
        }
    }

    #[test]
    fn a_key_of_any_bytes_has_a_text_to_show_and_its_exact_bytes() {
        let table: [(&[u8], &str, &str); 6] = [
            (b"example.net", "example.net", "example.net"),
            (b"", "", ""),
            ("m\u{fc}nchen".as_bytes(), "m\u{fc}nchen", "m%C3%BCnchen"),
            (b"m\xfcnchen", "m\u{fffd}nchen", "m%FCnchen"),
            (
                b"-T dn,ace a&b=%",
                "-T dn,ace a&b=%",
                "-T%20dn%2Cace%20a%26b%3D%25",
            ),
            ("\u{202e}\0".as_bytes(), "\\u{202e}\\u{0}", "%E2%80%AE%00"),
        ];
        for (name, text, id) in table {
            let key = key(&view(name));
            assert_eq!(
                (key["key"].as_str(), key["id"].as_str()),
                (Some(text), Some(id))
            );
        }
    }

    #[test]
    fn a_page_of_keys_says_where_the_next_begins() {
        let list = KeyList {
            keys: vec![view(b"example.net")],
            next: Some(u64::MAX),
            total: 2,
        };

        let page = keys(&list);

        assert_eq!(page["next"], "18446744073709551615");
        assert_eq!(page["total"], 2);
        assert_eq!(page["keys"][0]["age_s"], 1.5);
        assert_eq!(page["keys"][0]["fresh_for_s"], 60.0);
        assert_eq!(page["keys"][0]["served_for_s"], 3660.0);
        assert_eq!(keys(&KeyList::default())["next"], Value::Null);
    }
}
