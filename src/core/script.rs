//! Failures on demand: what `serve --script` does to each connection, to rehearse an
//! outage.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What happens to one connection. N is a number of bytes of the poem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The whole poem.
    Ok,
    /// A clean end without a byte.
    Empty,
    /// A reset after N bytes.
    Reset(usize),
    /// A clean but early end after N bytes.
    Eof(usize),
    /// N bytes, then nothing more, and no end.
    Stall(usize),
    /// N bytes a second, at least one.
    Slow(usize),
    /// A reset at once.
    Refuse,
}

/// The forms of a step, for error messages.
const FORMS: &str = "ok, empty, reset@N, eof@N, stall@N, slow@N or refuse";

/// Why a text is not a step. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; wanted {FORMS}")]
pub struct BadStep(&'static str);

impl FromStr for Step {
    type Err = BadStep;

    fn from_str(text: &str) -> Result<Step, BadStep> {
        match text.split_once('@') {
            Some((word, count)) => counted(word, count),
            None => uncounted(text),
        }
    }
}

fn uncounted(word: &str) -> Result<Step, BadStep> {
    match word {
        "ok" => Ok(Step::Ok),
        "empty" => Ok(Step::Empty),
        "refuse" => Ok(Step::Refuse),
        "reset" | "eof" | "stall" | "slow" => Err(BadStep("no @N after it")),
        _ => Err(BadStep("no such step")),
    }
}

fn counted(word: &str, count: &str) -> Result<Step, BadStep> {
    let step = match word {
        "reset" => Step::Reset,
        "eof" => Step::Eof,
        "stall" => Step::Stall,
        "slow" => Step::Slow,
        "ok" | "empty" | "refuse" => return Err(BadStep("this step takes no @N")),
        _ => return Err(BadStep("no such step")),
    };

    // Digits only: parse() would also take a leading plus.
    let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    match count.parse() {
        Ok(0) if word == "slow" => Err(BadStep(
            "slow needs at least one byte a second; for none there is stall@0",
        )),
        Ok(count) if digits => Ok(step(count)),
        _ => Err(BadStep("N is not a number of bytes")),
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

/// Steps, one for each connection that is answered. The last one repeats.
#[derive(Debug)]
pub struct Script {
    steps: Vec<Step>,
    turn: AtomicUsize,
}

impl Script {
    /// A script of these steps. Without any, every connection gets the whole poem.
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

        // Stops at the last step, so that the counter never wraps to the first one.
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
    fn a_bad_step_is_refused_with_the_reason() {
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
        fn a_step_reads_back_as_it_is_shown(
            text in "(ok|empty|reset|eof|stall|slow|refuse|.{0,4})(@[0-9]{0,5})?"
        ) {
            if let Ok(step) = text.parse::<Step>() {
                prop_assert_eq!(step.to_string().parse::<Step>(), Ok(step));
            }
        }
    }
}
