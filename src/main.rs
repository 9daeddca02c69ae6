//! The one binary. Everything it does is in `cmd`.

#![warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod cmd;

use std::process::ExitCode;

fn main() -> ExitCode {
    cmd::quiet_panics();
    cmd::main()
}
