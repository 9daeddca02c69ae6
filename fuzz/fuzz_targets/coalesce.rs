//! Fuzzes `coalesce`. The check is in `fuzz/src/coalesce.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::coalesce::check(data));
