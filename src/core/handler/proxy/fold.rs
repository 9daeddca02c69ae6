//! Which spellings of a request are one text.
//!
//! Plain data. It is for keys only: the upstream is sent what the client has written.

use std::borrow::Cow;

/// What of a request does not count in its key. By default every byte does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyFold {
    /// ASCII letters are taken as small ones.
    pub case: bool,
    /// Spaces at both ends are left out, and several in a row are taken as one. A TAB
    /// stays as it is: it divides the requests of gopher.
    pub space: bool,
}

impl KeyFold {
    /// What of a request is in its key.
    pub fn whole<'a>(&self, request: &'a [u8]) -> Cow<'a, [u8]> {
        let mut folded = self.beginning(request);
        if self.space && folded.ends_with(b" ") {
            folded.to_mut().pop(); // one at most is left
        }
        folded
    }

    /// What the keys begin with of all requests that begin like this.
    pub(super) fn beginning<'a>(&self, begin: &'a [u8]) -> Cow<'a, [u8]> {
        let mut folded = Cow::Borrowed(begin);
        if self.space {
            folded = Cow::Owned(with_single_spaces(begin));
        }
        if self.case {
            folded.to_mut().make_ascii_lowercase();
        }
        folded
    }

    /// What tells keys that are folded like this from all others; empty for no fold.
    pub(super) fn id(&self) -> Vec<u8> {
        let words = [(self.case, "case"), (self.space, "space")];
        let words = words.iter().filter(|(is_on, _)| *is_on);
        let words: Vec<&str> = words.map(|(_, word)| *word).collect();
        words.join(",").into_bytes()
    }
}

/// Without spaces at the begin, and with single ones everywhere else.
fn with_single_spaces(text: &[u8]) -> Vec<u8> {
    let mut single = Vec::with_capacity(text.len());
    for byte in text {
        let is_more = single.last().is_none_or(|last| *last == b' ');
        if *byte != b' ' || !is_more {
            single.push(*byte);
        }
    }
    single
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: KeyFold = KeyFold {
        case: true,
        space: true,
    };

    fn folded(fold: KeyFold, request: &str) -> String {
        let folded = fold.whole(request.as_bytes());
        String::from_utf8_lossy(&folded).into_owned()
    }

    #[test]
    fn each_fold_takes_its_own_spellings_as_one() {
        let case = KeyFold {
            case: true,
            ..KeyFold::default()
        };
        let space = KeyFold {
            space: true,
            ..KeyFold::default()
        };
        let request = "  Example.COM \t  A  ";
        for (fold, wanted) in [
            (KeyFold::default(), "  Example.COM \t  A  "),
            (case, "  example.com \t  a  "),
            (space, "Example.COM \t A"),
            (BOTH, "example.com \t a"),
        ] {
            assert_eq!(folded(fold, request), wanted);
        }
        assert_eq!(folded(BOTH, "   "), "");
        assert_eq!(folded(BOTH, "ÄÖ"), "ÄÖ", "only ASCII");
    }

    #[test]
    fn folds_have_their_names() {
        assert_eq!(BOTH.id(), b"case,space");
        assert_eq!(KeyFold::default().id(), b"");
    }

    proptest! {
        #[test]
        fn a_folded_request_folds_to_itself_and_begins_as_its_begin_folds(
            request in "[aAbB \t]{0,12}", length in 0usize..12,
        ) {
            let request = request.as_bytes();
            let once = BOTH.whole(request).into_owned();
            prop_assert_eq!(&*BOTH.whole(&once), &once[..]);

            let begin = &request[..length.min(request.len())];
            let begin = BOTH.beginning(begin).into_owned();
            let longer = BOTH.beginning(request).into_owned();
            prop_assert!(longer.starts_with(&begin));
        }
    }
}
