//! Fuzzes `script`. The check is in `fuzz/src/script.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::script::check(data));
