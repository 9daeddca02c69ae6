//! Fuzzes `cache`. The check is in `fuzz/src/cache.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::cache::check(data));
