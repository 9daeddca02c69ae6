//! How one client gets a poem that is not simply sent from memory: at which pace, how
//! much of it, and with which end.

use crate::anthology::TextReader;
use crate::error::Error;
use crate::flight::{self, Reader, Writer};
use crate::rt;
use crate::script::Step;
use crate::trickle::{Pace, Trickle};
use std::time::Duration;

/// How far a slow poem may be ahead of its client, in bytes.
const AHEAD: u64 = 64 << 10;

/// How one client gets a poem.
#[derive(Debug)]
pub(super) struct Plan {
    pace: Pace,
    /// The most bytes that are sent.
    most: u64,
    end: PlannedEnd,
}

/// What comes after the last byte.
#[derive(Debug)]
enum PlannedEnd {
    /// The poem's end.
    Whole,
    /// A failure.
    Failed(Error),
    /// Nothing.
    Silence,
}

impl Plan {
    /// What this step of a script asks for. Without a pace, a poem comes as fast as it
    /// is taken.
    pub(super) fn new(step: Step, pace: Option<Pace>) -> Plan {
        let (most, end) = match step {
            Step::Ok | Step::Slow(_) => (u64::MAX, PlannedEnd::Whole),
            Step::Empty => (0, PlannedEnd::Whole),
            Step::Eof(count) => (count as u64, PlannedEnd::Whole),
            Step::Reset(count) => (count as u64, rehearsed(step)),
            Step::Refuse => (0, rehearsed(step)),
            Step::Stall(count) => (count as u64, PlannedEnd::Silence),
        };
        let pace = match step {
            Step::Slow(rate) => pace_of(rate),
            _ => pace.unwrap_or(Pace::FULL),
        };

        Plan { pace, most, end }
    }

    /// Whether the whole poem is sent as fast as it is taken.
    pub(super) fn is_plain(&self) -> bool {
        let is_whole = self.most == u64::MAX && matches!(self.end, PlannedEnd::Whole);
        is_whole && self.pace.delay.is_zero()
    }

    /// Starts to send a poem to one reader. At full pace, the next piece is read once
    /// the kernel has taken the last one. So a client that takes nothing holds one
    /// piece.
    pub(super) fn start(self, text: TextReader) -> Reader {
        let window = if self.pace.delay.is_zero() { 1 } else { AHEAD };
        let (writer, reader) = flight::pipe(window);
        rt::spawn(self.send(text, writer));
        reader
    }

    /// Sends a poem. Stops when its reader leaves.
    async fn send(self, text: TextReader, mut writer: Writer) {
        let mut trickle = Trickle::new(text, self.pace);
        let mut left = self.most;
        while left > 0 {
            if writer.readers() == 0 || writer.writable().await.is_err() {
                return;
            }

            match trickle.next().await {
                Ok(Some(mut bytes)) => {
                    bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    left -= bytes.len() as u64;
                    writer.append(bytes);
                }
                Ok(None) => break,
                Err(error) => return writer.fail(error),
            }
        }

        match self.end {
            PlannedEnd::Whole => writer.finish(false),
            PlannedEnd::Failed(error) => writer.fail(error),
            PlannedEnd::Silence => writer.deserted().await,
        }
    }
}

fn rehearsed(step: Step) -> PlannedEnd {
    PlannedEnd::Failed(Error::Rehearsed {
        step: step.to_string(),
    })
}

/// The pace for a rate in bytes a second.
fn pace_of(rate: usize) -> Pace {
    const STEPS_A_SECOND: usize = 10;

    let bytes = rate.div_ceil(STEPS_A_SECOND);
    let delay = Duration::from_secs_f64(bytes as f64 / rate as f64);
    Pace { bytes, delay }
}
