//! What goes into logs: no control character is left, and what a machine reads back is what was said.

use poetry::escape;
use serde_json::{json, Value};

/// The input is what a client said, which may be no text at all.
pub fn check(data: &[u8]) {
    let said = String::from_utf8_lossy(data);
    let text = escape::text(&said);
    assert!(!text.contains(char::is_control));
    assert_eq!(text.lines().count(), usize::from(!said.is_empty()), "one line stays one line");
    assert_eq!(text, plain(&said));
    assert_eq!(escape::text(&text), text, "what is escaped needs it no more");

    let object = json!({ "key": said, said.clone(): [said] });
    let written = escape::json(object.to_string());
    assert!(!written.contains(char::is_control));
    let back: Value = serde_json::from_str(&written).expect("it is still JSON");
    assert_eq!(back, object);
    if !said.contains(char::is_control) {
        assert_eq!((text.as_str(), written), (&*said, object.to_string()), "nothing to escape");
    }
}

/// The same, slowly: cut at the control characters, and joined by what stands for them.
fn plain(said: &str) -> String {
    let mut left = said;
    let mut out = String::new();
    while let Some(at) = left.find(char::is_control) {
        let (before, rest) = left.split_at(at);
        let control = rest.chars().next().map_or(0, u32::from);
        out.push_str(before);
        out.push_str(&match control {
            0x09 => r"\t".to_string(),
            0x0a => r"\n".to_string(),
            0x0d => r"\r".to_string(),
            _ => format!("\\u{{{control:x}}}"),
        });
        left = &rest[if control < 0x80 { 1 } else { 2 }..];
    }
    out + left
}
