//! Fuzzes `routes`. The check is in `fuzz/src/routes.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::routes::check(data));
