//! Fuzzes `addr`. The check is in `fuzz/src/addr.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::addr::check(data));
