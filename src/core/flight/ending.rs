//! The end of a flight, for what wants to know it and reads nothing.
//!
//! It is no reader: it sets no pace, and keeps no fetch from being dropped.

use super::Inner;
use super::state::{End, FlightState};
use crate::error::Error;
use std::sync::Arc;

/// The end of a flight. It holds the flight's bytes as long as it exists.
pub struct Ending {
    shared: Arc<Inner>,
}

impl Ending {
    pub(super) fn new(shared: Arc<Inner>) -> Ending {
        Ending { shared }
    }

    /// How the flight ended, if it has: whether its text is kept.
    pub fn get(&self) -> Option<Result<bool, Arc<Error>>> {
        outcome(&self.shared.lock())
    }

    /// Waits for the end, and says whether the text is kept. It has no limit of its
    /// own; that of the fetch is its limit.
    ///
    /// # Errors
    /// Why there is no whole text.
    pub async fn wait(&self) -> Result<bool, Arc<Error>> {
        loop {
            if let Some(end) = self.get() {
                return end;
            }

            let ended = self.shared.ended.listen(); // before the second look
            if let Some(end) = self.get() {
                return end;
            }
            ended.await;
        }
    }
}

fn outcome(state: &FlightState) -> Option<Result<bool, Arc<Error>>> {
    match state.end.as_ref()? {
        End::Landed { kept } => Some(Ok(*kept)),
        End::Failed(error) => Some(Err(error.clone())),
    }
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ending({:?})", self.get())
    }
}
