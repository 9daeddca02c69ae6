//! Feeds `log_escape`; what is checked stands in `fuzz/src/log_escape.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::log_escape::check(data));
