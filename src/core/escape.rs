//! What others say, made harmless for whoever reads a log: control characters must reach neither a terminal
//! (CVE-2009-4487 and its kin) nor a line-based reader, and nothing may make a line look like another.
//!
//! Control characters are Unicode's: those below 0x20, DEL, and the C1 range 0x80 to 0x9f, which JSON leaves as it is.
//! With them go the line and paragraph separators, which some readers break lines at, and what turns the direction of
//! writing, which shows text in another order than it has (Unicode TR 36, CVE-2021-42574).

/// For people: each such character as Rust writes it in a literal. No line of the result is broken.
pub fn text(text: &str) -> String {
    let escape = |c: char| match is_harmful(c) {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// For machines: JSON that means the same, without such a character in it.
pub fn json(json: String) -> String {
    if !json.contains(is_harmful) {
        return json; // all but a few: this is on the path of every request
    }
    let escape = |c: char| match is_harmful(c) {
        true => format!("\\u{:04x}", c as u32), // all of them are within the first plane
        false => c.to_string(),
    };
    json.chars().map(escape).collect()
}

fn is_harmful(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
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
