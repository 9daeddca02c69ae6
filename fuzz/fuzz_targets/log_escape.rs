//! Fuzzes `log_escape`. The check is in `fuzz/src/log_escape.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::log_escape::check(data));
