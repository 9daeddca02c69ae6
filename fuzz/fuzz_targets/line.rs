//! Fuzzes `line`. The check is in `fuzz/src/line.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::line::check(data));
