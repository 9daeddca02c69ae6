//! The one binary: parse, run, turn the result into an exit code.

#![warn(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod cmd;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Read when the runtime starts, so it is set before anything else, on the only thread.
    // One thread beside the main one: the work here is the kernel's, and starting threads is a part of `fetch`'s time.
    set_default("ASYNC_STD_THREAD_COUNT", "1");
    // DNS look-ups run on the blocking pool and can't be cancelled: 500 hung ones would be 500 threads. Half of these
    // are kept from them (see `net`), for what else may block.
    set_default("BLOCKING_MAX_THREADS", "16");
    cmd::quiet_panics();
    cmd::main()
}

fn set_default(name: &str, value: &str) {
    if std::env::var_os(name).is_none() {
        std::env::set_var(name, value);
    }
}
