//! The `poetry` program. The command line is in `cmd`, the work in the `poetry`
//! library.

#![warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod cmd;

fn main() {
    cmd::cli::main()
}
