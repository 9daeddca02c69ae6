//! The lines of a file of routes: words, quotes as a shell has them, and comments.
//!
//! No word of an expression gets lost: a backslash outside quotes, which a shell would
//! take away, is an error.

/// A line with words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLine {
    /// Counted from 1.
    pub number: usize,
    /// At least one.
    pub words: Vec<String>,
}

/// A line that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadRouteLine {
    /// Counted from 1.
    pub number: usize,
    /// What is wrong, and what is wanted.
    pub why: &'static str,
}

/// The lines that have words, in their order. Those that can't be read are errors.
pub fn route_lines(text: &str) -> Vec<Result<RouteLine, BadRouteLine>> {
    let lines = (1..).zip(text.lines());
    let lines = lines.map(|(number, line)| match words(line) {
        Ok(words) => Ok(RouteLine { number, words }),
        Err(why) => Err(BadRouteLine { number, why }),
    });
    let has_words =
        |line: &Result<RouteLine, _>| line.as_ref().map_or(true, |l| !l.words.is_empty());
    lines.filter(has_words).collect()
}

/// The words of a line, without its comment.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let line = uncommented(line)?;
    shell_words::split(line).map_err(|_| UNCLOSED)
}

const UNCLOSED: &str = "a quote has no end; wanted one like it on the same line";
const BACKSLASH: &str =
    "a backslash outside quotes would be lost; wanted the word in single quotes";
const CONTROL: &str = "a control character; wanted text";

/// What stands before the comment, which begins with a # at the begin of a word.
fn uncommented(line: &str) -> Result<&str, &'static str> {
    let mut quote = None;
    let mut is_escaped = false;
    let mut is_begin = true;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (_, c) if c.is_control() && c != '\t' => return Err(CONTROL),
            (None, '#') if is_begin => return Ok(&line[..at]),
            (None, '\\') => return Err(BACKSLASH),
            (None, '\'' | '"') => quote = Some(c),
            (Some('"'), _) if is_escaped => is_escaped = false,
            (Some('"'), '\\') => is_escaped = true,
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        is_begin = quote.is_none() && c.is_whitespace();
    }
    if quote.is_some() {
        return Err(UNCLOSED);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Vec<(usize, Result<Vec<String>, &'static str>)> {
        let lines = route_lines(text).into_iter();
        let lines = lines.map(|line| match line {
            Ok(line) => (line.number, Ok(line.words)),
            Err(bad) => (bad.number, Err(bad.why)),
        });
        lines.collect()
    }

    fn words_of(text: &str) -> Vec<String> {
        let mut lines = of(text);
        assert_eq!(lines.len(), 1, "{text}");
        lines.remove(0).1.expect(text)
    }

    #[test]
    fn words_are_those_of_a_shell_and_comments_are_left_out() {
        let text = "# all\n\n*.a  b:43 'c=d  e' # f\r\n  \t# g\n'#'h # 'i\n/a#b/ c#d";
        let lines = of(text);
        let line = |number, words: &[&str]| {
            let words = words.iter().map(|word| word.to_string());
            (number, Ok(words.collect()))
        };
        assert_eq!(
            lines,
            [
                line(3, &["*.a", "b:43", "c=d  e"]),
                line(5, &["#h"]),
                line(6, &["/a#b/", "c#d"]),
            ]
        );
    }

    #[test]
    fn a_backslash_is_kept_or_refused_and_never_lost() {
        assert_eq!(words_of(r"'/\d/' x"), [r"/\d/", "x"]);
        assert_eq!(words_of(r#"a="\d""#), [r"a=\d"]);
        assert_eq!(of(r"/\d/ x")[0].1, Err(BACKSLASH));
    }

    #[test]
    fn a_line_that_cant_be_read_leaves_the_others() {
        let lines = of("a 'b\nc\n\u{1b}");
        assert_eq!(lines[0], (1, Err(UNCLOSED)));
        assert_eq!(lines[1].1, Ok(vec!["c".into()]));
        assert_eq!(lines[2], (3, Err(CONTROL)));
    }

    proptest! {
        #[test]
        fn words_in_single_quotes_come_back(
            given in prop::collection::vec("[^'\\p{Cc}\u{85}\u{2028}\u{2029}]{0,9}", 1..5),
        ) {
            let quoted: Vec<String> = given.iter().map(|word| format!("'{word}'")).collect();
            let words = words_of(&quoted.join(" "));
            prop_assert_eq!(words, given);
        }
    }
}
