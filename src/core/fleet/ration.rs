//! How many bytes one reply may have. It looks at what comes before the parser does:
//! the `redis` crate takes a reply of any length, and a server that sends garbage took
//! a proxy to 7.2 GB.
//!
//! | the bytes are | then |
//! |---|---|
//! | replies within the ration | they go on to the parser |
//! | a line, a string or a list that says it is longer | [`NotRedis::TooLong`], before any of it is kept |
//! | nested deeper than any reply of ours | [`NotRedis::Strange`] |
//! | no reply at all: HTTP, noise | [`NotRedis::Strange`] |
//! | a reply that nothing asked for | [`NotRedis::Unasked`] |
//! | messages without end, and no reply between them | [`NotRedis::Flood`] |
//!
//! It follows the framing and nothing else. What a reply means is decided elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The deepest that our replies go: a list of entries, each with a list of fields, in a
/// pipeline's answer, and one to spare.
const DEPTH_MOST: usize = 5;

/// The longest first line of a reply: errors and numbers. An error may quote a script.
const LINE_MOST: usize = 4 << 10;

/// Bytes of messages that may come without a reply between them: some 50,000 doorbells.
/// A follower asks after each that it hears.
const MESSAGES_MOST: usize = 8 << 20;

/// The shortest element of a list: a mark, and the end of its line.
const ELEMENT_LEAST: usize = 3;

/// Why what a server sends is no reply of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRedis {
    #[error("a reply of more than {0} bytes")]
    TooLong(usize),
    #[error("not Redis: it sent something else than replies")]
    Strange,
    #[error("not Redis: it sent replies to nothing")]
    Unasked,
    #[error("messages without end")]
    Flood,
}

/// Replies that have been asked for and have not come.
#[derive(Debug, Default)]
pub(super) struct Owed(AtomicU64);

impl Owed {
    /// So many more are asked for.
    pub fn add(&self, replies: usize) {
        self.0.fetch_add(replies as u64, Ordering::Relaxed);
    }

    /// One of them is not owed any more. Whether one was.
    pub fn take(&self) -> bool {
        let less = |owed: u64| owed.checked_sub(1);
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, less).is_ok()
    }
}

/// Counts the bytes of each reply.
#[derive(Debug)]
pub(super) struct Ration {
    /// Bytes that one reply may have.
    most: usize,
    owed: Arc<Owed>,
    /// Bytes of this reply until now.
    taken: usize,
    /// Whether it is one that comes unasked: a message.
    is_push: bool,
    /// Bytes of messages since the last reply.
    messages: usize,
    /// What ended in this look.
    ended: usize,
    /// Elements that are still to come, of each list that is open.
    open: Vec<u64>,
    state: ReplyState,
}

#[derive(Debug)]
enum ReplyState {
    /// The first byte of a reply, or of an element.
    Mark,
    /// The rest of its first line, without its end.
    Line { mark: u8, line: Vec<u8> },
    /// The bytes of a string, and the end of its line.
    Bytes(usize),
}

impl Ration {
    pub fn new(most: usize, owed: Arc<Owed>) -> Ration {
        Ration {
            most,
            owed,
            taken: 0,
            is_push: false,
            messages: 0,
            ended: 0,
            open: Vec::new(),
            state: ReplyState::Mark,
        }
    }

    /// Looks at bytes that came. Returns how many replies and messages ended in them.
    ///
    /// # Errors
    /// [`NotRedis`]: the connection is of no use any more.
    pub fn look(&mut self, bytes: &[u8]) -> Result<usize, NotRedis> {
        self.ended = 0;
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            let used = match &mut self.state {
                ReplyState::Mark => 1,
                ReplyState::Line { .. } => {
                    let end = rest.iter().position(|byte| *byte == b'\n');
                    end.map_or(rest.len(), |end| end + 1)
                }
                ReplyState::Bytes(left) => rest.len().min(*left),
            };
            self.taken = self.taken.saturating_add(used);
            self.affords(0)?;

            let (now, later) = rest.split_at(used);
            rest = later;
            match &mut self.state {
                ReplyState::Mark => {
                    let (mark, line) = (*first, Vec::new());
                    self.state = ReplyState::Line { mark, line };
                }
                ReplyState::Line { line, .. } => {
                    if line.len() + now.len() > LINE_MOST {
                        return Err(NotRedis::Strange);
                    }
                    line.extend_from_slice(now);
                    if now.ends_with(b"\n") {
                        self.line_ended()?;
                    }
                }
                ReplyState::Bytes(left) => {
                    *left -= used;
                    if *left == 0 {
                        self.element_ended()?;
                    }
                }
            }
        }
        Ok(self.ended)
    }

    /// Whether this many more bytes would be within the ration.
    fn affords(&self, more: usize) -> Result<(), NotRedis> {
        if self.taken.saturating_add(more) > self.most {
            return Err(NotRedis::TooLong(self.most));
        }
        Ok(())
    }

    fn line_ended(&mut self) -> Result<(), NotRedis> {
        let state = std::mem::replace(&mut self.state, ReplyState::Mark);
        let ReplyState::Line { mark, line } = state else {
            return Err(NotRedis::Strange);
        };
        let line = line.strip_suffix(b"\r\n").ok_or(NotRedis::Strange)?;
        if self.open.is_empty() {
            self.is_push = mark == b'>';
        }

        match mark {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => self.element_ended(),
            b'$' | b'=' | b'!' => match length(line)? {
                None => self.element_ended(),
                Some(length) => {
                    self.affords(length + 2)?;
                    self.state = ReplyState::Bytes(length + 2);
                    Ok(())
                }
            },
            b'*' | b'~' | b'>' => self.list_begins(length(line)?.unwrap_or(0)),
            b'%' => self.list_begins(length(line)?.unwrap_or(0).saturating_mul(2)),
            _ => Err(NotRedis::Strange),
        }
    }

    fn list_begins(&mut self, elements: usize) -> Result<(), NotRedis> {
        self.affords(elements.saturating_mul(ELEMENT_LEAST))?;
        if elements == 0 {
            return self.element_ended();
        }
        if self.open.len() == DEPTH_MOST {
            return Err(NotRedis::Strange);
        }
        self.open.push(elements as u64);
        Ok(())
    }

    fn element_ended(&mut self) -> Result<(), NotRedis> {
        self.state = ReplyState::Mark;
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return Ok(());
            }
            self.open.pop();
        }

        self.ended += 1;
        let length = std::mem::take(&mut self.taken);
        if self.is_push {
            self.messages += length;
            if self.messages > MESSAGES_MOST {
                return Err(NotRedis::Flood);
            }
        } else if self.owed.take() {
            self.messages = 0;
        } else {
            return Err(NotRedis::Unasked);
        }
        Ok(())
    }
}

