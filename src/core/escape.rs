//! Makes text from the network safe to log. A control character must not reach a terminal
//! (CVE-2009-4487 and its kin) or split a line, and nothing may make one line look like
//! another.
//!
//! These characters are escaped: Unicode's control characters (below 0x20, DEL, and the C1
//! range 0x80 to 0x9f, which JSON leaves as it is); the line and paragraph separators, at
//! which some readers break lines; and the characters that change the direction of writing,
//! which show text in another order than it has (Unicode TR 36, CVE-2021-42574).

/// Escapes for people: such a character becomes what Rust writes in a literal. The result is
/// one line.
pub fn text(text: &str) -> String {
    text.chars()
        .map(|c| {
            if is_harmful(c) {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// Escapes for machines: JSON with the same meaning and none of these characters.
pub fn json(json: String) -> String {
    if !json.contains(is_harmful) {
        return json; // the usual case, on the path of every request
    }

    json.chars()
        .map(|c| {
            if is_harmful(c) {
                format!("\\u{:04x}", c as u32) // they are all below U+10000
            } else {
                c.to_string()
            }
        })
        .collect()
}

fn is_harmful(c: char) -> bool {
    let separator = matches!(c, '\u{2028}' | '\u{2029}');
    let direction = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || separator || direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_harmful_character_reaches_the_log_in_either_form() {
        let all: String = (0..=0xffffu32).filter_map(char::from_u32).collect();
        let object = json(serde_json::json!({ "key": all }).to_string());
        assert!(!object.contains(is_harmful) && !text(&all).contains(is_harmful));
        let back: serde_json::Value = serde_json::from_str(&object).expect("it is still JSON");
        assert_eq!(back["key"], all.as_str());
        assert_eq!(
            text("\r\u{85}\u{202e}\u{2028}ü詩"),
            r"\r\u{85}\u{202e}\u{2028}ü詩"
        );
    }
}
