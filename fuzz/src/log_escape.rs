//! Text in logs: after escaping there is no control character, none that breaks a line,
//! and none that turns the direction of writing. A machine still reads back what was
//! logged.

use poetry::escape;
use serde_json::{Value, json};

/// The input is what a client sent, which may not be text at all.
pub fn check(data: &[u8]) {
    let sent = String::from_utf8_lossy(data);
    let text = escape::text(&sent);
    assert!(!text.contains(is_harmful));
    let lines = usize::from(!sent.is_empty());
    assert_eq!(text.lines().count(), lines, "one line stays one line");
    assert_eq!(text, plain(&sent));
    assert_eq!(escape::text(&text), text, "escaped text stays as it is");

    let object = json!({ "key": sent, sent.clone(): [sent] });
    let written = escape::json(object.to_string());
    assert!(!written.contains(is_harmful));
    let back: Value = serde_json::from_str(&written).expect("it is still JSON");
    assert_eq!(back, object);

    if !sent.contains(is_harmful) {
        assert_eq!(text.as_str(), &*sent, "nothing to escape");
        assert_eq!(written, object.to_string(), "nothing to escape");
    }
}

/// Escapes slowly: cuts the text at the harmful characters and joins it with their
/// escapes.
fn plain(sent: &str) -> String {
    let mut left = sent;
    let mut out = String::new();

    while let Some(at) = left.find(is_harmful) {
        let (before, rest) = left.split_at(at);
        let Some(harmful) = rest.chars().next() else {
            break;
        };
        out.push_str(before);
        out.push_str(&match harmful {
            '\t' => r"\t".to_string(),
            '\n' => r"\n".to_string(),
            '\r' => r"\r".to_string(),
            _ => format!("\\u{{{:x}}}", u32::from(harmful)),
        });
        left = &rest[harmful.len_utf8()..];
    }

    out + left
}

/// Whether a character must be escaped; each one is listed.
fn is_harmful(c: char) -> bool {
    const SEPARATORS: &str = "\u{2028}\u{2029}";
    const TURNS: &str = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\
                         \u{2066}\u{2067}\u{2068}\u{2069}";
    c.is_control() || SEPARATORS.contains(c) || TURNS.contains(c)
}