/// A length; `None` for what is not there (-1).
fn length(line: &[u8]) -> Result<Option<usize>, NotRedis> {
    if line == b"-1" {
        return Ok(None);
    }
    let digits = std::str::from_utf8(line).ok();
    let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok());
    // The end of its line comes after it.
    let number = number.filter(|number: &usize| *number < usize::MAX - 2);
    number.map(Some).ok_or(NotRedis::Strange)
}

/// Checks for the fuzzer: any bytes, however they are split, get one verdict.
#[doc(hidden)]
pub fn check_ration(bytes: &[u8], split: usize) {
    let ration = || {
        let owed = Arc::new(Owed::default());
        owed.add(1000);
        Ration::new(1000, owed)
    };
    let mut parts = ration();
    let (first, second) = bytes.split_at(split.min(bytes.len()));
    let split = parts.look(first).and_then(|_| parts.look(second));
    let mut bytewise = ration();
    let one_by_one = bytes
        .iter()
        .try_for_each(|byte| bytewise.look(&[*byte]).map(drop));
    assert_eq!(split.is_ok(), one_by_one.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ration(most: usize, replies: usize) -> Ration {
        let owed = Arc::new(Owed::default());
        owed.add(replies);
        Ration::new(most, owed)
    }

    fn string(length: usize) -> Vec<u8> {
        format!("${length}\r\n{}\r\n", "x".repeat(length)).into_bytes()
    }

    #[test]
    fn a_reply_of_just_the_ration_passes_and_one_byte_more_does_not() {
        let reply = string(100);
        let most = reply.len();
        assert_eq!(ration(most, 1).look(&reply), Ok(1));
        let less = most - 1;
        assert_eq!(ration(less, 1).look(&reply), Err(NotRedis::TooLong(less)));
        assert_eq!(ration(most, 9).look(&reply.repeat(9)), Ok(9));
    }

    #[test]
    fn a_length_is_refused_before_its_bytes_come() {
        for head in [
            "$101\r\n",
            "*40\r\n",
            "%20\r\n",
            "~40\r\n",
            ">40\r\n",
            "=1000000000000\r\n",
            "*1\r\n*99999999999999999\r\n",
        ] {
            let found = ration(100, 1).look(head.as_bytes());
            assert_eq!(found, Err(NotRedis::TooLong(100)), "{head}");
        }
    }

    #[test]
    fn what_is_no_reply_is_strange() {
        let long_line = format!("+{}", "x".repeat(LINE_MOST + 1));
        for bytes in [
            "HTTP/1.1 400 Bad Request\r\n",
            "\r\n",
            "$x\r\n",
            "$-2\r\n",
            "$18446744073709551615\r\n",
            "*?\r\n",
            "|1\r\n",
            "+no end\n",
            &"*1\r\n".repeat(6),
            &long_line,
        ] {
            let found = ration(1 << 20, 1).look(bytes.as_bytes());
            assert_eq!(found, Err(NotRedis::Strange), "{bytes:?}");
        }
    }

    #[test]
    fn replies_must_be_asked_for_and_messages_need_not() {
        let push = b">3\r\n+message\r\n$1\r\na\r\n$1\r\nx\r\n";
        let mut one = ration(100, 1);
        assert_eq!(one.look(&push.repeat(50)), Ok(50));
        assert_eq!(one.look(b"*2\r\n:1\r\n*1\r\n+OK\r\n"), Ok(1));
        assert_eq!(one.look(b"_\r\n"), Err(NotRedis::Unasked));
    }

    proptest! {
        #[test]
        fn splits_make_no_difference(
            marks in proptest::collection::vec("[-+:$*%>_=]?(-1|[0-9]{1,2}|x)?(\r\n)?", 0..20),
            split in 0usize..64,
        ) {
            check_ration(marks.concat().as_bytes(), split);
        }
    }
}
