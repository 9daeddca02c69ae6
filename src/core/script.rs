//! Trouble on demand: what `serve --script` does to one connection after the other, so that an outage can be rehearsed.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What happens to one connection. `N` are bytes of the poem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The poem, whole.
    Ok,
    /// A clean end without a byte.
    Empty,
    /// A reset after N bytes.
    Reset(usize),
    /// A clean but early end after N bytes.
    Eof(usize),
    /// N bytes, and then nothing at all.
    Stall(usize),
    /// N bytes a second, at least one.
    Slow(usize),
    /// A reset at once.
    Refuse,
}

/// What a step looks like, for messages.
const FORMS: &str = "ok, empty, reset@N, eof@N, stall@N, slow@N or refuse";

/// Why a text is no step; the caller quotes the text itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted {FORMS}")]
pub struct BadStep(&'static str);

impl FromStr for Step {
    type Err = BadStep;

    fn from_str(text: &str) -> Result<Step, BadStep> {
        let Some((word, count)) = text.split_once('@') else {
            return match text {
                "ok" => Ok(Step::Ok),
                "empty" => Ok(Step::Empty),
                "refuse" => Ok(Step::Refuse),
                "reset" | "eof" | "stall" | "slow" => Err(BadStep("no @N behind it")),
                _ => Err(BadStep("no such step")),
            };
        };
        let step = match word {
            "reset" => Step::Reset,
            "eof" => Step::Eof,
            "stall" => Step::Stall,
            "slow" => Step::Slow,
            "ok" | "empty" | "refuse" => return Err(BadStep("it takes no @N")),
            _ => return Err(BadStep("no such step")),
        };
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()); // parse() takes a plus
        match count.parse() {
            Ok(0) if word == "slow" => Err(BadStep("no byte a second is stall@0")),
            Ok(count) if digits => Ok(step(count)),
            _ => Err(BadStep("N is not a number of bytes")),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Ok => f.write_str("ok"),
            Step::Empty => f.write_str("empty"),
            Step::Reset(count) => write!(f, "reset@{count}"),
            Step::Eof(count) => write!(f, "eof@{count}"),
            Step::Stall(count) => write!(f, "stall@{count}"),
            Step::Slow(count) => write!(f, "slow@{count}"),
            Step::Refuse => f.write_str("refuse"),
        }
    }
}

/// The steps, one for each connection that is answered; the last one repeats.
#[derive(Debug)]
pub struct Script {
    steps: Vec<Step>,
    turn: AtomicUsize,
}

impl Script {
    /// A script of these steps; of none, all is well.
    pub fn new(steps: Vec<Step>) -> Script {
        Script {
            steps,
            turn: AtomicUsize::new(0),
        }
    }

    /// The next connection's step.
    pub fn next(&self) -> Step {
        let Some(last) = self.steps.len().checked_sub(1) else {
            return Step::Ok;
        };
        // Saturating: it is the last step for ever, and not the first again after so many connections.
        let turn = self
            .turn
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |turn| {
                (turn < last).then_some(turn + 1)
            });
        self.steps[turn.unwrap_or(last)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_step_repeats() {
        let script = Script::new(vec![Step::Refuse, Step::Eof(3), Step::Ok]);
        let steps: Vec<Step> = (0..5).map(|_| script.next()).collect();
        assert_eq!(
            steps,
            [Step::Refuse, Step::Eof(3), Step::Ok, Step::Ok, Step::Ok]
        );
        assert_eq!(Script::new(Vec::new()).next(), Step::Ok);
    }

    #[test]
    fn what_is_no_step_is_refused_with_the_reason() {
        for text in [
            "",
            "OK",
            "ok@1",
            "reset",
            "reset@",
            "reset@+1",
            "reset@-1",
            "reset@1 ",
            "slow@0",
            "stall@1@2",
            "@1",
            "eof@99999999999999999999999",
        ] {
            let why = text.parse::<Step>().expect_err(text).to_string();
            assert!(
                why.ends_with("wanted ok, empty, reset@N, eof@N, stall@N, slow@N or refuse"),
                "{text}: {why}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_understood_as_it_is_shown(text in "(ok|empty|reset|eof|stall|slow|refuse|.{0,4})(@[0-9]{0,5})?") {
            if let Ok(step) = text.parse::<Step>() {
                prop_assert_eq!(step.to_string().parse::<Step>(), Ok(step));
            }
        }
    }
}
