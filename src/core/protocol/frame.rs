//! Requests and netstrings as they are sent.

/// A framed request and how much of it has been sent. The body is borrowed, not copied:
/// it may be large, and many requests may be on their way.
#[derive(Debug, Clone, Default)]
pub struct Frame<'a> {
    head: Vec<u8>,
    body: &'a [u8],
    tail: &'static [u8],
    sent: usize,
}

impl<'a> Frame<'a> {
    /// The line of `body`.
    pub(super) fn line(body: &'a [u8]) -> Frame<'a> {
        Frame {
            head: Vec::new(),
            body,
            tail: b"\r\n",
            sent: 0,
        }
    }

    /// The netstring of `first` and `body`, one after the other. Copies only `first`.
    pub(crate) fn netstring(first: &[u8], body: &'a [u8]) -> Frame<'a> {
        let length = format!("{}:", first.len() + body.len());
        Frame {
            head: [length.as_bytes(), first].concat(),
            body,
            tail: b",",
            sent: 0,
        }
    }

    /// The bytes still to be sent, part by part.
    pub fn rest(&self) -> [&[u8]; 3] {
        let mut sent = self.sent;
        [&self.head[..], self.body, self.tail].map(|part| {
            let (gone, rest) = part.split_at(sent.min(part.len()));
            sent -= gone.len();
            rest
        })
    }

    /// Notes that `count` more bytes have been sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    /// All of its bytes.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len() + self.tail.len()
    }

    /// Whether all bytes have been sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent == self.len()
    }
}

/// The netstring of these bytes: `5:hello,`.
pub fn netstring(payload: &[u8]) -> Vec<u8> {
    let mut framed = format!("{}:", payload.len()).into_bytes();
    framed.reserve_exact(payload.len() + 1);
    framed.extend_from_slice(payload);
    framed.push(b',');
    framed
}
