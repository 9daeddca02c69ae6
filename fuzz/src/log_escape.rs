//! What goes into logs: no control character is left, nor one that breaks lines or turns the direction of writing, and
//! what a machine reads back is what was said.

use poetry::escape;
use serde_json::{Value, json};

/// The input is what a client said, which may be no text at all.
pub fn check(data: &[u8]) {
    let said = String::from_utf8_lossy(data);
    let text = escape::text(&said);
    assert!(!text.contains(is_harmful));
    assert_eq!(
        text.lines().count(),
        usize::from(!said.is_empty()),
        "one line stays one line"
    );
    assert_eq!(text, plain(&said));
    assert_eq!(
        escape::text(&text),
        text,
        "what is escaped needs it no more"
    );

    let object = json!({ "key": said, said.clone(): [said] });
    let written = escape::json(object.to_string());
    assert!(!written.contains(is_harmful));
    let back: Value = serde_json::from_str(&written).expect("it is still JSON");
    assert_eq!(back, object);
    if !said.contains(is_harmful) {
        assert_eq!(
            (text.as_str(), written),
            (&*said, object.to_string()),
            "nothing to escape"
        );
    }
}

/// The same, slowly: cut at the harmful characters, and joined by what stands for them.
fn plain(said: &str) -> String {
    let mut left = said;
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

/// Each of them by itself.
fn is_harmful(c: char) -> bool {
    const SEPARATORS: &str = "\u{2028}\u{2029}";
    const TURNS: &str = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
    c.is_control() || SEPARATORS.contains(c) || TURNS.contains(c)
}
