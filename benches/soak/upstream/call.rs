//! One call of a proxy, answered on a thread of its own.

use super::{Fault, FaultyUpstream};
use crate::plan::MAX_POEM;
use crate::text::{NO_KEY, SHORTEST, compose};
use fastrand::Rng;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longer than a proxy ever takes to close its connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A length: mostly short, as poems are, but long enough overall that not all texts can
/// be cached.
fn length(rng: &mut Rng) -> usize {
    match rng.u32(..10) {
        0..=4 => rng.usize(SHORTEST..4 << 10),
        5..=7 => rng.usize(SHORTEST..128 << 10),
        _ => rng.usize(SHORTEST..MAX_POEM),
    }
}

/// A call, as the thread that answers it knows it.
pub struct Call {
    pub upstream: Arc<FaultyUpstream>,
    pub stream: Arc<TcpStream>,
    pub serial: u64,
    /// The number of its text: its own, or that of an earlier call with the same text.
    pub text: u64,
    pub fault_name: &'static str,
    /// How many bytes have been sent.
    pub sent: Arc<AtomicUsize>,
    pub rng: Rng,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.upstream.forget(self.serial);
    }
}

impl Call {
    /// Sends a part and resets, without reading a request.
    pub(super) fn reset_early(mut self) {
        let text = compose(NO_KEY, self.serial, SHORTEST << 4);
        let part = self.rng.usize(1..text.len());
        let _gone = (&*self.stream).write(&text[..part]);
        self.reset();
    }

    /// Answers with this fault. An error means that the proxy has closed the
    /// connection, which is allowed.
    pub(super) fn answer(mut self, fault: Fault) {
        let _gone = self.try_to_answer(fault);
    }

    fn try_to_answer(&mut self, fault: Fault) -> io::Result<()> {
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.set_nodelay(true)?;
        let key = self.read_request(fault == Fault::NeverReads)?;
        self.upstream.identify(self.serial, &key);

        let len = match fault {
            Fault::ByteByByte => self.rng.usize(SHORTEST..SHORTEST * 4),
            Fault::EndlessThenReset | Fault::EndlessThenEnd => {
                MAX_POEM + self.rng.usize(1..3 * MAX_POEM)
            }
            Fault::AsLongAsAllowed => MAX_POEM,
            Fault::OneTooLong => MAX_POEM + 1,
            _ => length(&mut self.rng),
        };
        let is_too_long = len > MAX_POEM;

        if is_too_long {
            self.upstream.mark_too_long(&key);
        }
        let len = if is_too_long {
            len
        } else {
            self.share(&key, len)
        };
        let text = compose(&key, self.text, len);
        self.perform(fault, &text)?;
        if is_too_long {
            self.upstream.mark_too_long(&key);
        }
        Ok(())
    }

    /// Takes the text that the key has for now. Returns its length.
    fn share(&mut self, key: &str, len: usize) -> usize {
        let (text, len) = self.upstream.version(key, (self.serial, len));
        if text != self.serial {
            self.text = text;
            self.upstream.ledger.begin(text, self.fault_name);
        }
        len
    }

    fn perform(&mut self, fault: Fault, text: &[u8]) -> io::Result<()> {
        let part = self.rng.usize(..text.len());
        match fault {
            Fault::InPieces => self.send_in_pieces(text)?,
            Fault::ByteByByte => text.chunks(1).try_for_each(|byte| self.send(byte))?,
            Fault::ResetMidway => self.send(&text[..part])?,
            Fault::EndlessThenReset => self.send(&text[..part.max(MAX_POEM)])?,
            Fault::Stall => {
                self.send(&text[..part])?;
                return self.wait();
            }
            Fault::ResetBeforeAny | Fault::Empty => {}
            _ => self.send(text)?,
        }

        match fault {
            Fault::ResetMidway
            | Fault::ResetBehindTheLast
            | Fault::ResetBeforeAny
            | Fault::EndlessThenReset => {
                self.reset();
                return Ok(());
            }
            Fault::Empty => return self.close(),
            _ => {}
        }

        self.upstream.ledger.end(self.text);
        if text.len() <= MAX_POEM {
            self.upstream.whole.fetch_add(1, Ordering::Relaxed);
        }
        self.close()?;
        if fault == Fault::HalfClosed {
            return self.wait();
        }
        Ok(())
    }

    /// The request line. With `only_peek` its bytes stay unread.
    fn read_request(&mut self, only_peek: bool) -> io::Result<String> {
        const PAUSE: Duration = Duration::from_millis(1);

        let options = &self.upstream.options;
        if !options.takes_line {
            return Ok(options.name.to_string());
        }

        let start = Instant::now();
        let mut line = [0; 1024];
        loop {
            let count = self.stream.peek(&mut line)?;
            let end = line[..count].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                if !only_peek {
                    (&*self.stream).read_exact(&mut line[..=end])?;
                }
                return Ok(String::from_utf8_lossy(&line[..end]).trim_end().to_string());
            }

            if count == 0 || start.elapsed() > PATIENCE {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Counts bytes and sends them, in this order: the proxy must never have more of
    /// them than the count says.
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        const PIECE: usize = 64 << 10;

        for piece in bytes.chunks(PIECE) {
            self.sent.fetch_add(piece.len(), Ordering::AcqRel);
            (&*self.stream).write_all(piece)?;
        }
        Ok(())
    }

    /// Sends random pieces with pauses, all within a fetch's time.
    fn send_in_pieces(&mut self, text: &[u8]) -> io::Result<()> {
        const PIECES: usize = 30;
        const LONGEST_PAUSE_MS: u64 = 40;

        let mut rest = text;
        for left in (1..=PIECES).rev() {
            let most = (2 * rest.len() / left).max(1);
            let (piece, more) = rest.split_at(self.rng.usize(..=most).min(rest.len()));
            self.send(piece)?;
            rest = more;
            std::thread::sleep(Duration::from_millis(self.rng.u64(..LONGEST_PAUSE_MS)));
        }
        self.send(rest)
    }

    /// Sends nothing until the proxy closes the connection.
    fn wait(&self) -> io::Result<()> {
        let mut buffer = [0; 1024];
        while (&*self.stream).read(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Ends the text cleanly. The call counts as over before the proxy can know of it.
    fn close(&self) -> io::Result<()> {
        self.upstream.forget(self.serial);
        self.stream.shutdown(Shutdown::Write)
    }

    /// Arms a reset, which the close that follows sends. The call counts as over before
    /// that.
    fn reset(&self) {
        self.upstream.forget(self.serial);
        let _armed = socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
    }
}
