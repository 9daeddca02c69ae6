//! Fuzzes `admin`. The check is in `fuzz/src/admin.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::admin::check(data));
