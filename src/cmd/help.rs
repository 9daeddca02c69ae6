//! The help: which options are under which heading, and whether their variables are
//! shown. All this is added only where help is asked for, because it takes time.

use clap::{Arg, Command};

/// The headings and their options, for each command; `*` is for all. Other options are
/// under clap's own heading, "Options".
const HEADINGS: [(&str, &str, &str); 10] = [
    (
        "proxy",
        "Cache",
        "ttl ttl-for ttl-jitter grace fail-ttl whole max-poem capacity reject min-bytes key-fold",
    ),
    (
        "proxy",
        "Upstream",
        "connect-timeout idle-timeout fetch-timeout upstream-conns upstream-queue \
         upstream-rate reject-pause",
    ),
    (
        "fetch",
        "Servers",
        "timeout connect-timeout idle-timeout retry ask max-poem",
    ),
    ("fetch", "Output", "output json"),
    ("serve", "Rehearsal", "delay num-bytes script"),
    (
        "transform",
        "Transformation",
        "exec list max-poem timeout connect-timeout idle-timeout",
    ),
    ("*", "Transformation", "transform via on-transform-failure"),
    (
        "*",
        "Clients",
        "max-clients client-timeout drain-timeout allow deny max-per-address client-rate \
         proxy-protocol refusal",
    ),
    ("*", "Operators", "admin admin-mode admin-token admin-host"),
    (
        "*",
        "Output",
        "quiet verbose color log-format log-only log-slow log-sample",
    ),
];

/// Whether help was asked for, and whether the long one: with `--help`, not `-h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    No,
    Short,
    Long,
}

/// What these arguments ask for.
pub(super) fn asked<'a>(args: impl Iterator<Item = &'a str>) -> Asked {
    let mut asked = Asked::No;
    for arg in args {
        let has_h = || arg.starts_with('-') && !arg.starts_with("--") && arg.contains('h');
        match arg {
            "help" | "--help" => return Asked::Long,
            _ if has_h() => asked = Asked::Short,
            _ => {}
        }
    }
    asked
}

/// Puts the options of `command` and its subcommands under their headings.
pub(super) fn arrange(command: Command) -> Command {
    let name = command.get_name().to_string();
    let command = command.mut_args(|arg| match heading(&name, &arg) {
        Some(heading) => arg.help_heading(heading),
        None => arg,
    });
    command.mut_subcommands(arrange)
}

fn heading(command: &str, option: &Arg) -> Option<&'static str> {
    let long = option.get_long()?;
    let (_, heading, _) = HEADINGS.iter().find(|(of, _, options)| {
        let is_its_own = *of == "*" || *of == command;
        is_its_own && options.split(' ').any(|option| option == long)
    })?;
    Some(heading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_short_or_long() {
        let asked = |line: &'static str| asked(line.split(' '));
        assert_eq!(asked("fetch 10001"), Asked::No);
        assert_eq!(asked("fetch -h"), Asked::Short);
        assert_eq!(asked("fetch -qh"), Asked::Short);
        assert_eq!(asked("fetch -h --help"), Asked::Long);
        assert_eq!(asked("help fetch"), Asked::Long);
    }
}
