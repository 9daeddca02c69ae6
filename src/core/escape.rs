//! What others say, made harmless for whoever reads a log: control characters must reach neither a terminal
//! (CVE-2009-4487 and its kin) nor a line-based reader.
//!
//! Control characters are Unicode's: those below 0x20, DEL, and the C1 range 0x80 to 0x9f, which JSON leaves as it is.

/// For people: each control character as Rust writes it in a literal. No line of the result is broken.
pub fn text(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// For machines: JSON that means the same, without a control character in it.
pub fn json(json: String) -> String {
    if !json.contains(char::is_control) {
        return json; // all but a few: this is on the path of every request
    }
    let escape = |c: char| match c.is_control() {
        true => format!("\\u{:04x}", c as u32),
        false => c.to_string(),
    };
    json.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_the_log_in_either_form() {
        let all: String = (0..0x100u32).filter_map(char::from_u32).collect();
        let object = json(serde_json::json!({ "key": all }).to_string());
        assert!(!object.chars().any(char::is_control) && !text(&all).chars().any(char::is_control));
        let back: serde_json::Value = serde_json::from_str(&object).expect("it is still JSON");
        assert_eq!(back["key"], all.as_str());
    }
}
