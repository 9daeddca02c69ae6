//! Which option is behind a deadline, so that an error says what to change.

use poetry::error::{Error, Stage};

/// The text of an error. If a deadline passed, it ends in the option that sets it;
/// `total` is the command's option for the work as a whole.
pub(super) fn explain(error: &Error, total: &str) -> String {
    let Error::Timeout { stage, .. } = error else {
        return error.to_string();
    };
    let option = match stage {
        Stage::Resolve | Stage::Connect => "--connect-timeout",
        Stage::Send | Stage::FirstByte | Stage::NextByte => "--idle-timeout",
        Stage::Turn | Stage::Complete | Stage::Transform | Stage::Program => total,
    };
    format!("{error} ({option})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_error_by_a_deadline_names_the_option() {
        let timeout = |stage| Error::Timeout {
            subject: "h:1".into(),
            stage,
            limit: Duration::from_secs(5),
        };
        for (stage, text) in [
            (
                Stage::Resolve,
                "h:1: the resolver did not answer within 5s (--connect-timeout)",
            ),
            (
                Stage::Connect,
                "h:1: no connection within 5s (--connect-timeout)",
            ),
            (Stage::FirstByte, "h:1: no reply within 5s (--idle-timeout)"),
            (
                Stage::NextByte,
                "h:1: nothing more within 5s (--idle-timeout)",
            ),
            (Stage::Complete, "h:1: not complete within 5s (--timeout)"),
        ] {
            assert_eq!(explain(&timeout(stage), "--timeout"), text);
        }

        let empty = Error::Empty {
            subject: "h:1".into(),
        };
        assert_eq!(explain(&empty, "--timeout"), "h:1: an empty reply");
    }
}
