//! Which language the first line is in, and where a head ends. Pure.
//!
//! | first line | language |
//! |---|---|
//! | ends in ` HTTP/1.0` or ` HTTP/1.1` | HTTP |
//! | ends in ` HTTP/` and another version | none that is spoken here |
//! | anything else | the line language |

use crate::protocol::LINE_LIMIT;

/// The longest head of a request, in bytes. Browsers send 1 kB.
pub const HEAD_MAX: usize = 8 << 10;

/// What the bytes of a connection are so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// More must come.
    Unfinished,
    /// A whole head of HTTP.
    Http,
    /// A command of this many bytes, without its line ending.
    Command(usize),
    /// Nothing that is answered.
    Noise,
    /// HTTP, to be refused with this status.
    Refused(u16),
}

/// Looks at the bytes that a client has sent. With `is_over` no more will come.
pub fn look(bytes: &[u8], is_over: bool) -> Opening {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return look_at_part(bytes, is_over);
    };
    let line = &bytes[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);

    match version(line) {
        Some(b"1.0" | b"1.1") => look_at_head(bytes, is_over),
        Some(_) => Opening::Refused(505),
        None => command(line),
    }
}

/// Looks at a first line that is not complete. Programs that speak something binary
/// are known by its first bytes.
fn look_at_part(bytes: &[u8], is_over: bool) -> Opening {
    let line = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.is_empty() && is_over || has_control(line) {
        return Opening::Noise;
    }
    if is_over {
        return command(line);
    }
    if bytes.len() < HEAD_MAX {
        return Opening::Unfinished;
    }
    let is_target = bytes.split(|byte| *byte == b' ').nth(1);
    if is_target.is_some_and(|target| target.starts_with(b"/")) {
        Opening::Refused(431)
    } else {
        Opening::Noise
    }
}

fn look_at_head(bytes: &[u8], is_over: bool) -> Opening {
    let ends = |ending: &[u8]| bytes.windows(ending.len()).position(|part| part == ending);
    let end = [ends(b"\n\n"), ends(b"\n\r\n")].into_iter().flatten().min();

    match end {
        Some(end) if end < HEAD_MAX => Opening::Http,
        None if bytes.len() < HEAD_MAX && is_over => Opening::Refused(400),
        None if bytes.len() < HEAD_MAX => Opening::Unfinished,
        _ => Opening::Refused(431),
    }
}

fn command(line: &[u8]) -> Opening {
    if line.len() > LINE_LIMIT || has_control(line) {
        return Opening::Noise;
    }
    Opening::Command(line.len())
}

/// The version at the end of a request line of HTTP.
fn version(line: &[u8]) -> Option<&[u8]> {
    let blank = line.iter().rposition(|byte| *byte == b' ')?;
    line[blank + 1..].strip_prefix(b"HTTP/")
}

fn has_control(line: &[u8]) -> bool {
    let is_control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    line.iter().any(is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_decides() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Opening::Http),
            (b"GET / HTTP/1.0\n\n", Opening::Http),
            (b"GET / HTTP/1.1\r\n\nrest", Opening::Http),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", Opening::Unfinished),
            (b"GET /", Opening::Unfinished),
            (b"", Opening::Unfinished),
            (b"GET /\r\n", Opening::Command(5)),
            (b"status\n", Opening::Command(6)),
            (b"\n", Opening::Command(0)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Opening::Refused(505)),
            (b"GET / HTTP/1.2\r\n", Opening::Refused(505)),
            (b"GET / HTTP/\r\n", Opening::Refused(505)),
            (b"\x16\x03\x01\x02", Opening::Noise),
            (b"sta\0tus\n", Opening::Noise),
        ] {
            assert_eq!(look(bytes, false), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn at_the_end_what_is_there_counts() {
        for (bytes, expected) in [
            (&b"status"[..], Opening::Command(6)),
            (b"status\r", Opening::Command(6)),
            (b"", Opening::Noise),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", Opening::Refused(400)),
        ] {
            assert_eq!(look(bytes, true), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_head_and_a_command_have_a_limit() {
        let long = |start: &str| [start.as_bytes(), &[b'x'; HEAD_MAX]].concat();
        assert_eq!(look(&long("GET /"), false), Opening::Refused(431));
        assert_eq!(
            look(&long("GET / HTTP/1.1\r\n"), false),
            Opening::Refused(431)
        );
        let late_end = [&long("GET / HTTP/1.1\r\n")[..], b"\r\n\r\n"].concat();
        assert_eq!(look(&late_end, false), Opening::Refused(431));
        assert_eq!(look(&long("purge "), false), Opening::Noise);
        let line = [&[b'x'; LINE_LIMIT + 1][..], b"\n"].concat();
        assert_eq!(look(&line, false), Opening::Noise);
        assert_eq!(look(&line[1..], false), Opening::Command(LINE_LIMIT));
    }
}
