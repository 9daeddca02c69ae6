//! The progress line of `fetch`.

use super::sink::Target;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

/// A progress line on stderr. It is hidden with `--quiet`, if stderr is not a terminal,
/// and if the poems go to the same terminal.
pub(super) fn bar(target: &Target, quiet: bool) -> ProgressBar {
    let mixes_with_poems = || *target == Target::Stdout && stdout().is_terminal();
    if quiet || !stderr().is_terminal() || mixes_with_poems() {
        return ProgressBar::hidden();
    }

    let style = ProgressStyle::with_template("{spinner} {bytes} {elapsed}");
    let bar = ProgressBar::new_spinner();
    bar.set_style(style.expect("the template is well formed"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
