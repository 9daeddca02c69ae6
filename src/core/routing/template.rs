//! What a route sends in place of a request.

use crate::error::Error;
use crate::protocol::check_line;
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;

/// The word that stands for the request.
const REQUEST: &str = "{}";

/// A line with a place for the request, such as `domain {}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendTemplate {
    before: String,
    after: String,
}

/// Why a text is no template. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted a line with {{}} for the request, like 'domain {{}}'")]
pub struct BadTemplate(&'static str);

impl FromStr for SendTemplate {
    type Err = BadTemplate;

    fn from_str(text: &str) -> Result<SendTemplate, BadTemplate> {
        if check_line(text.as_bytes()).is_err() {
            return Err(BadTemplate("no line that can be sent"));
        }
        let (before, after) = text.split_once(REQUEST).ok_or(BadTemplate("no {} in it"))?;
        if after.contains(REQUEST) {
            return Err(BadTemplate("more than one {}"));
        }
        Ok(SendTemplate {
            before: before.to_string(),
            after: after.to_string(),
        })
    }
}

impl SendTemplate {
    /// The line for this request.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a request that begins with `-`, which would be taken
    /// for an option, or that is too long with what stands around it. `subject` is what
    /// would have been asked.
    pub fn fill(&self, request: &[u8], subject: &str) -> Result<Bytes, Error> {
        let decline = |why: &str| Error::BadRequest {
            subject: subject.to_string(),
            why: why.to_string(),
        };
        if request.trim_ascii_start().starts_with(b"-") {
            return Err(decline("it begins with '-', and would be an option"));
        }

        let line = [self.before.as_bytes(), request, self.after.as_bytes()].concat();
        match check_line(&line) {
            Ok(()) => Ok(line.into()),
            Err(_) => Err(decline("no line with what its route puts around it")),
        }
    }
}

impl fmt::Display for SendTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{REQUEST}{}", self.before, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_stands_in_its_place() {
        let template: SendTemplate = "-T dn,ace {}".parse().expect("a template");
        let filled = template.fill(b"a.example", "b.example:43");
        assert_eq!(filled.expect("a line"), "-T dn,ace a.example");
        assert_eq!(template.to_string(), "-T dn,ace {}");
    }

    #[test]
    fn what_would_be_an_option_or_too_long_is_declined() {
        let template: SendTemplate = "domain {}".parse().expect("a template");
        for request in [&b"-V x"[..], b"  -V", &[b'a'; 1020]] {
            let error = template
                .fill(request, "b.example:43")
                .expect_err("declined");
            assert_eq!(error.word(), "bad_request");
            assert!(error.to_string().starts_with("b.example:43: "), "{error}");
        }
        assert!(template.fill(b"a-b", "b.example:43").is_ok());
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["", "domain", "{} {}", "a\n{}", "\u{7}{}"] {
            let error = text.parse::<SendTemplate>().expect_err(text).to_string();
            assert!(error.contains("; wanted a line with {} for"), "{error}");
        }
    }
}
